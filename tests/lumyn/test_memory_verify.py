"""`lumyn memory verify`: a recall at a past version is the recorded one, and what differs is named."""

from __future__ import annotations

import random
import sqlite3
from typing import Any

import pytest
from conftest_e2e import refund
from inside import Inside

from lumyn import sdk, wiring

pytest_plugins = ("inside_plugin",)


def lived(inside: Inside, count: int = 40) -> list[dict[str, Any]]:
    """Decisions and labels in turn, so that the decisions were made at many versions of the memory."""
    pick, made = random.Random(7), []
    for _ in range(count):
        made.append(inside.decide(refund(pick.choice([20, 90, 400, 480]), risk=pick.choice([0.1, 0.5, 0.9]))))
        if pick.random() < 0.7:
            label = pick.choice(["failure", "success", "retracted"])
            sdk.label(pick.choice(made)["decision_id"], label, summary=f"was a {label}", actor=pick.choice("ab"))
    return made


def damage(inside: Inside, sql: str) -> None:
    wiring.close_homes()
    with sqlite3.connect(inside.home / "memory.db") as database:
        assert database.execute(sql).rowcount > 0


def test_every_past_recall_is_the_recorded_one(inside: Inside) -> None:
    made = lived(inside)
    versions = {record["memory"]["version"] for record in made}
    assert len(versions) > 10, "the story must have many versions"
    told = inside.json("memory", "verify", "--json")
    assert (told["verified"], told["sampled"], told["of"], told["same"]) == (True, len(made), len(made), len(made))
    assert f"{len(made)} of {len(made)} recalled decisions" in inside.run("memory", "verify").stdout


def test_a_rebuilt_memory_gives_every_past_recall_again(inside: Inside) -> None:
    lived(inside)
    inside.run("memory", "rebuild")
    assert inside.json("memory", "verify", "--json")["verified"] is True


@pytest.mark.parametrize(
    ("sql", "field"),
    [
        ("UPDATE points SET payload = replace(payload, 'was a ', 'was no ')", "risk_signals."),
        ("UPDATE points SET to_version = from_version + 1", "memory.counted"),
        ("DELETE FROM points WHERE from_version = (SELECT min(from_version) FROM points)", "risk_signals."),
    ],
)
def test_a_memory_that_was_changed_behind_our_back_is_found_and_mended(inside: Inside, sql: str, field: str) -> None:
    lived(inside)
    damage(inside, sql)
    done = inside.run("memory", "verify", code=3)
    assert field in done.stderr and "0 differ" not in done.stdout
    told = inside.json("memory", "verify", "--json", code=3)
    assert not told["verified"] and told["differ"][0]["changes"][0].keys() == {"field", "recorded", "now"}
    assert told["same"] + len(told["differ"]) == told["sampled"]
    inside.run("memory", "rebuild")
    inside.run("memory", "verify")


def test_labels_that_are_gone_are_told(inside: Inside) -> None:
    """A log put back from an older copy: its labels end before the versions that records name."""
    lived(inside)
    wiring.close_homes()
    with sqlite3.connect(inside.home / "lumyn.db") as database:
        database.execute("DELETE FROM log_labels WHERE pos >= 3")
    for path in inside.home.glob("memory.db*"):
        path.unlink()
    done = inside.run("memory", "verify", code=3)
    assert "the memory lacks labels that it had then" in done.stderr


def test_decisions_of_another_memory_are_not_compared_and_told(inside: Inside) -> None:
    lived(inside, 6)
    wiring.close_homes()
    with sqlite3.connect(inside.home / "lumyn.db") as database:
        database.execute("UPDATE log_meta SET value = 'another' WHERE key = 'epoch'")
    for path in inside.home.glob("memory.db*"):
        path.unlink()
    done = inside.run("memory", "verify")
    assert "6 could not be compared: recalled from another memory" in done.stderr
    assert "0 the same, 0 differ" in done.stdout


def test_the_same_seed_draws_the_same_sample_and_no_more_than_asked(inside: Inside) -> None:
    lived(inside, 20)
    one, two = (inside.json("memory", "verify", "--sample", 5, "--seed", 3, "--json") for _ in range(2))
    assert one == two and one["sampled"] == 5 and one["of"] == 20
    assert "seed 3" in inside.run("memory", "verify", "-n", 5, "--seed", 3).stdout


def test_decisions_made_without_memory_and_other_tenants_are_not_drawn(inside: Inside) -> None:
    inside.decide(refund(20))
    inside.decide(refund(20, tenant="another"))
    source = (inside.folder / "policy.yml").read_text().partition("memory:")[0]
    inside.write("bare.yml", source)
    inside.run("decide", "-", "--policy", "bare.yml", stdin=b'{"subject": {"type": "user", "id": "u"}, "action": '
               b'{"type": "refund"}}')  # fmt: skip
    assert inside.records() == 3
    assert inside.json("memory", "verify", "--json")["of"] == 1


def test_without_decisions_there_is_nothing_to_verify_and_no_home_is_an_error(inside: Inside) -> None:
    assert "there are no decisions here yet" in inside.refused("memory", "verify", code=2)


def test_a_memory_that_is_broken_is_an_error_not_a_difference(inside: Inside) -> None:
    lived(inside, 5)
    wiring.close_homes()
    for path in inside.home.glob("memory.db*"):
        path.unlink()
    (inside.home / "memory.db").write_bytes(b"not a database" * 100)
    assert "memory can't be opened" in inside.refused("memory", "verify", code=4)
