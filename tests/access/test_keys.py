"""API keys: kept as digests, ended at once, bounded in rate; and the audit of every change with its actor."""

from __future__ import annotations

import asyncio
import json
import sqlite3
import stat
import threading
from typing import Any

import pytest
from conftest_e2e import refund
from hypothesis import given
from hypothesis import strategies as st
from inside import Inside
from served import keyed_client, new_key
from starlette.testclient import TestClient

from lumyn import LumynConfig, sdk
from lumyn.access.guard import Guard
from lumyn.access.rates import Buckets, Rate
from lumyn.access.store import FILE, KeyStore
from lumyn.access.times import ends_at
from schemas.errors import IntegrityError, LumynError, RateLimited, Unauthorized, UsageError

pytest_plugins = ("inside_plugin",)
CONFIG = LumynConfig(policy_path="policy.yml")


def created(inside: Inside, *arguments: str) -> dict[str, Any]:
    return dict(inside.json("keys", "create", *arguments, "--json"))


def test_a_key_is_told_once_and_only_its_digest_is_kept(inside: Inside) -> None:
    told = created(inside, "--tenant", "acme", "--role", "decide,read", "--name", "checkout", "--rate", "9/m")
    assert (told["tenant"], told["roles"], told["rate"], told["state"]) == ("acme", ["decide", "read"], "9/m", "active")
    path = inside.home / FILE
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    secret = told["key"].split("_", 2)[2]
    assert all(secret.encode() not in file.read_bytes() for file in path.parent.iterdir())
    listed = inside.run("keys", "list").stdout + json.dumps(inside.json("keys", "list", "--json"))
    assert told["key_id"] in listed and secret not in listed
    assert inside.run("keys", "create", "--role", "read").stdout.startswith("lumyn_")


@pytest.mark.parametrize(
    "arguments",
    [("--role", "boss"), ("--role", ""), (), ("--role", "read", "--tenant", "a/b"), ("--role", "read", "--rate", "0/s"),
     ("--role", "read", "--rate", "fast"), ("--role", "read", "--expires", "2001-01-01"), ("--role", "read", "--name", "x\ny"),
     ("--role", "read", "--expires", "soon")],
)  # fmt: skip
def test_a_key_that_makes_no_sense_is_refused(inside: Inside, arguments: tuple[str, ...]) -> None:
    inside.refused("keys", "create", *arguments, code=2)
    assert inside.json("keys", "list", "--json") == []


def test_signing_keys_are_listed_as_before(inside: Inside) -> None:
    own = inside.json("keys", "show", "--json")["key_id"]
    key = created(inside, "--role", "read")["key_id"]
    assert {(one["key_id"], one["is"]) for one in inside.json("keys", "list", "--json")} == {(own, "own"), (key, "api")}


