"""One measurement of the peer, `lumyn==1.3.6`, run by the peer's own interpreter: one task, one line of JSON.

    PEER_PYTHON peer_worker.py TASK --n N --dir DIR [--seconds S] [--labelled L] [--chunk C] [--model-dir M]

Everything is written under `--dir`, which should be new for every run. Setting up (making decisions to label
or to diff, filling the memory) and one warm-up round stay outside the timed part. The line says `task`, `n`
(operations that were timed: fewer than asked for when `--seconds` ran out), `seconds`, `per_second`, `note`,
and what else the task measured.

The peer's embedder fetches its model from a hub on first use, which this benchmark never does. Without
`--model-dir` a stand-in gives each text a fixed unit vector of the same width in microseconds: everything
else the peer does with memory is its own code, so such a figure is an upper bound of its speed. With
`--model-dir` (a folder with `model_optimized.onnx`, `tokenizer.json` and the config files beside it) the
peer's unchanged embedding code loads that model, as often as it chooses to.
"""

from __future__ import annotations

import argparse
import contextlib
import functools
import io
import itertools
import json
import os
import sqlite3
import statistics
import subprocess
import sys
import time
import zlib
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import workload

# isort: off
# Which `lumyn` modules count as first-party would depend on the project's own: the peer has the same name.

os.environ["HF_HUB_OFFLINE"] = "1"

JsonObject = dict[str, Any]
WIDTH = 384
CLI_MARK = "--peer-cli"
POLICY = workload.POLICIES / "peer.yml"
CANDIDATE = workload.POLICIES / "peer_candidate.yml"


@dataclass(frozen=True)
class Options:
    """What the command line asked for."""

    n: int
    home: Path
    seconds: float
    labelled: int
    chunk: int
    model_dir: Path | None

    @property
    def embedder(self) -> str:
        return f"onnx:{self.model_dir.name}" if self.model_dir else "stand-in"


@dataclass(frozen=True)
class Timing:
    """How many operations took how long, in seconds of wall clock."""

    n: int
    seconds: float


def main() -> None:
    if sys.argv[1:2] == [CLI_MARK]:
        _peer_cli(Path(sys.argv[2]) if sys.argv[2] else None, sys.argv[3:])
        return
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("task", choices=TASKS)
    parser.add_argument("--n", type=int, default=200, help="operations to time")
    parser.add_argument("--dir", type=Path, required=True, help="folder for everything that is written")
    parser.add_argument("--seconds", type=float, default=60.0, help="stop timing after this long")
    parser.add_argument("--labelled", type=int, default=10_000, help="labelled decisions in memory")
    parser.add_argument("--chunk", type=int, default=0, help="labels written to memory at once; 0: all")
    parser.add_argument("--model-dir", type=Path, help="an ONNX embedding model for the peer to load")
    args = parser.parse_args()
    if args.n < 1:
        parser.error("--n must be at least 1")
    home = args.dir.resolve()
    home.mkdir(parents=True, exist_ok=True)
    options = Options(args.n, home, args.seconds, args.labelled, args.chunk, args.model_dir)
    timing, extra = TASKS[args.task](options)
    line = {
        "task": args.task,
        "n": timing.n,
        "seconds": round(timing.seconds, 6),
        "per_second": round(timing.n / timing.seconds, 3),
        **extra,
    }
    print(json.dumps(line))


# --- tasks --------------------------------------------------------------------------------------------------


def decide(options: Options) -> tuple[Timing, JsonObject]:
    """The SDK as shipped: policy and paths in a config, memory off."""
    import lumyn

    config = lumyn.LumynConfig(policy_path=POLICY, store_path=options.home / "lumyn.db", memory_enabled=False)
    return _time_decide(options, functools.partial(lumyn.decide, config=config), "decide(request, config=)")


