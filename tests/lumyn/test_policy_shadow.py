"""`lumyn policy shadow`: a candidate on live decisions says what it would have said, and decides nothing."""

from __future__ import annotations

import json
from typing import Any

import pytest
from conftest_e2e import refund
from inside import Inside

from lumyn import sdk, wiring
from streams.control import control_append
from streams.log import Append
from streams.observe import Observer
from streams.shadow import ShadowAgent
from streams.shadow_results import shadow_verdicts
from streams.topics import SHADOW

pytest_plugins = ("inside_plugin",)

CANDIDATE = """
policy: {name}
version: {version}
rules:
  - id: R_SMALL
    if: {{amount_usd: {{lte: {limit}}}}}
    then: {{verdict: ALLOW, reason_codes: [SMALL]}}
{memory}
"""


def candidate(inside: Inside, name: str, version: str = "9.0.0", limit: float = 50, memory: str = "") -> str:
    path = inside.folder / f"candidate-{version}.yml"
    path.write_text(CANDIDATE.format(name=name, version=version, limit=limit, memory=memory))
    return path.name


@pytest.fixture
def live(inside: Inside) -> str:
    """The name of the policy in force, which has decided before."""
    record: dict[str, Any] = inside.decide(refund(20))
    return str(record["policy"]["name"])


def trials(inside: Inside) -> list[dict[str, Any]]:
    told: list[dict[str, Any]] = inside.json("policy", "shadow", "--json")
    return told


def test_it_says_what_the_candidate_would_have_said_from_its_start_on(inside: Inside, live: str) -> None:
    inside.run("policy", "shadow", candidate(inside, live), "--why", "lower limit")
    made = [inside.decide(refund(amount)) for amount in (20, 100, 100, 700)]
    (told,) = trials(inside)
    assert (told["compared"], told["errors"], told["policy"]) == (4, 0, f"{live}@9.0.0")
    want = [(m["verdict"], "ALLOW" if m["request"]["action"]["amount"]["value"] <= 50 else "ESCALATE") for m in made]
    assert {(f["old"], f["new"]): f["count"] for f in told["flips"]} == {w: want.count(w) for w in want}
    assert told["changed"] == sum(old != new for old, new in want) > 0
    assert {e["decision_id"] for e in told["examples"]} <= {m["decision_id"] for m in made}
    assert trials(inside) == [told], "looking again counts nothing twice"
    assert inside.decide(refund(100))["verdict"] == made[1]["verdict"], "it decides nothing"
    assert "5 decisions compared" in inside.run("policy", "shadow").stdout


def test_a_candidate_is_never_the_latest_policy(inside: Inside, live: str) -> None:
    inside.run("policy", "shadow", candidate(inside, live))
    inside.run("policy", "activate", live)
    assert inside.decide(refund(20))["policy"]["version"] != "9.0.0"
    inside.run("policy", "publish", candidate(inside, live))
    inside.run("policy", "activate", live)
    assert inside.decide(refund(20))["policy"]["version"] == "9.0.0"


def test_several_at_once_and_one_ended(inside: Inside, live: str) -> None:
    for version, limit in (("9.0.0", 50), ("9.1.0", 1000)):
        inside.run("policy", "shadow", candidate(inside, live, version, limit))
    inside.decide(refund(100))
    assert [one["compared"] for one in trials(inside)] == [1, 1]
    inside.run("policy", "shadow", "--off", f"{live}@9.0.0")
    inside.decide(refund(100))
    (left,) = trials(inside)
    assert (left["policy"], left["compared"]) == (f"{live}@9.1.0", 2)
    assert "no candidate" in inside.refused("policy", "shadow", "--off", f"{live}@9.0.0", code=2)


