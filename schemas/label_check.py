"""Checks of label requests: their form, what goes with which type, and words that contradict a verdict."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from pydantic import ValidationError

from schemas.errors import BadInput
from schemas.ids import iso_time, time_ms_of
from schemas.label import ABOUT_SUBJECTS, FULL_TRUST, REQUEST, TRUST_STEP, LabelName, LabelRequest, Should, Undoes, Word
from schemas.limits import MAX_TEXT
from schemas.seal import KID, is_token
from schemas.verdict import Verdict

MAX_WORDS = 1000
_OF_RESTORE = ("undoes", "restored", "expects")


def check_label_form(value: Any) -> LabelRequest:
    """A label request by its form alone. Raises `BadInput`."""
    try:
        request = REQUEST.validate_python(value)
    except ValidationError as error:
        problem = error.errors(include_url=False, include_input=False)[0]
        path, said = ".".join(str(part) for part in problem["loc"]), problem["msg"][:1].lower() + problem["msg"][1:]
        raise BadInput(f"label: `{path}`: {said}") from None
    for name in ("summary", "actor", "event_id", "job", "labeller"):
        if _is_too_long(str(request.get(name) or "")):
            raise BadInput(f"label: the {name} has {len(str(request[name]))} characters, more than {MAX_TEXT}")
    if request["type"] == "trust":
        _check_trust(request)
    else:
        _check_kind(request)
    return request


def _is_too_long(text: str) -> bool:
    """A sealed text is longer than what is in it: up to four bytes a character, in base64."""
    return len(text) > (6 * MAX_TEXT if is_token(text) else MAX_TEXT)


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
    if any(request.get(name) is not None for name in ("label", "should", "restored", "subject")):
        raise BadInput("label: `label`, `should`, `restored` and `subject` do not go with the type trust")
    if (request.get("undoes") is None) != (request.get("expects") is None):
        raise BadInput("label: a trust that takes something back needs both `undoes` and `expects`")
    _check_undoes(request.get("undoes"))


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


def check_label(request: LabelRequest, verdict: Verdict) -> None:
    """Refuse a label that is malformed or contradicts itself. Raises `BadInput`."""
    check_words(check_label_form(request), verdict)


def check_words(request: LabelRequest, verdict: Verdict) -> None:
    """Refuse a label, well formed, that contradicts itself or the verdict it speaks of. Raises `BadInput`."""
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
