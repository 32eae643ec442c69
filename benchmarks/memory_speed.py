"""Speed of the memory: labels applied, recalls over many points, rebuilding, relabelling, the blast radius."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import workload

from lumyn import LumynConfig, blast, label_jobs, sdk
from lumyn.collector import collect_seldom
from lumyn.config import resolve
from lumyn.stores import make_vectoriser
from lumyn.wiring import close_homes, open_home
from memory_service.profile import remembered_part
from memory_service.recall import Asked
from memory_service.recaller import Recaller
from memory_service.sqlite_store import SqliteMemoryStore
from schemas.policy import MemorySettings
from streams.label_jobs import relabel
from streams.topics import LABELS
from streams.versions import last_version

_BATCH = 500
_ASKED = 2000


def events(count: int) -> Iterator[list[Any]]:
    """Label events of decisions on the benchmark's requests, in batches; every text is another."""
    batch = []
    for number, request in enumerate(workload.requests(count), start=1):
        part = remembered_part(request)
        batch.append({
            "version": number, "event_id": f"e{number}", "decision_id": f"{number:026d}", "tenant": workload.TENANT,
            "type": "label", "label": workload.label_of(request), "should": None, "summary": "as it was", "actor": "a",
            "at": "2026-01-01T00:00:00.000Z", "job": None,
            "decision": {"action_type": request["action"]["type"], "verdict": "ALLOW", "rules": ["R"], "amount": None,
                         "facts": part},
        })  # fmt: skip
        if len(batch) == _BATCH:
            yield batch
            batch = []
    if batch:
        yield batch


def apply_and_recall(points: int) -> dict[str, Any]:
    """Labels applied a second into an empty store, then recalls a second over all of them, in batches of 256."""
    with tempfile.TemporaryDirectory() as folder:
        vectoriser = make_vectoriser(resolve(None))
        store = SqliteMemoryStore(Path(folder) / "memory.db", vectoriser, "bench")
        took = 0.0
        for batch in events(points):
            begun = time.perf_counter()
            store.apply(batch)
            took += time.perf_counter() - begun
        recaller = Recaller(store, vectoriser, "bench")
        asked = [Asked(r, MemorySettings(), points) for r in workload.requests(_ASKED, seed=1)]
        begun = time.perf_counter()
        recaller.recall(asked[:1])
        opened = time.perf_counter() - begun
        collect_seldom()  # as a decide worker does
        begun = time.perf_counter()
        for start in range(0, len(asked), 256):
            recaller.recall(asked[start : start + 256])
        recalled = time.perf_counter() - begun
        size = (Path(folder) / "memory.db").stat().st_size
    return {
        "points": points, "applied_per_s": points / took, "apply_s": took, "first_recall_s": opened,
        "recalled_per_s": len(asked) / recalled, "rss_mb": _peak_mb(),
        "file_mb": size / 1e6,
    }  # fmt: skip


def _peak_mb() -> float:
    """The most resident memory of this program alone; `ru_maxrss` would count what it was forked from."""
    status = Path("/proc/self/status").read_text()
    return int(status.split("VmHWM:")[1].split()[0]) / 1024


def jobs(decisions: int, labelled: int, changed: int) -> dict[str, Any]:
    """An embedded home: decisions with memory, labels between them; a relabel's plan, blast radius, job and rebuild."""
    with tempfile.TemporaryDirectory() as folder:
        config = LumynConfig(home=Path(folder) / "home", policy_path=str(workload.POLICIES / "ours_memory.yml"))
        requests = list(workload.requests(decisions))
        rounds = max(1, labelled // 2000)
        said = 0
        for number in range(rounds):
            some = requests[number * decisions // rounds : (number + 1) * decisions // rounds]
            records = [r for start in range(0, len(some), 1000) for r in sdk.decide_many(some[start : start + 1000], config)]
            home = open_home(config)
            count = labelled // rounds
            asks = [
                sdk.label_request(home, record["decision_id"], workload.label_of(request), summary="as it was", event_id=f"l{said + n}")
                for n, (record, request) in enumerate(zip(records[:count], some[:count], strict=True))
                if isinstance(record, dict)
            ]
            said += len(asks)
            for start in range(0, len(asks), _BATCH):
                home.labels.label(asks[start : start + _BATCH])
        home = open_home(config)
        known = label_jobs.known(home)
        out: dict[str, Any] = {"decisions": decisions, "labelled": len(known), "changed": changed}
        found = [label_jobs.Decided(h.decision_id, h.verdict) for h in known.values()]
        few = relabel(label_jobs.sign(home, "relabel", "bench"), found[:changed], known, "success", None)
        begun = time.perf_counter()
        radius = blast.of_plan(home, few, known, last_version(home.log, LABELS), lambda count: None)
        out |= {"blast_radius_s": time.perf_counter() - begun, "compared": radius.compared, "flips": len(radius.flips)}
        begun = time.perf_counter()
        whole = relabel(label_jobs.sign(home, "relabel", "bench"), found, known, "retracted", None)
        sent = label_jobs.send(home, whole.requests, lambda count: None)
        home.memory.version()
        out |= {"relabelled": sent.accepted, "relabel_s": time.perf_counter() - begun}
        begun = time.perf_counter()
        home.fill_memory(None, lambda count: None, anew=True)
        out |= {"rebuild_s": time.perf_counter() - begun, "rebuilt_events": sent.accepted + len(known)}
        close_homes()
    return out


def alone(task: str, *arguments: int) -> dict[str, Any]:
    """A task in a process of its own, so that its memory is its own."""
    here = Path(__file__).parent
    env = {**os.environ, "PYTHONPATH": f"{here}:{here.parent}", "OPENBLAS_NUM_THREADS": "1"}
    command = [sys.executable, __file__, task, *map(str, arguments)]
    done = subprocess.run(command, env=env, capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"{task} {arguments} failed:\n{done.stderr[-2000:]}")
    return dict(json.loads(done.stdout))


if __name__ == "__main__":
    tasks = {"apply_and_recall": apply_and_recall, "jobs": jobs}
    print(json.dumps(tasks[sys.argv[1]](*map(int, sys.argv[2:]))))
