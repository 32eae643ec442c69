"""The canary: a held-out set of recorded requests that goes through the agent on a schedule."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from lumyn.agent_runs import Agent, AgentRun, runs
from lumyn.home import Home
from lumyn.rate_files import load_all, new_id, save
from lumyn.rating import agent_input, line_of, may_be_kept
from lumyn.traffic import LeftOut, outcome_in, recorded, rows_of
from memory_service.redaction import memory_paths
from schemas.digests import digest_of
from schemas.errors import NotFound, UsageError
from schemas.ids import iso_time
from schemas.query import Field, OneOf
from schemas.seal import is_sealed
from streams.canary import compared
from streams.local_log import wall_clock_ms
from streams.outcome import Outcome
from streams.rate_sample import RateSample

_ID = Field("decision_id", "id")


def rounds_of(home: Home, name: str) -> list[RateSample]:
    """The stored rounds of a canary, oldest first: those of its newest set. Raises `IntegrityError`."""
    found, wrong = load_all(home.settings, "canary")
    for error in wrong:
        raise error
    named = [one for one in found if one.header["asked"]["name"] == name]
    return [one for one in named if one.header["input_digest"] == named[-1].header["input_digest"]]


def choose(home: Home, name: str, query: str | None, size: int, say: Callable[[str], None]) -> list[str]:
    """A set of decisions, held out by a hash of their ids: neither their age nor what became of them chooses them.

    Raises `NotFound` when the query finds nothing.
    """
    rows = rows_of(home, query, say)
    if not rows:
        raise NotFound("no decisions to make a canary of", help="`--query` chooses among the recorded ones")
    ranked = sorted(rows, key=lambda row: hashlib.sha256(f"{name}/{row.decision_id}".encode()).digest())
    return sorted(row.decision_id for row in ranked[:size])


def one_round(
    home: Home,
    name: str,
    decisions: Sequence[str],
    agent: Agent,
    named: str,
    outcome: Outcome,
    parallel: int,
    say: Callable[[str], None],
    tick: Callable[[AgentRun], None] = lambda run: None,
) -> RateSample:
    """Run the set through the agent once and keep what came out.

    A decision that was forgotten or can't be opened is not run, and counts as one without an answer. Raises
    `UsageError` when outcomes would be personal (`may_be_kept`).
    """
    left_out, hidden = LeftOut(), memory_paths(home.settings.redact)
    rows = rows_of(home, None, say, also=[OneOf(_ID, tuple(decisions))])
    found: dict[str, tuple[bytes, str]] = {}
    for row, record in recorded(home, rows, left_out):
        if not may_be_kept(outcome, record, hidden):
            raise UsageError(
                f"`{outcome.text}` of sealed decisions, or one that `[privacy] redact` names, would be kept in clear",
                help="`--outcome action.type` or `exit`",
            )
        if not is_sealed(record):
            said = "exit 0" if outcome.is_exit_code else outcome_in(outcome, row, record)
            found[row.decision_id] = agent_input(record), said
    there = [one for one in decisions if one in found]
    if len(there) < len(decisions):
        say(f"{len(decisions) - len(there)} decisions of the set can't be read any more, and are not run")
    lines = {}
    sampled = runs(agent, (found[one][0] for one in there), parallel=parallel)
    try:
        for one, run in zip(there, sampled, strict=True):
            lines[one] = line_of(decisions.index(one) + 1, run, outcome, hidden)
            tick(run)
    finally:
        sampled.close()  # type: ignore[attr-defined]
    header = {
        "rate_id": new_id(),
        "kind": "canary",
        "tenant": home.settings.tenant,
        "created_at": iso_time(wall_clock_ms()),
        "decision_id": None,
        "record_digest": None,
        "input_digest": digest_of({"decisions": list(decisions), "outcome": outcome.text}),
        "recorded": {},
        "asked": {
            "agent": named,
            "name": name,
            "outcome": outcome.text,
            "decisions": list(decisions),
            "recorded": [found[one][1] if one in found else None for one in decisions],
        },
    }
    taken = RateSample(header, [lines.get(one) or _not_run(at) for at, one in enumerate(decisions, 1)], None)
    save(home.settings, taken)
    return taken


def _not_run(number: int) -> dict[str, Any]:
    return {
        "run": number, "outcome": None, "failed": "not run: it can't be read any more", "exit_code": None,
        "seconds": 0, "metadata": {},
    }  # fmt: skip


def as_ticks(found: Sequence[RateSample]) -> list[dict[str, Any]]:
    """The rounds of any canaries, in order, each against the first of its own set."""
    firsts: dict[tuple[str, str], RateSample] = {}
    counts: dict[tuple[str, str], int] = {}
    out = []
    for one in found:
        key = one.header["asked"]["name"], one.header["input_digest"]
        first = firsts.setdefault(key, one)
        number = counts[key] = counts.get(key, -1) + 1
        out.append(_tick(first, one, number))
    return out


def _tick(first: RateSample, one: RateSample, number: int) -> dict[str, Any]:
    recorded_ = [text or "" for text in one.header["asked"]["recorded"]]
    then, now = ([run["outcome"] for run in taken.runs] for taken in (first, one))
    found = compared(then, now, recorded_, number)
    rate, lower, upper = found.agreement
    return {
        "rate_id": one.header["rate_id"],
        "name": one.header["asked"]["name"],
        "at": one.header["created_at"],
        "round": number,
        "requests": len(now),
        "answered": found.answered,
        "drift_score": found.score,
        "agreement": {"rate": rate, "lower": lower, "upper": upper},
        "psi": found.psi,
        "p_agreement": found.p_agreement,
        "p_mix": found.p_mix,
        "limit": found.limit,
        "drifted": found.drifted,
        "new_metadata": _new_metadata(first, one),
    }


def _new_metadata(first: RateSample, one: RateSample) -> dict[str, list[str]]:
    """Provider fields with values that the first round did not have."""

    def seen(taken: RateSample) -> Mapping[str, set[str]]:
        out: dict[str, set[str]] = {}
        for run in taken.runs:
            for name, value in run["metadata"].items():
                out.setdefault(name, set()).add(value)
        return out

    before = seen(first)
    fresh = {name: sorted(values - before.get(name, set()))[:5] for name, values in seen(one).items()}
    return {name: values for name, values in sorted(fresh.items()) if values}
