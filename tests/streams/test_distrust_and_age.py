"""Distrust and age never open a gate: no verdict is milder for them, short of a labeller being held."""

from __future__ import annotations

import random
from dataclasses import replace
from typing import Any

import pytest
from embedded import Embedded, policy, request
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from memory_service.recall import Asked
from memory_service.recaller import Recaller
from memory_service.sqlite_store import SqliteMemoryStore
from memory_service.vectoriser import Vectoriser
from schemas.ids import iso_time
from schemas.verdict import SEVERITY
from streams.as_of import recall_again
from streams.control import ControlState
from streams.decide import Position, decide

DAY_MS = 86_400_000
NOW = 1_734_600_000_000
RULES = """
policy: p
rules:
  - {id: R_RISK, stage: HARD_BLOCKS, if: {risk: {gte: 0.8}}, then: {verdict: DENY, reason_codes: [RISK]}}
  - {id: R_LIMIT, stage: ESCALATIONS, if: {amount: {gt: 500}}, then: {verdict: ESCALATE, reason_codes: [LIMIT]}}
  - {id: R_OK, stage: ALLOW_PATHS, if: {amount: {lte: 20000}}, then: {verdict: ALLOW, reason_codes: [OK]}}
"""
NEAR = """\
  - {id: R_NEAR, stage: ESCALATIONS, if: {memory.nearby.upper: {gte: 0.9}}, then: {verdict: ESCALATE, reason_codes: [N]}}
"""
POLICIES = st.sampled_from(["{}", "{failure_escalate: 0.6, success_support: 0.7}", "{failure_block: 2, soften: 0.8}"])


def asked(chance: random.Random) -> Any:
    return request(
        risk=chance.choice([0.1, 0.85, 0.91]),
        amount=chance.choice([20, 50, 180, 600]),
        action={"type": "refund", "intent": chance.choice(["late refund", "the late refund please", "no parcel"]),
                "amount": {"value": chance.choice([20, 50, 180, 600]), "currency": "USD"}},
    )  # fmt: skip


def history(chance: random.Random, length: int) -> list[dict[str, Any]]:
    """Labels by three people, mostly right, of the last ninety days."""
    events = []
    for version in range(1, length + 1):
        verdict = chance.choice(["ALLOW", "ALLOW", "DENY", "ESCALATE"])
        fine = {"ALLOW": "success", "DENY": "failure", "ESCALATE": "success"}[verdict]
        label = fine if chance.random() < 0.8 else chance.choice(["failure", "success"])
        part = {name: asked(chance).value[name] for name in ("action", "evidence")}
        events.append({
            "version": version, "event_id": f"e{version}", "decision_id": f"D{version:03}", "tenant": "default",
            "type": "label", "label": label, "should": None, "summary": "", "actor": chance.choice("abc"),
            "at": iso_time(NOW - (length - version) * 90 * DAY_MS // length), "job": None,
            "decision": {"action_type": "refund", "verdict": verdict, "rules": chance.choice([[], ["R_RISK"]]),
                         "amount": None, "facts": part},
        })  # fmt: skip
    return events


def trust(version: int, labeller: str, much: float) -> dict[str, Any]:
    return {"version": version, "event_id": f"t{version}", "decision_id": "", "tenant": "default", "type": "trust",
            "label": None, "should": None, "summary": "", "actor": "ops", "at": iso_time(NOW), "job": None,
            "decision": None, "labeller": labeller, "trust": much}  # fmt: skip


@pytest.fixture(scope="module")
def vectoriser():
    from memory_service.embedders.static import StaticEmbedder

    return Vectoriser(StaticEmbedder())


@pytest.fixture(scope="module")
def memory(tmp_path_factory, vectoriser):
    store = SqliteMemoryStore(tmp_path_factory.mktemp("memory") / "memory.db", vectoriser, "e")
    yield store, Recaller(store, vectoriser, "e")
    store.close()


def decided(recaller, rules, one, version):
    """The record of a request under a policy and a version of the memory."""
    recall = recaller.recall([Asked(one.value, rules.memory, version, at_ms=NOW)])[0]
    assert recall.available
    return decide(one, Position("requests", 0, 0, NOW), rules, ControlState(), recall).record


CHANGED = [0]


@settings(max_examples=200, suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture])
@given(
    st.randoms(use_true_random=False),
    st.integers(1, 40),
    POLICIES,
    st.lists(st.tuples(st.sampled_from("abc"), st.sampled_from([0.05, 0.3, 0.5, 0.75])), max_size=2),
    st.sampled_from([None, 1, 10, 60]),
)
def test_distrust_and_age_never_make_a_verdict_milder(memory, chance, length, block, distrusts, half_life):
    store, recaller = memory
    store.reset("e")
    events = history(chance, length)
    events += [trust(length + 1 + n, *distrust) for n, distrust in enumerate(distrusts)]
    store.apply(events)
    rules = RULES + chance.choice(["", NEAR])
    plain = policy((rules + f"memory: {block}\n").encode())
    with_age = f"{block[:-1]}{', ' if len(block) > 2 else ''}half_life_days: {half_life or 'null'}}}"
    aging = policy((rules + f"memory: {with_age}\n").encode())
    for _ in range(6):
        one = asked(chance)
        before, after = decided(recaller, plain, one, length), decided(recaller, aging, one, len(events))
        assert SEVERITY[after["verdict"]] >= SEVERITY[before["verdict"]]
        signals = [record["risk_signals"]["nearby"] for record in (before, after)]
        assert signals[1]["upper"] >= signals[0]["upper"] - 1e-6
        assert signals[1]["n_effective"] <= signals[0]["n_effective"] + 1e-6
        CHANGED[0] += after["verdict"] != before["verdict"]


