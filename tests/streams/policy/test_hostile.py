"""Hostile policies and requests: bounded, no code of theirs runs, nothing raises."""

from __future__ import annotations

import ast
import json

import pytest

from schemas.canonical import encode
from schemas.errors import PolicyInvalid
from schemas.limits import MAX_POLICY_BYTES
from streams.policy import check_policy, load_policy

NASTY = [
    "__import__('os').system('echo pwned')",
    "'); raise SystemExit #",
    '"""\nimport os\n"""',
    "\\",
    "'\"\\'\\\"",
    "line\nbreak\r\ttab",
    "\u2028\u2029\x85",
    "{0.__class__}",
    "%s %n {x}",
    "\x00\x01",
    "😀 \u202e right to left",
    "# comment",
    "f0",
    "hits",
]
WITHIN = {"int", "float", "str", "bool", "dict", "INF", "NAN", "EMPTY", "walk", "FX", "contains", "found", "date_of"}


def policy_of(*conditions):
    rules = [{"id": f"R{n}", "if": one, "then": {"verdict": "DENY"}} for n, one in enumerate(conditions)]
    return json.dumps({"rules": rules}).encode()


@pytest.mark.parametrize("text", NASTY)
def test_any_text_is_compared_as_text(text):
    operators = {"eq": text, "in": [text, 1], "contains": text, "starts_with": text, "ends_with": text}
    compiled = load_policy(policy_of(*({"x": {op: want}} for op, want in operators.items())), name="p.json")
    request = {"action": {"type": "a"}, "subject": {}, "evidence": {"x": text}}
    assert [hit.outcome for hit in compiled.evaluate(request, time_ms=0).hits] == ["matched"] * 5
    request["evidence"]["x"] = "other"
    assert compiled.evaluate(request, time_ms=0).hits == ()


@pytest.mark.parametrize("text", NASTY)
def test_any_text_can_be_a_name(text):
    compiled = load_policy(policy_of({text.replace(".", "_"): 1}, {"a." + text.replace(".", "_"): 1}), name="p.json")
    evidence = {text.replace(".", "_"): 1, "a": {text.replace(".", "_"): 1}}
    request = {"action": {"type": "a"}, "subject": {}, "evidence": evidence}
    assert len(compiled.evaluate(request, time_ms=0).hits) == 2


@pytest.mark.parametrize("text", NASTY)
def test_the_generated_source_holds_only_plain_code(text):
    action = {"action_type": text}
    compiled = load_policy(policy_of({"x": text, **action}, {"y.z": {"matches": "[" + "a]"}}, {text: text}), name="p")
    tree = ast.parse(compiled.python_source)
    for node in ast.walk(tree):
        assert not isinstance(node, ast.Import | ast.ImportFrom | ast.Lambda | ast.ClassDef | ast.Await | ast.Raise)
        if isinstance(node, ast.Attribute):
            assert node.attr in ("get", "append", "__class__", "startswith", "endswith")
        if isinstance(node, ast.Call):
            name = node.func.attr if isinstance(node.func, ast.Attribute) else node.func.id
            assert name in WITHIN | {"get", "append", "startswith", "endswith"}


def test_the_generated_code_runs_without_builtins():
    compiled = load_policy(policy_of({"x": 1}), name="p.json")
    function = compiled._program.every[0]
    assert function.__globals__["__builtins__"] == {}


@pytest.mark.parametrize(
    "text", ["[" * 10_000, "{a: " * 10_000, "- " * 10_000, "rules: " + "[" * 10_000 + "]" * 10_000]
)
def test_deep_nesting_is_an_error_not_a_crash(text):
    report = check_policy(text.encode(), name="p.yml")
    assert len(report.errors) == 1
    assert report.errors[0].endswith("nested deeper than 100 levels")


def nested(levels, kind):
    condition = {"x": 1}
    for _ in range(levels):
        condition = {kind: condition if kind == "not" else [condition, {"y": 2}]}
    return condition


@pytest.mark.parametrize("kind", ["all", "any", "not"])
def test_conditions_nest_to_their_limit_and_no_further(kind):
    compiled = load_policy(policy_of(nested(32, kind)), name="p.json")
    compiled.evaluate({"action": {"type": "a"}, "evidence": {"x": 1, "y": 2}}, time_ms=0)
    with pytest.raises(PolicyInvalid, match="conditions nested deeper than 32 levels"):
        load_policy(policy_of(nested(33, kind)), name="p.json")


def test_a_file_over_the_limit_is_not_even_read():
    report = check_policy(b"x" * (MAX_POLICY_BYTES + 1), name="p.yml")
    assert report.errors == [f"p.yml:1:1: {MAX_POLICY_BYTES + 1} bytes, more than the {MAX_POLICY_BYTES} accepted"]


