"""Undoing a job, undoing the undo, and going back to a version: the labels are as if the events had never been."""

from __future__ import annotations

import copy
from typing import Any

from hypothesis import example, given
from hypothesis import strategies as st

from memory_service.fold import DecisionLabels, apply_event, standing
from schemas.ids import iso_time
from schemas.label import LabelEvent, Undoes, trust_of
from streams.label_history import histories_of, touches, trust_left

DECISION: Any = {"action_type": "refund", "verdict": "ALLOW", "rules": [], "amount": None, "facts": {}}
WORDS = st.sampled_from([("label", "failure"), ("label", "success"), ("label", "retracted"), ("settle", "success"),
                         ("quarantine", None), ("release", None), ("note", None)])  # fmt: skip
SAID = st.tuples(st.just("say"), st.sampled_from("ab"), WORDS, st.sampled_from("xy"), st.sampled_from([None, "J1", "J2"]))
TRUST = st.tuples(st.just("trust"), st.sampled_from("xy"), st.sampled_from([0, 0.5, 1]), st.sampled_from([None, "J1", "J2"]))
UNDO = st.tuples(st.just("undo"), st.sampled_from(["J1", "J2", "U0", "U1", "U2"]))
BACK = st.tuples(st.just("back"), st.integers(0, 12))


class Labels:
    """A `labels` topic with what a store makes of it."""

    def __init__(self) -> None:
        self.events: list[LabelEvent] = []
        self.stored: dict[str, DecisionLabels] = {}
        self.trust: dict[str, int] = {}
        self.undos = 0

    def append(self, name: str, **fields: Any) -> None:
        version = len(self.events) + 1
        event: Any = {
            "version": version, "event_id": f"e{version}", "decision_id": name, "tenant": "t", "label": None,
            "should": None, "summary": f"said at {version}", "actor": "x", "at": iso_time(version), "job": None,
            "decision": None if fields.get("type") in ("note", "trust") else DECISION, **fields,
        }  # fmt: skip
        self.take(event)

    def take(self, event: Any) -> None:
        self.events.append(event)
        if event["type"] == "trust":
            self.trust[event["labeller"]] = round(event["trust"] * 100)
            for labels in self.stored.values():
                apply_event(labels, event)
        elif event["type"] != "note":
            trust = {name: trust for name, trust in self.trust.items() if trust != 100}
            apply_event(self.stored.setdefault(event["decision_id"], DecisionLabels("t", DECISION, trust=trust)), event)

    def undo(self, undone: Undoes) -> str:
        """One job that takes something back for every decision that it touches."""
        job = f"U{self.undos}"
        self.undos += 1
        known = histories_of(self.events, "t")
        for labeller, events in known.trusts.items():
            if touches(events, undone):
                left = known.trusts.without(labeller, undone) / 100
                self.append("", type="trust", labeller=labeller, job=job, undoes=undone, trust=left)
        for name, history in known.items():
            if history.touched_by(undone):
                self.append(name, type="restore", job=job, undoes=undone, restored=history.without(undone))
        return job

    def do(self, step: Any) -> None:
        if step[0] == "say":
            _, name, (kind, label), actor, job = step
            self.append(name, type=kind, label=label, actor=actor, job=job)
        elif step[0] == "trust":
            _, labeller, trust, job = step
            self.append("", type="trust", labeller=labeller, trust=trust, job=job)
        elif step[0] == "undo":
            self.undo({"job": step[1]})
        else:
            self.undo({"after": step[1]})

    def state(self) -> dict[str, Any]:
        """What the stores hold of each decision about which anything is said."""
        return {
            name: copy.deepcopy((labels.said, labels.outs, labels.trust, standing(labels)))
            for name, labels in self.stored.items()
            if labels.said or labels.outs
        }

    def planned(self) -> dict[str, Any]:
        """The same by the planner's reading of the events."""
        out = {}
        for name, history in histories_of(self.events, "t").items():
            now = history.labels()
            if now.said or now.outs:
                out[name] = (now.said, now.outs, now.trust, history.standing())
        return out


STEPS = st.lists(SAID | SAID | SAID | TRUST | UNDO | BACK, max_size=16)


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
    job = (("say", "a", ("label", "failure"), "x", "JOB"), ("say", "b", ("quarantine", None), "y", "JOB"),
           ("say", "a", ("settle", "success"), "y", "JOB"), ("trust", "x", 0, "JOB"))  # fmt: skip
    for step in [*before, *job, *[s for s in after if s[0] in ("say", "trust")]]:
        with_job.do(step)
        if step not in job:
            without.do(step)
    with_job.undo({"job": "JOB"})
    assert _but_for_times(with_job) == _but_for_times(without)


