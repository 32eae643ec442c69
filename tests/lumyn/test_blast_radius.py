"""The blast radius of a job: every past decision that would have come out otherwise, checked against a plain recount."""

from __future__ import annotations

import random
import sqlite3
from pathlib import Path
from typing import Any, cast

import pytest
from conftest_e2e import refund
from inside import Inside

from lumyn import blast, label_jobs, sdk, wiring
from lumyn.stores import open_memory
from lumyn.wiring import Home, existing_home
from memory_service.recall import Asked
from schemas.canonical import decode_trusted
from schemas.label import LabelEvent, Undoes
from schemas.policy import MemorySettings
from streams.diff import outcome_of
from streams.label_history import histories
from streams.label_jobs import Plan, quarantine, relabel, supposed, take_back
from streams.reading import messages
from streams.topics import LABELS, RECORDS

pytest_plugins = ("inside_plugin",)

BAD = "label=failure AND action_type=refund"


def lived(inside: Inside, seed: int, count: int = 60) -> list[str]:
    """Decisions of two action types and labels by two people and a job, in turn."""
    pick, made = random.Random(seed), []
    for _ in range(count):
        request = refund(pick.choice([20, 90, 400, 480]), risk=pick.choice([0.1, 0.5, 0.9]))
        if pick.random() < 0.2:
            request["action"]["type"] = "credit"
        made.append(inside.decide(request)["decision_id"])
        if pick.random() < 0.7:
            label = pick.choice(["failure", "failure", "success", "retracted"])
            sdk.label(pick.choice(made), label, summary=f"was a {label}", actor=pick.choice("ab"))
    return made


def records(home: Home) -> list[dict[str, Any]]:
    return [
        decode_trusted(m.value) for p in range(home.log.partitions(RECORDS)) for m in messages(home.log, RECORDS, p)
    ]


def otherwise(home: Home, folder: Path, plan: Plan, undone: Undoes | None) -> dict[str, tuple[str, str]]:
    """The plain way: the labels' log as it would have been, a memory filled with it step by step, all asked again."""
    changed = {step.request["decision_id"]: step for step in plan.steps}
    events: list[LabelEvent] = [decode_trusted(m.value) for m in messages(home.log, LABELS, 0)]
    rewritten, met = [], set[str]()
    for event in events:
        name = event["decision_id"]
        if name in changed:
            if undone is not None:
                counts = not _undoes(event, undone)
                event = event if counts else cast(LabelEvent, {**event, "type": "note"})
            elif name in met:
                event = cast(LabelEvent, {**event, "type": "note"})
            else:
                met.add(name)
                said = {**changed[name].request, "version": event["version"], "decision": event["decision"]}
                event = cast(LabelEvent, {"label": None, "should": None, "at": event["at"], **said})
        rewritten.append(event)
    store, recaller = open_memory(home.settings, folder, home.log.epoch)
    flips = {}
    for record in sorted(records(home), key=lambda r: r["memory"]["version"]):
        version = record["memory"]["version"]
        store.apply(rewritten[:version])
        asked = Asked(record["request"], MemorySettings(**record["memory"]["settings"]), version)
        policy = home.agent.control().compiled(record["policy"]["hash"])
        verdict, reasons = outcome_of(record, policy, recaller.recall([asked])[0])
        if (verdict, list(reasons)) != (record["verdict"], record["reason_codes"]):
            flips[record["decision_id"]] = (record["verdict"], verdict)
    store.close()
    return flips


def _undoes(event: LabelEvent, undone: Undoes) -> bool:
    return event["version"] > undone["after"] if "after" in undone else event["job"] == undone["job"]


