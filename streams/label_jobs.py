"""Jobs: many labels as one change of the memory, planned as a whole before anything is said, and taken back as a whole.

A plan is a list of label requests whose event ids are the job's and the decision's. Sending it twice, or the rest of it
after a kill, is the same as sending it once.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import cast

from memory_service.fold import Standing
from memory_service.timeline import Stand, stands
from schemas.errors import BadInput, LumynError
from schemas.label import LabelEvent, LabelName, LabelRequest, Restored, Should, Undoes, check_label
from schemas.verdict import Verdict
from streams.label_history import History, folded, standing_of


@dataclass(frozen=True, slots=True)
class Step:
    """What a job says of one decision, and what the decision stands for before and after; None: not in memory."""

    request: LabelRequest
    before: Standing | None
    after: Standing | None

    @property
    def changes(self) -> bool:
        """Whether the memory differs after it."""
        return self.before != self.after


@dataclass(frozen=True, slots=True)
class Plan:
    """A job as a whole; `refused` are the decisions that it can't say this of, with the reason."""

    job: str
    steps: tuple[Step, ...]
    refused: tuple[tuple[str, LumynError], ...] = ()

    @property
    def changes(self) -> list[Step]:
        """The steps after which the memory differs."""
        return [step for step in self.steps if step.changes]


@dataclass(frozen=True, slots=True)
class Decided:
    """A decision that a job may speak of: one that was never labelled has no history."""

    decision_id: str
    verdict: Verdict


@dataclass(frozen=True, slots=True)
class Signed:
    """Who does a job, under which name, why, for which tenant."""

    job: str
    why: str
    actor: str
    tenant: str


def relabel(
    signed: Signed, decisions: Iterable[Decided], known: Mapping[str, History], label: LabelName, should: Should | None
) -> Plan:
    """Say of all decisions what really happened, as the last word over all labellers."""

    def say(one: Decided, history: History | None) -> LabelRequest | None:
        said = history.now()["said"] if history is not None else []
        if [(word["label"], word["should"]) for word in said] == [(label, should)]:
            return None  # this alone is said of it already
        return _request(signed, one.decision_id, {"type": "settle", "label": label, "should": should})

    return _plan(signed, decisions, known, say)


def quarantine(signed: Signed, decisions: Iterable[Decided], known: Mapping[str, History], *, out: bool) -> Plan:
    """Take labelled decisions out of recall (`out`), or let them back in; what was said of them stays."""

    def say(one: Decided, history: History | None) -> LabelRequest | None:
        if history is None or history.now()["quarantined"] is out:
            return None
        return _request(signed, one.decision_id, {"type": "quarantine" if out else "release"})

    return _plan(signed, decisions, known, say)


def take_back(signed: Signed, undone: Undoes, known: Mapping[str, History]) -> Plan:
    """Bring every decision back to what would be said of it without a job, or without all after a version.

    Also where that changes nothing now: what hides the difference may be undone later.
    """

    def say(one: Decided, history: History | None) -> LabelRequest:
        assert history is not None
        restored, last = history.without(undone), history.last
        more = {"type": "restore", "undoes": undone, "restored": restored, "expects": last}
        return _request(signed, one.decision_id, more)

    touched = [Decided(h.decision_id, h.verdict) for h in known.values() if h.touched_by(undone)]
    return _plan(signed, touched, known, say)


def spoken_of_by(labeller: str, known: Mapping[str, History]) -> list[Decided]:
    """The decisions on which a labeller's word counts."""
    return [
        Decided(history.decision_id, history.verdict)
        for history in known.values()
        if any(word["actor"] == labeller for word in history.now()["said"])
    ]


def supposed(plan: Plan, known: Mapping[str, History]) -> dict[str, list[Stand]]:
    """What the decisions of a plan would have stood for had it been so from the first label on.

    Those that nothing was said of are not among them: no past decision can have met them.
    """
    out: dict[str, list[Stand]] = {}
    for step in plan.steps:
        name = step.request["decision_id"]
        history = known.get(name)
        if history is None:
            continue
        out[name] = list(stands(_would_have_been(step.request, history)))
    return out


def _would_have_been(request: LabelRequest, history: History) -> list[LabelEvent]:
    undone = request.get("undoes")
    if undone is not None:
        return history.had_not_been(undone)
    if request["type"] == "quarantine":
        return []
    if request["type"] == "release":
        return history.had_not_been_quarantined()
    return history.had_been_said(cast(LabelEvent, {"label": None, "should": None, **request}))


def _request(signed: Signed, decision_id: str, more: Mapping[str, object]) -> LabelRequest:
    return cast(
        LabelRequest,
        {
            "event_id": f"{signed.job}/{decision_id}", "decision_id": decision_id, "tenant": signed.tenant,
            "summary": signed.why, "actor": signed.actor, "job": signed.job, **more,
        },
    )  # fmt: skip


def _plan(
    signed: Signed,
    decisions: Iterable[Decided],
    known: Mapping[str, History],
    say: Callable[[Decided, History | None], LabelRequest | None],
) -> Plan:
    steps: list[Step] = []
    refused: list[tuple[str, LumynError]] = []
    for one in sorted(decisions, key=lambda decided: decided.decision_id):
        history = known.get(one.decision_id)
        request = say(one, history)
        if request is None:
            continue
        try:
            check_label(request, one.verdict)
        except BadInput as error:
            refused.append((one.decision_id, error))
            continue
        before = history.standing() if history is not None else None
        steps.append(Step(request, before, standing_of(one.verdict, _after(one, history, request))))
    return Plan(signed.job, tuple(steps), tuple(refused))


def _after(one: Decided, history: History | None, request: LabelRequest) -> Restored:
    event = cast(LabelEvent, {"version": 0, "should": None, "label": None, **request})
    return folded(one.verdict, [*(history.counting() if history is not None else []), event])

