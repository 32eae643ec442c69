"""`lumyn rate --query` and `--like`: rates in recorded traffic, before and after each change of what stood around it."""

from __future__ import annotations

import sqlite3
from typing import Any

import pytest
from conftest_e2e import next_millisecond, refund
from inside import Inside

from lumyn import sdk, wiring

pytest_plugins = ("inside_plugin",)


def asked(number: int, action: str, fingerprint: str, **more: Any) -> dict[str, Any]:
    """A request about a parcel, of a user of its own."""
    body = refund(30, user=f"usr_{number}", **more)
    body["action"] = {"type": action, "intent": "my parcel is late, when does it come?"}
    body["provenance"] = {"model": "m-1", "system_fingerprint": fingerprint, "trace_id": f"trace-{number:08d}"}
    return body


@pytest.fixture
def traffic(inside: Inside) -> list[str]:
    """20 decisions of one fingerprint, none of them a refund but one; 20 of another, most of them refunds."""
    actions = ["wait"] * 19 + ["refund"] + ["refund"] * 15 + ["wait"] * 5
    names = []
    for number, action in enumerate(actions):
        if number == 20:
            next_millisecond()
        names.append(str(inside.decide(asked(number, action, "fp_1" if number < 20 else "fp_2"))["decision_id"]))
    return names


def test_a_rate_of_recorded_traffic_with_the_change_that_made_it(inside: Inside, traffic: list[str]) -> None:
    told = inside.json("rate", "--query", "provenance.model='m-1'", "--event", "refund", "--json")
    assert (told["event"]["events"], told["event"]["n"], told["event"]["subjects"]) == (16, 40, 40)
    assert {row["outcome"]: row["events"] for row in told["outcomes"]} == {"wait": 24, "refund": 16}
    first = told["changes"][0]
    assert (first["factor"], first["value"]) == ("provenance.system_fingerprint", "fp_2")
    by_factor = {change["factor"]: change for change in told["changes"]}
    change = by_factor["provenance.system_fingerprint"]
    assert (change["before"]["events"], change["before"]["n"]) == (1, 20)
    assert (change["after"]["events"], change["after"]["n"]) == (15, 20)
    assert change["p_adjusted"] < 0.001 and change["p_value"] <= change["p_adjusted"]
    assert told["not_compared"] == ["provenance.trace_id"]
    rates = {row["value"]: row["events"] for row in told["by"]["provenance.system_fingerprint"]}
    assert rates == {"fp_1": 1, "fp_2": 15}
    text = inside.run("rate", "--query", "provenance.model='m-1'", "--event", "refund")
    assert "provenance.system_fingerprint = fp_2" in text.stdout and "trace_id" in text.stderr


def test_a_policy_that_was_changed_and_taken_back_has_two_changes_though_its_version_stayed(inside: Inside) -> None:
    policy = (inside.folder / "policy.yml").read_text()
    for number in range(30):
        if number in (10, 20):
            inside.write("policy.yml", policy.replace("gt: 250", "gt: 20") if number == 10 else policy)
            next_millisecond()
        inside.decide(refund(30, user=f"usr_{number}"))
    told = inside.json("rate", "--query", "action_type=refund", "--bad", "verdict=ALLOW", "--json")
    found = [
        (one["factor"], one["again"], one["before"]["events"], one["after"]["events"], one["after"]["n"])
        for one in sorted(told["changes"], key=lambda one: str(one["at"]))
    ]
    assert found == [("policy_hash", False, 10, 0, 10), ("policy_hash", True, 0, 10, 10)]
    text = inside.run("rate", "--query", "action_type=refund", "--bad", "verdict=ALLOW").stdout
    assert text.count("(again)") == 1 and text.count("policy_hash = sha256:") == 2


