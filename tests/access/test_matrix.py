"""Every route, by every role, of one's own tenant and another's: made from the app's own table of routes.

A route that is added and declares no access fails here, and so does one without an entry of how to ask it.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest
from conftest_e2e import refund
from fastapi import FastAPI
from fastapi.routing import APIRoute
from inside import Inside
from served import HERE, keyed_client, new_key
from starlette.testclient import TestClient

from lumyn import LumynConfig, sdk
from lumyn.access.guard import Guard
from lumyn.access.http import ANY, OPEN, check_declared, declared, needs, routes_of
from lumyn.access.principal import ROLES
from lumyn.access.store import KeyStore
from lumyn.api.app import make_app

pytest_plugins = ("inside_plugin",)
CONFIG = LumynConfig(policy_path="policy.yml")
OPERATOR, TENANT, OTHER = "default", "acme", "beta"
ASK: dict[str, Any] = {
    "POST /v1/decisions": refund(7),
    "POST /v1/decisions:batch": [refund(8)],
    "POST /v1/decisions/{decision_id}/labels": {"label": "note", "summary": "seen"},
    "POST /v1/memory/search": refund(9),
    "POST /v1/policies": b"policy: tried\nrules: [{id: R, if: {a: 1}, then: {verdict: DENY}}]\n",
    "POST /v1/policies:check": b"policy: tried\n",
    "POST /v1/kill-switches": {"why": "x", "scope": {"action_type": "other"}},
    "PUT /v1/kill-switches/{switch_id}": {"why": "x", "scope": {"action_type": "other"}},
}
SHARED = {"/v1/policies", "/v1/policies/{name}/activate", "/v1/policies/{name}/rollback", "/metrics"}
"""Of all tenants together: for the operator's keys alone."""


def api_routes(app: FastAPI) -> list[APIRoute]:
    """The routes of the API."""
    return [route for route in routes_of(app.routes) if isinstance(route, APIRoute)]


ROUTES = {
    f"{method} {route.path}": route
    for route in api_routes(make_app(LumynConfig(home="/nonexistent/home")))
    for method in sorted(route.methods)
}


@dataclass(frozen=True)
class Served:
    """A server with two tenants' decisions, and a key of each kind."""

    client: TestClient
    ids: dict[str, str]
    requests: dict[str, str]
    keys: dict[tuple[str, str], str]
    revoked: str
    expired: str

    def ask(self, name: str, key: str | None, of: str) -> Any:
        """Call a route with a key, about a tenant's things."""
        method, path = name.split(" ", 1)
        partition, offset = self.requests[of].split("/")
        named = {
            "decision_id": self.ids[of], "memory_id": self.ids[of], "name": "refunds", "switch_id": f"s-{of}",
            "partition": partition, "offset": offset,
        }  # fmt: skip
        address = path.format(**named)
        if name == "GET /v1/memory/search":
            address += f"?decision_id={self.ids[of]}"
        body = ASK.get(name)
        content = body if isinstance(body, bytes) else json.dumps(body).encode() if body is not None else None
        kind = {} if isinstance(body, bytes) else {"content-type": "application/json"}
        return self.client.request(method, address, content=content, headers=kind | ({"x-api-key": key.encode()} if key else {}))


@pytest.fixture
def served(inside: Inside) -> Iterator[Served]:
    ids, places = {}, {}
    for tenant in (OPERATOR, TENANT, OTHER):
        own = LumynConfig(policy_path="policy.yml", tenant=tenant)
        record = sdk.decide(refund(20), own)
        ids[tenant] = record["decision_id"]
        places[tenant] = f"{record['log']['partition']}/{record['log']['offset']}"
        sdk.label(ids[tenant], "failure", summary=f"secret of {tenant}", config=own)
    keys = {
        (tenant, role): new_key(CONFIG, tenant, role, name=f"{tenant}-{role}")
        for tenant in (OPERATOR, TENANT, OTHER)
        for role in ROLES
    }
    revoked = new_key(CONFIG, TENANT, "admin")
    expired = new_key(CONFIG, TENANT, "admin")
    store = KeyStore(inside.home.absolute())
    store.revoke(revoked.split("_")[1], actor="ann")
    with store._changing() as db:
        db.execute("UPDATE keys SET expires_ms = 1 WHERE key_id = ?", (expired.split("_")[1],))
    store.close()
    with keyed_client(CONFIG) as client:
        for tenant in (OPERATOR, TENANT, OTHER):
            scope = {"why": "w", "scope": {"action_type": "none", "tenant": tenant}}
            put = client.put(f"/v1/kill-switches/s-{tenant}", json=scope, headers={"x-api-key": keys[tenant, "admin"]})
            assert put.status_code == 200, put.text
        yield Served(client, ids, places, keys, revoked, expired)


