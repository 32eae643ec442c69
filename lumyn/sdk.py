"""The SDK: decide, label, show, export, replay, each one call."""

from __future__ import annotations

import uuid
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, cast

from lumyn.collector import collector_paused
from lumyn.config import LumynConfig
from lumyn.home import Home
from lumyn.lookup import find_record, sound_record
from lumyn.policy_file import load_policy_file
from lumyn.wiring import existing_home, open_home
from schemas.canonical import decode_trusted
from schemas.errors import LumynError
from schemas.ids import is_decision_id
from schemas.label import LabelEvent, LabelRequest
from schemas.record import DecisionRecord
from schemas.request import Request, parse_request
from streams.deciding import Answer
from streams.sealing import shown_event, shown_record

RequestLike = Mapping[str, Any] | bytes | str


def decide(request: RequestLike, config: LumynConfig | None = None) -> DecisionRecord:
    """Decide one request and return its record, durably stored.

    A retry (same `request_id`, same body) returns the first record. Raises `BadRequest`, `BadJson`, `TooLarge`,
    `RequestConflict` (same `request_id`, another body), `PolicyInvalid`, `StorageUnavailable`.
    """
    home = open_home(config)
    parsed = parse_request(request, tenant=home.settings.tenant)
    return _record(home.agent.decide([parsed], home.given_policy)[0])


def decide_many(
    requests: Iterable[RequestLike], config: LumynConfig | None = None
) -> list[DecisionRecord | LumynError]:
    """Decide many in a few transactions. Order is kept; a bad request yields its error in its place."""
    with collector_paused():
        return _decide_many(requests, config)


def _decide_many(requests: Iterable[RequestLike], config: LumynConfig | None) -> list[DecisionRecord | LumynError]:
    home = open_home(config)
    results: list[DecisionRecord | LumynError | None] = []
    good: list[Request] = []
    places: list[int] = []
    for number, request in enumerate(requests):
        try:
            good.append(parse_request(request, tenant=home.settings.tenant, where=f"request {number + 1}"))
            places.append(number)
            results.append(None)
        except LumynError as error:
            results.append(error)
    for place, answer in zip(places, home.agent.decide(good, home.given_policy), strict=True):
        results[place] = answer if isinstance(answer, LumynError) else _record(answer)
    return cast("list[DecisionRecord | LumynError]", results)


def submit(request: RequestLike, config: LumynConfig | None = None) -> dict[str, Any]:
    """Append a request without waiting for its decision; returns its place in the log."""
    home = open_home(config)
    parsed = parse_request(request, tenant=home.settings.tenant)
    message = home.agent.submit([parsed])[0]
    if isinstance(message, LumynError):
        raise message
    return {"topic": f"{home.log.prefix}.{message.topic}", "partition": message.partition, "offset": message.offset}


def drain(config: LumynConfig | None = None) -> int:
    """Decide what was submitted; returns how many requests were waiting."""
    home = open_home(config)
    total = 0
    while count := home.agent.drain():
        total += count
    return total


def label(
    decision_id: str,
    label: str,
    *,
    summary: str = "",
    should: str | None = None,
    actor: str | None = None,
    event_id: str | None = None,
    settle: bool = False,
    wait_s: float = 3.0,
    config: LumynConfig | None = None,
) -> LabelEvent:
    """Append a label (failure, success, retracted) or a note. With an `event_id` a retry is applied once.

    Then waits until the next decision is made with it, `wait_s` seconds at the most (0: not at all); the label stands
    whether or not the memory has taken it in by then. Raises `NotFound` for an unknown decision (or another tenant's),
    `BadInput` for a contradictory label.
    """
    return label_in(
        existing_home(config), decision_id, label, summary=summary, should=should, actor=actor, event_id=event_id,
        settle=settle, wait_s=wait_s,
    )  # fmt: skip


def label_in(
    home: Home,
    decision_id: str,
    label: str,
    *,
    summary: str = "",
    should: str | None = None,
    actor: str | None = None,
    event_id: str | None = None,
    settle: bool = False,
    wait_s: float = 3.0,
) -> LabelEvent:
    """`label` in a home."""
    request = label_request(
        home, decision_id, label, summary=summary, should=should, actor=actor, event_id=event_id, settle=settle
    )
    try:
        result = home.labels.label([request])[0]
    except (ValueError, TypeError, KeyError):
        find_record(home, decision_id)  # raises `IntegrityError` for a record that is none any more
        raise
    if isinstance(result, LumynError):
        find_record(home, decision_id)  # says so first, and how to find one, when there is no such decision
        raise result
    if wait_s > 0 and result["type"] != "note":
        home.remembers(result["version"], wait_s)
    return shown_event(home.log.keys, result)


