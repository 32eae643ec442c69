"""`lumyn memory switch`: another embedder's memory beside the old one, chosen by control, the old one kept."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from conftest_e2e import refund
from inside import Inside
from small_model import small_model
from test_memory_verify import lived

from lumyn import wiring

pytest_plugins = ("inside_plugin",)


@pytest.fixture(params=["sqlite", "edge"])
def stored(request: pytest.FixtureRequest, inside: Inside, monkeypatch: pytest.MonkeyPatch) -> Inside:
    if request.param == "edge":
        pytest.importorskip("qdrant_edge")
        monkeypatch.setenv("LUMYN_QDRANT", f"edge:{inside.folder / 'edge'}")
    return inside


@pytest.fixture
def other(tmp_path: Path) -> str:
    return f"static:{small_model(tmp_path / 'small')}"


def decided(inside: Inside) -> dict[str, Any]:
    return inside.decide(refund(90, risk=0.5))


def verified(inside: Inside) -> dict[str, Any]:
    told: dict[str, Any] = inside.json("memory", "verify", "--sample", "500", "--json")
    assert told["verified"] and not told["not_comparable"], told
    return told


def test_decisions_go_on_with_the_other_memory_and_past_ones_are_checked_with_theirs(
    stored: Inside, other: str
) -> None:
    made = lived(stored)
    before = decided(stored)["memory"]
    points = stored.json("memory", "stats", "--json")["points"]
    told = stored.json("memory", "switch", other, "--why", "a smaller model", "--json")
    assert told["switched"] and told["points"] == points > 0 and told["version"] == before["version"]
    after = decided(stored)
    assert after["memory"]["available"] and after["memory"]["version"] == before["version"]
    assert "small-64" in after["memory"]["vectoriser_id"] != before["vectoriser_id"]
    assert verified(stored)["same"] == len(made) + 2
    stored.run("memory", "explain", made[-1]["decision_id"])
    stats = stored.json("memory", "stats", "--json")
    assert (stats["embedder"], stats["left"]) == (other, [before["vectoriser_id"]])
    made += lived(stored, 20)  # labels go to the memory in use
    assert verified(stored)["same"] == len(made) + 2

    back = stored.json("memory", "switch", "static", "--why", "as it was", "--json")
    assert back["after"]["vectoriser_id"] == before["vectoriser_id"]
    assert decided(stored)["memory"]["vectoriser_id"] == before["vectoriser_id"]
    assert decided(stored)["memory"]["version"] == back["version"] > before["version"]
    assert verified(stored)["same"] == len(made) + 4


def test_a_rebuilt_memory_is_the_one_in_use(stored: Inside, other: str) -> None:
    lived(stored, 10)
    stored.run("memory", "switch", other, "--why", "w")
    stored.run("memory", "rebuild")
    assert stored.json("memory", "stats", "--json")["embedder"] == other
    verified(stored)


def test_a_process_that_was_there_before_follows(inside: Inside, other: str) -> None:
    """The command runs in another process: this one's home is open, and learns of it from control."""
    inside.decide(refund(90))
    home = wiring.open_home()
    wiring._homes.clear()
    inside.run("memory", "switch", other, "--why", "w")
    choice = home.agent.control().memory
    assert choice is not None and choice.embedder == other
    assert home.memory.store().watermark().vectoriser_id == choice.vectoriser_id
    home.close()


def test_without_its_model_nothing_is_decided_with_another(inside: Inside, other: str, tmp_path: Path) -> None:
    lived(inside, 10)
    inside.run("memory", "switch", other, "--why", "w")
    wiring.close_homes()
    model = Path(other.partition(":")[2])
    shutil.move(model, tmp_path / "away")
    from lumyn import stores

    stores._embedder.cache_clear()
    stores._vectoriser.cache_clear()
    record = decided(inside)
    assert not record["memory"]["available"] and record["verdict"] != "ALLOW"
    assert "STORAGE_UNAVAILABLE" in record["reason_codes"]
    small_model(model, dimensions=32)  # the same name, another model
    wiring.close_homes()
    stores._embedder.cache_clear()
    stores._vectoriser.cache_clear()
    record = decided(inside)
    assert not record["memory"]["available"] and "STORAGE_UNAVAILABLE" in record["reason_codes"]
    assert "switched to" in inside.refused("memory", "stats", code=4)
    inside.run("memory", "switch", other, "--why", "the new one")
    assert decided(inside)["memory"]["available"]
    verified_now = inside.json("memory", "verify", "--json", code=None)
    assert verified_now["not_comparable"] or verified_now["verified"]


