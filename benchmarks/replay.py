"""`make bench-replay`: backtests. Candidates, the peer's diff, flat memory, as-of, time to the first figure, Kafka.

Each command is a process of its own, its start included. PEER_PYTHON names an interpreter that has the peer; without
it that ratio is left out. `make bench-replay TASKS="candidates asof"` runs some.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import pty
import re
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent), str(HERE.parent / "tests")]

import workload  # noqa: E402

OUT = HERE.parent / "bench-out"
POLICY, CANDIDATE, MEMORY = (workload.POLICIES / f"{name}.yml" for name in ("ours", "ours_candidate", "ours_memory"))
LABELLED = 20_000
_BATCH = 2000
_FIGURE = re.compile(rb"\d% flip|flips? [\d.]+%|[\d.]+% of")

Result = dict[str, Any]


def main() -> None:
    """Run tasks, print each, write bench-out/replay.json."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("tasks", nargs="*", default=list(TASKS))
    parser.add_argument("--n", type=int, default=200_000, help="decisions")
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    OUT.mkdir(exist_ok=True)
    about = {"at": datetime.now(UTC).isoformat(timespec="seconds"), "machine": platform.platform(),
             "cores": os.cpu_count(), "python": platform.python_version(), "n": options.n}  # fmt: skip
    results: Result = {"about": about}
    for task in options.tasks:
        results[task] = TASKS[task](options.n, options.rounds)
        sys.stdout.write(json.dumps({task: results[task]}, indent=2) + "\n")
        sys.stdout.flush()
    (OUT / "replay.json").write_text(json.dumps(results, indent=2) + "\n")


# homes


def home_of(folder: Path, n: int, policy: Path = POLICY) -> dict[str, str]:
    """A home with N decisions; returns the environment that names it."""
    from lumyn import LumynConfig, decide_many
    from lumyn.wiring import close_homes

    config = LumynConfig(policy_path=policy, home=folder / "home", durable=False)
    batch = []
    for request in workload.requests(n):
        batch.append(request)
        if len(batch) == _BATCH:
            decide_many(batch, config=config)
            batch = []
    decide_many(batch, config=config)
    close_homes()
    return {**os.environ, "LUMYN_HOME": str(folder / "home"), "PYTHONPATH": str(HERE.parent)}


def candidates_in(folder: Path, count: int, source: Path = CANDIDATE) -> list[str]:
    """`--policy` options of candidates that differ: each has another limit."""
    words = []
    for number in range(count):
        text = source.read_text().replace("version: ", f"version: {number}.", 1).replace("gt: 250", f"gt: {240 + number}")
        path = folder / f"candidate-{number}.yml"
        path.write_text(text)
        words += ["--policy", str(path)]
    return words


def timed(command: list[str], environment: dict[str, str]) -> tuple[float, int]:
    """Seconds of a `lumyn` command, and the most memory that any of its processes held, in MB."""
    script = (
        "import resource, subprocess, sys, time\n"
        "begun = time.perf_counter()\n"
        "code = subprocess.run(sys.argv[1:], stdout=subprocess.DEVNULL).returncode\n"
        "took = time.perf_counter() - begun\n"
        "print(took, resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss // 1024, code)\n"
    )
    whole = [sys.executable, "-c", script, sys.executable, "-m", "lumyn", *command]
    done = subprocess.run(whole, env=environment, capture_output=True, text=True, check=True)
    took, most, code = done.stdout.split()[-3:]
    if code not in ("0", "1"):
        raise SystemExit(f"lumyn {command[0]}: exit {code}: {done.stderr[-2000:]}")
    return float(took), int(most)


# tasks


