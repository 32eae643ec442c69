"""Measuring a behaviour rate: the agent is run again and again on what it was given when a decision was made."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from itertools import repeat
from pathlib import Path
from typing import Any

from lumyn.agent_runs import Agent, AgentRun, runs
from lumyn.config import LumynConfig, resolve
from lumyn.home import LOG_FILE
from lumyn.lookup import sound_record
from lumyn.rate_files import new_id
from lumyn.replaying import check_pack, opened_pack
from lumyn.wiring import existing_home, operator_home
from schemas.canonical import encode
from schemas.digests import digest
from schemas.errors import UsageError
from schemas.ids import iso_time
from schemas.seal import is_sealed, kid_of, stored_of
from streams.behaviour import (
    Reported,
    Tally,
    consistency,
    enough,
    intervals,
    needed,
    parse_reported,
    whatever_failed,
)
from streams.integrity import require
from streams.local_log import wall_clock_ms
from streams.outcome import NoOutcome, Outcome, metadata_of, parse_outcome, plain_values
from streams.packs import read_pack
from streams.rate_sample import RateSample
from streams.request_factors import under
from streams.sealing import erased, require_open
from streams.statistics.estimate import Interval
from streams.statistics.proportions import wilson_interval
from streams.statistics.sequences import proportion_sequence

_GIVEN = ("subject", "evidence", "context")
_MOST_VALUES = 8
INTERRUPTED = "it was interrupted"


@dataclass(frozen=True, slots=True)
class Plan:
    """How an agent is sampled. `event` is the outcome whose rate is asked for; None: the recorded one.

    `hidden`: paths that samples must not hold (`[privacy] redact`).
    """

    count: int
    parallel: int
    outcome: Outcome
    event: str | None = None
    reported: Reported | None = None
    margin: float | None = None
    with_action: bool = False
    all_runs: bool = False
    hidden: tuple[str, ...] = ()

    @property
    def may_stop(self) -> bool:
        """Whether what is seen decides how many runs are made."""
        return not self.all_runs and (self.reported is not None or self.margin is not None)


def recorded_in_pack(path: Path, *, trust_signer: bool = False, config: LumynConfig | None = None) -> Mapping[str, Any]:
    """The opened record of a pack that checks out and is this tenant's.

    Raises `BadPack`, `IntegrityError`; `UsageError` for a redacted pack; `Erased` when its subject was forgotten here.
    """
    settings = resolve(config)
    pack = read_pack(path)
    require(check_pack(pack, trust_signer=trust_signer, settings_home=settings.home), where=str(path))
    if pack.record["tenant"] != settings.tenant:
        raise UsageError(
            f"this pack is tenant {pack.record['tenant']}'s, and this is {settings.tenant}", where=str(path),
            help=f"LUMYN_TENANT={pack.record['tenant']} samples for that one",
        )  # fmt: skip
    if not is_sealed(pack.record):
        return pack.record
    if pack.opening is None:
        raise UsageError(
            "this pack is redacted: what the agent was given is not in it", where=str(path),
            help="`lumyn rate --decision ID` where the log and its keys are",
        )  # fmt: skip
    if settings.kafka is not None or (settings.home / LOG_FILE).exists():
        keys = operator_home(config).log.keys
        if keys.state(kid_of(pack.record["request"])) in ("erasing", "erased"):
            raise erased(f"decision {pack.record['decision_id']}")
    return opened_pack(pack)


def recorded_here(decision: str, config: LumynConfig | None = None) -> Mapping[str, Any]:
    """The opened record of a decision of this home. Raises `NotFound`, `IntegrityError`, `Erased`, `KeyMissing`."""
    return require_open(sound_record(existing_home(config), decision)[1])


def agent_input(record: Mapping[str, Any], *, with_action: bool = False) -> bytes:
    """What an agent is given: whom it is about, evidence and context as they were recorded, as canonical JSON.

    Not the action: it is the answer that is asked for.
    """
    names = (*_GIVEN, "action") if with_action else _GIVEN
    return encode({name: record["request"][name] for name in names if record["request"].get(name) is not None})


def event_of(record: Mapping[str, Any], plan: Plan) -> str | None:
    """The outcome whose rate is asked for: as given, else the recorded request's own. None where it has none."""
    if plan.event is not None or plan.outcome.is_exit_code or plan.outcome.pattern is not None:
        return plan.event
    try:
        return plan.outcome.of_value(record["request"])
    except NoOutcome:
        return None


