"""`lumyn demo`: its story is true part by part, and the home that it leaves can be looked at."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path

import pytest
from inside import Inside
from starlette.testclient import TestClient

from lumyn.api.app import make_app
from lumyn.api.homes import guard_for
from lumyn.config import LumynConfig

pytest_plugins = ("inside_plugin",)

STORY = Path(__file__).parents[2] / "examples" / "airline" / "story.json"


@pytest.fixture
def told(inside: Inside, monkeypatch: pytest.MonkeyPatch) -> str:
    """What the demo prints; its home is kept, and is the one that commands use from then on."""
    for name in ("LUMYN_HOME", "LUMYN_POLICY", "LUMYN_ACTOR", "PATH"):
        monkeypatch.setenv(name, os.environ.get(name, ""))  # so that what the demo sets is taken back
    text = inside.run("demo", "--keep", "kept").stdout
    monkeypatch.setenv("LUMYN_HOME", str(inside.folder / "kept" / ".lumyn"))
    return text


def test_the_story_is_told_whole_and_leaves_what_it_tells_of(inside: Inside, told: str) -> None:
    plot = json.loads(STORY.read_text())
    chapters = re.split(r"^\d+\. ", told, flags=re.M)
    assert len(chapters) == 11
    record, incident, rate, opened, label, wrongly, better, gameday, postmortem, proof = chapters[1:]
    assert re.search(r"^cancel_reservation +\| 9 +\| 8 +\| 11 +\| 10$", record, re.M)
    assert "5074 USD" in incident and "Replay successful: verdict matches original." in incident
    # the agent's four recorded conversations are four runs: it did so in one
    assert re.search(r"^leave_it +\| 3 +\| 75.0%", rate, re.M)
    assert re.search(r"^cancel_reservation \* \| 1 +\| 25.0% \(4.6% to 69.9%\)", rate, re.M)
    assert "`verdict = ALLOW`: 4 times, 33.3%" in rate
    assert "INC-1: opened, 4 decisions" in opened and "INC-1: 2 linked" in opened
    for chapter, name in ((label, "incident"), (wrongly, "false_positive")):
        for request, said in plot[name]["repeats"].items():
            assert re.search(rf"^{request} +\| {said['before']} +\| {said['after']} +\| {said['reason']}$", chapter, re.M)
        before = {"incident": "ALLOW", "false_positive": "DENY"}[name]
        for request in plot[name]["unharmed"]:
            assert re.search(rf"^{request} +\| {before} +\| {before} ", chapter, re.M)
    assert re.search(r"^flips.to_ALLOW == 0 +\| 0 +\| 0 +\| yes$", better, re.M)
    assert re.search(r"^failures_caught >= baseline +\| 100.00% +\| 0.00% +\| yes$", better, re.M)
    assert "game day INC-1: holds (4 of 4 hold)" in gameday and "the memory is down" in gameday
    assert "24 delivered, 24 in the log, 24 receipts (12 decided, 12 duplicate), 12 records" in gameday
    assert "  - system fingerprint: 4 of 4 (100%)" in postmortem
    assert "100 decisions, 100 verified, 0 not" in proof
    assert "lumyn serve --dev" in proof

    kept = inside.json("incident", "show", "INC-1", "--json")
    assert kept["status"] == "closed"
    assert {link["kind"] for link in kept["links"]} == {"decision", "rate", "pack", "backtest", "gameday"}
    config = LumynConfig()
    browser = TestClient(make_app(config, guard_for(config, dev=True)), base_url="http://127.0.0.1:8700")
    page = browser.get("/console/incidents/INC-1").text
    assert 'href="/console/backtests/airline-1.1"' in page
    assert "EVERY BAR IS MET" in browser.get("/console/backtests/airline-1.1").text
    assert (inside.folder / "kept/postmortem.html").read_text().startswith("<!")
    assert inside.json("list", "--limit", "200", "--json")
    assert "100 verified" in inside.run("verify").stdout
    assert "a home in it already" in inside.refused("demo", "--keep", "kept", code=2)


def test_the_game_day_of_the_demo_fails_by_the_policy_of_before(inside: Inside, told: str) -> None:
    """It proves something: by the first policy, without memory, the same scenario does not hold."""
    assert told
    scenario = inside.folder / "kept" / "gamedays" / "inc-1.yml"
    policy = STORY.parent / "policy.yml"
    text = scenario.read_text().replace("memory: none", f"memory: none\npolicy: {policy}")
    scenario.write_text(text)
    report = inside.json("gameday", "run", scenario, "--json", code=1)
    assert [one["holds"] for one in report["expectations"]] == [False, False]
    assert report["expectations"][1]["observed"] == "6 of 12", "the memory is down for the others"
