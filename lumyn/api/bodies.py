"""Small JSON bodies: an object of known keys."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from schemas.canonical import decode
from schemas.errors import BadInput
from schemas.limits import MAX_BODY_BYTES


def json_object(
    body: bytes, known: Sequence[str], *, empty: bool = False, limit: int = MAX_BODY_BYTES
) -> dict[str, Any]:
    """A body that is an object; with `empty` no body is one without keys. Raises `BadInput`."""
    value = {} if empty and not body.strip() else decode(body, where="body", limit=limit)
    if not isinstance(value, dict):
        raise BadInput("the body is a JSON object", where="body")
    unknown = sorted(set(value) - set(known))
    if unknown:
        raise BadInput(f"unknown key `{unknown[0]}`", where="body", help=f"known: {', '.join(known)}")
    return value


def text_of(body: Mapping[str, Any], name: str) -> str | None:
    """A text of a body, None where it is absent or null. Raises `BadInput` for anything else."""
    value = body.get(name)
    if value is not None and not isinstance(value, str):
        raise BadInput(f"`{name}` must be text", where="body")
    return value
