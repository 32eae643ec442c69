"""Game days: played on a stage of their own, by the real decide path, under faults; what they say can fail."""

from __future__ import annotations

import hashlib
import json
import sqlite3
from pathlib import Path
from typing import Any

import pytest
from conftest_e2e import POLICY, refund
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from inside import Inside

from lumyn.config import LumynConfig, resolve
from lumyn.gamedays.from_incident import usual_faults
from lumyn.gamedays.judge import invariants
from lumyn.gamedays.play import Played
from lumyn.gamedays.scenario import FAULTS
from lumyn.gamedays.setting import activation
from lumyn.gamedays.stage import EmbeddedStage
from schemas.request import parse_request
from streams.policy import load_policy
from streams.subject_keys import NO_KEYS

pytest_plugins = ("inside_plugin",)

EXAMPLES = Path(__file__).parents[2] / "examples"


def play(inside: Inside, text: str, *options: str, code: int = 0) -> dict[str, Any]:
    """The report of a scenario."""
    inside.write("scenario.yml", "gameday: 1\n" + text)
    return dict(inside.json("gameday", "run", "scenario.yml", "--json", *options, code=code))


def requests(inside: Inside, *bodies: dict[str, Any], memory: str = "none") -> str:
    """A scenario's `replay` of bare requests, by the folder's policy."""
    inside.write("requests.jsonl", "\n".join(map(json.dumps, bodies)))
    return f"replay: {{file: requests.jsonl}}\nmemory: {memory}\n"


def states(folder: Path) -> dict[str, str]:
    """Every file below a folder, by its digest."""
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def alike(report: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in report.items() if name != "measured"}


def observed(report: dict[str, Any]) -> dict[str, str]:
    return {one["text"]: one["observed"] for one in [*report["expectations"], *report["invariants"]]}


def failed(report: dict[str, Any]) -> list[str]:
    return [one["text"] for one in [*report["expectations"], *report["invariants"]] if not one["holds"]]


def test_the_example_holds_under_all_its_faults_and_comes_out_the_same_again(inside: Inside) -> None:
    example = EXAMPLES / "gamedays" / "flown-flights.yml"
    reports = [inside.json("gameday", "run", example, "--json") for _ in range(2)]
    assert alike(reports[0]) == alike(reports[1])
    (report, _), told = reports, observed(reports[0])
    assert report["passed"] and report["replayed"]["requests"] == 87
    assert report["measured"]["switches"]["stop"] > 0
    # 20 requests ten times over, then 67; those of requests 10 to 30 come again
    assert told["every request is answered once, and decided at most once"].startswith("387 delivered, 387 in the log")
    assert "267 decided, 120 duplicate" in told["every request is answered once, and decided at most once"]
    assert [one["what"] for one in report["timeline"]].count("the memory is down") == 1
    assert not inside.home.exists(), "there was no home, and none is made"


def test_a_policy_without_the_fix_fails_and_says_by_which_decisions(inside: Inside) -> None:
    text = (EXAMPLES / "gamedays" / "flown-flights.yml").read_text().replace("candidate_policy", "policy")
    (inside.folder / "airline").symlink_to(EXAMPLES / "airline")
    (inside.folder / "gamedays").mkdir()
    inside.write("gamedays/s.yml", text)
    report = inside.json("gameday", "run", "gamedays/s.yml", "--json", code=1)
    assert failed(report) == ["request airline-28-1-4 is ESCALATE or ABSTAIN or DENY"]
    (evidence,) = report["expectations"][0]["evidence"]
    assert (evidence["request_id"], evidence["verdict"]) == ("airline-28-1-4", "ALLOW")
    shown = inside.run("gameday", "run", "gamedays/s.yml", "--markdown", code=1).stdout
    assert "| **FAILED** | request airline-28-1-4 is ESCALATE or ABSTAIN or DENY | ALLOW (" in shown
    assert "why: the incident itself" in inside.run("gameday", "run", "gamedays/s.yml", code=1).stdout


