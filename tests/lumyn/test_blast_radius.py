"""The blast radius of a job: every past decision that would have come out otherwise, checked against a plain recount."""

from __future__ import annotations

import os
import random
import re
import signal
import sqlite3
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import pytest
from conftest_e2e import POLICY, refund
from inside import Inside

from lumyn import blast, label_jobs, sdk, wiring
from lumyn.home import Home
from lumyn.stores import open_memory
from lumyn.wiring import existing_home
from memory_service.profile import amount_of, has_comparable_amount
from memory_service.recall import Asked
from schemas.canonical import decode_trusted, encode
from schemas.errors import StorageUnavailable
from schemas.label import LabelEvent, Undoes
from schemas.policy import MemorySettings
from schemas.record import record_digest
from streams.blast_radius import UNSOUND, BlastRadius, Flip
from streams.diff import outcome_of
from streams.label_history import histories, histories_of
from streams.label_jobs import Plan, quarantine, relabel, supposed, take_back, trust
from streams.reading import messages
from streams.topics import LABELS, RECORDS
from streams.versions import last_version

pytest_plugins = ("inside_plugin",)

BAD = "label=failure AND action_type=refund"


def lived(inside: Inside, seed: int, count: int = 60) -> list[str]:
    """Decisions of two action types, labels by two people, and jobs with their undos, in turn."""
    pick, made, jobs = random.Random(seed), list[str](), list[str]()
    for _ in range(count):
        request = refund(pick.choice([20, 90, 400, 480]), risk=pick.choice([0.1, 0.5, 0.9]))
        if pick.random() < 0.2:
            request["action"]["type"] = "credit"
        made.append(inside.decide(request)["decision_id"])
        if pick.random() < 0.7:
            label = pick.choice(["failure", "failure", "success", "retracted", "note"])
            sdk.label(pick.choice(made), label, summary=f"was a {label}", actor=pick.choice("ab"))
        if pick.random() < 0.15:
            jobs += _job(existing_home(), pick, made, jobs)
    return made


def _job(home: Home, pick: random.Random, made: list[str], jobs: list[str]) -> list[str]:
    known, kind = histories(home.log, "default"), pick.choice(["relabel", "quarantine", "release", "undo", "rollback", "trust"])
    signed = label_jobs.sign(home, kind, "in the story")
    some = [label_jobs.Decided(h.decision_id, h.verdict) for h in known.values() if pick.random() < 0.5]
    if kind == "relabel":
        plan = relabel(signed, some, known, pick.choice(["failure", "success"]), None)
    elif kind == "undo":
        plan = take_back(signed, {"job": pick.choice(jobs)} if jobs else {"after": 3}, known)
    elif kind == "rollback":
        plan = take_back(signed, {"after": pick.randrange(1 + max((h.last for h in known.values()), default=0))}, known)
    elif kind == "trust":
        plan = trust(signed, pick.choice("ab"), pick.choice([0, 25, 75, 100]), known)
    else:
        plan = quarantine(signed, some, known, out=kind == "quarantine")
    label_jobs.send(home, plan.requests, lambda count: None)
    return [plan.job]


def records(home: Home) -> list[dict[str, Any]]:
    return [
        decode_trusted(m.value) for p in range(home.log.partitions(RECORDS)) for m in messages(home.log, RECORDS, p)
    ]


