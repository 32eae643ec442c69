"""The requests of a game day: recorded decisions of the log, of packs or of a file, or bare requests."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from pathlib import Path
from typing import Any

from lumyn.backtest_plan import Asked, home_of, make_plan, outcomes_of, source_of
from lumyn.config import LumynConfig, resolve
from lumyn.gamedays.scenario import Replayed, Scenario
from lumyn.pack_files import find_packs
from lumyn.replaying import check_pack, opened_pack
from memory_service.record_index import facts_of
from schemas.canonical import decode
from schemas.errors import BadInput, LumynError, NotFound, StorageUnavailable, UsageError
from schemas.ids import time_ms_of
from schemas.query import matches, parse_query
from schemas.request import parse_request
from schemas.seal import is_sealed, stored_of
from streams.diff import MISSHAPEN, checked_record
from streams.integrity import require
from streams.local_log import wall_clock_ms
from streams.packs import read_pack
from streams.sealing import opened_record
from streams.subject_keys import NO_KEYS

MOST = 50_000
"""Requests a game day takes at the most: a longer range wants a backtest."""
FIRST_MS = 1_735_689_600_000
"""2025-01-01: when the first of bare requests comes, which have no time of their own; one a second."""


@dataclass(frozen=True, slots=True)
class Recorded:
    """What was decided once: the request as its caller asked it, and what became of it then."""

    request: Mapping[str, Any]
    time_ms: int
    decision_id: str | None = None
    verdict: str | None = None
    reason_codes: tuple[str, ...] = ()
    memory_version: int | None = None
    memory_epoch: str | None = None
    sealed: bool = False

    @property
    def request_id(self) -> str | None:
        """Its own, if it had one."""
        found = self.request.get("request_id")
        return found if isinstance(found, str) else None


@dataclass(slots=True)
class Traffic:
    """The requests in the order of their decisions, what they come from, and what was left out."""

    source: str
    requests: list[Recorded]
    left_out: Counter[str] = field(default_factory=Counter)

    def find(self, wanted: int | str) -> list[int]:
        """The numbers of a request: by its number, its request_id, or the id of its decision (or the id's start)."""
        if isinstance(wanted, int):
            return [wanted] if wanted <= len(self.requests) else []
        text = wanted.rstrip(".…")
        return [
            number
            for number, one in enumerate(self.requests, start=1)
            if one.request_id == wanted
            or (one.decision_id is not None and len(text) >= 10 and one.decision_id.startswith(text.upper()))
        ]


def load_traffic(scenario: Scenario, config: LumynConfig | None, say: Callable[[str], None]) -> Traffic:
    """The requests that a scenario names. Raises `UsageError` when there are none, and what reading raises."""
    replay = scenario.replay
    if replay.file is not None and _are_requests(scenario.beside(replay.file)):
        traffic = _of_requests(scenario, config)
    elif replay.packs:
        traffic = _of_packs(scenario, config)
    else:
        traffic = _of_records(scenario, config, say)
    if not traffic.requests:
        left = ", ".join(f"{count} {why}" for why, count in sorted(traffic.left_out.items()))
        raise UsageError(
            "no decision to play: none is in what `replay` names" + (f" ({left} left out)" if left else ""),
            where=_place(scenario, replay),
        )
    if scenario.clock is not None:
        begin = _begin(scenario)
        shift = begin - traffic.requests[0].time_ms
        traffic.requests = [_moved(one, shift) for one in traffic.requests]
    return traffic


def _place(scenario: Scenario, replay: Replayed) -> str:
    return f"{scenario.path}:{replay.mark.line}:{replay.mark.column}"


def _begin(scenario: Scenario) -> int:
    try:
        moment = datetime.fromisoformat(str(scenario.clock))
    except ValueError:
        raise UsageError(
            f"`clock` `{scenario.clock}` is no time", where=str(scenario.path), help="such as 2026-01-31T14:00:00Z"
        ) from None
    if moment.tzinfo is None:
        moment = datetime.fromisoformat(f"{scenario.clock}+00:00")
    return int(moment.timestamp() * 1000)


def _moved(one: Recorded, by: int) -> Recorded:
    return replace(one, time_ms=one.time_ms + by)


def _are_requests(path: Path) -> bool:
    """Whether a file holds bare requests: its first line is no record."""
    try:
        with path.open("rb") as file:
            first = next((line for line in file if line.strip()), b"")
    except FileNotFoundError:
        raise NotFound("no such file", where=str(path)) from None
    except OSError as error:
        raise StorageUnavailable(f"can't be read: {error.strerror or error}", where=str(path)) from None
    try:
        value = decode(first, where=str(path))
    except BadInput:
        return False
    return isinstance(value, dict) and "decision_id" not in value and "action" in value


def _of_requests(scenario: Scenario, config: LumynConfig | None) -> Traffic:
    replay, path = scenario.replay, scenario.beside(str(scenario.replay.file))
    if replay.query is not None:
        raise UsageError("`query` chooses among decisions, and these are bare requests", where=_place(scenario, replay))
    tenant = resolve(config).tenant
    found: list[Recorded] = []
    with path.open("rb") as file:
        for number, line in enumerate(file, start=1):
            if line.strip():
                request = parse_request(line, tenant=tenant, where=f"{path}:{number}")
                found.append(Recorded(request.value, FIRST_MS + 1000 * len(found)))
                _check_size(len(found), scenario)
    return Traffic(path.name, found[: replay.limit])


def _check_size(count: int, scenario: Scenario) -> None:
    if count > MOST:
        raise UsageError(
            f"more than {MOST} requests", where=_place(scenario, scenario.replay),
            help="narrow `replay` by `from`, `to`, `query` or `limit`; `lumyn backtest` goes over long ranges",
        )  # fmt: skip


def _of_packs(scenario: Scenario, config: LumynConfig | None) -> Traffic:
    """Each pack is checked whole first. Raises `IntegrityError`, `BadPack`, `NotFound`."""
    replay, home = scenario.replay, home_of(config)
    query = None if replay.query is None else parse_query(replay.query, now_ms=wall_clock_ms())
    left_out, found = Counter[str](), list[Recorded]()
    for path in find_packs([scenario.beside(name) for name in replay.packs]):
        pack = read_pack(path)
        require(check_pack(pack, settings_home=None if home is None else home.path), where=str(path))
        record = opened_pack(pack)
        if is_sealed(record):
            left_out["redacted"] += 1
        elif query is None or matches(query, facts_of(record)):
            found.append(_recorded(record))
    return Traffic("packs", _in_order(found)[-(replay.limit or 0) :], left_out)


def _of_records(scenario: Scenario, config: LumynConfig | None, say: Callable[[str], None]) -> Traffic:
    replay = scenario.replay
    files = () if replay.file is None else (str(scenario.beside(replay.file)),)
    asked = Asked(files=files, start=replay.start, end=replay.end, query=replay.query, limit=replay.limit, kept="cases")
    plan = make_plan(asked, config, say, lambda what, size: lambda count: None)
    home = home_of(config)
    keys = NO_KEYS if home is None else home.log.keys
    chosen, outcomes, left_out = plan.chosen(), outcomes_of(plan, home), Counter[str]()
    source = source_of(asked, plan.fixed.stretches, home)
    found: list[Recorded] = []
    for raw in (raw for stretch in plan.fixed.stretches for raw in source.read(stretch)):
        if not chosen.by_id(raw):
            continue
        try:
            record = opened_record(keys, checked_record(raw.value))
            if not chosen.takes(record, outcomes.of(record["decision_id"], record["verdict"]).label):
                continue
            if is_sealed(record):
                left_out["erased, or sealed under a key that is not here"] += 1
                continue
            found.append(_recorded(record))
        except (LumynError, *MISSHAPEN):
            left_out["unsound"] += 1
        _check_size(len(found), scenario)
    return Traffic("the log" if not files else Path(files[0]).name, _in_order(found), left_out)


def _in_order(found: list[Recorded]) -> list[Recorded]:
    return sorted(found, key=lambda one: (one.time_ms, one.decision_id or ""))


def _recorded(record: Mapping[str, Any]) -> Recorded:
    return Recorded(
        request=record["request"],
        time_ms=time_ms_of(record["created_at"]),
        decision_id=record["decision_id"],
        verdict=record["verdict"],
        reason_codes=tuple(record["reason_codes"]),
        memory_version=record["memory"]["version"],
        memory_epoch=record["memory"]["epoch"],
        sealed=is_sealed(stored_of(record)),
    )
