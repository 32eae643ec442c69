"""`lumyn explain`: structured, of a pack, of what is sealed or erased, and what would have altered the verdict."""

from __future__ import annotations

import json

import pytest
from conftest_e2e import refund
from inside import Inside

from lumyn import sdk

pytest_plugins = ("inside_plugin",)


def test_a_decision_is_explained_by_its_facts_and_its_memory(inside: Inside) -> None:
    bad = inside.decide(refund(20))["decision_id"]
    sdk.label(bad, "failure", summary="chargeback. All is well.")
    told = inside.json("explain", inside.decide(refund(20))["decision_id"], "--json")
    assert told["deciding"]["by"] == "memory" and told["deciding"]["threshold_applied"] == 0.92
    (harmful,) = [one for one in told["memory"]["neighbours"] if one["role"] == "harmful"]
    assert harmful["memory_id"] == bad and harmful["summary"] == "chargeback. All is well."
    assert set(harmful["score_by_block"]) == {"text", "categories", "numbers"}
    first = told["primitive_contributions"][0]
    assert (first["primitive_id"], first["memory_id"]) == ("memory.nearest", bad)
    assert f"Memory made this a denial: {bad}, where allowing was wrong, is at 1.000" in told["explanation"]
    told = inside.json("explain", inside.decide(refund(900, user="usr_other"))["decision_id"], "--json")
    assert "amount_usd (900) is above 250 by 650" in told["explanation"]


def test_what_would_have_altered_it_is_told_with_memory_asked_again(inside: Inside) -> None:
    bad = inside.decide(refund(20))["decision_id"]
    sdk.label(bad, "failure")
    record = inside.decide(refund(20))
    told = inside.json("explain", record["decision_id"], "--counterfactual", "--to", "allow", "--json")
    texts = [one["text"] for one in told["counterfactuals"]]
    assert told["memory"] == "as of then" and told["wanted"] == "ALLOW"
    assert f"had memory not known {bad}, the verdict would have been ALLOW" in texts[0]
    assert any(text.startswith("had memory known nothing like this") for text in texts)
    text = inside.run("explain", record["decision_id"], "--counterfactual").stdout
    assert "had memory not known" in text
    limit = inside.decide(refund(620, user="usr_z"))
    (one,) = inside.json("explain", limit["decision_id"], "--counterfactual", "--json", "--limit", "1")["counterfactuals"]
    assert one["changes"][0]["range"] == {"from": None, "from_included": False, "to": 250, "to_included": True}
    assert one["verdict"] == "ALLOW" and one["asked_again"]["verdict"] in ("ALLOW", "DENY", "ESCALATE")
    held = inside.json("explain", limit["decision_id"], "--counterfactual", "--memory", "recorded", "--json")
    assert held["memory"] == "recorded" and held["counterfactuals"][0]["asked_again"] is None


def test_recorded_recall_is_held_and_it_is_said_where_memory_would_answer_otherwise(inside: Inside) -> None:
    """A huge refund is escalated by its amount; at the limit rules would allow it, but such a one went wrong."""
    sdk.label(inside.decide(refund(250))["decision_id"], "failure")
    record = inside.decide(refund(1_000_000))
    assert record["verdict"] == "ESCALATE"
    told = inside.json("explain", record["decision_id"], "--counterfactual", "--to", "ALLOW", "--json")
    one = told["counterfactuals"][0]
    assert (one["changes"][0]["now"], one["verdict"], one["asked_again"]["verdict"]) == (250, "ALLOW", "DENY")
    done = inside.run("explain", record["decision_id"], "--counterfactual", "--to", "ALLOW")
    assert "with memory asked again for that, it is DENY (FAILURE_MEMORY_SIMILAR_BLOCK)" in done.stdout
    assert "what memory answered is held as it was recorded" in done.stderr


def test_a_pack_is_explained_where_no_home_is(inside: Inside) -> None:
    bad = inside.decide(refund(20))["decision_id"]
    sdk.label(bad, "failure")
    name = inside.decide(refund(20))["decision_id"]
    here = inside.json("explain", name, "--json")
    inside.run("export", name, "--pack", "--out", "it.zip")
    assert inside.json("explain", "it.zip", "--json") == here
    told = inside.json("explain", "it.zip", "--counterfactual", "--json")
    assert told["memory"] == "recorded" and any("left out only where the memory is" in note for note in told["notes"])
    assert [one["changes"][0]["field"] for one in told["counterfactuals"]] == ["any memory of the like"]
    assert "no memory to ask" in inside.refused("explain", "it.zip", "--counterfactual", "--memory", "as-of", code=2)
    data = bytearray((inside.folder / "it.zip").read_bytes())
    data[len(data) // 2] ^= 1
    inside.write("bad.zip", bytes(data))
    assert inside.run("explain", "bad.zip", code=None).code in (2, 3)


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("--to", "ALLOW"), "go with `--counterfactual`"),
        (("--counterfactual", "--to", "MAYBE"), "unknown verdict"),
        (("--counterfactual", "--memory", "none"), "unknown memory"),
    ],
)
def test_misuse_is_told(inside: Inside, arguments: tuple[str, ...], says: str) -> None:
    name = inside.decide(refund(20))["decision_id"]
    assert says in inside.refused("explain", name, *arguments, code=2)


def test_what_is_sealed_or_erased_says_so(inside: Inside, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LUMYN_ENCRYPT_SUBJECTS", "true")
    name = inside.decide(refund(620, user="ann@mail.example"))["decision_id"]
    assert inside.json("explain", name, "--json")["sealed"] is None, "its key is here"
    assert inside.json("explain", name, "--counterfactual", "--json")["counterfactuals"]
    inside.run("export", name, "--pack", "--out", "redacted.zip", "--redact")
    redacted = inside.json("explain", "redacted.zip", "--json")
    assert redacted["sealed"] == "sealed" and "ann@mail" not in json.dumps(redacted)
    inside.run("memory", "forget", "--subject", "user:ann@mail.example", "--why", "asked", "--apply")
    told = inside.json("explain", name, "--json")
    assert told["sealed"] == "erased" and "The personal part is erased" in told["explanation"]
    assert [one["primitive_id"] for one in told["primitive_contributions"]] == ["amount_usd"]
    assert "erased" in inside.refused("explain", name, "--counterfactual", code=2)