def otherwise(home: Home, folder: Path, plan: Plan, undone: Undoes | None) -> dict[str, tuple[str, str]]:
    """The plain way: the labels' log as it would have been, a memory filled with it step by step, all asked again."""
    changed = {request["decision_id"]: request for request in plan.requests if request["decision_id"]}
    trusts = {request.get("labeller"): request for request in plan.trusts}
    events: list[LabelEvent] = [decode_trusted(m.value) for m in messages(home.log, LABELS, 0)]
    rewritten: list[LabelEvent] = []
    for event in events:
        labeller = event.get("labeller")
        if labeller in trusts:
            rewritten.append(_trusted(event, rewritten, undone))
        elif labeller is None and event["decision_id"] in changed:
            rewritten.append(_rewritten(event, changed[event["decision_id"]], rewritten, undone))
        else:
            rewritten.append(event)
    # one event more at the beginning, which sets the trust that there is to have been from the start
    first = cast(LabelEvent, {**events[0], "type": "note", "decision": None, "version": 1})
    if undone is None:
        first = cast(LabelEvent, {**first, **next(iter(trusts.values()), {}), "version": 1})
    rewritten = [first, *(cast(LabelEvent, {**event, "version": event["version"] + 1}) for event in rewritten)]
    store, recaller = open_memory(home.settings, folder, home.log.epoch)
    flips = {}
    for record in sorted(records(home), key=lambda r: r["memory"]["version"]):
        version = record["memory"]["version"] + 1
        store.apply(rewritten[:version])
        asked = Asked(record["request"], MemorySettings(**record["memory"]["settings"]), version)
        policy = home.agent.control().compiled(record["policy"]["hash"])
        verdict, reasons = outcome_of(record, policy, recaller.recall([asked])[0])
        if (verdict, list(reasons)) != (record["verdict"], record["reason_codes"]):
            flips[record["decision_id"]] = (record["verdict"], verdict)
    store.close()
    return flips


def _trusted(event: LabelEvent, before: list[LabelEvent], undone: Undoes | None) -> LabelEvent:
    """One event that sets the trust in a changed labeller as it would have been."""
    nothing = cast(LabelEvent, {**event, "type": "note", "labeller": None})
    if undone is None or _undoes(event, undone):
        return nothing
    undoes, past = event.get("undoes"), histories_of(before, "default").trusts
    if undoes is None:
        return event
    labeller = str(event.get("labeller"))
    left = past.without(labeller, undoes) if labeller in past else 100
    return cast(LabelEvent, {**event, "trust": left / 100})


def _rewritten(event: LabelEvent, said: Any, before: list[LabelEvent], undone: Undoes | None) -> LabelEvent:
    """One event of a changed decision as it would have been."""
    nothing = cast(LabelEvent, {**event, "type": "note", "label": None})
    if event["type"] == "note":
        return event
    restored = event.get("restored")
    if undone is not None:
        if _undoes(event, undone):
            return nothing
        if restored:  # it would have restored something else
            past = histories_of(before, "default").get(event["decision_id"])
            left = past.without(event["undoes"]) if past else {"said": [], "quarantined": False}  # type: ignore[typeddict-item]
            return cast(LabelEvent, {**event, "restored": left})
        return event
    if said["type"] == "quarantine":
        return nothing
    if said["type"] == "release":
        if restored:
            return cast(LabelEvent, {**event, "restored": {**restored, "quarantined": False}})
        return nothing if event["type"] in ("quarantine", "release") else event
    word = {"actor": said["actor"], "label": said["label"], "should": said.get("should"), "summary": said["summary"]}
    mine = [one for one in before if one["decision_id"] == event["decision_id"] and one["type"] != "note"]
    out = event["type"] == "quarantine" or bool(restored and restored["quarantined"])
    if event["type"] not in ("quarantine", "release", "restore"):
        out = bool(mine and mine[-1]["restored"]["quarantined"])  # type: ignore[index,typeddict-item]
    state = {"said": [word], "quarantined": out}
    return cast(LabelEvent, {**event, "type": "restore", "restored": state})


def _undoes(event: LabelEvent, undone: Undoes) -> bool:
    return event["version"] > undone["after"] if "after" in undone else event["job"] == undone["job"]


