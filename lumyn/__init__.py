"""The front door: `from lumyn import decide, LumynConfig`. Importing it loads nothing heavy."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from lumyn.config import LumynConfig
    from lumyn.sdk import (
        backtest,
        counterfactuals,
        decide,
        decide_many,
        drain,
        explain,
        export,
        label,
        replay,
        show,
        submit,
    )
    from schemas.errors import LumynError

__version__ = "0.1.0"
__all__ = [
    "LumynConfig",
    "LumynError",
    "backtest",
    "counterfactuals",
    "decide",
    "decide_many",
    "drain",
    "explain",
    "export",
    "label",
    "replay",
    "show",
    "submit",
]

_HOMES = {"LumynConfig": "lumyn.config", "LumynError": "schemas.errors"}


def __getattr__(name: str) -> Any:
    if name in __all__:
        return getattr(importlib.import_module(_HOMES.get(name, "lumyn.sdk")), name)
    raise AttributeError(f"module `lumyn` has no attribute `{name}`")
