"""Decisions: the list with its search box, one decision with all that is known of it, replay and label."""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from tempfile import TemporaryDirectory
from typing import Any, Final

from starlette.responses import RedirectResponse, Response

from lumyn import sdk
from lumyn.console import render
from lumyn.console.conditions import held_against
from lumyn.console.neighbours import picture
from lumyn.console.page import Page
from lumyn.console.visit import Visit
from lumyn.lookup import find_record, sound_record
from lumyn.searching import understood
from memory_service.record_index import Cursor, IndexedRecord
from schemas.errors import BadInput, BadQuery, IntegrityError, LumynError
from schemas.ids import is_decision_id, time_ms_of
from schemas.query import Query, describe
from schemas.seal import is_sealed
from streams.explain import explain_record
from streams.index_sync import fetcher
from streams.sealing import shown_record

ROWS: Final = 50
_NEAREST: Final = 3
_DONE: Final = {
    "labelled": "The label is stored, and decisions from now on are made with it.",
    "noted": "The note is stored.",
}
_LABELS: Final = ("failure", "success", "retracted", "note")
_SHOULDS: Final = ("", "ALLOW", "DENY", "ESCALATE")


@dataclass(frozen=True, slots=True)
class Found:
    """A page of a list. `older` and `newer` are where the next pages begin; None: there are none."""

    rows: list[IndexedRecord]
    older: str | None
    newer: str | None


@dataclass(frozen=True, slots=True)
class Mistake:
    """What is wrong with a query, and the column (from 1) that it is at."""

    message: str
    column: int | None
    help: str | None


def find_page(visit: Visit, query: Query | None, after: str | None, before: str | None, rows: int = ROWS) -> Found:
    """A page of the tenant's decisions, newest first. Raises `BadInput` for a cursor that is none."""
    for cursor in (after, before):
        if cursor and not is_decision_id(cursor):
            raise BadInput("this place in the list is none", help="begin at the newest again")
    home = visit.home
    backwards = bool(before)
    start = before or after
    found = home.index().find(
        query, tenant=visit.principal.tenant, limit=rows + 1, after=Cursor(start) if start else None,
        newest_first=not backwards, fetch=fetcher(home.log),
    )  # fmt: skip
    more, shown = len(found) > rows, found[:rows]
    if backwards:
        shown.reverse()
    older = shown[-1].decision_id if shown and (more or backwards) else None
    newer = shown[0].decision_id if shown and ((more and backwards) or (after and not backwards)) else None
    return Found(shown, older, newer)


def parsed(visit: Visit, text: str) -> tuple[Query | None, str, Mistake | None]:
    """A query as it was typed: parsed, in words, or what is wrong with it."""
    if not text.strip():
        return None, "", None
    try:
        query = understood(visit.home, text, lambda said: None)
    except BadQuery as error:
        place = (error.where or "").rpartition(":")[2]
        return None, "", Mistake(error.message, int(place) if place.isdigit() else None, _rest(error.help))
    return query, describe(query), None


def _rest(help_: str | None) -> str | None:
    """A help without its picture of the place: the page has its own."""
    told = (help_ or "").split("\n")
    return " ".join(told[3:] if told[0] == "here:" else told).strip() or None


def list_(visit: Visit) -> Response:
    """Decisions by a query, newest first."""
    text = visit.query.get("q", "")
    query, words, mistake = parsed(visit, text)
    found = Found([], None, None) if mistake else find_page(
        visit, query, visit.query.get("after"), visit.query.get("before")
    )  # fmt: skip
    return render.html(
        "decisions", 422 if mistake else 200, visit=visit, here="decisions", text=text, words=words, mistake=mistake,
        found=found,
    )  # fmt: skip


def show(visit: Visit) -> Response:
    """One decision."""
    return _page(visit, done=_DONE.get(visit.query.get("done", "")))


