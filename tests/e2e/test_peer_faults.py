"""The faults measured in the peer (FINDINGS: The peer to beat), each of which must be impossible here."""

from __future__ import annotations

import json
import zipfile
from pathlib import Path
from typing import Any

import pytest
from conftest_e2e import POLICY, refund
from inside import Inside

from lumyn import LumynConfig, sdk
from schemas.errors import BadInput, RequestConflict

pytest_plugins = ("inside_plugin",)

LENIENT = POLICY.replace("gt: 250", "gt: 50000").replace("lte: 500", "lte: 50000")


def edit_member(pack: Path, name: str, old: bytes, new: bytes) -> None:
    with zipfile.ZipFile(pack) as archive:
        members = {info.filename: archive.read(info) for info in archive.infolist()}
    assert old in members[name]
    members[name] = members[name].replace(old, new)
    with zipfile.ZipFile(pack, "w") as archive:
        for member, data in members.items():
            archive.writestr(member, data)


def test_a_pack_whose_verdict_was_edited_is_not_called_ok(inside: Inside) -> None:
    record = inside.decide(refund(100, 0.95))
    assert record["verdict"] == "DENY"
    inside.run("export", record["decision_id"], "--pack", "--out", "pack.zip")
    inside.run("verify", "pack.zip")
    edit_member(inside.folder / "pack.zip", "decision_record.json", b'"verdict":"DENY"', b'"verdict":"ALLOW"')
    assert "`decision_record.json` is not what was signed" in inside.refused("replay", "pack.zip", code=3)
    assert "signature" in inside.refused("verify", "pack.zip", code=3)


@pytest.mark.parametrize("successes", [1, 12])
def test_near_identical_successes_do_not_outvote_an_identical_failure(inside: Inside, successes: int) -> None:
    inside.write("policy.yml", LENIENT)
    failed = inside.decide(refund(100))
    others = [inside.decide(refund(100 + n / 100, user=f"usr_{n}")) for n in range(1, successes + 1)]
    assert {r["verdict"] for r in [failed, *others]} == {"ALLOW"}
    sdk.label(failed["decision_id"], "failure", summary="was fraud")
    for other in others:
        sdk.label(other["decision_id"], "success", summary="was fine")
    again = inside.decide(refund(100))
    assert again["risk_signals"]["success_similarity"]["score"] > 0.95
    assert (again["verdict"], again["reason_codes"]) == ("DENY", ["FAILURE_MEMORY_SIMILAR_BLOCK"])


def test_a_success_on_the_very_same_request_does_not_outvote_its_failure_either(inside: Inside) -> None:
    inside.write("policy.yml", LENIENT)
    failed, fine = inside.decide(refund(100)), inside.decide(refund(100))
    sdk.label(failed["decision_id"], "failure")
    sdk.label(fine["decision_id"], "success")
    assert inside.decide(refund(100))["verdict"] == "DENY"


def test_a_small_success_does_not_open_the_gate_for_a_large_amount(inside: Inside) -> None:
    small = inside.decide(refund(20, 0.9))
    assert small["verdict"] == "DENY"
    sdk.label(small["decision_id"], "failure", should="ALLOW", summary="should have passed")
    assert inside.decide(refund(20, 0.9))["verdict"] == "ESCALATE", "the label counts at its own size"
    large = inside.decide(refund(20_000, 0.9))
    assert large["verdict"] == "DENY"
    assert not [hit for hit in large["memory"]["counted"] if hit["role"] in ("fine", "softening")]


def test_a_small_success_does_not_support_a_large_amount_against_a_failure(inside: Inside) -> None:
    inside.write("policy.yml", LENIENT)
    for n in range(8):
        sdk.label(inside.decide(refund(20, user=f"usr_{n}"))["decision_id"], "success")
    failed = inside.decide(refund(15_000, 0.3))
    assert failed["verdict"] == "ALLOW"
    sdk.label(failed["decision_id"], "failure", summary="gone")
    large = inside.decide(refund(20_000))
    assert large["verdict"] != "ALLOW"
    assert {hit["role"] for hit in large["memory"]["counted"]} <= {"harmful", "harmful_without_text"}


def test_an_amount_in_another_currency_or_none_is_never_taken_for_a_small_one(inside: Inside) -> None:
    small = inside.decide(refund(20, 0.9))
    sdk.label(small["decision_id"], "failure", should="ALLOW")
    for amount in ({"value": 20_000, "currency": "EUR"}, {"value": 20_000}, 20_000, None, {}, "20"):
        request = refund(20, 0.9)
        request["action"]["amount"] = amount
        record = inside.decide(request)
        assert record["verdict"] in ("DENY", "ABSTAIN"), amount


def test_memory_does_not_leak_across_tenants(inside: Inside) -> None:
    inside.write("policy.yml", LENIENT)
    acme, other = LumynConfig(tenant="acme"), LumynConfig(tenant="other")
    failed = sdk.decide(refund(100), acme)
    sdk.label(failed["decision_id"], "failure", summary="acme's secret story", config=acme)
    assert sdk.decide(refund(100), acme)["verdict"] == "DENY"

    beside = sdk.decide(refund(100), other)
    assert beside["verdict"] == "ALLOW"
    assert beside["memory"]["counted"] == []
    assert beside["risk_signals"]["failure_similarity"] == {"score": 0, "top_k": []}
    assert beside["risk_signals"]["nearby"]["failure_rate"] is None
    assert "secret" not in json.dumps(beside)
    assert failed["decision_id"] not in json.dumps(beside)


