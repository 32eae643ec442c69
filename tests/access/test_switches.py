"""Kill switches of several tenants in one installation: each has its own names, and the operator any name at any time."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest
from conftest_e2e import refund
from inside import Inside
from served import keyed_client, new_key
from starlette.testclient import TestClient

from lumyn import LumynConfig, sdk
from lumyn.wiring import existing_home
from schemas.canonical import encode
from streams.control import ControlState, apply_control, read_control
from streams.control_history import control_history
from streams.log import Append
from streams.topics import CONTROL

pytest_plugins = ("inside_plugin",)
CONFIG = LumynConfig(policy_path="policy.yml")
OPERATOR, ACME, BETA = "default", "acme", "beta"


@dataclass(frozen=True)
class Installation:
    """A server, and an admin's key of each tenant."""

    client: TestClient
    keys: dict[str, str]
    inside: Inside

    def ask(self, who: str, method: str, switch_id: str = "", **body: Any) -> Any:
        """One request about switches by a tenant's admin; what is put on covers all that he may stop, if not said."""
        if method in ("PUT", "POST"):
            body = {"scope": {}, **body}
        path = f"/v1/kill-switches/{switch_id}".rstrip("/")
        return self.client.request(method, path, json=body or None, headers={"x-api-key": self.keys[who]})

    def seen(self, who: str) -> list[tuple[str, dict[str, str]]]:
        """The ids and scopes that a tenant is shown."""
        return [(one["switch_id"], one["scope"]) for one in self.ask(who, "GET").json()["kill_switches"]]

    def stopped(self) -> set[str]:
        """The tenants whose refunds are denied by a switch."""
        codes = {who: sdk.decide(refund(100), LumynConfig(policy_path="policy.yml", tenant=who)) for who in self.keys}
        return {who for who, record in codes.items() if record["reason_codes"] == ["KILL_SWITCH"]}


@pytest.fixture
def there(inside: Inside) -> Iterator[Installation]:
    for tenant in (OPERATOR, ACME, BETA):
        sdk.decide(refund(20), LumynConfig(policy_path="policy.yml", tenant=tenant))
    keys = {tenant: new_key(CONFIG, tenant, "admin") for tenant in (OPERATOR, ACME, BETA)}
    with keyed_client(CONFIG) as client:
        yield Installation(client, keys, inside)


def test_a_name_that_a_tenant_took_is_free_for_another_and_for_the_operator(there: Installation) -> None:
    for who, scope in ((ACME, {"tenant": ACME}), (BETA, {"tenant": BETA}), (OPERATOR, {"action_type": "refund"})):
        given = {"action_type": "refund"} if who == OPERATOR else {}
        for _ in range(2):  # asked twice, it is one switch
            put = there.ask(who, "PUT", "refunds", why=who, scope=given)
            assert put.status_code == 200, put.text
            assert (put.json()["switch_id"], put.json()["scope"]) == ("refunds", scope)
    assert there.seen(ACME) == [("refunds", {"tenant": ACME}), ("refunds", {"action_type": "refund"})]
    assert [name for name, _ in there.seen(OPERATOR)] == ["acme:refunds", "beta:refunds", "refunds"]
    assert there.ask(ACME, "GET", "refunds").json()["why"] == ACME
    assert there.ask(OPERATOR, "GET", "refunds").json()["why"] == OPERATOR
    assert there.ask(OPERATOR, "GET", "beta:refunds").json()["why"] == BETA


def test_taking_a_name_off_takes_off_one_s_own_alone(there: Installation) -> None:
    for who in (ACME, BETA):
        assert there.ask(who, "PUT", "x", why=who).status_code == 200
    assert there.stopped() == {ACME, BETA}
    assert there.ask(ACME, "DELETE", "x").json() == {"switch_id": "x", "on": False}
    assert there.stopped() == {BETA}
    assert there.ask(OPERATOR, "PUT", "x", why="all").status_code == 200
    assert there.ask(BETA, "DELETE", "beta:x").json() == {"switch_id": "x", "on": False}  # as its records name it
    for who in (ACME, BETA):
        assert there.ask(who, "DELETE", "x").status_code == 403  # the operator's, and shared by all
    assert there.stopped() == {OPERATOR, ACME, BETA}
    assert there.ask(OPERATOR, "DELETE", "x").status_code == 200
    assert there.stopped() == set()