def test_every_route_declares_its_access_and_one_that_does_not_is_refused() -> None:
    for name, route in ROUTES.items():
        assert declared(route) in (OPEN, ANY, *ROLES), name
    assert {name for name, route in ROUTES.items() if declared(route) == OPEN} == {"GET /healthz", "GET /readyz"}
    app = FastAPI(openapi_url=None, docs_url=None, redoc_url=None)
    app.get("/fine", dependencies=[needs("read")])(lambda: None)
    check_declared(app)
    app.get("/forgotten")(lambda: None)
    with pytest.raises(RuntimeError, match="/forgotten"):
        check_declared(app)


def test_without_a_good_key_no_route_answers(served: Served) -> None:
    strange = f"lumyn_{'0' * 12}_{'A' * 43}"
    nearly = served.keys[TENANT, "admin"][:-1] + ("A" if served.keys[TENANT, "admin"][-1] != "A" else "B")
    for name, route in ROUTES.items():
        for key in (None, "", "your-api-key", strange, nearly, served.revoked, served.expired, "é" * 10):
            answer = served.ask(name, key, TENANT)
            if declared(route) == OPEN:
                assert answer.status_code == 200, (name, answer.text)
                continue
            assert answer.status_code == 401, (name, key, answer.text)
            assert answer.json()["code"] == "unauthorized"
            assert "secret of" not in answer.text and "www-authenticate" in answer.headers


@pytest.mark.parametrize("name", ROUTES)
def test_each_role_may_what_its_route_says_and_no_more(served: Served, name: str) -> None:
    route = ROUTES[name]
    if declared(route) == OPEN:
        return
    for tenant, role in itertools.product((OPERATOR, TENANT), ROLES):
        answer = served.ask(name, served.keys[tenant, role], tenant)
        held = role in (declared(route), "admin") or declared(route) == ANY
        shared = tenant != OPERATOR and route.path in SHARED and not name.startswith("GET /v1/policies")
        if not held or shared:
            assert (answer.status_code, answer.json()["code"]) == (403, "forbidden"), (tenant, role, answer.text)
        else:
            assert answer.status_code < 300 or answer.json()["code"] in UNMET.get(name, ()), (tenant, role, answer.text)


UNMET = {
    "POST /v1/policies/{name}/rollback": ("not_found",),  # nothing was active before
    "PUT /v1/kill-switches/{switch_id}": ("request_conflict",),  # on with the tenant in its scope
    "DELETE /v1/kill-switches/{switch_id}": ("not_found",),  # gone since the role before
    "GET /v1/memory/explain/{decision_id}": ("usage",),
}


@pytest.mark.parametrize("name", ROUTES)
def test_another_tenant_s_things_are_not_there(served: Served, name: str) -> None:
    """With every role at once: what is not one's own is 404, or is left out of what is told."""
    route = ROUTES[name]
    if declared(route) == OPEN:
        return
    key = served.keys[TENANT, "admin"]
    own, others = served.ask(name, key, TENANT), served.ask(name, key, OTHER)
    for answer in (own, others):
        assert f"secret of {OTHER}" not in answer.text and f'"{OTHER}"' not in answer.text, answer.text
        assert served.ids[OTHER] not in answer.text or answer.status_code == 404, answer.text
    about = {"{decision_id}", "{memory_id}", "{offset}"} & set(route.path.replace("}", "} ").replace("/", " ").split())
    if about or name == "GET /v1/memory/search":
        assert others.status_code == 404, (name, others.text)
    if name.startswith("PUT /v1/kill-switches"):  # the same name is a switch of one's own
        assert others.json()["scope"] == {"action_type": "other", "tenant": TENANT}, others.text
    elif "{switch_id}" in route.path:
        assert others.status_code == 404, (name, others.text)
    still = served.client.get(f"/v1/kill-switches/s-{OTHER}", headers={"x-api-key": served.keys[OTHER, "read"]})
    assert still.status_code == 200


