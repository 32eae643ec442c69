"""The API as decision traceability uses it: list by filters and pages, replay, verify, and requests not waited for."""

from __future__ import annotations

import hashlib
import hmac
import json
import sqlite3
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import Any

import pytest
from conftest_e2e import next_millisecond, refund
from hypothesis import given, settings
from hypothesis import strategies as st
from inside import Inside
from served import dev_client
from starlette.testclient import TestClient

from lumyn import LumynConfig
from lumyn.api.filters import filters
from schemas.errors import LumynError
from schemas.query import describe

pytest_plugins = ("inside_plugin",)
CONFIG = LumynConfig(policy_path="policy.yml")


@pytest.fixture
def api(inside: Inside) -> Iterator[TestClient]:
    with dev_client(CONFIG) as client:
        yield client


def decide(api: TestClient, amount: float = 100, **more: Any) -> dict[str, Any]:
    next_millisecond()
    answer = api.post("/v1/decisions", json=refund(amount, **more))
    assert answer.status_code == 200, answer.text
    next_millisecond()
    return dict(answer.json())


def ids(api: TestClient, parameters: str) -> list[str]:
    answer = api.get(f"/v1/decisions?{parameters}")
    assert answer.status_code == 200, answer.text
    return [one["decision_id"] for one in answer.json()["decisions"]]


def code(answer: Any, status: int) -> str:
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    return str(answer.json()["code"])


def test_filters_mean_what_they_say(api: TestClient) -> None:
    small, large = decide(api, 100), decide(api, 400)
    day = small["created_at"][:10]
    policy, both = small["condition_id"], [large["decision_id"], small["decision_id"]]
    rule = large["rule_id"]
    for parameters, expected in (
        ("", both),
        (f"entity_id={small['entity_id']}", both),
        ("entity_id=nobody", []),
        (f"condition_id={policy}&outcome=triggered&from={day}&to={day}", both),
        (f"condition_id={policy}&condition_version={small['condition_version']}", both),
        (f"condition_id={policy}&condition_version=none", []),
        (f"condition_id={rule}", both[:1]),
        ("outcome=not_triggered", []),
        ("from=2001-01-01&to=2001-01-02", []),
        (f"from={day}T00:00:00+00:00", both),
        ("amount_usd_min=400", both[:1]),
        ("amount_usd_max=399.99&verdict=allow", both[1:]),
        ("amount=100&amount=400", both),
        ("label=failure", []),
        (f"decision_id={small['decision_id']}", both[1:]),
        ("order=oldest", both[::-1]),
        ("query=amount_usd > 300 AND verdict=ESCALATE", both[:1]),
        ("query=amount_usd > 300&amount_max=1", []),
        ("action.amount.value=400", both[:1]),
    ):
        assert ids(api, parameters) == expected, parameters
    listed = api.get("/v1/decisions?limit=1").json()["decisions"][0]
    whole = api.get("/v1/decisions?limit=1&expand=record").json()["decisions"][0]
    assert whole.pop("label") is None and whole == large
    for name in ("condition_id", "condition_version", "entity_id", "evaluated_at", "outcome", "verdict", "reason_codes"):
        assert listed[name] == large[name]


@pytest.mark.parametrize(
    "parameters",
    ["verdit=DENY", "verdict=MAYBE", "from=soon", "to=2024-13-01", "from=2024-02-02&to=2024-01-01", "outcome=DENY",
     "amount_min=x", "from=2024-01-01&from=2024-01-02", "limit=0", "limit=1001", "order=up", "expand=all", "query=(",
     "evidence.=1", "label=%00", "tenants=x"],
)  # fmt: skip
def test_a_filter_that_makes_no_sense_is_422_and_says_where(api: TestClient, parameters: str) -> None:
    decide(api)
    answer = api.get(f"/v1/decisions?{parameters}")
    assert code(answer, 422) in ("bad_input", "bad_query")
    assert answer.json()["where"]
    assert code(api.get("/v1/decisions?tenant=other"), 403) == "forbidden"


@settings(max_examples=150, deadline=None)
@given(st.lists(st.tuples(st.sampled_from(["subject_id", "evidence.a", "reason", "policy", "entity_id"]), st.text()), min_size=1))
def test_no_value_of_a_filter_can_be_more_than_a_value(given_: list[tuple[str, str]]) -> None:
    """Quotes, operators and words of the query language in a value stay in it."""
    try:
        query = filters(given_, 0)
    except LumynError:
        return
    assert query is not None
    text = describe(query)
    assert text.count(" AND ") - sum(value.count(" AND ") for _, value in given_) <= 2 * len(given_)
    assert " OR " not in text or any("@" in v or " OR " in v for _, v in given_)


def test_pages_are_whole_and_stay_so_while_decisions_are_made(api: TestClient) -> None:
    names = [decide(api, amount)["decision_id"] for amount in range(1, 8)]
    seen, cursor = [], None
    while True:
        more = {"cursor": cursor} if cursor else {}
        answer = api.get("/v1/decisions", params={"limit": 2, "verdict": "ALLOW", **more}).json()
        seen += [one["decision_id"] for one in answer["decisions"]]
        cursor = answer["next_cursor"]
        decide(api, 50)
        if cursor is None:
            break
    assert seen == names[::-1]