def candidates(n: int, rounds: int) -> Result:
    """One candidate and eight on the same decisions, in turn, with recorded memory off; and the peer's diff.

    The peer's figure is of its loop. So beside the whole command there is ours without its start: the rate by which a
    tenth of the decisions takes less time.
    """
    with tempfile.TemporaryDirectory(prefix="lumyn-bench-") as name:
        folder = Path(name)
        environment = home_of(folder, n)
        (folder / "tenth").mkdir()
        tenth = home_of(folder / "tenth", n // 10)
        one, eight = candidates_in(folder, 1), candidates_in(folder, 8)
        runs: dict[str, list[float]] = {"1": [], "8": [], "1 on a tenth": []}
        most = {}
        for _ in range(rounds):
            for kind, words in (("1", one), ("8", eight)):
                took, most[kind] = timed(["backtest", *words, "--json"], environment)
                runs[kind].append(took)
            runs["1 on a tenth"].append(timed(["backtest", *one, "--json"], tenth)[0])
        first = first_figure(["backtest", *one], environment)
    seconds = {kind: statistics.median(all_) for kind, all_ in runs.items()}
    rate = n / seconds["1"]
    loop = (n - n // 10) / (seconds["1"] - seconds["1 on a tenth"])
    peer = peer_diff()
    return {
        "decisions": n,
        "seconds_1": round(seconds["1"], 2),
        "seconds_8": round(seconds["8"], 2),
        "eight_to_one": round(seconds["8"] / seconds["1"], 2),
        "per_second_1": round(rate),
        "peer_diff_per_second": peer,
        "ratio_to_peer": round(rate / peer, 1) if peer else None,
        "per_second_1_without_start": round(loop),
        "ratio_to_peer_without_start": round(loop / peer, 1) if peer else None,
        "largest_process_mb": most,
        "first_figure_s": first,
        "all": {kind: [round(one, 2) for one in all_] for kind, all_ in runs.items()},
    }


def peer_diff() -> float | None:
    """The peer's diff, decisions a second."""
    python = os.environ.get("PEER_PYTHON")
    if not python:
        return None
    with tempfile.TemporaryDirectory() as folder:
        command = [python, str(HERE / "peer_worker.py"), "diff", "--n", "1500", "--dir", folder]
        own = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}  # both are called lumyn
        done = subprocess.run(command, env=own, capture_output=True, text=True, timeout=1800, check=True)
    return float(json.loads(done.stdout.strip().splitlines()[-1])["per_second"])


def first_figure(command: list[str], environment: dict[str, str]) -> float | None:
    """Seconds until a terminal shows a share of flips; None when it showed none before the end."""
    begun = time.perf_counter()
    pid, terminal = pty.fork()
    if pid == 0:
        os.execvpe(sys.executable, [sys.executable, "-m", "lumyn", *command], environment)
    seen, at = b"", None
    with suppress(OSError):
        while data := os.read(terminal, 4096):
            seen += data
            if at is None and _FIGURE.search(seen):
                at = time.perf_counter() - begun
    os.close(terminal)
    os.waitpid(pid, 0)
    return None if at is None else round(at, 2)


def flat(n: int, rounds: int) -> Result:  # noqa: ARG001
    """The largest process at two sizes, ten to one."""
    out = {}
    for count in (n // 2, 5 * n):
        with tempfile.TemporaryDirectory(prefix="lumyn-bench-") as name:
            folder = Path(name)
            took, most = timed(["backtest", *candidates_in(folder, 1), "--json"], home_of(folder, count))
        out[f"{count} decisions"] = {"mb": most, "seconds": round(took, 1), "per_second": round(count / took)}
    return out


def asof(n: int, rounds: int) -> Result:  # noqa: ARG001
    """Candidates that ask the memory again as of then, over 20,000 labelled decisions."""
    from lumyn import LumynConfig, decide_many
    from lumyn.wiring import close_homes, open_home
    from schemas.label import LabelRequest

    count = LABELLED + 20_000
    with tempfile.TemporaryDirectory(prefix="lumyn-bench-") as name:
        folder = Path(name)
        config = LumynConfig(policy_path=POLICY, home=folder / "home", durable=False)
        home = open_home(config)
        requests = list(workload.requests(count))
        for start in range(0, LABELLED, _BATCH):
            some = requests[start : start + _BATCH]
            told: list[LabelRequest] = []
            for request, record in zip(some, decide_many(some, config=config), strict=True):
                told.append({
                    "event_id": f"e{record['decision_id']}", "decision_id": record["decision_id"], "tenant": "default",
                    "type": "label", "label": workload.label_of(request), "summary": "b", "actor": "a",
                })  # fmt: skip
            home.labels.label(told)
        with_memory = LumynConfig(policy_path=MEMORY, home=folder / "home", durable=False)
        last = ""
        for start in range(LABELLED, count, _BATCH):
            made = decide_many(requests[start : start + _BATCH], config=with_memory)
            last = last or made[0]["created_at"]
        close_homes()
        environment = {**os.environ, "LUMYN_HOME": str(folder / "home"), "PYTHONPATH": str(HERE.parent)}
        words = candidates_in(folder, 1, MEMORY)
        took, most = timed(["backtest", *words, "--memory", "as-of", "--from", last, "--json"], environment)
        bare, _ = timed(["backtest", *words, "--memory", "none", "--from", last, "--json"], environment)
    asked = count - LABELLED
    return {"points": LABELLED, "decisions": asked, "seconds": round(took, 2), "per_second": round(asked / took),
            "seconds_without_memory": round(bare, 2), "largest_process_mb": most}  # fmt: skip


def kafka(n: int, rounds: int) -> Result:
    """The whole command over Kafka, beside a bare consumer that decodes the JSON of the same topic, in turn."""
    from live import Deployment, stop
    from servers.kafka import find_broker

    n = min(n, 300_000)
    broker = find_broker()
    deployment = Deployment(broker.address)
    try:
        deployment.fill(n)
        worker = deployment.worker("decide")
        try:
            deployment.wait(n, worker, 600)
        finally:
            stop(worker)
        environment = {**os.environ, "LUMYN_KAFKA": broker.address, "LUMYN_PREFIX": deployment.prefix,
                       "LUMYN_HOME": deployment.home, "PYTHONPATH": str(HERE.parent)}  # fmt: skip
        topic = deployment.log.name("records")
        words = candidates_in(Path(deployment.home), 1)
        ours, bare = [], []
        for _ in range(rounds):
            bare.append(bare_consumer(broker.address, topic, n))
            ours.append(timed(["backtest", *words, "--json"], environment)[0])
    finally:
        deployment.close()
        broker.close()
    one, other = statistics.median(ours), statistics.median(bare)
    return {"decisions": n, "seconds": round(one, 2), "bare_consumer_seconds": round(other, 2),
            "share_of_bare": round(other / one, 2), "all": {"ours": ours, "bare": bare}}  # fmt: skip


def bare_consumer(address: str, topic: str, n: int) -> float:
    """Seconds of a process that consumes a topic with confluent-kafka and decodes each value with orjson."""
    script = (
        "import sys, uuid, orjson\nfrom confluent_kafka import Consumer\n"
        "address, topic, n = sys.argv[1], sys.argv[2], int(sys.argv[3])\n"
        "consumer = Consumer({'bootstrap.servers': address, 'group.id': 'bare-' + uuid.uuid4().hex, 'auto.offset.reset': 'earliest',\n"
        "                     'isolation.level': 'read_committed', 'enable.auto.commit': False})\n"
        "consumer.subscribe([topic])\nseen = 0\n"
        "while seen < n:\n    for m in consumer.consume(5000, 1.0):\n        orjson.loads(m.value())\n        seen += 1\nconsumer.close()\n"
    )
    begun = time.perf_counter()
    subprocess.run([sys.executable, "-c", script, address, topic, str(n)], check=True, timeout=300)
    return round(time.perf_counter() - begun, 2)


TASKS: dict[str, Callable[[int, int], Result]] = {"candidates": candidates, "asof": asof, "flat": flat, "kafka": kafka}


if __name__ == "__main__":
    main()
