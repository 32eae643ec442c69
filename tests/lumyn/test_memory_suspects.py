"""`lumyn memory suspects`: planted wrong labels come first, with the reasons."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from conftest_e2e import refund
from inside import Inside

from lumyn import LumynConfig, sdk, suspecting
from lumyn.wiring import existing_home, home_as

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


# Remembered where nothing has changed


@pytest.fixture
def made(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The tenants whose labels were ranked, in order."""
    looked: list[str] = []
    real = suspecting._ranked

    def ranked(home: Any, *arguments: Any) -> Any:
        looked.append(home.settings.tenant)
        return real(home, *arguments)

    monkeypatch.setattr(suspecting, "_ranked", ranked)
    return looked


def kept(tenant: str = "default") -> dict[str, Any]:
    return suspecting.as_dict(suspecting.kept(home_as(existing_home(), tenant, "ann")), 100)


def anew(tenant: str = "default") -> dict[str, Any]:
    return suspecting.as_dict(suspecting.find(home_as(existing_home(), tenant, "ann")), 100)


def test_suspects_are_looked_for_again_whenever_what_they_come_from_changed(inside: Inside, made: list[str]) -> None:
    names = decided(inside, 4, 20)
    theirs = sdk.decide(refund(20), LumynConfig(tenant="theirs"))["decision_id"]
    changes: list[Callable[[], Any]] = [
        lambda: label(names[:2], "success", "ann"),
        lambda: label(names[2:3], "failure", "import-bot"),
        lambda: label(names[2:3], "retracted", "import-bot"),
        lambda: inside.run("memory", "quarantine", names[0], "--why", "x", "--apply"),
        lambda: sdk.label(theirs, "failure", config=LumynConfig(tenant="theirs")),
    ]
    for change in changes:
        change()
        made.clear()
        told = [kept(), kept("theirs"), kept(), kept("theirs")]
        assert told == [anew(), anew("theirs")] * 2
        assert made == ["default", "theirs"] * 2, "each tenant's once, and once to compare"
    assert kept("theirs")["of"] == 1 and kept()["points"] != kept("theirs")["points"]


def test_of_many_who_ask_at_once_one_looks(inside: Inside, made: list[str]) -> None:
    label(decided(inside, 3, 20), "success", "ann")
    with ThreadPoolExecutor(6) as pool:
        told = list(pool.map(lambda _: kept(), range(6)))
    assert made == ["default"] and all(one == told[0] for one in told)


def test_of_records_only_new_ones_are_read_and_labels_ranked_where_one_rests_on_them(
    inside: Inside, made: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    (bad,) = decided(inside, 1, 20)
    label([bad], "failure", "import-bot")
    checked: list[bytes] = []
    real = suspecting.checked_record
    monkeypatch.setattr(suspecting, "checked_record", lambda raw: checked.append(raw) or real(raw))
    assert kept()["points"][0]["flips"] == 0
    assert (len(checked), len(made)) == (1, 1)
    inside.decide(refund(400, risk=0.95))
    inside.decide(refund(410, risk=0.95))
    assert kept()["points"][0]["flips"] == 0
    assert (len(checked), len(made)) == (3, 1)
    for number in range(1, 4):
        assert inside.decide(refund(20))["verdict"] == "DENY"
        assert kept()["points"][0]["flips"] == number
        assert (len(checked), len(made)) == (3 + number, 1 + number)
    assert kept() == anew()


def test_what_is_decided_while_it_looks_is_not_missed(inside: Inside, monkeypatch: pytest.MonkeyPatch) -> None:
    (bad,) = decided(inside, 1, 20)
    label([bad], "failure", "import-bot")
    real = suspecting._ranked

    def ranked(*arguments: Any) -> Any:
        found = real(*arguments)
        if inside.records() == 1:  # it has been read, and now comes another that rests on the label
            inside.decide(refund(20))
        return found

    monkeypatch.setattr(suspecting, "_ranked", ranked)
    assert kept()["points"][0]["flips"] == 0
    assert kept()["points"][0]["flips"] == 1


def test_no_more_than_a_few_tenants_are_remembered(inside: Inside, made: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(suspecting, "_MOST_TENANTS", 2)
    inside.decide(refund(20))
    for tenant in ("a", "b", "c", "c", "b", "a"):
        kept(tenant)
    assert made == ["a", "b", "c", "a"]


def test_a_key_that_is_destroyed_changes_what_is_told_at_once(inside: Inside, made: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LUMYN_ENCRYPT_SUBJECTS", "true")
    label(decided(inside, 2, 20), "failure", "ann")
    assert kept() == kept()
    assert made == ["default"]
    home = existing_home()
    (kid,) = {event["decision"]["subject"] for one in suspecting.known(home).values() for event in one.events}
    home.log.keys.erase(kid)  # the log does not say so yet
    told = kept()
    assert made == ["default"] * 2 and told == anew()
    assert kept() == told and made == ["default"] * 3


def test_nothing_is_remembered_of_more_encrypted_subjects_than_can_be_asked_for(
    inside: Inside, made: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LUMYN_ENCRYPT_SUBJECTS", "true")
    monkeypatch.setattr(suspecting, "_MOST_SUBJECTS", 0)
    label(decided(inside, 1, 20), "failure", "ann")
    assert kept() == kept()
    assert made == ["default"] * 2
