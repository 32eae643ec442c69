"""Queries: what is understood, what is refused and where, and what matches."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from schemas.errors import BadQuery
from schemas.ids import time_ms_of
from schemas.query import FIELDS, MAX_CHARS, MAX_VALUES, describe, matches, parse_query

NOW = time_ms_of("2024-12-19T15:00:30.000Z")
ROW: dict[str, Any] = {
    "decision_id": "01JFG000000000000000000000", "verdict": "DENY", "action_type": "refund", "tenant": "default",
    "created_at": time_ms_of("2024-12-19T14:32:59.500Z"), "reason": ("RISK", "LIMIT"), "rule": ("R1",),
    "policy": "refunds", "policy_version": "4.1.0", "label": "none", "request_id": None, "subject_id": "usr_1",
    "subject_type": "user", "amount": 500, "currency": "USD", "amount_usd": 500, "engine": "lumyn-engine/1",
    "inputs_digest": "sha256:" + "0" * 64, "uncertainty_score": 0.25, "failure_similarity": 0.94,
    "provenance": {"model": "gpt-4o", "batch": "7", "a.b": "deep", "note": None},
    "evidence": {"risk": 0.91, "vip": True, "count": 7, "tags": ["a", "b"], "device": {"os": "ios"}},
    "action": {"type": "refund", "amount": {"value": 500, "currency": "USD"}},
    "context": {"channel": "chat"}, "subject": {"type": "user", "id": "usr_1", "country": "NL"},
}


def asks(text: str, row: dict[str, Any] = ROW) -> bool:
    return matches(parse_query(text, now_ms=NOW), row)


def understood(text: str) -> str:
    return describe(parse_query(text, now_ms=NOW))


def refusal(text: str) -> BadQuery:
    with pytest.raises(BadQuery) as caught:
        parse_query(text, now_ms=NOW)
    return caught.value


@pytest.mark.parametrize("text", [
    "verdict=DENY AND action_type=refund AND created_at > '2024-12-19 14:00'",
    "verdict=deny", "VERDICT = 'Deny'", "verdict == DENY", "verdict != ALLOW", "verdict<>ALLOW",
    "verdict IN (ALLOW, deny)", "verdict not in (ALLOW)", "NOT verdict = ALLOW", "not (verdict=ALLOW or label=failure)",
    "verdict=ALLOW or verdict=DENY and action_type=refund", "reason=LIMIT", "reason_codes IN (X, RISK)",
    "reason_code != X", "rule=R1", "policy=refunds", "policy=refunds@4.1.0", "policy IN (other, refunds@4.1.0)",
    "policy != refunds@4.2.0", "label=none", "label != failure", "entity_id=usr_1", 'subject="usr_1"', "amount >= 500",
    "amount_usd between 1 and 500", "amount_usd NOT BETWEEN 501 AND 1000", "uncertainty_score<0.3", "amount=5e2",
    "provenance.model = 'gpt-4o'", "provenance.batch = 7", "provenance.batch='7'", "provenance.a.b=deep",
    "evidence.risk > 0.9", "evidence.vip=true", "evidence.count=7", "evidence.tags=b", "evidence.device.os=ios",
    "evidence.nothing = null", "provenance.note = null", "request_id = null", "evidence.risk != null",
    "action.amount.value=500", "context.channel=chat", "context.inline.channel=chat", "subject.country=NL",
    "subject.id=usr_1", "action.type=refund", "created_at BETWEEN '14:25' AND '14:32'", "created_at = '14:32'",
    "created_at = '2024-12-19'", "created_at <= 2024-12-19", "created_at < '2024-12-19T15:33:00+01:00'",
    "created_at > 2024-12-19T14:32:59.499Z", "created_at IN ('2024-12-18', '2024-12-19')",
    "decision_id=01jfg000000000000000000000",
])  # fmt: skip
def test_the_row_matches(text: str) -> None:
    assert asks(text)


@pytest.mark.parametrize("text", [
    "verdict=ALLOW", "verdict != DENY", "NOT verdict=DENY", "reason != LIMIT", "reason NOT IN (A, RISK)", "rule=null",
    "policy=refunds@4.2.0", "policy != refunds@4.1.0", "amount > 500", "amount_usd < 500", "label=failure",
    "evidence.count='7'", "evidence.vip='true'", "evidence.vip=1", "evidence.nothing > 0", "evidence.risk > '0'",
    "evidence.risk = null", "evidence.device = ios", "request_id=null and verdict=ALLOW",
    "created_at BETWEEN '14:25' AND '14:31'", "created_at < '14:32'", "created_at > '14:33'",
    "created_at != '2024-12-19'", "created_at < '2024-12-19'", "subject_id=USR_1",
])  # fmt: skip
def test_the_row_does_not_match(text: str) -> None:
    assert not asks(text)


def test_a_comparison_with_something_absent_is_false_and_its_negation_true() -> None:
    row = {"verdict": "DENY"}
    assert not asks("amount > 0", row) and not asks("amount <= 0", row)
    assert asks("NOT amount > 0", row) and asks("amount != 3", row) and asks("reason != X", row)


@pytest.mark.parametrize(("text", "meaning"), [
    ("created_at > '2024-12-19 14:00'", "created_at > '2024-12-19T14:00:00.000Z'"),
    ("created_at BETWEEN '14:25' AND '14:32'",
     "created_at >= '2024-12-19T14:25:00.000Z' AND created_at < '2024-12-19T14:33:00.000Z'"),
    ("created_at = 2024-12-19", "created_at >= '2024-12-19T00:00:00.000Z' AND created_at < '2024-12-20T00:00:00.000Z'"),
    ("created_at <= '14:25:07'", "created_at < '2024-12-19T14:25:08.000Z'"),
    ("created_at <= '2024-12-19T14:25:07.25Z'", "created_at < '2024-12-19T14:25:07.251Z'"),
    ("created_at >= '2024-12-19T01:00+02:00'", "created_at >= '2024-12-18T23:00:00.000Z'"),
    ("created_at < '9:05 UTC'", "created_at < '2024-12-19T09:05:00.000Z'"),
    ("verdict=deny and (reason=A or label=FAILURE)", "verdict = DENY AND (reason = 'A' OR label = failure)"),
    ("subject = 'O''Brien'", "subject_id = 'O''Brien'"),
    ("policy=refunds@4.1.0", "policy = 'refunds' AND policy_version = '4.1.0'"),
])  # fmt: skip
def test_it_says_what_it_understood_with_full_times(text: str, meaning: str) -> None:
    assert understood(text) == meaning


@pytest.mark.parametrize(("text", "where", "message"), [
    ("verdct=DENY", "query:1:1", "unknown field `verdct`; did you mean `verdict`?"),
    ("verdict=DENY AND chargeback_risk > 3", "query:1:18",
     "unknown field `chargeback_risk`; evidence is `evidence.chargeback_risk`"),
    ("verdict=DENNY", "query:1:9", "unknown verdict `DENNY`; did you mean `DENY`?"),
    ("verdict=DENY AND\n  label=failed", "query:2:9", "unknown label `failed`; did you mean `failure`?"),
    ("verdict=DENY AND", "query:1:17", "expected a field, found the end"),
    ("verdict", "query:1:8", "expected one of =, !=, <, <=, >, >=, IN, NOT IN or BETWEEN, found the end"),
    ("verdict DENY", "query:1:9", "expected one of =, !=, <, <=, >, >=, IN, NOT IN or BETWEEN, found `DENY`"),
    ("verdict=DENY label=none", "query:1:14", "expected AND, OR or the end, found `label`"),
    ("(verdict=DENY", "query:1:14", "expected `)`, found the end"),
    ("verdict=DENY)", "query:1:13", "expected AND, OR or the end, found `)`"),
    ("verdict IN DENY", "query:1:12", "expected `(` after IN, found `DENY`"),
    ("verdict IN ()", "query:1:13", "expected a value, found `)`"),
    ("verdict NOT DENY", "query:1:13", "expected IN or BETWEEN after NOT, found `DENY`"),
    ("verdict > DENY", "query:1:11", "`verdict` has no order; compare it with =, !=, IN or NOT IN"),
    ("amount > lots", "query:1:10", "expected a number, found `lots`"),
    ("amount = 1e999", "query:1:10", "expected a number, found `1e999`"),
    ("created_at > yesterday", "query:1:14", "`yesterday` is not a time"),
    ("created_at > '2024-02-30'", "query:1:14", "`2024-02-30` is not a time"),
    ("created_at > '9999-12-31'", "query:1:14", "`9999-12-31` is not a time"),
    ("created_at > '25:00'", "query:1:14", "`25:00` is not a time"),
    ("created_at BETWEEN '14:32' AND '14:25'", "query:1:20", "this range ends before it begins"),
    ("evidence.x BETWEEN 1 AND 'b'", "query:1:26", "BETWEEN's bounds must both be numbers or both be text"),
    ("evidence. = 1", "query:1:1", "`evidence.` has an empty part or more than 12 parts"),
    ("policy=@1", "query:1:8", "expected NAME or NAME@VERSION, found `@1`"),
    ("verdict = 'DENY", "query:1:11", "this quote is never closed"),
    ("verdict = 'DE''NY", "query:1:11", "this quote is never closed"),
    ("verdict=DENY; DROP TABLE rows", "query:1:13", "unexpected character `;`"),
    ("verdict=\0", "query:1:9", "a query can't hold the character U+0000"),
    ("subject='\udcff'", "query:1:10", "a query can't hold the character U+DCFF"),
    ("  ", "query:1:1", "the query is empty"),
])  # fmt: skip
def test_what_it_refuses_and_where(text: str, where: str, message: str) -> None:
    error = refusal(text)
    assert (error.where, error.message) == (where, message)


def test_the_help_shows_the_text_with_a_caret_under_the_column() -> None:
    help = refusal("verdict=DENY AND\n  label=failed").help
    assert help is not None and help.splitlines()[:3] == ["here:", "      label=failed", "            ^"]


def test_a_long_line_is_cut_round_the_column() -> None:
    help = refusal("reason=A OR " * 500 + "verdict=X").help
    assert help is not None
    _, line, caret = help.splitlines()[:3]
    assert len(line) < 120 and line[caret.index("^")] == "X"


@pytest.mark.parametrize("text", [
    "(" * 100_000, "NOT " * 20_000 + "verdict=DENY", "'" * 99_999, '"' + "a" * 99_998, "a" * 100_000, "=" * 100_000,
    "x" * (MAX_CHARS + 1), "(" * 65 + "verdict=DENY" + ")" * 65, "evidence" + ".a" * 20_000 + "=1",
    f"amount IN ({','.join('1' * (MAX_VALUES + 1))})", "amount = " + "9" * 90_000, "\u2028" * 90_000,
    "verdict=DENY OR " * 6_000 + "verdict=DENY", "created_at > '" + "0" * 90_000 + "'",
])  # fmt: skip
def test_hostile_text_is_refused_quickly(text: str) -> None:
    error = refusal(text)
    assert len(str(error)) < 1500


def test_the_deepest_and_longest_queries_that_are_accepted_can_be_used() -> None:
    assert asks("(" * 64 + "verdict=DENY" + ")" * 64)
    assert asks("NOT " * 64 + "verdict=DENY")
    assert asks("verdict=ALLOW OR " * 4_000 + "verdict=DENY")


@given(st.text(max_size=60))
def test_any_text_is_understood_or_refused_with_a_place(text: str) -> None:
    try:
        query = parse_query(text, now_ms=NOW)
    except BadQuery as error:
        assert error.where is not None and error.where.startswith("query:")
    else:
        assert isinstance(matches(query, ROW), bool)


_WORDS = st.sampled_from(
    [*FIELDS, "evidence.x", "provenance.model", "=", "!=", "<", ">=", "(", ")", ",", "AND", "OR", "NOT", "IN",
     "BETWEEN", "DENY", "failure", "7", "'14:25'", "2024-12-19", "refund", "'it''s'", "null", "true", "refunds@1"]
)  # fmt: skip


@settings(max_examples=500)
@given(st.lists(_WORDS, max_size=14).map(" ".join))
def test_what_it_says_it_understood_means_the_same(text: str) -> None:
    try:
        query = parse_query(text, now_ms=NOW)
    except BadQuery:
        return
    again = parse_query(describe(query), now_ms=0)
    assert matches(again, ROW) == matches(query, ROW)
