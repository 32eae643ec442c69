"""Labels: what people say really happened, as append-only events, and what that means for the memory."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal, NotRequired

from pydantic import TypeAdapter, ValidationError, with_config
from typing_extensions import TypedDict

from schemas.errors import BadInput
from schemas.ids import iso_time, time_ms_of
from schemas.limits import MAX_TEXT
from schemas.seal import KID, is_token
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


def check_label_form(value: Any) -> LabelRequest:
    """A label request by its form alone. Raises `BadInput`."""
    try:
        request = REQUEST.validate_python(value)
    except ValidationError as error:
        problem = error.errors(include_url=False, include_input=False)[0]
        path = ".".join(str(part) for part in problem["loc"])
        raise BadInput(f"label: `{path}`: {problem['msg'].lower()}") from None
    for name in ("summary", "actor", "event_id", "job", "labeller"):
        if _is_too_long(str(request.get(name) or "")):
            raise BadInput(f"label: the {name} has {len(str(request[name]))} characters, more than {MAX_TEXT}")
    if request["type"] == "trust":
        _check_trust(request)
    else:
        _check_kind(request)
    return request


def check_trust_value(value: object) -> int:
    """A trust in hundredths. Raises `BadInput` for what is none: it goes from 0 to 1 in steps of 0.05."""
    good = isinstance(value, float | int) and not isinstance(value, bool) and 0 <= value <= 1
    hundredths = round(value * FULL_TRUST) if good else 0  # type: ignore[operator]
    if not good or hundredths / FULL_TRUST != value or hundredths % TRUST_STEP:
        raise BadInput(
            f"label: the trust in a labeller goes from 0 to 1 in steps of {TRUST_STEP / FULL_TRUST}, not `{value}`",
            help="0 holds what the labeller says; 1 is full trust",
        )
    return hundredths


def _check_trust(request: LabelRequest) -> None:
    """What a request of the type trust must hold, and no more. Raises `BadInput`."""
    if not request.get("labeller") or request.get("trust") is None:
        raise BadInput("label: the type trust needs a `labeller` and a `trust`")
    check_trust_value(request.get("trust"))
    if request["decision_id"]:
        raise BadInput("label: the type trust speaks of a labeller, so `decision_id` is empty")
    if any(request.get(name) is not None for name in ("label", "should", "restored")):
        raise BadInput("label: `label`, `should` and `restored` do not go with the type trust")
    if (request.get("undoes") is None) != (request.get("expects") is None):
        raise BadInput("label: a trust that takes something back needs both `undoes` and `expects`")
    _check_undoes(request.get("undoes"))
def _is_too_long(text: str) -> bool:
    """A sealed text is longer than what is in it: up to four bytes a character, in base64."""
    return len(text) > (6 * MAX_TEXT if is_token(text) else MAX_TEXT)


def _check_kind(request: LabelRequest) -> None:
    """What goes with which type. Raises `BadInput`."""
    kind = request["type"]
    if request.get("labeller") is not None or request.get("trust") is not None:
        raise BadInput("label: `labeller` and `trust` go with the type trust only")
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
    _check_undoes(undoes)  # type: ignore[arg-type]
    words, outs = restored["said"], restored.get("quarantines", [])  # type: ignore[index,attr-defined]
    settling = [word["actor"] for word in words if word.get("settles")]
    plain = [word["actor"] for word in words if not word.get("settles")]
    once = all(len(set(names)) == len(names) for names in (settling, plain, [out["actor"] for out in outs]))
    if max(len(words), len(outs)) > MAX_WORDS or not once:
        raise BadInput(f"label: `restored` has at most {MAX_WORDS} words, one an actor and one that settles")
    _check_order(words)
    for word in words:
        if _is_too_long(word["actor"]) or _is_too_long(word["summary"]):
            raise BadInput(f"label: `restored` has a text of more than {MAX_TEXT} characters")
        if (at := word.get("at")) is not None and not _is_time(at):
            raise BadInput("label: `restored` has a word whose `at` is no time", help="as 2024-12-19T14:30:00.000Z")


def _check_undoes(undoes: Undoes | None) -> None:
    if undoes is not None and len(undoes) != 1:
        raise BadInput("label: `undoes` names either a job or a version to go back to")


def _check_order(words: Sequence[Word]) -> None:
    """Of two words of one actor the settling one came first: a later one settles in its place."""
    spoken: set[str] = set()
    for word in words:
        if word.get("settles") and word["actor"] in spoken:
            raise BadInput("label: `restored` has a word before a settlement by the same actor")
        spoken.add(word["actor"])


def _is_time(text: str) -> bool:
    try:
        return iso_time(time_ms_of(text)) == text
    except (ValueError, OverflowError):
        return False


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