def test_in_an_event_loop_the_file_is_looked_at_once_a_turn_and_no_later(
    inside: Inside, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = created(inside, "--role", "read")["key_id"]
    store, real, looks = KeyStore(inside.home), KeyStore._current, []

    def counted(self: KeyStore) -> Any:
        looks.append(1)
        return real(self)

    monkeypatch.setattr(KeyStore, "_current", counted)

    def states() -> list[int | None]:
        return [key.revoked_ms for key in (store.find(name), store.find(name)) if key is not None]

    async def asked() -> None:
        assert states() == [None, None] and len(looks) == 1
        KeyStore(inside.home).revoke(name, actor="ann")
        looks.clear()
        await asyncio.sleep(0)  # the next turn
        await asyncio.sleep(0)
        assert None not in states() and len(looks) == 1

    asyncio.run(asked())
    looks.clear()
    assert None not in states() and len(looks) == 2, "outside of one, each time"
    asyncio.run(asked_again(store, name))


async def asked_again(store: KeyStore, name: str) -> None:
    """Another loop than the one that the store was asked in."""
    assert store.find(name) is not None


def test_a_revoked_key_ends_at_once_in_a_running_server(inside: Inside) -> None:
    told = created(inside, "--role", "read")
    inside.decide(refund(1))
    with keyed_client(CONFIG) as client:
        ask = {"x-api-key": told["key"]}
        assert client.get("/v1/decisions", headers=ask).status_code == 200
        assert client.get("/v1/decisions", headers={"authorization": f"Bearer {told['key']}"}).status_code == 200
        assert client.get(f"/v1/decisions?x-api-key={told['key']}").status_code == 401
        inside.run("keys", "revoke", told["key_id"][:6], "--why", "lost")
        assert client.get("/v1/decisions", headers=ask).status_code == 401
        later = created(inside, "--role", "read")["key"]
        assert client.get("/v1/decisions", headers={"x-api-key": later}).status_code == 200
        for file in (inside.home / "keys").glob("api.db*"):
            file.unlink()
        assert client.get("/v1/decisions", headers={"x-api-key": later}).status_code == 401
    inside.refused("keys", "revoke", "ffffffffffff", code=2)


def test_an_expired_key_is_none(inside: Inside, monkeypatch: pytest.MonkeyPatch) -> None:
    key = new_key(CONFIG, "default", "read", expires_ms=ends_at("30m", 1_900_000_000_000))
    guard = Guard(inside.home.absolute(), "default", "ann")
    assert guard.check(key).roles == {"read"}
    monkeypatch.setattr("lumyn.access.guard.wall_clock_ms", lambda: 1_900_000_000_000 + 30 * 60_000)
    with pytest.raises(Unauthorized, match="expired"):
        guard.check(key)
    assert ends_at("2027-01-31", 0) == ends_at("2027-02-01T00:00:00", 0) == ends_at("2027-02-01T01:00:00+01:00", 0)


def test_more_than_its_rate_is_429_and_says_when(inside: Inside) -> None:
    inside.decide(refund(1))
    slow, quick = new_key(CONFIG, "default", "read", rate=Rate(3, 3600)), new_key(CONFIG, "default", "read")
    batch = new_key(CONFIG, "default", "decide", rate=Rate(5, 3600))
    with keyed_client(CONFIG) as client:
        answers = [client.get("/v1/decisions", headers={"x-api-key": slow}) for _ in range(4)]
        assert [answer.status_code for answer in answers] == [200, 200, 200, 429]
        assert answers[3].json()["code"] == "rate_limited" and 1000 < int(answers[3].headers["retry-after"]) <= 1200
        assert all(client.get("/v1/decisions", headers={"x-api-key": quick}).status_code == 200 for _ in range(5))
        many = [refund(n) for n in range(1, 8)]
        assert client.post("/v1/decisions:batch", json=many, headers={"x-api-key": batch}).status_code == 200
        assert client.post("/v1/decisions:batch", json=many, headers={"x-api-key": batch}).status_code == 429


@given(st.lists(st.tuples(st.floats(0, 5), st.integers(1, 4)), max_size=40), st.integers(1, 5))
def test_no_window_lets_more_through_than_rate_and_burst(steps: list[tuple[float, int]], count: int) -> None:
    now, taken = 0.0, 0
    buckets = Buckets(lambda: now)
    for wait, cost in steps:
        now += wait
        try:
            buckets.take("k", Rate(count, 1), cost)
            taken += cost
        except RateLimited as refused:
            now += refused.retry_after_s + 1e-6
            buckets.take("k", Rate(count, 1), cost)  # it may come when it was told to
            taken += cost
    assert taken <= count * (now + 1) + 4


def test_who_did_what_is_in_the_audit_and_nobody_can_say_he_was_another(inside: Inside) -> None:
    own = LumynConfig(policy_path="policy.yml", tenant="acme")
    decision = sdk.decide(refund(1), own)["decision_id"]
    key_id = (key := new_key(CONFIG, "acme", "admin", name="desk")).split("_")[1]
    operator = new_key(CONFIG, "default", "admin", name="ops")
    with keyed_client(CONFIG) as client:
        ask = {"x-api-key": key}
        body = {"label": "failure", "summary": "s", "actor": "eve"}
        label = client.post(f"/v1/decisions/{decision}/labels", json=body, headers=ask).json()
        assert label["actor"] == f"key:{key_id} desk for eve"
        client.put("/v1/kill-switches/k", json={"why": "w", "scope": {}}, headers=ask)
        forged = client.put("/v1/kill-switches/l", json={"why": "w", "scope": {}, "actor": "eve"}, headers=ask)
        assert forged.status_code == 422
        policy = (inside.folder / "policy.yml").read_text().replace("version: ", "version: 9")
        assert client.post("/v1/policies", content=policy, headers={"x-api-key": operator}).status_code == 201
        told = pages(client, ask)
        kinds = [(one["type"], one["actor"]) for one in told]
        me = f"key:{key_id} desk"
        assert ("label", f"{me} for eve") in kinds and ("kill_switch_on", me) in kinds and ("key_created", "ann") in kinds
        assert ("policy_published", f"key:{operator.split('_')[1]} ops") in kinds
        assert all(one["tenant"] in ("acme", None) for one in told) and "source: " not in json.dumps(told)
        assert [one["at"] for one in told] == sorted((one["at"] for one in told), reverse=True)
        everyone = pages(client, {"x-api-key": operator})
        assert sum(one["type"] == "key_created" for one in everyone) == 2
        assert not any(one["type"] == "label" for one in everyone)  # what a tenant says is its own


def pages(client: TestClient, ask: dict[str, str]) -> list[dict[str, Any]]:
    found, cursor = [], ""
    while True:
        answer = client.get(f"/v1/audit?limit=2{cursor}", headers=ask).json()
        found += answer["entries"]
        if answer["next_cursor"] is None:
            return found
        cursor = f"&cursor={answer['next_cursor']}"


def test_the_audit_of_keys_is_only_added_to_and_shows_what_was_changed(inside: Inside) -> None:
    for name in ("a", "b", "c"):
        created(inside, "--role", "read", "--name", name)
    store = KeyStore(inside.home.absolute())
    assert [entry["name"] for _, _, entry in store.audit(limit=2)] == ["c", "b"]
    assert [entry["name"] for _, _, entry in store.audit(before=2)] == ["a"]
    with sqlite3.connect(inside.home / FILE) as db:
        for statement in ("DELETE FROM audit", "UPDATE audit SET tenant = 'x'"):
            with pytest.raises(sqlite3.IntegrityError, match="only added to"):
                db.execute(statement)
        for trigger in ("audit_stays", "audit_keeps"):
            db.execute(f"DROP TRIGGER {trigger}")
        db.execute("UPDATE audit SET entry = CAST(replace(entry, '\"a\"', '\"z\"') AS BLOB) WHERE seq = 1")
    with pytest.raises(IntegrityError):
        store.audit()
    store.close()


def test_requests_of_many_threads_are_all_decided_once(inside: Inside) -> None:
    key = new_key(CONFIG, "default", "decide")
    with keyed_client(CONFIG) as client:
        answers: list[dict[str, Any]] = []

        def ask(number: int) -> None:
            for turn in range(5):
                body = refund(10 + number, request_id=f"{number % 4}-{turn}-{number // 4}")
                answers.append(client.post("/v1/decisions", json=body, headers={"x-api-key": key}).json())

        threads = [threading.Thread(target=ask, args=(number,)) for number in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert len({one["decision_id"] for one in answers}) == 40 == inside.records()


@pytest.mark.parametrize("arguments", [("--dev", "--host", "0.0.0.0"), ("--dev", "--host", "192.0.2.1"), ("--dev", "--host", "::"),
                                       ("--dev", "--host", "example.com"), ("--tls-cert", "x.pem")])  # fmt: skip
def test_without_keys_only_loopback_is_served(inside: Inside, arguments: tuple[str, ...]) -> None:
    inside.refused("serve", "--port", "0", *arguments, code=2)


def test_errors_of_the_store_are_told(inside: Inside) -> None:
    inside.home.mkdir()
    (inside.home / "keys").write_text("a file")
    with pytest.raises(LumynError):
        new_key(CONFIG, "default", "read")
    with pytest.raises(UsageError):
        Rate.parse("1/d")


def test_what_is_no_certificate_is_named_before_anything_is_served(inside: Inside) -> None:
    inside.decide(refund(20))
    for name in ("cert.pem", "key.pem"):
        inside.write(name, "-----BEGIN CERTIFICATE-----\nAA==\n-----END CERTIFICATE-----\n")
    said = inside.refused("serve", "--port", "0", "--tls-cert", "cert.pem", "--tls-key", "key.pem", code=2)
    assert "cert.pem" in said and "no certificate with the key" in said
