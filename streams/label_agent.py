"""The label agent: the only sequencer of labels. Checks a label, gives it a dense version, appends it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, cast

from memory_service.profile import amount_of, remembered_part
from schemas.canonical import decode_trusted, encode
from schemas.errors import BadInput, LumynError, NotFound
from schemas.ids import iso_time
from schemas.label import (
    ABOUT_SUBJECTS,
    LabelEvent,
    LabelledDecision,
    LabelRequest,
    key_of,
    labeller_key,
    speaks_of_decision,
    speaks_of_labeller,
    trust_of,
)
from schemas.label_check import check_label_form, check_words
from streams.log import Append, Transaction, TransactionalLog
from streams.sealing import opened_record, require_open, seal_facts, seal_label
from streams.subject_keys import NO_KEYS, SubjectKeys, keys_of
from streams.topics import LABEL_REQUESTS, LABELS, RECORDS

_AT_ONCE = 1000


class LabelAgent:
    """Sequences labels on an embedded log: request and event in one transaction."""

    def __init__(self, log: TransactionalLog) -> None:
        self._log = log
        self._keys = keys_of(log)

    def label(self, requests: Sequence[LabelRequest]) -> list[LabelEvent | LumynError]:
        """Accept labels, in order; a refused one is an error in its place. An event_id seen before is not repeated."""
        results: list[LabelEvent | LumynError] = []
        for start in range(0, len(requests), _AT_ONCE):
            with self._log.transaction() as transaction:
                results += self._some(transaction, requests[start : start + _AT_ONCE])
        return results

    def _some(self, transaction: Transaction, requests: Sequence[LabelRequest]) -> list[LabelEvent | LumynError]:
        results: list[LabelEvent | LumynError] = []
        for request in requests:
            try:
                results.append(self._one(transaction, request))
            except LumynError as error:
                results.append(error)
        return results

    def _one(self, transaction: Transaction, request: LabelRequest) -> LabelEvent:
        key = f"{request['tenant']}/{request['event_id']}".encode()
        seen = self._log.latest(LABEL_REQUESTS, key)
        if seen is not None:
            return self._first(request, seen.value)
        check_label_form(request)
        if request["type"] in OF_OPERATORS:
            check_not_held(request, events_of(self._log, labeller_key(request["tenant"], request["actor"])))
        if request["type"] in ABOUT_SUBJECTS:
            check_about_subject(request, self._keys)
        if not speaks_of_decision(request):
            return self._append(transaction, request, key, None)
        record = self._record(request)
        check_words(request, record["verdict"])
        return self._append(transaction, seal_label(request, record, self._keys), key, record)

    def _record(self, request: LabelRequest) -> Mapping[str, Any]:
        message = self._log.latest(RECORDS, request["decision_id"].encode())
        record = decode_trusted(message.value) if message else None
        if record is None or record["tenant"] != request["tenant"]:  # another tenant's decision does not exist here
            raise NotFound(f"no decision `{request['decision_id']}`")
        return opened_record(self._keys, record)

    def _append(
        self, transaction: Transaction, request: LabelRequest, key: bytes, record: Mapping[str, Any] | None
    ) -> LabelEvent:
        of = key_of(request)
        if request.get("undoes") is not None:
            told = [event["version"] for event in events_of(self._log, of) if event["type"] != "note"]
            check_unchanged(request, max(told, default=0))
        asked = transaction.append([Append(LABEL_REQUESTS, encode(request), key)])[0]
        event = label_event(request, record, self._log.end(LABELS, 0) + 1, asked.time_ms, self._keys)
        transaction.append([Append(LABELS, encode(event, finite=True), of.encode())])
        return event

    def _first(self, request: LabelRequest, seen: bytes) -> LabelEvent:
        """The event of an earlier, equal request; another body under one event_id is refused."""
        if speaks_of_decision(request):
            request = seal_label(request, self._record(request), self._keys)
        if decode_trusted(seen) != decode_trusted(encode(request)):
            raise BadInput(f"event_id `{request['event_id']}` was used before for another label")
        for event in events_of(self._log, key_of(request)):
            if event["event_id"] == request["event_id"]:
                return event
        raise BadInput(f"event_id `{request['event_id']}` was asked for but never accepted")


def label_event(
    request: LabelRequest, record: Mapping[str, Any] | None, version: int, time_ms: int, keys: SubjectKeys = NO_KEYS
) -> LabelEvent:
    """The event that a checked request becomes; `time_ms` is when the log took the request.

    `record` is the decision's, opened; None where the request speaks of a subject or of a labeller.
    """
    restored = request.get("restored")
    label = request.get("label")
    if restored is not None and restored["said"]:
        label = restored["said"][-1]["label"]
    event: LabelEvent = {
        "version": version,
        "event_id": request["event_id"],
        "decision_id": request["decision_id"],
        "tenant": request["tenant"],
        "type": request["type"],
        "label": label,
        "should": request.get("should"),
        "summary": request["summary"],
        "actor": request["actor"],
        "at": iso_time(time_ms),
        "job": request.get("job"),
        "decision": None if record is None or request["type"] == "note" else _labelled(record, keys),
    }
    if request.get("subject"):
        event["subject"] = request.get("subject")
    if restored is not None:
        event |= {"undoes": request.get("undoes"), "restored": restored}
    if speaks_of_labeller(request):
        event |= {"labeller": request.get("labeller"), "trust": request.get("trust")}
        if request.get("undoes") is not None:
            event |= {"undoes": request.get("undoes")}
    return event


OF_OPERATORS = ("restore", "trust")
"""What changes what others said or how much it counts: not for one who is held himself."""


def check_not_held(request: LabelRequest, told: Sequence[LabelEvent]) -> None:
    """Refuse a change by a labeller who is held, by the events that set the trust in him. Raises `BadInput`."""
    if told and trust_of(told[-1]) == 0:
        raise BadInput(
            f"label: `{request['actor']}` is held (memory version {told[-1]['version']}), so can't do this",
            help="let another actor do it: LUMYN_ACTOR",
        )


def check_about_subject(request: LabelRequest, keys: SubjectKeys) -> None:
    """Refuse to say of a subject what is not so: who may write labels must not forget anybody by that.

    A `forget` follows the key's destruction, a `hold` stands while it is told, and so does one that ends (`unhold`).
    Raises `BadInput`, `KeysUnavailable`.
    """
    kid = str(request.get("subject"))
    if request["type"] == "forget":
        if keys.state(kid) not in ("erasing", "erased"):
            raise BadInput(f"the key of {kid} is not destroyed", help="`lumyn memory forget` does it, and says so")
    elif keys.held(kid) is None:
        raise BadInput(f"there is no hold on {kid}", help="`lumyn memory hold` puts one, and says so")


def _labelled(record: Mapping[str, Any], keys: SubjectKeys) -> LabelledDecision:
    return cast(LabelledDecision, seal_facts(record, dict(labelled_decision(record)), keys))


def check_unchanged(request: LabelRequest, last: int) -> None:
    """Refuse to take back from a state that something was said in since: it would be wiped out. Raises `BadInput`."""
    expected = request.get("expects")
    if expected != last:
        of = request.get("labeller")
        what = f"decision `{request['decision_id']}` was labelled" if of is None else f"the trust in `{of}` was changed"
        raise BadInput(
            f"{what} meanwhile (version {last}, not {expected})",
            help="plan the job again",
        )


def labelled_decision(record: Mapping[str, Any]) -> LabelledDecision:
    """What the memory needs of a decision: no subject, no provenance, nothing that names a person."""
    require_open(record)
    part = remembered_part(record["request"])
    return {
        "action_type": record["request"]["action"]["type"],
        "verdict": record["verdict"],
        "rules": [rule["id"] for rule in record["matched_rules"] if rule["outcome"] == "matched"],
        "amount": amount_of(part),
        "facts": part,
    }


def events_of(log: TransactionalLog, about: str) -> list[LabelEvent]:
    """All events of what a key names (`key_of`: a decision, a labeller, a subject), in order, as they are stored."""
    return [decode_trusted(message.value) for message in log.with_key(LABELS, about.encode())]
