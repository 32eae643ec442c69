"""Sealing and opening what the log holds, with the keys of its subjects: requests, records and label events.

What can't be opened stays as it is stored. Whether its subject was forgotten, or its key is only not here, is told
apart everywhere: the one is `erased` and final, the other is a fault.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, cast

from schemas.canonical import decode_trusted, encode
from schemas.errors import BadInput, Erased, IntegrityError, KeyMissing, LumynError
from schemas.label import LabelEvent, LabelRequest
from schemas.request import Request, envelope_in, opened, parse_request, sealed
from schemas.seal import (
    ClosedRecord,
    OpenRecord,
    is_envelope,
    is_sealed,
    is_token,
    kid_of,
    open_record,
    open_text,
    opening_of,
    seal_text,
    stored_of,
    token_kid,
)
from streams.subject_keys import Subject, SubjectKeys

ERASED = "[erased]"
SEALED = "[sealed]"
"""What stands for a text that can't be opened: its subject was forgotten; its key is not here."""
_HELP_KEYS = "LUMYN_SUBJECT_KEYS names the key store, LUMYN_MASTER_KEY or LUMYN_MASTER_KEY_FILE the master key"


def erased(what: str) -> Erased:
    """The error for what was forgotten."""
    return Erased(
        f"{what} is erased: its subject was forgotten",
        help="verdict, reason codes, times and digests remain: `lumyn show ID`, `lumyn verify ID`",
    )


def not_here(what: str) -> KeyMissing:
    """The error for what could be opened elsewhere."""
    return KeyMissing(f"{what} is sealed, and its subject's key is not in this key store", help=_HELP_KEYS)


def closed(what: str, keys: SubjectKeys, kid: str) -> LumynError:
    """Why something can't be opened."""
    return erased(what) if keys.state(kid) in ("erasing", "erased") else not_here(what)


# requests


def subject_of(request: Mapping[str, Any]) -> Subject:
    """Whom a request is about."""
    return Subject(request["tenant"], request["subject"]["type"], request["subject"]["id"])


def seal_requests(keys: SubjectKeys, requests: Sequence[Request]) -> list[Request]:
    """The requests, each under its subject's key; one that is sealed already stays. Raises `KeysUnavailable`."""
    plain = [request for request in requests if request.opening is None]
    found = dict(zip(map(id, plain), keys.made([subject_of(r.value) for r in plain]), strict=True)) if plain else {}
    return [
        request if (one := found.get(id(request))) is None else sealed(request, one.kid, one.key)
        for request in requests
    ]


def request_in(keys: SubjectKeys, body: bytes, where: str) -> Request:
    """The request in a message, opened where it is sealed.

    Raises what `parse_request` does; `Erased` for a forgotten subject's; `IntegrityError` for what was changed;
    `KeyMissing`, when this is not its key store; `KeysUnavailable` when the keys can't be read now.
    """
    envelope = envelope_in(body)
    if envelope is None:
        return parse_request(body, where=where)
    kid = kid_of(envelope)
    key = keys.key(kid)
    if key is None:
        raise closed("the request", keys, kid)
    return opened(envelope, key, where)


# records


def opened_record(keys: SubjectKeys, record: Mapping[str, Any]) -> Mapping[str, Any]:
    """A record with its personal part, where it can be opened, and as it is stored where it can't or need not be.

    Raises `IntegrityError` when a box does not hold what was sealed.
    """
    if not is_sealed(record) or isinstance(record, OpenRecord):
        return record
    kid = kid_of(record["request"])
    key = keys.key(kid)
    if key is None:
        return ClosedRecord(record, keys.state(kid) in ("erasing", "erased"))
    return open_record(record, opening_of(record["request"], key))


def require_open(record: Mapping[str, Any]) -> Mapping[str, Any]:
    """The record, if what was asked can be read in it. Raises `Erased`, `KeyMissing`."""
    if is_sealed(record):
        what = f"the personal part of decision {record.get('decision_id')}"
        raise erased(what) if isinstance(record, ClosedRecord) and record.erased else not_here(what)
    return record


def is_erased(record: Mapping[str, Any]) -> bool:
    """Whether a record that `opened_record` gave is of a forgotten subject."""
    return isinstance(record, ClosedRecord) and record.erased


# labels


