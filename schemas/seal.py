"""Sealing: the personal part of what is stored, under a key of its subject's own. Pure: no key store, no randomness.

Every box is AES-SIV (RFC 5297): the same content under the same key is the same bytes, so that what is decided again
is stored again byte for byte, a retry has the digest of its first, and no nonce can be used twice. A digest over a box
says nothing about its content to anyone without the key.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from schemas.canonical import decode_trusted, encode
from schemas.errors import IntegrityError

SCHEMA: Final = "lumyn.sealed/1"
KEY_BYTES: Final = 32
_KID = r"s-[0-9a-f]{32}"
KID: Final = re.compile(rf"{_KID}\Z")
"""A subject's pseudonym: random, so that nothing leads back from it once its key is gone."""
_TOKEN = re.compile(rf"sealed:1:({_KID}):([A-Za-z0-9_-]+={{0,2}})\Z")
_TAG_BYTES = 16
_LONGEST_CURRENCY = 8
_SUMS = ("amount_usd",)
"""What of a rule's trace stays in clear: the amount, which is in clear itself, in the currency that it is summed in."""
_IN_CLEAR = ("request_id", "policy", "provenance")


@dataclass(frozen=True, slots=True)
class Opening:
    """What opens one request and the record of its decision, and nothing else of its subject.

    `inputs` keys the `inputs_digest`; a pack is without it, as it would serve for guessing at others' inputs.
    """

    kid: str
    key: bytes = field(repr=False)
    inputs: bytes | None = field(default=None, repr=False)


class OpenRecord(dict[str, Any]):
    """A sealed record with its personal part put back. `stored` is what the log holds and the digest covers."""

    __slots__ = ("opening", "stored")

    def __init__(self, value: Mapping[str, Any], stored: Mapping[str, Any], opening: Opening) -> None:
        super().__init__(value)
        self.stored = stored
        self.opening = opening


class ClosedRecord(dict[str, Any]):
    """A sealed record as it is stored, because nothing here opens it. `erased`: nothing ever will."""

    __slots__ = ("erased",)

    def __init__(self, stored: Mapping[str, Any], erased: bool) -> None:
        super().__init__(stored)
        self.erased = erased


def stored_of(record: Mapping[str, Any]) -> Mapping[str, Any]:
    """A record as the log holds it."""
    return record.stored if isinstance(record, OpenRecord) else record


def is_envelope(request: Any) -> bool:
    """Whether a request's personal part is sealed."""
    if request.__class__ is dict and "sealed" not in request:
        return False  # most are, and asking for an abstract class costs more than the rest of this
    return isinstance(request, Mapping) and isinstance(request.get("sealed"), Mapping)


def is_sealed(record: Mapping[str, Any]) -> bool:
    """Whether a record's personal part is sealed, and not put back."""
    return is_envelope(record.get("request"))


def kid_of(request: Mapping[str, Any]) -> str:
    """The pseudonym of an envelope's subject. Raises `IntegrityError` where there is none."""
    subject = request.get("subject")
    kid = subject.get("id") if isinstance(subject, Mapping) else None
    if not isinstance(kid, str) or not KID.match(kid):
        raise IntegrityError("the sealed request names no subject key")
    return kid


# requests


def seal_request(value: Mapping[str, Any], canonical: bytes, kid: str, key: bytes) -> tuple[dict[str, Any], Opening]:
    """The envelope of a request, and what opens it. `canonical` are the request's canonical bytes."""
    tag = hmac.digest(_derived(key, "tag"), canonical, "sha256")[:_TAG_BYTES]
    opening = _opening(kid, key, tag)
    clear = _clear_part(value, kid)
    boxed = box(opening.key, canonical, encode(clear))
    return {**clear, "sealed": {"schema": SCHEMA, "tag": _text(tag), "box": _text(boxed)}}, opening


def opening_of(envelope: Mapping[str, Any], key: bytes) -> Opening:
    """What opens an envelope, from its subject's key. Raises `IntegrityError`."""
    return _opening(kid_of(envelope), key, _bytes(envelope["sealed"].get("tag")))


def open_request(envelope: Mapping[str, Any], opening: Opening) -> bytes:
    """The canonical bytes of a sealed request. Raises `IntegrityError` when they are not what was sealed."""
    sealed = envelope["sealed"]
    if sealed.get("schema") != SCHEMA:
        raise IntegrityError(f"the request is sealed as `{sealed.get('schema')}`, not `{SCHEMA}`")
    clear = {name: value for name, value in envelope.items() if name != "sealed"}
    canonical = unbox(opening.key, _bytes(sealed.get("box")), encode(clear))
    if clear != _clear_part(decode_trusted(canonical), opening.kid):
        raise IntegrityError("the sealed request is not the one that its clear part names")
    return canonical


def keyed_digest(opening: Opening, inputs: bytes) -> str | None:
    """The `inputs_digest` of a sealed request: nobody can guess at inputs without the key. None: no key for it."""
    if opening.inputs is None:
        return None
    return "sha256:" + hmac.digest(opening.inputs, inputs, "sha256").hex()


def _opening(kid: str, key: bytes, tag: bytes) -> Opening:
    return Opening(kid, _derived(key, "request", tag), _derived(key, "inputs"))


