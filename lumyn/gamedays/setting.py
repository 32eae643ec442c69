"""Setting a stage: today's policies, or a candidate, and a copy of the memory. Where they come from is only read."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from lumyn.gamedays.scenario import Scenario
from lumyn.gamedays.stage import Stage
from lumyn.gamedays.traffic import Traffic
from lumyn.home import Home
from lumyn.policy_file import load_policy_file
from schemas.canonical import decode, decode_trusted, encode
from schemas.errors import NotFound, StorageUnavailable, UsageError
from schemas.label import EVENT, LabelEvent, key_of
from schemas.limits import MAX_RECORD_BYTES, MAX_RECORD_DEPTH
from streams.backtest.outcomes import Outcomes, read_outcomes
from streams.control import control_append, publish_event
from streams.log import Append
from streams.policy import CompiledPolicy
from streams.reading import messages, object_in
from streams.topics import CONTROL, LABELS

_AT_ONCE = 1000
ACTOR = "gameday"


@dataclass(frozen=True, slots=True)
class Set:
    """What the stage was set with."""

    policies: tuple[CompiledPolicy, ...]
    memory: str
    labels: int
    outcomes: Outcomes


def set_up(stage: Stage, scenario: Scenario, live: Home | None, policy_path: Path | None, traffic: Traffic) -> Set:
    """Publish and activate the policies, and copy the memory. Raises `UsageError`, `NotFound`, `PolicyInvalid`."""
    stage.set_time(traffic.requests[0].time_ms)
    log = stage.home.log
    policies = policies_of(scenario, live, policy_path)
    appends: list[Append] = []
    if live is not None and scenario.memory in ("now", "then"):
        appends += _switches(live, traffic.requests[0].time_ms if scenario.memory == "then" else None)
    for policy in policies:
        appends += activation(policy)
    log.append(appends)
    stage.home.agent.control()  # who decides has read control to its end before anything goes wrong
    labels = 0
    batch: list[Append] = []
    for key, value in _events(scenario, live, traffic):
        batch.append(Append(LABELS, value, key))
        labels += 1
        if len(batch) == _AT_ONCE:
            log.append(batch)
            batch = []
    if batch:
        log.append(batch)
    return Set(tuple(policies), scenario.memory, labels, read_outcomes(log, None, log.end(LABELS, 0)))


def activation(policy: CompiledPolicy) -> list[Append]:
    """Publish a policy and make it the one that decides."""
    event = {"type": "policy_activated", "actor": ACTOR, "name": policy.name, "hash": policy.policy_hash}
    return [publish_event(policy, ACTOR, "publish"), control_append({**event, "policy_version": policy.version})]


def policies_of(scenario: Scenario, live: Home | None, policy_path: Path | None) -> list[CompiledPolicy]:
    """A candidate from its file; else those active in the home, the latest last; else the configured file's."""
    if scenario.policy is not None and scenario.policy != "active":
        return [load_policy_file(scenario.beside(scenario.policy))]
    if live is not None:
        control = live.agent.control()
        names = sorted(control.active, key=lambda name: (name == control.latest_active, name))
        if names:
            return [control.compiled(control.active[name]) for name in names]
    if policy_path is not None:
        return [load_policy_file(policy_path)]
    raise UsageError(
        "which policy? none is active here", where=str(scenario.path), help="name one in the scenario: `policy: FILE`"
    )


def _switches(live: Home, before_ms: int | None) -> list[Append]:
    """The events that chose the memory, so that the stage asks the same embedder and profile."""
    return [
        Append(CONTROL, message.value)
        for message in messages(live.log, CONTROL, 0)
        if object_in(message).get("type") == "memory_switched" and (before_ms is None or message.time_ms < before_ms)
    ]


def _events(scenario: Scenario, live: Home | None, traffic: Traffic) -> Iterator[tuple[bytes | None, bytes]]:
    """(key, bytes) of the label events that the memory is made of, their versions dense from 1."""
    if scenario.memory == "none":
        return iter(())
    if scenario.memory not in ("now", "then"):
        return _of_file(scenario.beside(scenario.memory))
    if live is None:
        raise UsageError(
            f"`memory: {scenario.memory}` needs a home, and there is none here", where=str(scenario.path),
            help="`memory: FILE` names label events, `memory: none` is an empty one; LUMYN_HOME names a home",
        )  # fmt: skip
    return _of_log(live, _version_then(live, traffic) if scenario.memory == "then" else None)


def _version_then(live: Home, traffic: Traffic) -> int:
    """The memory's version that the first of the requests was decided at; by its time, where its record names none."""
    first = traffic.requests[0]
    if first.memory_version is not None and first.memory_epoch == live.log.epoch:
        return first.memory_version
    return sum(1 for message in messages(live.log, LABELS, 0) if message.time_ms < first.time_ms)


def _of_log(live: Home, last: int | None) -> Iterator[tuple[bytes | None, bytes]]:
    for count, message in enumerate(messages(live.log, LABELS, 0), start=1):
        if last is not None and count > last:
            return
        yield message.key, message.value


def _of_file(path: Path) -> Iterator[tuple[bytes | None, bytes]]:
    try:
        lines = path.read_bytes().split(b"\n")
    except FileNotFoundError:
        raise NotFound("no such file of label events", where=str(path)) from None
    except OSError as error:
        raise StorageUnavailable(f"can't be read: {error.strerror or error}", where=str(path)) from None
    version = 0
    for number, line in enumerate(lines, start=1):
        if line.strip():
            version += 1
            event = {**_event(line, f"{path}:{number}"), "version": version}
            yield key_of(event).encode(), encode(event, finite=True)


def _event(line: bytes, where: str) -> dict[str, Any]:
    event = decode(line, where=where, limit=MAX_RECORD_BYTES, depth=MAX_RECORD_DEPTH)
    try:
        EVENT.validate_python(event)
    except ValidationError:
        raise UsageError("not a label event", where=where) from None
    return event  # type: ignore[no-any-return]


def write_events(live: Home, tenant: str, action_types: Iterable[str], path: Path) -> int:
    """Write the label events that decisions of some action types can meet, a line each; how many there are.

    Raises `UsageError` when they are sealed: nobody who has the file could open them.
    """
    from lumyn.exporting import write_whole

    wanted, lines = set(action_types), list[bytes]()
    for message in messages(live.log, LABELS, 0):
        event: LabelEvent = decode_trusted(message.value)
        decision = event["decision"]
        if event["tenant"] != tenant or (decision is not None and decision["action_type"] not in wanted):
            continue
        if "subject" in event or (decision is not None and "subject" in decision):
            raise UsageError(
                "the memory holds labels that are sealed under their subjects' keys: it can't be written into a file",
                help="`--memory none`; or play it at the home, with `--memory now`",
            )
        lines.append(encode({**event, "version": len(lines) + 1}, finite=True) + b"\n")
    os.makedirs(path.parent, exist_ok=True)  # noqa: PTH103
    write_whole(path, b"".join(lines))
    return len(lines)