def radius_of(home: Home, plan: Plan, tick: Callable[[int], None] = lambda count: None) -> BlastRadius:
    return blast.of_plan(home, plan, histories(home.log, "default"), last_version(home.log, LABELS), tick)


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
    if kind == "hold":
        return trust(signed, "a", 0, known), None
    if kind == "distrust":
        return trust(signed, "b", 25, known), None
    if kind == "release":
        everything = [label_jobs.Decided(h.decision_id, h.verdict) for h in known.values()]
        out = quarantine(label_jobs.sign(home, "quarantine", "a test"), everything, known, out=True)
        label_jobs.send(home, out.requests, lambda count: None)
        for amount in (20, 90, 400, 480):
            sdk.decide(refund(amount))
        known = histories(home.log, "default")
        return quarantine(
            signed, [label_jobs.Decided(h.decision_id, h.verdict) for h in known.values()], known, out=False
        ), None
    if kind == "undo":
        job = Counter(e["job"] for h in known.values() for e in h.events if e["job"]).most_common(1)[0][0]
        return take_back(signed, {"job": str(job)}, known), {"job": str(job)}
    undone: Undoes = {"after": max(h.last for h in known.values()) // 3}
    return take_back(signed, undone, known), undone


FLIPS: Counter[str] = Counter()


KINDS = ["relabel", "retract", "quarantine", "release", "rollback", "undo", "hold", "distrust"]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("seed", [1, 2, 3])
def test_it_is_what_a_plain_recount_finds(inside: Inside, tmp_path: Path, kind: str, seed: int) -> None:
    made = lived(inside, seed)
    home = existing_home()
    plan, undone = plans(home, kind)
    radius = radius_of(home, plan)
    expected = otherwise(home, tmp_path / "plain", plan, undone)
    assert {flip.decision_id: (flip.old, flip.new) for flip in radius.flips} == expected
    FLIPS[kind] += len(expected)
    assert len(radius.flips) <= radius.recalled_otherwise <= radius.compared <= len(made)
    assert not radius.not_comparable
    assert sum(radius.table.values()) == radius.compared


def test_the_stories_had_flips_of_every_kind() -> None:
    assert set(FLIPS) == set(KINDS)
    assert all(FLIPS.values()), FLIPS


def test_a_dry_run_shows_it_and_the_worst_come_first(inside: Inside) -> None:
    bad = inside.decide(refund(30))["decision_id"]
    sdk.label(bad, "failure")
    assert [inside.decide(refund(amount))["verdict"] for amount in (20, 45, 30)] == ["DENY"] * 3
    told = inside.json("relabel", "--query", BAD, "--label", "success", "--why", "bad import", "--json")["blast_radius"]
    assert told["flips"] == [{"from": "DENY", "to": "ALLOW", "count": 3}]
    assert [(c["old"], c["new"], c["amount"]) for c in told["changes"]] == [("DENY", "ALLOW", a) for a in (45, 30, 20)]
    shown = inside.run("relabel", "--query", BAD, "--label", "success", "--why", "bad import").stdout
    assert "DENY -> ALLOW: 3" in shown and told["changes"][0]["decision_id"] in shown


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
    here = radius_of(home, plan)
    monkeypatch.setattr(blast, "WORTH_PROCESSES", 0)
    monkeypatch.setattr(blast, "_CHUNK", 7)
    ticks: list[int] = []
    there = radius_of(home, plan, ticks.append)
    for failing in (KeyboardInterrupt, ValueError):  # whoever stops halfway is not kept waiting

        def fail(count: int, failing: type[BaseException] = failing) -> None:
            raise failing

        with pytest.raises(failing):
            radius_of(home, plan, fail)
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
    radius = radius_of(home, plan)
    assert radius.not_comparable == {UNSOUND: 1} and radius.compared > 10


def test_a_killed_process_is_an_error_and_no_waiting(inside: Inside, monkeypatch: pytest.MonkeyPatch) -> None:
    lived(inside, 1)
    home = existing_home()
    plan, _ = plans(home, "relabel")
    monkeypatch.setattr(blast, "WORTH_PROCESSES", 0)
    monkeypatch.setattr(blast, "_of_chunk", lambda blast, chunk: os.kill(os.getpid(), signal.SIGKILL))
    with pytest.raises(StorageUnavailable, match="was killed"):
        radius_of(home, plan)


def test_what_is_decided_meanwhile_is_not_compared(inside: Inside) -> None:
    """A label that comes after the labels were read must not look like an effect of the plan."""
    fine, bad = (inside.decide(refund(20))["decision_id"] for _ in range(2))
    sdk.label(fine, "failure")
    home = existing_home()
    known, until = histories(home.log, "default"), last_version(home.log, LABELS)
    sdk.label(fine, "success", actor="ann")
    sdk.label(bad, "failure")
    inside.decide(refund(20))
    said = [label_jobs.Decided(fine, "ALLOW")]
    plan = relabel(label_jobs.sign(home, "relabel", "x"), said, known, "success", None)
    radius = blast.of_plan(home, plan, known, until, lambda count: None)
    assert radius.not_comparable == {"decided since this was begun": 1} and not radius.flips


def test_relabelling_what_is_quarantined_supposes_no_other_quarantine(inside: Inside) -> None:
    bad = inside.decide(refund(20))["decision_id"]
    sdk.label(bad, "failure")
    inside.decide(refund(20))
    inside.run("memory", "quarantine", bad, "--why", "x", "--apply")
    told = inside.json("relabel", "--query", BAD, "--label", "failure", "--should", "DENY", "--why", "x", "--json")
    assert (told["changes"], told["blast_radius"]["changes"]) == ([], [])


@pytest.mark.parametrize(
    ("part", "value"),
    [
        ("request", None), ("memory.version", "x"), ("memory.settings.new_knob", 1), ("reason_codes", None),
        ("risk_signals", None), ("memory.counted", None), ("memory", 7),
    ],
)  # fmt: skip
def test_a_sealed_record_of_another_form_is_counted(inside: Inside, part: str, value: Any) -> None:
    made = lived(inside, 1)
    record = sdk.show(made[-1])["record"]
    *path, last = part.split(".")
    inner = record
    for name in path:
        inner = inner[name]
    inner[last] = value
    record["record_digest"] = record_digest(record)
    wiring.close_homes()
    with sqlite3.connect(inside.home / "lumyn.db") as database:
        database.execute("UPDATE log_records SET value = ? WHERE key = ?", (encode(record), made[-1].encode()))
    inside.run("relabel", "--query", "decision_id=" + made[0], "--label", "success", "--why", "x")
    home = existing_home()
    radius_of(home, plans(home, "rollback")[0])
    inside.run("memory", "suspects")
    inside.run("memory", "explain", made[-1], code=None)


def test_an_amount_that_can_not_be_compared_may_be_the_largest(inside: Inside) -> None:
    dollar, euro = refund(1), refund(1_000_000)
    euro["action"]["amount"]["currency"] = "EUR"
    flips = [
        Flip("a", "DENY", "ALLOW", (), (), amount_of(request), has_comparable_amount(request))
        for request in (dollar, euro)
    ]
    assert [flip.comparable for flip in sorted(flips, key=lambda flip: flip.badness)] == [False, True]


def test_what_would_have_been_let_through_is_told_with_its_amount_in_any_currency(inside: Inside) -> None:
    def in_euro(amount: int, user: str = "a") -> dict[str, Any]:
        request = refund(amount, user=user)
        request["action"]["amount"]["currency"] = "EUR"
        return request

    inside.write("policy.yml", POLICY.replace("policy: refunds", "policy: refunds\nfx: {EUR: 1.1}"))
    first = inside.decide(in_euro(300))
    inside.run("label", first["decision_id"], "--label", "failure", "--should", "DENY", "--summary", "x")
    made = {amount: inside.decide(in_euro(amount, f"u{amount}")) for amount in (299, 301, 300)}
    assert {one["verdict"] for one in made.values()} <= {"DENY", "ESCALATE"}
    command = ("relabel", "--query", f"decision_id={first['decision_id']}", "--label", "success", "--why", "x")
    changes = inside.json(*command, "--json")["blast_radius"]["changes"]
    assert [(one["value"], one["currency"]) for one in changes] == [(301, "EUR"), (300, "EUR"), (299, "EUR")]
    assert re.search(r"\| 301 EUR +\|", inside.run(*command).stdout)
