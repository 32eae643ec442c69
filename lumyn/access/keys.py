"""An API key: a public id, and 256 random bits of which only a digest is kept.

The secret is random and long, not chosen by a person, so nobody can guess it from its digest: a plain SHA-256 is as
good as a slow password hash there, and takes a microsecond of each request (decision record 0020).
"""

from __future__ import annotations

import hashlib
import hmac
import re
import secrets
from dataclasses import dataclass
from typing import Final

from lumyn.access.rates import Rate

PREFIX: Final = "lumyn"
_KEY = re.compile(r"lumyn_([0-9a-f]{12})_([A-Za-z0-9_-]{43})\Z", re.ASCII)
_NO_DIGEST: Final = bytes(32)


@dataclass(frozen=True, slots=True)
class ApiKey:
    """A key as it is kept. Times are milliseconds since 1970; `digest` is the SHA-256 of the whole key."""

    key_id: str
    digest: bytes
    tenant: str
    roles: frozenset[str]
    name: str
    rate: Rate | None
    created_ms: int
    expires_ms: int | None
    revoked_ms: int | None

    def state(self, now_ms: int) -> str:
        """`active`, `expired` or `revoked`."""
        if self.revoked_ms is not None:
            return "revoked"
        return "expired" if self.expires_ms is not None and now_ms >= self.expires_ms else "active"


def new_key() -> tuple[str, str, bytes]:
    """A new key: its id, the key itself (told once), its digest."""
    key_id = secrets.token_hex(6)
    key = f"{PREFIX}_{key_id}_{secrets.token_urlsafe(32)}"
    return key_id, key, digest_of(key)


def id_in(key: str) -> str | None:
    """The public id in a key; None for what can't be one of ours."""
    found = _KEY.match(key)
    return found[1] if found else None


def digest_of(key: str) -> bytes:
    """What is kept of a key."""
    return hashlib.sha256(key.encode("utf-8", "surrogateescape")).digest()


def is_same(key: str, kept: ApiKey | None) -> bool:
    """Whether a key is the one that is kept; how long that takes does not depend on where they differ."""
    return hmac.compare_digest(digest_of(key), kept.digest if kept else _NO_DIGEST) and kept is not None
