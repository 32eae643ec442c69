"""From the file's tree to the rule graph, with every error of the file reported at once."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import PurePath
from types import MappingProxyType
from typing import Any, cast

from schemas.reasons import ENGINE_CODES, NO_RULE_MATCHED
from schemas.verdict import VERDICTS, Verdict
from streams.policy.check_memory import read_memory
from streams.policy.conditions import read_condition
from streams.policy.findings import Findings, Mark
from streams.policy.fx import read_fx
from streams.policy.read import (
    Fields,
    Unreadable,
    choice,
    each,
    fields_of,
    flag,
    items_of,
    json_value,
    kind_name,
    word,
)
from streams.policy.rules import (
    ALWAYS,
    EFFECT_OF_ON_MISSING,
    ON_MISSING_OF_STAGE,
    STAGE_OF_VERDICT,
    STAGES,
    VERDICT_OF_STAGE,
    Condition,
    OnMissing,
    PolicyGraph,
    Rule,
    Stage,
)
from streams.policy.source import Items, Node

_POLICY_KEYS = ("policy", "version", "description", "fx", "rules", "default", "memory")
_RULE_KEYS = ("id", "description", "stage", "if", "then", "immune", "on_missing")
_THEN_KEYS = ("verdict", "reason_codes", "obligations", "queries")
_DEFAULT_KEYS = ("verdict", "reason_codes")
_RULE_MEANINGS = MappingProxyType(
    {"when": "if", "condition": "if", "conditions": "if", "action": "then", "effect": "then", "name": "id"}
)
_POLICY_MEANINGS = MappingProxyType({"name": "policy", "defaults": "default", "rates": "fx"})
_THEN_MEANINGS = MappingProxyType({"reasons": "reason_codes", "codes": "reason_codes", "effect": "verdict"})

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,127}")
_VERSION = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.+-]{0,63}")
_RULE_ID = re.compile(r"[A-Za-z][A-Za-z0-9_.-]{0,63}")
_CODE = re.compile(r"[A-Z][A-Z0-9_]{0,63}")
_ANY_TEXT = re.compile(r".*", re.DOTALL)


def read_policy(root: Node, out: Findings) -> PolicyGraph | None:
    """The rule graph, or None with the errors in `out`."""
    try:
        fields = fields_of(root, "a policy", _POLICY_KEYS, out, _POLICY_MEANINGS)
    except Unreadable:
        return None
    name = each(fields, "policy", lambda node: word(node, "`policy`", _NAME, "a name (letters, digits, `_.-`)", out))
    version = each(fields, "version", lambda node: word(node, "`version`", _VERSION, "a version", out))
    each(fields, "description", lambda node: word(node, "`description`", _ANY_TEXT, "text", out))
    fx = each(fields, "fx", lambda node: read_fx(node, out)) or {}
    rules = _rules(fields, out)
    verdict, codes = each(fields, "default", lambda node: _default(node, out)) or (
        "ESCALATE",
        (NO_RULE_MATCHED,),
    )
    memory = each(fields, "memory", lambda node: read_memory(node, out))
    if out.failed:
        return None
    return PolicyGraph(
        name or _name_of_file(out.name), version or "0", MappingProxyType(fx), rules, verdict, codes, memory
    )


def _name_of_file(path: str) -> str:
    name = PurePath(path).name
    stem = re.sub(r"\.(ya?ml|json)$", "", name, flags=re.IGNORECASE)
    clean = re.sub(r"[^A-Za-z0-9_.-]+", "-", stem).strip("-_.")[:128]
    return clean or "policy"


def _default(node: Node, out: Findings) -> tuple[Verdict, tuple[str, ...]]:
    fields = fields_of(node, "`default`", _DEFAULT_KEYS, out)
    verdict = each(fields, "verdict", lambda value: choice(value, "`verdict`", VERDICTS, out)) or "ESCALATE"
    codes = each(fields, "reason_codes", lambda value: _codes(value, out, own=NO_RULE_MATCHED))
    if verdict == "ALLOW":
        out.warn(fields.mark_of("verdict"), "default `ALLOW` lets through everything that no rule speaks of")
    return cast(Verdict, verdict), codes or (NO_RULE_MATCHED,)


def _codes(node: Node, out: Findings, own: str | None = None) -> tuple[str, ...]:
    codes: list[str] = []
    items = items_of(node, "`reason_codes`", out)
    if not items:
        out.error(node.mark, "`reason_codes` needs at least one code")
        raise Unreadable
    for item in items:
        try:
            code = word(item, "reason code", _CODE, "a code (capitals, digits and `_`, up to 64)", out)
        except Unreadable:
            continue
        if code in ENGINE_CODES and code != own:
            out.error(item.mark, f"reason code `{code}` is the engine's own; choose another")
        elif code not in codes:
            codes.append(code)
    return tuple(codes)


def _rules(fields: Fields, out: Findings) -> tuple[Rule, ...]:
    node = fields.get("rules")
    if node is None:
        out.error(fields.mark, "a policy needs `rules`")
        return ()
    if not isinstance(node, Items):
        out.error(node.mark, f"`rules` takes a list, not {kind_name(node)}")
        return ()
    if not node.items:
        out.warn(node.mark, "no rules: every request gets the default verdict")
    rules: list[Rule] = []
    lines: dict[str, int] = {}
    for item in node.items:
        try:
            rules.append(_rule(item, lines, out))
        except Unreadable:
            continue
    return tuple(rules)


def _rule(node: Node, lines: dict[str, int], out: Findings) -> Rule:
    """One rule. Every part is read before giving up, so that all its errors are reported."""
    fields = fields_of(node, "a rule", _RULE_KEYS, out, _RULE_MEANINGS)
    rule_id = _rule_id(fields, lines, out)
    each(fields, "description", lambda value: word(value, "`description`", _ANY_TEXT, "text", out))
    condition = _condition(fields, out)
    then = _then(fields, out)
    immune = each(fields, "immune", lambda value: flag(value, "`immune`", out)) or False
    stage_text = each(fields, "stage", lambda value: choice(value, "`stage`", STAGES, out))
    verdict_text = each(then, "verdict", lambda value: choice(value, "`verdict`", VERDICTS, out))
    codes = each(then, "reason_codes", lambda value: _codes(value, out))
    obligations = each(then, "obligations", lambda value: _payloads(value, "obligations", out)) or ()
    queries = each(then, "queries", lambda value: _payloads(value, "queries", out)) or ()
    stage, verdict = _stage_and_verdict(
        cast("Stage | None", stage_text), cast("Verdict | None", verdict_text), fields, then, out
    )
    on_missing = _on_missing(stage, fields, out)
    if rule_id is None or condition is None:
        raise Unreadable
    if codes is None and then.get("reason_codes") is None:
        codes = (_code_of(rule_id, fields, out),)
    return Rule(
        rule_id,
        stage,
        verdict,
        codes or (),
        obligations,
        queries,
        immune,
        on_missing,
        condition,
        *node.mark,
    )


def _rule_id(fields: Fields, lines: dict[str, int], out: Findings) -> str | None:
    if fields.get("id") is None:
        out.error(fields.mark, "a rule needs an `id`")
        return None
    wanted = "an id (a letter, then letters, digits, `_.-`, up to 64)"
    rule_id = each(fields, "id", lambda node: word(node, "rule id", _RULE_ID, wanted, out))
    if rule_id is not None and rule_id in lines:
        out.error(fields.found["id"][1].mark, f"rule id `{rule_id}` is used before, on line {lines[rule_id]}")
    elif rule_id is not None:
        lines[rule_id] = fields.found["id"][1].mark.line
    return rule_id


def _condition(fields: Fields, out: Findings) -> Condition | None:
    node = fields.get("if")
    if node is None:
        return ALWAYS
    return each(fields, "if", lambda value: read_condition(value, out))


def _then(fields: Fields, out: Findings) -> Fields:
    nothing = Fields(MappingProxyType({}), fields.mark)
    if fields.get("then") is None:
        return nothing
    return each(fields, "then", lambda node: fields_of(node, "`then`", _THEN_KEYS, out, _THEN_MEANINGS)) or nothing


def _payloads(node: Node, what: str, out: Findings) -> tuple[Any, ...]:
    values = []
    for item in items_of(node, f"`{what}`", out):
        value = json_value(item, f"`{what}`", out)
        if not isinstance(value, dict | str) or not value:
            out.error(item.mark, f"each of `{what}` is a mapping or a text, not {kind_name(item)}")
        values.append(value)
    return tuple(values)


def _stage_and_verdict(
    stage: Stage | None, verdict: Verdict | None, fields: Fields, then: Fields, out: Findings
) -> tuple[Stage, Verdict]:
    wrong_stage = stage is None and fields.get("stage") is not None
    wrong_verdict = verdict is None and then.get("verdict") is not None
    if stage is None and verdict is None:
        if not (wrong_stage or wrong_verdict):
            out.error(fields.mark, "a rule needs a `stage` or a `verdict` in its `then`")
        raise Unreadable
    if wrong_stage or wrong_verdict:
        raise Unreadable
    verdict = verdict or VERDICT_OF_STAGE[cast(Stage, stage)]
    stage = stage or STAGE_OF_VERDICT[verdict]
    if (verdict == "ALLOW") != (stage == "ALLOW_PATHS"):
        mark: Mark = then.mark_of("verdict")
        only = "only `ALLOW_PATHS` rules may allow" if verdict == "ALLOW" else "`ALLOW_PATHS` rules only allow"
        out.error(mark, f"verdict `{verdict}` in stage `{stage}`: {only}")
    return stage, verdict


def _on_missing(stage: Stage, fields: Fields, out: Findings) -> OnMissing:
    """Where a rule blocks, a missing fact must never mean `no match`: that would open the gate."""
    allowed: Mapping[OnMissing, Any] = EFFECT_OF_ON_MISSING
    options = [name for name in allowed if name != "no_match" or stage in ("ESCALATIONS", "ALLOW_PATHS")]
    what = f"`on_missing` in stage `{stage}`"
    value = each(fields, "on_missing", lambda node: choice(node, what, options, out))
    return cast(OnMissing, value) if value else ON_MISSING_OF_STAGE[stage]


def _code_of(rule_id: str, fields: Fields, out: Findings) -> str:
    code = re.sub(r"[^A-Z0-9_]", "_", rule_id.upper())
    if code in ENGINE_CODES:
        out.error(
            fields.mark_of("id"),
            f"rule id `{rule_id}` gives the engine's own reason code; add `reason_codes`",
        )
    return code
