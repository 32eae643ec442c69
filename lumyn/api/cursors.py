"""Where a page of a list ended: opaque to the client, and good for the same list only.

It names the last decision of the page, so that new decisions move nothing; and a digest of the tenant, filters and
order that it belongs to. Nothing in it is secret or trusted: it is checked, and the tenant comes from the key.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Iterable

from memory_service.record_index import Cursor
from schemas.canonical import decode, encode
from schemas.digests import digest
from schemas.errors import LumynError, UsageError
from schemas.ids import is_decision_id

_HELP = "start again without `cursor`, or use `next_cursor` as it came, with the same parameters"
_MOST_CHARS = 256


def cursor_text(after: str, listed: str) -> str:
    """The cursor after a decision, in the list that `list_digest` names."""
    return base64.urlsafe_b64encode(encode([1, after, listed])).decode().rstrip("=")


def cursor_in(text: str, listed: str) -> Cursor:
    """The decision after which to go on. Raises `UsageError`."""
    try:
        if len(text) > _MOST_CHARS:
            raise ValueError
        raw = base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True)
        found = decode(raw, where="cursor")
    except (ValueError, binascii.Error, LumynError):
        found = None
    if not isinstance(found, list) or len(found) != 3 or found[0] != 1 or not isinstance(found[1], str):
        raise UsageError("this is no cursor", where="cursor", help=_HELP)
    if not is_decision_id(found[1]):
        raise UsageError("this is no cursor", where="cursor", help=_HELP)
    if found[2] != listed:
        raise UsageError("this cursor belongs to another list", where="cursor", help=_HELP)
    return Cursor(found[1])


def list_digest(what: str, tenant: str, parameters: Iterable[tuple[str, str]]) -> str:
    """What a cursor is good for: a short digest of a list's tenant and filters, in any order."""
    return digest(encode([what, tenant, sorted(map(list, parameters))])).removeprefix("sha256:")[:16]
