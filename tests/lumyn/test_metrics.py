"""Metrics, health and log lines of a worker: what is told arrives, as Prometheus and a supervisor read it."""

from __future__ import annotations

import inspect
import json
import re
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest
from faults.deployment import deployed, wait_until
from prometheus_client.parser import text_string_to_metric_families
from servers.kafka import free_port

from lumyn.metrics import METRICS, Metrics
from lumyn.metrics_server import MetricsServer, Readiness
from lumyn.observing import JsonLines, Several, make_observer
from schemas.errors import StorageUnavailable, UsageError
from streams.observe import Observer

ROOT = Path(__file__).parents[2]
GROUP = {"session_timeout_s": 6.0, "heartbeat_s": 1.5}
"""What a broker with Kafka's own defaults takes."""
TELLS = sorted(name for name in vars(Observer) if not name.startswith("_"))


def samples(text: str) -> dict[tuple[str, frozenset[tuple[str, str]]], float]:
    return {
        (sample.name, frozenset(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def value(text: str, name: str, /, **labels: str) -> float | None:
    return samples(text).get((name, frozenset(labels.items())))


def lags(text: str) -> dict[str, float]:
    return {dict(labels)["partition"]: lag for (name, labels), lag in samples(text).items() if "_lag" in name}


def exposed(metrics: Metrics) -> str:
    return metrics.exposition("")[0].decode()


def get(port: int, path: str, **headers: str) -> tuple[int, str, str]:
    request = urllib.request.Request(f"http://127.0.0.1:{port}{path}", headers=headers)
    try:
        with urllib.request.urlopen(request, timeout=10) as answer:
            return answer.status, answer.read().decode(), answer.headers["Content-Type"]
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode(), error.headers["Content-Type"]


@pytest.fixture
def served() -> Iterator[tuple[MetricsServer, Metrics, Readiness]]:
    metrics, readiness = Metrics("decide"), Readiness()
    server = MetricsServer("127.0.0.1", 0, metrics.exposition, readiness)
    yield server, metrics, readiness
    server.close()


def test_decisions_count_by_outcome_and_verdict_and_their_latency_is_a_histogram() -> None:
    metrics = Metrics("decide")
    metrics.decided("decided", "ALLOW", 0.03, "01A")
    metrics.decided("decided", "ALLOW", 0.3, "01B")
    metrics.decided("decided", "DENY", 0.03, "01C")
    metrics.decided("duplicate", None, 0.03, "01A")
    text = exposed(metrics)
    assert value(text, "lumyn_decisions_total", outcome="decided", verdict="ALLOW") == 2
    assert value(text, "lumyn_decisions_total", outcome="decided", verdict="DENY") == 1
    assert value(text, "lumyn_decisions_total", outcome="duplicate", verdict="") == 1
    assert value(text, "lumyn_decision_latency_seconds_bucket", le="0.05") == 3
    assert value(text, "lumyn_decision_latency_seconds_count") == 4
    assert value(text, "lumyn_decision_latency_seconds_sum") == pytest.approx(0.39)
    assert "01A" not in text


def test_the_breaker_is_in_one_state_at_a_time() -> None:
    metrics = Metrics("decide")
    for state in ("closed", "open", "half-open", "open"):
        metrics.breaker(state)
        text = exposed(metrics)
        assert {s: value(text, "lumyn_memory_breaker", state=s) for s in ("closed", "open", "half-open")} == {
            "closed": state == "closed",
            "open": state == "open",
            "half-open": state == "half-open",
        }


def test_lag_is_told_of_the_partitions_that_are_owned_and_of_no_others() -> None:
    metrics = Metrics("decide")
    metrics.lag({0: 7, 1: 0})
    metrics.lag({1: 3, 2: 4})
    text = exposed(metrics)
    assert value(text, "lumyn_partition_lag", partition="0") is None
    assert value(text, "lumyn_partition_lag", partition="1") == 3
    assert value(text, "lumyn_partition_lag", partition="2") == 4
    metrics.lag({0: 9})
    assert value(exposed(metrics), "lumyn_partition_lag", partition="0") == 9


def test_a_metric_is_not_there_before_its_first_value() -> None:
    """An index worker must not look like one that decides nothing, or whose memory was last applied in 1970."""
    text = exposed(Metrics("index"))
    told = {name for name, _ in samples(text) if name.startswith("lumyn_")}
    assert told == {"lumyn_build_info"}
    labels = next(dict(key[1]) for key in samples(text) if key[0] == "lumyn_build_info")
    assert set(labels) == {"worker", "engine", "version"}
    assert labels["worker"] == "index"


def tell_everything(observer: Observer) -> None:
    observer.decided("decided", "ALLOW", 0.01, "01A")
    observer.batch(3)
    observer.committed(0.01, 3)
    observer.recalled(0.01, False, 3)
    observer.breaker("open")
    observer.dead_letter("bad_request")
    observer.lag({0: 1})
    observer.ready("control", True)
    observer.memory_version(4)
    observer.control_version(5, True)
    observer.event("worker_started", partitions=1)
    observer.trouble("commit_failed", ValueError("no"))


def test_everything_that_is_told_is_measured() -> None:
    """`tell_everything` calls each method once; each metric of the table then has a value."""
    assert set(TELLS) == set(re.findall(r"observer\.(\w+)\(", inspect.getsource(tell_everything)))
    metrics = Metrics("decide")
    tell_everything(metrics)
    metrics.answered("GET", "/v1/decisions", 200, 0.01)
    told = {re.sub(r"_(bucket|count|sum)$", "", name) for name, _ in samples(exposed(metrics))}
    assert {name for name in told if name.startswith("lumyn_")} == set(METRICS)


@pytest.mark.parametrize("name", TELLS)
def test_each_of_several_observers_hears_everything(name: str) -> None:
    signature = inspect.signature(getattr(Observer(), name))
    heard: list[tuple[int, str]] = []

    def listening(number: int) -> Observer:
        def hear(*given: object, **more: object) -> None:
            bound = signature.bind(*given, **more)
            bound.apply_defaults()
            heard.append((number, repr(bound)))

        observer = Observer()
        setattr(observer, name, hear)
        return observer

    tell_everything(listening(0))
    tell_everything(Several(listening(1), listening(2)))
    assert [number for number, _ in heard] == [0, 1, 2]
    assert len({told for _, told in heard}) == 1


def test_metrics_are_served_as_the_scraper_asks(served: tuple[MetricsServer, Metrics, Readiness]) -> None:
    server, metrics, _ = served
    metrics.batch(5)
    status, text, kind = get(server.port, "/metrics")
    assert (status, kind.partition(";")[0]) == (200, "text/plain")
    assert value(text, "lumyn_batch_requests_sum") == 5
    assert value(text, "process_resident_memory_bytes") or 0 > 0
    _, text, kind = get(server.port, "/metrics?x=1", Accept="application/openmetrics-text; version=1.0.0")
    assert kind.startswith("application/openmetrics-text")
    assert text.endswith("# EOF\n")


def test_ready_means_that_every_part_stands(served: tuple[MetricsServer, Metrics, Readiness]) -> None:
    server, _, readiness = served
    assert get(server.port, "/healthz")[0] == 200
    assert get(server.port, "/readyz")[0] == 503  # nothing has been said yet
    readiness.ready("control", True)
    readiness.ready("partitions", False)
    assert get(server.port, "/readyz")[:2] == (503, "control: ok\npartitions: not yet\n")
    readiness.ready("partitions", True)
    assert get(server.port, "/readyz")[0] == 200
    readiness.ready("control", False)
    assert get(server.port, "/readyz")[0] == 503
    assert get(server.port, "/healthz")[0] == 200


def test_other_paths_and_methods_are_refused(served: tuple[MetricsServer, Metrics, Readiness]) -> None:
    server, _, _ = served
    assert get(server.port, "/")[0] == 404
    request = urllib.request.Request(f"http://127.0.0.1:{server.port}/metrics", data=b"x", method="POST")
    with pytest.raises(urllib.error.HTTPError) as refused:
        urllib.request.urlopen(request, timeout=10)
    assert refused.value.code == 501


def test_a_port_that_is_taken_is_an_error_that_says_so(served: tuple[MetricsServer, Metrics, Readiness]) -> None:
    with pytest.raises(StorageUnavailable, match="address already in use") as refused:
        make_observer("decide", "info", "127.0.0.1", served[0].port)
    assert str(served[0].port) in str(refused.value)


def test_an_unknown_log_level_is_refused() -> None:
    with pytest.raises(UsageError, match="unknown `--log loud`"):
        make_observer("decide", "loud", "127.0.0.1", 0)


def test_without_a_port_nothing_of_metrics_is_loaded() -> None:
    code = (
        "import sys; from lumyn.observing import make_observer\n"
        "make_observer('decide', 'info', '127.0.0.1', 0)\n"
        "print(sorted(n for n in sys.modules if n.startswith(('prometheus', 'lumyn.metrics', 'http.server'))))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    assert done.stdout.strip() == "[]"


def test_log_lines_name_the_decision_in_debug_only(capsys: pytest.CaptureFixture[str]) -> None:
    for level in ("debug", "info", "quiet"):
        tell_everything(JsonLines("decide", level))
        lines = [json.loads(line) for line in capsys.readouterr().err.splitlines()]
        assert all({"at", "worker", "event"} <= set(line) for line in lines)
        decided = [line for line in lines if line["event"] == "decided"]
        assert [line["decision_id"] for line in decided] == (["01A"] if level == "debug" else [])
        assert any(line["event"] == "commit_failed" for line in lines)  # trouble is told at every level
        assert any(line["event"] == "worker_started" for line in lines) == (level != "quiet")


def test_a_decide_worker_tells_of_its_work(kafka: str) -> None:
    port, request = free_port(), (ROOT / "examples/refunds/request.json").read_text()
    with deployed(kafka, partitions=2, runtime=GROUP) as deployment:
        worker = deployment.start(
            "decide", arguments=("--metrics-port", str(port)), level="debug", env={"PYTHONUNBUFFERED": "1"}
        )
        worker.wait_for("worker_started")
        wait_until(lambda: get(port, "/readyz")[0] == 200, 30, lambda: get(port, "/readyz")[1])
        record = ask(deployment, request)
        wait_until(lambda: lags(get(port, "/metrics")[1]) == {"0": 0, "1": 0}, 20)
        text = get(port, "/metrics")[1]
        assert value(text, "lumyn_decisions_total", outcome="decided", verdict=record["verdict"]) == 1
        assert value(text, "lumyn_decision_latency_seconds_count") == 1
        assert value(text, "lumyn_batch_requests_sum") == 1
        assert value(text, "lumyn_commit_seconds_count") == 1
        assert value(text, "lumyn_control_version") == record["control"]["version"]
        assert value(text, "lumyn_control_stale") == 0
        assert value(text, "lumyn_memory_version") == record["memory"]["version"] == 0
        assert value(text, "lumyn_memory_breaker", state="closed") == 1
        assert value(text, "lumyn_ready", part="partitions") == 1
        assert value(text, "lumyn_events_total", name="partition_opened") == 2
        (line,) = worker.events("decided")
        assert (line["decision_id"], line["verdict"]) == (record["decision_id"], record["verdict"])

        spare = free_port()
        deployment.start("decide", "two").wait_for("worker_started")
        third = deployment.start("decide", "three", arguments=("--metrics-port", str(spare)))
        third.wait_for("worker_started")  # two partitions, three workers: having none is no fault
        wait_until(lambda: get(spare, "/readyz")[0] == 200, 30, lambda: third.tail())
        worker.stop()
        with pytest.raises(urllib.error.URLError):
            get(port, "/healthz")


def test_label_and_index_workers_are_ready_once_open(kafka: str) -> None:
    with deployed(kafka, partitions=1) as deployment:
        for kind in ("labels", "index"):
            port = free_port()
            worker = deployment.start(kind, arguments=("--metrics-port", str(port)))
            wait_until(lambda port=port: reachable(port) and get(port, "/readyz")[0] == 200, 60, worker.tail)
            assert get(port, "/readyz")[1] == f"{kind}: ok\n"
            assert "lumyn_decisions" not in get(port, "/metrics")[1]


def reachable(port: int) -> bool:
    try:
        return get(port, "/healthz")[0] == 200
    except OSError:
        return False


def ask(deployment, request: str) -> dict:
    """Decide by the command, as a caller would."""
    env = {"PATH": "", "LUMYN_KAFKA": deployment.address, "LUMYN_PREFIX": deployment.prefix}
    done = subprocess.run(
        [sys.executable, "-m", "lumyn", "decide", "-"],
        input=request, env={**env, "PYTHONPATH": str(ROOT)}, cwd=deployment.folder, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)