def _clear_part(value: Mapping[str, Any], kid: str) -> dict[str, Any]:
    """What filters, sums and retries need (docs/forgetting.md has the list); the subject is its pseudonym."""
    action: dict[str, Any] = {"type": value["action"]["type"]}
    amount = value["action"].get("amount")
    if _is_amount(amount):
        action["amount"] = amount
    clear = {"tenant": value["tenant"], "subject": {"type": value["subject"]["type"], "id": kid}, "action": action}
    return clear | {name: value[name] for name in _IN_CLEAR if value.get(name) is not None}


def _is_amount(amount: Any) -> bool:
    """A number, or a number with a currency: what else an amount may hold could be anything."""
    if isinstance(amount, Mapping):
        currency = amount.get("currency", "")
        if set(amount) - {"value", "currency"} or not isinstance(currency, str) or len(currency) > _LONGEST_CURRENCY:
            return False
        amount = amount.get("value")
    return isinstance(amount, int | float) and not isinstance(amount, bool)


OPENING: Final = "opening"
"""Beside a record that is given away: what opens this one (`Opening.key` in base64). It is no part of the record."""


def opening_text(opening: Opening) -> str:
    """What opens one decision, to be given away with it."""
    return _text(opening.key)


def opening_from(text: Any, record: Mapping[str, Any]) -> Opening:
    """What came with a record. Raises `IntegrityError`."""
    return Opening(kid_of(record["request"]), _bytes(text))


# records


def seal_record(record: Mapping[str, Any], envelope: Mapping[str, Any], opening: Opening) -> dict[str, Any]:
    """A record as it is stored: the envelope for its request, and in one box what its rules quote."""
    rules = record["matched_rules"]
    personal = {
        "facts": [rule["facts"] for rule in rules],
        "obligations": record["obligations"],
        "queries": record["queries"],
    }
    boxed = box(_derived(opening.key, "record"), encode(personal), record["decision_id"].encode())
    return {
        **record,
        "request": envelope,
        "matched_rules": [{**rule, "facts": [f for f in rule["facts"] if f["fact"] in _SUMS]} for rule in rules],
        "obligations": [],
        "queries": [],
        "sealed": _text(boxed),
    }


def open_record(stored: Mapping[str, Any], opening: Opening) -> OpenRecord:
    """A stored record with its personal part put back. Raises `IntegrityError` when it is not what was sealed."""
    request = decode_trusted(open_request(stored["request"], opening))
    personal = decode_trusted(
        unbox(_derived(opening.key, "record"), _bytes(stored.get("sealed")), str(stored["decision_id"]).encode())
    )
    rules = stored["matched_rules"]
    if len(personal["facts"]) != len(rules):
        raise IntegrityError("the sealed facts are not those of the record's rules")
    value = {
        **{name: part for name, part in stored.items() if name != "sealed"},
        "request": request,
        "matched_rules": [{**rule, "facts": facts} for rule, facts in zip(rules, personal["facts"], strict=True)],
        "obligations": personal["obligations"],
        "queries": personal["queries"],
    }
    return OpenRecord(value, stored, opening)


# labels


def is_token(text: Any) -> bool:
    """Whether a text is a sealed one."""
    return isinstance(text, str) and _TOKEN.match(text) is not None


def token_kid(text: str) -> str:
    """The pseudonym under whose key a text is sealed."""
    found = _TOKEN.match(text)
    assert found is not None
    return found[1]


def seal_text(data: bytes, kid: str, key: bytes, *about: str) -> str:
    """Bytes as a sealed text that says whose it is. `about` binds it to its place: elsewhere it does not open."""
    boxed = box(_derived(key, "label"), data, *(part.encode() for part in about))
    return f"sealed:1:{kid}:{_text(boxed)}"


def open_text(token: str, key: bytes, *about: str) -> bytes:
    """The bytes in a sealed text. Raises `IntegrityError`."""
    found = _TOKEN.match(token)
    if found is None:
        raise IntegrityError("this is no sealed text")
    return unbox(_derived(key, "label"), _bytes(found[2]), *(part.encode() for part in about))


# boxes


def _derived(key: bytes, purpose: str, more: bytes = b"") -> bytes:
    """64 bytes for one purpose (HMAC-SHA512 as a key derivation, NIST SP 800-108 in its simplest form)."""
    return hmac.digest(key, f"{SCHEMA}\n{purpose}\n".encode() + more, hashlib.sha512)


def box(key: bytes, data: bytes, *about: bytes) -> bytes:
    """Bytes, not empty, under a key of 64 bytes; `about` is authenticated with them."""
    return bytes(_siv(key).encrypt(data, list(about)))


def unbox(key: bytes, boxed: bytes, *about: bytes) -> bytes:
    """The bytes in a box. Raises `IntegrityError`."""
    from cryptography.exceptions import InvalidTag

    try:
        return bytes(_siv(key).decrypt(boxed, list(about)))
    except (InvalidTag, ValueError):
        raise IntegrityError("what is sealed was changed, or sealed under another key") from None


def _siv(key: bytes) -> Any:
    from cryptography.hazmat.primitives.ciphers.aead import AESSIV  # not needed where nothing is sealed

    return AESSIV(key)


def _text(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).decode("ascii")


def _bytes(text: Any) -> bytes:
    try:
        return base64.b64decode(text, altchars=b"-_", validate=True)
    except (binascii.Error, ValueError, TypeError):
        raise IntegrityError("what is sealed can't be read") from None

