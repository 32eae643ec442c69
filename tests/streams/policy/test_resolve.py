"""Precedence over hits, as the evaluator and later the memory's arbitration use it."""

from __future__ import annotations

import dataclasses

from streams.policy import RuleHit, load_policy, resolve

POLICY = load_policy(
    b"""
rules:
  - {id: R_DENY, if: {x: 1}, then: {verdict: DENY, reason_codes: [NO]}}
  - {id: R_LOOK, if: {x: 1}, then: {verdict: ESCALATE, reason_codes: [LOOK]}}
  - {id: R_FINE, if: {x: 1}, then: {verdict: ALLOW, reason_codes: [FINE]}}
""",
    name="p.yml",
)
HITS = POLICY.evaluate({"action": {"type": "a"}, "evidence": {"x": 1}}, time_ms=0).hits


def test_a_softened_denial_leaves_the_codes_and_the_next_effect_decides():
    softened = [
        dataclasses.replace(hit, effect="ESCALATE", reason_codes=()) if hit.id == "R_DENY" else hit for hit in HITS
    ]
    got = resolve(softened, "ESCALATE", ("D",))
    assert (got.verdict, got.reason_codes) == ("ESCALATE", ("LOOK",))


def test_hits_without_effect_leave_the_default():
    idle = [dataclasses.replace(hit, effect=None) for hit in HITS]
    got = resolve(idle, "ABSTAIN", ("D",))
    assert (got.verdict, got.reason_codes, got.obligations, got.queries) == ("ABSTAIN", ("D",), (), ())


def test_hits_are_frozen_and_in_file_order():
    assert [hit.id for hit in HITS] == ["R_DENY", "R_LOOK", "R_FINE"]
    assert all(dataclasses.is_dataclass(hit) and isinstance(hit, RuleHit) for hit in HITS)


def test_rules_of_one_action_and_of_any_stay_in_file_order():
    text = b"""
rules:
  - {id: R1, stage: ESCALATIONS, if: {x: 1}}
  - {id: R2, stage: ESCALATIONS, if: {action_type: a}}
  - {id: R3, stage: ESCALATIONS, if: {x: 1}}
  - {id: R4, stage: ESCALATIONS, if: {action_type: {in: [b, a]}}}
  - {id: R5, stage: ESCALATIONS, if: {action_type: {in: [b]}}}
  - {id: R6, stage: ESCALATIONS, if: {any: [{action_type: a}, {action_type: c}]}}
  - {id: R7, stage: ESCALATIONS, if: {not: {action_type: a}}}
"""
    compiled = load_policy(text, name="p.yml")

    def hits(kind):
        found = compiled.evaluate({"action": {"type": kind}, "evidence": {"x": 1}}, time_ms=0).hits
        return " ".join(hit.id for hit in found)

    assert hits("a") == "R1 R2 R3 R4 R6"
    assert hits("b") == "R1 R3 R4 R5 R7"
    assert hits("c") == "R1 R3 R6 R7"
    assert hits("d") == "R1 R3 R7"
    assert compiled.uses_memory_facts is False