def test_a_candidate_with_other_memory_settings_asks_the_memory_as_of_then(inside: Inside, live: str) -> None:
    first = inside.decide(refund(100))
    sdk.label(first["decision_id"], "failure", summary="it was fraud")
    memory = "memory: {weights: {text: 1, categories: 1, numbers: 1}}"
    inside.run("policy", "shadow", candidate(inside, live, limit=500, memory=memory))
    second = inside.decide(refund(100))
    sdk.label(second["decision_id"], "success", summary="this one was not")
    (told,) = trials(inside)
    (verdict,) = list(shadow_verdicts(wiring.open_home().log))
    assert verdict["memory"] == "as-of" and verdict["candidate"] is not None
    assert verdict["candidate"]["reason_codes"] == ["FAILURE_MEMORY_SIMILAR_BLOCK"], "not the later label's memory"
    assert told["without_memory"] == 0


def test_only_decisions_of_the_policy_it_stands_beside(inside: Inside, live: str) -> None:
    assert "no policy `other` decides here" in inside.refused("policy", "shadow", candidate(inside, "other"), code=2)
    inside.run("policy", "shadow", candidate(inside, "other"), "--instead-of", live)
    assert "already" in inside.refused("policy", "shadow", candidate(inside, "other"), "--instead-of", live, code=2)
    inside.decide(refund(100))
    (told,) = trials(inside)
    assert (told["instead_of"], told["compared"]) == (live, 1)


def test_a_broken_candidate_is_refused_with_all_its_errors(inside: Inside, live: str) -> None:
    (inside.folder / "broken.yml").write_text("policy: a b\nrules: [{id: R}]\nnonsense: 1\n")
    done = inside.run("policy", "shadow", "broken.yml", code=2)
    assert all(f"broken.yml:{line}:" in done.stderr for line in (1, 2, 3))
    assert live and not wiring.open_home().agent.control().shadows


def test_another_tenants_decisions_are_not_shown(inside: Inside, live: str, monkeypatch: pytest.MonkeyPatch) -> None:
    inside.run("policy", "shadow", candidate(inside, live))
    inside.decide(refund(100))
    monkeypatch.setenv("LUMYN_TENANT", "other")
    (told,) = trials(inside)
    assert told["compared"] == 0 and told["examples"] == []


def test_each_record_once_whoever_evaluates_and_wherever_one_dies(inside: Inside, live: str) -> None:
    """Two agents in turn, one of them stopped in the middle of its batches: the newer owner goes on exactly."""
    inside.run("policy", "shadow", candidate(inside, live))
    made = [inside.decide({**refund(amount), "request_id": f"r{amount}"}) for amount in range(1, 30)]
    home = wiring.open_home()
    partition = next(m["log"]["partition"] for m in made)
    first = ShadowAgent(home.log, home.memories, Observer(), [partition])  # type: ignore[attr-defined]
    assert first.step()
    second = ShadowAgent(home.log, home.memories, Observer())  # type: ignore[attr-defined]
    second.step()
    with pytest.raises(Exception, match="another writer") as fenced:
        for number in range(50):  # until one falls into its partition
            inside.decide({**refund(101), "request_id": f"later{number}"})
            first.step()
    assert fenced.value.code == "fenced"  # type: ignore[attr-defined]
    while second.step():
        pass
    ids = [one["decision_id"] for one in shadow_verdicts(home.log)]
    assert len(ids) == len(set(ids)) >= len(made) + 1


def test_what_is_no_verdict_or_no_record_is_passed_over(inside: Inside, live: str) -> None:
    inside.run("policy", "shadow", candidate(inside, live))
    home = wiring.open_home()
    home.log.append([Append(SHADOW, b"{}", b"x", 0), Append(SHADOW, b"\xff", b"x", 0)])
    home.log.append([Append("records", b'{"schema":"lumyn.record/1"}', b"x", 0)])
    for event in ({"type": "policy_shadowed", "actor": "x"}, {"type": "policy_unshadowed", "actor": "x"}):
        home.log.append([control_append(event)])
    inside.decide(refund(100))
    (told,) = trials(inside)
    assert told["compared"] == 1


def test_verdicts_quote_nothing_of_the_request(inside: Inside, live: str) -> None:
    inside.run("policy", "shadow", candidate(inside, live))
    body = refund(100)
    body["action"]["intent"] = "a very private matter"
    inside.decide(body)
    trials(inside)
    assert "private" not in json.dumps(list(shadow_verdicts(wiring.open_home().log)))
