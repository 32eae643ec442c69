"""Labels: what people say really happened, as append-only events, and what that means for the memory."""

from __future__ import annotations

from typing import Any, Literal, NotRequired

from pydantic import TypeAdapter, ValidationError, with_config
from typing_extensions import TypedDict

from schemas.errors import BadInput
from schemas.limits import MAX_TEXT
from schemas.seal import KID, is_token
from schemas.verdict import Verdict

EventType = Literal["label", "note", "quarantine", "release", "settle", "trust", "restore", "forget", "hold", "unhold"]
LabelName = Literal["failure", "success", "retracted"]
Meaning = Literal["harmful", "fine", "neutral"]


Should = Literal["ALLOW", "DENY", "ESCALATE"]


@with_config({"extra": "forbid", "strict": True})
class Word(TypedDict):
    """A labeller's last word on a decision."""

    actor: str
    label: LabelName
    should: Should | None
    summary: str


@with_config({"extra": "forbid", "strict": True})
class Restored(TypedDict):
    """All that is said of a decision after something was taken back: the words in force, in order."""

    said: list[Word]
    quarantined: bool


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


def check_label_form(value: Any) -> LabelRequest:
    """A label request by its form alone. Raises `BadInput`."""
    try:
        request = REQUEST.validate_python(value)
    except ValidationError as error:
        problem = error.errors(include_url=False, include_input=False)[0]
        path = ".".join(str(part) for part in problem["loc"])
        raise BadInput(f"label: `{path}`: {problem['msg'].lower()}") from None
    for name in ("summary", "actor", "event_id", "job"):
        if _is_too_long(str(request.get(name) or "")):
            raise BadInput(f"label: the {name} has {len(str(request[name]))} characters, more than {MAX_TEXT}")
    _check_kind(request)
    return request


def _is_too_long(text: str) -> bool:
    """A sealed text is longer than what is in it: up to four bytes a character, in base64."""
    return len(text) > (6 * MAX_TEXT if is_token(text) else MAX_TEXT)


def _check_kind(request: LabelRequest) -> None:
    """What goes with which type. Raises `BadInput`."""
    kind = request["type"]
    if (kind in ABOUT_SUBJECTS) != bool(request.get("subject")) or (kind in ABOUT_SUBJECTS and request["decision_id"]):
        raise BadInput(f"label: {', '.join(ABOUT_SUBJECTS)}, and they alone, name a subject and no decision")
    if kind in ABOUT_SUBJECTS and not KID.match(str(request.get("subject"))):
        raise BadInput("label: the `subject` is not a pseudonym")
    says = request.get("label") or request.get("should")
    if says and kind in ("quarantine", "release", "restore", *ABOUT_SUBJECTS):
        raise BadInput(f"label: `label` and `should` do not go with the type {kind}")
    undoes, restored, expects = (request.get(name) for name in _OF_RESTORE)
    if kind != "restore":
        if any(value is not None for value in (undoes, restored, expects)):
            raise BadInput(f"label: {', '.join(_OF_RESTORE)} go with the type restore only")
        return
    if undoes is None or restored is None or expects is None:
        raise BadInput(f"label: a restore needs {', '.join(_OF_RESTORE)}")
    if len(undoes) != 1:  # type: ignore[arg-type]
        raise BadInput("label: `undoes` names either a job or a version to go back to")
    words = restored["said"]  # type: ignore[index]
    if len(words) > MAX_WORDS or len({word["actor"] for word in words}) < len(words):
        raise BadInput(f"label: `restored` has at most {MAX_WORDS} words, one an actor")
    for word in words:
        if _is_too_long(word["actor"]) or _is_too_long(word["summary"]):
            raise BadInput(f"label: `restored` has a text of more than {MAX_TEXT} characters")


_OF_RESTORE = ("undoes", "restored", "expects")
MAX_WORDS = 1000


def check_label(request: LabelRequest, verdict: Verdict) -> None:
    """Refuse a label that is malformed or contradicts itself. Raises `BadInput`."""
    check_label_form(request)
    for word in (request.get("restored") or {"said": []})["said"]:
        _check_word(word["label"], word["should"], verdict)
    if request["type"] in ("label", "settle") and request.get("label") is None:
        raise BadInput("label: `label` is missing: failure, success or retracted")
    _check_word(request.get("label"), request.get("should"), verdict)


def _check_word(label: LabelName | None, should: Should | None, verdict: Verdict) -> None:
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