def test_a_wrong_cursor_is_400(api: TestClient) -> None:
    for amount in (1, 2, 3):
        decide(api, amount)
    good = api.get("/v1/decisions?limit=1").json()["next_cursor"]
    assert ids(api, f"limit=1&cursor={good}")
    assert ids(api, f"limit=2&cursor={good}")
    for cursor in ("", "x", "=", good[:-2], good + "A", "A" * 5000, "WzEsMiwzXQ", "bnVsbA", "é", "../..", good.swapcase()):
        assert code(api.get("/v1/decisions", params={"limit": 1, "cursor": cursor}), 400) == "usage", cursor
    for other in ("verdict=ALLOW", "order=oldest", "entity_id=x"):
        assert code(api.get(f"/v1/decisions?limit=1&{other}&cursor={good}"), 400) == "usage"
    assert code(api.get("/v1/audit?cursor=e30x"), 400) == "usage"


def test_a_replay_gives_the_same_decision_by_the_recorded_version(api: TestClient, inside: Inside) -> None:
    first = decide(api, 400)
    inside.write("policy.yml", (inside.folder / "policy.yml").read_text().replace("250", "9999"))
    again = api.post(f"/v1/decisions/{first['decision_id']}/replay").json()
    assert (again["result"], again["matches"], again["differences"]) == ("same", True, [])
    assert (again["verdict"], again["ir_hash"]) == (first["verdict"], first["ir_hash"])


TOUCHED = {
    "the record": "UPDATE log_records SET value = replace(value, 'ESCALATE', 'ALLOW')",
    "its ir_hash": "UPDATE log_records SET value = replace(value, '\"ir_hash\":\"sha256:', '\"ir_hash\":\"sha256:0')",
    "the program": "UPDATE log_control SET value = replace(value, '250', '999')",
    "the receipt": "UPDATE log_receipts SET value = replace(value, 'sha256:', 'sha256:0')",
    "the request": "UPDATE log_requests SET value = replace(value, '400', '401')",
}


@pytest.mark.parametrize("what", TOUCHED)
def test_what_was_touched_is_not_replayed_and_verify_says_so(api: TestClient, inside: Inside, what: str) -> None:
    name = decide(api, 400)["decision_id"]
    assert api.get(f"/v1/decisions/{name}/verify").json()["verified"] is True
    with sqlite3.connect(inside.home / "lumyn.db") as db:
        assert db.execute(TOUCHED[what]).rowcount == 1
    assert code(api.post(f"/v1/decisions/{name}/replay"), 409) == "ir_hash_mismatch"
    verified = api.get(f"/v1/decisions/{name}/verify").json()
    assert verified["verified"] is False and any(not check["ok"] for check in verified["checks"])


def test_a_record_that_was_made_anew_with_its_digests_is_found_by_its_checkpoint(api: TestClient, inside: Inside) -> None:
    from schemas.canonical import encode
    from schemas.record import record_digest

    name = decide(api, 400)["decision_id"]
    inside.run("checkpoint")
    verified = api.get(f"/v1/decisions/{name}/verify").json()
    assert verified["verified"] and verified["checkpoint"]["leaf"]["decision_id"] == name
    assert verified["checkpoint"]["statement"]["root"].startswith("sha256:")
    with sqlite3.connect(inside.home / "lumyn.db") as db:
        record = json.loads(db.execute("SELECT value FROM log_records").fetchone()[0])
        old = record["record_digest"]
        record["provenance"] = record["request"]["provenance"] = {"model": "another"}
        record["record_digest"] = record_digest(record)
        db.execute("UPDATE log_records SET value = ?", (encode(record),))
        db.execute("UPDATE log_receipts SET value = replace(value, ?, ?)", (old, record["record_digest"]))
    verified = api.get(f"/v1/decisions/{name}/verify").json()
    assert not verified["verified"]
    assert "checkpoint" in {check["name"] for check in verified["checks"] if not check["ok"]}


def test_an_idempotency_key_is_a_request_id(api: TestClient) -> None:
    ask = {"idempotency-key": "once"}
    first = api.post("/v1/decisions", json=refund(5), headers=ask).json()
    assert first["request_id"] == "once"
    assert api.post("/v1/decisions", json=refund(5), headers=ask).json() == first
    assert code(api.post("/v1/decisions", json=refund(6), headers=ask), 409) == "request_conflict"
    assert code(api.post("/v1/decisions", json=refund(5, request_id="two"), headers=ask), 422) == "bad_input"


def settled(api: TestClient, place: str) -> dict[str, Any]:
    for _ in range(100):
        answer = api.get(place)
        if answer.status_code == 200:
            return dict(answer.json())
        assert answer.status_code == 202 and answer.headers["retry-after"]
        time.sleep(0.05)
    raise AssertionError("never decided")