@pytest.mark.parametrize("name", ["acme:x", "acme:never"])
def test_another_tenant_s_switch_is_not_there_whatever_is_asked(there: Installation, name: str) -> None:
    assert there.ask(ACME, "PUT", "x", why="w").status_code == 200
    for method in ("GET", "DELETE"):
        answer = there.ask(BETA, method, name)
        assert answer.status_code == 404 and answer.text.replace(name, "ID") == there.ask(
            BETA, method, "beta:never"
        ).text.replace("beta:never", "ID")
    assert there.ask(BETA, "PUT", name, why="w").status_code == 422
    assert there.seen(BETA) == [] and there.seen(ACME) == [("x", {"tenant": ACME})]


@pytest.mark.parametrize("name", ["default:x", "a:b", ":x", "x:", "acme:acme:x", "acme:", "a%2Fb", "é", "x" * 65])
def test_no_name_leaves_its_tenant_s_own(there: Installation, name: str) -> None:
    for who in (ACME, BETA):
        assert there.ask(who, "PUT", name, why="w").status_code in (404, 405, 422), name
    assert there.seen(OPERATOR) == []


def test_one_s_own_name_with_another_scope_is_a_conflict(there: Installation) -> None:
    for who in (ACME, OPERATOR):
        assert there.ask(who, "PUT", "x", why="w", scope={"action_type": "refund"}).status_code == 200
        answer = there.ask(who, "PUT", "x", why="w", scope={"action_type": "payout"})
        assert (answer.status_code, answer.json()["code"]) == (409, "request_conflict")
        assert "switch `x` is on with another scope" in answer.text


def old_switch(name: str, **scope: str) -> None:
    """A switch under the very name that was asked for: as the operator, and older versions, put it on."""
    event = {"type": "kill_switch_on", "actor": "key:1 old", "why": "old", "switch_id": name, "scope": scope}
    existing_home(CONFIG).log.append([Append(CONTROL, encode(event))])


def test_the_operator_s_stop_of_a_tenant_is_not_the_tenant_s_to_end(there: Installation) -> None:
    assert there.ask(OPERATOR, "PUT", "x", why="unpaid", scope={"tenant": ACME}).status_code == 200
    assert there.seen(ACME) == [("x", {"tenant": ACME})] and there.stopped() == {ACME}
    refused = there.ask(ACME, "DELETE", "x")
    assert refused.status_code == 403 and "put this switch on, and takes it off" in refused.json()["detail"]
    assert there.ask(ACME, "PUT", "x", why="mine").json()["why"] == "mine"  # beside it, and a tenant's own
    assert there.ask(ACME, "DELETE", "x").status_code == 200 and there.ask(ACME, "DELETE", "x").status_code == 403
    assert there.stopped() == {ACME}
    assert there.ask(OPERATOR, "DELETE", "x").status_code == 200 and there.stopped() == set()


def test_a_switch_of_an_older_version_stands_in_nobody_s_way(there: Installation) -> None:
    old_switch("x", tenant=ACME)
    assert there.seen(ACME) == [("x", {"tenant": ACME})] and there.seen(BETA) == []
    assert there.ask(ACME, "PUT", "x", why="again").json()["why"] == "again"
    assert there.ask(BETA, "PUT", "x", why="w").status_code == 200
    everything = there.ask(OPERATOR, "PUT", "x", why="stop")
    assert (everything.status_code, everything.json()["switch_id"]) == (200, "default:x")
    assert there.stopped() == {OPERATOR, ACME, BETA}
    assert there.ask(OPERATOR, "PUT", "x", why="stop").json()["switch_id"] == "default:x"
    assert there.ask(OPERATOR, "DELETE", "x").json()["switch_id"] == "default:x"
    assert there.ask(BETA, "DELETE", "x").status_code == there.ask(ACME, "DELETE", "x").status_code == 200
    assert there.seen(OPERATOR) == [("x", {"tenant": ACME})]


