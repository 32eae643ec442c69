"""Switching the memory's embedder under running workers: they follow control, and past decisions keep their memory."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from conftest_e2e import refund
from faults.deployment import wait_until
from inside import Inside
from live_deployment import TIMEOUT_S, environment, living
from servers.qdrant import own_server
from small_model import small_model

from lumyn import LumynConfig, sdk, wiring

POLICY = """
policy: switched
version: 1.0.0
rules:
  - id: R_SMALL
    if: {amount_usd: {lte: 250}}
    then: {verdict: ALLOW, reason_codes: [SMALL]}
memory: {on_unavailable: abstain}
"""


@pytest.fixture(params=["own", "server"])
def qdrant(request: pytest.FixtureRequest) -> Iterator[str | None]:
    if request.param == "own":
        yield None
        return
    server = own_server()
    yield server.url
    server.close()


def test_workers_follow_a_switch_and_labels_go_to_the_memory_in_use(
    kafka: str, qdrant: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = f"static:{small_model(tmp_path / 'small')}"
    monkeypatch.chdir(tmp_path)
    with living(kafka, partitions=1, env={"LUMYN_QDRANT": qdrant} if qdrant else {}) as live:
        live.use_policy(POLICY)
        workers = [live.start(kind) for kind in ("decide", "labels", "index")]
        for worker, event in zip(workers[:2], ("worker_started", "labels_opened"), strict=True):
            worker.wait_for(event)
        config = live.config(qdrant=qdrant) if qdrant else live.config()
        home = str(live.folder / "caller")
        surroundings = {"LUMYN_KAFKA": live.address, "LUMYN_PREFIX": live.prefix, "LUMYN_HOME": home}
        with environment(**surroundings, **({"LUMYN_QDRANT": qdrant} if qdrant else {})):
            _followed(config, Inside(tmp_path), model)
        wiring.close_homes()


def _followed(config: LumynConfig, command: Inside, model: str) -> None:
    def decided(amount: float) -> dict[str, Any]:
        return dict(sdk.decide(refund(amount), config))

    def until(what: Any, message: str) -> None:
        wait_until(what, TIMEOUT_S, message, every_s=0.1)

    until(lambda: decided(1)["memory"]["available"], "memory never answered")
    first = decided(100)
    sdk.label(first["decision_id"], "failure", summary="fraud after all", config=config)
    until(lambda: decided(100)["verdict"] == "DENY", "the label never reached the memory")
    switched = command.json("memory", "switch", model, "--why", "a smaller model", "--json")
    assert switched["points"] == 1
    until(lambda: "small-64" in str(decided(100)["memory"]["vectoriser_id"]), "the worker never followed")
    again = decided(100)
    assert again["verdict"] == "DENY", "the harm is remembered in the other memory, too"
    other = decided(240)
    sdk.label(again["decision_id"], "failure", summary="rightly so", should="ALLOW", config=config)
    version = sdk.label(other["decision_id"], "success", summary="fine", config=config)["version"]
    until(lambda: decided(90)["memory"]["version"] >= version, "labels don't reach the memory in use")
    told = command.json("memory", "verify", "--sample", "500", "--json")
    assert told["verified"] and told["same"] > 5 and not told["not_comparable"]
    assert command.json("memory", "stats", "--json")["left"] == [first["memory"]["vectoriser_id"]]
    command.run("memory", "explain", again["decision_id"])
    command.run("memory", "switch", "static", "--why", "back")
    until(lambda: decided(90)["memory"]["vectoriser_id"] == first["memory"]["vectoriser_id"], "it never went back")
    assert decided(90)["memory"]["version"] >= version
    assert command.json("memory", "verify", "--sample", "500", "--json")["verified"]