def _page(visit: Visit, status: int = 200, **more: Any) -> Response:
    home = visit.home
    name = visit.request.path_params["decision_id"]
    record = shown_record(home.log.keys, sound_record(home, name, visit.principal.tenant)[1])
    events = [e for e in home.events(record["decision_id"]) if e["tenant"] == visit.principal.tenant]
    nothing = dict.fromkeys(("done", "replayed", "checks", "altered", "error"))
    given: dict[str, Any] = {**nothing, "typed": {}, **more}
    visit.must_see(given["error"])
    return render.html(
        "decision", status, visit=visit, here="decisions", record=record, events=events,
        created_ms=time_ms_of(record["created_at"]), explained=explain_record(record).split("\n"),
        picture=picture(record), closed=is_sealed(record), event_id=uuid.uuid4().hex, labels=_LABELS,
        shoulds=_SHOULDS, fact=fact, **given,
    )  # fmt: skip


def fact(one: Mapping[str, Any]) -> str:
    """A fact of a trace and what it was held against: `chargeback_risk = 0.91 (≥ 0.8)`."""
    if one.get("missing"):
        value = "missing"
    else:
        value = render.as_json(one.get("value")) + (" (wrong type)" if one.get("wrong_type") else "")
    return f"{one['fact']} = {value} ({'not ' if one.get('not') else ''}{held_against(one['op'], one['want'])})"


def replay(visit: Visit) -> Response:
    """Decide it again now: from the recorded inputs, with the policy that decided, and say what differs."""
    from pathlib import Path

    from lumyn.exporting import export_pack
    from lumyn.replaying import as_dict, replay_pack

    home = visit.home
    raw, record = find_record(home, visit.request.path_params["decision_id"], visit.principal.tenant)
    try:
        with TemporaryDirectory() as folder:
            path = Path(folder) / "decision.zip"
            path.write_bytes(export_pack(home, raw, record))
            told = as_dict(replay_pack(path, config=visit.config, memory=visit.form.get("memory") or "recorded"))
    except IntegrityError:
        raise
    except LumynError as error:
        return _page(visit, 422, error=error)
    return _page(visit, replayed=told)


def verify(visit: Visit) -> Response:
    """Check the whole record, and its place in the log."""
    from lumyn.checkpointing import home_chain
    from streams.verify import verify_record

    home = visit.home
    raw, record = find_record(home, visit.request.path_params["decision_id"], visit.principal.tenant)
    chain = home_chain(home, check_leaves=False)
    return _page(visit, checks=verify_record(home.log, home.agent.control(), raw, record, chain=chain))


def alter(visit: Visit) -> Response:
    """What would have altered the verdict, found by deciding again."""
    from lumyn.explaining import counterfactual, in_home

    what = in_home(visit.home, visit.request.path_params["decision_id"])
    try:
        told = counterfactual(what, limit=_NEAREST)
    except LumynError as error:
        return _page(visit, 422, error=error)
    return _page(visit, altered=told["text"])


def label(visit: Visit) -> Response:
    """Say what really happened."""
    form = visit.form
    word = form.get("label", "")
    name = find_record(visit.home, visit.request.path_params["decision_id"], visit.principal.tenant)[1]["decision_id"]
    try:
        if word not in _LABELS:
            raise BadInput("choose what happened")
        sdk.label_in(
            visit.home, name, word, summary=form.get("summary", ""), should=form.get("should") or None,
            event_id=form.get("event_id") or None,
        )  # fmt: skip
    except BadInput as error:
        return _page(visit, 422, error=error, typed=form)
    done = "noted" if word == "note" else "labelled"
    return RedirectResponse(render.url("decisions", name, done=done) + "#history", 303, headers=dict(render.HEADERS))


PAGES: Final = (
    Page("/", "read", list_),
    Page("/decisions", "read", list_),
    Page("/decisions/{decision_id}", "read", show),
    Page("/decisions/{decision_id}/replay", "read", replay, "POST"),
    Page("/decisions/{decision_id}/verify", "read", verify, "POST"),
    Page("/decisions/{decision_id}/alter", "read", alter, "POST"),
    Page("/decisions/{decision_id}/label", "label", label, "POST"),
)
