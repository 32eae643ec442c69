"""The HTTP app: every operation, and every refusal as RFC 9457 problem+json."""

from __future__ import annotations

import asyncio
import json
import sqlite3
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from conftest_e2e import next_millisecond, refund
from inside import Inside
from served import dev_client
from starlette.testclient import TestClient

from lumyn import LumynConfig, sdk
from lumyn.api import looking, server
from lumyn.api.app import make_app
from lumyn.api.homes import guard_for
from lumyn.wiring import open_home
from schemas.digests import digest_of
from schemas.errors import BadConfig
from schemas.limits import MAX_BODY_BYTES

pytest_plugins = ("inside_plugin",)

TRACEABILITY = {
    "condition_id", "condition_version", "entity_id", "evaluated_at", "outcome", "rule_id", "concept_result",
    "input_primitives", "signal_errors", "threshold_applied", "strategy", "direction", "action_id",
}  # fmt: skip
JSON = {"content-type": "application/json"}


@pytest.fixture
def api(inside: Inside) -> Iterator[TestClient]:
    with dev_client(LumynConfig(policy_path="policy.yml")) as client:
        yield client


@pytest.mark.parametrize(
    ("value", "recorded", "kind"),
    [("4", 4, "integer"), ("4.0", 4, "integer"), ("0.9", 0.9, "float"), ("-2.5", -2.5, "float"), ("true", True, "boolean"),
     ('"4"', "4", "string"), ("[4]", [4], "list")],
)  # fmt: skip
def test_what_was_compared_has_the_type_that_was_recorded(
    inside: Inside, api: TestClient, value: str, recorded: Any, kind: str
) -> None:
    rule = "- {id: R, if: {any: [{risk: {gt: 0.5}}, {risk: {lt: 0}}, {risk: {in: [true, '4']}}]}, then: {verdict: DENY}}"
    inside.write("policy.yml", f"policy: kinds\nversion: 1.0.0\nrules:\n  {rule}\n")
    body = '{"subject": {"type": "u", "id": "1"}, "action": {"type": "x"}, "evidence": {"risk": %s}}' % value  # noqa: UP031
    made = api.post("/v1/decisions", content=body, headers=JSON).json()
    kept = api.get(f"/v1/decisions/{made['decision_id']}").json()
    assert made["concept_result"] == kept["concept_result"]
    assert kept["concept_result"] == {"value": recorded, "type": kind}
    assert type(kept["concept_result"]["value"]) is type(recorded)


def problem(response: Any, status: int) -> dict[str, Any]:
    """The problem of a refusal."""
    assert response.status_code == status, response.text
    assert response.headers["content-type"] == "application/problem+json"
    value = response.json()
    assert value["status"] == status
    assert value["title"] == value["code"].replace("_", " ") and value["detail"]
    assert value["type"].startswith(("urn:lumyn:error:", "about:blank"))
    assert "Traceback" not in response.text
    return dict(value)


def decided(api: TestClient, amount: float = 100, **more: Any) -> dict[str, Any]:
    next_millisecond()
    response = api.post("/v1/decisions", json=refund(amount, **more))
    assert response.status_code == 200, response.text
    next_millisecond()
    return dict(response.json())


def test_a_decision_is_made_stored_and_served_as_the_same_record(api: TestClient, inside: Inside) -> None:
    record = decided(api)
    assert record["verdict"] == "ALLOW"
    assert api.get(f"/v1/decisions/{record['decision_id']}").json() == record
    alone = api.get(f"/v1/decisions/{record['decision_id']}?form=record").json()
    assert sdk.show(record["decision_id"])["record"] == alone
    assert digest_of({k: v for k, v in alone.items() if k != "record_digest"}) == alone["record_digest"]
    assert alone.items() <= record.items() and set(record) - set(alone) == TRACEABILITY


def test_a_batch_has_errors_in_their_places(api: TestClient) -> None:
    bodies = [refund(1), {"no": 1}, refund(2, request_id="x"), refund(3, request_id="x"), 7, None, []]
    results = api.post("/v1/decisions:batch", json=bodies).json()
    assert [r.get("verdict") or r["error"]["code"] for r in results] == [
        "ALLOW", "bad_request", "ALLOW", "request_conflict", "bad_request", "bad_request", "bad_request",
    ]  # fmt: skip
    assert api.post("/v1/decisions:batch", json=[]).json() == []
    problem(api.post("/v1/decisions:batch", json={"not": "a list"}), 422)
    problem(api.post("/v1/decisions:batch", content=b"[1,", headers=JSON), 422)


def test_a_duplicate_is_the_first_record_and_a_conflict_is_409(api: TestClient, inside: Inside) -> None:
    first = decided(api, request_id="r")
    assert decided(api, request_id="r") == first
    told = problem(api.post("/v1/decisions", json=refund(999, request_id="r")), 409)
    assert told["code"] == "request_conflict"
    assert first["decision_id"] in told["detail"]
    assert inside.records() == 1


