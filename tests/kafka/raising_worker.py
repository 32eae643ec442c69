"""Runs `lumyn worker ...` with an engine that has a fault: requests with `evidence.boom` raise while they are decided.

No policy gets the engine to raise, as far as anybody knows; the fault is put in here, from outside.
"""

from __future__ import annotations

import sys
from typing import Any


def plant() -> None:
    import streams.deciding

    sound = streams.deciding.decide

    def decide(request: Any, *rest: Any) -> Any:
        if "boom" in (request.value.get("evidence") or {}):
            raise ZeroDivisionError("a fault of the engine")
        return sound(request, *rest)

    streams.deciding.decide = decide


if __name__ == "__main__":
    plant()
    sys.argv[0] = "lumyn"
    from lumyn.__main__ import main

    main()