def sample(
    record: Mapping[str, Any],
    agent: Agent,
    named: str,
    plan: Plan,
    tick: Callable[[AgentRun], None] = lambda run: None,
) -> RateSample:
    """Run the agent up to `plan.count` times. `named` says what was run. Raises `UsageError`.

    A sample that is interrupted (Ctrl-C) is one of the runs that had ended, stopped as `INTERRUPTED`; it counts as one
    that was watched, since what was seen may be why. Without any, `KeyboardInterrupt` goes on.
    """
    event = event_of(record, plan)
    if event is None and (plan.reported or plan.margin is not None):
        raise UsageError(
            f"the record has no `{plan.outcome.text}`, so it is not known which outcome was reported",
            help="`--event OUTCOME` names it",
        )
    given = agent_input(record, with_action=plan.with_action)
    tally, found, stopped = Tally(), [], None
    sampled = runs(agent, repeat(given, plan.count), parallel=plan.parallel)
    try:
        for number, run in enumerate(sampled, start=1):
            line = line_of(number, run, plan.outcome, plan.hidden)
            found.append(line)
            if line["outcome"] is None:
                tally.failures[line["failed"]] += 1
            else:
                tally.outcomes[line["outcome"]] += 1
            tick(run)
            if plan.may_stop and number < plan.count:
                stopped = enough(tally, event, plan.reported, plan.margin)
                if stopped is not None:
                    break
    except KeyboardInterrupt:
        if not found:
            raise
        stopped = INTERRUPTED
    finally:
        sampled.close()  # type: ignore[attr-defined]
    stored = stored_of(record)
    header = {
        "rate_id": new_id(),
        "kind": "pack",
        "tenant": record["tenant"],
        "created_at": iso_time(wall_clock_ms()),
        "decision_id": record["decision_id"],
        "record_digest": stored["record_digest"],
        "input_digest": None if is_sealed(stored) else digest(given),
        "recorded": _told(plain_values(record["provenance"]), plan.hidden),
        "asked": {
            "agent": named,
            "runs": plan.count,
            "outcome": plan.outcome.text,
            "event": event,
            "reported": plan.reported.text if plan.reported else None,
            "margin": plan.margin,
            "with_action": plan.with_action,
            "may_stop": plan.may_stop or stopped == INTERRUPTED,
        },
    }
    return RateSample(header, found, stopped)


def line_of(number: int, run: AgentRun, outcome: Outcome, hidden: Sequence[str] = ()) -> dict[str, Any]:
    """A run as a sample holds it: its outcome, or why it has none; without the provenance at `hidden` paths."""
    said: str | None = None
    failed: str | None = None
    if run.status != "ended":
        failed = {"timeout": "no answer in time", "flooded": "too much output", "unreachable": "could not be run"}[
            run.status
        ]
    elif run.exit_code != 0 and not outcome.is_exit_code:
        failed = f"exit {run.exit_code}"
    else:
        try:
            said = outcome.of_answer(run.output, run.exit_code or 0)
        except NoOutcome as error:
            failed = str(error)[:200]
    return {
        "run": number,
        "outcome": said,
        "failed": failed,
        "exit_code": run.exit_code,
        "seconds": round(run.seconds, 3),
        "metadata": _told(metadata_of(run.output), hidden) if said is not None else {},
    }


def _told(provenance: Mapping[str, str], hidden: Sequence[str]) -> dict[str, str]:
    return {name: value for name, value in provenance.items() if not under(f"provenance.{name}", hidden)}


def may_be_kept(outcome: Outcome, record: Mapping[str, Any], hidden: Sequence[str]) -> bool:
    """Whether a file may hold outcomes by their names: none of a sealed decision, nor of a path that is kept out."""
    return outcome.is_in_clear or not (is_sealed(stored_of(record)) or under(outcome.text, hidden))


def to_keep(taken: RateSample, record: Mapping[str, Any], hidden: Sequence[str] = ()) -> RateSample:
    """The sample as it is stored: outcomes that could be personal (`may_be_kept`) are numbered, not named.

    Forgetting a subject destroys a key; a word that was stored in clear would stay (docs/forgetting.md).
    """
    outcome = parse_outcome(taken.header["asked"]["outcome"])
    if may_be_kept(outcome, record, hidden):
        return taken
    event = taken.header["asked"]["event"]
    ranked = [name for name, _, _ in intervals(taken.tally, watched=False)]
    numbers = {name: f"outcome {number}" for number, name in enumerate(ranked, start=1)}
    named = {name: f"{number} (the event)" if name == event else number for name, number in numbers.items()}
    asked = dict(taken.header["asked"])
    asked["event"] = None if event is None else named.get(event, "(the event)")
    asked["outcome"] = f"/{'…'}/" if outcome.pattern is not None else outcome.text
    lines = [
        {**run, "outcome": named.get(run["outcome"]), "failed": None if run["failed"] is None else "no outcome"}
        for run in taken.runs
    ]
    return replace(taken, header={**taken.header, "asked": asked}, runs=lines)


