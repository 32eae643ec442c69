"""Values as people read them: what is absent is left out, true and false are JSON's, no word is Python's."""

from __future__ import annotations

import re

import pytest
from conftest_e2e import refund
from inside import Inside

from lumyn import sdk

pytest_plugins = ("inside_plugin",)

POLICY = """\
policy: refunds
version: 5.0.0
rules:
  - id: R_VIP
    if: {vip: {eq: true}}
    then: {verdict: ESCALATE, reason_codes: [VIP]}
  - id: R_LISTED
    if: {vip: {in: [true, x]}}
    then: {verdict: ESCALATE, reason_codes: [LISTED]}
  - id: R_NOT
    if: {not: {vip: {eq: true}}}
    then: {verdict: ALLOW, reason_codes: [PLAIN]}
memory: {}
"""
_PYTHON = re.compile(r"\b(None(?! yet)|True|False)\b|[{\[]'")
REASONS = re.compile(r"reasons=\[[^\]]*\]")
"""As the incident guide shows them."""


@pytest.fixture
def names(inside: Inside) -> list[str]:
    inside.write("policy.yml", POLICY)
    names = []
    for amount, vip in (({"value": None, "currency": "USD"}, True), ({"value": 100, "currency": None}, None), (None, None)):
        body = refund()
        body["action"] |= {"type": "prêt", "amount": amount, "insured": True}
        body["evidence"] |= {} if vip is None else {"vip": vip}
        body["context"]["inline"] |= {"flag": False, "none": None}
        body["provenance"] = {"model": "m", "cached": True, "none": None}
        names.append(str(inside.decide(body)["decision_id"]))
    return names


def test_no_page_of_the_terminal_has_a_word_of_python(inside: Inside, names: list[str]) -> None:
    (inside.folder / "other.yml").write_text(POLICY.replace("5.0.0", "5.1.0").replace("verdict: ESCALATE", "verdict: DENY"))
    texts = []
    for name in names:
        texts += [inside.run("show", name).stdout, inside.run("explain", name).stdout]
        inside.run("export", name, "--pack", "--out", f"{name}.zip")
        texts.append(inside.run("replay", f"{name}.zip").stdout)
    inside.run("incident", "open", "--title", "t", "--decision", names[0], "--query", "action_type='prêt'")
    inside.run("kill-switch", "on", "--action-type", "prêt", "--why", "x")
    switch = inside.json("kill-switch", "status", "--json")[0]["switch_id"]
    inside.run("incident", "add", "INC-1", "--kill-switch", switch)
    job = inside.json("backfill", "--policy", "other.yml", "--json")["job"]
    inside.run("backfill", "--resume", job, "--apply", "--why", "x")
    for arguments in (
        ("list",), ("incident", "show", "INC-1"), ("incident", "postmortem", "INC-1"), ("ledger", "list"),
        *(("ledger", "show", name) for name in names[:1]), ("inbox", "list"), ("runbook", "show", "bad-data"),
        ("backtest", "--policy", "other.yml", "--by", "evidence.vip"), ("rate", "changes", "--from", "2020-01-01"),
    ):  # fmt: skip
        texts.append(inside.run(*arguments).stdout)
    for text in texts:
        lines = [line for line in REASONS.sub("", text).splitlines() if _PYTHON.search(line)]
        assert not lines, lines


def test_an_amount_without_a_value_or_a_currency_is_told_by_what_there_is(inside: Inside, names: list[str]) -> None:
    shown = [inside.run("show", name).stdout for name in names]
    actions = [next(line for line in text.splitlines() if line.startswith("action: ")) for text in shown]
    assert actions == [
        "action: prêt for user usr_abc123", "action: prêt 100 for user usr_abc123", "action: prêt for user usr_abc123",
    ]  # fmt: skip
    explained = [inside.run("explain", name).stdout for name in names]
    assert ' the "prêt" for user ' in explained[0] and ' the "prêt" of 100 for user ' in explained[1]
    for command, column in (("list", 4), ("inbox list", 5)):
        lines = [line.split(" | ") for line in inside.run(*command.split()).stdout.splitlines()[1:]]
        rows = {cells[0]: cells[column].strip() for cells in lines}
        assert [rows[name] for name in names] == ["", "100", ""]


def test_a_rule_without_an_effect_shows_none(inside: Inside, names: list[str]) -> None:
    line = next(line for line in inside.run("show", names[1]).stdout.splitlines() if "R_NOT" in line)
    assert line == "  - ALLOW_PATHS:R_NOT reasons=[] indeterminate (evidence.vip)"


def test_what_rules_looked_at_stands_in_a_postmortem_as_in_the_policy(inside: Inside, names: list[str]) -> None:
    sdk.label(names[0], "failure", actor="ann")
    inside.run("incident", "open", "--title", "t", "--decision", names[0])
    text = inside.run("incident", "postmortem", "INC-1").stdout
    assert "evidence.vip eq true (known)" in text and 'evidence.vip in [true,"x"] (known)' in text
