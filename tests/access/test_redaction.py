"""`[privacy] redact`: what is named there is in no index and no memory, and nothing else changes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from conftest_e2e import refund
from inside import Inside

from lumyn import sdk
from lumyn.wiring import close_homes, existing_home

pytest_plugins = ("inside_plugin",)
SECRET = "ann.smith.personal.address"
REDACT = '[privacy]\nredact = ["evidence.email", "provenance.trace", "subject.email", "action.contact"]\n'


def asked(amount: float, secret: str = SECRET) -> dict[str, Any]:
    request = refund(amount, provenance={"trace": secret, "model": "m-1"})
    request["evidence"]["email"] = secret
    request["subject"]["email"] = secret
    request["action"]["contact"] = {"mail": secret}
    return request


def holders(home: Path) -> set[str]:
    """The files that hold the secret, by name."""
    close_homes()
    files = [path for path in home.rglob("*") if path.is_file()]
    return {path.name.removesuffix("-wal") for path in files if SECRET.encode() in path.read_bytes()}


def test_what_is_named_is_in_the_log_alone_and_is_found_all_the_same(inside: Inside) -> None:
    inside.write("lumyn.toml", REDACT)
    record = inside.decide(asked(20))
    sdk.label(record["decision_id"], "failure", summary="x")
    for query in (f"provenance.trace='{SECRET}'", f"evidence.email='{SECRET}'", "provenance.model=m-1"):
        found = inside.json("list", "--query", query, "--json")
        assert [one["decision_id"] for one in found] == [record["decision_id"]], query
    assert inside.json("list", "--query", "provenance.trace=other", "--json") == []
    assert inside.decide(asked(20))["verdict"] == "DENY"  # remembered
    assert sdk.show(record["decision_id"])["record"]["request"]["evidence"]["email"] == SECRET
    inside.run("verify", record["decision_id"])
    assert holders(inside.home) == {"lumyn.db"}


def test_memory_says_that_it_is_another_one_and_does_not_look_at_what_is_named(inside: Inside) -> None:
    before = inside.decide(asked(20))
    sdk.label(before["decision_id"], "failure", summary="x")
    plain = inside.decide(asked(20))
    other = inside.decide(asked(20, "somebody.else.entirely"))
    assert plain["memory"]["counted"][0]["score"] > other["memory"]["counted"][0]["score"]
    inside.write("lumyn.toml", REDACT)
    close_homes()
    redacted, same = inside.decide(asked(20)), inside.decide(asked(20, "somebody.else.entirely"))
    assert redacted["memory"]["vectoriser_id"] != plain["memory"]["vectoriser_id"]
    assert redacted["memory"]["counted"][0]["score"] == same["memory"]["counted"][0]["score"]
    assert redacted["inputs_digest"] == plain["inputs_digest"]


def test_an_index_that_holds_more_says_to_make_it_again(inside: Inside) -> None:
    inside.decide(asked(20))
    inside.run("list")
    assert "index.db" in holders(inside.home)
    inside.write("lumyn.toml", REDACT)
    assert "index" in inside.refused("list", code=4)
    inside.run("index", "rebuild")
    assert len(inside.json("list", "--json")) == 1
    assert "index.db" not in holders(inside.home)
    assert existing_home().settings.redact[0] == "action.contact"


@pytest.mark.parametrize("path", ["email", "evidence", "evidence.", "subject.id", "action.type", "action.amount", "x.y", "tenant"])
def test_what_can_t_be_kept_out_is_refused(inside: Inside, path: str) -> None:
    inside.write("lumyn.toml", f'[privacy]\nredact = ["{path}"]\n')
    inside.refused("list", code=2)


AGENT = """
import json, sys
asked = json.load(sys.stdin)
mail = asked["evidence"]["email"]
print(json.dumps({"action": {"type": "refund", "to": mail}, "provenance": {"trace": mail, "model": "m-2"}}))
"""


def test_no_sample_of_an_agent_and_no_rate_of_traffic_shows_what_is_named(inside: Inside) -> None:
    """Samples are files of the home, and outlive what they were made from."""
    inside.write("lumyn.toml", REDACT)
    first = inside.decide(asked(20))["decision_id"]
    inside.decide(asked(20))
    inside.write("agent.py", AGENT)
    ran = ("--command", "python3 agent.py")
    told = inside.json("rate", "--decision", first, *ran, "--runs", 3, "--json")
    assert SECRET not in json.dumps(told) and set(told["metadata"]) == {"model"}
    assert SECRET not in inside.run("rate", "--query", "action_type=refund", "--event", "refund", "--json").stdout
    inside.run("watch", "canary", *ran, "--size", 2)
    named = inside.json("rate", "--decision", first, *ran, "--runs", 2, "--outcome", "action.to", "--json")
    assert named["outcomes"][0]["outcome"] == SECRET, "what is asked for by name is answered"
    inside.write("lumyn.toml", REDACT.replace('"action.contact"', '"action.contact", "action.to"'))
    named = inside.json("rate", "--decision", first, *ran, "--runs", 2, "--outcome", "action.to", "--json")
    assert inside.json("rate", "show", named["rate_id"], "--json")["outcomes"][0]["outcome"] == "outcome 1"
    assert "action.to" in inside.refused("watch", "canary", *ran, "--outcome", "action.to", "--new-set", code=2)
    close_homes()
    kept = [path.read_text() for path in (inside.home / "rates").iterdir()]
    assert len(kept) == 4 and sum(SECRET in text for text in kept) == 1, "that of before it was named"
