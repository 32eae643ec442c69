"""Judging a game day from its log alone: what was expected, what was seen, and the decisions that show it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from lumyn.gamedays.play import Played
from lumyn.gamedays.scenario import Expected, Scenario
from lumyn.gamedays.setting import Set
from lumyn.gamedays.stage import Stage
from lumyn.gamedays.traffic import Recorded, Traffic
from memory_service.record_index import facts_of
from schemas.errors import UsageError
from schemas.query import holds
from schemas.reasons import CONTROL_STALE
from streams.backtest.bars import Bar
from streams.backtest.measures import measured
from streams.backtest.tally import Tally
from streams.checkpoints import Chain
from streams.local_log import wall_clock_ms
from streams.reading import all_messages, object_in
from streams.sealing import opened_record
from streams.sweep import Summary, verify_all
from streams.topics import RECEIPTS, RECORDS, REQUESTS

MOST_EVIDENCE = 5
_OF_RECORDED = ("flips", "stricter", "milder")


@dataclass(slots=True)
class Judged:
    """An expectation with what was seen; `line` is its place in the scenario, None for what always must hold."""

    text: str
    holds: bool
    observed: str
    line: int | None = None
    why: str = ""
    during: str | None = None
    evidence: list[dict[str, Any]] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Seen:
    """A decision of the game day beside the one that was recorded."""

    number: int
    record: Mapping[str, Any]
    recorded: Recorded
    meaning: str | None
    label: str | None

    def as_evidence(self) -> dict[str, Any]:
        """What names it."""
        record = self.record
        return {
            "request": self.number,
            "request_id": self.recorded.request_id,
            "recorded": self.recorded.decision_id,
            "was": self.recorded.verdict,
            "decision": record["decision_id"],
            "verdict": record["verdict"],
            "reason_codes": list(record["reason_codes"]),
        }


@dataclass(slots=True)
class _Count:
    expected: Expected
    tally: Tally = field(default_factory=Tally)
    hits: list[Seen] = field(default_factory=list)
    misses: list[Seen] = field(default_factory=list)


@dataclass(slots=True)
class _Under:
    """Decisions in a switch's scope from its request on: those without it, and those that it denied."""

    without: list[Seen] = field(default_factory=list)
    denied: int = 0


def check_judgeable(scenario: Scenario, traffic: Traffic, set_up: Set) -> None:
    """Refuse an expectation that nothing could break, before anything is played. Raises `UsageError`."""
    recorded = any(one.verdict is not None for one in traffic.requests)
    for one in scenario.expected:
        if one.bar is not None:
            name = one.bar.measure.name
            if (name.startswith(_OF_RECORDED) or one.bar.from_baseline) and not recorded:
                raise _wrong(scenario, one, "it compares with recorded verdicts, and these are bare requests")
            if one.bar.measure.of_labels and not len(set_up.outcomes):
                raise _wrong(scenario, one, "it goes by labels, and the memory of this game day holds none")
            if one.bar.side != "estimate":
                raise _wrong(scenario, one, "an interval is for samples; these are all of the requests")
        if one.request is not None and not traffic.find(one.request):
            raise _wrong(scenario, one, f"no request `{one.request}` is played: there are {len(traffic.requests)}")


def _wrong(scenario: Scenario, one: Expected, message: str) -> UsageError:
    return UsageError(f"`{one.text}`: {message}", where=f"{scenario.path}:{one.mark.line}:{one.mark.column}")


def decisions(stage: Stage, traffic: Traffic, played: Played, set_up: Set) -> Iterator[Seen]:
    """Every decision of the game day, as its log holds it."""
    log = stage.home.log
    for message in all_messages(log, RECORDS):
        record = opened_record(log.keys, object_in(message))
        number = played.number_of[record["tenant"], str(record["request_id"])]
        recorded = traffic.requests[number - 1]
        outcome = None
        if recorded.decision_id is not None and recorded.verdict is not None:
            outcome = set_up.outcomes.of(recorded.decision_id, recorded.verdict)  # type: ignore[arg-type]
        yield Seen(number, record, recorded, *(outcome or (None, None)))


