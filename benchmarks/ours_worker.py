"""One measurement of Lumyn Streams: one task, one line of JSON, on the same work as `peer_worker.py`.

    python ours_worker.py TASK --n N --dir DIR [--labelled L]

Everything is written under `--dir`. Setting up and one warm-up round stay outside the timed part. Every decision is
fsynced before it counts.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import workload

from lumyn import LumynConfig, decide, decide_many
from lumyn.policy_file import load_policy_file
from lumyn.wiring import open_home

OURS, CANDIDATE, MEMORY = (workload.POLICIES / name for name in ("ours.yml", "ours_candidate.yml", "ours_memory.yml"))
Result = dict[str, Any]


def main() -> None:
    """Run one task and print its line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("task", choices=TASKS)
    parser.add_argument("--n", type=int, default=2000)
    parser.add_argument("--dir", type=Path, required=True)
    parser.add_argument("--labelled", type=int, default=10_000)
    options = parser.parse_args()
    options.dir.mkdir(parents=True, exist_ok=True)
    result = TASKS[options.task](options)
    sys.stdout.write(json.dumps({"task": options.task, **result}) + "\n")


def _config(options: argparse.Namespace, policy: Path = OURS) -> LumynConfig:
    return LumynConfig(policy_path=policy, home=options.dir / "home")


def _each(operation: Callable[[Any], object], items: list[Any]) -> Result:
    operation(items[0])
    start = time.perf_counter()
    for item in items[1:]:
        operation(item)
    return _rate(len(items) - 1, time.perf_counter() - start)


def _rate(n: int, seconds: float) -> Result:
    return {"n": n, "seconds": round(seconds, 4), "per_second": round(n / seconds, 1)}


def bench_decide(options: argparse.Namespace) -> Result:
    """One decision after the other, memory off, each fsynced."""
    config = _config(options)
    return _each(lambda request: decide(request, config=config), list(workload.requests(options.n + 1)))


def bench_decide_memory(options: argparse.Namespace) -> Result:
    """The same with memory on and labelled decisions in it; the timed requests are others than the labelled."""
    config = _config(options, MEMORY)
    _label_all(options, config)
    requests = list(workload.requests(options.n + 1, seed=workload.SEED + 1))
    return _each(lambda request: decide(request, config=config), requests)


def bench_decide_many(options: argparse.Namespace) -> Result:
    """A batch, memory off."""
    config = _config(options)
    decide_many(list(workload.requests(10, seed=1)), config=config)
    requests = list(workload.requests(options.n))
    start = time.perf_counter()
    decide_many(requests, config=config)
    return _rate(options.n, time.perf_counter() - start)


def bench_decide_many_memory(options: argparse.Namespace) -> Result:
    """A batch, memory on."""
    config = _config(options, MEMORY)
    _label_all(options, config)
    requests = list(workload.requests(options.n, seed=workload.SEED + 1))
    decide_many(requests[:10], config=config)
    start = time.perf_counter()
    decide_many(requests, config=config)
    return _rate(options.n, time.perf_counter() - start)


def bench_label(options: argparse.Namespace) -> Result:
    """One label after the other, each fsynced, the memory caught up at the end (inside the timed part)."""
    config = _config(options, MEMORY)
    requests = list(workload.requests(options.n + 1))
    records = decide_many(requests, config=config)
    home = open_home(config)
    from lumyn import label

    items = list(zip(records, requests, strict=True))

    def one(item: Any) -> None:
        label(item[0]["decision_id"], workload.label_of(item[1]), summary="benchmark", config=config)

    one(items[0])
    home.memory.store()
    start = time.perf_counter()
    for item in items[1:]:
        one(item)
    home.memory.store()
    return _rate(options.n, time.perf_counter() - start)


def bench_diff(options: argparse.Namespace) -> Result:
    """The diff of a data set of N records: reading, checking every digest, comparing, and the table."""
    import contextlib
    import io

    from lumyn.cli.diff import diff

    config = _config(options)
    decide_many(list(workload.requests(options.n)), config=config)
    lines = _record_lines(open_home(config))
    dataset = options.dir / "dataset.jsonl"
    dataset.write_bytes(b"\n".join(lines))
    with contextlib.redirect_stdout(io.StringIO()):
        start = time.perf_counter()
        code = diff(dataset, [CANDIDATE], False)
        seconds = time.perf_counter() - start
    if code not in (0, 1):
        raise SystemExit(f"diff had errors: exit {code}")
    return _rate(len(lines), seconds)


def bench_sqlite_floor(options: argparse.Namespace) -> Result:
    """What SQLite alone takes for one decision's rows: three inserts, a position, a commit with its fsync."""
    import sqlite3

    path = options.dir / "floor.db"
    db = sqlite3.connect(path, isolation_level=None)
    for statement in ("PRAGMA page_size=16384", "PRAGMA journal_mode=WAL", "PRAGMA synchronous=FULL"):
        db.execute(statement)
    for table in ("requests", "records", "receipts"):
        db.execute(f"CREATE TABLE {table} (pos INTEGER PRIMARY KEY, time_ms INTEGER, key BLOB, value BLOB)")
    db.execute("CREATE TABLE positions (p INTEGER PRIMARY KEY, position INTEGER)")
    rows = (("requests", b"x" * 680), ("records", b"x" * 2100), ("receipts", b"x" * 400))
    start = time.perf_counter()
    for n in range(options.n):
        db.execute("BEGIN IMMEDIATE")
        for table, value in rows:
            db.execute(f"INSERT INTO {table} VALUES (?, ?, ?, ?)", (n, 1, None, value))
        db.execute("INSERT OR REPLACE INTO positions VALUES (0, ?)", (n,))
        db.execute("COMMIT")
    return _rate(options.n, time.perf_counter() - start)


