"""A backtest of what a candidate said already: shadow verdicts, each joined with its record and what became of it.

Nothing is evaluated, so there are no traces: rules, causes and single flips are for a backtest of the policy.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import Any

from schemas.shadow import ShadowVerdict
from streams.backtest.candidate import Result, Results
from streams.backtest.case import HOUR_MS, Case
from streams.backtest.evaluate import Evaluator
from streams.backtest.panel import Answers
from streams.backtest.part import Counting
from streams.backtest.raw import Raw
from streams.backtest.run import Run
from streams.backtest.sources import Stretch
from streams.backtest.tally import Tally
from streams.log import Log, Message
from streams.policy import CompiledPolicy
from streams.reading import at_offset, messages
from streams.topics import RECORDS, full_name

_AT_ONCE = 500


@dataclass(slots=True)
class Joined:
    """A run over verdicts, and what was met beside it."""

    run: Run = field(default_factory=lambda: Run([Tally()]))
    without_memory: int = 0
    """Verdicts that the memory, being away, had no part in."""
    twice: int = 0
    """Verdicts on a decision that had one already: the first counts."""
    _seen: set[str] = field(default_factory=set)


def joined(log: Log, verdicts: Iterable[ShadowVerdict], evaluator: Evaluator, policy: CompiledPolicy) -> Joined:
    """Count one candidate's verdicts. Memory: the ids of its decisions. Raises `StorageUnavailable`."""
    found, topic = Joined(), full_name(log.prefix, RECORDS)
    by_partition: dict[int, list[ShadowVerdict]] = {}
    count = log.partitions(RECORDS)
    for one in verdicts:
        if one["decision_id"] in found._seen:
            found.twice += 1
            continue
        found._seen.add(one["decision_id"])
        place = one["source"]
        if place["topic"] != topic or not 0 <= place["partition"] < count:
            found.run.tallies[0].fail("record", _where(one), "the verdict names a place that there is not")
            continue
        by_partition.setdefault(place["partition"], []).append(one)
    results, answers = Results(), dict[Result, Answers]()
    for partition, listed in sorted(by_partition.items()):
        pairs = _with_records(log, partition, sorted(listed, key=lambda one: one["source"]["offset"]))
        while some := list(islice(pairs, _AT_ONCE)):
            _count(found, partition, some, evaluator, policy, results, answers)
    return found


def _where(one: ShadowVerdict) -> str:
    return f"{one['source']['partition']}/{one['source']['offset']} ({one['decision_id']})"


def _with_records(
    log: Log, partition: int, verdicts: Sequence[ShadowVerdict]
) -> Iterator[tuple[ShadowVerdict, Message | None]]:
    """Each verdict with the message at its place; read through where they stand close, else one by one."""
    stream: Iterator[Message] = iter(())
    message: Message | None = None
    for one in verdicts:
        offset = one["source"]["offset"]
        if message is None or offset > message.offset + _AT_ONCE:
            stream = messages(log, RECORDS, partition, offset)
            message = next(stream, None)
        while message is not None and message.offset < offset:
            message = next(stream, None)
        if message is not None and message.offset == offset:
            yield one, message
        else:
            yield one, at_offset(log, RECORDS, partition, offset)


def _count(
    found: Joined,
    partition: int,
    pairs: Sequence[tuple[ShadowVerdict, Message | None]],
    evaluator: Evaluator,
    policy: CompiledPolicy,
    results: Results,
    known: dict[Result, Answers],
) -> None:
    counting = Counting([[0]])
    tally = counting.tallies[0]
    by_id: dict[str, ShadowVerdict] = {}
    raws: list[Raw] = []
    for one, message in pairs:
        if message is None:
            tally.fail("record", _where(one), "its record is not in the log any more")
            continue
        by_id[one["decision_id"]] = one
        where = f"{RECORDS}/{message.partition}/"
        raws.append(Raw(where, message.offset, message.key or b"", message.partition, message.value))
    for case in evaluator.taken(raws, counting):
        one_of = by_id.get(case.seen.decision_id)
        new = _result(case, one_of, policy, tally, results)
        if new is None or one_of is None:
            continue
        found.without_memory += one_of["memory"] == "unavailable"
        answers = known.setdefault(new, Answers((new,)))
        cell = counting.cell((case.old, case.outcome.meaning, case.time_ms // HOUR_MS, case.values))[0]
        cell[answers] = cell.get(answers, 0) + 1
        counting.mark(case)
        if new.verdict != case.old.verdict:
            counting.mark_flip(0, case, new.verdict)
    part = counting.finished(evaluator.dimensions, [policy.default_verdict])
    part.offsets.clear()  # a verdict may be on any record: what lies between is no gap
    found.run.add(Stretch(partition, 0, 0), part)


def _result(
    case: Case, one: ShadowVerdict | None, policy: CompiledPolicy, tally: Tally, results: Results
) -> Result | None:
    """What the candidate said of this record; None, counted, where that can't be believed or it said nothing."""
    if one is None or one["record_digest"] != case.seen.record_digest:
        tally.fail("record", case.place, "the verdict is on another record than the one at its place")
        return None
    said = one["candidate"]
    if said is None:
        tally.fail("shadow", case.place, one["error"] or "the candidate gave no verdict")
        return None
    if said["policy_hash"] != policy.policy_hash:
        tally.fail("shadow", case.place, "the verdict is another policy's")
        return None
    return results.of(said["verdict"], tuple(said["reason_codes"]), ())


def bare(candidate: dict[str, Any], found: Joined) -> dict[str, Any]:
    """A candidate's report without what only an evaluation could say."""
    coverage = {**candidate["coverage"], "by_default": None}
    coverage |= {"without_memory": found.without_memory, "twice": found.twice}
    return {**candidate, "rules": [], "causes": [], "top": [], "coverage": coverage}
