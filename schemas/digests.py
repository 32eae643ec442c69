"""The one digest: sha256, written `sha256:<hex>`."""

from __future__ import annotations

import hashlib
from typing import Any

from schemas.canonical import encode


def digest(data: bytes) -> str:
    """`sha256:<64 hex>` of bytes."""
    return "sha256:" + hashlib.sha256(data).hexdigest()


def digest_of(value: Any) -> str:
    """`sha256:<64 hex>` of a decoded value's canonical JSON (RFC 8785)."""
    return digest(encode(value, finite=True))