class Judge:
    """Takes the decisions in, one by one, then says what held."""

    def __init__(self, scenario: Scenario, traffic: Traffic, played: Played) -> None:
        self._scenario = scenario
        self._traffic = traffic
        self._played = played
        self._counts = [_Count(one) for one in scenario.expected]
        self._wanted = {
            at: set(traffic.find(one.request)) for at, one in enumerate(scenario.expected) if one.request is not None
        }
        self._under = {name: _Under() for name in played.switches}
        self.now: Counter[str] = Counter()
        self.changed: Counter[tuple[str, str]] = Counter()

    def take(self, seen: Seen) -> None:
        """Count a decision under every expectation that it concerns."""
        verdict = seen.record["verdict"]
        self.now[verdict] += 1
        if seen.recorded.verdict not in (None, verdict):
            self.changed[seen.recorded.verdict, verdict] += 1
        facts: Mapping[str, Any] | None = None
        for at, count in enumerate(self._counts):
            one = count.expected
            if not one.during.holds(seen.number):
                continue
            if one.request is not None:
                if seen.number in self._wanted[at]:
                    fits = verdict in one.verdicts and set(one.reasons) <= set(seen.record["reason_codes"])
                    _keep(count, seen, fits)
            elif one.bar is not None:
                if one.query is not None:
                    facts = facts if facts is not None else facts_of(seen.record, seen.label)
                    if not holds(one.query.expression, facts):
                        continue
                pair = (seen.recorded.verdict or verdict, verdict, seen.meaning)
                count.tally.matrix[pair] += 1
                _keep(count, seen, one.bar.measure.event(*pair) and one.bar.measure.among(*pair))
        self._contain(seen)

    def _contain(self, seen: Seen) -> None:
        record = seen.record
        for name, thrown in self._played.switches.items():
            if not (thrown.step.at <= seen.number < self._off_at(name)):
                continue
            scope = {k: v for k, v in thrown.step.options.items() if k != "why"}
            facts = {
                "tenant": record["tenant"], "action_type": record["request"]["action"]["type"],
                "policy": record["policy"]["name"],
            }  # fmt: skip
            if any(facts[k] != v for k, v in scope.items()):
                continue
            if any(s["switch_id"] == thrown.switch_id for s in record["control"]["switches"]):
                self._under[name].denied += 1
            elif CONTROL_STALE not in record["reason_codes"]:
                self._under[name].without.append(seen)

    def _off_at(self, name: str) -> float:
        """The request before which a switch was put off; infinity: it was not."""
        offs = (s.at for s in self._scenario.steps if s.kind == "kill_switch_off" and s.options["of"] == name)
        return min(offs, default=float("inf"))

    def judged(self) -> list[Judged]:
        """Every expectation, in the scenario's order."""
        return [self._judged(count) for count in self._counts]

    def _judged(self, count: _Count) -> Judged:
        one = count.expected
        if one.request is not None:
            done, seen, evidence = _of_request(count)
        elif one.bar is not None:
            done, seen, evidence = _of_bar(one.bar, count)
        else:
            done, seen, evidence = self._of_switch(one)
        everywhere = one.during.first == 1 and one.during.last is None
        return Judged(
            one.text, done, seen, one.mark.line, one.why, None if everywhere else one.during.text(),
            [item.as_evidence() for item in sorted(evidence, key=lambda s: s.number)[:MOST_EVIDENCE]],
        )  # fmt: skip

    def _of_switch(self, one: Expected) -> tuple[bool, str, list[Seen]]:
        name = str(one.contained)
        under, thrown = self._under[name], self._played.switches[name]
        told = f"{under.denied} denied by it, {len(under.without)} decided without it"
        if not under.denied:
            return False, f"{told}: nothing came under it, so nothing is shown", under.without
        done = len(under.without) <= one.let_through
        if one.within_s is not None:
            done = done and thrown.seconds is not None and thrown.seconds <= one.within_s
        return done, told, under.without


def _keep(count: _Count, seen: Seen, hit: bool) -> None:
    """The first ones of each kind, by number: the log's partitions come one after the other."""
    kept = count.hits if hit else count.misses
    kept.append(seen)
    if len(kept) > 4 * MOST_EVIDENCE:
        kept.sort(key=lambda one: one.number)
        del kept[MOST_EVIDENCE:]


def _of_request(count: _Count) -> tuple[bool, str, list[Seen]]:
    seen = [*count.hits, *count.misses]
    if not seen:
        return False, "it was not decided", []
    verdicts = Counter((one.record["verdict"], tuple(one.record["reason_codes"])) for one in seen)
    told = "; ".join(f"{verdict} ({', '.join(reasons) or 'no reason'})" for verdict, reasons in sorted(verdicts))
    return not count.misses, told, count.misses or count.hits


def _of_bar(bar: Bar, count: _Count) -> tuple[bool, str, list[Seen]]:
    value = measured(bar.measure, count.tally, None)
    if not value.of and bar.measure.name != "decisions":
        return False, "no decision is of this kind, so nothing is shown", []
    figure = value.count if bar.counts else (value.rate or 0.0)
    baseline = 0.0
    if bar.from_baseline:
        baseline = measured(bar.measure, count.tally, None, baseline=True).rate or 0.0
    done = bar.holds(figure, baseline)
    told = f"{value.count} of {value.of}" if bar.measure.name != "decisions" else f"{value.count}"
    if not bar.counts:
        told += f", {figure:.2%}" + (f" (recorded: {baseline:.2%})" if bar.from_baseline else "")
    too_few = bar.operator in (">", ">=") and not done
    return done, told, [] if done and not count.hits else count.misses if too_few else count.hits


def invariants(stage: Stage, played: Played) -> list[Judged]:
    """What always must hold: nothing lost, nothing decided twice, every record sound and decided again the same."""
    log = stage.home.log
    requests, receipts = _count(log, REQUESTS), Counter[str]()
    for message in all_messages(log, RECEIPTS):
        receipts[str(object_in(message).get("outcome"))] += 1
    summary = Summary()
    chain = Chain(log, frozenset(), check_leaves=False)
    chain.catch_up()
    bad = []
    for finding in verify_all(log, chain, summary, now_ms=wall_clock_ms()):
        if finding.failed:
            bad.append(f"{finding.name}: {', '.join(check.name for check in finding.failed)}")
    records = _count(log, RECORDS)
    answered = sum(receipts.values())
    once = (
        requests == played.delivered == answered
        and records == receipts["decided"] == len(played.number_of) - receipts["rejected"]
    )
    told = ", ".join(f"{count} {name}" for name, count in sorted(receipts.items()))
    return [
        Judged(
            "every request is answered once, and decided at most once", once,
            f"{played.delivered} delivered, {requests} in the log, {answered} receipts ({told}), {records} records",
        ),
        Judged(
            "every record is sound and comes out the same when it is decided again", not bad,
            f"{summary.decisions} verified" if not bad else "; ".join(bad[:MOST_EVIDENCE]),
        ),
    ]  # fmt: skip


def _count(log: Any, topic: str) -> int:
    return sum(1 for _ in all_messages(log, topic))
