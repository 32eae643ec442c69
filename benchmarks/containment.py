"""`make bench-containment`: how long decisions go on after `lumyn kill-switch on`, under load, over real brokers.

Each trial runs the command as an operator would, in a process of its own, while requests keep coming on every partition
and several decide workers decide them. The figure is from the moment that the command is issued to the append time of
the last record under the switch that was decided without it. Broker and command must share a clock: run both on one
machine. `LUMYN_TEST_KAFKA=host:port` names a running broker; else one is started (tests/servers/kafka.py).
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import platform
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]

from faults.deployment import Deployment, deployed  # noqa: E402
from servers.kafka import find_broker  # noqa: E402

from schemas.canonical import decode_trusted  # noqa: E402
from streams.kafka.client import KafkaSettings  # noqa: E402
from streams.kafka.facts import Fetched  # noqa: E402
from streams.kafka.log import KafkaLog  # noqa: E402
from streams.log import Append  # noqa: E402
from streams.topics import CONTROL, RECORDS, REQUESTS  # noqa: E402

OUT = ROOT / "bench-out"
TARGET_S = 1.0
_TICK_S = 0.02
_TRIAL_S = 60.0


@dataclass(frozen=True, slots=True)
class Trial:
    """One switch: seconds from the command to its append, from its append and from the command to the last record.

    `without` counts the records under it that were appended after it and decided without it.
    """

    appended: float
    contained: float
    total: float
    without: int


def main() -> None:
    """Run the trials, print the distribution, write bench-out/containment.json."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--trials", type=int, default=100)
    parser.add_argument("--workers", type=int, default=4)
    parser.add_argument("--partitions", type=int, default=8)
    parser.add_argument("--rate", type=int, default=1000, help="requests a second")
    options = parser.parse_args()
    broker = find_broker()
    # the defaults of a real deployment, and as many of its broker's
    runtime = {"session_timeout_s": 6.0, "heartbeat_s": 1.5, "check_partitions_s": 5.0}
    try:
        with deployed(broker.address, partitions=options.partitions, runtime=runtime) as deployment:
            trials = _run(deployment, options)
    finally:
        broker.close()
    _tell(trials, options)


def _run(deployment: Deployment, options: argparse.Namespace) -> list[Trial]:
    workers = [deployment.start("decide", f"decide-{number}") for number in range(options.workers)]
    for worker in workers:
        worker.wait_for("worker_started")
    load = multiprocessing.get_context("spawn").Process(
        target=_load, args=(deployment.address, deployment.prefix, options.rate), daemon=True
    )
    load.start()
    records = Records(deployment)
    trials: list[Trial] = []
    try:
        records.until_each_partition(lambda record: not record["control"]["switches"], "decisions")
        for number in range(options.trials):
            trials.append(_trial(deployment, records))
            sys.stderr.write(f"\r{number + 1}/{options.trials}: {trials[-1].total:.3f} s ")
            sys.stderr.flush()
    finally:
        sys.stderr.write("\n")
        load.terminate()
        load.join(10)
    return trials


def _load(address: str, prefix: str, rate: int) -> None:
    """Requests at a steady rate over all partitions, two in three of them refunds; runs until it is ended."""
    log = KafkaLog(KafkaSettings(address), prefix=prefix)
    sent, begun = 0, time.monotonic()
    while True:
        due = int((time.monotonic() - begun) * rate)
        log.send_many([_request(number) for number in range(sent, due)])
        sent = due
        time.sleep(_TICK_S)


def _request(number: int) -> Append:
    action = "refund" if number % 3 else "payout"
    body = {
        "request_id": f"b-{number}",
        "subject": {"type": "user", "id": f"usr_{number % 5000}"},
        "action": {
            "type": action,
            "intent": "parcel never arrived",
            "amount": {"value": 1 + number % 400, "currency": "USD"},
        },
        "evidence": {"chargeback_risk": number % 100 / 100},
    }
    return Append(REQUESTS, json.dumps(body).encode(), f"default/b-{number}".encode())