def _but_for_times(labels: Labels) -> dict[str, Any]:
    return {
        name: ([(w.actor, w.label, w.settles) for w in said], outs, trust, stands and (stands.label, stands.meaning))
        for name, (said, outs, trust, stands) in labels.state().items()
    }


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
        then.take(event)
    return then.state()


def test_labels_given_after_the_job_stay_when_it_is_undone():
    labels = Labels()
    labels.append("a", type="label", label="success", actor="ann")
    labels.append("a", type="label", label="failure", actor="script", job="J")
    labels.append("a", type="label", label="failure", actor="bob")
    labels.undo({"job": "J"})
    stands = standing(labels.stored["a"])
    assert stands is not None and stands.contested
    assert [word.actor for word in labels.stored["a"].said] == ["ann", "bob"]


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
        assert {**then.restored(), "quarantined": None} == {**history.without(undone), "quarantined": None}


@given(STEPS, st.sampled_from([{"job": "J1"}, {"job": "J2"}, {"job": "U0"}, {"after": 0}, {"after": 4}]))
def test_the_past_trust_without_something_ends_where_its_undo_would(steps, undone):
    labels = Labels()
    for step in steps:
        labels.do(step)
    trusts = histories_of(labels.events, "t").trusts
    for labeller, events in trusts.items():
        left = trusts.had_not_been(labeller, undone)
        assert trusts.without(labeller, undone) == (trust_of(left[-1]) if left else 100)
        assert trust_left(events, []) == trust_of(events[-1]), "an undo says itself what is left"


# who is held said nothing


@given(STEPS)
def test_a_held_labeller_leaves_no_trace(steps):
    """Held at first, at last or in between: what counts is what the others said."""
    labels, others = Labels(), Labels()
    plain = [step for step in steps if step[0] == "say"]
    for step in plain:
        labels.do(step)
        if step[3] != "x":
            others.do(step)
    labels.do(("trust", "x", 0, None))
    assert _stands(labels) == _stands(others)
    early = Labels()
    for step in [("trust", "x", 0, None), *plain]:
        early.do(step)
    assert _stands(early) == _stands(labels)
    for trust in (0.5, 1):
        labels.do(("trust", "x", trust, None))
    released = Labels()
    for step in plain:
        released.do(step)
    assert _stands(labels) == _stands(released)


def _stands(labels: Labels) -> dict[str, Any]:
    found = {name: standing(one) for name, one in labels.stored.items()}
    return {name: (s.label, s.meaning, s.contested, s.labeller, s.trust) for name, s in found.items() if s is not None}


@given(STEPS, st.sampled_from([0.05, 0.5]))
def test_less_trust_takes_no_harm_out_of_the_memory(steps, trust):
    """Short of being held, a labeller who is trusted less hides no harm that others spoke of, nor his own."""
    labels = Labels()
    for step in [s for s in steps if s[0] == "say"]:
        labels.do(step)
    before = {name for name, one in _stands(labels).items() if one[1] == "harmful"}
    labels.do(("trust", "x", trust, None))
    assert before <= {name for name, one in _stands(labels).items() if one[1] == "harmful"}


def test_a_settlement_by_one_who_is_held_later_does_not_hide_what_it_replaced():
    labels = Labels()
    labels.append("a", type="label", label="failure", actor="ann")
    labels.append("a", type="settle", label="success", actor="bot")
    assert standing(labels.stored["a"]).meaning == "fine"
    labels.do(("trust", "bot", 0.5, None))
    assert (standing(labels.stored["a"]).meaning, standing(labels.stored["a"]).contested) == ("harmful", True)
    labels.do(("trust", "bot", 0, None))
    stands = standing(labels.stored["a"])
    assert (stands.meaning, stands.labeller, stands.contested) == ("harmful", "ann", False)
    labels.do(("trust", "bot", 1, None))
    assert standing(labels.stored["a"]).meaning == "fine"


def test_trust_and_time_are_of_the_most_trusted_who_says_so():
    labels = Labels()
    labels.append("a", type="label", label="success", actor="ann")
    labels.append("a", type="label", label="success", actor="bot")
    assert (standing(labels.stored["a"]).trust, standing(labels.stored["a"]).at) == (100, iso_time(2))
    labels.do(("trust", "bot", 0.2, None))
    stands = standing(labels.stored["a"])
    assert (stands.trust, stands.at, stands.labeller) == (100, iso_time(1), "bot"), "a repeat makes it neither worse nor new"
