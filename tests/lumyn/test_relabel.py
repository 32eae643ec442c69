"""Bulk changes of the memory: shown first, done as one job, resumed after a kill, and taken back as a whole."""

from __future__ import annotations

import json
from typing import Any

import pytest
from conftest_e2e import refund
from inside import Inside

from lumyn import label_jobs, sdk
from schemas.errors import StorageUnavailable

pytest_plugins = ("inside_plugin",)

BAD = "label=failure AND action_type=refund"


def decided(inside: Inside, *labels: str | None, actor: str = "import-bot") -> list[str]:
    """Decisions, and then a label for each or none, by one labeller."""
    names = [inside.decide(refund(20 + number))["decision_id"] for number in range(len(labels))]
    for name, label in zip(names, labels, strict=True):
        if label is not None:
            sdk.label(name, label, summary="imported", actor=actor)
    return names


def memory(inside: Inside) -> dict[str, str]:
    """Each remembered decision's meaning, and whether it is contested."""
    from lumyn.wiring import existing_home

    points = existing_home().memory.store().points("default")
    return {p.memory_id: p.meaning + (" contested" if p.contested else "") for p in points}


def relabel(inside: Inside, *more: object, label: str = "success", query: str = BAD, code: int = 0) -> dict[str, Any]:
    return dict(inside.json("relabel", "--query", query, "--label", label, "--why", "bad import", *more, "--json",
                            code=code))  # fmt: skip


def test_a_dry_run_shows_what_would_change_and_changes_nothing(inside: Inside) -> None:
    one, two, *_ = decided(inside, "failure", "failure", "success", None)
    before = memory(inside)
    told = relabel(inside)
    assert (told["applied"], told["memories"]) == (False, 2)
    assert told["changes"] == [{"from": "harmful", "to": "fine", "count": 2}]
    assert [d["decision_id"] for d in told["decisions"]] == sorted([one, two])
    done = inside.run("relabel", "--query", BAD, "--label", "success", "--why", "bad import")
    assert "harmful -> fine: 2" in done.stdout and "`--apply` does it" in done.stderr
    assert memory(inside) == before and not (inside.home / "jobs").exists()


def test_applied_it_changes_what_is_decided_next_and_undone_it_is_as_before(inside: Inside) -> None:
    """The worked example: a wrong import blocks, is relabelled, and the relabelling is taken back."""
    decided(inside, "failure", "failure")
    assert inside.decide(refund(20))["verdict"] == "DENY"
    before = memory(inside)
    told = relabel(inside, "--apply")
    assert told["accepted"] == 2 and told["refused"] == []
    assert set(memory(inside).values()) == {"fine"}
    assert inside.decide(refund(20))["verdict"] == "ALLOW"
    assert inside.json("list", "--query", BAD, "--json") == []
    inside.run("relabel", "--undo", told["job"])
    assert memory(inside) == before
    assert inside.decide(refund(20))["verdict"] == "DENY"
    assert len(inside.json("list", "--query", BAD, "--json")) == 2
    for check in (("verify",), ("memory", "verify"), ("memory", "rebuild"), ("memory", "verify")):
        inside.run(*check)
    assert memory(inside) == before


def test_an_undo_can_be_undone(inside: Inside) -> None:
    decided(inside, "failure", "failure")
    job = relabel(inside, "--apply")["job"]
    after = memory(inside)
    undo = inside.json("relabel", "--undo", job, "--json")["job"]
    inside.run("relabel", "--undo", undo)
    assert memory(inside) == after
    done = inside.run("relabel", "--undo", undo)
    assert "0 memories would change" in done.stderr, "it is undone already"


def test_what_others_said_after_a_job_stays_when_it_is_undone(inside: Inside) -> None:
    (one, two) = decided(inside, "failure", "failure")
    job = relabel(inside, "--apply")["job"]
    sdk.label(one, "success", summary="seen with my own eyes", actor="ann")
    inside.run("relabel", "--undo", job)
    assert memory(inside) == {one: "harmful contested", two: "harmful"}


def test_it_is_the_last_word_over_labellers_who_disagree(inside: Inside) -> None:
    (one,) = decided(inside, "failure")
    sdk.label(one, "success", actor="ann")
    assert memory(inside) == {one: "harmful contested"}
    assert relabel(inside, query=f"decision_id={one}")["changes"] == [
        {"from": "harmful (contested)", "to": "fine", "count": 1}
    ]
    relabel(inside, "--apply", query=f"decision_id={one}")
    assert memory(inside) == {one: "fine"}


