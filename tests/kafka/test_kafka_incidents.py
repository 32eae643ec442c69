"""Incidents over a real broker: what workers decided and people labelled, and what is left once the log has expired."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from confluent_kafka import TopicPartition
from confluent_kafka.admin import AdminClient
from conftest_e2e import refund
from inside import Inside
from live_deployment import POLICY, Live, environment, living

from lumyn import wiring
from streams.topics import TOPICS


@pytest.fixture
def alone(kafka: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[Live, Inside]]:
    """A deployment whose log may lose what it holds, and its caller."""
    with living(kafka, partitions=1) as live:
        live.use_policy(POLICY)
        workers = [live.start("decide"), live.start("labels")]
        for worker, event in zip(workers, ("worker_started", "labels_opened"), strict=True):
            worker.wait_for(event)
        monkeypatch.chdir(tmp_path)
        with environment(LUMYN_KAFKA=live.address, LUMYN_PREFIX=live.prefix, LUMYN_ACTOR="oncall"):
            yield live, Inside(tmp_path)
            wiring.close_homes()


def decided(inside: Inside, count: int) -> list[str]:
    """Refunds by a new model, each decided by the workers."""
    bodies = [refund(n + 1, 0.1, f"u{n}", provenance={"model": "m-2"}) for n in range(count)]
    inside.run("decide", "-", stdin="\n".join(map(json.dumps, bodies)))
    rows = inside.json("list", "--query", "provenance.model = m-2", "--json")
    return sorted(str(row["decision_id"]) for row in rows)


def unknown(inside: Inside) -> str:
    facts = inside.json("incident", "postmortem", "INC-1", "--json")
    return "\n".join(gap["what"] for gap in facts["unknown"])


def expire(live: Live, topic: str) -> None:
    """What retention does to all that a topic holds; a compacted one is changed to have some, as by mistake."""
    name = live.name(topic)
    if TOPICS[topic].compacted:
        live.log.client.alter_topic(name, {"cleanup.policy": "delete"})
    admin = AdminClient({"bootstrap.servers": live.address})
    places = [TopicPartition(name, part, live.log.end(topic, part)) for part in range(live.log.partitions(topic))]
    for done in admin.delete_records(places).values():
        done.result(30)


def test_an_incident_of_decisions_and_labels_that_workers_made(inside: Inside, tenant: str) -> None:
    names = decided(inside, 4)
    assert len(names) == 4
    opened = inside.json(
        "incident", "open", "--title", "Refunded twice", "--decision", names[0], "--query", "provenance.model = m-2",
        "--json",
    )  # fmt: skip
    assert (opened["id"], opened["tenant"], opened["opened_by"]) == ("INC-1", tenant, "oncall")
    inside.run("label", names[0], "--label", "failure", "--should", "DENY", "--summary", "paid before")
    inside.run("incident", "add", "INC-1", "--label", names[0], "--decision", names[1], "--note", "both of them")
    shown = inside.json("incident", "show", "INC-1", "--json")
    links = [(link["kind"], link["ref"].partition("@")[0], link["detail"].get("label")) for link in shown["links"]]
    assert links == [("decision", names[0], None), ("decision", names[1], None), ("label", names[0], "failure")]
    facts = inside.json("incident", "postmortem", "INC-1", "--json")
    assert facts["impact"]["decisions"] == 4 and facts["evidence"]["read"] == 4
    moments = [(one["kind"], one["what"]) for one in facts["timeline"]["moments"]]
    assert ("label", "failure, should have been DENY: paid before") in moments
    assert sum(kind == "decision" for kind, _ in moments) == 4
    assert any("policy" in what and "activated" in what for kind, what in moments if kind == "control")
    assert facts["impact"]["reach"]["labelled"] == 1 and facts["impact"]["reach"]["why_not"] is None
    assert "expired" not in unknown(inside)
    inside.run("incident", "postmortem", "INC-1", "--out", "INC-1.md", "--html", "INC-1.html")
    assert names[0] in (inside.folder / "INC-1.md").read_text()
    inside.run("incident", "redact", "INC-1", "--mentions", "both", "--why", "asked", "--apply")
    assert inside.json("incident", "show", "INC-1", "--json")["links"][1]["note"] == "[redacted]"


def test_another_tenant_of_the_brokers_sees_none_of_it(inside: Inside, monkeypatch: pytest.MonkeyPatch) -> None:
    name = decided(inside, 1)[0]
    inside.run("incident", "open", "--title", "Ours", "--decision", name)
    wiring.close_homes()
    monkeypatch.setenv("LUMYN_TENANT", "another")
    assert "no incident" in inside.refused("incident", "show", "INC-1", code=2)
    inside.run("incident", "open", "--title", "Theirs")
    assert "no decision" in inside.refused("incident", "add", "INC-1", "--decision", name, code=2)
    facts: dict[str, Any] = inside.json("incident", "postmortem", "INC-1", "--json")
    assert facts["incident"]["title"] == "Theirs" and facts["impact"]["decisions"] == 0


def test_what_has_expired_from_the_log_is_said_to_be_missing(alone: tuple[Live, Inside]) -> None:
    live, inside = alone
    names = decided(inside, 3)
    inside.run("incident", "open", "--title", "Refunded twice", "--query", "provenance.model = m-2")
    inside.run("label", names[0], "--label", "failure", "--summary", "paid before")
    assert "expired" not in unknown(inside) and "no record" not in unknown(inside)

    expire(live, "requests")
    expire(live, "receipts")
    wiring.close_homes()
    said = unknown(inside)
    assert "The requests of 3 of 3 (100%) of the decisions have expired from the log" in said, said
    assert "The receipts of 3 of 3 (100%) of the decisions have expired: whether a request came twice" in said
    facts = inside.json("incident", "postmortem", "INC-1", "--json")
    assert facts["evidence"]["read"] == 3 and facts["impact"]["decisions"] == 3, "records are what the rest is read from"
    inside.run("incident", "add", "INC-1", "--decision", names[0])

    expire(live, "records")
    wiring.close_homes()
    said = unknown(inside)
    assert "3 of the decisions have no record in the log any more" in said, said
    facts = inside.json("incident", "postmortem", "INC-1", "--json")
    assert facts["evidence"]["read"] == 0 and facts["impact"]["decisions"] == 3, "the index still counts them"
    assert [link["ref"] for link in facts["incident"]["links"]] == [names[0]], "what was linked stays"
    refused = inside.refused("incident", "add", "INC-1", "--decision", names[1], code=2)
    assert names[1] in refused, "a link to what is not there any more is refused"
    inside.run("incident", "postmortem", "INC-1", "--out", "INC-1.md")
    assert "no record in the log any more" in (inside.folder / "INC-1.md").read_text()
