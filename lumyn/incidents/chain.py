"""The chain of an incident's events: each digest covers the one before it, and what was said only through a digest.

An event's digest covers `said`, the digest of a random salt and of what was said. So a text can be dropped, with its
salt, and the chain still verifies, while nothing is left that guesses could be tried against (decision record 0029).
What stands in its place is covered by the event that tells of the redaction. Events of the first layout have no
`said`: their digest covers the text itself.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from lumyn.incidents.model import Event
from schemas.canonical import decode_trusted, encode
from schemas.digests import digest, digest_of
from schemas.errors import BadInput, IntegrityError

REDACTED: Final = "redacted"
"""The kind of an event that tells of redactions: `{why, events: [{seq, left}]}`, `left` the digest of what is left."""
_SALT_BYTES = 32


@dataclass(frozen=True, slots=True)
class Stored:
    """An event and what its digest rests on. `salt` None, `said` not: it was redacted. Both None: the first layout."""

    event: Event
    salt: bytes | None
    said: str | None


def made(
    tenant: str, number: int, before: Event | None, at_ms: int, actor: str, kind: str, data: Mapping[str, Any]
) -> Stored:
    """The next event. Raises `BadInput` for text that can't be kept."""
    seq = 1 if before is None else before.seq + 1
    return chained(tenant, number, before, Event(seq, at_ms, actor, kind, data, ""), salt=os.urandom(_SALT_BYTES))


def chained(
    tenant: str, number: int, before: Event | None, event: Event, *, salt: bytes | None, said: str | None = None
) -> Stored:
    """An event with its digest, under a salt; of a redacted one (`said`, no salt), as it was covered before."""
    data = event.data
    try:
        covered = digest(salt + encode(data)) if salt is not None else said
        whole = _digest(tenant, number, before, event, {"data": data} if covered is None else {"said": covered})
    except (ValueError, UnicodeEncodeError):
        raise BadInput("this text is not Unicode that can be kept", help="write it in UTF-8") from None
    redacted = covered is not None and salt is None
    return Stored(Event(event.seq, event.at_ms, event.actor, event.kind, data, whole, redacted), salt, covered)


def left_of(data: Mapping[str, Any]) -> str:
    """The digest by which a redaction tells what is left of an event."""
    return digest_of(dict(data))


def read(
    tenant: str, number: int, rows: Sequence[tuple[int, int, str, str, bytes, str, bytes | None, str | None]]
) -> list[Stored]:
    """The events of rows (seq, at_ms, actor, kind, data, digest, salt, said) in order.

    Raises `IntegrityError` where one is not as it was said.
    """
    found: list[Stored] = []
    left: dict[int, str] = {}
    for seq, at_ms, actor, kind, data, told, salt, said in rows:
        before = found[-1].event if found else None
        event = Event(seq, at_ms, actor, kind, decode_trusted(data), told)
        one = chained(tenant, number, before, event, salt=salt, said=said)
        if seq != len(found) + 1 or one.event.digest != told or (said is not None and one.said != said):
            raise _changed(number, seq, "or one before it is gone")
        found.append(one)
        if kind == REDACTED:
            left |= {each["seq"]: each["left"] for each in one.event.data["events"]}
    for one in found:
        if one.event.redacted and left_of(one.event.data) != left.get(one.event.seq):
            raise _changed(number, one.event.seq, "and no redaction left it so")
    return found


def _changed(number: int, seq: int, how: str) -> IntegrityError:
    return IntegrityError(
        f"event {seq} is not as it was said, {how}", where=f"incident INC-{number}",
        help="the incidents' file was changed by something else than lumyn: restore it from a backup",
    )  # fmt: skip


def _digest(tenant: str, number: int, before: Event | None, event: Event, said: Mapping[str, Any]) -> str:
    return digest(
        encode(
            {
                "tenant": tenant, "number": number, "seq": event.seq, "at_ms": event.at_ms, "actor": event.actor,
                "kind": event.kind, **said, "before": None if before is None else before.digest,
            }
        )
    )  # fmt: skip


def redacted(
    tenant: str, number: int, events: Sequence[Stored], chosen: Mapping[int, Mapping[str, Any]]
) -> list[Stored]:
    """The events with other data in the chosen ones (by number), whose salts are dropped.

    An event of the first layout, and so each after it, gets a digest anew: the old one covers the text itself.
    """
    out: list[Stored] = []
    anew = False
    for one in events:
        event, salt, said = one.event, one.salt, one.said
        if said is None and (anew or event.seq in chosen):
            salt = os.urandom(_SALT_BYTES)
            said, anew = digest(salt + encode(event.data)), True
        if event.seq in chosen:
            event = Event(event.seq, event.at_ms, event.actor, event.kind, chosen[event.seq], event.digest, True)
            salt = None
        before = out[-1].event if out else None
        out.append(chained(tenant, number, before, event, salt=salt, said=said))
    return out
