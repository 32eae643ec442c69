"""Game days on brokers: topics, groups and workers of their own beside a live deployment, and nothing left of them."""

from __future__ import annotations

import json

from conftest_e2e import refund
from inside import Inside
from live_deployment import Live

from streams.topics import TOPICS

SCENARIO = """\
gameday: 1
name: on brokers
replay: {query: "action_type = refund"}
faults:
  - traffic: {times: x3, from: 1, to: 4}
  - duplicate_delivery: {from: 2, to: 3}
  - qdrant_down: {from: 5, to: 6}
  - stale_control: {from: 7, to: 8}
steps:
  - {at: 2, label: {request: r0, label: failure, summary: wrong}}
  - {at: 10, name: stop, kill_switch_on: {action_type: refund}}
expect:
  - {request: r0, verdict: ALLOW}
  - {request: r1, not: ALLOW, why: it is like what was labelled before it}
  - {never: ALLOW, during: qdrant_down}
  - {that: "decisions where reason = STORAGE_UNAVAILABLE == 2"}
  - {that: "decisions where reason = CONTROL_STALE == 2", during: stale_control}
  - {contained: stop, within_s: 60}
"""


def messages(live: Live) -> dict[str, list[tuple[bytes | None, bytes]]]:
    """All that the live topics hold, tombstones of other tests among it."""
    return {topic: [(one.key, one.value) for one in live.messages(topic)] for topic in TOPICS}


def test_a_game_day_on_brokers_leaves_the_live_deployment_alone(inside: Inside, live: Live, tenant: str) -> None:
    asked = [refund(100 + n, user=f"u{n}", request_id=f"r{n}") for n in range(12)]
    for one in asked:  # one after the other: a game day goes by the log's times
        inside.run("decide", "-", stdin=json.dumps(one))
    live.put("records", b"", key=b"taken-out")  # as a tombstone in the compacted topic
    topics, before = set(live.log.client.topics()), messages(live)
    inside.write("s.yml", SCENARIO)
    report = inside.json("gameday", "run", "s.yml", "--on", "kafka", "--json", code=None)
    bad = [one for one in [*report["expectations"], *report["invariants"]] if not one["holds"]]
    assert not bad, json.dumps(bad, indent=1)
    assert report["stage"] == "kafka" and report["replayed"]["delivered"] == 12 + 8 + 6
    assert report["measured"]["switches"]["stop"] > 0
    assert messages(live) == before, "the live topics hold what they held"
    assert {name for name in live.log.client.topics() if "gameday" not in name} == topics
    left = [name for name in live.log.client.topics() if name.startswith(f"{live.prefix}-gameday-")]
    assert not left, "its topics are gone"
    assert inside.run("decide", "-", stdin=json.dumps(refund(100, user="later"))).stdout, "live workers decide as ever"

    jump = SCENARIO.replace("faults:\n", "faults:\n  - clock_jump: {at: 2, by: 1h}\n")
    inside.write("jump.yml", jump)
    assert "can't be played over Kafka" in inside.refused("gameday", "run", "jump.yml", "--on", "kafka", code=2)
