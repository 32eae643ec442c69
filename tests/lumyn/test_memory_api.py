"""`/v1/memory`: what the memory holds, and that no tenant ever sees another's, whatever is asked."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from conftest_e2e import POLICY, refund
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from inside import Inside
from served import dev_client
from starlette.testclient import TestClient

from lumyn import LumynConfig, sdk, wiring
from lumyn.label_jobs import known, send, sign
from lumyn.wiring import existing_home
from streams.label_jobs import trust

pytest_plugins = ("inside_plugin",)


@pytest.fixture
def api(inside: Inside) -> Iterator[TestClient]:
    with dev_client(LumynConfig(policy_path="policy.yml")) as client:
        yield client


def test_what_the_memory_holds(api: TestClient, inside: Inside) -> None:
    bad, other = (inside.decide(refund(20))["decision_id"] for _ in range(2))
    sdk.label(bad, "failure", summary="chargeback", actor="ann")
    sdk.label(bad, "success", summary="none", actor="ben")
    record = inside.decide(refund(20))
    stats = api.get("/v1/memory").json()
    assert (stats["version"], stats["points"], stats["contested"]) == (2, 1, [bad])
    near = api.get("/v1/memory/search", params={"decision_id": record["decision_id"]}).json()
    assert near["memory"]["counted"][0]["memory_id"] == bad
    asked = api.post("/v1/memory/search", json=refund(20), params={"limit": 1}).json()
    assert asked["memory"]["counted"] == near["memory"]["counted"]
    assert api.get("/v1/memory/search", params={"decision_id": bad}).json()["memory"]["counted"] == [], "itself"
    point = api.get(f"/v1/memory/points/{bad}").json()
    assert [(s["meaning"], s["from_version"], s["to_version"]) for s in point["stood"]] == [
        ("harmful", 1, 2), ("harmful", 2, None),
    ]  # fmt: skip
    assert point["now"] == point["stood"][-1] and len(point["events"]) == 2
    assert api.get(f"/v1/memory/points/{other}").status_code == 404
    told = api.get(f"/v1/memory/explain/{record['decision_id']}").json()
    assert told == inside.json("memory", "explain", record["decision_id"], "--json")
    (dispute,) = api.get("/v1/memory/contested").json()["contested"]
    assert [(word["actor"], word["label"]) for word in dispute["said"]] == [("ann", "failure"), ("ben", "success")]
    assert inside.json("memory", "contested", "--json")["contested"] == [dispute]
    assert "ann: failure" in inside.run("memory", "contested").stdout
    assert api.get("/v1/memory/suspects").json() == inside.json("memory", "suspects", "--json")
    settled = {"label": "success", "settle": True}
    assert api.post(f"/v1/decisions/{bad}/labels", json={**settled, "settle": "yes"}).status_code == 422
    assert api.post(f"/v1/decisions/{bad}/labels", json=settled).json()["type"] == "settle"
    assert api.get("/v1/memory/contested").json() == {"contested": []}


def test_a_taken_back_label_stands_for_nothing(api: TestClient, inside: Inside) -> None:
    name = inside.decide(refund(20))["decision_id"]
    sdk.label(name, "failure")
    sdk.label(name, "retracted")
    point = api.get(f"/v1/memory/points/{name}").json()
    assert point["now"] is None and [s["to_version"] for s in point["stood"]] == [2]


def test_trust_and_what_it_makes_of_a_point(api: TestClient, inside: Inside) -> None:
    bad = inside.decide(refund(20))["decision_id"]
    sdk.label(bad, "failure", actor="bot")
    inside.run("memory", "trust", "bot", 0.25, "--why", "one in five was wrong", "--apply")
    (one,) = api.get("/v1/memory/trust").json()["trust"]
    assert (one["labeller"], one["trust"], one["since"], one["why"]) == ("bot", 0.25, 2, "one in five was wrong")
    point = api.get(f"/v1/memory/points/{bad}").json()
    assert [(stood["trust"], stood["from_version"], stood["to_version"]) for stood in point["stood"]] == [
        (1, 1, 2), (0.25, 2, None),
    ]  # fmt: skip
    assert point["now"]["trust"] == 0.25 and point["now"]["at"] == point["events"][0]["at"]
    assert api.get("/v1/memory").json()["trusted_less"] == 1
    inside.run("memory", "quarantine", "--labeller", "bot", "--why", "x", "--apply")
    assert api.get(f"/v1/memory/points/{bad}").json()["now"] is None
    assert api.get("/v1/memory").json()["points"] == 0


@pytest.mark.parametrize("limit", [0, 51, "x", -1])
def test_a_limit_has_bounds(api: TestClient, limit: object) -> None:
    response = api.post("/v1/memory/search", json=refund(20), params={"limit": limit})
    assert response.status_code == 422 and response.headers["content-type"] == "application/problem+json"


STEP = st.tuples(
    st.sampled_from(["ours", "theirs"]),
    st.sampled_from(["decide", "label", "retract", "quarantine", "trust"]),
    st.integers(0, 5),
    st.sampled_from([20, 90, 480]),
)


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(steps=st.lists(STEP, min_size=6, max_size=30))
def test_no_tenant_sees_another_s(steps: list[Any], inside: Inside) -> None:
    """Two tenants in one home, whatever they do: each one's answers hold nothing of the other's, and its ids are 404."""
    with tempfile.TemporaryDirectory() as folder:
        Path(folder, "policy.yml").write_text(POLICY)
        configs = {
            name: LumynConfig(home=Path(folder, "home"), tenant=name, policy_path=f"{folder}/policy.yml")
            for name in ("ours", "theirs")
        }
        made: dict[str, list[str]] = {"ours": [], "theirs": []}
        for tenant, what, number, amount in steps:
            _do(configs[tenant], tenant, made[tenant], what, number, amount)
        for tenant, other in (("ours", "theirs"), ("theirs", "ours")):
            with dev_client(configs[tenant]) as api:
                _check(api, tenant, other, made)
        wiring.close_homes()


def _do(config: LumynConfig, tenant: str, made: list[str], what: str, number: int, amount: int) -> None:
    mark = f"mark-of-{tenant}"
    if what == "decide" or not made:
        made.append(sdk.decide(refund(amount, user=mark), config)["decision_id"])
    elif what == "trust":
        home = existing_home(config)
        plan = trust(sign(home, "trust", mark), mark, number * 20, known(home))
        send(home, plan.requests, lambda count: None)
    elif what == "retract":
        sdk.label(made[number % len(made)], "retracted", summary=mark, actor=mark, config=config)
    else:
        label = "failure" if what == "label" else "success"
        sdk.label(made[number % len(made)], label, summary=mark, actor=mark, config=config)


def _check(api: TestClient, tenant: str, other: str, made: dict[str, list[str]]) -> None:
    answers = [api.get(f"/v1/memory{path}") for path in ("", "/suspects?limit=1000", "/contested", "/trust")]
    answers += [api.post("/v1/memory/search?limit=50", json=refund(amount)) for amount in (20, 90, 480)]
    answers += [api.post("/v1/memory/search", json=refund(20, tenant=other))]
    for name in made[tenant]:
        answers += [api.get(f"/v1/memory/search?decision_id={name}"), api.get(f"/v1/memory/explain/{name}")]
    assert all(answer.status_code in (200, 403) for answer in answers)
    for name in made[other]:
        for path in (f"points/{name}", f"explain/{name}", f"search?decision_id={name}", f"points/{name[:20]}..."):
            answer = api.get(f"/v1/memory/{path}")
            assert answer.status_code in (404, 400), "another tenant's decision is not there"
            answers.append(answer)
    for answer in answers:
        assert f"mark-of-{other}" not in answer.text
        assert answer.status_code != 200 or not any(name in answer.text for name in made[other])
