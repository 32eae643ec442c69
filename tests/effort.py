"""How many examples the slow generated tests make: enough for each change, many more with LUMYN_TEST_EFFORT=full."""

from __future__ import annotations

import os

FULL = os.environ.get("LUMYN_TEST_EFFORT") == "full"


def examples(count: int) -> int:
    """All of `count` where there is time for it (`make test-full`), else a quarter, and ten at least."""
    return count if FULL else max(10, count // 4)