def test_the_event_may_be_a_query(inside: Inside, traffic: list[str]) -> None:
    for name in traffic[36:]:
        sdk.label(name, "failure", actor="ann")
    told = inside.json("rate", "--query", "action_type=wait", "--bad", "label=failure", "--json")
    assert (told["event"]["events"], told["event"]["n"]) == (4, 24)
    assert told["event"]["lower"] < 4 / 24 < told["event"]["upper"]


def test_the_neighbourhood_is_of_similar_requests_only_and_without_the_decision_itself(
    inside: Inside, traffic: list[str]
) -> None:
    for number in range(5):
        other = refund(9000 + number, 0.79, user=f"far_{number}")
        other["action"]["intent"] = "close my account and delete everything that you know of me"
        other["context"]["inline"] = {"channel": "letter", "country": "NO"}
        inside.decide(other)
    told = inside.json("rate", "--like", traffic[30][:16], "--json")
    assert told["like"] == traffic[30] and told["decisions"] == 39
    assert told["event"]["outcome"] == "refund" and told["event"]["events"] == 15
    assert inside.json("rate", "--like", traffic[30], "--similarity", "0", "--json")["decisions"] == 44
    only = inside.json("rate", "--like", traffic[30], "--query", "provenance.system_fingerprint=fp_1", "--json")
    assert (only["decisions"], only["event"]["events"]) == (20, 1)
    by_verdict = inside.json("rate", "--like", traffic[30], "--outcome", "verdict", "--json")
    assert by_verdict["decisions"] == 15, "of the same action type"
    assert "like " + traffic[30] in inside.run("rate", "--like", traffic[30]).stdout