def decide_tuned(options: Options) -> tuple[Timing, JsonObject]:
    """The fastest that its public arguments allow: policy parsed once, store given, database kept open."""
    note = "decide(request, config=, store=, loaded_policy=), one more connection to the database kept open"
    with _kept_open(options.home / "lumyn.db"):
        return _time_decide(options, _tuned_decide(options.home), note)


def decide_memory(options: Options) -> tuple[Timing, JsonObject]:
    """The SDK as shipped with memory on, over `--labelled` experiences."""
    import lumyn

    _use_embedder(options.model_dir)
    _fill_memory(options)
    config = lumyn.LumynConfig(
        policy_path=POLICY, store_path=options.home / "lumyn.db", memory_path=options.home / "memory"
    )
    timing, extra = _time_decide(
        options, functools.partial(lumyn.decide, config=config), "decide(request, config=), memory on"
    )
    return timing, {
        **extra,
        "labelled": options.labelled,
        "chunk": options.chunk or options.labelled,
        "embedder": options.embedder,
    }


def diff(options: Options) -> tuple[Timing, JsonObject]:
    """The body of `lumyn diff`, in this process: read the data set, decide each again, print the table."""
    import typer
    from lumyn.cli.commands import diff as command

    dataset = options.home / "dataset.json"
    dataset.write_text(json.dumps(_make_records(options.home, options.n)), encoding="utf-8")
    printed = io.StringIO()
    start = time.perf_counter()
    with contextlib.redirect_stdout(printed), contextlib.suppress(typer.Exit):
        command.main(dataset=dataset, policy=CANDIDATE, verbose=False)
    elapsed = time.perf_counter() - start
    lines = [" ".join(line.split()) for line in printed.getvalue().splitlines()]
    summary = [line for line in lines if line.startswith(("Same", "Changes", "Errors"))]
    if any(line.startswith("Errors") for line in summary):
        raise SystemExit(f"error: the peer could not decide every record again: {summary}")
    return Timing(options.n, elapsed), {
        "note": "in-process command function, reading and printing included, start-up not; one JSON array",
        "summary": ", ".join(summary),
    }


def label(options: Options) -> tuple[Timing, JsonObject]:
    """The body of `lumyn label`, in this process, on decisions made beforehand."""
    from lumyn.cli.commands import label as command

    _use_embedder(options.model_dir)
    _make_workspace(options.home)
    records = _make_records(options.home, options.n + 1)
    outcomes = [workload.label_of(record["request"]) for record in records]

    def one(item: tuple[JsonObject, str]) -> None:
        with contextlib.redirect_stdout(io.StringIO()):
            command.main(item[0]["decision_id"], label=item[1], summary="bench", workspace=options.home)

    timing = _time_each(one, zip(records, outcomes, strict=True), options.seconds)
    return timing, {
        "note": "in-process command function, start-up not included",
        "embedder": options.embedder,
    }


def bytes_per_record(options: Options) -> tuple[Timing, JsonObject]:
    """The size of its database after `n` decisions, everything checkpointed into the one file."""
    start = time.perf_counter()
    _make_records(options.home, options.n)
    elapsed = time.perf_counter() - start
    database = options.home / "lumyn.db"
    used: int | None = None
    with contextlib.closing(sqlite3.connect(database)) as connection:
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        average = "SELECT AVG(LENGTH(CAST(record_json AS BLOB))) FROM decisions"
        json_bytes = connection.execute(average).fetchone()[0]
        with contextlib.suppress(sqlite3.OperationalError):  # not every SQLite is built with dbstat
            used = connection.execute("SELECT SUM(pgsize - unused) FROM dbstat").fetchone()[0]
    size = database.stat().st_size
    return Timing(options.n, elapsed), {
        "note": "database file / records, memory off; `used` leaves out the free space inside pages, "
        "which is large here because a row of just over 2 kB has a 4 kB page to itself",
        "bytes": size,
        "bytes_per_record": round(size / options.n, 1),
        "used_bytes_per_record": round(used / options.n, 1) if used is not None else None,
        "record_json_bytes": round(json_bytes, 1),
    }


