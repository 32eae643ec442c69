"""Arbitration: how memory bends what the rules said. It can make a verdict stricter; it softens one kind of DENY.

The steps are those of CONTRACTS (Arbitration); the first that applies ends it. Nothing here can turn into ALLOW what
the rules did not allow, and another harmful neighbour never makes a verdict milder.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from memory_service.recall import CountedHit, Recall
from schemas.policy import MemorySettings
from schemas.reasons import (
    FAILURE_MEMORY_SIMILAR_BLOCK,
    FAILURE_MEMORY_SIMILAR_ESCALATE,
    STORAGE_UNAVAILABLE,
)
from schemas.verdict import SEVERITY, Verdict
from streams.policy import CompiledPolicy, Evaluation, RuleHit, resolve

_LEAST_COVERAGE = 0.5
_LEAST_FACTS = 3


@dataclass(frozen=True, slots=True)
class Outcome:
    """The final verdict with its reasons; `hits` are the rules' own findings, as traced."""

    verdict: Verdict
    reason_codes: tuple[str, ...]
    hits: tuple[RuleHit, ...]
    obligations: tuple[Any, ...]
    queries: tuple[Any, ...]


def arbitrate(policy: CompiledPolicy, evaluation: Evaluation, recall: Recall) -> Outcome:
    """Combine rules and memory."""
    base = Outcome(
        evaluation.verdict, evaluation.reason_codes, evaluation.hits, evaluation.obligations, evaluation.queries
    )
    settings = policy.memory
    if settings is None:
        return base
    if not recall.available:
        return _without_memory(policy, base, settings)
    blocked = _block(policy, base, recall, settings)
    if blocked is not None:
        return blocked
    if must_escalate(recall, settings):
        return _at_least(policy, base, "ESCALATE", FAILURE_MEMORY_SIMILAR_ESCALATE)
    return _soften(policy, base, recall, settings)


def _without_memory(policy: CompiledPolicy, base: Outcome, settings: MemorySettings) -> Outcome:
    verdict: Verdict
    match settings.on_unavailable:
        case "abstain":
            verdict = "ABSTAIN"
        case "escalate":
            verdict = "ESCALATE"
        case _:
            return base
    return _at_least(policy, base, verdict, STORAGE_UNAVAILABLE)


def _block(policy: CompiledPolicy, base: Outcome, recall: Recall, settings: MemorySettings) -> Outcome | None:
    """Step 1: a harmful neighbour as near as `failure_block`."""
    harmful = recall.nearest("harmful")
    if harmful is None or harmful.score < settings.failure_block:
        return None
    denied = any(hit.effect == "DENY" for hit in base.hits) or base.verdict == "DENY"
    disputed = any(s.dot > harmful.dot and s.score >= settings.soften for s in recall.in_role("softening"))
    if not denied and (disputed or recall.coverage < _LEAST_COVERAGE):
        return _at_least(policy, base, "ESCALATE", FAILURE_MEMORY_SIMILAR_ESCALATE)
    return _at_least(policy, base, "DENY", FAILURE_MEMORY_SIMILAR_BLOCK)


def must_escalate(recall: Recall, settings: MemorySettings) -> bool:
    """Step 2: a harmful neighbour near enough to ask a person, unless a nearer fine one and the rate speak for it."""
    harmful, bare = recall.nearest("harmful"), recall.nearest("harmful_without_text")
    near = harmful is not None and harmful.score >= settings.failure_escalate
    reworded = bare is not None and bare.score >= settings.failure_block and recall.facts >= _LEAST_FACTS
    if not near and not reworded:
        return False
    return not _supported(recall, settings, harmful)


def _supported(recall: Recall, settings: MemorySettings, harmful: CountedHit | None) -> bool:
    fine = recall.nearest("fine")
    upper: float = recall.signals["nearby"]["upper"]
    return (
        fine is not None
        and fine.score >= settings.success_support
        and (harmful is None or fine.dot > harmful.dot)
        and upper < 0.5
    )


def _soften(policy: CompiledPolicy, base: Outcome, recall: Recall, settings: MemorySettings) -> Outcome:
    """Step 3: a DENY by rules that was wrong before, for the same rules, with no harm nearer, goes to a person.

    A rule that blocks because its evidence is missing is never softened: what is not known is no excuse.
    """
    blocking = [hit for hit in base.hits if hit.effect == "DENY"]
    if base.verdict != "DENY" or not blocking or any(h.immune or h.outcome != "matched" for h in blocking):
        return base
    harmful = recall.nearest("harmful")
    rules = {hit.id for hit in blocking}
    excused = any(
        s.score >= settings.soften and rules <= set(s.rules) and (harmful is None or s.dot >= harmful.dot)
        for s in recall.in_role("softening")
    )
    if not excused:
        return base
    softened = tuple(
        replace(hit, effect="ESCALATE", reason_codes=(), obligations=(), queries=()) if hit.effect == "DENY" else hit
        for hit in base.hits
    )
    return _resolved(policy, base, softened, FAILURE_MEMORY_SIMILAR_ESCALATE)


def _at_least(policy: CompiledPolicy, base: Outcome, verdict: Verdict, code: str) -> Outcome:
    """Raise the verdict; the code appears only when it changed it."""
    if SEVERITY[base.verdict] >= SEVERITY[verdict]:
        return base
    return _resolved(policy, base, base.hits, code, at_least=verdict)


def _resolved(
    policy: CompiledPolicy, base: Outcome, hits: Sequence[RuleHit], code: str, at_least: Verdict = "ALLOW"
) -> Outcome:
    """Run precedence again with memory's own finding added last; what carries no effect any more drops out."""
    memory = RuleHit(
        id="memory",
        stage="MEMORY",
        effect=at_least if at_least != "ALLOW" else "ESCALATE",
        reason_codes=(code,),
        facts=(),
        outcome="matched",
        missing=(),
        immune=False,
        obligations=(),
        queries=(),
    )
    only_default = not any(hit.effect is not None for hit in hits) and policy.default_verdict != "ALLOW"
    spoken = [_default_hit(policy)] if only_default else list(hits)
    resolution = resolve([*spoken, memory], policy.default_verdict, policy.default_reason_codes)
    return Outcome(resolution.verdict, resolution.reason_codes, base.hits, resolution.obligations, resolution.queries)


def _default_hit(policy: CompiledPolicy) -> RuleHit:
    """A default that is not ALLOW keeps its reason codes when memory raises the verdict above it."""
    return RuleHit(
        id="default",
        stage="DEFAULT",
        effect=policy.default_verdict,
        reason_codes=policy.default_reason_codes,
        facts=(),
        outcome="matched",
        missing=(),
        immune=False,
        obligations=(),
        queries=(),
    )
