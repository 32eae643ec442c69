"""Jobs: many labels as one change of the memory, planned as a whole before anything is said, and taken back as a whole.

A plan is a list of label requests whose event ids are the job's and the decision's. Sending it twice, or the rest of it
after a kill, is the same as sending it once.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import cast

from memory_service.fold import Standing
from memory_service.timeline import Stand, stands, with_trust
from schemas.errors import BadInput, LumynError
from schemas.label import (
    FULL_TRUST,
    LabelEvent,
    LabelName,
    LabelRequest,
    Restored,
    Should,
    Undoes,
    speaks_of_labeller,
    trust_of,
)
from schemas.label_check import check_label, check_label_form
from schemas.verdict import Verdict
from streams.label_history import Histories, History, folded, standing_of, touches


@dataclass(frozen=True, slots=True)
class Changed:
    """A decision that a job speaks of or reaches, and what it stands for before and after; None: not in memory."""

    decision_id: str
    before: Standing | None
    after: Standing | None

    @property
    def differs(self) -> bool:
        """Whether the memory differs after it, but for when it was said."""
        before, after = (None if one is None else replace(one, at="") for one in (self.before, self.after))
        return before != after


@dataclass(frozen=True, slots=True)
class Plan:
    """A job as a whole: what it says, and of which decisions the memory may differ after it.

    `refused` are the decisions that it can't say this of, with the reason.
    """

    job: str
    requests: tuple[LabelRequest, ...]
    reached: tuple[Changed, ...]
    refused: tuple[tuple[str, LumynError], ...] = ()

    @property
    def changes(self) -> list[Changed]:
        """The decisions that the memory differs in after it."""
        return [one for one in self.reached if one.differs]

    @property
    def trusts(self) -> list[LabelRequest]:
        """What it says of labellers."""
        return [request for request in self.requests if speaks_of_labeller(request)]


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
    signed: Signed, decisions: Iterable[Decided], known: Histories, label: LabelName, should: Should | None
) -> Plan:
    """Say of all decisions what really happened, as the last word over all labellers."""

    def say(one: Decided, history: History | None) -> LabelRequest | None:
        said = history.words() if history is not None else []
        if [(word.label, word.should) for word in said] == [(label, should)]:
            return None  # this alone is said of it already
        return _request(signed, one.decision_id, {"type": "settle", "label": label, "should": should})

    return _plan(signed, decisions, known, say)


def quarantine(signed: Signed, decisions: Iterable[Decided], known: Histories, *, out: bool) -> Plan:
    """Take labelled decisions out of recall (`out`), or let them back in; what was said of them stays."""

    def say(one: Decided, history: History | None) -> LabelRequest | None:
        if history is None or history.labels().quarantined is out:
            return None
        return _request(signed, one.decision_id, {"type": "quarantine" if out else "release"})

    return _plan(signed, decisions, known, say)


def trust(signed: Signed, labeller: str, much: int, known: Histories) -> Plan:
    """Trust a labeller so much, in hundredths, in what he said and will say; 0 holds it. Raises `BadInput`."""
    if known.trusts.now().get(labeller, FULL_TRUST) == much:
        return Plan(signed.job, (), ())
    request = _of_labeller(signed, labeller, 0, {"trust": much / FULL_TRUST})
    check_label_form(request)
    return _plan(signed, (), known, lambda one, history: None, [request])


def release_labeller(signed: Signed, labeller: str, known: Histories) -> Plan:
    """Trust a held labeller as before he was held. One who is not held: let back in what he spoke of and was taken out
    decision by decision."""
    if known.trusts.now().get(labeller) == 0:
        return trust(signed, labeller, known.trusts.before_held(labeller), known)
    return quarantine(signed, spoken_of_by(labeller, known), known, out=False)


def take_back(signed: Signed, undone: Undoes, known: Histories) -> Plan:
    """Bring every decision, and the trust in every labeller, back to what it would be without a job, or without all
    after a version.

    Also where that changes nothing now: what hides the difference may be undone later.
    """

    def say(one: Decided, history: History | None) -> LabelRequest:
        assert history is not None
        restored, last = history.without(undone), history.last
        more = {"type": "restore", "undoes": undone, "restored": restored, "expects": last}
        return _request(signed, one.decision_id, more)

    touched = [Decided(h.decision_id, h.verdict) for h in known.values() if h.touched_by(undone)]
    labellers = sorted(name for name, events in known.trusts.items() if touches(events, undone))
    trusts = []
    for number, name in enumerate(labellers):
        left, last = known.trusts.without(name, undone), known.trusts[name][-1]["version"]
        more = {"trust": left / FULL_TRUST, "undoes": undone, "expects": last}
        trusts.append(_of_labeller(signed, name, number, more))
    return _plan(signed, touched, known, say, trusts)


def spoken_of_by(labeller: str, known: Mapping[str, History]) -> list[Decided]:
    """The decisions on which a labeller's word counts."""
    return [
        Decided(history.decision_id, history.verdict)
        for history in known.values()
        if any(word.actor == labeller for word in history.words())
    ]


