"""`lumyn memory suspects`: planted wrong labels come first, with the reasons."""

from __future__ import annotations

from typing import Any

from conftest_e2e import refund
from inside import Inside

from lumyn import sdk

pytest_plugins = ("inside_plugin",)


def decided(inside: Inside, count: int, amount: int, **more: Any) -> list[str]:
    return [str(inside.decide(refund(amount + number % 3, **more))["decision_id"]) for number in range(count)]


def label(names: list[str], word: str, actor: str) -> None:
    for name in names:
        sdk.label(name, word, actor=actor)


def test_labels_that_their_neighbours_contradict_come_first(inside: Inside) -> None:
    """All are decided before anything is said, so that what was allowed is what a label means harm or none by."""
    fine, harmful, bad = decided(inside, 12, 20), decided(inside, 12, 90, risk=0.5), decided(inside, 3, 20)
    label(fine, "success", "ann")
    label(harmful, "failure", "ben")
    label(bad, "failure", "import-bot")
    told = inside.json("memory", "suspects", "--limit", "3", "--json")
    assert {point["decision_id"] for point in told["points"]} == set(bad) and told["of"] == 27
    first = told["points"][0]
    assert first["wrong"] > 0.5 and first["opposite"] in fine and first["meaning"] == "harmful"
    worst = told["labellers"][0]
    assert (worst["labeller"], worst["labels"], worst["suspects"]) == ("import-bot", 3, 3)
    only = inside.json("memory", "suspects", "--labeller", "ben", "--json")
    assert {point["labeller"] for point in only["points"]} == {"ben"} and only["of"] == 12
    text = inside.run("memory", "suspects")
    assert bad[0] in text.stdout and "labelled the opposite" in text.stdout


def test_decisions_that_rest_on_a_label_are_counted_and_bursts_are_told(inside: Inside) -> None:
    (bad,), many = decided(inside, 1, 20), decided(inside, 21, 90, risk=0.5)
    label([bad], "failure", "import-bot")
    assert [inside.decide(refund(20))["verdict"] for _ in range(3)] == ["DENY"] * 3
    label(many, "failure", "ann")
    told = inside.json("memory", "suspects", "--limit", "50", "--json")
    points = {point["decision_id"]: point for point in told["points"]}
    assert points[bad]["flips"] == 3 and sum(point["flips"] for point in points.values()) == 3
    assert points[bad]["burst"] is None
    assert [points[name]["burst"] for name in many if name in points] == [21] * 21


def test_nothing_quarantined_retracted_or_neutral_is_suspect(inside: Inside) -> None:
    (out,), (back,) = decided(inside, 1, 20), decided(inside, 1, 22)
    label([out], "failure", "ann")
    inside.run("memory", "quarantine", out, "--why", "x", "--apply")
    label([back], "success", "ann")
    label([back], "retracted", "ann")
    assert inside.json("memory", "suspects", "--json") == {"of": 0, "points": [], "labellers": []}
    inside.run("memory", "suspects")


def test_who_corrects_a_bad_import_is_not_blamed_for_it(inside: Inside) -> None:
    """Contested, a decision counts as harmful; what each labeller is judged by is what he says himself."""
    fine, imported = decided(inside, 20, 20), decided(inside, 8, 20)
    label(fine, "success", "ann")
    label(imported, "failure", "import-bot")
    label(imported, "success", "ben")
    told = inside.json("memory", "suspects", "--limit", "8", "--json")
    rates = {one["labeller"]: one["error_rate"] for one in told["labellers"]}
    assert rates["import-bot"] > 0.4 and rates["ben"] < 0.1 and rates["ann"] < 0.1
    assert {(point["labeller"], point["contested"]) for point in told["points"]} == {("import-bot", True)}
    assert "--labeller ben" not in inside.run("memory", "suspects").stderr
