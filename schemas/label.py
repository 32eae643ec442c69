"""Labels: what people say really happened, as append-only events, and what that means for the memory."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal, NotRequired

from pydantic import TypeAdapter, with_config
from typing_extensions import TypedDict

from schemas.verdict import Verdict

EventType = Literal["label", "note", "quarantine", "release", "settle", "trust", "restore", "forget", "hold", "unhold"]
LabelName = Literal["failure", "success", "retracted"]
Meaning = Literal["harmful", "fine", "neutral"]


Should = Literal["ALLOW", "DENY", "ESCALATE"]


@with_config({"extra": "forbid", "strict": True})
class Word(TypedDict):
    """What a labeller said of a decision. `settles`: over those who spoke before; `at`: when it was said."""

    actor: str
    label: LabelName
    should: Should | None
    summary: str
    at: NotRequired[str]
    settles: NotRequired[bool]


@with_config({"extra": "forbid", "strict": True})
class OutOrIn(TypedDict):
    """That somebody took a decision out of recall, or let it back in."""

    actor: str
    out: bool


@with_config({"extra": "forbid", "strict": True})
class Restored(TypedDict):
    """All that is said of a decision after something was taken back, in order: also what a settlement covers.

    `quarantines`: who took it out or let it in; without them `quarantined` alone says whether it is out.
    """

    said: list[Word]
    quarantined: bool
    quarantines: NotRequired[list[OutOrIn]]


@with_config({"extra": "forbid", "strict": True})
class Undoes(TypedDict):
    """What a `restore` takes back: the events of a job, or all after a version; one of the two."""

    job: NotRequired[str]
    after: NotRequired[int]


@with_config({"extra": "forbid", "strict": True, "title": "LabelRequest"})
class LabelRequest(TypedDict):
    """What a labeller asks for. `event_id` makes a retry safe.

    A `forget`, `hold` or `unhold` names a `subject` by its pseudonym, and no decision.
    A `restore` says what it `undoes`, what is `restored`, and the version of the decision's last event that this was
    made from (`expects`): it is refused when another has come since.

    A `trust` concerns no decision (`decision_id` is empty) but a `labeller`: how much his words count from now on,
    those that he said and those that he will say; 0: they are held. One that takes another back says what it `undoes`.
    """

    event_id: str
    decision_id: str
    tenant: str
    type: EventType
    label: NotRequired[LabelName | None]
    should: NotRequired[Should | None]
    summary: str
    actor: str
    job: NotRequired[str | None]
    undoes: NotRequired[Undoes | None]
    restored: NotRequired[Restored | None]
    expects: NotRequired[int | None]
    labeller: NotRequired[str | None]
    trust: NotRequired[float | int | None]
    subject: NotRequired[str | None]


@with_config({"extra": "forbid", "strict": True})
class LabelledDecision(TypedDict):
    """All that the memory needs of the labelled decision.

    With a `subject`, the pseudonym of whom the decision was about, `facts` are `{"sealed": ...}` in the log.
    """

    action_type: str
    verdict: Verdict
    rules: list[str]
    amount: float | int | None
    facts: dict[str, Any]
    subject: NotRequired[str]


@with_config({"extra": "forbid", "strict": True, "title": "LabelEvent"})
class LabelEvent(TypedDict):
    """An accepted label: `version` is dense over the `labels` topic, `at` is the log's time.

    `forget`, `hold` and `unhold` speak of a `subject` (a pseudonym), not of a decision, whose id is then empty.
    """

    version: int
    event_id: str
    decision_id: str
    tenant: str
    type: EventType
    label: LabelName | None
    should: Should | None
    summary: str
    actor: str
    at: str
    job: str | None
    decision: LabelledDecision | None
    undoes: NotRequired[Undoes | None]
    restored: NotRequired[Restored | None]
    labeller: NotRequired[str | None]
    trust: NotRequired[float | int | None]
    subject: NotRequired[str | None]


ABOUT_SUBJECTS = ("forget", "hold", "unhold")
"""The types of events that speak of a subject."""
REQUEST: TypeAdapter[LabelRequest] = TypeAdapter(LabelRequest)
EVENT: TypeAdapter[LabelEvent] = TypeAdapter(LabelEvent)


def meaning_of(verdict: Verdict, label: LabelName, should: str | None) -> Meaning:
    """What a label says about allowing (CONTRACTS: Meaning). A failed ALLOW is harmful whatever `should` says."""
    if verdict == "ALLOW" and label == "failure":
        return "harmful"
    right = should
    if right is None:
        if verdict in ("ESCALATE", "ABSTAIN"):
            return "neutral"
        if label == "success":
            right = verdict
        else:
            right = "ALLOW" if verdict == "DENY" else "DENY"
    return {"ALLOW": "fine", "DENY": "harmful"}.get(right, "neutral")  # type: ignore[return-value]


def is_last_word(event: LabelEvent) -> bool:
    """Whether an event says which label a decision has from now on: none, when a restore leaves none."""
    return event["type"] == "restore" or (event["type"] in ("label", "settle") and bool(event["label"]))


FULL_TRUST = 100
"""Trust is counted in hundredths."""
TRUST_STEP = 5


def trust_of(event: Mapping[str, Any]) -> int:
    """The trust that an event or a request gives a labeller, in hundredths."""
    hundredths: int = round(event["trust"] * FULL_TRUST)
    return hundredths


def speaks_of_labeller(event: Mapping[str, Any]) -> bool:
    """Whether an event or a request sets the trust in a labeller."""
    return event["type"] == "trust" and event.get("labeller") is not None


def speaks_of_decision(event: Mapping[str, Any]) -> bool:
    """Whether an event or a request concerns one decision: not a labeller, and not a subject."""
    return not speaks_of_labeller(event) and event["type"] not in ABOUT_SUBJECTS


def key_of(event: Mapping[str, Any]) -> str:
    """What an event or a request speaks of, the key of its message: a decision, a tenant's labeller, or a subject."""
    if event.get("subject"):
        return str(event["subject"])
    if speaks_of_labeller(event):
        return labeller_key(event["tenant"], event["labeller"])
    return str(event["decision_id"])


def labeller_key(tenant: str, labeller: str) -> str:
    """The key of messages about a labeller; no decision's id has a slash."""
    return f"labeller/{tenant}/{labeller}"


def labellers_of(event: Mapping[str, Any]) -> set[str]:
    """Whose words an event of a decision holds."""
    restored = event.get("restored") or {}
    said = (*restored.get("said", ()), *restored.get("quarantines", ()))
    return {event["actor"], *(one["actor"] for one in said)}