class Records:
    """The refunds among the records, as they are appended."""

    def __init__(self, deployment: Deployment) -> None:
        self._log = deployment.log
        self._partitions = deployment.partitions
        self._reader = self._log.client.reader()
        ends = self._log.ends(RECORDS)
        self._reader.assign({(self._log.name(RECORDS), p): end for p, end in enumerate(ends)})

    def next(self) -> Iterator[tuple[Fetched, dict[str, Any]]]:
        """What has come since, waiting a little for it."""
        for message in self._reader.poll(2000, 0.1):
            record = decode_trusted(message.value or b"{}")
            if record["request"]["action"]["type"] == "refund":
                yield message, record

    def until_each_partition(self, wanted: Any, what: str) -> list[tuple[Fetched, dict[str, Any]]]:
        """Everything up to where each partition has had a record as wanted."""
        out: list[tuple[Fetched, dict[str, Any]]] = []
        seen: set[int] = set()
        deadline = time.monotonic() + _TRIAL_S
        while len(seen) < self._partitions:
            if time.monotonic() > deadline:
                raise SystemExit(f"no {what} on partitions {sorted(set(range(self._partitions)) - seen)}")
            for message, record in self.next():
                out.append((message, record))
                if wanted(record):
                    seen.add(message.partition)
        return out

    def for_seconds(self, seconds: float) -> list[tuple[Fetched, dict[str, Any]]]:
        """Everything of the next seconds."""
        out: list[tuple[Fetched, dict[str, Any]]] = []
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            out += self.next()
        return out


def _trial(deployment: Deployment, records: Records) -> Trial:
    issued = time.time()
    command = _lumyn(deployment, "on", "--action-type", "refund", "--why", "trial", "--json")
    read = []
    while command.poll() is None:
        read += list(records.next())
    told = json.loads(command.communicate()[0])
    switch_id = told["switch_id"]
    on = _control_time(deployment, switch_id)

    def denied(record: dict[str, Any]) -> bool:
        return any(switch["switch_id"] == switch_id for switch in record["control"]["switches"])

    read += records.until_each_partition(denied, "denials")
    read += records.for_seconds(1.0)  # what a slow worker would still let through
    without = [message.time_ms for message, record in read if not denied(record) and message.time_ms > issued * 1000]
    last = max(without, default=on)
    _lumyn(deployment, "off", switch_id).communicate()
    records.until_each_partition(lambda record: not record["control"]["switches"], "decisions after the switch was off")
    return Trial(
        round(on / 1000 - issued, 4),
        round(max(0, last - on) / 1000, 4),
        round(max(last, on) / 1000 - issued, 4),
        sum(at > on for at in without),
    )


def _lumyn(deployment: Deployment, *arguments: str) -> subprocess.Popen[str]:
    surroundings = {
        "PATH": os.environ.get("PATH", ""),
        "HOME": str(deployment.folder),
        "PYTHONPATH": str(ROOT),
        "LUMYN_KAFKA": deployment.address,
        "LUMYN_PREFIX": deployment.prefix,
        "LUMYN_HOME": str(deployment.folder / "operator"),
    }
    command = [sys.executable, "-m", "lumyn", "kill-switch", *arguments]
    return subprocess.Popen(command, cwd=deployment.folder, env=surroundings, stdout=subprocess.PIPE, text=True)


def _control_time(deployment: Deployment, switch_id: str) -> int:
    """When the switch was appended, in milliseconds."""
    end = deployment.log.end(CONTROL, 0)
    for message in reversed(deployment.log.read(CONTROL, 0, max(0, end - 10), 10)):
        if switch_id.encode() in message.value:
            return message.time_ms
    raise SystemExit(f"switch {switch_id} is not in the log")


def _at(values: list[float], share: float) -> float:
    """The nearest-rank percentile."""
    ordered = sorted(values)
    return ordered[max(0, -(-int(share * 1000) * len(ordered) // 1000) - 1)]


def _tell(trials: list[Trial], options: argparse.Namespace) -> None:
    rows = {
        "command issued to switch in the log": [t.appended for t in trials],
        "switch in the log to last record without it": [t.contained for t in trials],
        "command issued to last record without it": [t.total for t in trials],
    }
    out = sys.stdout.write
    out(f"\n{len(trials)} trials, {options.workers} workers, {options.partitions} partitions, {options.rate} requests/s\n")
    out("\n| seconds | p50 | p99 | max |\n|---|---|---|---|\n")
    figures = {}
    for name, values in rows.items():
        p50, p99, most = _at(values, 0.5), _at(values, 0.99), max(values)
        figures[name] = {"p50": p50, "p99": p99, "max": most}
        out(f"| {name} | {p50:.3f} | {p99:.3f} | {most:.3f} |\n")
    p99 = figures["command issued to last record without it"]["p99"]
    out(f"\ntarget: p99 <= {TARGET_S:g} s: {'met' if p99 <= TARGET_S else 'missed'} ({p99:.3f} s)\n")
    out(f"{sum(t.without for t in trials)} records in all were appended after a switch and decided without it\n")
    OUT.mkdir(exist_ok=True)
    result = {
        "at": datetime.now(UTC).isoformat(timespec="seconds"),
        "python": platform.python_version(),
        "cores": os.cpu_count(),
        **vars(options),
        "seconds": figures,
        "trials": [[t.appended, t.contained, t.total, t.without] for t in trials],
    }
    (OUT / "containment.json").write_text(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    main()
