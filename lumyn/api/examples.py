"""Examples of what goes in and comes out, from a real run; a test holds them against the shapes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Final

EXAMPLES: Final[dict[str, Any]] = json.loads(Path(__file__).with_name("examples.json").read_text(encoding="utf-8"))
TEXTS: Final[dict[str, Any]] = EXAMPLES.pop("_texts")
