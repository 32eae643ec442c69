"""Putting dead letters back on the topics they came from, and saying what became of them."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from lumyn.dead_letters import Letter, letters, letters_from, no_letter, note
from lumyn.home import Home
from lumyn.policy_file import load_policy_file
from schemas.canonical import decode
from schemas.errors import (
    BadInput,
    BadRequest,
    DecisionPending,
    LumynError,
    RequestConflict,
    UsageError,
)
from schemas.label_check import check_label_form
from schemas.request import Request, parse_request
from streams.log import Append, Log, Message
from streams.reading import is_embedded, messages, object_in
from streams.sealing import request_in, seal_requests
from streams.topics import DEAD_LETTERS, LABEL_RECEIPTS, LABEL_REQUESTS, RECEIPTS, REQUESTS, full_name

_POLL_S = 0.05
_ANSWERS = {REQUESTS: RECEIPTS, LABEL_REQUESTS: LABEL_RECEIPTS}
"""Where a topic's receipts are."""

_Place = tuple[str, int, int]
"""(topic, partition, offset)"""


@dataclass(frozen=True, slots=True)
class Resent:
    """What became of a letter: its new place, and the receipt's outcome once there is one.

    `outcome` is decided, duplicate, conflict, rejected (requests); accepted, duplicate, refused (labels); sent (nobody
    waited, or no answer came). `error` is why it was not sent, or what went wrong again. `noted` is False when the
    letter was sent and that could not be noted beside it.
    """

    number: int
    place: str | None = None
    outcome: str | None = None
    decision_id: str | None = None
    verdict: str | None = None
    error: LumynError | None = None
    noted: bool = True


def resend(
    home: Home, numbers: Sequence[int], *, body: bytes | None = None, force: bool = False, wait: bool = True
) -> list[Resent]:
    """Put letters back on the topics they came from, byte for byte (or `body` instead of one letter's).

    In order. A letter that would be rejected again, or was sent again already, is an error in its place unless `force`
    is given. With `wait` the receipts are waited for, as long as the home's timeout. Raises `UsageError`,
    `StorageUnavailable`.
    """
    if body is not None and len(set(numbers)) != 1:
        raise UsageError("a corrected body is for one letter", help="`lumyn dead-letters resend --from-file FILE N`")
    log = home.log
    starts = {(topic, p): log.end(topic, p) for topic in _ANSWERS.values() for p in range(log.partitions(topic))}
    dead_from = log.end(DEAD_LETTERS, 0)
    found = letters(log, numbers)
    results: list[Resent] = []
    sent: dict[int, Message] = {}
    for number in dict.fromkeys(numbers):
        try:
            if number not in found:
                raise no_letter(log, number)
            sent[number] = message = _send(home, found[number], body, force)
            place = _place(log, message)
            results.append(Resent(number, place, "sent", noted=_noted(home, number, place, body is not None)))
        except LumynError as error:
            results.append(Resent(number, error=error))
    if not wait or not sent:
        return results
    receipts = _receipts(home, list(sent.values()), starts)
    return [
        _answered(home, one, sent[one.number], receipts, dead_from) if one.number in sent else one for one in results
    ]


def _place(log: Log, message: Message) -> str:
    return f"{full_name(log.prefix, message.topic)}/{message.partition}/{message.offset}"


def _noted(home: Home, number: int, place: str, corrected: bool) -> bool:
    try:
        home.log.append([note(home.log, number, place, home.settings.actor, corrected=corrected)])
    except LumynError:
        return False
    return True


def _send(home: Home, dead: Letter, body: bytes | None, force: bool) -> Message:
    """Back to its topic. Raises what would become of it again, and what the log says."""
    topic = next((name for name in _ANSWERS if full_name(home.log.prefix, name) == dead.source["topic"]), None)
    if topic is None:
        raise UsageError(
            f"letter {dead.number} came from `{dead.source['topic']}`, which takes nothing back",
            help=f"`lumyn dead-letters show {dead.number} --raw` writes its bytes",
        )
    if topic == LABEL_REQUESTS and is_embedded(home.log):
        raise UsageError("labels of an embedded home are never queued", help="`lumyn label ID ...` says it again")
    if dead.notes and not force:
        raise UsageError(f"letter {dead.number} was sent again: {dead.notes[-1]}", help="`--force` sends it once more")
    append, problem = _request(home, dead, body) if topic == REQUESTS else _label(dead, body)
    if problem is not None and not force:
        raise type(problem)(
            f"letter {dead.number} would be rejected again: {problem.message}",
            where=problem.where,
            help="`--from-file FILE` sends a corrected body, `--force` sends it all the same",
        )
    return home.log.append([append])[0]