def test_what_was_recorded_counts_once_however_often_it_is_delivered(inside: Inside) -> None:
    for n in range(3):
        inside.decide(refund(100 if n else 400, user=f"u{n}"))
    scenario = """
replay: {query: "action_type = refund"}
memory: none
faults: [{traffic: {from: 1, to: 2, times: x5}}, {duplicate_delivery: {from: 3, to: 3}}]
expect: ["decisions >= 1"]
"""
    report = play(inside, scenario)
    assert report["replayed"]["requests"] == 3
    assert sum(report["verdicts"]["recorded"].values()) == 3
    assert sum(report["verdicts"]["now"].values()) == 11
    shown = inside.run("gameday", "run", "scenario.yml").stdout
    assert "recorded: 2 ALLOW, 1 ESCALATE\n" in shown
    assert "verdicts now: 6 ALLOW, 5 ESCALATE, in 11 decisions: each copy of a request counts\n" in shown
    plain = play(inside, scenario.replace("traffic: {from: 1, to: 2, times: x5}}, {", ""))
    assert plain["verdicts"]["now"] == plain["verdicts"]["recorded"]
    assert "each copy" not in inside.run("gameday", "run", "scenario.yml").stdout


def test_the_live_home_is_only_read(inside: Inside) -> None:
    wrong = [inside.decide(refund(100 + n, user=f"u{n}")) for n in range(4)]
    for record in wrong:
        inside.run("label", record["decision_id"], "--label", "failure")
    inside.run("checkpoint")
    before = states(inside.home)
    report = play(
        inside,
        """replay: {query: "action_type = refund"}
faults:
  - traffic: x3
  - memory_poisoned: {at: 2, labeller: mallory}
  - qdrant_down: {from: 3, to: 3}
steps:
  - {at: 4, kill_switch_on: {action_type: refund}}
expect:
  - {contained: kill_switch_on}
  - {request: 3, verdict: ABSTAIN, reasons: STORAGE_UNAVAILABLE}
""",
    )
    after = states(inside.home)
    kept = [name for name in after if name.startswith("gamedays/")]
    assert report["passed"] and len(kept) == 1
    assert {name: after[name] for name in after if name not in kept} == before
    assert inside.decide(refund(99))["verdict"] == "DENY", "the live memory holds what it held, and no switch is on"
    (listed,) = inside.json("gameday", "list", "--json")
    assert inside.json("gameday", "show", listed["id"], "--json") == report
    assert "no game day" in inside.refused("gameday", "show", "gameday-000000000000", code=2)


def test_another_tenant_sees_no_game_day_of_this_one(inside: Inside, monkeypatch: pytest.MonkeyPatch) -> None:
    inside.decide(refund())
    play(inside, 'replay: {limit: 5}\nexpect: ["decisions == 1"]\n')
    (mine,) = inside.json("gameday", "list", "--json")
    monkeypatch.setenv("LUMYN_TENANT", "other")
    assert inside.json("gameday", "list", "--json") == []
    inside.refused("gameday", "show", mine["id"], code=2)
    inside.refused("gameday", "run", "scenario.yml", code=2)  # and none of its decisions


@pytest.mark.parametrize(
    ("memory", "verdicts"),
    [("now", ["DENY", "DENY"]), ("then", ["ALLOW", "DENY"]), ("none", ["ALLOW", "ALLOW"])],
)
def test_the_memory_is_that_of_now_of_then_or_none(inside: Inside, memory: str, verdicts: list[str]) -> None:
    first = inside.decide(refund(100))
    inside.run("label", first["decision_id"], "--label", "failure")
    second = inside.decide(refund(101))
    assert second["verdict"] == "DENY"
    report = play(inside, f'replay: {{limit: 2}}\nmemory: {memory}\nexpect: ["decisions == 2"]\n')
    # `then` is the memory that the first of them met, for all of them
    expected = verdicts if memory != "then" else ["ALLOW", "ALLOW"]
    assert report["verdicts"]["now"]["ALLOW"] == expected.count("ALLOW")
    assert report["memory"]["labels"] == {"now": 1, "then": 0, "none": 0}[memory]