def supposed(plan: Plan, known: Histories) -> dict[str, list[Stand]]:
    """What the decisions of a plan would have stood for had it been so from the first label on.

    Those that nothing was said of are not among them: no past decision can have met them.
    """
    own = {request["decision_id"]: request for request in plan.requests if not speaks_of_labeller(request)}
    trusts = {(event["tenant"], name): events for name, events in known.trusts.items() for event in events[:1]}
    for request in plan.trusts:
        trusts[request["tenant"], str(request.get("labeller"))] = _would_have_been_trusted(request, known)
    labellers = {str(request.get("labeller")) for request in plan.trusts}
    out: dict[str, list[Stand]] = {}
    for name, history in known.items():
        if name in own:
            events = _would_have_been(own[name], history)
        elif labellers & history.speakers():
            events = history.events
        else:
            continue
        out[name] = list(stands(with_trust(events, trusts)))
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


def _would_have_been_trusted(request: LabelRequest, known: Histories) -> list[LabelEvent]:
    undone = request.get("undoes")
    if undone is not None:
        return known.trusts.had_not_been(str(request.get("labeller")), undone)
    return [cast(LabelEvent, {**request, "version": 0, "decision": None})]


def _request(signed: Signed, decision_id: str, more: Mapping[str, object]) -> LabelRequest:
    return cast(
        LabelRequest,
        {
            "event_id": f"{signed.job}/{decision_id}", "decision_id": decision_id, "tenant": signed.tenant,
            "summary": signed.why, "actor": signed.actor, "job": signed.job, **more,
        },
    )  # fmt: skip


def _of_labeller(signed: Signed, labeller: str, number: int, more: Mapping[str, object]) -> LabelRequest:
    """`number`: which of the job's labellers he is."""
    request = _request(signed, "", {"type": "trust", "labeller": labeller, **more})
    return {**request, "event_id": f"{signed.job}/labeller-{number}"}


def _plan(
    signed: Signed,
    decisions: Iterable[Decided],
    known: Histories,
    say: Callable[[Decided, History | None], LabelRequest | None],
    trusts: Sequence[LabelRequest] = (),
) -> Plan:
    requests: dict[str, LabelRequest] = {}
    verdicts: dict[str, Verdict] = {}
    refused: list[tuple[str, LumynError]] = []
    for one in sorted(decisions, key=lambda decided: decided.decision_id):
        request = say(one, known.get(one.decision_id))
        if request is None:
            continue
        try:
            check_label(request, one.verdict)
        except BadInput as error:
            refused.append((one.decision_id, error))
            continue
        requests[one.decision_id], verdicts[one.decision_id] = request, one.verdict
    labellers = {str(request.get("labeller")) for request in trusts}
    if labellers:
        verdicts |= {name: history.verdict for name, history in known.items() if labellers & history.speakers()}
    trust = known.trusts.now() | {str(request.get("labeller")): trust_of(request) for request in trusts}
    reached = []
    for name in sorted(verdicts):
        history, request = known.get(name), requests.get(name)
        before = history.standing() if history is not None else None
        after = standing_of(verdicts[name], _after(verdicts[name], history, request), trust)
        reached.append(Changed(name, before, after))
    return Plan(signed.job, (*trusts, *requests.values()), tuple(reached), tuple(refused))


def _after(verdict: Verdict, history: History | None, request: LabelRequest | None) -> Restored:
    events = history.events if history is not None else []
    if request is None:
        return folded(verdict, events, {})
    event = cast(LabelEvent, {"version": 0, "should": None, "label": None, "at": "", **request})
    if restored := event.get("restored"):
        return restored
    counting = history.counting() if history is not None else []
    return folded(verdict, [*counting, event], {})
