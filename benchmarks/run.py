"""`make bench`: Lumyn Streams beside `lumyn==1.3.6`, the same work in one run, ratios in a table and a JSON file.

The peer is installed into a virtual environment of its own (bench-out/peer-venv; it needs about 700 MB). Each pair of
tasks runs peer, ours, peer, ours, ...; the ratio is of the medians.
"""

from __future__ import annotations

import argparse
import json
import platform
import shutil
import statistics
import subprocess
import sys
import tempfile
import venv
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
OUT = HERE.parent / "bench-out"
PEER = "lumyn==1.3.6"

# (what, our task with its size, the peer's task with its size, which figure, target ratio or bound, rounds)
PAIRS: list[tuple[str, list[str], list[str], str, str, int]] = [
    ("decide, fsynced, memory off", ["decide", "--n", "3000"], ["decide", "--n", "200"], "per_second", ">= 25x", 3),
    ("decide_many", ["decide_many", "--n", "10000"], ["decide", "--n", "200"], "per_second", ">= 100x", 3),
    ("decide, memory of 10,000 labels", ["decide_memory", "--n", "800"], ["decide_memory", "--n", "60"], "per_second", ">= 40x", 3),
    ("decide_many, memory of 10,000 labels", ["decide_many_memory", "--n", "3000"], ["decide_memory", "--n", "60"], "per_second", "-", 1),
    ("diff", ["diff", "--n", "20000"], ["diff", "--n", "1500"], "per_second", ">= 50x", 3),
    ("label", ["label", "--n", "2000"], ["label", "--n", "150"], "per_second", ">= 25x", 3),
    ("bytes per stored record", ["bytes", "--n", "5000"], ["bytes", "--n", "1500"], "bytes_per_record", "<= 3,260 B", 1),
    ("lumyn --help, seconds", ["cli_help", "--n", "7"], ["cli_help", "--n", "3"], "seconds", "<= 0.3 s", 1),
    ("lumyn show, seconds", ["cli_show", "--n", "7"], ["cli_show", "--n", "3"], "seconds", "<= 0.5 s", 1),
    ("lumyn decide, seconds", ["cli_decide", "--n", "7"], ["cli_decide", "--n", "3"], "seconds", "<= 0.5 s", 1),
]  # fmt: skip


def main() -> None:
    """Run every pair, print the table, write bench-out/results.json."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", help="tasks whose name contains this")
    parser.add_argument("--peer-python", type=Path, help="an interpreter that has the peer (default: install it)")
    options = parser.parse_args()
    OUT.mkdir(exist_ok=True)
    peer = options.peer_python or _peer_python()
    rows = []
    for what, ours, theirs, figure, target, rounds in PAIRS:
        if options.only and options.only not in what:
            continue
        row = _pair(what, ours, theirs, figure, target, rounds, peer)
        rows.append(row)
        sys.stdout.write(_line(row) + "\n")
        sys.stdout.flush()
    rules = _run(Path(sys.executable), "ours_worker.py", ["rules", "--n", "4000"])
    sys.stdout.write(
        f"1,000 rules cost {rules['ratio']}x the time of 10 ({rules['us_10']} and {rules['us_1000']} us)\n"
    )
    result = {"at": datetime.now(UTC).isoformat(timespec="seconds"), "python": platform.python_version(),
              "peer": PEER, "rows": rows, "rules": rules}  # fmt: skip
    (OUT / "results.json").write_text(json.dumps(result, indent=2) + "\n")
    _table(rows)


def _pair(
    what: str, ours: list[str], theirs: list[str], figure: str, target: str, rounds: int, peer: Path
) -> dict[str, Any]:
    mine, others = [], []
    for _ in range(rounds):
        others.append(_run(peer, "peer_worker.py", theirs)[figure])
        mine.append(_run(Path(sys.executable), "ours_worker.py", ours)[figure])
    a, b = statistics.median(mine), statistics.median(others)
    return {"what": what, "figure": figure, "ours": a, "peer": b, "ratio": round(a / b, 3), "target": target,
            "ours_all": mine, "peer_all": others}  # fmt: skip


def _run(python: Path, script: str, arguments: list[str]) -> dict[str, Any]:
    with tempfile.TemporaryDirectory(prefix="lumyn-bench-") as folder:
        command = [str(python), script, *arguments, "--dir", str(Path(folder) / "work")]
        done = subprocess.run(command, cwd=HERE, capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"{' '.join(command)} failed:\n{done.stdout}{done.stderr}")
    result: dict[str, Any] = json.loads(done.stdout.strip().splitlines()[-1])
    return result


def _peer_python() -> Path:
    python = OUT / "peer-venv" / "bin" / "python"
    if not python.exists():
        sys.stdout.write(f"installing {PEER} into its own environment\n")
        folder = OUT / "peer-venv"
        shutil.rmtree(folder, ignore_errors=True)
        venv.create(folder, with_pip=True)
        subprocess.run([str(python), "-m", "pip", "install", "--quiet", PEER], check=True)
    return python


def _line(row: dict[str, Any]) -> str:
    return f"{row['what']}: ours {row['ours']:,}, peer {row['peer']:,}, ratio {row['ratio']}, target {row['target']}"


def _table(rows: list[dict[str, Any]]) -> None:
    sys.stdout.write("\n| | ours | peer | ratio | target |\n|---|---|---|---|---|\n")
    for row in rows:
        sys.stdout.write(f"| {row['what']} | {row['ours']:,} | {row['peer']:,} | {row['ratio']}x | {row['target']} |\n")


if __name__ == "__main__":
    main()
