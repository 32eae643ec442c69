"""A Qdrant server with keys: the full one for those who write, the read-only one for those who only ask."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

from faults.deployment import deployed, wait_until
from servers.kafka import free_port
from servers.qdrant import own_server

ROOT = Path(__file__).parents[2]
GROUP = {"session_timeout_s": 6.0, "heartbeat_s": 1.5}
"""What a broker with Kafka's own defaults takes."""
FULL, READ_ONLY = "the-full-key", "the-read-only-key"


def test_decide_workers_and_gateways_need_the_read_only_key_and_no_more(kafka: str) -> None:
    server = own_server({"QDRANT__SERVICE__API_KEY": FULL, "QDRANT__SERVICE__READ_ONLY_API_KEY": READ_ONLY})
    reads = {"LUMYN_QDRANT_API_KEY": READ_ONLY}
    try:
        with deployed(
            kafka, partitions=1, runtime=GROUP, env={"LUMYN_QDRANT": server.url, "LUMYN_QDRANT_API_KEY": FULL}
        ) as deployment:

            def run(*words: str, code: int | None = 0, **env: str) -> str:
                done = subprocess.run(
                    [sys.executable, "-m", "lumyn", *words], cwd=deployment.folder, capture_output=True, text=True,
                    env={"PATH": "", "PYTHONPATH": str(ROOT), "LUMYN_KAFKA": kafka, "LUMYN_PREFIX": deployment.prefix,
                         "LUMYN_QDRANT": server.url, **reads, **env},
                )  # fmt: skip
                assert code in (None, done.returncode), f"{words}: exit {done.returncode}\n{done.stdout}\n{done.stderr}"
                assert FULL not in done.stdout + done.stderr
                assert READ_ONLY not in done.stdout + done.stderr
                return done.stdout

            port = free_port()
            deployment.start("index")
            deployment.start("labels", arguments=("--metrics-port", str(port)))
            wait_until(lambda: "ok    memory" in run("doctor", code=None), 60, deployment.tails, every_s=0.5)
            deployment.started("decide", env=reads)
            request = str(ROOT / "examples/refunds/request.json")
            record = json.loads(run("decide", request))
            assert record["memory"]["available"]
            run("label", record["decision_id"], "--label", "failure")
            again = json.loads(run("decide", request))
            assert (again["verdict"], again["memory"]["version"]) == ("ESCALATE", 1)
            assert record["decision_id"] in run("list")
            assert "refused the API key" in run("doctor", code=1, LUMYN_QDRANT_API_KEY="neither")
            run("index", "rebuild", code=4)  # which writes
    finally:
        server.close()