def test_the_command_line_takes_a_name_whole_by_its_beginning_or_as_its_tenant_says_it(
    there: Installation, monkeypatch: pytest.MonkeyPatch
) -> None:
    for who, name in ((ACME, "x"), (BETA, "x"), (OPERATOR, "x"), (OPERATOR, "x-2")):
        assert there.ask(who, "PUT", name, why=who, scope={"action_type": name}).status_code == 200
    run = there.inside
    on = [one["switch_id"] for one in run.json("kill-switch", "status", "--json")]
    assert on == ["acme:x", "beta:x", "x", "x-2"]
    assert run.run("kill-switch", "off", "x").stdout == "off: x\n"  # and not ambiguous with `x-2`
    assert run.run("kill-switch", "off", "acme").stdout == "off: acme:x\n"
    monkeypatch.setenv("LUMYN_TENANT", BETA)
    assert run.run("kill-switch", "off", "x").stdout == "off: beta:x\n"
    assert run.json("kill-switch", "on", "--why", "w", "--action-type", "refund", "--json")["scope"] == {
        "action_type": "refund"
    }


def test_the_audit_tells_a_tenant_that_its_switch_was_taken_off_and_by_whom(there: Installation) -> None:
    for who in (ACME, BETA):
        assert there.ask(who, "PUT", "x", why="w").status_code == 200
        assert there.ask(OPERATOR, "DELETE", f"{who}:x").status_code == 200
    told = there.client.get("/v1/audit", headers={"x-api-key": there.keys[ACME]})
    changes = [(one["type"], one["switch_id"], one["tenant"]) for one in told.json()["entries"] if "switch_id" in one]
    assert changes == [("kill_switch_off", "x", ACME), ("kill_switch_on", "x", ACME)]
    assert BETA not in told.text


def test_the_record_names_the_switch_whole_and_replays_the_same(there: Installation) -> None:
    assert there.ask(ACME, "PUT", "x", why="w").status_code == 200
    record = sdk.decide(refund(100), LumynConfig(policy_path="policy.yml", tenant=ACME))
    assert [one["switch_id"] for one in record["control"]["switches"]] == ["acme:x"]
    assert there.ask(ACME, "DELETE", "x").status_code == 200
    ask = {"x-api-key": there.keys[ACME]}
    replay = there.client.post(f"/v1/decisions/{record['decision_id']}/replay", headers=ask)
    assert replay.json()["result"] == "same", replay.text


OLD: list[dict[str, Any]] = [
    {"type": "kill_switch_on", "actor": "a", "why": "1", "switch_id": "x", "scope": {"tenant": ACME}},
    {"type": "kill_switch_on", "actor": "b", "why": "2", "switch_id": "x", "scope": {"tenant": BETA}},
    {"type": "kill_switch_on", "actor": "c", "why": "3", "switch_id": "y", "scope": {}},
    {"type": "kill_switch_off", "actor": "d", "why": "4", "switch_id": "x"},
    {"type": "kill_switch_on", "actor": "e", "why": "5", "switch_id": "x", "scope": {"policy": "p"}},
]


def test_a_log_of_an_older_version_folds_to_the_state_it_had(there: Installation) -> None:
    log = existing_home(CONFIG).log
    before = read_control(log)
    log.append([Append(CONTROL, encode(event)) for event in OLD])
    states, state = [], before
    for message in log.read(CONTROL, 0, before.position):
        state = apply_control(state, message)
        states.append([(one.switch_id, one.why) for one in state.switches])
    assert states == [
        [("x", "1")], [("x", "1")], [("x", "1"), ("y", "3")], [("y", "3")], [("y", "3"), ("x", "5")],
    ]  # fmt: skip
    assert read_control(log, ControlState()) == state and state.version == before.version + len(OLD)


def test_a_name_that_was_another_tenant_s_once_is_told_to_all_when_it_stops_them(there: Installation) -> None:
    log = existing_home(CONFIG).log
    log.append([Append(CONTROL, encode(event)) for event in OLD])
    told = {who: [one.why for one in control_history(log, who) if one.kind.startswith("kill")] for who in (ACME, BETA, "c")}
    assert told[ACME][-1] == told[BETA][-1] == told["c"][-1] == "5"
    assert "1" not in json.dumps(told["c"]) and "2" not in told[ACME]
