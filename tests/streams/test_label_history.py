"""Undoing a job, undoing the undo, and going back to a version: the labels are as if the events had never been."""

from __future__ import annotations

import copy
from typing import Any

from hypothesis import example, given
from hypothesis import strategies as st

from memory_service.fold import DecisionLabels, apply_event, standing
from schemas.label import LabelEvent, Undoes
from streams.label_history import histories_of

DECISION: Any = {"action_type": "refund", "verdict": "ALLOW", "rules": [], "amount": None, "facts": {}}
WORDS = st.sampled_from([("label", "failure"), ("label", "success"), ("label", "retracted"), ("settle", "success"),
                         ("quarantine", None), ("release", None), ("note", None)])  # fmt: skip
SAID = st.tuples(st.just("say"), st.sampled_from("ab"), WORDS, st.sampled_from("xy"), st.sampled_from([None, "J1", "J2"]))
UNDO = st.tuples(st.just("undo"), st.sampled_from(["J1", "J2", "U0", "U1", "U2"]))
BACK = st.tuples(st.just("back"), st.integers(0, 12))


class Labels:
    """A `labels` topic with what a store makes of it."""

    def __init__(self) -> None:
        self.events: list[LabelEvent] = []
        self.stored: dict[str, DecisionLabels] = {}
        self.undos = 0

    def append(self, name: str, **fields: Any) -> None:
        version = len(self.events) + 1
        event: Any = {
            "version": version, "event_id": f"e{version}", "decision_id": name, "tenant": "t", "label": None,
            "should": None, "summary": f"said at {version}", "actor": "x", "at": "", "job": None,
            "decision": None if fields.get("type") == "note" else DECISION, **fields,
        }  # fmt: skip
        self.events.append(event)
        if event["type"] != "note":
            apply_event(self.stored.setdefault(name, DecisionLabels("t", DECISION)), event)

    def undo(self, undone: Undoes) -> str:
        """One job that takes something back for every decision that it touches."""
        job = f"U{self.undos}"
        self.undos += 1
        for name, history in histories_of(self.events, "t").items():
            if history.touched_by(undone):
                self.append(name, type="restore", job=job, undoes=undone, restored=history.without(undone))
        return job

    def do(self, step: Any) -> None:
        if step[0] == "say":
            _, name, (kind, label), actor, job = step
            self.append(name, type=kind, label=label, actor=actor, job=job)
        elif step[0] == "undo":
            self.undo({"job": step[1]})
        else:
            self.undo({"after": step[1]})

    def state(self) -> dict[str, Any]:
        """What the stores hold of each decision about which anything is said."""
        return {
            name: copy.deepcopy((list(labels.said.items()), labels.quarantined))
            for name, labels in self.stored.items()
            if labels.said or labels.quarantined
        }

    def planned(self) -> dict[str, Any]:
        """The same by the planner's reading of the events."""
        out = {}
        for name, history in histories_of(self.events, "t").items():
            now = history.now()
            if now["said"] or now["quarantined"]:
                said = [(w["actor"], (w["label"], w["should"], w["summary"])) for w in now["said"]]
                out[name] = (said, now["quarantined"])
        return out


STEPS = st.lists(SAID | SAID | UNDO | BACK, max_size=14)


@given(STEPS)
def test_the_stores_and_the_planner_agree_after_every_step(steps):
    labels = Labels()
    for step in steps:
        labels.do(step)
        assert labels.state() == labels.planned()


@given(STEPS, STEPS)
def test_an_undone_job_leaves_what_would_be_there_without_it(before, after):
    """`after` says and undoes whatever it likes, but no more of the job itself."""
    with_job, without = Labels(), Labels()
    for step in [*before, ("say", "a", ("label", "failure"), "x", "JOB"), ("say", "b", ("quarantine", None), "y", "JOB"),
                 *[s for s in after if s[0] == "say"]]:  # fmt: skip
        with_job.do(step)
        if step[0] != "say" or step[4] != "JOB":
            without.do(step)
    with_job.undo({"job": "JOB"})
    strip = [(name, [(actor, word[:2]) for actor, word in said], out) for name, (said, out) in with_job.state().items()]
    same = [(name, [(actor, word[:2]) for actor, word in said], out) for name, (said, out) in without.state().items()]
    assert sorted(strip) == sorted(same)


@given(STEPS, st.sampled_from([{"job": "J1"}, {"job": "U0"}, {"after": 0}, {"after": 3}]))
def test_undoing_an_undo_brings_everything_back(steps, undone):
    labels = Labels()
    for step in steps:
        labels.do(step)
    before = labels.state()
    job = labels.undo(undone)
    labels.undo({"job": job})
    assert labels.state() == before


@given(STEPS, st.integers(0, 14))
def test_going_back_to_a_version_gives_the_labels_of_that_version(steps, version):
    labels, states = Labels(), [{}]
    for step in steps:
        done = len(labels.events)
        labels.do(step)
        states += [labels.state()] * (len(labels.events) - done)
    target = min(version, len(labels.events))
    versions_whole = _state_at(labels, target)
    labels.undo({"after": target})
    assert labels.state() == versions_whole


def _state_at(labels: Labels, version: int) -> dict[str, Any]:
    then = Labels()
    for event in labels.events[:version]:
        then.events.append(event)
        if event["type"] != "note":
            apply_event(then.stored.setdefault(event["decision_id"], DecisionLabels("t", DECISION)), event)
    return then.state()


def test_labels_given_after_the_job_stay_when_it_is_undone():
    labels = Labels()
    labels.append("a", type="label", label="success", actor="ann")
    labels.append("a", type="label", label="failure", actor="script", job="J")
    labels.append("a", type="label", label="failure", actor="bob")
    labels.undo({"job": "J"})
    stands = standing(labels.stored["a"])
    assert stands is not None and stands.contested and list(labels.stored["a"].said) == ["ann", "bob"]


def test_other_tenants_and_notes_are_not_read():
    labels = Labels()
    labels.append("a", type="label", label="failure")
    labels.append("a", type="note")
    labels.append("b", type="label", label="failure", tenant="other")
    (history,) = histories_of(labels.events, "t").values()
    assert (history.decision_id, history.last, len(history.events)) == ("a", 1, 1)


@example(
    [("say", "a", ("label", "failure"), "x", "J1"), ("say", "a", ("label", "success"), "y", "J2"), ("undo", "J1")],
    {"job": "J2"},
)
@given(STEPS, st.sampled_from([{"job": "J1"}, {"job": "J2"}, {"job": "U0"}, {"after": 0}, {"after": 4}]))
def test_the_past_without_something_ends_where_its_undo_would(steps, undone):
    """Taken event by event, as a store takes them; also where an undo that stays had brought back what was not said."""
    labels = Labels()
    for step in steps:
        labels.do(step)
    for history in histories_of(labels.events, "t").values():
        then = DecisionLabels("t", DECISION)
        for event in history.had_not_been(undone):
            apply_event(then, event)
        left = history.without(undone)
        said = [(word["actor"], (word["label"], word["should"], word["summary"])) for word in left["said"]]
        assert (list(then.said.items()), then.quarantined) == (said, left["quarantined"])