@pytest.mark.parametrize("path", ["", "/events", "/verify"])
def test_what_does_not_exist_is_404(api: TestClient, path: str) -> None:
    decided(api)
    for name in ("7ZZZZZZZZZZZZZZZZZZZZZZZZZ", "nonsense", "%1b%5b31m", "%00", "x" * 5000, "..%2f..%2fetc", "%ff", "'--"):
        problem(api.get(f"/v1/decisions/{name}{path}"), 404)
    problem(api.get("/v1/nothing"), 404)
    problem(api.delete("/v1/decisions"), 405)


def test_a_prefix_that_fits_several_is_400(api: TestClient) -> None:
    first = decided(api)["decision_id"]
    decided(api)
    assert "fits 2 decisions" in problem(api.get(f"/v1/decisions/{first[:5]}"), 400)["detail"]


def test_another_tenant_s_decision_is_404(api: TestClient) -> None:
    name = sdk.decide(refund(1), LumynConfig(tenant="other"))["decision_id"]
    decided(api)
    for path in ("", "/events", "/verify"):
        problem(api.get(f"/v1/decisions/{name}{path}"), 404)
    problem(api.post(f"/v1/decisions/{name}/explain"), 404)
    problem(api.post(f"/v1/decisions/{name}/labels", json={"label": "failure"}), 404)
    assert name not in api.get("/v1/decisions").text


def test_a_body_that_is_too_large_or_deep_is_413(api: TestClient, inside: Inside) -> None:
    large = json.dumps(refund(1, evidence={"x": "y" * 300_000}))
    assert problem(api.post("/v1/decisions", content=large, headers=JSON), 413)["code"] == "too_large"

    def endless() -> Iterator[bytes]:
        yield b'{"x": "'
        for _ in range(64):
            yield b"y" * 65536

    problem(api.post("/v1/decisions", content=endless(), headers=JSON), 413)
    problem(api.post("/v1/decisions", content=b"[" * 3000, headers=JSON), 413)
    batch = b"[" + b" " * (64 * MAX_BODY_BYTES) + b"]"
    problem(api.post("/v1/decisions:batch", content=batch, headers=JSON), 413)
    name = decided(api)["decision_id"]
    problem(api.post(f"/v1/decisions/{name}/labels", json={"label": "failure", "summary": "x" * 300_000}), 413)
    assert inside.records() == 1


def test_reading_stops_at_the_limit_whatever_the_headers_claim(inside: Inside) -> None:
    config = LumynConfig(policy_path="policy.yml")
    app = make_app(config, guard_for(config, dev=True))
    read = 0
    sent: list[Any] = []

    async def receive() -> dict[str, Any]:
        nonlocal read
        read += 65536
        return {"type": "http.request", "body": b"y" * 65536, "more_body": read < 100 << 20}

    async def send(message: Any) -> None:
        sent.append(message)

    scope = {
        "type": "http", "asgi": {"version": "3.0"}, "http_version": "1.1", "method": "POST", "scheme": "http",
        "path": "/v1/decisions", "raw_path": b"/v1/decisions", "query_string": b"", "root_path": "",
        "headers": [(b"content-length", b"10")], "client": ("127.0.0.1", 1), "server": ("127.0.0.1", 80),
    }  # fmt: skip
    asyncio.run(app(scope, receive, send))  # type: ignore[arg-type]
    assert sent[0]["status"] == 413
    assert read <= MAX_BODY_BYTES + 2 * 65536


@pytest.mark.parametrize(
    "body",
    [b"", b"{", b"null", b"[]", b"7", b"{}", b"\xff", b'{"a":NaN}', b'{"a":1,"a":2}', b'{"a":1e999}', b'{"a":"\\ud800"}',
     b'{"subject":{"type":"u","id":"x"},"action":{"type":"a"},"more":1}',
     b'{"subject":{"type":"u","id":"x"},"action":{"type":"a"},"evidence":{"r":12345678901234567890}}'],
)  # fmt: skip
def test_a_body_that_is_no_request_is_422(api: TestClient, inside: Inside, body: bytes) -> None:
    told = problem(api.post("/v1/decisions", content=body, headers=JSON), 422)
    assert told["code"] in ("bad_json", "bad_request")
    assert inside.records() == 0


def test_labels_and_events(api: TestClient) -> None:
    name = decided(api)["decision_id"]
    first = api.post(f"/v1/decisions/{name}/labels", json={"label": "failure", "summary": "x", "event_id": "e"})
    assert first.status_code == 201
    again = api.post(f"/v1/decisions/{name}/labels", json={"label": "failure", "summary": "x", "event_id": "e"})
    assert again.json() == first.json()
    api.post(f"/v1/decisions/{name}/labels", json={"label": "note", "summary": "seen"})
    events = api.get(f"/v1/decisions/{name}/events").json()
    assert [(e["type"], e["label"], e["summary"]) for e in events] == [("label", "failure", "x"), ("note", None, "seen")]
    assert decided(api)["verdict"] == "DENY"