@pytest.mark.parametrize(
    ("embedder", "code", "said"),
    [
        ("nonsense", 2, "unknown embedder"),
        ("static:nowhere", 4, "distill"),
        ("sentence-transformers:nowhere/at/all", None, ""),
    ],
)
def test_an_embedder_that_can_not_be_had_changes_nothing(
    inside: Inside, embedder: str, code: int | None, said: str
) -> None:
    before = decided(inside)
    done = inside.run("memory", "switch", embedder, "--why", "w", code=code)
    assert done.code in (2, 4) and said in done.stderr
    assert decided(inside)["memory"]["vectoriser_id"] == before["memory"]["vectoriser_id"]
    assert wiring.open_home().agent.control().memory is None


def test_the_same_embedder_again_is_no_event(inside: Inside) -> None:
    decided(inside)
    version = wiring.open_home().agent.control().version
    assert "already" in inside.run("memory", "switch", "static", "--why", "w").stdout
    assert wiring.open_home().agent.control().version == version


def test_a_malformed_event_changes_nothing(inside: Inside) -> None:
    from streams.control import control_append

    decided(inside)
    home = wiring.open_home()
    for memory in ({"embedder": 5, "vectoriser_id": "x"}, {"embedder": "static"}, None, "static"):
        home.log.append([control_append({"type": "memory_switched", "actor": "x", "memory": memory, "was": memory})])
    assert home.agent.control().memory is None
    assert decided(inside)["memory"]["available"]


def test_the_switch_says_who_and_why(inside: Inside, other: str) -> None:
    decided(inside)
    inside.run("memory", "switch", other, "--why", "reads better")
    home = wiring.open_home()
    event = json.loads(home.log.read("control", 0, home.agent.control().position - 1)[0].value)
    assert (event["why"], event["memory"]["embedder"]) == ("reads better", other)
    assert event["was"]["embedder"] == "static" and event["actor"]
    inside.refused("memory", "switch", "static", "--why", " ", code=2)


PROFILE = """
profile: shop
leave_out: [evidence.chargeback_risk]
fx: {EUR: 2}
"""


def test_a_profile_changes_what_is_compared_and_the_old_memory_stays(stored: Inside) -> None:
    made = lived(stored)
    (stored.folder / "shop.yml").write_text(PROFILE)
    told = stored.json("memory", "switch", "--profile", "shop.yml", "--why", "risk is noise", "--json")
    assert told["switched"] and told["after"]["embedder"] == "static" and "+shop/1@" in told["after"]["vectoriser_id"]
    one, other = (stored.decide(refund(90, risk=risk))["risk_signals"] for risk in (0.1, 0.7))
    assert one == other, "what is left out can't make a difference"
    made += lived(stored, 10)
    verified(stored)
    stored.run("memory", "explain", made[0]["decision_id"])
    again = stored.json("memory", "switch", "static", "--why", "same profile", "--json")
    assert not again["switched"]
    back = stored.json("memory", "switch", "--profile", "default", "--why", "as it was", "--json")
    assert back["switched"] and back["after"]["vectoriser_id"] == made[0]["memory"]["vectoriser_id"]
    verified(stored)


def test_with_a_rate_harm_in_euros_counts_by_its_worth(stored: Inside) -> None:
    """Without a rate euros can't be compared, so that the harm counts for every amount; with one it is as much."""

    def euros(amount: float) -> dict[str, Any]:
        body = refund(amount, risk=0.1)
        body["action"]["amount"]["currency"] = "EUR"
        return body

    lost = stored.decide(euros(400))
    stored.run("label", lost["decision_id"], "--label", "failure", "--should", "DENY", "--summary", "lost")
    roles = lambda: {hit["role"] for hit in stored.decide(refund(20, risk=0.1))["memory"]["counted"]}  # noqa: E731
    assert "harmful" in roles()
    (stored.folder / "shop.yml").write_text(PROFILE)
    stored.run("memory", "switch", "--profile", "shop.yml", "--why", "euros")
    assert "harmful" not in roles(), "800 dollars of harm say nothing of 20"
    near = stored.decide(euros(300))
    assert {hit["amount"] for hit in near["memory"]["counted"] if hit["role"] == "harmful"} == {800}
    verified(stored)


def test_a_wrong_profile_is_said_whole_and_changes_nothing(inside: Inside) -> None:
    decided(inside)
    (inside.folder / "bad.yml").write_text("profile: a b\ntexts: [evidence.x]\nfx: {EUR: 0}\n")
    said = inside.run("memory", "switch", "--profile", "bad.yml", "--why", "w", code=2).stderr
    assert all(f"bad.yml:{line}:" in said for line in (1, 2, 3))
    inside.refused("memory", "switch", "--profile", "nowhere.yml", "--why", "w", code=2)
    inside.refused("memory", "switch", "--why", "w", code=2)
    assert wiring.open_home().agent.control().memory is None
