"""Playing a scenario on a stage: requests in their order, and before each what is to be done or to go wrong."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from lumyn.gamedays.faults import Faults
from lumyn.gamedays.poison import poisoned
from lumyn.gamedays.scenario import Fault, Scenario, Step
from lumyn.gamedays.setting import ACTOR, activation
from lumyn.gamedays.stage import Stage
from lumyn.gamedays.traffic import Recorded, Traffic
from lumyn.policy_file import load_policy_file
from schemas.errors import LumynError, UsageError
from schemas.reasons import KILL_SWITCH
from schemas.request import Request, parse_request
from streams.control import control_append
from streams.deciding import Answer

MOST_AT_ONCE = 500
_SPAN_MS = 1000
"""Requests that came within a second of each other may be decided in one transaction, as live ones are."""


@dataclass(slots=True)
class Event:
    """What was done or went wrong, before which request."""

    at: int
    what: str
    name: str


@dataclass(slots=True)
class Thrown:
    """A kill switch that was put on: its id, and the seconds until the first answer that it gave."""

    step: Step
    switch_id: str
    at_s: float
    seconds: float | None = None


@dataclass(slots=True)
class Played:
    """What was done. `number_of` says which request an id belongs to; a copy's id names its number, too."""

    number_of: dict[tuple[str, str], int] = field(default_factory=dict)
    delivered: int = 0
    refused: list[tuple[int, str]] = field(default_factory=list)
    """(request, why) of requests that were answered by an error."""
    seconds: float = 0.0
    events: list[Event] = field(default_factory=list)
    switches: dict[str, Thrown] = field(default_factory=dict)


