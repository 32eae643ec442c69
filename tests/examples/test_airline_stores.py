"""The real airline decisions, labelled with what really happened: every store answers the same, also made anew."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from servers.qdrant import own_server
from test_airline import EXAMPLE, OUTCOMES, REQUESTS

from lumyn import LumynConfig, decide_many, sdk
from lumyn.home import Home
from lumyn.wiring import close_homes, open_home
from streams.as_of import recall_again

_AT_ONCE = 8


@pytest.fixture(params=["sqlite", "edge", "server"])
def qdrant(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str | None]:
    if request.param == "sqlite":
        yield None
    elif request.param == "edge":
        pytest.importorskip("qdrant_edge")
        yield f"edge:{tmp_path / 'edge'}"
    else:
        running = own_server()
        yield running.url
        running.close()


def lived(config: LumynConfig) -> list[dict[str, Any]]:
    """All requests, some at a time, each labelled after it was decided; then all of them again."""
    made: list[dict[str, Any]] = []
    requests = list(REQUESTS.values())
    for start in range(0, len(requests), _AT_ONCE):
        records = [dict(record) for record in decide_many(requests[start : start + _AT_ONCE], config)]  # type: ignore[arg-type]
        for record in records:
            outcome = OUTCOMES[record["request_id"]]
            good = outcome["expected"] == (record["verdict"] == "ALLOW")
            sdk.label(
                record["decision_id"], "success" if good else "failure", summary=outcome["tool_reply"], config=config
            )
        made += records
    again = [{key: value for key, value in request.items() if key != "request_id"} for request in requests]
    return made + [dict(record) for record in decide_many(again, config)]  # type: ignore[arg-type]


def answers(records: list[dict[str, Any]]) -> list[Any]:
    """What each was decided and recalled, with decisions named by their place, since their ids differ between homes."""
    places = {record["decision_id"]: number for number, record in enumerate(records)}

    def named(value: Any) -> Any:
        if isinstance(value, dict):
            return {key: named(inner) for key, inner in value.items() if key != "epoch"}
        return [named(inner) for inner in value] if isinstance(value, list) else places.get(value, value)

    return [(r["verdict"], r["reason_codes"], named(r["memory"]), named(r["risk_signals"])) for r in records]


def same_as_recorded(home: Home, records: list[dict[str, Any]]) -> bool:
    mark = home.memory.store().watermark()
    found = recall_again(records, home.memory, epoch=mark.epoch, vectoriser_id=mark.vectoriser_id, version=mark.version)
    return [one.outcome for one in found] == ["same"] * len(records)


def test_every_store_answers_as_the_exact_one_and_as_before_when_made_anew(qdrant: str | None, tmp_path: Path) -> None:
    config = LumynConfig(home=tmp_path / "home", policy_path=EXAMPLE / "policy.yml", qdrant=qdrant)
    records = lived(config)
    plain = lived(LumynConfig(home=tmp_path / "plain", policy_path=EXAMPLE / "policy.yml"))
    assert answers(records) == answers(plain)
    assert len({record["verdict"] for record in records}) > 2
    assert any(record["memory"]["counted"] for record in records), "nothing was recalled"
    home = open_home(config)
    assert same_as_recorded(home, records)
    home.fill_memory(None, lambda count: None, anew=True)
    assert same_as_recorded(home, records)
    close_homes()
