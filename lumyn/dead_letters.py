"""Dead letters: what could not be decided, byte for byte, with the reason why.

That one was sent again is noted beside it: a message of the same topic whose source is the letter itself, so that the
next on-call sees who sent it where, and nobody sends it twice unawares.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

from schemas.canonical import encode_plain
from schemas.errors import NotFound
from schemas.ids import iso_time
from schemas.limits import MAX_SAFE_INTEGER
from streams.log import Append, Log, Message
from streams.reading import at_offset, messages, object_in
from streams.topics import DEAD_LETTERS, full_name

_RESENT = "resent"
_PAGE = 64


@dataclass(frozen=True, slots=True)
class Letter:
    """One dead letter. `number` is its offset in `dead-letters`; `payload` is the message as it came.

    `notes` say when, by whom and to which place it was sent again.
    """

    number: int
    time_ms: int
    source: Mapping[str, Any]
    reason: str
    detail: str
    key: bytes | None
    payload: bytes
    notes: tuple[str, ...] = ()


def newest(log: Log, limit: int) -> list[Letter]:
    """The newest letters, newest first, at most `limit`, of every tenant: what can't be read has none."""
    found: list[Letter] = []
    notes: dict[int, list[str]] = {}
    begin, end = log.begin(DEAD_LETTERS, 0), log.end(DEAD_LETTERS, 0)
    while end > begin and len(found) < limit:
        start = max(begin, end - _PAGE)
        for message in reversed([m for m in log.read(DEAD_LETTERS, 0, start, end - start) if m.offset < end]):
            noted = _note_in(log, message)
            if noted is not None:
                notes.setdefault(noted[0], []).insert(0, noted[1])
            elif len(found) < limit:
                found.append(replace(_letter(log, message), notes=tuple(notes.get(message.offset, ()))))
        end = start
    return found


def letters(log: Log, numbers: Iterable[int]) -> dict[int, Letter]:
    """Letters by their numbers, in one reading; those that do not exist are left out."""
    found: dict[int, Letter] = {}
    wanted = {number for number in numbers if number <= MAX_SAFE_INTEGER}
    for message in messages(log, DEAD_LETTERS, 0, min(wanted, default=0)) if wanted else ():
        noted = _note_in(log, message)
        if noted is None and message.offset in wanted:
            found[message.offset] = _letter(log, message)
        elif noted is not None and noted[0] in found:
            found[noted[0]] = replace(found[noted[0]], notes=(*found[noted[0]].notes, noted[1]))
    return found


def letter(log: Log, number: int) -> Letter:
    """One letter by its number. Raises `NotFound`."""
    found = letters(log, [number]).get(number)
    if found is None:
        raise no_letter(log, number)
    return found


def no_letter(log: Log, number: int) -> NotFound:
    """Why there is no letter of a number."""
    message = at_offset(log, DEAD_LETTERS, 0, number) if number <= MAX_SAFE_INTEGER else None
    noted = _note_in(log, message) if message is not None else None
    said = f"{number} notes that letter {noted[0]} was sent again" if noted else f"there is no dead letter {number}"
    return NotFound(said, help="`lumyn dead-letters list` shows what there is")


def _letter(log: Log, message: Message) -> Letter:
    value = object_in(message)
    try:
        payload = base64.b64decode(value["payload_base64"], validate=True)
        source, reason, detail = value["source"], str(value["reason"]), str(value["detail"])
        named = {"topic": str(source["topic"]), "partition": int(source["partition"]), "offset": int(source["offset"])}
    except (KeyError, TypeError, ValueError, binascii.Error):
        own = {"topic": full_name(log.prefix, DEAD_LETTERS), "partition": 0, "offset": message.offset}
        why = "this is no dead letter: something else wrote it"
        return Letter(message.offset, message.time_ms, own, "unreadable", why, message.key, message.value)
    return Letter(message.offset, message.time_ms, named, reason, detail, message.key, payload)


def _note_in(log: Log, message: Message) -> tuple[int, str] | None:
    """The letter that a message notes the sending of, and what it says; None when it is a letter itself."""
    value = object_in(message)
    source = value.get("source")
    if value.get("reason") != _RESENT or not isinstance(source, dict):
        return None
    if source.get("topic") != full_name(log.prefix, DEAD_LETTERS) or not isinstance(source.get("offset"), int):
        return None
    return source["offset"], f"{iso_time(message.time_ms)} {value.get('detail')}"


def letters_from(log: Log, number: int) -> Iterator[Letter]:
    """All letters from a number on, in order, without their notes."""
    for message in messages(log, DEAD_LETTERS, 0, number):
        if _note_in(log, message) is None:
            yield _letter(log, message)


def note(log: Log, number: int, place: str, actor: str, *, corrected: bool) -> Append:
    """The message that notes the sending of a letter."""
    value = {
        "source": {"topic": full_name(log.prefix, DEAD_LETTERS), "partition": 0, "offset": number},
        "reason": _RESENT,
        "detail": f"sent to {place} by {actor}{', corrected' if corrected else ''}",
        "payload_base64": "",
    }
    return Append(DEAD_LETTERS, encode_plain(value))