def test_a_file_of_too_many_values_is_refused(monkeypatch):
    monkeypatch.setattr("streams.policy.source.MAX_VALUES", 1000)
    report = check_policy(b"rules: [" + b"1," * 1_000 + b"]", name="p.yml")
    assert report.errors == ["p.yml:1:2003: more than 1000 values"]


def test_a_pattern_that_would_stall_a_backtracking_engine_does_not():
    compiled = load_policy(policy_of({"x": {"matches": "^(a+)+$"}}), name="p.json")
    request = {"action": {"type": "a"}, "evidence": {"x": "a" * 50_000 + "!"}}
    assert compiled.evaluate(request, time_ms=0).hits == ()


def test_a_path_with_many_meanings_is_walked_in_bounded_time():
    node = {}
    for _ in range(12):
        node = {".".join("a" * length): node for length in range(1, 12)}
    compiled = load_policy(policy_of({"evidence." + ".".join("a" * 10) + ".b": 1}), name="p.json")
    got = compiled.evaluate({"action": {"type": "a"}, "evidence": node}, time_ms=0)
    assert got.hits[0].missing == ("evidence." + ".".join("a" * 10) + ".b",)


@pytest.mark.parametrize(
    "request_",
    [
        {},
        {"action": None, "subject": [], "evidence": 1, "context": "x", "provenance": False},
        {"action": {"type": None}, "evidence": {"x": {}}},
        {"action": {"type": []}, "evidence": []},
        {"action": {"type": "a", "amount": {"value": 10**400, "currency": "EUR"}}},
        {"action": {"type": "a", "amount": {"value": 1e308, "currency": "EUR"}}},
        {"action": {"type": "a", "amount": float("nan")}},
        {"action": {"type": "a"}, "evidence": {"x": "\ud800", "y": "\udfff"}},
        {"action": {"type": "a"}, "context": {"inline": {"inline": {"inline": 1}}}},
    ],
)
def test_no_request_makes_evaluation_raise(request_):
    compiled = load_policy(
        b"""
fx: {EUR: 1000}
rules:
  - {id: R1, stage: HARD_BLOCKS, if: {x: {matches: a}, action_type: a}}
  - {id: R2, stage: HARD_BLOCKS, if: {any: [{y: {starts_with: a}}, {amount_usd: {gt: 5}}, {amount: {gt: 5}}]}}
  - {id: R3, stage: HARD_BLOCKS, if: {context.inline.inline: 1, subject_id: a, memory.nearby.upper: {gt: 1}}}
  - {id: R4, stage: ALLOW_PATHS, if: {action_type: a}}
  - {id: R5, stage: ALLOW_PATHS, if: {time.date: {gte: 2024-01-01}}}
""",
        name="p.yml",
    )
    got = compiled.evaluate(request_, time_ms=0)
    assert got.verdict != "ALLOW"
    if "\\ud800" not in repr(request_):
        encode([list(hit.facts) for hit in got.hits])


def test_what_a_caller_does_to_a_result_does_not_reach_the_policy():
    text = b"rules:\n  - {id: R, if: {x: {in: [1, 2]}}, then: {verdict: DENY, obligations: [{a: {b: 1}}]}}\n"
    compiled = load_policy(text, name="p.yml")
    request = {"action": {"type": "a"}, "evidence": {"x": 1}}
    got = compiled.evaluate(request, time_ms=0)
    got.obligations[0]["a"]["b"] = 2
    got.hits[0].facts[0]["want"].append(3)
    again = compiled.evaluate(request, time_ms=0)
    assert again.obligations == ({"a": {"b": 1}},)
    assert again.hits[0].facts[0]["want"] == [1, 2]


def test_long_values_are_cut_in_the_trace():
    compiled = load_policy(policy_of({"x": {"exists": True}, "y": {"exists": True}}), name="p.json")
    request = {"action": {"type": "a"}, "evidence": {"x": "a" * 1000, "y": {"deep": [1] * 1000}}}
    shown = [fact["value"] for fact in compiled.evaluate(request, time_ms=0).hits[0].facts]
    assert shown[0] == "a" * 200 + "…"
    assert len(shown[1]) == 201
    assert shown[1].startswith('{"deep": [1, 1')


def test_thousands_of_rules_load_and_decide():
    rules = [
        {"id": f"R{n}", "if": {"action_type": f"t{n % 100}", f"f{n % 7}": {"gt": n}}, "then": {"verdict": "DENY"}}
        for n in range(5000)
    ]
    compiled = load_policy(json.dumps({"rules": rules}).encode(), name="p.json")
    request = {"action": {"type": "t7"}, "evidence": {f"f{n}": 300 for n in range(7)}}
    hits = compiled.evaluate(request, time_ms=0).hits
    assert [hit.id for hit in hits] == ["R7", "R107", "R207"]
