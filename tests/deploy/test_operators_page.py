"""What docs/run-on-kafka.md says in tables is what the code does."""

from __future__ import annotations

import ast
import inspect
import re
from pathlib import Path

from lumyn.metrics import METRICS
from lumyn.stores import _server_options
from memory_service.qdrant.server import ServerEngine
from streams.topics import DAY_MS, TOPICS

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs/run-on-kafka.md").read_text()


def rows(head: str) -> list[list[str]]:
    """The cells of a table, without its head."""
    (found,) = re.findall(rf"^\| {re.escape(head)} \|.*\n\|[-|]+\n((?:\|.*\n)+)", PAGE, re.M)
    return [[cell.strip() for cell in row.strip("|").split(" | ")] for row in found.splitlines()]


def named(cell: str) -> list[str]:
    return re.findall(r"`([^`]+)`", cell)


def test_every_runtime_setting_stands_there_with_its_default() -> None:
    read: dict[str, float] = {}
    for path in (ROOT / "lumyn").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call) and len(node.args) == 2 and isinstance(node.args[1], ast.Constant):
                name = node.func.id if isinstance(node.func, ast.Name) else getattr(node.func, "attr", "")
                if name in ("runtime", "runtime_setting"):
                    default = float(node.args[1].value)
                    assert read.setdefault(node.args[0].value, default) == default, node.args[0].value
    told = {name: float(cells[1]) for cells in rows("`[runtime]`") for name in named(cells[0])}
    assert told == read


def test_every_qdrant_option_stands_there_with_its_default() -> None:
    told = {}
    for cells in rows("`[qdrant]`"):
        names, defaults = named(cells[0]), cells[1].split(", ")
        told |= dict(zip(names, defaults if len(defaults) == len(names) else defaults * len(names), strict=True))
    accepted = re.findall(r'"(\w+)"(?::|:\n)', inspect.getsource(_server_options).partition("known = ")[2])
    assert set(told) == {*accepted, "ca_certificate"}
    parameters = inspect.signature(ServerEngine).parameters
    for name, text in told.items():
        if text.isdigit():
            assert float(text) == parameters[name].default, name


def test_every_metric_stands_there_with_its_labels() -> None:
    told = {}
    for cells in rows("metric"):
        for text in named(cells[0]):
            name, _, labels = text.partition("{")
            told[name] = tuple(label.strip() for label in labels.rstrip("}").split(",") if label.strip())
    assert told == {name: metric.labels for name, metric in METRICS.items()}


def test_what_is_kept_and_for_how_long() -> None:
    (said,) = re.findall(r"\*\*Retention\.\*\*((?:.*\n)+?)(?=- \*\*)", PAGE)
    said = re.sub(r"\s+", " ", said)
    for names, days in ((("requests", "label-requests", "dead-letters"), 90), (("receipts",), 7)):
        for name in names:
            assert TOPICS[name].retention_ms == days * DAY_MS, name
    assert "`requests` and `label-requests` 90 days, `receipts` 7 days" in said
    assert "`dead-letters` 90 days" in said
    assert TOPICS["records"].compacted
    for name in ("labels", "control", "checkpoints", "ledger"):
        assert TOPICS[name].retention_ms is None
        assert not TOPICS[name].compacted