def test_what_can_not_be_said_of_a_decision_is_told_and_left_out(inside: Inside) -> None:
    names = decided(inside, "failure", "failure")
    names.append(inside.decide(refund(300))["decision_id"])  # ESCALATE
    told = relabel(inside, "--should", "ALLOW", label="success", query="action_type=refund")
    assert [d["decision_id"] for d in told["decisions"]] == sorted(names[:2])
    assert told["refused"][0]["decision_id"] == names[2]
    assert "ESCALATE" in told["refused"][0]["error"]["message"]


def test_doing_it_twice_says_nothing_the_second_time(inside: Inside) -> None:
    decided(inside, "failure")
    relabel(inside, "--apply", query="action_type=refund")
    told = relabel(inside, "--apply", query="action_type=refund")
    assert told["memories"] == 0 and told["job"] is None


def test_a_job_that_was_broken_off_is_resumed_as_it_was_planned(inside: Inside, monkeypatch: Any) -> None:
    names = decided(inside, *["failure"] * 7)
    monkeypatch.setattr(label_jobs, "_AT_ONCE", 3)
    from lumyn.wiring import existing_home

    home, calls = existing_home(), []
    label = type(home.labels).label

    def breaks(self: Any, requests: Any) -> Any:
        calls.append(len(requests))
        if len(calls) == 2:
            raise StorageUnavailable("the disk is gone")
        return label(self, requests)

    monkeypatch.setattr(type(home.labels), "label", breaks)
    done = inside.run("relabel", "--query", BAD, "--label", "success", "--why", "bad import", "--apply", code=4)
    job = done.stderr.split("job ")[1].split(":")[0]
    assert sum(meaning == "fine" for meaning in memory(inside).values()) == 3
    monkeypatch.setattr(type(home.labels), "label", label)
    assert len(inside.json("list", "--query", BAD, "--json")) == 4, "the query finds fewer now; the plan is the old one"
    told = inside.json("relabel", "--resume", job, "--json")
    assert told["accepted"] == 7
    assert memory(inside) == dict.fromkeys(names, "fine")
    events = [event for name in names for event in home.events(name) if event["job"] == job]
    assert len(events) == 7, "exactly once"
    inside.run("relabel", "--undo", job)
    assert set(memory(inside).values()) == {"harmful"}


def test_two_jobs_at_once_are_taken_back_one_by_one(inside: Inside) -> None:
    (one,) = decided(inside, "failure")
    first = relabel(inside, "--apply")["job"]
    second = relabel(inside, "--apply", label="retracted", query=f"decision_id={one}")["job"]
    assert memory(inside) == {}
    inside.run("relabel", "--undo", first)
    assert memory(inside) == {}
    inside.run("relabel", "--undo", second)
    assert memory(inside) == {one: "harmful"}


def test_a_label_that_comes_between_planning_and_undoing_is_not_wiped_out(inside: Inside, monkeypatch: Any) -> None:
    one, two = decided(inside, "failure", "failure")
    job = relabel(inside, "--apply")["job"]
    send = label_jobs.send

    def with_a_label_before(*arguments: Any) -> Any:
        sdk.label(one, "success", summary="just now", actor="ann")
        return send(*arguments)

    monkeypatch.setattr(label_jobs, "send", with_a_label_before)
    done = inside.run("relabel", "--undo", job, code=2)
    assert "was labelled meanwhile" in done.stderr and "1 labels accepted, 1 refused" in done.stdout
    monkeypatch.setattr(label_jobs, "send", send)
    inside.run("relabel", "--undo", job)
    assert memory(inside) == {one: "harmful contested", two: "harmful"}


@pytest.mark.parametrize("how", ["id", "labeller", "query"])
def test_quarantine_takes_out_of_recall_and_release_lets_back_in(inside: Inside, how: str) -> None:
    other = inside.decide(refund(30))["decision_id"]
    one, two = decided(inside, "failure", "failure")
    sdk.label(other, "success", actor="ann")
    which = {"id": [one, two], "labeller": ["--labeller", "import-bot"], "query": ["--query", BAD]}[how]
    before = memory(inside)
    told = inside.json("memory", "quarantine", *which, "--why", "looks poisoned", "--json")
    assert told["changes"] == [{"from": "harmful", "to": "not in memory", "count": 2}]
    assert memory(inside) == before
    job = inside.json("memory", "quarantine", *which, "--why", "looks poisoned", "--apply", "--json")["job"]
    assert memory(inside) == {other: "fine"}
    assert inside.decide(refund(20))["verdict"] == "ALLOW"
    assert len(inside.json("list", "--query", BAD, "--json")) == 2, "the labels themselves stay"
    inside.run("memory", "release", *which, "--why", "it was right", "--apply")
    assert memory(inside) == before
    inside.run("memory", "quarantine", *which, "--why", "no", "--apply")
    inside.run("memory", "quarantine", "--undo", job)
    assert memory(inside) == {other: "fine"}, "the second quarantine stands"