def bench_decide_not_durable(options: argparse.Namespace) -> Result:
    """`decide` without the fsync: what is left is our own work and SQLite's."""
    config = LumynConfig(policy_path=OURS, home=options.dir / "home", durable=False)
    return _each(lambda request: decide(request, config=config), list(workload.requests(options.n + 1)))


def bench_bytes(options: argparse.Namespace) -> Result:
    """Bytes on disk a stored decision: requests, records, receipts and the record index."""
    import sqlite3

    config = _config(options)
    decide_many(list(workload.requests(options.n)), config=config)
    home = open_home(config)
    home.index()
    sizes = {}
    for name in ("lumyn.db", "index.db"):
        path = home.path / name
        with sqlite3.connect(path) as db:
            db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        sizes[name] = path.stat().st_size / options.n
    record = len(_record_lines(home)[0])
    return {
        "n": options.n,
        "bytes_per_record": round(sum(sizes.values())),
        "parts": {k: round(v) for k, v in sizes.items()},
        "record_json": record,
    }


def _record_lines(home: Any) -> list[bytes]:
    lines = []
    for partition in range(home.log.partitions("records")):
        lines += [m.value for m in home.log.read("records", partition, 0, 10**9)]
    return lines


def bench_rules(options: argparse.Namespace) -> Result:
    """Evaluations a second with 10 and with 1,000 rules of the same kind, and the ratio of their costs."""
    costs = {count: _evaluation_cost(options, count) for count in (10, 1000)}
    return {
        "n": options.n,
        "us_10": round(costs[10] * 1e6, 3),
        "us_1000": round(costs[1000] * 1e6, 3),
        "ratio": round(costs[1000] / costs[10], 3),
    }


def _evaluation_cost(options: argparse.Namespace, rules: int) -> float:
    path = options.dir / f"rules{rules}.yml"
    types = ["support.refund", "support.cancel"] + [f"other.action_{n}" for n in range(rules // 5 - 2)]
    text = ["policy: many", "rules:"]
    for n in range(rules):
        text += [
            f"  - id: R{n}",
            f"    if: {{action_type: {types[n % len(types)]}, chargeback_risk: {{gte: {0.5 + n / 10000}}}}}",
            "    then: {verdict: ESCALATE, reason_codes: [R]}",
        ]
    path.write_text("\n".join(text))
    policy = load_policy_file(path)
    requests = list(workload.requests(200))
    best = []
    for _ in range(7):
        start = time.perf_counter()
        for _ in range(max(1, options.n // 200)):
            for request in requests:
                policy.evaluate(request, time_ms=0)
        best.append((time.perf_counter() - start) / (max(1, options.n // 200) * 200))
    return statistics.median(best)


def _label_all(options: argparse.Namespace, config: LumynConfig) -> None:
    """Set up: L decisions with their labels, the memory caught up."""
    requests = list(workload.requests(options.labelled))
    records = decide_many(requests, config=config)
    home = open_home(config)
    asked: list[Any] = [
        {
            "event_id": f"e{n}",
            "decision_id": record["decision_id"],
            "tenant": record["tenant"],
            "type": "label",
            "label": workload.label_of(request),
            "summary": "benchmark",
            "actor": "bench",
        }
        for n, (record, request) in enumerate(zip(records, requests, strict=True))
        if isinstance(record, dict)
    ]
    home.labels.label(asked)
    home.memory.store()


def bench_cli(options: argparse.Namespace, arguments: list[str], stdin: bytes | None = None) -> Result:
    """Whole-process wall time of a command; the median of N."""
    env = {**os.environ, "LUMYN_HOME": str(options.dir / "home"), "LUMYN_POLICY": str(OURS)}
    command = [str(Path(sys.executable).with_name("lumyn")), *arguments]
    times = []
    for _ in range(options.n + 1):
        start = time.perf_counter()
        subprocess.run(command, env=env, input=stdin, stdout=subprocess.DEVNULL, check=True)
        times.append(time.perf_counter() - start)
    return {"n": options.n, "seconds": round(statistics.median(times[1:]), 4)}


def bench_cli_help(options: argparse.Namespace) -> Result:
    """`lumyn --help`."""
    return bench_cli(options, ["--help"])


def bench_cli_show(options: argparse.Namespace) -> Result:
    """`lumyn show ID`."""
    record = decide(next(iter(workload.requests(1))), config=_config(options))
    return bench_cli(options, ["show", record["decision_id"]])


def bench_cli_decide(options: argparse.Namespace) -> Result:
    """`lumyn decide -`."""
    return bench_cli(options, ["decide", "-"], json.dumps(next(iter(workload.requests(1)))).encode())


TASKS: dict[str, Callable[[argparse.Namespace], Result]] = {
    "decide": bench_decide,
    "decide_memory": bench_decide_memory,
    "decide_many": bench_decide_many,
    "decide_many_memory": bench_decide_many_memory,
    "label": bench_label,
    "diff": bench_diff,
    "bytes": bench_bytes,
    "sqlite_floor": bench_sqlite_floor,
    "decide_not_durable": bench_decide_not_durable,
    "rules": bench_rules,
    "cli_help": bench_cli_help,
    "cli_show": bench_cli_show,
    "cli_decide": bench_cli_decide,
}

if __name__ == "__main__":
    main()