def test_labels_and_policies_of_the_middle_change_what_follows(inside: Inside) -> None:
    inside.write("strict.yml", POLICY.replace("4.1.0", "5").replace("ALLOW", "ESCALATE"))
    replay = requests(inside, refund(100, request_id="a"), refund(101), refund(400), refund(20, user="z", risk=0.5))
    report = play(
        inside,
        replay
        + """steps:
  - {at: 2, label: {request: a, label: failure, summary: wrong}}
  - {at: 4, policy: strict.yml}
expect:
  - {request: a, verdict: ALLOW}
  - {request: 2, verdict: DENY, reasons: [FAILURE_MEMORY_SIMILAR_BLOCK]}
  - {request: 4, verdict: ESCALATE, reasons: [REFUND_SMALL_LOW_RISK]}
  - "ALLOW where amount_usd > 50 <= 25%"
""",
        code=1,
    )
    assert failed(report) == ["ALLOW where amount_usd > 50 <= 25%"]
    assert observed(report)["ALLOW where amount_usd > 50 <= 25%"] == "1 of 3, 33.33%"
    assert [one["what"] for one in report["timeline"]] == [
        "request 1 is labelled failure", "policy refunds@5 is active",
    ]  # fmt: skip


@pytest.mark.parametrize("allowing", [False, True])
def test_while_the_memory_is_down_the_policy_says_what_happens(inside: Inside, allowing: bool) -> None:
    if allowing:
        inside.write("policy.yml", POLICY.replace("memory: {}", "memory: {on_unavailable: policy_only}"))
    report = play(
        inside,
        requests(inside, *(refund(100 + n) for n in range(6)))
        + """faults: [{qdrant_down: {from: 3, to: 4}}]
expect:
  - {never: ALLOW, during: qdrant_down}
  - {never: DENY, from: 5}
  - {that: "ALLOW == 4", from: 1, to: 6}
""",
        code=int(allowing),
    )
    seen = [one["observed"] for one in report["expectations"]]
    assert seen == (["2 of 2", "0 of 2", "6 of 6"] if allowing else ["0 of 2", "0 of 2", "4 of 6"])
    if allowing:
        assert [one["request"] for one in report["expectations"][0]["evidence"]] == [3, 4]


def test_a_labeller_who_lies_opens_no_gate_alone(inside: Inside) -> None:
    first = inside.decide(refund(100))
    inside.run("label", first["decision_id"], "--label", "failure", "--summary", "wrong")
    text = """replay: {limit: 1}
faults: [{memory_poisoned: {at: 1, labeller: mallory}}]
expect: [{never: ALLOW}]
"""
    assert observed(play(inside, text))["never ALLOW"] == "0 of 1"
    assert inside.decide(refund(100))["verdict"] == "DENY", "he lied on the stage alone"
    # what is contested is no help for a customer who was denied wrongly: the lie is seen
    denied_wrongly = inside.decide(refund(70, 0.9, user="x"))
    inside.run("label", denied_wrongly["decision_id"], "--label", "failure")
    honest = f"replay: {{query: \"decision_id = '{denied_wrongly['decision_id']}'\"}}\n"
    assert play(inside, honest + "expect: [{request: 1, verdict: ESCALATE}]\n")["passed"]
    lied = "faults: [{memory_poisoned: {at: 1, labeller: mallory}}]\nexpect: [{request: 1, verdict: DENY}]\n"
    assert play(inside, honest + lied)["passed"]
    # with nobody to contradict him, what he says of the day's own decisions is believed
    denied = requests(inside, refund(100, 0.9), refund(101, 0.9))
    lie = "faults: [{memory_poisoned: {at: 2, labeller: mallory, of: decided}}]\n"
    expected = "expect: [{request: 2, verdict: DENY}]\n"
    assert play(inside, denied + expected)["passed"]
    assert play(inside, denied + lie + expected, code=1)["verdicts"]["now"] == {
        "ALLOW": 0, "ESCALATE": 1, "ABSTAIN": 0, "DENY": 1,
    }  # fmt: skip
    nothing = text + "memory: none\n"
    inside.write("scenario.yml", "gameday: 1\n" + nothing)
    assert "nothing to poison" in inside.run("gameday", "run", "scenario.yml", code=2).stderr


