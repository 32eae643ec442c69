"""What is read of a record at a glance is what the strict reading gives, or it is left to the strict reading."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas.canonical import encode
from schemas.digests import digest
from schemas.errors import LumynError
from schemas.record import digest_holds, record_digest
from schemas.request import stored_request
from streams.backtest.glance import Glance, Glances
from streams.control import ControlState
from streams.decide import Position, decide
from streams.diff import MISSHAPEN, checked_record
from streams.policy import load_policy

POLICY = load_policy(
    b"policy: p\nrules:\n"
    b"  - {id: R_BIG, if: {amount: {gt: 100}}, then: {verdict: ESCALATE, reason_codes: [BIG]}}\n"
    b"default: {verdict: ALLOW, reason_codes: [OK]}\n",
    name="p.yml",
)


def record_of(**more: Any) -> dict[str, Any]:
    request = {
        "tenant": "t",
        "subject": {"type": "user", "id": "u"},
        "action": {"type": "refund", "amount": {"value": 120.5, "currency": "EUR"}, "intent": "back"},
        "evidence": {"risk": 0.3, "n": 7, "list": [1, {"a": None}], "text": 'a "quoted" \\ é 𝄞'},
        "context": {"inline": {"deep": {"er": True}}},
        **more,
    }
    position = Position("lumyn.requests", 1, 2, 1_700_000_000_123)
    return dict(decide(stored_request(encode(request)), position, POLICY, ControlState()).record)


def line_of(value: dict[str, Any], **digested: Any) -> bytes:
    return encode({**value, "record_digest": record_digest(value), **digested})


def as_told(record: dict[str, Any], seen: Glance) -> None:
    assert seen.request == record["request"]
    assert [type(one) for one in seen.request["evidence"].values()] == [
        type(one) for one in record["request"]["evidence"].values()
    ]
    for name in ("decision_id", "record_digest", "tenant", "created_at", "engine", "verdict"):
        assert getattr(seen, name) == record[name]
    assert list(seen.reason_codes) == record["reason_codes"]
    rules = [(one["id"], one["outcome"], one["effect"]) for one in record["matched_rules"]]
    assert [(one.id, one.outcome, one.effect) for one in seen.matched_rules] == rules
    policy = seen.policy
    assert {"hash": policy.hash, "name": policy.name, "version": policy.version} == record["policy"]
    assert (seen.log.partition, seen.log.offset) == (record["log"]["partition"], record["log"]["offset"])
    assert seen.control.switches == record["control"]["switches"]
    assert seen.uncertainty == record["risk_signals"]["uncertainty_score"]


@pytest.mark.parametrize("memory", [False, True])
def test_it_says_what_the_record_says(memory: bool) -> None:
    record, glances = record_of(), Glances(memory=memory)
    seen = glances.at(line_of(record))
    assert seen is not None and seen == glances.of(checked_record(line_of(record)))
    as_told(record, seen)
    parts = {name: record[name] for name in ("memory", "risk_signals")}
    assert seen.recalled == (parts if memory else None)


TEXT = line_of(record_of())


@given(st.integers(0, len(TEXT) - 1), st.binary(min_size=1, max_size=3), st.booleans())
def test_bytes_that_were_changed_are_never_believed_at_a_glance(at: int, other: bytes, digested: bool) -> None:
    """With the digest made anew, too: then the strict reading gives the same, or refuses it as well."""
    line = TEXT[:at] + other + TEXT[at + len(other) :]
    if digested:
        start = line.find(b'"record_digest":')
        rest = line[:start] + line[start + 90 :]
        line = line[:start] + b'"record_digest":"' + digest(rest).encode() + b'",' + line[start + 90 :]
    seen = Glances(memory=False).at(line)
    if seen is None:
        return
    assert line == TEXT or digested
    as_told(checked_record(line), seen)


def hostile(change: Any) -> bytes:
    """A record whose digest holds over bytes that were changed in what comes before or after it."""
    line = change(TEXT)
    start = line.find(b'"record_digest":')
    rest = line[:start] + line[start + 90 :]
    return bytes(line[:start] + b'"record_digest":"' + digest(rest).encode() + b'",' + line[start + 90 :])


@pytest.mark.parametrize(
    "change",
    [
        pytest.param(lambda line: line.replace(b'"inputs_digest":"sha256', b'"inputs_digest":"\xff\xfe', 1), id="utf-8"),
        pytest.param(lambda line: line.replace(b'"schema":"lumyn.record/1"', b'"schema":"lumyn.record/9"'), id="schema"),
        pytest.param(lambda line: line.replace(b'"verdict":"ESCALATE"}', b'"verdict":"PERHAPS"}'), id="verdict"),
        pytest.param(lambda line: line.replace(b'"reason_codes":["BIG"],"record', b'"reason_codes":"BIG","record'), id="codes"),
        pytest.param(lambda line: line.replace(b'"request":{', b'"request":[{', 1), id="json"),
        pytest.param(lambda line: line[:-1] + b',"zz":{"a":}}', id="skipped json"),
        pytest.param(lambda line: line + b"{}", id="two"),
    ],
)
def test_what_is_not_sound_is_left_to_the_strict_reading(change: Any) -> None:
    line = hostile(change)
    assert line != TEXT and digest_holds(line)
    assert Glances(memory=False).at(line) is None


def test_of_two_of_one_name_both_readings_take_the_same() -> None:
    line = hostile(lambda text: text[:-1] + b',"verdict":"ALLOW"}')
    seen = Glances(memory=False).at(line)
    try:
        strict = checked_record(line)["verdict"]
    except LumynError:
        strict = None
    assert seen is None or seen.verdict == strict


def test_a_sealed_request_is_not_read_at_a_glance() -> None:
    record = record_of()
    record["request"] = {**record["request"], "sealed": {"schema": "lumyn.sealed/1", "tag": "", "box": ""}}
    assert Glances(memory=False).at(line_of(record)) is None


def test_other_bytes_of_the_same_record_are_left_to_the_strict_reading() -> None:
    line = json.dumps(json.loads(TEXT), indent=1).encode()
    assert not digest_holds(line) and Glances(memory=False).at(line) is None
    assert checked_record(line) == checked_record(TEXT)


@pytest.mark.parametrize("name", ["verdict", "request", "policy", "log", "control", "matched_rules", "created_at"])
def test_a_record_that_lacks_a_part_is_refused_by_both(name: str) -> None:
    record = {key: value for key, value in record_of().items() if key != name}
    assert Glances(memory=False).at(line_of(record)) is None
    with pytest.raises((LumynError, *MISSHAPEN), match=name):
        Glances(memory=False).of(checked_record(line_of(record)))
