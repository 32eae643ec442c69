"""An address of the console, as each page's module declares its own."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from starlette.responses import Response

from lumyn.console.visit import Visit

MAX_FORM_BYTES: Final = 64 * 1024
Handler = Callable[[Visit], Response]


@dataclass(frozen=True, slots=True)
class Page:
    """An address. `role` is what a visitor needs; `method` POST changes something, or takes its time; `most`: bytes."""

    path: str
    role: str
    handler: Handler
    method: str = "GET"
    most: int = MAX_FORM_BYTES