def test_stale_control_lets_nothing_through_and_a_switch_holds_what_it_covers(inside: Inside) -> None:
    bodies = [refund(100 + n) for n in range(10)]
    bodies[7]["action"]["type"] = "credit"
    report = play(
        inside,
        requests(inside, *bodies)
        + """faults: [{stale_control: {from: 2, to: 4}}]
steps:
  - {at: 3, name: early, kill_switch_on: {action_type: credit}}
  - {at: 4, name: unseen, kill_switch_on: {action_type: refund}}
  - {at: 5, name: stop, kill_switch_on: {action_type: refund}}
  - {at: 9, kill_switch_off: stop}
  - {at: 9, name: off, kill_switch_off: unseen}
expect:
  - {contained: unseen, why: "who can't see a switch abstains, and lets nothing through"}
  - {never: ALLOW, during: stale_control}
  - {that: "decisions where reason = CONTROL_STALE == 3"}
  - {contained: stop, within_s: 60}
  - {contained: early}
  - {request: 8, verdict: DENY}
  - {that: "ALLOW == 2", from: 9}
""",
    )
    assert report["expectations"][3]["observed"] == "3 denied by it, 0 decided without it"
    assert report["expectations"][0]["observed"] == "3 denied by it, 0 decided without it", "request 4 abstained"


def test_a_switch_that_covers_nothing_shows_nothing(inside: Inside) -> None:
    report = play(
        inside,
        requests(inside, refund())
        + "steps: [{at: 1, kill_switch_on: {action_type: other}}]\nexpect: [{contained: kill_switch_on}]\n",
        code=1,
    )
    assert "so nothing is shown" in report["expectations"][0]["observed"]


def test_the_clock_may_jump_and_ids_come_once(inside: Inside) -> None:
    report = play(
        inside,
        requests(inside, *(refund(n, request_id="same" if n < 3 else f"id-{n}") for n in range(1, 7)))
        + """clock: "2031-02-03 04:05"
faults:
  - {clock_jump: {at: 3, by: -3d}}
  - {clock_jump: {at: 5, by: 9d, name: later}}
  - {duplicate_delivery: {from: 1, to: 6}}
expect:
  - "decisions where created_at >= '2031-02-03 04:05' AND created_at < '2031-02-03 04:06' >= 2"
  - "decisions where created_at < '2031-02-01' > 0"
  - "decisions where created_at > '2031-02-08' == 2"
""",
    )
    assert "6 decided, 6 duplicate" in report["invariants"][0]["observed"]


def test_a_request_that_nobody_answers_and_a_changed_record_are_seen(tmp_path: Path) -> None:
    stage = EmbeddedStage(tmp_path, resolve(LumynConfig()), NO_KEYS, seal=False)
    policy = load_policy(POLICY.encode(), name="policy.yml")
    stage.home.log.append(activation(policy))
    played = Played(number_of={("default", "a"): 1}, delivered=1)
    stage.deliver([parse_request(refund(request_id="a"))])
    assert [one.holds for one in invariants(stage, played)] == [True, True]
    stage.home.agent.submit([parse_request(refund(request_id="b"))])
    played.delivered = 2
    assert [one.holds for one in invariants(stage, played)] == [False, True], "a request without a receipt is lost"
    stage.home.agent.drain()
    played.number_of["default", "b"] = 2
    assert [one.holds for one in invariants(stage, played)] == [True, True]
    with sqlite3.connect(stage.home.log_file) as db:
        changed = "UPDATE log_records SET value = replace(value, 'ESCALATE', 'ALLOW')"
        assert db.execute(changed).rowcount == 2
    assert [one.holds for one in invariants(stage, played)] == [True, False]
    stage.close()


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('expect: ["flips == 0"]', "these are bare requests"),
        ('expect: ["failures_allowed == 0"]', "it goes by labels"),
        ('expect: ["upper(ALLOW) <= 5%"]', "an interval is for samples"),
        ("expect: [{request: nobody, verdict: DENY}]", "no request `nobody`"),
        ("faults: [{qdrant_down: {from: 9}}]\nexpect: [{never: ALLOW}]", "at request 9, and there are 1"),
        ("steps: [{at: 1, label: {request: 1, label: failure}}]\nexpect: [{never: ALLOW}]", "not decided before"),
        ("steps: [{at: 1, kill_switch_off: x}]\nexpect: [{never: ALLOW}]", "no switch `x` is on"),
        ("memory: now\nexpect: [{never: ALLOW}]", "needs a home"),
        ("memory: gone.jsonl\nexpect: [{never: ALLOW}]", "no such file of label events"),
        ("policy: gone.yml\nexpect: [{never: ALLOW}]", "no such policy file"),
        ("clock: 99\nexpect: [{never: ALLOW}]", "is no time"),
    ],
)
def test_what_can_t_be_played_or_judged_is_refused(inside: Inside, text: str, said: str) -> None:
    memory = text.partition("memory: ")[2].partition("\n")[0] or "none"
    rest = text.removeprefix(f"memory: {memory}\n")
    inside.write("scenario.yml", "gameday: 1\n" + requests(inside, refund(), memory=memory) + rest + "\n")
    assert said in inside.refused("gameday", "run", "scenario.yml", code=2)
    assert not inside.home.exists()


