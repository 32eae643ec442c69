"""The contested ledger over a real broker: written once, folded alike by everybody, and chosen ones decided anew."""

from __future__ import annotations

import json
from typing import Any

import pytest
from conftest_e2e import refund
from inside import Inside
from live_deployment import POLICY, Live

from lumyn import LumynConfig, sdk
from lumyn.wiring import existing_home
from streams import ledger as ledger_module
from streams.topics import LEDGER

NEW = POLICY.replace("gte: 0.8", "gte: 0.4").replace("gt: 250", "gt: 400").replace("4.1.0", "4.9.0")


def test_it_is_written_once_though_killed_and_the_chosen_are_decided_anew(
    inside: Inside, live: Live, config: LumynConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    inside.write("new.yml", NEW)
    cases = [(amount, risk) for amount in (20, 260, 300) for risk in (0.1, 0.5)]
    asked = [refund(a, r, f"u{n}", request_id=f"b-{n}") for n, (a, r) in enumerate(cases)]
    records = [record for record in sdk.decide_many(asked, config) if isinstance(record, dict)]
    assert len(records) == 6
    told: dict[str, Any] = inside.json("backfill", "--policy", "new.yml", "--memory", "none", "--json")
    assert told["compared"] == 6 and told["differ"] > 1

    monkeypatch.setattr(ledger_module, "_AT_ONCE", 1)
    real, left = ledger_module.ledger_append, [3]

    def dying(event: Any) -> Any:
        left[0] -= 1
        if left[0] == 0:
            raise KeyboardInterrupt
        return real(event)

    monkeypatch.setattr(ledger_module, "ledger_append", dying)
    write = ("backfill", "--resume", told["job"], "--apply", "--why", "a new policy")
    inside.run(*write, code=None)
    monkeypatch.setattr(ledger_module, "ledger_append", real)
    inside.run(*write)
    end = existing_home().log.end(LEDGER, 0)
    inside.run(*write)
    assert existing_home().log.end(LEDGER, 0) == end
    listed = inside.json("ledger", "list", "--json")
    assert len(listed["entries"]) == told["differ"] and listed["backfills"][0]["whole"]

    name = listed["entries"][0]["decision_id"]
    inside.run("ledger", "set", name, "--state", "corrected", "--owner", "ops", "--why", "paid back")
    (done,) = inside.json("ledger", "redrive", name, "--apply", "--json")["decisions"]
    (entry,) = inside.json("ledger", "show", name, "--json")
    assert (entry["state"], entry["owner"]) == ("corrected", "ops")
    assert entry["redriven_as"]["decision_id"] == done["new_decision_id"] != name

    lines = [{"decision_id": r["decision_id"], "output": {"type": "void"}} for r in records]
    inside.write("new.jsonl", "\n".join(map(json.dumps, lines)))
    # the redrive is a decision of its own, which the file says nothing of
    again = inside.json("backfill", "--outputs", "new.jsonl", "--json", code=2)
    assert (again["differ"], again["not_compared"]) == (6, {"no output": 1})