@pytest.mark.parametrize(
    "body",
    [{}, [], "failure", None, {"label": 7}, {"label": "maybe"}, {"label": "failure", "summary": 7},
     {"label": "failure", "should": "ALLOW"}, {"label": "failure", "extra": 1}, {"label": "failure", "actor": {}},
     {"label": "failure", "event_id": 7}, {"label": "failure", "event_id": ["x"]}, {"label": "failure", "should": 1}],
)  # fmt: skip
def test_a_bad_label_is_422_and_not_stored(api: TestClient, body: Any) -> None:
    name = decided(api)["decision_id"]
    problem(api.post(f"/v1/decisions/{name}/labels", json=body), 422)
    assert api.get(f"/v1/decisions/{name}/events").json() == []


def test_explain_and_verify(api: TestClient) -> None:
    record = decided(api, 900)
    name = record["decision_id"]
    explained = api.post(f"/v1/decisions/{name}/explain").json()
    assert explained["decision_id"] == name
    assert "amount_usd (900) is above 250 by 650" in explained["explanation"]
    assert api.get(f"/v1/decisions/{name}/explain").json() == explained, "the source asks it both ways"
    verified = api.get(f"/v1/decisions/{name}/verify").json()
    assert (verified["verified"], verified["ir_hash"]) == (True, record["ir_hash"])
    assert {check["name"] for check in verified["checks"]} >= {"record_digest", "receipt", "reproduction", "checkpoint"}


def test_a_tampered_record_is_not_served_and_verify_says_what_failed(api: TestClient, inside: Inside) -> None:
    name = decided(api, 900)["decision_id"]
    with sqlite3.connect(inside.home / "lumyn.db") as db:
        db.execute("UPDATE log_records SET value = replace(value, 'ESCALATE', 'ALLOW')")
    for response in (api.get(f"/v1/decisions/{name}"), api.post(f"/v1/decisions/{name}/explain")):
        told = problem(response, 500)
        assert told["code"] == "integrity"
        assert "record_digest" in told["detail"]
    verified = api.get(f"/v1/decisions/{name}/verify").json()
    assert verified["verified"] is False
    assert "record_digest" in {check["name"] for check in verified["checks"] if not check["ok"]}


def test_what_would_have_altered_it_is_what_the_command_says(api: TestClient, inside: Inside) -> None:
    name = decided(api, 9000)["decision_id"]
    for options, arguments in (("", ()), ("?to=ALLOW&limit=1&memory=recorded", ("--to", "ALLOW", "--limit", 1, "--memory", "recorded"))):
        answer = api.get(f"/v1/decisions/{name}/counterfactuals{options}")
        assert answer.status_code == 200, answer.text
        told = inside.run("explain", name, "--counterfactual", "--json", *arguments).stdout
        assert answer.json() == json.loads(told)
        assert answer.json()["counterfactuals"]


@pytest.mark.parametrize("options", ["to=MAYBE", "to=allow'--", "limit=0", "limit=21", "limit=x", "memory=none", "memory="])
def test_a_bad_question_about_what_would_have_altered_it_is_422(api: TestClient, options: str) -> None:
    name = decided(api)["decision_id"]
    problem(api.get(f"/v1/decisions/{name}/counterfactuals?{options}"), 422)


def test_the_search_for_what_would_have_altered_it_is_bounded(
    api: TestClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = decided(api, 9000)["decision_id"]
    assert api.get(f"/v1/decisions/{name}/counterfactuals").json()["searched"]["complete"]
    monkeypatch.setattr(looking, "MOST_SINGLES", 2)
    monkeypatch.setattr(looking, "MOST_PAIRS", 1)
    searched = api.get(f"/v1/decisions/{name}/counterfactuals?to=ABSTAIN").json()["searched"]
    assert (searched["singles"], searched["complete"]) == (2, False)
    assert searched["pairs"] <= 1


def test_only_so_many_search_for_what_would_have_altered_it_at_once(
    api: TestClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = decided(api, 9000)["decision_id"]
    real, lock, inside_now, most = looking.counterfactual, threading.Lock(), [0], [0]

    def slow(*arguments: Any, **options: Any) -> Any:
        with lock:
            inside_now[0] += 1
            most[0] = max(most[0], inside_now[0])
        time.sleep(0.05)
        try:
            return real(*arguments, **options)
        finally:
            with lock:
                inside_now[0] -= 1

    monkeypatch.setattr(looking, "counterfactual", slow)
    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda _: api.get(f"/v1/decisions/{name}/counterfactuals").status_code, range(8)))
    assert answers == [200] * 8
    assert most[0] <= looking.ALTERING