def test_an_expectation_that_nothing_could_break_does_not_hold(inside: Inside) -> None:
    report = play(
        inside,
        requests(inside, refund(100))
        + "expect: [{never: ALLOW, where: amount_usd > 9000}, {request: 1, verdict: ALLOW, from: 2}]\n",
        code=1,
    )
    assert [one["observed"] for one in report["expectations"]] == [
        "no decision is of this kind, so nothing is shown", "it was not decided",
    ]  # fmt: skip


WRONG = """\
gameday: 2
nme: x
replay: {packs: [a], file: b}
faults:
  - qdrant_down: {from: 5, to: 2}
  - traffic: x99999
  - memory_poisoned: {share: 300%}
  - stale: {}
  - clock_jump: {at: 3, by: soon}
  - slow_memory: {by: 1ms}
  - slow_memory: {by: 1ms, from: 7, name: other}
steps:
  - {kill_switch_on: {acton_type: x}}
  - {at: 0, policy: x}
expect:
  - "ALLOW where amount_usd >> 5 == 0"
  - ALOW == 0
  - {never: ALOW}
  - {contained: nope}
  - {never: ALLOW, during: nope}
  - {request: 1, verdict: ALLOW, not: DENY}
  - 5
"""


def test_all_that_is_wrong_is_said_at_once_with_its_place(inside: Inside) -> None:
    inside.write("wrong.yml", WRONG)
    done = inside.run("gameday", "run", "wrong.yml", code=2)
    lines = done.stderr.removeprefix("lumyn: ").splitlines()
    places = {line.split(": ")[0] for line in lines if line.startswith("wrong.yml:")}
    assert done.stdout == "" and places == {
        f"wrong.yml:{place}"
        for place in (
            "1:1", "2:1", "3:22", "5:28", "6:14", "7:5", "7:30", "8:5", "9:29", "11:5", "13:6", "13:23", "14:10",
            "16:30", "17:5", "18:13", "19:17", "20:28", "21:34", "22:5",
        )
    }  # fmt: skip
    told = inside.json("gameday", "check", "wrong.yml", "--json", code=2)
    assert told["valid"] is False and len(told["errors"]) == 21
    for bad in ("", "[]", "gameday: 1\nexpect: [", "\x00", "gameday: 1\n---\ngameday: 1\n", "&a gameday: 1"):
        inside.write("bad.yml", bad)
        assert "bad.yml:1:1" in inside.run("gameday", "run", "bad.yml", code=2).stderr or "expect" in bad