@pytest.mark.parametrize(
    ("evidence", "why"),
    [
        ({}, "missing"),
        ({"chargeback_risk": None}, "null"),
        ({"chargeback_risk": "0.95"}, "text"),
        ({"chargeback_risk": True}, "boolean"),
        ({"chargeback_risk": [0.1]}, "list"),
        ({"chargeback_risk": {"value": 0.1}}, "object"),
        ({"Chargeback_risk": 0.1}, "another name"),
    ],
)
def test_a_blocking_rule_without_its_evidence_does_not_let_pass(
    inside: Inside, evidence: dict[str, Any], why: str
) -> None:
    record = inside.decide({**refund(100), "evidence": evidence})
    assert record["verdict"] == "ABSTAIN", why
    assert "MISSING_EVIDENCE" in record["reason_codes"]
    assert [rule["outcome"] for rule in record["matched_rules"] if rule["id"] == "R_FRAUD_BLOCK"] == ["indeterminate"]


def test_evidence_that_is_not_a_number_is_refused_and_nothing_is_let_pass(inside: Inside) -> None:
    body = json.dumps({**refund(100), "evidence": {"chargeback_risk": float("nan")}})
    line = inside.refused("decide", "-", stdin=body, code=2)
    assert "`NaN` is not a JSON number" in line
    assert line.startswith("lumyn: stdin:1:")
    assert inside.records() == 0


def test_what_the_agent_says_in_its_context_does_not_stand_in_for_evidence(inside: Inside) -> None:
    request = refund(100, None)
    request["context"]["inline"] = {"chargeback_risk": 0.0, "evidence": {"chargeback_risk": 0.0}}
    request["action"]["chargeback_risk"] = 0.0
    assert inside.decide(request)["verdict"] == "ABSTAIN"


def test_the_same_request_id_with_another_body_does_not_return_the_old_allow(inside: Inside) -> None:
    first = inside.decide(refund(100, request_id="r-1"))
    assert first["verdict"] == "ALLOW"
    with pytest.raises(RequestConflict, match=first["decision_id"]):
        sdk.decide(refund(100_000, request_id="r-1"))
    assert inside.decide(refund(100, request_id="r-1")) == first
    line = inside.refused("decide", "-", stdin=json.dumps(refund(100_000, request_id="r-1")), code=2)
    assert "decided before with another body" in line
    assert inside.records() == 1


def test_the_same_request_id_with_other_provenance_only_is_another_body_too(inside: Inside) -> None:
    inside.decide(refund(100, request_id="r-1", provenance={"model": "a"}))
    with pytest.raises(RequestConflict):
        sdk.decide(refund(100, request_id="r-1", provenance={"model": "b"}))


def test_a_diff_in_which_every_record_errored_does_not_report_a_match(inside: Inside) -> None:
    for amount in (100, 200):
        inside.decide(refund(amount))
    inside.run("export", "--limit", 10, "--out", "data.jsonl")
    data = (inside.folder / "data.jsonl").read_bytes()
    inside.write("data.jsonl", data.replace(b'"verdict":"ALLOW"', b'"verdict":"DENY"'))
    done = inside.run("diff", "data.jsonl", "--policy", "policy.yml", code=3)
    assert "Compared: 0" in done.stdout
    assert "2 of 2 records could not be compared" in done.stderr
    assert "100%" not in done.stdout + done.stderr
    told = inside.json("diff", "data.jsonl", "--policy", "policy.yml", "--json", code=3)
    assert (told["compared"], [e["line"] for e in told["errors"]]) == (0, [1, 2])


def test_a_diff_of_other_lines_than_records_is_an_error_a_line(inside: Inside) -> None:
    inside.write("data.jsonl", b'{}\nnot json\n[1]\n"x"\n{"schema":"lumyn.record/1"}\n\xff\n')
    done = inside.run("diff", "data.jsonl", "--policy", "policy.yml", code=None)
    assert done.code in (2, 3)
    assert "6 of 6 records could not be compared" in done.stderr


@pytest.mark.parametrize("token", ["NaN", "Infinity", "-Infinity", "1e999", "-1e999", "9007199254740993"])
@pytest.mark.parametrize("place", ["evidence", "action", "context", "provenance"])
def test_numbers_that_json_can_not_hold_are_never_stored(inside: Inside, token: str, place: str) -> None:
    places = {
        "evidence": refund(100, None, evidence={"score": "@"}),
        "action": {**refund(100), "action": {"type": "refund", "limits": [1, {"deep": "@"}]}},
        "context": {**refund(100), "context": {"mode": "inline", "inline": {"score": "@"}}},
        "provenance": refund(100, provenance={"freshness_lag_s": "@"}),
    }
    body = json.dumps(places[place]).replace('"@"', token)
    line = inside.refused("decide", "-", stdin=body, code=2)
    assert token[:20] in line
    assert inside.records() == 0


@pytest.mark.parametrize("number", [float("nan"), float("inf"), float("-inf"), 2**53, 1e300 * 1e10])
def test_python_numbers_that_json_can_not_hold_are_never_stored(inside: Inside, number: float) -> None:
    good, bad = refund(100), refund(100, evidence_=None)
    del bad["evidence_"]
    bad["evidence"] = {"chargeback_risk": 0.1, "other": number}
    with pytest.raises(BadInput):
        sdk.decide(bad)
    results = sdk.decide_many([good, bad, good])
    assert isinstance(results[1], BadInput)
    assert inside.records() == 2


def test_a_corrupt_zip_is_one_line_and_exit_3(inside: Inside) -> None:
    inside.write("corrupt.zip", b"PK\x03\x04 this is not a zip file" * 10)
    for arguments in (("replay", "corrupt.zip"), ("verify", "corrupt.zip"), ("keys", "trust", "corrupt.zip")):
        assert "not a whole ZIP file" in inside.refused(*arguments, code=3)
