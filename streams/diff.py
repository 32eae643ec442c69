"""Diff: what a candidate policy changes over a data set of records. Each record is checked before it is read."""

from __future__ import annotations

import signal
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from typing import Any

from memory_service.recall import OFF, Recall, recorded
from schemas.canonical import decode, decode_trusted
from schemas.errors import BadJson, IntegrityError, LumynError
from schemas.ids import time_ms_of
from schemas.limits import MAX_RECORD_BYTES, MAX_RECORD_DEPTH
from schemas.reasons import CONTROL_STALE, INTERNAL_ERROR, KILL_SWITCH
from schemas.record import SCHEMA, digest_holds, record_digest
from schemas.seal import OPENING, is_sealed, open_record, opening_from
from schemas.verdict import Verdict
from streams.arbitration import arbitrate
from streams.policy import CompiledPolicy, load_policy
from streams.replay import check_recorded_memory
from streams.sealing import require_open

MISSHAPEN = (KeyError, TypeError, ValueError, AttributeError)
"""What reading a record raises that has its digest but not the form: of another version, or made by another."""
_CHUNK = 1000
_WORTH_PROCESSES = 4000


@dataclass(frozen=True, slots=True)
class Change:
    """One decision that comes out otherwise."""

    decision_id: str
    old: str
    new: str
    old_reasons: tuple[str, ...]
    new_reasons: tuple[str, ...]


@dataclass(slots=True)
class DiffResult:
    """Changes, the flip table old x new over every compared record, and the records that could not be compared."""

    compared: int = 0
    changes: list[Change] = field(default_factory=list)
    flips: Counter[tuple[str, str]] = field(default_factory=Counter)
    errors: list[tuple[int, str]] = field(default_factory=list)

    def add(self, other: DiffResult) -> None:
        """Take another part's result in."""
        self.compared += other.compared
        self.changes += other.changes
        self.flips += other.flips
        self.errors += other.errors


def diff_lines(lines: Iterable[tuple[int, bytes]], old: CompiledPolicy | None, new: CompiledPolicy) -> DiffResult:
    """Compare each record (a numbered line) under two policies; without `old`, with what was recorded."""
    result = DiffResult()
    for number, line in lines:
        try:
            record = checked_record(line)
            before = _verdict(record, old) if old is not None else (record["verdict"], tuple(record["reason_codes"]))
            after = _verdict(record, new)
        except LumynError as error:
            result.errors.append((number, str(error)))
            continue
        except MISSHAPEN as error:
            result.errors.append((number, f"not a decision record: {type(error).__name__} at {error}"))
            continue
        result.compared += 1
        result.flips[before[0], after[0]] += 1
        if before != after:
            result.changes.append(Change(record["decision_id"], before[0], after[0], before[1], after[1]))
    return result


def checked_record(line: bytes) -> dict[str, Any]:
    """A record from a line, if its digest holds; opened where the line brings what opens it.

    Raises `BadJson` for what is no record, `IntegrityError` for one that is not what was decided.
    """
    if digest_holds(line):
        record = decode_trusted(line)  # the bytes are what was sealed, so they need no strict reading
    else:
        record = decode(line, where="record", limit=MAX_RECORD_BYTES, depth=MAX_RECORD_DEPTH)
        opening = record.pop(OPENING, None) if isinstance(record, dict) else None
        if not isinstance(record, dict) or record.get("schema") != SCHEMA:
            raise BadJson(f"not a record of schema `{SCHEMA}`")
        if record.get("record_digest") != record_digest(record):
            raise IntegrityError("record_digest failed: this record is not what was decided")
        if opening is not None and is_sealed(record):
            return open_record(record, opening_from(opening, record))
    if record.get("schema") != SCHEMA:
        raise BadJson(f"not a record of schema `{SCHEMA}`")
    return record  # type: ignore[no-any-return]


def _verdict(record: dict[str, Any], policy: CompiledPolicy) -> tuple[str, tuple[str, ...]]:
    """Verdict and reasons under a policy, with the recorded memory and switches."""
    fixed = fixed_outcome(record)
    if fixed is not None:
        return fixed
    recall = OFF
    if policy.memory is not None:
        check_recorded_memory(record, policy)
        recall = recorded(record)
    return _by_rules(record, policy, recall)


def outcome_of(record: Mapping[str, Any], policy: CompiledPolicy, recall: Recall) -> tuple[Verdict, tuple[str, ...]]:
    """Verdict and reasons of a recorded request under a policy and a recall; as `decide` does, unsealed.

    Raises `BadJson` for a decision whose evaluation raised.
    """
    return fixed_outcome(record) or _by_rules(record, policy, recall)


def fixed_outcome(record: Mapping[str, Any]) -> tuple[Verdict, tuple[str, ...]] | None:
    """What was decided before any rule was asked, if it was. Raises `BadJson`."""
    return fixed_by(record["reason_codes"], record["control"]["switches"])


def fixed_by(codes: Sequence[str], switches: Sequence[Any]) -> tuple[Verdict, tuple[str, ...]] | None:
    """The same, from a record's reason codes and the switches that applied. Raises `BadJson`."""
    if INTERNAL_ERROR in codes:
        raise BadJson("its evaluation raised when it was decided, so there is nothing to compare")
    if switches:
        return "DENY", (KILL_SWITCH,)
    if CONTROL_STALE in codes:
        return "ABSTAIN", (CONTROL_STALE,)
    return None


def _by_rules(record: Mapping[str, Any], policy: CompiledPolicy, recall: Recall) -> tuple[Verdict, tuple[str, ...]]:
    evaluation = policy.evaluate(
        require_open(record)["request"], time_ms=time_ms_of(record["created_at"]), memory=recall.memory_facts()
    )
    outcome = arbitrate(policy, evaluation, recall)
    return outcome.verdict, outcome.reason_codes


def diff_dataset(
    data: bytes,
    old: CompiledPolicy | None,
    new: CompiledPolicy,
    *,
    processes: int = 1,
    tick: Callable[[int], None] = lambda count: None,
) -> DiffResult:
    """Compare a whole data set of JSON lines; large ones in several processes."""
    lines = [(number, line) for number, line in enumerate(data.split(b"\n"), start=1) if line.strip()]
    chunks = [lines[start : start + _CHUNK] for start in range(0, len(lines), _CHUNK)]
    result = DiffResult()
    if processes < 2 or len(lines) < _WORTH_PROCESSES:
        for chunk in chunks:
            result.add(diff_lines(chunk, old, new))
            tick(len(chunk))
        return result
    sources = _source(old), _source(new)
    with ProcessPoolExecutor(processes, initializer=_start_worker, initargs=sources) as pool:
        for chunk, part in zip(chunks, pool.map(_work, chunks), strict=True):
            result.add(part)
            tick(len(chunk))
    return result


_worker_policies: list[CompiledPolicy | None] = []


def _source(policy: CompiledPolicy | None) -> tuple[bytes, str] | None:
    return (policy.source, f"{policy.name}.yml") if policy is not None else None


def _start_worker(*sources: tuple[bytes, str] | None) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole group; the parent alone speaks and stops
    _worker_policies[:] = [load_policy(s[0], name=s[1]) if s is not None else None for s in sources]


def _work(chunk: Sequence[tuple[int, bytes]]) -> DiffResult:
    old, new = _worker_policies
    assert new is not None
    return diff_lines(chunk, old, new)