def _request(home: Home, dead: Letter, body: bytes | None) -> tuple[Append, LumynError | None]:
    """The request as it goes back, and why it would be rejected, if so.

    One with a request_id goes where that belongs, whatever key and partition it came with. A corrected body is a new
    one of this home's, and is sent as such: canonical, with its tenant.
    """
    partition = int(dead.source["partition"])
    here = partition if 0 <= partition < home.log.partitions(REQUESTS) else None
    try:
        if body is None:
            payload, request = dead.payload, request_in(home.log.keys, dead.payload, f"letter {dead.number}")
        else:
            request = parse_request(body, tenant=home.settings.tenant, where="the corrected body")
            if home.settings.encrypt_subjects:
                request = seal_requests(home.log.keys, [request])[0]
            payload = request.canonical
    except LumynError as error:
        return Append(REQUESTS, dead.payload if body is None else body, dead.key, here), error
    if request.key is not None:
        return Append(REQUESTS, payload, request.key), _no_policy(home, request)
    return Append(REQUESTS, payload, dead.key, here), _no_policy(home, request)


def _no_policy(home: Home, request: Request) -> LumynError | None:
    """Why nobody would decide it. A file that workers were given is known by what they published of it."""
    control, name = home.agent.control(), request.value.get("policy")
    if control.active_policy(name) is not None:
        return None
    fallbacks = {p.name for p in control.policies.values() if p.origin == "file"}
    if is_embedded(home.log):
        path = home.settings.policy_path
        fallbacks = {load_policy_file(path).name} if path is not None else set()
    if name in fallbacks or (name is None and fallbacks):
        return None
    said = "no policy is active" if name is None else f"it asks for policy `{name}`, which is not active"
    return BadRequest(said)


def _label(dead: Letter, body: bytes | None) -> tuple[Append, LumynError | None]:
    payload = dead.payload if body is None else body
    try:
        asked = check_label_form(decode(payload, where="label"))
    except LumynError as error:
        return Append(LABEL_REQUESTS, payload), error
    return Append(LABEL_REQUESTS, payload, f"{asked['tenant']}/{asked['event_id']}".encode()), None


def _receipts(
    home: Home, sent: Sequence[Message], starts: Mapping[tuple[str, int], int]
) -> dict[_Place, Mapping[str, Any]]:
    """The receipts of what was sent, as far as they come in time; an embedded home decides by itself."""
    while home.agent.drain():
        pass
    wanted: set[_Place] = {(message.topic, message.partition, message.offset) for message in sent}
    places = {(_ANSWERS[topic], partition): topic for topic, partition, _ in wanted}
    positions = {place: starts[place] for place in places}
    found: dict[_Place, Mapping[str, Any]] = {}
    deadline = time.monotonic() + home.settings.timeout_s
    while True:
        for (topic, partition), asked in places.items():
            for message in messages(home.log, topic, partition, positions[topic, partition]):
                positions[topic, partition] = message.offset + 1
                receipt = object_in(message)
                source = receipt.get("source") or {}
                place = (asked, source.get("partition"), source.get("offset"))
                if place in wanted:
                    found[place] = receipt
        if len(found) == len(wanted) or time.monotonic() > deadline:
            return found
        time.sleep(_POLL_S)


def _answered(
    home: Home, one: Resent, message: Message, receipts: Mapping[_Place, Mapping[str, Any]], dead_from: int
) -> Resent:
    receipt = receipts.get((message.topic, message.partition, message.offset))
    if receipt is None:
        kind = "decide" if message.topic == REQUESTS else "labels"
        error: LumynError = DecisionPending(
            f"letter {one.number}: no answer within {home.settings.timeout_s:g} s; it is in the log and will be read",
            where=one.place,
            help=f"is `lumyn worker {kind}` running?",
        )
        return replace(one, error=error)
    outcome, decision_id = receipt["outcome"], receipt.get("decision_id")
    one = replace(one, outcome=outcome, decision_id=decision_id)
    match outcome:
        case "decided" | "duplicate" if decision_id:
            found = home.records(decision_id, 1)
            return replace(one, verdict=object_in(found[0]).get("verdict") if found else None)
        case "conflict":
            said = f"letter {one.number}: its request_id was decided before with another body (decision {decision_id})"
            return replace(one, error=RequestConflict(said))
        case "refused":
            return replace(one, error=BadInput(f"letter {one.number}: {receipt.get('detail')}"))
        case "rejected":
            return replace(one, error=_rejected(home.log, one, message, dead_from))
    return one


def _rejected(log: Log, one: Resent, message: Message, dead_from: int) -> LumynError:
    """Why, from its new letter."""
    source = {"topic": full_name(log.prefix, REQUESTS), "partition": message.partition, "offset": message.offset}
    for dead in letters_from(log, dead_from):
        if dead.source == source:
            return BadRequest(f"letter {one.number} was rejected again, as letter {dead.number}: {dead.detail}")
    return BadRequest(f"letter {one.number} was rejected again", where=one.place)