def cli_help(options: Options) -> tuple[Timing, JsonObject]:
    """`lumyn --help`, a whole process each."""
    return _time_processes(options, [sys.executable, "-m", "lumyn", "--help"])


def cli_show(options: Options) -> tuple[Timing, JsonObject]:
    """`lumyn show ID`, a whole process each."""
    _make_workspace(options.home)
    decision_id = _make_records(options.home, 1)[0]["decision_id"]
    return _time_processes(
        options, [sys.executable, "-m", "lumyn", "show", decision_id, "--workspace", str(options.home)]
    )


def cli_decide(options: Options) -> tuple[Timing, JsonObject]:
    """`lumyn decide FILE`, a whole process each, over an empty memory: there it cannot be switched off."""
    _make_workspace(options.home)
    request = options.home / "request.json"
    request.write_text(json.dumps(workload.to_peer(next(workload.requests(1)))), encoding="utf-8")
    model_dir = str(options.model_dir.resolve()) if options.model_dir else ""
    shim = [sys.executable, str(Path(__file__).resolve()), CLI_MARK, model_dir]
    timing, extra = _time_processes(options, [*shim, "decide", str(request), "--workspace", str(options.home)])
    return timing, {**extra, "embedder": options.embedder}


Task = Callable[[Options], tuple[Timing, JsonObject]]
TASKS: dict[str, Task] = {
    "decide": decide,
    "decide_tuned": decide_tuned,
    "decide_memory": decide_memory,
    "diff": diff,
    "label": label,
    "bytes": bytes_per_record,
    "cli_help": cli_help,
    "cli_show": cli_show,
    "cli_decide": cli_decide,
}


# --- timing -------------------------------------------------------------------------------------------------


def _time_each(operation: Callable[[Any], object], items: Iterable[Any], limit: float) -> Timing:
    """Time `operation` on every item but the first, which warms it up, or until `limit` seconds are over."""
    rest = iter(items)
    operation(next(rest))
    done = 0
    elapsed = 0.0
    start = time.perf_counter()
    for item in rest:
        operation(item)
        done += 1
        elapsed = time.perf_counter() - start
        if elapsed > limit:
            break
    return Timing(done, elapsed)


def _time_decide(options: Options, call: Callable[[JsonObject], JsonObject], note: str) -> tuple[Timing, JsonObject]:
    verdicts: Counter[str] = Counter()
    reasons: Counter[str] = Counter()

    def one(request: JsonObject) -> None:
        record = call(request)
        verdicts[record["verdict"]] += 1
        reasons.update(record["reason_codes"])

    timing = _time_each(one, _peer_requests(options.n + 1), options.seconds)
    if reasons["STORAGE_UNAVAILABLE"]:
        raise SystemExit("error: the peer abstained with STORAGE_UNAVAILABLE, so nothing was measured")
    return timing, {"note": note, "verdicts": dict(sorted(verdicts.items()))}


def _time_processes(options: Options, command: list[str]) -> tuple[Timing, JsonObject]:
    """Run `command` n times after one warm-up run, in the benchmark's folder."""

    def one(_: int) -> float:
        start = time.perf_counter()
        subprocess.run(command, cwd=options.home, check=True, stdout=subprocess.DEVNULL)
        return time.perf_counter() - start

    one(0)
    walls: list[float] = []
    for run in range(options.n):
        walls.append(one(run))
        if sum(walls) > options.seconds:
            break
    return Timing(len(walls), sum(walls)), {
        "note": "whole processes, files in the page cache",
        "median_seconds": round(statistics.median(walls), 4),
        "best_seconds": round(min(walls), 4),
    }


# --- setting up ---------------------------------------------------------------------------------------------


def _peer_requests(n: int) -> Iterator[JsonObject]:
    yield from [workload.to_peer(request) for request in workload.requests(n)]


