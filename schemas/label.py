"""Labels: what people say really happened, as append-only events, and what that means for the memory."""

from __future__ import annotations

from typing import Any, Literal, NotRequired

from pydantic import TypeAdapter, ValidationError, with_config
from typing_extensions import TypedDict

from schemas.errors import BadInput
from schemas.limits import MAX_TEXT
from schemas.verdict import Verdict

EventType = Literal["label", "note", "quarantine", "release", "settle", "trust"]
LabelName = Literal["failure", "success", "retracted"]
Meaning = Literal["harmful", "fine", "neutral"]


@with_config({"extra": "forbid", "strict": True, "title": "LabelRequest"})
class LabelRequest(TypedDict):
    """What a labeller asks for. `event_id` makes a retry safe."""

    event_id: str
    decision_id: str
    tenant: str
    type: EventType
    label: NotRequired[LabelName | None]
    should: NotRequired[Literal["ALLOW", "DENY", "ESCALATE"] | None]
    summary: str
    actor: str
    job: NotRequired[str | None]


@with_config({"extra": "forbid", "strict": True})
class LabelledDecision(TypedDict):
    """All that the memory needs of the labelled decision."""

    action_type: str
    verdict: Verdict
    rules: list[str]
    amount: float | int | None
    facts: dict[str, Any]


@with_config({"extra": "forbid", "strict": True, "title": "LabelEvent"})
class LabelEvent(TypedDict):
    """An accepted label: `version` is dense over the `labels` topic, `at` is the log's time."""

    version: int
    event_id: str
    decision_id: str
    tenant: str
    type: EventType
    label: LabelName | None
    should: Literal["ALLOW", "DENY", "ESCALATE"] | None
    summary: str
    actor: str
    at: str
    job: str | None
    decision: LabelledDecision | None


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


def check_label_form(value: Any) -> LabelRequest:
    """A label request by its form alone. Raises `BadInput`."""
    try:
        request = REQUEST.validate_python(value)
    except ValidationError as error:
        problem = error.errors(include_url=False, include_input=False)[0]
        path = ".".join(str(part) for part in problem["loc"])
        raise BadInput(f"label: `{path}`: {problem['msg'].lower()}") from None
    for name in ("summary", "actor", "event_id", "job"):
        if len(str(request.get(name) or "")) > MAX_TEXT:
            raise BadInput(f"label: the {name} has {len(str(request[name]))} characters, more than {MAX_TEXT}")
    return request


def check_label(request: LabelRequest, verdict: Verdict) -> None:
    """Refuse a label that is malformed or contradicts itself. Raises `BadInput`."""
    check_label_form(request)
    label, should = request.get("label"), request.get("should")
    if request["type"] in ("label", "settle") and label is None:
        raise BadInput("label: `label` is missing: failure, success or retracted")
    if should is None:
        return
    if label not in ("failure", "success"):
        raise BadInput("label: `should` goes with failure or success only")
    if label == "success" and should != verdict:
        raise BadInput(
            f"label: the decision was {verdict} and is called a success, so `should` can't be {should}",
            help="a verdict that was right is what it should have been; leave `--should` out",
        )
    if label == "failure" and should == verdict:
        raise BadInput(
            f"label: the decision was {verdict} and is called a failure, so `should` can't be {should} too",
            help="say what would have been right instead, or leave `--should` out",
        )