def label_request(
    home: Home,
    decision_id: str,
    label: str,
    *,
    summary: str,
    should: str | None = None,
    actor: str | None = None,
    event_id: str | None = None,
    settle: bool = False,
) -> LabelRequest:
    """The label request of a home's tenant and actor; a short id is completed, a whole one is not looked up."""
    whole = is_decision_id(decision_id)
    request: dict[str, Any] = {
        "event_id": event_id or uuid.uuid4().hex,
        "decision_id": decision_id if whole else find_record(home, decision_id)[1]["decision_id"],
        "tenant": home.settings.tenant,
        "type": "note" if label == "note" else "settle" if settle else "label",
        "summary": summary,
        "actor": actor or home.settings.actor,
    }
    if label != "note":
        request["label"] = label
    if should is not None:
        request["should"] = should
    return cast(LabelRequest, request)


def show(decision_id: str, config: LumynConfig | None = None) -> dict[str, Any]:
    """A record and its events: `{"record": ..., "events": [...]}`. Raises `NotFound`, `IntegrityError`."""
    home = existing_home(config)
    _, record = sound_record(home, decision_id)
    return {"record": dict(shown_record(home.log.keys, record)), "events": home.events(record["decision_id"])}


def explain(decision_id: str, config: LumynConfig | None = None) -> str:
    """Plain English from the record alone. Raises `NotFound`, `IntegrityError`."""
    from streams.explain import explain_record

    home = existing_home(config)
    _, record = sound_record(home, decision_id)
    return explain_record(record)


def counterfactuals(
    decision_id: str,
    *,
    to: str | None = None,
    limit: int = 5,
    memory: str | None = None,
    config: LumynConfig | None = None,
) -> dict[str, Any]:
    """The nearest changes that would have altered a decision's verdict, each decided again in full before it is given.

    `to`: only those that lead to this verdict. `memory`: `as-of` (default) asks it again, `recorded` does not.

    Returns what `lumyn explain --counterfactual --json` prints; that there are none is data. Raises `NotFound`,
    `IntegrityError`, `Erased`, `KeyMissing`; `UsageError` for a decision that can't be made again.
    """
    from lumyn.explaining import counterfactual, in_home

    return counterfactual(in_home(existing_home(config), decision_id), wanted=to, limit=limit, memory=memory)


def export(
    decision_id: str,
    out: str | Path,
    *,
    with_memory: bool = False,
    redact: bool = False,
    config: LumynConfig | None = None,
) -> Path:
    """Write a decision's signed pack; returns its path. `redact` leaves out what opens the personal part."""
    from lumyn.exporting import export_pack, write_whole

    home = existing_home(config)
    raw, record = find_record(home, decision_id)
    path = Path(out)
    write_whole(path, export_pack(home, raw, record, with_memory=with_memory, redact=redact))
    return path


def replay(
    pack: str | Path,
    *,
    policy: str | Path | None = None,
    memory: str | None = None,
    config: LumynConfig | None = None,
) -> dict[str, Any]:
    """Replay a pack; a difference is data, not an exception. Raises `BadPack`, `IntegrityError`."""
    from lumyn.replaying import as_dict, replay_pack

    candidate = load_policy_file(Path(policy)) if policy is not None else None
    return as_dict(replay_pack(Path(pack), config=config, candidate=candidate, memory=memory))


def backtest(
    policies: str | Path | Sequence[str | Path] = (),
    *,
    files: Sequence[str | Path] = (),
    start: str | None = None,
    end: str | None = None,
    query: str | None = None,
    limit: int | None = None,
    sample: int | None = None,
    seed: int = 0,
    memory: str = "recorded",
    by: Sequence[str] = (),
    cluster: str = "subject_id",
    require: Sequence[str] = (),
    outcomes: str | Path | None = None,
    config: LumynConfig | None = None,
) -> dict[str, Any]:
    """Evaluate candidate policies (default: the active one) over past decisions; returns the report of `--json`.

    Of the log, or of `files` (a data set of a record a line, or packs). `start` and `end` are times or positions.
    A missed bar is data: `report["passed"]`. Raises `PolicyInvalid`, `UsageError`, `BadQuery`, `NotFound`, `BadPack`,
    `StorageUnavailable`.
    """
    from lumyn.backtest_plan import Asked, candidate_file, make_plan
    from lumyn.backtesting import Job, carry_out

    named = (policies,) if isinstance(policies, str | Path) else tuple(policies)
    asked = Asked(
        files=tuple(map(str, files)),
        start=start,
        end=end,
        query=query,
        limit=limit,
        sample=sample,
        seed=seed,
        memory=memory,
        by=tuple(by),
        cluster=cluster,
        require=tuple(require),
        outcomes=None if outcomes is None else str(outcomes),
        policies=tuple(candidate_file(Path(path)) for path in named),
    )
    plan = make_plan(asked, config, lambda text: None, lambda what, size: lambda count: None)
    return carry_out(Job(plan), lambda count, run: None)


def _record(answer: Answer | LumynError) -> DecisionRecord:
    if isinstance(answer, LumynError):
        raise answer
    record = answer.record if answer.record is not None else decode_trusted(answer.canonical)
    return cast(DecisionRecord, record if type(record) is dict else dict(record))


__all__: Sequence[str] = (
    "backtest",
    "counterfactuals",
    "decide",
    "decide_many",
    "drain",
    "explain",
    "export",
    "label",
    "replay",
    "show",
    "submit",
)