def test_a_scenario_is_made_of_an_incident_and_needs_no_home(inside: Inside, monkeypatch: pytest.MonkeyPatch) -> None:
    wrong, right, denied = inside.decide(refund(100)), inside.decide(refund(20, user="b")), inside.decide(refund(9, 0.9))
    inside.run("label", wrong["decision_id"], "--label", "failure", "--summary", 'paid "twice": {]}#')
    inside.run("label", right["decision_id"], "--label", "success")
    inside.run("label", denied["decision_id"], "--label", "failure", "--summary", "was a customer")
    inside.run("incident", "open", "--title", "Paid twice", "--query", "action_type=refund")
    made = inside.json("gameday", "from-incident", "INC-1", "--out", "ci/inc.yml", "--json")
    assert (made["packs"], made["labels"], made["expectations"]) == (3, 3, 4)
    inside.refused("gameday", "from-incident", "INC-1", "--out", "ci/inc.yml", code=2)
    text = (inside.folder / "ci/inc.yml").read_text()
    assert f"{{request: {wrong['decision_id']}, not: ALLOW" in text
    assert f"{{request: {right['decision_id']}, verdict: ALLOW" in text
    assert f"{{request: {denied['decision_id']}, not: DENY" in text

    at_home = inside.json("gameday", "run", "ci/inc.yml", "--json", code=None)
    (run,) = inside.json("gameday", "list", "--json")
    linked = inside.json("incident", "show", "INC-1", "--json")["links"]
    assert [link["ref"] for link in linked if link["kind"] == "gameday"] == [run["id"]]
    ends = "holds" if at_home["passed"] else "fails"
    told = inside.run("incident", "postmortem", "INC-1").stdout.partition("## Timeline")[2]
    assert f"| gameday | INC-1 {ends} |  | `lumyn gameday show {run['id']}` |" in told
    monkeypatch.setenv("LUMYN_HOME", str(inside.folder / "elsewhere"))
    elsewhere = inside.json("gameday", "run", "ci/inc.yml", "--json", code=None)
    assert alike(elsewhere) == alike(at_home)
    assert not (inside.folder / "elsewhere").exists()
    report = {one["text"].split()[1]: one["holds"] for one in elsewhere["expectations"]}
    assert report[wrong["decision_id"]] and report[denied["decision_id"]]
    assert elsewhere["replayed"]["source"] == "packs"

    pack = next((inside.folder / "ci/inc-packs").glob("*.zip"))
    pack.write_bytes(pack.read_bytes()[:-30] + b"x" * 30)
    inside.run("gameday", "run", "ci/inc.yml", code=3)


@pytest.mark.parametrize(
    ("judged", "down"),
    [("..x.", "{from: 1, to: 2}"), ("...x", "{from: 2, to: 3}"), ("x...", "{from: 3}"), (".x.", "{from: 3}"), ("xx", None), (".", None),
     ("....", "{from: 3}")],
)  # fmt: skip
def test_the_usual_outage_answers_for_no_request_that_is_judged(judged: str, down: str | None) -> None:
    lines = usual_faults([one == "x" for one in judged], True)
    assert lines[-1] == (f"  - qdrant_down: {down}" if down else "  - duplicate_delivery: always")


def test_a_scenario_under_faults_fails_under_the_policy_that_let_it_through(inside: Inside) -> None:
    """The decision that went wrong is the last: an outage over it would abstain, and so hold whatever the policy."""
    made = [inside.decide(refund(100 + n, user=f"u{n}")) for n in range(4)]
    inside.run("label", made[-1]["decision_id"], "--label", "failure", "--summary", "paid twice")
    inside.run("incident", "open", "--title", "Paid twice", "--query", "action_type=refund")
    inside.run("gameday", "from-incident", "INC-1", "--out", "inc.yml", "--no-memory", "--faults")
    report = inside.json("gameday", "run", "inc.yml", "--json", code=1)
    (about,) = [one for one in report["expectations"] if made[-1]["decision_id"] in one["text"]]
    assert not about["holds"] and report["verdicts"]["now"]["ABSTAIN"], report


def test_the_linked_and_labelled_decisions_are_played_before_the_oldest(inside: Inside) -> None:
    made = [inside.decide(refund(100 + n, user=f"u{n}")) for n in range(6)]
    inside.run("label", made[4]["decision_id"], "--label", "failure", "--summary", "paid twice")
    inside.run("incident", "open", "--title", "Paid twice", "--query", "action_type=refund", "--decision", made[5]["decision_id"])
    done = inside.run("gameday", "from-incident", "INC-1", "--out", "inc.yml", "--limit", "3")
    assert "left out: 3 of 6 decisions (`--limit`)" in done.stderr
    assert {path.stem.removeprefix("decision_") for path in (inside.folder / "inc-packs").glob("*.zip")} == {
        made[n]["decision_id"] for n in (0, 4, 5)
    }
    assert f"{{request: {made[4]['decision_id']}, not: ALLOW" in (inside.folder / "inc.yml").read_text()