def test_listing_by_query(api: TestClient) -> None:
    names = [decided(api, amount)["decision_id"] for amount in (100, 200, 300, 400)]
    listed = api.get("/v1/decisions").json()["decisions"]
    assert [row["decision_id"] for row in listed] == names[::-1]
    found = api.get("/v1/decisions", params={"query": "verdict=ESCALATE AND amount_usd > 300"}).json()["decisions"]
    assert [row["decision_id"] for row in found] == names[3:]
    assert len(api.get("/v1/decisions", params={"limit": 2}).json()["decisions"]) == 2
    problem(api.get("/v1/decisions", params={"limit": -5}), 422)


@pytest.mark.parametrize("query", ["verdict=", "verdit=DENY", "(" * 300, "created_at > 'soon'", "\x00=1", "x" * 120_000])
def test_a_bad_query_is_422_and_points_at_the_column(api: TestClient, query: str) -> None:
    decided(api)
    if len(query) > 60_000:  # what a client would send as a URL has its own limit there
        from schemas.query import MAX_CHARS

        assert len(query) > MAX_CHARS
        return
    told = problem(api.get("/v1/decisions", params={"query": query}), 422)
    assert told["code"] == "bad_query"
    assert told["where"].startswith("query:1:")


@pytest.mark.parametrize("limit", ["x", "1.5", "", "999999999999999999999999"])
def test_a_bad_parameter_is_a_problem_or_bounded(api: TestClient, limit: str) -> None:
    decided(api)
    response = api.get("/v1/decisions", params={"limit": limit})
    if response.status_code != 200:
        problem(response, 422)


def test_before_the_first_decision_looking_is_404_and_ready_is_200(api: TestClient, inside: Inside) -> None:
    problem(api.get("/v1/decisions"), 404)
    assert not inside.home.exists()
    assert api.get("/healthz").json() == {"status": "ok"}
    assert api.get("/readyz").json()["status"] == "ready"


def test_an_unusable_home_is_503(inside: Inside) -> None:
    inside.write("file", "not a folder")
    with pytest.raises(BadConfig, match="must be a folder"), dev_client(LumynConfig(policy_path="policy.yml", home="file")):
        pass  # no server starts on it
    Path("broken").mkdir()
    inside.write("broken/lumyn.db", "not a database")
    with dev_client(LumynConfig(policy_path="policy.yml", home="broken")) as client:
        assert problem(client.post("/v1/decisions", json=refund(1)), 503)["code"] == "storage_unavailable"
        problem(client.get("/readyz"), 503)
        assert client.get("/healthz").status_code == 200


def test_a_broken_policy_file_is_a_problem_too(api: TestClient, inside: Inside) -> None:
    decided(api)
    inside.write("policy.yml", "rules: [")
    told = problem(api.post("/v1/decisions", json=refund(1)), 422)
    assert told["code"] == "policy_invalid"
    assert inside.records() == 1


def test_the_schema_of_the_api_is_served(api: TestClient) -> None:
    paths = api.get("/openapi.json").json()["paths"]
    assert {"/v1/decisions", "/v1/decisions:batch", "/v1/decisions/{decision_id}/verify"} <= set(paths)


def test_a_policy_that_is_activated_decides_though_the_server_was_given_a_file(
    inside: Inside, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else `activate`, and a rollback in an incident, would be said to be done and change nothing."""
    given: list[LumynConfig] = []
    monkeypatch.setattr("lumyn.api.server.serve", lambda config, *_, **__: given.append(config))
    monkeypatch.delenv("LUMYN_POLICY")
    inside.run("serve", "--policy", "policy.yml")
    (config,) = given
    said: list[str] = []
    with dev_client(config) as api:
        first = api.post("/v1/decisions", json=refund(100)).json()
        assert (first["verdict"], first["policy"]["version"]) == ("ALLOW", "4.1.0"), "the file decides until then"
        server.tell_what_decides(open_home(config), said.append)
        text = (inside.folder / "policy.yml").read_text().replace("4.1.0", "4.2.0").replace("gt: 250", "gt: 50")
        kind = {"content-type": "application/yaml"}
        assert api.post("/v1/policies", content=text, headers=kind).status_code == 201
        body = {"version": "4.2.0", "why": "a lower limit"}
        assert api.post("/v1/policies/refunds/activate", json=body).status_code == 200
        second = api.post("/v1/decisions", json=refund(100)).json()
        assert (second["verdict"], second["policy"]["version"]) == ("ESCALATE", "4.2.0")
        assert said == []
        server.tell_what_decides(open_home(config), said.append)
        assert "`refunds@4.2.0` is active and decides, not the file `policy.yml`" in said[0]
