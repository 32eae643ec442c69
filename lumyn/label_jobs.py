"""Doing a label job: the plan is kept in the home before anything is said, so that it can be resumed as it was."""

from __future__ import annotations

import re
import uuid
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import cast

from lumyn.exporting import write_whole
from lumyn.home import Home
from lumyn.searching import search
from memory_service.fold import Standing
from schemas.canonical import decode_trusted, encode
from schemas.errors import BadConfig, LumynError, NotFound, StorageUnavailable, UsageError
from schemas.label import FULL_TRUST, LabelRequest
from schemas.seal import KID
from schemas.verdict import Verdict
from streams.label_history import Histories, histories
from streams.label_jobs import Decided, Plan, Signed, take_back

FOLDER = "jobs"
_AT_ONCE = 500
_NAME = re.compile(r"[a-z]+-[0-9a-f]{12}")


@dataclass(frozen=True, slots=True)
class Sent:
    """What became of a job: how many were accepted, which were refused and why, the last one's memory version."""

    accepted: int
    refused: tuple[tuple[str, LumynError], ...]
    version: int


def sign(home: Home, kind: str, why: str) -> Signed:
    """A new job of this home's actor and tenant."""
    if not why.strip():
        raise UsageError("`--why` is empty", help="a sentence: it stands in every event of the job")
    return Signed(f"{kind}-{uuid.uuid4().hex[:12]}", why, home.settings.actor, home.settings.tenant)


def known(home: Home) -> Histories:
    """Every labelled decision of the home's tenant, and the trust in who labelled them."""
    return histories(home.log, home.settings.tenant)


def found(home: Home, query: str, say: Callable[[str], None]) -> list[Decided]:
    """The decisions that a query finds, without the erased ones, which nothing can be said of. Raises `BadQuery`."""
    all_found = search(home, query, limit=None, newest_first=False, say=say)
    rows = [row for row in all_found if not _is_erased(home, row.subject_id or "")]
    if len(rows) < len(all_found):
        say(f"{len(all_found) - len(rows)} erased decisions are left out: their subjects were forgotten")
    return [Decided(row.decision_id, cast(Verdict, row.verdict)) for row in rows]


def _is_erased(home: Home, subject: str) -> bool:
    """Whether a subject, as it stands in the index, is the pseudonym of one that was forgotten."""
    return KID.match(subject) is not None and home.log.keys.state(subject) in ("erasing", "erased")


def undo(home: Home, labelled: Histories, job: str, why: str | None) -> Plan:
    """Take a whole job back. Raises `NotFound` for a job that said nothing here."""
    plan = take_back(sign(home, "undo", why or f"undo of {job}"), {"job": job}, labelled)
    told = chain(*labelled.trusts.values(), *(one.events for one in labelled.values()))
    if not plan.requests and not any(event["job"] == job for event in told):
        raise NotFound(f"no label of this tenant is of a job `{job}`", help="`lumyn show ID` names the job of a label")
    return plan


def save(home: Home, plan: Plan) -> None:
    """Keep a plan before it is done. Raises `StorageUnavailable`."""
    path = _file(home, plan.job)
    with suppress(OSError):  # writing tells
        path.parent.mkdir(parents=True, exist_ok=True)
    write_whole(path, b"".join(encode(request) + b"\n" for request in plan.requests))


def load(home: Home, job: str) -> list[LabelRequest]:
    """The requests of a job that was begun here. Raises `NotFound`."""
    try:
        lines = _file(home, job).read_bytes().splitlines()
        return [decode_trusted(line) for line in lines]
    except FileNotFoundError:
        raise NotFound(
            f"no job `{job}` was begun in this home", help="a job is resumed where it was begun; or undo it"
        ) from None
    except (OSError, ValueError) as error:
        raise StorageUnavailable(f"the job can't be read: {error}", where=str(_file(home, job))) from None


def _file(home: Home, job: str) -> Path:
    if not _NAME.fullmatch(job):
        raise BadConfig(f"`{job}` is no job", help="such as relabel-0123456789ab")
    return home.path / FOLDER / f"{job}.jsonl"


def send(home: Home, requests: Sequence[LabelRequest], tick: Callable[[int], None]) -> Sent:
    """Say it all; what was said before is not said twice. Raises `LumynError` when it can't go on: resume it then."""
    accepted, refused, version = 0, [], 0
    for start in range(0, len(requests), _AT_ONCE):
        some = requests[start : start + _AT_ONCE]
        for request, result in zip(some, home.labels.label(some), strict=True):
            if isinstance(result, LumynError):
                refused.append((request.get("labeller") or request["decision_id"], result))
            else:
                accepted += 1
                version = max(version, result["version"])
        tick(len(some))
    return Sent(accepted, tuple(refused), version)


def standing_text(standing: Standing | None) -> str:
    """What a decision stands for in the memory, in words."""
    if standing is None:
        return "not in memory"
    marks = ["contested"] if standing.contested else []
    if standing.trust != FULL_TRUST:
        marks.append(f"trust {standing.trust / FULL_TRUST:g}")
    return standing.meaning + (f" ({', '.join(marks)})" if marks else "")
