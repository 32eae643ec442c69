"""A policy ready to decide: loaded, checked and compiled once, then only evaluated."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from schemas.digests import digest, digest_of
from schemas.errors import PolicyInvalid
from schemas.policy import MemorySettings
from schemas.reasons import MISSING_EVIDENCE
from schemas.verdict import Verdict
from streams.policy.check import read_policy
from streams.policy.compile import Found, Program, compile_rules
from streams.policy.findings import Findings
from streams.policy.resolve import RuleHit, by_precedence
from streams.policy.rules import PolicyGraph, Rule, leaves
from streams.policy.source import read_source
from streams.policy.trace import Entry, explain, filled, templates
from streams.policy.warnings import warn_of_rules

Fired = tuple[tuple[int, bool], ...]
"""Rules that hit: each one's index, and whether it certainly matched (else it is indeterminate)."""


@dataclass(frozen=True, slots=True)
class Evaluation:
    """What the rules say of one request: each that matched or is indeterminate, and their verdict."""

    hits: tuple[RuleHit, ...]
    default_verdict: Verdict
    default_reason_codes: tuple[str, ...]
    verdict: Verdict
    reason_codes: tuple[str, ...]
    obligations: tuple[Any, ...]
    queries: tuple[Any, ...]


@dataclass(frozen=True, slots=True, eq=False)
class CompiledPolicy:
    """A policy file that validated. `policy_hash` is of its bytes, `ir_hash` of what its rules mean."""

    name: str
    version: str
    policy_hash: str
    ir_hash: str
    source: bytes
    fx: Mapping[str, float]
    memory: MemorySettings | None
    default_verdict: Verdict
    default_reason_codes: tuple[str, ...]
    rules: tuple[Rule, ...]
    uses_memory_facts: bool
    python_source: str
    _program: Program
    _templates: tuple[tuple[Entry, ...] | None, ...]

    def evaluate(
        self, request: Mapping[str, Any], *, time_ms: int, memory: Mapping[str, Any] | None = None
    ) -> Evaluation:
        """Apply the rules to a decoded request; pure, and total: no request makes it raise.

        `time_ms` is the log's time (UTC, since 1970). `memory` is what recall found, as nested dicts
        (`{"available": True, "nearby": {"failure_rate": ...}, ...}`); None: every memory fact is absent.
        """
        asked = request if request.__class__ is dict else dict(request)
        recalled = memory if memory is None or memory.__class__ is dict else dict(memory)
        found = self._program.find(asked, time_ms, recalled)
        hits = tuple([self._hit(one) for one in found])
        verdict, codes = self.default_verdict, self.default_reason_codes
        return Evaluation(hits, verdict, codes, *by_precedence(hits, verdict, codes))

    def fired(self, request: dict[str, Any], *, time_ms: int, memory: dict[str, Any] | None = None) -> Fired:
        """Which rules hit, and whether each is certain: all that the rules' verdict depends on, without its trace."""
        return tuple([(index, matched) for index, matched, _ in self._program.find(request, time_ms, memory)])

    def evaluation_of(self, fired: Fired) -> Evaluation:
        """What `evaluate` gives where these rules hit, but for the facts of their traces."""
        hits = tuple([self._bare_hit(index, matched) for index, matched in fired])
        verdict, codes = self.default_verdict, self.default_reason_codes
        return Evaluation(hits, verdict, codes, *by_precedence(hits, verdict, codes))

    def _bare_hit(self, index: int, matched: bool) -> RuleHit:
        rule = self.rules[index]
        return _matched(rule, ()) if matched else _unknown(rule, (), ())

    def _hit(self, found: Found) -> RuleHit:
        index, matched, values = found
        rule = self.rules[index]
        if not matched:
            return _indeterminate(rule, values)
        plain = self._templates[index]
        facts = filled(plain, values) if plain is not None else tuple(explain(rule.condition, values)[1])
        return _matched(rule, facts)


def _matched(rule: Rule, facts: tuple[Entry, ...]) -> RuleHit:
    return RuleHit(
        rule.id,
        rule.stage,
        rule.verdict,
        rule.reason_codes,
        facts,
        "matched",
        (),
        rule.immune,
        rule.obligations,
        rule.queries,
    )


def _indeterminate(rule: Rule, values: tuple[Any, ...]) -> RuleHit:
    facts = tuple(explain(rule.condition, values)[1])
    return _unknown(rule, facts, tuple(dict.fromkeys(fact["fact"] for fact in facts)))


def _unknown(rule: Rule, facts: tuple[Entry, ...], missing: tuple[str, ...]) -> RuleHit:
    effect = rule.missing_effect
    codes = (MISSING_EVIDENCE,) if effect else ()
    return RuleHit(rule.id, rule.stage, effect, codes, facts, "indeterminate", missing, rule.immune, (), ())


@dataclass(frozen=True, slots=True)
class CheckReport:
    """What is to say of a policy file, as `path:line:column: message`; `policy` when there are no errors."""

    errors: list[str]
    warnings: list[str]
    policy: CompiledPolicy | None


def check_policy(source: bytes, *, name: str) -> CheckReport:
    """Check a policy file called `name`: every error and warning at once, and the policy if it is valid."""
    out = Findings(name)
    root = read_source(source, out)
    graph = read_policy(root, out) if root is not None else None
    if graph is None or out.failed:
        return CheckReport(out.errors(), out.warnings(), None)
    warn_of_rules(graph, out)
    return CheckReport([], out.warnings(), _compiled(graph, source))


def load_policy(source: bytes, *, name: str) -> CompiledPolicy:
    """The policy of a file called `name`. Raises `PolicyInvalid` with every problem."""
    report = check_policy(source, name=name)
    if report.policy is None:
        raise PolicyInvalid(report.errors)
    return report.policy


def _compiled(graph: PolicyGraph, source: bytes) -> CompiledPolicy:
    program = compile_rules(graph)
    return CompiledPolicy(
        name=graph.name,
        version=graph.version,
        policy_hash=digest(source),
        ir_hash=digest_of(graph.ir()),
        source=source,
        fx=graph.fx,
        memory=graph.memory,
        default_verdict=graph.default_verdict,
        default_reason_codes=graph.default_reason_codes,
        rules=graph.rules,
        uses_memory_facts=any(leaf.fact.root == "memory" for rule in graph.rules for leaf in leaves(rule.condition)),
        python_source=program.source,
        _program=program,
        _templates=tuple(templates(rule.condition) for rule in graph.rules),
    )