class Play:
    """One run of a scenario."""

    def __init__(self, stage: Stage, scenario: Scenario, traffic: Traffic, tick: Callable[[int], None]) -> None:
        self._stage = stage
        self._scenario = scenario
        self._traffic = traffic
        self._tick = tick
        self._jumped_ms = 0
        self._first: dict[int, str] = {}
        self.played = Played()

    def run(self) -> Played:
        """Raises `UsageError` for a step that can't be taken, and what the stage raises."""
        count = len(self._traffic.requests)
        self._check(count)
        marks = sorted({1, *self._marks(count)})
        for first, after in zip(marks, [*marks[1:], count + 1], strict=True):
            self._stage.set_time(self._time(first))
            self._change(first)
            self._segment(range(first, after))
        return self.played

    def _check(self, count: int) -> None:
        things = [(fault.during.first, fault.kind, fault.mark) for fault in self._scenario.faults]
        things += [(step.at, step.kind, step.mark) for step in self._scenario.steps]
        for at, kind, mark in things:
            if at > count:
                raise UsageError(
                    f"`{kind}` is at request {at}, and there are {count}",
                    where=f"{self._scenario.path}:{mark.line}:{mark.column}",
                )

    def _marks(self, count: int) -> Iterator[int]:
        """Where anything changes."""
        for step in self._scenario.steps:
            yield step.at
        for fault in self._scenario.faults:
            yield fault.during.first
            if fault.during.last is not None and fault.during.last < count:
                yield fault.during.last + 1

    def _time(self, number: int) -> int:
        return self._traffic.requests[number - 1].time_ms + self._jumped_ms

    def _change(self, number: int) -> None:
        """All that is to happen before a request: faults that end, steps, faults that begin; in the file's order."""
        for fault in self._scenario.faults:
            if fault.during.last is not None and fault.during.last + 1 == number:
                self._tell(number, f"{fault.kind} ends", fault.name)
        self._stage.set_faults(self._faults(number, began=False))
        for step in self._scenario.steps:
            if step.at == number:
                self._take(step)
        for fault in self._scenario.faults:
            if fault.during.first == number:
                self._tell(number, _told(fault), fault.name)
                if fault.kind == "clock_jump":
                    self._jumped_ms += fault.options["by"]
                    self._stage.set_time(self._time(number))
                elif fault.kind == "memory_poisoned":
                    poisoned(self._stage, fault, number, self._scenario)
        self._stage.set_faults(self._faults(number, began=True))

    def _faults(self, number: int, *, began: bool) -> Faults:
        """What goes wrong at a request; without those that begin with it, unless they `began`."""
        on = [
            fault
            for fault in self._scenario.faults
            if fault.during.holds(number) and (began or fault.during.first != number)
        ]
        kinds = {fault.kind for fault in on}
        slow = sum(fault.options["by"] for fault in on if fault.kind == "slow_memory")
        return Faults("qdrant_down" in kinds, slow, "stale_control" in kinds)

    def _tell(self, at: int, what: str, name: str) -> None:
        self.played.events.append(Event(at, what, name))

    def _take(self, step: Step) -> None:
        home, options = self._stage.home, step.options
        match step.kind:
            case "kill_switch_on":
                scope = {name: options[name] for name in ("action_type", "policy", "tenant") if name in options}
                switch_id = f"gameday-{step.name}"
                event = {"type": "kill_switch_on", "actor": ACTOR, "switch_id": switch_id, "scope": scope}
                home.log.append([control_append({**event, "why": options.get("why", step.name)})])
                self.played.switches[step.name] = Thrown(step, switch_id, time.perf_counter())
                said = "kill switch on: " + (", ".join(f"{k}={v}" for k, v in scope.items()) or "everything")
            case "kill_switch_off":
                thrown = self.played.switches.get(options["of"])
                if thrown is None:
                    raise self._wrong(step, f"no switch `{options['of']}` is on by then")
                event = {"type": "kill_switch_off", "actor": ACTOR, "switch_id": thrown.switch_id}
                home.log.append([control_append(event)])
                said = f"kill switch off: {options['of']}"
            case "policy":
                policy = load_policy_file(self._scenario.beside(options["file"]))
                home.log.append(activation(policy))
                said = f"policy {policy.name}@{policy.version} is active"
            case _:
                said = self._label(step)
        self._tell(step.at, said, step.name)

    def _label(self, step: Step) -> str:
        options = step.options
        (number, *more) = self._traffic.find(options["request"]) or (0,)
        if more or number not in self._first:
            raise self._wrong(step, f"request `{options['request']}` was not decided before request {step.at}")
        decision_id = self._first[number]
        request = {
            "event_id": f"gameday-{step.name}-{step.at}", "decision_id": decision_id,
            "tenant": str(self._traffic.requests[number - 1].request["tenant"]), "type": "label",
            "label": options["label"], "should": options["should"], "summary": options["summary"],
            "actor": options["by"] or ACTOR,
        }  # fmt: skip
        (answer,) = self._stage.home.labels.label([request])  # type: ignore[list-item]
        if isinstance(answer, LumynError):
            raise self._wrong(step, answer.message)
        self._stage.home.remembers(answer["version"], 30.0)
        return f"request {number} is labelled {options['label']}"

    def _wrong(self, step: Step, message: str) -> UsageError:
        return UsageError(message, where=f"{self._scenario.path}:{step.mark.line}:{step.mark.column}")

    def _segment(self, numbers: range) -> None:
        """Deliver requests in batches; nothing else happens meanwhile."""
        batch: list[tuple[int, Request]] = []
        begin = 0
        for number in numbers:
            one, times = self._traffic.requests[number - 1], self._times(number)
            if batch and (one.time_ms - begin > _SPAN_MS or len(batch) + times > MOST_AT_ONCE):
                self._deliver(batch)
                batch = []
            if not batch:
                begin = one.time_ms
                self._stage.set_time(self._time(number))
            batch += [(number, self._request(number, one, copy)) for copy in range(1, times + 1)]
        if batch:
            self._deliver(batch)

    def _times(self, number: int) -> int:
        times = 1
        for fault in self._scenario.faults:
            if fault.kind == "traffic" and fault.during.holds(number):
                times = fault.options["times"]
        return times

    def _request(self, number: int, one: Recorded, copy: int) -> Request:
        """A request under an id of its own: the first keeps the one it had."""
        tenant = str(one.request["tenant"])
        name = one.request_id or f"gameday-{number}"
        if copy > 1 or (tenant, name) in self.played.number_of:
            name = f"{name}~{number}.{copy}"
        self.played.number_of[tenant, name] = number
        return parse_request({**one.request, "request_id": name}, tenant=tenant)

    def _deliver(self, batch: Sequence[tuple[int, Request]]) -> None:
        twice = [item for item in batch if self._comes_twice(item[0])]
        for items in (batch, twice) if twice else (batch,):
            begun = time.perf_counter()
            answers = self._stage.deliver([request for _, request in items])
            now = time.perf_counter()
            self.played.seconds += now - begun
            self.played.delivered += len(items)
            for (number, _), answer in zip(items, answers, strict=True):
                self._took(number, answer, now)
        self._tick(len({number for number, _ in batch}))

    def _comes_twice(self, number: int) -> bool:
        return any(f.kind == "duplicate_delivery" and f.during.holds(number) for f in self._scenario.faults)

    def _took(self, number: int, answer: Answer | LumynError, now: float) -> None:
        if isinstance(answer, LumynError):
            self.played.refused.append((number, answer.message))
            return
        self._first.setdefault(number, answer.decision_id)
        record: Mapping[str, Any] | None = answer.record
        if record is None or KILL_SWITCH not in record["reason_codes"]:
            return
        by = {switch["switch_id"] for switch in record["control"]["switches"]}
        for thrown in self.played.switches.values():
            if thrown.seconds is None and thrown.switch_id in by:
                thrown.seconds = now - thrown.at_s


def _told(fault: Fault) -> str:
    options = fault.options
    match fault.kind:
        case "traffic":
            return f"traffic x{options['times']}"
        case "slow_memory":
            return f"the memory answers {options['by']} ms later"
        case "clock_jump":
            return f"the log's clock jumps by {options['by'] / 1000:g} s"
        case "memory_poisoned":
            return f"{options.get('share', 1.0):.0%} of the memory is labelled wrongly by {options['labeller']}"
        case "qdrant_down":
            return "the memory is down"
        case "stale_control":
            return "control can't be confirmed"
        case _:
            return "each request is delivered twice"