def test_the_same_request_is_wholly_alike_whatever_its_vectors_rounding(inside: Inside) -> None:
    for number in range(8):
        body = asked(number, "wait", "fp_1")
        body["action"]["intent"] = f"where is parcel {number // 2} that I sent"
        body |= {"evidence": {"len": number // 2, "risk": 0.1 * (number // 2)}, "context": None}
        name = inside.decide({key: value for key, value in body.items() if value})["decision_id"]
        if number % 2:
            told = inside.json("rate", "--like", name, "--similarity", "1", "--json")
            assert told["decisions"] == 1, number


def test_decisions_of_one_subject_count_for_less(inside: Inside) -> None:
    for number in range(40):
        inside.decide(asked(number // 20, "refund" if number < 20 else "wait", "fp"))
    told = inside.json("rate", "--query", "action_type IN (refund, wait)", "--event", "refund", "--json")
    assert told["event"]["subjects"] == 2 and told["event"]["upper"] - told["event"]["lower"] > 0.6


def numbered(number: int, **evidence: Any) -> dict[str, Any]:
    return {**asked(number, "wait", "fp"), "evidence": {"chargeback_risk": 0.1, **evidence}}


def test_numbers_are_shown_in_bands_that_do_not_overlap(inside: Inside) -> None:
    for number in range(40):
        inside.decide(numbered(number, **({"age_days": number * 1000} if number else {})))
    told = inside.json("rate", "--query", "action_type=wait", "--outcome", "evidence.age_days", "--json")
    assert len(told["outcomes"]) == 40, "each value by itself, for programs"
    bands = told["bands"]
    assert [one["outcome"] for one in bands][:2] == ["1000 to 4000", "5000 to 8000"] and bands[-1]["outcome"] == "(absent)"
    assert len(bands) <= 11 and sum(one["events"] for one in bands) == 40
    shown = inside.run("rate", "--query", "action_type=wait", "--outcome", "evidence.age_days").stdout
    assert "1000 to 4000" in shown and "(absent)" in shown and len(shown.splitlines()) < 16
    assert inside.json("rate", "--query", "action_type=wait", "--outcome", "verdict", "--json")["bands"] is None


def test_of_many_values_the_most_frequent_are_shown_and_the_others_counted(inside: Inside) -> None:
    for number in range(30):
        inside.decide(numbered(number, note=f"note {max(number, 5)}"))
    shown = inside.run("rate", "--query", "action_type=wait", "--outcome", "evidence.note").stdout.splitlines()
    assert shown[2].startswith("note 5 ") and len(shown) < 25
    assert shown[-1] == "and 5 more values, of 5 decisions: `--json` has them all"


def test_a_number_that_differs_each_time_has_no_before_and_after_however_few_there_are(inside: Inside) -> None:
    for number in range(8):
        body = asked(number, "wait", "fp")
        body["provenance"]["tokens"] = 100 + number
        inside.decide(body)
    told = inside.json("rate", "--query", "action_type=wait", "--event", "wait", "--json")
    assert "provenance.tokens" in told["not_compared"]
    assert not any(one["factor"] == "provenance.tokens" for one in told["changes"])


def test_few_subjects_are_said_in_plain_words(inside: Inside) -> None:
    for number in range(12):
        inside.decide(asked(max(0, number - 8), "refund" if number % 2 else "wait", "fp"))
    said = inside.run("rate", "--query", "subject_type=user", "--event", "refund").stderr
    assert "decisions of one subject (or cluster) are alike" in said and "only as much as 2 of equal size" in said
    assert "worth only" not in said


def test_tenants_never_meet(inside: Inside, traffic: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LUMYN_TENANT", "other")
    mine = inside.decide(asked(900, "wait", "fp_9"))["decision_id"]
    told = inside.json("rate", "--query", "provenance.model='m-1'", "--event", "refund", "--json")
    assert (told["decisions"], told["event"]["events"]) == (1, 0)
    assert inside.json("rate", "--like", mine, "--similarity", "0", "--json")["decisions"] == 0
    assert "no decision" in inside.refused("rate", "--like", traffic[0], code=2)


def test_forgotten_decisions_are_no_neighbours_and_said(inside: Inside, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LUMYN_ENCRYPT_SUBJECTS", "true")
    names = [str(inside.decide(asked(number, "wait", "fp"))["decision_id"]) for number in range(4)]
    assert inside.json("rate", "--like", names[0], "--json")["decisions"] == 3
    inside.run("memory", "forget", "--subject", "user:usr_1", "--why", "asked", "--apply")
    done = inside.run("rate", "--like", names[0])
    assert "2 decisions" in done.stdout and "1 decisions are left out" in done.stderr
    assert "erased" in inside.refused("rate", "--like", names[1], code=2)
    told = inside.json("rate", "--query", "action_type=wait", "--event", "wait", "--json")
    assert told["decisions"] == 4, "what is in clear is counted: the action's type"


def test_a_record_that_was_changed_is_not_counted_and_exit_3(inside: Inside, traffic: list[str]) -> None:
    inside.json("rate", "--query", "verdict=ALLOW OR verdict=ABSTAIN OR verdict=ESCALATE OR verdict=DENY", "--json")
    wiring.close_homes()
    with sqlite3.connect(inside.home / "lumyn.db") as db:
        changed = db.execute(
            "UPDATE log_records SET value = CAST(REPLACE(CAST(value AS TEXT), 'fp_2', 'fp_3') AS BLOB) WHERE key = ?",
            (traffic[39].encode(),),
        ).rowcount
        assert changed >= 1
    done = inside.run("rate", "--query", "provenance.model='m-1'", "--event", "refund", "--json", code=3)
    assert '"unsound": 1' in done.stdout and '"decisions": 39' in done.stdout and "lumyn verify" in done.stderr


@pytest.mark.parametrize("more", [
    ("--query", "verdict="), ("--query", "verdict=DENY", "--bad", "x"), ("--like", "no"),
    ("--query", "verdict=DENY", "--command", "true"), ("--query", "verdict=DENY", "--outcome", "exit"),
    ("--query", "verdict=DENY", "--outcome", "/x/"), ("--like", "01", "--similarity", "2"),
])  # fmt: skip
def test_misuse_is_exit_2(inside: Inside, traffic: list[str], more: tuple[str, ...]) -> None:
    done = inside.run("rate", *more, code=2)
    assert done.stdout == ""
