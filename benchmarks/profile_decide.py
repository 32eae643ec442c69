"""Where a decision's time goes: the same requests, with cProfile, as a table of the steps (shares, not speeds).

python benchmarks/profile_decide.py [--memory]
"""

from __future__ import annotations

import argparse
import cProfile
import pstats
import sys
import tempfile
from pathlib import Path
from typing import Any

import ours_worker
import workload

from lumyn import decide

STEPS = {
    "the whole decision": ("sdk.py", "decide"),
    "settings, home": ("wiring.py", "open_home"),
    "parse, check, canonical, digests": ("request.py", "parse_request"),
    "evaluate rules, seal the record": ("decide.py", "decide"),
    "recall: vectors": ("vectoriser.py", "vectorise"),
    "recall: search": ("sqlite_store.py", "search"),
    "recall: in all": ("recaller.py", "recall"),
    "SQLite statements, commit and fsync": ("~", "<method 'execute' of 'sqlite3.Connection' objects>"),
    "SQLite inserts": ("~", "<method 'executemany' of 'sqlite3.Connection' objects>"),
}


def main() -> None:
    """Profile 1,000 decisions and print each step's share."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--memory", action="store_true", help="with 10,000 labelled decisions")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="lumyn-profile-") as folder:
        namespace = argparse.Namespace(dir=Path(folder), labelled=10_000)
        config = ours_worker._config(namespace, ours_worker.MEMORY if options.memory else ours_worker.OURS)
        if options.memory:
            ours_worker._label_all(namespace, config)
        requests = list(workload.requests(1_001, seed=workload.SEED + 1))
        decide(requests[0], config=config)
        profile = cProfile.Profile()
        profile.enable()
        for request in requests[1:]:
            decide(request, config=config)
        profile.disable()
    stats: Any = pstats.Stats(profile)
    found = {name: _cumulative(stats, *where) for name, where in STEPS.items()}
    whole = found["the whole decision"]
    for name, seconds in found.items():
        if seconds:
            sys.stdout.write(f"{name:40s} {seconds / whole:6.1%}\n")


def _cumulative(stats: Any, file: str, function: str) -> float:
    return float(
        sum(row[3] for (path, _, name), row in stats.stats.items() if Path(path).name == file and name == function)
    )


if __name__ == "__main__":
    main()