def plans(home: Home, kind: str) -> tuple[Plan, Undoes | None]:
    known = histories(home.log, "default")
    signed = label_jobs.sign(home, kind, "a test")
    found = label_jobs.found(home, BAD, print)
    if kind == "relabel":
        return relabel(signed, found, known, "success", None), None
    if kind == "retract":
        return relabel(signed, found[::2], known, "retracted", None), None
    if kind == "quarantine":
        return quarantine(signed, found, known, out=True), None
    undone: Undoes = {"after": max(h.last for h in known.values()) // 3}
    return take_back(signed, undone, known), undone


@pytest.mark.parametrize("kind", ["relabel", "retract", "quarantine", "rollback"])
@pytest.mark.parametrize("seed", [1, 2])
def test_it_is_what_a_plain_recount_finds(inside: Inside, tmp_path: Path, kind: str, seed: int) -> None:
    made = lived(inside, seed)
    home = existing_home()
    plan, undone = plans(home, kind)
    radius = blast.of_plan(home, plan, histories(home.log, "default"), lambda count: None)
    expected = otherwise(home, tmp_path / "plain", plan, undone)
    assert {flip.decision_id: (flip.old, flip.new) for flip in radius.flips} == expected
    assert expected, "the story must have flips"
    assert len(radius.flips) <= radius.recalled_otherwise <= radius.compared <= len(made)
    assert not radius.not_comparable
    assert sum(radius.table.values()) == radius.compared


def test_a_dry_run_shows_it_and_the_worst_come_first(inside: Inside) -> None:
    lived(inside, 3)
    told = inside.json("relabel", "--query", BAD, "--label", "success", "--why", "bad import", "--json")["blast_radius"]
    flips = [(change["old"], change["new"]) for change in told["changes"]]
    assert ("DENY", "ALLOW") in flips
    worst = [c["amount"] for c in told["changes"] if c["new"] == "ALLOW"]
    assert worst == sorted(worst, reverse=True) and [c["new"] for c in told["changes"][: len(worst)]] == [
        "ALLOW"
    ] * len(worst)
    shown = inside.run("relabel", "--query", BAD, "--label", "success", "--why", "bad import").stdout
    assert "DENY -> ALLOW" in shown and told["changes"][0]["decision_id"] in shown


def test_decisions_that_the_change_can_not_have_reached_are_not_asked(inside: Inside) -> None:
    before = inside.decide(refund(20))["decision_id"]  # before anything was said
    sdk.label(before, "failure")
    credit = refund(20)
    credit["action"]["type"] = "credit"
    inside.decide(credit)
    told = inside.json("relabel", "--query", BAD, "--label", "success", "--why", "x", "--json")["blast_radius"]
    assert (told["compared"], told["changes"]) == (0, [])


def test_what_was_never_labelled_reached_nobody(inside: Inside) -> None:
    for amount in (20, 21, 22):
        inside.decide(refund(amount))
    home = existing_home()
    known = histories(home.log, "default")
    plan = relabel(
        label_jobs.sign(home, "relabel", "x"),
        label_jobs.found(home, "action_type=refund", print),
        known,
        "failure",
        None,
    )
    assert len(plan.changes) == 3 and supposed(plan, known) == {}


def test_decisions_that_would_newly_recall_are_among_them(inside: Inside) -> None:
    bad = inside.decide(refund(20))["decision_id"]
    sdk.label(bad, "failure")
    inside.run("memory", "quarantine", bad, "--why", "doubtful", "--apply")
    record = inside.decide(refund(20))
    assert (record["verdict"], record["memory"]["counted"]) == ("ALLOW", [])
    told = inside.json("memory", "release", bad, "--why", "it was right", "--json")["blast_radius"]
    assert [(c["decision_id"], c["old"], c["new"]) for c in told["changes"]] == [
        (record["decision_id"], "ALLOW", "DENY")
    ]


def test_in_several_processes_it_is_the_same(inside: Inside, monkeypatch: pytest.MonkeyPatch) -> None:
    lived(inside, 1)
    home = existing_home()
    plan, _ = plans(home, "relabel")
    known = histories(home.log, "default")
    here = blast.of_plan(home, plan, known, lambda count: None)
    monkeypatch.setattr(blast, "WORTH_PROCESSES", 0)
    monkeypatch.setattr(blast, "_CHUNK", 7)
    ticks: list[int] = []
    there = blast.of_plan(home, plan, known, ticks.append)
    for failing in (KeyboardInterrupt, ValueError):  # whoever stops halfway is not kept waiting

        def fail(count: int, failing: type[BaseException] = failing) -> None:
            raise failing

        with pytest.raises(failing):
            blast.of_plan(home, plan, known, fail)
    assert there == here and here.flips and sum(ticks) == blast.places(home) and len(ticks) > 5


def test_a_record_that_is_none_any_more_is_counted_and_the_rest_is_asked(inside: Inside) -> None:
    made = lived(inside, 1)
    plan, _ = plans(existing_home(), "relabel")
    wiring.close_homes()
    with sqlite3.connect(inside.home / "lumyn.db") as database:
        database.execute(
            "UPDATE log_records SET value = CAST(replace(value, 'ALLOW', 'ALLOV') AS BLOB) WHERE key = ?",
            (made[5].encode(),),
        )
    home = existing_home()
    radius = blast.of_plan(home, plan, histories(home.log, "default"), lambda count: None)
    assert radius.not_comparable == {blast.UNSOUND: 1} and radius.compared > 10