def test_a_request_that_is_not_waited_for_is_decided_and_found_at_its_location(api: TestClient) -> None:
    ask = {"prefer": "respond-async, wait=5"}
    answer = api.post("/v1/decisions", json=refund(5, request_id="r"), headers=ask)
    assert answer.status_code == 202 and answer.headers["preference-applied"] == "respond-async"
    found = settled(api, answer.headers["location"])
    assert found["status"] == "decided"
    assert found["decision"] == api.get(found["location"]).json()
    again = settled(api, api.post("/v1/decisions", json=refund(5, request_id="r"), headers=ask).headers["location"])
    assert (again["status"], again["decision_id"]) == ("duplicate", found["decision_id"])
    conflict = api.post("/v1/decisions", json=refund(6, request_id="r"), headers=ask)
    assert settled(api, conflict.headers["location"])["status"] == "conflict"
    for place in ("0/999999", "99/0", "-1/0", "0/-1"):
        assert code(api.get(f"/v1/requests/{place}"), 404) == "not_found"


class Hook(HTTPServer):
    """Somebody's server that is called back."""

    def __init__(self) -> None:
        self.got: list[tuple[str, dict[str, str], bytes]] = []
        super().__init__(("127.0.0.1", 0), _Taking)
        threading.Thread(target=self.serve_forever, daemon=True).start()


class _Taking(BaseHTTPRequestHandler):
    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["content-length"]))
        assert isinstance(self.server, Hook)
        self.server.got.append((self.path, dict(self.headers), body))
        self.send_response(302 if self.path == "/moved" else 204)
        self.send_header("location", f"http://127.0.0.1:{self.server.server_port}/stolen")
        self.end_headers()

    def log_message(self, *arguments: Any) -> None:
        """Quiet."""


def test_a_callback_is_signed_and_goes_to_listed_hosts_alone(inside: Inside, monkeypatch: pytest.MonkeyPatch) -> None:
    hook = Hook()
    here = f"http://127.0.0.1:{hook.server_port}"
    inside.write("lumyn.toml", f'[serve]\ncallback_hosts = ["{here}", "hooks.example.com"]\n')
    monkeypatch.setenv("LUMYN_CALLBACK_SECRET", "s3cret")
    with dev_client(CONFIG) as api:
        for url in (
            "http://127.0.0.1:1/x", "http://169.254.169.254/latest", f"{here}@evil.example/", "file:///etc/passwd",
            f"https://127.0.0.1:{hook.server_port}/", "https://hooks.example.com.evil.example/", "http://hooks.example.com/",
            "https://hooks.example.com:99999/", "gopher://hooks.example.com/", "https://u:p@hooks.example.com/", "x", "",
        ):  # fmt: skip
            refused = api.post("/v1/decisions", json=refund(1), headers={"prefer": "respond-async", "callback-url": url})
            assert refused.status_code in (403, 422), (url, refused.text)
        assert code(api.post("/v1/decisions", json=refund(1), headers={"callback-url": f"{here}/x"}), 422) == "bad_input"
        assert inside.records() == 0
        for path in ("/moved", "/decided?x=1"):
            ask = {"prefer": "respond-async", "callback-url": here + path}
            answer = api.post("/v1/decisions", json=refund(9), headers=ask)
            found = settled(api, answer.headers["location"])
        for _ in range(200):
            if any(path.startswith("/decided") for path, _, _ in hook.got):
                break
            time.sleep(0.05)
    hook.shutdown()
    hook.server_close()
    assert "/stolen" not in {path for path, _, _ in hook.got}
    headers, body = next((h, b) for path, h, b in hook.got if path == "/decided?x=1")
    assert json.loads(body) == found
    stamp, mac = (part.split("=")[1] for part in headers["X-Lumyn-Signature"].split(","))
    assert hmac.new(b"s3cret", f"{stamp}.".encode() + body, hashlib.sha256).hexdigest() == mac


def test_readers_and_writers_at_once_disturb_nobody(api: TestClient) -> None:
    first = decide(api, 20)["decision_id"]
    asks = [
        lambda n: api.post("/v1/decisions", json=refund(100 + n)),
        lambda n: api.get("/v1/decisions?label=failure&limit=5"),
        lambda n: api.post(f"/v1/decisions/{first}/labels", json={"label": "note", "summary": str(n)}),
        lambda n: api.get(f"/v1/decisions/{first}/verify"),
        lambda n: api.post(f"/v1/decisions/{first}/replay"),
        lambda n: api.get("/v1/memory"),
        lambda n: api.get("/v1/audit?limit=3"),
        lambda n: api.put(f"/v1/kill-switches/s{n}", json={"why": "w", "scope": {"action_type": "none"}}),
    ]
    wrong: list[str] = []

    def run(ask: Any) -> None:
        for n in range(6):
            answer = ask(n)
            if answer.status_code >= 300:
                wrong.append(answer.text)

    threads = [threading.Thread(target=run, args=(ask,)) for ask in asks for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong
    assert len(api.get(f"/v1/decisions/{first}/events").json()) == 12
    assert len(ids(api, "limit=1000")) == 13
