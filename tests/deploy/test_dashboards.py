"""deploy/alerts.yml and deploy/grafana: every expression parses and asks for metrics, labels and states that are told."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args

import promql_parser as promql
import pytest
import yaml
from prometheus_client.parser import text_string_to_metric_families

from lumyn.metrics import METRICS, WATCH_METRICS, Metrics, WatchMetrics
from lumyn.watches.check import State, TargetState

ROOT = Path(__file__).parents[2]
ALERTS = yaml.safe_load((ROOT / "deploy/alerts.yml").read_text())
RULES = [rule for group in ALERTS["groups"] for rule in group["rules"]]
BOARD: dict[str, Any] = json.loads((ROOT / "deploy/grafana/lumyn.json").read_text())
PANELS = [panel for panel in BOARD["panels"] if panel["type"] != "row"]
JOBS = {
    job["job_name"] for job in yaml.safe_load((ROOT / "deploy/prometheus.yml").read_text())["scrape_configs"]
}
OF_PROMETHEUS = {"job", "instance", "le"}
STATES = {
    "lumyn_watch_state": set(get_args(State)), "lumyn_watch_target": set(get_args(TargetState)),
    "lumyn_memory_breaker": {"closed", "half-open", "open"},
}  # fmt: skip


def told() -> dict[str, set[str]]:
    """Every sample that the code exposes, with its labels: from real expositions."""
    worker, watcher = Metrics("decide"), WatchMetrics("default")
    worker.decided("decided", "ALLOW", 0.01, "01A")
    worker.batch(3)
    worker.committed(0.01, 3)
    worker.recalled(0.01, False, 3)
    worker.breaker("open")
    worker.dead_letter("bad_request")
    worker.lag({0: 1})
    worker.ready("control", True)
    worker.memory_version(4)
    worker.control_version(5, True)
    worker.event("worker_started")
    worker.trouble("commit_failed", ValueError("no"))
    worker.answered("POST", "/v1/decisions", 200, 0.01)
    seen = {"rate": 0.5, "lower": 0.1, "upper": 0.9, "count": 2, "events": 1, "burn": 3.0}
    windows = {"short": seen, "long": seen, "target": seen}
    watcher.checked([{"name": "w", "windows": windows, "alert": True, "state": "alert", "target_state": "missed"}])
    watcher.failed("storage_unavailable")
    out: dict[str, set[str]] = {"up": set()}
    for one in (worker, watcher):
        for family in text_string_to_metric_families(one.exposition("")[0].decode()):
            for sample in family.samples:
                out.setdefault(sample.name, set()).update(sample.labels)
    assert set(METRICS) | set(WATCH_METRICS) <= {re.sub(r"_(bucket|count|sum)$", "", name) for name in out} | set(out)
    return out


TOLD = told()


def expressions() -> Iterator[tuple[str, str]]:
    for rule in RULES:
        yield rule["alert"], rule["expr"]
    for panel in PANELS:
        for target in panel["targets"]:
            yield f"{panel['title']} {target['refId']}", target["expr"]


def parsed(expr: str) -> Any:
    for name, value in (("$__rate_interval", "5m"), ("$tenant", ".*"), ("$watch", ".*")):
        expr = expr.replace(name, value)
    return promql.parse(expr)


def nodes(node: Any) -> Iterator[Any]:
    yield node
    for name in ("lhs", "rhs", "expr", "vector_selector", "args", "param"):
        inner = getattr(node, name, None)
        for one in inner if isinstance(inner, list) else [inner]:
            if one is not None and type(one).__module__.startswith(("promql", "builtins")) and hasattr(one, "prettify"):
                yield from nodes(one)


@pytest.mark.parametrize(("where", "expr"), list(expressions()))
def test_an_expression_parses_and_asks_for_what_is_told(where: str, expr: str) -> None:
    every = list(nodes(parsed(expr)))
    selectors = [node for node in every if isinstance(node, promql.VectorSelector)]
    assert selectors, where
    labels: set[str] = set(OF_PROMETHEUS)
    for one in selectors:
        assert one.name in TOLD, f"{where}: nobody tells `{one.name}`"
        labels |= TOLD[one.name]
        for matcher in one.matchers.matchers:
            assert matcher.name in TOLD[one.name] | OF_PROMETHEUS, f"{where}: {one.name} has no `{matcher.name}`"
            if matcher.name == "job":
                assert matcher.value in JOBS, where
            if matcher.name == "state":
                assert matcher.value in STATES[one.name], f"{where}: {matcher.value}"
            if matcher.name == "window":
                assert matcher.value in ("short", "long", "target"), where
    for node in every:
        by = getattr(getattr(node, "modifier", None), "labels", None)
        if isinstance(node, promql.AggregateExpr) and by:
            assert set(by) <= labels, f"{where}: by {by}"


@pytest.mark.parametrize("rule", [rule for rule in RULES if re.search(r"increase\(.*> 0\b", rule["expr"])], ids=lambda rule: rule["alert"])
def test_the_first_case_alerts_too(rule: dict[str, Any]) -> None:
    """A counter is there from its first case on (`_Exposed`), and `increase` sees none in what was not there before."""
    selectors = {one.prettify() for one in nodes(parsed(rule["expr"])) if isinstance(one, promql.VectorSelector)}
    (first,) = {one.partition(" offset ")[0] for one in selectors if " offset " in one}
    assert f"{first} unless {first} offset 10m" in rule["expr"].replace("\n", " ")


@pytest.mark.skipif(shutil.which("promtool") is None, reason="promtool, of Prometheus, is not installed")
def test_the_alerts_fire_as_prometheus_itself_sees_it() -> None:
    subprocess.run(["promtool", "test", "rules", "tests/deploy/alerts_test.yml"], cwd=ROOT, check=True, timeout=60)


def test_a_wrong_name_would_be_seen() -> None:
    with pytest.raises(AssertionError, match="nobody tells"):
        test_an_expression_parses_and_asks_for_what_is_told("x", "rate(lumyn_decision_total[5m]) > 1")
    with pytest.raises(AssertionError, match="has no `verdic`"):
        test_an_expression_parses_and_asks_for_what_is_told("x", 'lumyn_decisions_total{verdic="ALLOW"}')
    with pytest.raises(ValueError, match=r"."):
        parsed("sum by (a (up)")


def test_alerts_have_names_of_their_own_and_say_a_sentence() -> None:
    assert len({rule["alert"] for rule in RULES}) == len(RULES) >= 18
    for rule in RULES:
        assert rule["annotations"]["summary"].endswith("."), rule["alert"]
        named = set(re.findall(r"\$labels\.(\w+)", rule["annotations"]["summary"]))
        selected = {name for node in nodes(parsed(rule["expr"])) if isinstance(node, promql.VectorSelector)
                    for name in TOLD[node.name]}  # fmt: skip
        assert named <= selected | {"job", "instance"}, rule["alert"]


def test_the_dashboard_is_one_that_grafana_takes() -> None:
    assert {"uid", "title", "schemaVersion", "panels", "templating", "time", "refresh"} <= set(BOARD)
    assert BOARD["schemaVersion"] >= 36 and len({panel["id"] for panel in BOARD["panels"]}) == len(BOARD["panels"])
    known = {"row", "stat", "table", "timeseries"}
    taken: set[tuple[int, int]] = set()
    for panel in BOARD["panels"]:
        at = panel["gridPos"]
        cells = {(x, y) for x in range(at["x"], at["x"] + at["w"]) for y in range(at["y"], at["y"] + at["h"])}
        assert panel["type"] in known and panel["title"] and at["x"] + at["w"] <= 24
        assert not cells & taken, f"{panel['title']} lies over another panel"
        taken |= cells
    for panel in PANELS:
        assert panel["description"].endswith(".") and panel["fieldConfig"]["defaults"]["noValue"]
        assert len({target["refId"] for target in panel["targets"]}) == len(panel["targets"]) > 0


def test_every_metric_of_the_watches_is_shown_or_alerts() -> None:
    asked = {
        node.name for _, expr in expressions() for node in nodes(parsed(expr)) if isinstance(node, promql.VectorSelector)
    }
    assert set(WATCH_METRICS) <= asked


def test_the_page_has_every_metric_with_its_labels() -> None:
    page = (ROOT / "docs/watch.md").read_text().partition("| metric | says |")[2]
    said = dict(re.findall(r"`(lumyn_\w+)(?:\{([^}]*)\})?`", page.partition("\n## ")[0]))
    assert {name: tuple(filter(None, labels.split(", "))) for name, labels in said.items()} == {
        name: metric.labels for name, metric in WATCH_METRICS.items()
    }


def test_the_dashboards_data_is_of_the_provisioned_prometheus() -> None:
    (source,) = yaml.safe_load((ROOT / "deploy/grafana/datasources.yml").read_text())["datasources"]
    (provider,) = yaml.safe_load((ROOT / "deploy/grafana/dashboards.yml").read_text())["providers"]
    services = yaml.safe_load((ROOT / "docker-compose.yml").read_text())["services"]
    mounted = dict(v.removesuffix(":ro").split(":") for v in services["grafana"]["volumes"] if v.startswith("./"))
    assert source["type"] == "prometheus" and source["url"] == "http://prometheus:9090"
    assert services["prometheus"]["ports"] == ["127.0.0.1:9090:9090"]
    uids = {ref["uid"] for panel in PANELS for ref in (panel["datasource"], *(t["datasource"] for t in panel["targets"]))}
    assert uids | {one["datasource"]["uid"] for one in BOARD["templating"]["list"]} == {source["uid"]}
    assert mounted["./deploy/grafana/lumyn.json"] == f"{provider['options']['path']}/lumyn.json"
    assert mounted["./deploy/grafana/datasources.yml"].startswith("/etc/grafana/provisioning/datasources/")
    assert mounted["./deploy/grafana/dashboards.yml"].startswith("/etc/grafana/provisioning/dashboards/")
    environment = services["grafana"]["environment"]
    assert environment["GF_DASHBOARDS_DEFAULT_HOME_DASHBOARD_PATH"] in mounted.values()
    assert not any("PASSWORD" in name for name in environment)
