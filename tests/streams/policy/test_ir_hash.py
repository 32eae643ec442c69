"""`ir_hash` is over what the rules mean: blind to layout, awake to every meaning."""

from __future__ import annotations

import pytest

from schemas.digests import digest
from streams.policy import load_policy

BASE = """\
policy: p
version: 1
fx: {EUR: 1.08, GBP: 1.25}
rules:
  - id: R1
    stage: HARD_BLOCKS
    if: {risk: {gte: 0.8, lt: 5}, action_type: refund, any: [{a: 1}, {b: 2}]}
    then: {verdict: DENY, reason_codes: [X, Y], obligations: [{k: 1, l: 2}], queries: [{q: 1}]}
    immune: false
    on_missing: abstain
  - id: R2
    if: {note: "text"}
    then: {verdict: ALLOW}
default: {verdict: ESCALATE, reason_codes: [NONE]}
memory: {soften: 0.9, weights: {text: 0.3, categories: 0.4, numbers: 0.3}}
"""


def ir_hash(text):
    return load_policy(text.encode(), name="p.yml").ir_hash


def changed(old, new):
    assert BASE.count(old) == 1
    return BASE.replace(old, new)


@pytest.mark.parametrize(
    "same",
    [
        changed("policy: p", "policy: other"),
        changed("version: 1", "version: 2"),
        changed("policy: p", "# a comment\ndescription: words\npolicy: p"),
        changed("EUR: 1.08, GBP: 1.25", "GBP: 1.250, EUR: 1.08"),
        changed("{gte: 0.8, lt: 5}, action_type: refund", "{lt: 5.0, gte: 0.80}, action_type: {eq: refund}"),
        changed(
            "{risk: {gte: 0.8, lt: 5}, action_type: refund, any: [{a: 1}, {b: 2}]}",
            "{any: [{a: 1}, {b: {eq: 2}}], action.type: refund, evidence.risk: {lt: 5, gte: 8e-1}}",
        ),
        changed("    immune: false\n    on_missing: abstain\n", ""),
        changed("    stage: HARD_BLOCKS\n", ""),
        changed("{k: 1, l: 2}", "{l: 2, k: 1}"),
        changed('"text"', "text"),
        changed("then: {verdict: ALLOW}", "stage: ALLOW_PATHS\n    then: {reason_codes: [R2]}"),
        changed("memory: {soften: 0.9, weights: {text: 0.3, categories: 0.4, numbers: 0.3}}", "memory: {}"),
        BASE.replace("\n", "\r\n"),
    ],
)
def test_layout_names_and_defaults_written_out_do_not_change_it(same):
    assert ir_hash(same) == ir_hash(BASE)
    assert load_policy(same.encode(), name="p.yml").policy_hash == digest(same.encode()) != digest(BASE.encode())


@pytest.mark.parametrize(
    "other",
    [
        changed("gte: 0.8", "gte: 0.81"),
        changed("gte: 0.8", "gt: 0.8"),
        changed("{a: 1}", "{a: '1'}"),
        changed("{a: 1}", "{a: true}"),
        changed("{a: 1}, {b: 2}", "{b: 2}, {a: 1}"),
        changed("id: R2", "id: R3"),
        changed("[X, Y]", "[Y, X]"),
        changed("{k: 1, l: 2}", "{k: 1, l: 3}"),
        changed("{q: 1}", "{q: 2}"),
        changed("immune: false", "immune: true"),
        changed("on_missing: abstain", "on_missing: deny"),
        changed("stage: HARD_BLOCKS", "stage: REQUIREMENTS"),
        changed("verdict: DENY", "verdict: ABSTAIN"),
        changed("EUR: 1.08", "EUR: 1.09"),
        changed("[NONE]", "[OTHER]"),
        changed("soften: 0.9", "soften: 0.91"),
        changed("text: 0.3", "text: 0.31"),
        changed("memory: {soften: 0.9, weights: {text: 0.3, categories: 0.4, numbers: 0.3}}", ""),
        changed("action_type: refund", "action.kind: refund"),
    ],
)
def test_every_change_of_meaning_changes_it(other):
    assert ir_hash(other) != ir_hash(BASE)


def test_the_order_of_rules_counts():
    lines = BASE.splitlines(keepends=True)
    swapped = "".join(lines[:4] + lines[10:13] + lines[4:10] + lines[13:])
    assert ir_hash(swapped) != ir_hash(BASE)


def test_the_same_graph_gives_the_same_source():
    again = changed("policy: p", "# comment\npolicy: p")
    first, second = (load_policy(text.encode(), name="p.yml") for text in (BASE, again))
    assert first.python_source == second.python_source