def _tuned_decide(home: Path) -> Callable[[JsonObject], JsonObject]:
    import lumyn
    from lumyn.policy.loader import load_policy
    from lumyn.store.sqlite import SqliteStore

    store_path = home / "lumyn.db"
    return functools.partial(
        lumyn.decide,
        config=lumyn.LumynConfig(policy_path=POLICY, store_path=store_path, memory_enabled=False),
        store=SqliteStore(store_path),
        loaded_policy=load_policy(POLICY),
    )


@contextlib.contextmanager
def _kept_open(database: Path) -> Iterator[None]:
    """Hold a connection, so that when the peer closes its own it is not the last and nothing is checkpointed.

    Its decisions are then not fsynced one by one (WAL, synchronous = NORMAL); as shipped, closing does that.
    """
    from lumyn.store.sqlite import SqliteStore

    SqliteStore(database).init()
    with contextlib.closing(sqlite3.connect(database)) as connection:
        connection.execute("SELECT COUNT(*) FROM decisions").fetchone()
        yield


def _make_records(home: Path, n: int) -> list[JsonObject]:
    with _kept_open(home / "lumyn.db"):
        call = _tuned_decide(home)
        return [call(request) for request in _peer_requests(n)]


def _make_workspace(home: Path) -> None:
    (home / "policy.yml").write_text(POLICY.read_text(encoding="utf-8"), encoding="utf-8")


def _fill_memory(options: Options) -> None:
    """Put the labelled decisions into memory by its own store: in one write, its best case, or in chunks.

    Its label command writes them one by one, and each write leaves one more file for later searches to read.
    """
    from lumyn.engine.normalize_v1 import normalize_request_v1
    from lumyn.memory.client import MemoryStore
    from lumyn.memory.embed import ProjectionLayer
    from lumyn.memory.types import Experience

    if not options.labelled:
        return
    # another seed than the timed requests: similar decisions, not the very same ones
    past = list(workload.requests(options.labelled, seed=workload.SEED + 1))
    projection = ProjectionLayer()
    vectors = projection.embed_batch([normalize_request_v1(workload.to_peer(request)) for request in past])
    experiences = (
        Experience(
            decision_id=f"past-{index:08d}",
            vector=vector,
            outcome=-1 if workload.label_of(request) == "failure" else 1,
            original_verdict="ALLOW",
            timestamp="2024-12-19T14:00:00Z",
        )
        for index, (request, vector) in enumerate(zip(past, vectors, strict=True))
    )
    store = MemoryStore(db_path=options.home / "memory")
    while batch := list(itertools.islice(experiences, options.chunk or options.labelled)):
        store.add_experiences(batch)


# --- the embedder -------------------------------------------------------------------------------------------


class StandInEmbedding:
    """A fixed unit vector per text, in place of the model that the peer would fetch from a hub."""

    def __init__(self, model_name: str) -> None:
        self.model_name = model_name

    def embed(self, texts: list[str]) -> Iterator[Any]:
        import numpy as np

        for text in texts:
            seed = np.random.SFC64(zlib.crc32(text.encode()))
            vector = np.random.Generator(seed).standard_normal(WIDTH, dtype=np.float32)
            yield vector / np.linalg.norm(vector)


def _use_embedder(model_dir: Path | None) -> None:
    from lumyn.memory import embed

    if model_dir is None:
        embed.TextEmbedding = StandInEmbedding
    else:
        embed.TextEmbedding = functools.partial(embed.TextEmbedding, specific_model_path=str(model_dir))


def _peer_cli(model_dir: Path | None, arguments: list[str]) -> None:
    """Run the peer's command line in this process, with the embedder that this benchmark gives it."""
    from lumyn.cli.main import main as lumyn_main

    _use_embedder(model_dir)
    sys.argv = ["lumyn", *arguments]
    lumyn_main()


if __name__ == "__main__":
    main()