def metadata_seen(taken: RateSample) -> dict[str, dict[str, Any]]:
    """By name of a provider's field: how often each value came, with the event and without, and what was recorded."""
    event = taken.header["asked"]["event"]
    seen: dict[str, Counter[str]] = {}
    with_event: dict[str, Counter[str]] = {}
    for run in taken.runs:
        for name, value in run["metadata"].items():
            seen.setdefault(name, Counter())[value] += 1
            with_event.setdefault(name, Counter())[value] += run["outcome"] == event
    recorded = taken.header["recorded"]
    return {
        name: {
            "recorded": recorded.get(name),
            "values": [
                {"value": value, "runs": count, "event": with_event[name][value]}
                for value, count in values.most_common(_MOST_VALUES)
            ],
            "distinct": len(values),
        }
        for name, values in sorted(seen.items())
    }


def changed_since(taken: RateSample) -> list[str]:
    """Fields in which no run was like the recorded one: the incident was made by something else than was sampled."""
    seen: dict[str, set[str]] = {}
    for run in taken.runs:
        for name, value in run["metadata"].items():
            seen.setdefault(name, set()).add(value)
    recorded = taken.header["recorded"]
    return [name for name, values in sorted(seen.items()) if name in recorded and recorded[name] not in values]


def as_dict(taken: RateSample) -> dict[str, Any]:
    """The JSON form: what was asked, and all that follows from the runs."""
    asked, tally = taken.header["asked"], taken.tally
    event = asked["event"]
    reported = parse_reported(asked["reported"]) if asked["reported"] else None
    watched = bool(asked["may_stop"])
    out: dict[str, Any] = {
        **taken.header,
        "runs": tally.runs,
        "answered": tally.answered,
        "failures": dict(sorted(tally.failures.items(), key=lambda item: (-item[1], item[0]))),
        "stopped": taken.stopped,
        "outcomes": [
            {"outcome": name, "runs": count, **_interval(interval)}
            for name, count, interval in intervals(tally, watched=watched)
        ],
        "event": None,
        "metadata": metadata_seen(taken),
        "changed_since_recorded": changed_since(taken),
        "signed_by": taken.key_id,
    }
    if event is not None:
        whatever = whatever_failed(tally, event)
        need = needed(tally, event, reported, watched=watched)
        fits = consistency(tally, event, reported) if reported else None
        out["event"] = {
            "outcome": event,
            "runs": tally.outcomes[event],
            **_interval(_of_event(tally, event, watched)),
            "whatever_failed": None if whatever is None else {"lower": whatever.lower, "upper": whatever.upper},
            "needed": asdict(need),
            "reported": None
            if fits is None
            else {
                "text": asked["reported"],
                "consistent": fits.consistent,
                "why": fits.why,
                "measured": _interval(fits.measured),
                "reported": None if fits.reported is None else _interval(fits.reported),
            },
        }
    return out


def as_row(taken: RateSample) -> dict[str, Any]:
    """A sample in a list: `seen` of `answered`, the rate that it is evidence of with its range, and the agent last."""
    asked, tally, event = taken.header["asked"], taken.tally, taken.header["asked"]["event"]
    interval = _interval(_of_event(tally, event, bool(asked["may_stop"]))) if event is not None else {}
    return {
        **{name: taken.header[name] for name in ("rate_id", "created_at", "decision_id")},
        "event": event,
        "runs": tally.runs,
        "answered": tally.answered,
        "seen": tally.outcomes[event or ""],
        **{name: interval.get(name) for name in ("rate", "lower", "upper", "method")},
        "agent": asked["agent"],
    }


def _of_event(tally: Tally, event: str, watched: bool) -> Interval:
    return (proportion_sequence if watched else wilson_interval)(tally.outcomes[event], tally.answered)


def _interval(interval: Interval) -> dict[str, Any]:
    return {
        "rate": interval.estimate,
        "lower": interval.lower,
        "upper": interval.upper,
        "level": interval.level,
        "method": interval.method,
    }
