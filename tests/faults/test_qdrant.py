"""The Qdrant server is killed, started again, and emptied, under load: no request is lost, no memory is made up."""

from __future__ import annotations

import json
import shutil

import pytest
from servers.qdrant import own_server

from faults.deployment import deployed, wait_until
from faults.invariants import check
from faults.label_load import LabelLoad
from faults.load import Load
from faults.memories import differences, memory_anew, memory_of


@pytest.fixture
def qdrant():
    server = own_server()
    yield server
    server.close()


def test_killed_started_and_emptied(broker, qdrant, seed):
    surroundings = {"LUMYN_QDRANT": qdrant.url, "LUMYN_QDRANT_DEADLINE": "1", "LUMYN_QDRANT_WRITE_DEADLINE": "5"}
    runtime = {"breaker_rest_s": 0.5, "memory_max_staleness_s": 10}
    with deployed(broker.address, env=surroundings, runtime=runtime) as deployment:
        load, labels = Load(deployment, seed, poison=0.02), LabelLoad(deployment, seed)
        workers = [deployment.start(kind) for kind in ("index", "decide", "labels")]
        workers[1].wait_for("worker_started")

        def newest() -> dict:
            return max((json.loads(m.value) for m in deployment.records()), key=lambda record: record["created_at"])

        def remembers() -> bool:
            """Whether what is decided now is decided with the memory of all labels."""
            load.batch(5)
            deployment.wait_done()
            memory = newest()["memory"]
            return memory["available"] and memory["version"] == len(deployment.log.read("labels", 0, 0, 10**6))

        load.batch(100)
        deployment.wait_done()
        with load:
            for what in ("killed", "emptied"):
                labels.batch(deployment.records(), 25, clean=True)
                deployment.wait_done(labels=True, requests=False)
                load.wait_for_decided(100)
                known = len(deployment.log.read("labels", 0, 0, 10**6))
                broken_ms = max(m.time_ms for m in deployment.records())
                qdrant.kill()
                load.wait_for_decided(100)
                if what == "emptied":
                    shutil.rmtree(qdrant.storage)
                labels.batch(deployment.records(), 10, clean=True)
                qdrant.start()
                load.wait_for_decided(100)
        wait_until(remembers, 90, deployment.tails, every_s=0.5)
        deployment.wait_done(labels=True)
        snapshot = check(broker.address, deployment.prefix, deployment.partitions, load.acknowledged)
        since = [json.loads(m.value) for m in snapshot.of("records") if m.time_ms > broken_ms]
        blind = [record for record in since if not record["memory"]["available"]]
        assert blind and all("STORAGE_UNAVAILABLE" in r["reason_codes"] for r in blind if r["verdict"] != "DENY")
        assert [r["memory"]["version"] for r in since if r["memory"]["available"] and r["memory"]["version"] < known] == []
        stands = memory_of(deployment, deployment.folder / "looking", qdrant.url)
        assert differences(stands, memory_anew(deployment)) == []
        assert all(worker.alive for worker in workers), deployment.tails()
        load.close()
        labels.close()