def test_and_some_verdicts_are_stricter_for_them():
    assert CHANGED[0] > 20


# through the log, with its own time


@pytest.fixture
def clock():
    return [NOW]


@pytest.fixture
def home(tmp_path, clock, vectoriser):
    source = (RULES + "memory: {failure_escalate: 0.3, success_support: 0.7, half_life_days: 30}\n").encode()
    home = Embedded(tmp_path, policy(source), vectoriser=vectoriser, clock=lambda: clock[0])
    yield home
    home.close()


def say(home, decision, label, actor, **more):
    word = {"event_id": f"{decision}-{label}-{actor}-{home.log.end('labels', 0)}", "decision_id": decision,
            "tenant": "default", "type": "label", "label": label, "summary": "", "actor": actor, **more}  # fmt: skip
    (event,) = home.labels.label([word])
    assert isinstance(event, dict), event
    return event


def test_a_label_ages_in_log_time_and_as_of_it_is_as_old_as_it_was(home, clock):
    """Old harm asks for a person; a nearer fine case speaks for it, until it is a half-life old."""
    harmful = home.decide(request(evidence={"tier": "new", "risk": 0.1}))[0]["decision_id"]
    fine = [home.decide(request())[0]["decision_id"] for _ in range(20)]
    say(home, harmful, "failure", "ann")
    for name in fine:
        say(home, name, "success", "ann")
    records = []
    for days in (0, 29.9, 30, 30.1, 400):
        clock[0] = NOW + round(days * DAY_MS)
        records.append(home.decide(request())[0])
    assert [r["verdict"] for r in records] == ["ALLOW", "ALLOW", "ALLOW", "ESCALATE", "ESCALATE"]
    ages = [next(h for h in r["memory"]["counted"] if h["role"] == "harmful").get("age_ms", 0) for r in records]
    assert [round(age / DAY_MS, 1) for age in ages] == [0, 29.9, 30, 30.1, 400]
    fines = [[h for h in r["memory"]["counted"] if h["role"] == "fine"] for r in records]
    assert [len(found) for found in fines] == [1, 1, 1, 0, 0]
    assert records[0]["memory"]["settings"]["half_life_days"] == 30
    mark = home.memory.store().watermark()
    clock[0] += 1000 * DAY_MS
    asked = {"epoch": mark.epoch, "vectoriser_id": mark.vectoriser_id, "version": mark.version}
    again = recall_again(records, home.memory.recaller(), **asked)
    assert [one.outcome for one in again] == ["same"] * 5
    for record in records:
        memory = {**record["memory"], "settings": {**record["memory"]["settings"], "half_life_days": 29}}
        changed = {**record, "memory": memory}
        (one,) = recall_again([changed], home.memory.recaller(), **asked)
        assert one.outcome == ("same" if record is records[0] else "differs")


def test_where_nothing_ages_and_all_are_trusted_a_record_says_nothing_of_it(tmp_path, vectoriser):
    plain = Embedded(tmp_path, policy((RULES + "memory: {}\n").encode()), vectoriser=vectoriser)
    name = plain.decide(request())[0]["decision_id"]
    say(plain, name, "failure", "ann")
    record = plain.decide(request())[0]
    assert "half_life_days" not in record["memory"]["settings"]
    assert {key for hit in record["memory"]["counted"] for key in hit} == {
        "role", "memory_id", "meaning", "verdict", "rules", "amount", "contested", "score", "dot",
    }  # fmt: skip
    plain.close()


def test_a_recall_with_a_half_life_must_be_told_the_time(memory):
    rules = policy((RULES + "memory: {half_life_days: 30}\n").encode())
    with pytest.raises(ValueError, match="time of asking"):
        memory[1].recall([replace(Asked(request().value, rules.memory, 0), at_ms=None)])