@pytest.mark.parametrize("name", ["POST /v1/decisions", "POST /v1/memory/search"])
def test_a_body_that_names_another_tenant_is_403(served: Served, name: str) -> None:
    key = served.keys[TENANT, "admin"]
    path = name.split(" ")[1]
    for tenant, status in ((TENANT, 200), (OTHER, 403), (OPERATOR, 403)):
        answer = served.client.post(path, json=refund(3, tenant=tenant), headers={"x-api-key": key})
        assert answer.status_code == status, answer.text
    batch = served.client.post(
        "/v1/decisions:batch", json=[refund(1, tenant=OTHER), refund(2)], headers={"x-api-key": key}
    ).json()
    assert batch[0]["error"]["code"] == "forbidden" and batch[1]["tenant"] == TENANT
    listed = served.client.get("/v1/decisions", headers={"x-api-key": served.keys[OTHER, "read"]}).json()["decisions"]
    assert [one["decision_id"] for one in listed] == [served.ids[OTHER]]


def test_a_switch_of_a_tenant_s_admin_stops_that_tenant_alone(served: Served) -> None:
    ask = {"x-api-key": served.keys[TENANT, "admin"]}
    put = served.client.put("/v1/kill-switches/mine", json={"why": "stop", "scope": {}}, headers=ask)
    assert put.json()["scope"] == {"tenant": TENANT}
    for tenant, verdict in ((TENANT, "DENY"), (OTHER, "ALLOW")):
        answer = served.client.post("/v1/decisions", json=refund(111), headers={"x-api-key": served.keys[tenant, "decide"]})
        codes = answer.json()["reason_codes"]
        assert ("KILL_SWITCH" in codes) == (verdict == "DENY"), answer.text
    refused = served.client.put("/v1/kill-switches/x", json={"why": "w", "scope": {"tenant": OTHER}}, headers=ask)
    assert refused.status_code == 403
    unsaid = served.client.put("/v1/kill-switches/x", json={"why": "w"}, headers=ask)
    assert unsaid.status_code == 422 and "what is to be stopped" in unsaid.json()["detail"]
    everything = served.client.put(
        "/v1/kill-switches/all", json={"why": "w", "scope": {}}, headers={"x-api-key": served.keys[OPERATOR, "admin"]}
    )
    assert everything.json()["scope"] == {}
    assert served.client.delete("/v1/kill-switches/all", headers=ask).status_code == 403
    assert served.client.delete("/v1/kill-switches/mine", headers=ask).status_code == 200


def test_in_dev_a_page_of_another_site_can_t_use_the_server(inside: Inside) -> None:
    guard = Guard(inside.home.absolute(), "default", "ann", dev=True)
    with TestClient(make_app(CONFIG, guard), HERE, raise_server_exceptions=False) as client:
        assert client.post("/v1/decisions", json=refund(1)).status_code == 200
        assert client.post("/v1/decisions", json=refund(1), headers={"x-api-key": "your-api-key"}).status_code == 200
        for headers in (
            {"host": "evil.example"}, {"host": "127.0.0.1.evil.example"}, {"origin": "https://evil.example"},
            {"sec-fetch-site": "cross-site"}, {"origin": "null"},
        ):  # fmt: skip
            refused = client.post("/v1/decisions", json=refund(1), headers=headers)
            assert (refused.status_code, refused.json()["code"]) == (403, "forbidden"), headers
        assert client.get("/v1/decisions", headers={"host": "localhost:1", "origin": HERE}).status_code == 200
        strange = f"lumyn_{'0' * 12}_{'A' * 43}"
        assert client.get("/v1/decisions", headers={"x-api-key": strange}).status_code == 401