def test_an_incident_without_decisions_or_with_sealed_ones(inside: Inside, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LUMYN_ENCRYPT_SUBJECTS", "true")
    record = inside.decide(refund(100, user="philomena"))
    inside.run("label", record["decision_id"], "--label", "failure")
    inside.run("incident", "open", "--title", "Nothing", "--query", "action_type=none")
    assert "has no decisions" in inside.refused("gameday", "from-incident", "INC-1", "--out", "x.yml", code=2)
    inside.run("incident", "open", "--title", "Sealed", "--decision", record["decision_id"])
    assert "sealed" in inside.refused("gameday", "from-incident", "INC-2", "--out", "x.yml", code=2)

    text = "replay: {limit: 9}\nexpect: [{never: ALLOW}]\n"
    before = states(inside.home)
    report = play(inside, text)
    assert report["verdicts"]["now"]["DENY"] == 1, "the sealed label is in the copied memory, and counts"
    after = states(inside.home)
    assert {name: after.get(name) for name in before if "incidents" not in name} == {
        name: before[name] for name in before if "incidents" not in name
    }
    assert "philomena" not in json.dumps(report)
    assert "sealed" in inside.refused("gameday", "run", "scenario.yml", "--keep", "kept", code=2)


def test_a_kept_home_can_be_looked_at_and_verified(inside: Inside, monkeypatch: pytest.MonkeyPatch) -> None:
    inside.write("scenario.yml", "gameday: 1\n" + requests(inside, refund(), refund(90)) + 'expect: ["decisions == 2"]\n')
    done = inside.run("gameday", "run", "scenario.yml", "--keep", "kept")
    assert "LUMYN_PREFIX=gameday" in done.stderr
    inside.refused("gameday", "run", "scenario.yml", "--keep", "kept", code=2)
    monkeypatch.setenv("LUMYN_HOME", "kept")
    monkeypatch.setenv("LUMYN_PREFIX", "gameday")
    assert "2 decisions, 2 verified" in inside.run("verify").stdout


_faults = st.fixed_dictionaries(
    {"kind": st.sampled_from([f for f in FAULTS if f not in ("slow_memory", "memory_poisoned")]),
     "first": st.integers(1, 8), "length": st.integers(0, 8), "by": st.integers(-9, 9)}
)  # fmt: skip


@given(st.lists(_faults, max_size=5, unique_by=lambda f: f["kind"]), st.integers(1, 8), st.booleans())
@settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_whatever_goes_wrong_nothing_is_lost_or_decided_twice(
    inside: Inside, faults: list[dict[str, Any]], at: int, off: bool
) -> None:
    lines = []
    for fault in faults:
        extra = {"traffic": "times: x3, ", "clock_jump": f"at: {fault['first']}, by: {fault['by']}h"}
        span = "" if fault["kind"] == "clock_jump" else f"from: {fault['first']}, to: {fault['first'] + fault['length']}"
        lines.append(f"  - {fault['kind']}: {{{extra.get(fault['kind'], '')}{span}}}")
    text = requests(inside, *(refund(100 * n, request_id=None if n % 3 else "r") for n in range(8)))
    text += ("faults:\n" + "\n".join(lines) + "\n" if lines else "")
    text += f"steps:\n  - {{at: {at}, name: on, kill_switch_on: {{}}}}\n"
    text += f"  - {{at: {min(at + 2, 8)}, kill_switch_off: on}}\n" if off and at < 7 else ""
    report = play(inside, text + f'expect: ["decisions >= 8", {{never: ALLOW, from: {at}, to: {at}}}]\n')
    assert report["passed"], failed(report)
    stale = [f for f in faults if f["kind"] == "stale_control"]
    if stale and stale[0]["first"] < at:
        assert report["verdicts"]["now"]["ABSTAIN"] > 0
