"""The airline example: it can be made again, it is clean, and its policy, verdicts and story hold."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from lumyn import LumynConfig, decide, decide_many, label
from schemas.request import parse_request
from streams.policy import check_policy, load_policy

ROOT = Path(__file__).parents[2]
EXAMPLE = ROOT / "examples" / "airline"
RECORDINGS = ROOT.parent / "shared" / "data" / "agent_actions.jsonl"
TIME_MS = 1_715_803_200_000  # 2024-05-15; no rule looks at it

ACTIONS = {
    "book_reservation", "cancel_reservation", "send_certificate", "update_reservation_baggages",
    "update_reservation_flights", "update_reservation_passengers",
}  # fmt: skip
VERDICTS = {
    "policy.yml": {
        ("ALLOW", "expected", "done"): 24,
        ("ALLOW", "unexpected", "done"): 13,
        ("ESCALATE", "expected", "done"): 8,
        ("ESCALATE", "unexpected", "done"): 1,
        ("ABSTAIN", "expected", "done"): 12,
        ("ABSTAIN", "unexpected", "done"): 3,
        ("DENY", "expected", "done"): 4,
        ("DENY", "unexpected", "done"): 11,
        ("DENY", "unexpected", "refused"): 11,
    },
    "candidate_policy.yml": {
        ("ALLOW", "expected", "done"): 24,
        ("ALLOW", "unexpected", "done"): 5,
        ("ESCALATE", "expected", "done"): 17,
        ("ESCALATE", "unexpected", "done"): 11,
        ("ABSTAIN", "expected", "done"): 7,
        ("ABSTAIN", "unexpected", "done"): 3,
        ("DENY", "unexpected", "done"): 9,
        ("DENY", "unexpected", "refused"): 11,
    },
}


def lines(name: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (EXAMPLE / name).read_text("utf-8").splitlines()]


REQUESTS = {request["request_id"]: request for request in lines("requests.jsonl")}
OUTCOMES = {outcome["request_id"]: outcome for outcome in lines("outcomes.jsonl")}
STORY = json.loads((EXAMPLE / "story.json").read_text("utf-8"))


@pytest.mark.skipif(not RECORDINGS.exists(), reason="the recordings are not part of the project")
def test_build_makes_the_same_bytes_again(tmp_path: Path) -> None:
    command = [sys.executable, str(EXAMPLE / "build.py"), str(RECORDINGS), "--out", str(tmp_path)]
    subprocess.run(command, check=True, capture_output=True)
    for name in ("requests.jsonl", "outcomes.jsonl"):
        assert (tmp_path / name).read_bytes() == (EXAMPLE / name).read_bytes()


def test_every_line_is_a_valid_request_with_an_outcome_of_its_own() -> None:
    for line in (EXAMPLE / "requests.jsonl").read_bytes().splitlines():
        assert parse_request(line).request_id in OUTCOMES
    assert list(REQUESTS) == list(OUTCOMES)
    assert len(REQUESTS) == 87


def test_all_kinds_of_action_are_there_and_the_file_is_small() -> None:
    assert {request["action"]["type"] for request in REQUESTS.values()} == ACTIONS
    assert (EXAMPLE / "requests.jsonl").stat().st_size < 250_000


def test_outcomes_are_not_part_of_what_is_decided_on() -> None:
    def names(value: Any) -> set[str]:
        if not isinstance(value, dict):
            return set()
        return set(value).union(*(names(part) for part in value.values()))

    for request in REQUESTS.values():
        assert not names(request) & {"expected", "action_expected", "run_reward", "tool_reply"}


@pytest.mark.parametrize("name", ["requests.jsonl", "outcomes.jsonl"])
def test_no_personal_data_remains(name: str) -> None:
    text = (EXAMPLE / name).read_text("utf-8")
    for field in ("first_name", "last_name", "dob", "email", "address", "last_four", "payment_id"):
        assert f'"{field}"' not in text
    assert "@" not in text
    assert not re.search(r"(gift_card|credit_card|certificate)_\d", text)
    assert not re.search(r"ending in \d|\b19\d\d\b|\b200\d\b", text)


def test_names_and_ids_of_users_are_gone_from_what_they_said() -> None:
    said = "\n".join(request["action"]["intent"] for request in REQUESTS.values())
    for user in {request["subject"]["id"] for request in REQUESTS.values()}:
        first, last, _ = user.split("_")
        assert user not in said
        assert not re.search(rf"\b({first.title()}|{last.title()})\b", said)


@pytest.mark.skipif(not RECORDINGS.exists(), reason="the recordings are not part of the project")
def test_no_name_birthday_or_address_of_the_recordings_is_anywhere() -> None:
    secret: set[str] = set()
    for line in RECORDINGS.read_text("utf-8").splitlines():
        row = json.loads(line)
        reservation = row["reservation"] or {}
        people = [*row["arguments"].get("passengers", ()), *reservation.get("passengers", ())]
        if row["user"]:
            user = row["user"]
            people += [user["name"] | {"dob": user["dob"]}, *user["saved_passengers"]]
            secret |= {user["email"], user["address"]["address1"], user["address"]["zip"]}
        for person in people:
            secret |= {person["first_name"], person["last_name"], person["dob"]}
    text = (EXAMPLE / "requests.jsonl").read_text("utf-8")
    assert [word for word in sorted(secret) if re.search(rf"\b{re.escape(word)}\b", text)] == []


@pytest.mark.parametrize("name", VERDICTS)
def test_the_policy_checks_without_a_finding(name: str) -> None:
    report = check_policy((EXAMPLE / name).read_bytes(), name=name)
    assert (report.errors, report.warnings) == ([], [])


@pytest.mark.parametrize("name", VERDICTS)
def test_verdicts_by_the_rules_are_as_the_table_says(name: str) -> None:
    policy = load_policy((EXAMPLE / name).read_bytes(), name=name)
    found: Counter[tuple[str, str, str]] = Counter()
    for request_id, request in REQUESTS.items():
        outcome = OUTCOMES[request_id]
        verdict = policy.evaluate(request, time_ms=TIME_MS).verdict
        expected = "expected" if outcome["expected"] else "unexpected"
        found[verdict, expected, "done" if outcome["tool_reply"] == "done" else "refused"] += 1
    assert dict(found) == VERDICTS[name]


def test_labels_change_what_repeats_and_nothing_else(tmp_path: Path) -> None:
    config = LumynConfig(home=tmp_path, policy_path=EXAMPLE / "policy.yml")
    first: dict[str, Any] = dict(zip(REQUESTS, decide_many(list(REQUESTS.values()), config), strict=True))

    def again(request_id: str) -> dict[str, Any]:
        anew = {key: value for key, value in REQUESTS[request_id].items() if key != "request_id"}
        return dict(decide(anew, config))

    for chapter in (STORY["incident"], STORY["false_positive"]):
        labelled = first[chapter["request_id"]]
        label(labelled["decision_id"], chapter["label"], summary=chapter["summary"], config=config)
        for request_id, told in chapter["repeats"].items():
            record = again(request_id)
            assert first[request_id]["verdict"] == told["before"]
            assert (record["verdict"], record["reason_codes"]) == (told["after"], [told["reason"]])
        for request_id in chapter["unharmed"]:
            assert again(request_id)["verdict"] == first[request_id]["verdict"]

    told = {STORY["incident"]["request_id"], STORY["false_positive"]["request_id"]}
    told |= {*STORY["incident"]["repeats"], *STORY["false_positive"]["repeats"]}
    changed = {name for name in REQUESTS if again(name)["verdict"] != first[name]["verdict"]}
    assert changed == told
    assert again(STORY["false_positive"]["request_id"])["verdict"] == STORY["false_positive"]["after"]


def test_the_story_rests_on_what_really_happened() -> None:
    incident, false_positive = STORY["incident"], STORY["false_positive"]
    for request_id in (incident["request_id"], *incident["repeats"]):
        assert not OUTCOMES[request_id]["expected"]
        assert REQUESTS[request_id]["evidence"]["segments_flown"] == 4
    for request_id in (false_positive["request_id"], *false_positive["repeats"], *incident["unharmed"]):
        assert OUTCOMES[request_id]["expected"]
