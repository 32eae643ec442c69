"""Answers of the HTTP app."""

from __future__ import annotations

from typing import Any

from fastapi import Response

from schemas.canonical import encode


def json_answer(value: Any, status: int = 200) -> Response:
    """A JSON answer in the canonical form."""
    return Response(encode(value, finite=True), status, media_type="application/json")