def test_a_rollback_gives_the_memory_of_a_version_and_can_be_undone(inside: Inside) -> None:
    names = decided(inside, "failure", "success", "failure")
    states = {3: memory(inside)}
    decided(inside, "failure", "failure")
    sdk.label(names[0], "retracted")
    relabel(inside, "--apply", label="failure", query=f"decision_id={names[1]}")
    late = memory(inside)
    told = inside.json("memory", "rollback", "--to", 3, "--why", "before the bad import", "--json")
    assert told["memories"] == 4
    assert memory(inside) == late
    job = inside.json("memory", "rollback", "--to", 3, "--why", "before the bad import", "--apply", "--json")["job"]
    assert memory(inside) == states[3]
    inside.run("memory", "rebuild")
    assert memory(inside) == states[3]
    inside.run("memory", "rollback", "--undo", job)
    assert memory(inside) == late
    inside.run("memory", "verify")


def test_another_tenants_memories_are_never_touched(inside: Inside, monkeypatch: pytest.MonkeyPatch) -> None:
    decided(inside, "failure")
    job = relabel(inside, "--apply")["job"]
    mine = memory(inside)
    monkeypatch.setenv("LUMYN_TENANT", "globex")
    assert "no label of this tenant is of a job" in inside.refused("relabel", "--undo", job, code=2)
    assert relabel(inside, query="action_type=refund")["memories"] == 0
    assert inside.json("memory", "rollback", "--to", 0, "--why", "x", "--json")["memories"] == 0
    assert inside.json("memory", "quarantine", "--labeller", "import-bot", "--why", "x", "--json")["memories"] == 0
    monkeypatch.delenv("LUMYN_TENANT")
    assert memory(inside) == mine


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("relabel", "--query", BAD, "--label", "success"), "a job needs"),
        (("relabel", "--query", BAD, "--label", "wrong", "--why", "x"), "unknown label `wrong`"),
        (("relabel", "--query", BAD, "--label", "success", "--why", " "), "`--why` is empty"),
        (("relabel", "--query", "lable=failure", "--label", "success", "--why", "x"), "lable"),
        (("relabel", "--query", BAD, "--label", "success", "--should", "NO", "--why", "x"), "unknown verdict `NO`"),
        (("relabel", "--undo", "relabel-000000000000"), "no label of this tenant is of a job"),
        (("relabel", "--resume", "relabel-000000000000"), "no job `relabel-000000000000` was begun"),
        (("relabel", "--resume", "../../etc/passwd"), "is no job"),
        (("memory", "quarantine", "--why", "x"), "say which"),
        (("memory", "quarantine", "--labeller", "a", "--query", BAD, "--why", "x"), "say which"),
        (("memory", "rollback", "--to", "99", "--why", "x"), "can't go back to 99"),
        (("memory", "rollback", "--why", "x"), "needs `--to` and `--why`"),
    ],
)
def test_what_is_wrong_is_said(inside: Inside, arguments: tuple[str, ...], said: str) -> None:
    decided(inside, "failure")
    assert said in inside.refused(*arguments, code=2)


def test_a_decision_that_was_never_labelled_can_not_be_quarantined(inside: Inside) -> None:
    (name,) = decided(inside, None)
    said = inside.refused("memory", "quarantine", name, "--why", "x", code=2)
    assert "was never labelled" in said


def test_every_event_of_a_job_names_it_and_says_why(inside: Inside) -> None:
    (name,) = decided(inside, "failure")
    job = relabel(inside, "--apply")["job"]
    inside.run("relabel", "--undo", job, "--why", "it was right after all")
    events = sdk.show(name)["events"]
    assert [(e["type"], e["job"] == job, e["summary"]) for e in events] == [
        ("label", False, "imported"), ("settle", True, "bad import"), ("restore", False, "it was right after all"),
    ]  # fmt: skip
    assert events[2]["undoes"] == {"job": job} and events[2]["label"] == "failure"
    assert "it was right after all" in inside.run("show", name).stdout
    assert json.dumps(events[2]["restored"]["said"][0]["summary"]) == '"imported"'
