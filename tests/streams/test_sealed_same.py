"""Encryption changes what is stored, and nothing that is decided: a home with it answers as one without, event by event."""

from __future__ import annotations

import itertools
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

from embedded import WITH_MEMORY, Embedded, policy
from hypothesis import given, settings
from hypothesis import strategies as st

from memory_service.record_index import index_row
from schemas.request import parse_request
from streams.checkpoints import Chain
from streams.control import read_control
from streams.decide_agent import DecideAgent
from streams.label_agent import LabelAgent, events_of
from streams.sealing import opened_record, shown_event
from streams.sqlite_keys import SqliteSubjectKeys
from streams.sweep import Summary, verify_all
from streams.verify import verify_record

EUROS = WITH_MEMORY.replace(b"amount: {lte: 500}", b"amount_usd: {lte: 500}") + b"fx: {EUR: 1.1}\n"

steps = st.lists(
    st.one_of(
        st.tuples(
            st.just("ask"),
            st.sampled_from(["ann", "ben", "cleo"]),
            st.sampled_from(["the kettle broke", "never came", "wrong colour", ""]),
            st.one_of(st.none(), st.integers(0, 900), st.fixed_dictionaries({"value": st.integers(0, 900),
                      "currency": st.sampled_from(["USD", "EUR"])})),
            st.sampled_from([0.1, 0.9, None]),
        ),
        st.tuples(st.just("label"), st.integers(0, 20), st.sampled_from(["failure", "success", "retracted"])),
    ),
    min_size=1,
    max_size=12,
)  # fmt: skip
APART = ("inputs_digest", "record_digest")
"""What covers the stored form, or is keyed; and the memory's epoch, which is another in every log."""


def home(folder: Path, vectoriser: Any, keys: SqliteSubjectKeys | None) -> Embedded:
    clock = itertools.count(1_700_000_000_000, 7)
    made = Embedded(folder, policy(EUROS), vectoriser=vectoriser, clock=lambda: next(clock))
    if keys is not None:
        made.log.keys = keys
        made.agent = DecideAgent(made.log, made.memory, policy(EUROS), seal=True)
        made.labels = LabelAgent(made.log)
    return made


def said(record: dict[str, Any]) -> dict[str, Any]:
    memory = {name: value for name, value in record["memory"].items() if name != "epoch"}
    return {**{name: value for name, value in record.items() if name not in APART}, "memory": memory}


def shown(keys: SqliteSubjectKeys, event: Any) -> Any:
    """An event of a sealed decision, but for the pseudonym."""
    opened = shown_event(keys, event)
    decision = {name: value for name, value in opened["decision"].items() if name != "subject"}  # type: ignore[union-attr]
    assert len(decision) == len(opened["decision"]) - 1  # type: ignore[arg-type]
    return {**opened, "decision": decision}


@settings(max_examples=25)
@given(steps)
def test_every_answer_is_the_same_and_every_record_verifies(vectoriser, told):
    with tempfile.TemporaryDirectory() as folder:
        paths = [Path(folder) / name for name in ("clear", "sealed")]
        for path in paths:
            path.mkdir()
        keys = SqliteSubjectKeys(paths[1] / "keys.db", lambda fresh: b"m" * 32)
        clear, sealed = home(paths[0], vectoriser, None), home(paths[1], vectoriser, keys)
        made: list[str] = []
        for number, step in enumerate(told):
            if step[0] == "ask":
                _, who, intent, amount, risk = step
                body: dict[str, Any] = {
                    "request_id": f"r{number}", "subject": {"type": "user", "id": who},
                    "action": {"type": "refund", "intent": intent}, "evidence": {"tier": "gold"},
                }  # fmt: skip
                if amount is not None:
                    body["action"]["amount"] = amount
                if risk is not None:
                    body["evidence"]["risk"] = risk
                one, two = (h.agent.decide([parse_request(body)])[0].record for h in (clear, sealed))
                assert said(one) == said(two)
                made.append(one["decision_id"])
            elif made:
                name = made[step[1] % len(made)]
                one, two = (h.label(name, step[2], event_id=f"e{number}") for h in (clear, sealed))
                assert one == shown(keys, two)
        for name in made:
            told_of = [shown(keys, event) for event in events_of(sealed.log, name)]
            assert told_of == events_of(clear.log, name)
        records = sealed.values("records")
        assert all("sealed" in record for record in records)
        for one, two in zip(clear.values("records"), records, strict=True):
            rows = (replace(index_row(record, 0, 0), subject_id="", inputs_digest="") for record in (one, two))
            assert len(set(rows)) == 1, "what lists, queries and sums go by is in clear"
        control = read_control(sealed.log)
        for message, record in zip(sealed.all("records"), records, strict=True):
            checks = verify_record(sealed.log, control, message.value, record)
            assert [check for check in checks if not check.ok] == [] and checks[-1].name == "reproduction"
            assert opened_record(keys, record)["request"]["subject"]["id"] in ("ann", "ben", "cleo")
        for kid in keys.named("default", "ann"):
            keys.erase(kid)
        summary = Summary()
        found = list(verify_all(sealed.log, Chain(sealed.log, frozenset()), summary, now_ms=1_700_000_100_000))
        assert [check for one in found for check in one.failed] == [] and summary.decisions == len(made)
        clear.close()
        sealed.close()
        keys.close()