def seal_label(request: LabelRequest, record: Mapping[str, Any], keys: SubjectKeys) -> LabelRequest:
    """A label request with its texts under the key of the decision's subject; of a clear decision as it is.

    Raises `Erased` when the subject was forgotten, `KeyMissing`, `KeysUnavailable`; `BadInput` for a sealed text that
    is not this decision's.
    """
    asked = stored_of(record).get("request") or {}
    if not is_envelope(asked):
        return request
    kid = kid_of(asked)
    key = keys.key(kid)
    if key is None:
        raise closed(f"decision {request['decision_id']} can't be labelled: it", keys, kid)

    def text(words: str) -> str:
        if not words:
            return words
        if is_token(words):
            try:
                open_text(words, key, request["decision_id"], "summary")
            except IntegrityError:
                raise BadInput("label: the summary is a sealed text that is not this decision's") from None
            return words
        return seal_text(words.encode(), kid, key, request["decision_id"], "summary")

    out: dict[str, Any] = {**request, "summary": text(request["summary"])}
    restored = request.get("restored")
    if restored is not None:
        said = [{**word, "summary": text(word["summary"])} for word in restored["said"]]
        out["restored"] = {**restored, "said": said}
    return cast(LabelRequest, out)


def seal_facts(record: Mapping[str, Any], decision: dict[str, Any], keys: SubjectKeys) -> dict[str, Any]:
    """What the memory needs of a labelled decision, its facts under the subject's key; of a clear one as it is."""
    if not isinstance(record, OpenRecord):
        return decision
    kid = kid_of(record.stored["request"])
    key = keys.key(kid)
    if key is None:
        raise closed(f"decision {record['decision_id']}", keys, kid)
    facts = seal_text(encode(decision["facts"]), kid, key, record["decision_id"], "facts")
    return {**decision, "subject": kid, "facts": {"sealed": facts}}


def opened_facts(keys: SubjectKeys, event: LabelEvent) -> LabelEvent:
    """An event as the memory takes it in: with its facts, or, when its subject was forgotten, of no decision.

    Texts stay sealed: what the memory says of a neighbour goes into others' records. Raises `KeysUnavailable`.
    """
    decision = event["decision"]
    if decision is None or "subject" not in decision or "sealed" not in decision["facts"]:
        return event
    kid = decision["subject"]
    key = keys.key(kid)
    if key is None:
        error = closed(f"label event {event['version']}", keys, kid)
        if isinstance(error, Erased):
            return cast(LabelEvent, {**event, "decision": None})
        raise error
    facts = decode_trusted(open_text(decision["facts"]["sealed"], key, event["decision_id"], "facts"))
    return cast(LabelEvent, {**event, "decision": {**decision, "facts": facts}})


def event_in(keys: SubjectKeys, value: bytes) -> LabelEvent:
    """A label event from the log, as `opened_facts` gives it."""
    return opened_facts(keys, decode_trusted(value))


def shown_event(keys: SubjectKeys, event: LabelEvent) -> LabelEvent:
    """An event for people: what can't be opened says so."""
    decision = event["decision"]
    if decision is not None and is_token(decision["facts"].get("sealed")):
        kid = decision["subject"]
        if keys.key(kid) is None:
            gone = "erased" if keys.state(kid) in ("erasing", "erased") else "sealed"
            event = cast(LabelEvent, {**event, "decision": {**decision, "facts": {gone: True}}})
        else:
            event = opened_facts(keys, event)
    about = event["decision_id"]
    texts = {name: revealed(keys, event.get(name), about) for name in ("summary", "restored") if name in event}
    return cast(LabelEvent, {**event, **texts})


def revealed(keys: SubjectKeys, value: Any, about: str = "") -> Any:
    """A value with the sealed texts in it opened. A text belongs to the `memory_id` or `decision_id` beside it.

    For what memory says and for labels: what a caller asked may hold a text that only looks like a sealed one.
    """
    if isinstance(value, str):
        return _revealed_text(keys, value, about) if is_token(value) else value
    if isinstance(value, Mapping):
        about = value.get("memory_id") or value.get("decision_id") or about
        return {name: revealed(keys, item, about) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [revealed(keys, item, about) for item in value]
    return value


def shown_record(keys: SubjectKeys, record: Mapping[str, Any]) -> Mapping[str, Any]:
    """A record for people: with what its neighbours' labels say, and, where it is closed, whether it is `erased`."""
    signals = record.get("risk_signals") or {}
    if any(similar.get("top_k") for similar in signals.values() if isinstance(similar, dict)):
        told = {**record, "risk_signals": revealed(keys, signals)}
    else:
        told = dict(record)
    if isinstance(record, OpenRecord):
        return OpenRecord(told, record.stored, record.opening)
    if isinstance(record, ClosedRecord):
        return ClosedRecord({**told, "erased": record.erased}, record.erased)
    return told


def _revealed_text(keys: SubjectKeys, token: str, about: str) -> str:
    kid = token_kid(token)
    key = keys.key(kid)
    if key is None:
        return ERASED if keys.state(kid) in ("erasing", "erased") else SEALED
    try:
        return open_text(token, key, about, "summary").decode()
    except IntegrityError:
        return token  # somebody wrote what only looks like one, or it was changed: nothing is claimed of it

