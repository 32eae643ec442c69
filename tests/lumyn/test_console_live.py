"""The live feed: every record of the tenant is counted once, few are shown, and what is kept does not grow."""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from faults.deployment import wait_until
from hypothesis import given, settings
from hypothesis import strategies as st

from lumyn.console import live
from lumyn.console.feed import RATE_S, ROWS_A_TICK, WINDOW_S, Feed
from schemas.canonical import encode
from schemas.errors import StorageUnavailable
from schemas.verdict import VERDICTS
from streams.local_log import LocalLog
from streams.log import Append
from streams.reading import all_messages
from streams.topics import RECORDS

START_MS = 1_700_000_000_000


class Clock:
    """The log's clock and the feed's."""

    def __init__(self) -> None:
        self.ms = START_MS

    def __call__(self) -> int:
        return self.ms


def record(number: int, verdict: str = "ALLOW", tenant: str = "default", **more: Any) -> Append:
    value = {
        "decision_id": f"{number:026d}", "tenant": tenant, "verdict": verdict, "reason_codes": ["R"],
        "request": {"action": {"type": "refund", "amount": {"value": number, "currency": "USD"}}}, **more,
    }  # fmt: skip
    return Append(RECORDS, encode(value), key=value["decision_id"].encode())


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def log(tmp_path: Path, clock: Clock) -> LocalLog:
    return LocalLog(tmp_path / "log.db", clock=clock, durable=False)


def told(feed: Feed, tenant: str = "default") -> dict[str, Any]:
    """The newest frame, as a browser reads it."""
    lines = feed.frame(tenant).data.decode().split("\n")
    assert lines[0].startswith("id: ") and lines[2:] == ["", ""]
    return dict(json.loads(lines[1].removeprefix("data: ")))


@pytest.fixture
def feed(log: LocalLog, clock: Clock, monkeypatch: pytest.MonkeyPatch) -> Feed:
    """A feed that steps when the test says so."""
    made = Feed(log, clock)
    monkeypatch.setattr(Feed, "_run", lambda self, tail: None)
    log.append([record(1)])
    assert sum(told(made)["counts"].values()) == 0  # what was there before is not new
    return made


def test_every_record_is_counted_once_and_few_are_shown(log: LocalLog, feed: Feed, clock: Clock) -> None:
    want: Counter[str] = Counter()
    for tick in range(5):
        verdicts = [VERDICTS[n % 97 % 4] if n % 97 < 4 else "ALLOW" for n in range(2500)]
        log.append([record(10_000 * tick + n, verdict) for n, verdict in enumerate(verdicts)])
        want.update(verdicts)
        clock.ms += 1000
        feed.step()
        frame = told(feed)
        assert frame["counts"] == {v: want[v] for v in VERDICTS}
        assert frame["new"] == 2500 and len(frame["rows"]) == ROWS_A_TICK
        assert {row["verdict"] for row in frame["rows"]} == set(VERDICTS)  # the rare ones are not drowned
    feed.step()
    assert told(feed)["new"] == 0 and told(feed)["rows"] == [] and told(feed)["counts"] == dict(want)
    assert sum(frame["rates"].values()) == pytest.approx(5 * 2500 / RATE_S)
    assert frame["seconds"][-5:] == [2500] * 5 and len(frame["seconds"]) == WINDOW_S


@settings(max_examples=15)
@given(st.lists(st.tuples(st.sampled_from(["a", "b"]), st.sampled_from(VERDICTS), st.integers(0, 3000)), max_size=60))
def test_a_tenant_s_counts_are_its_own(tmp_path_factory: pytest.TempPathFactory, came: list[tuple[str, str, int]]) -> None:
    clock = Clock()
    log = LocalLog(tmp_path_factory.mktemp("feed") / "log.db", clock=clock, durable=False)
    feed = Feed(log, clock)
    for tenant in "ab":
        feed.frame(tenant)
    feed.close()
    for number, (tenant, verdict, wait) in enumerate(came):
        clock.ms += wait
        log.append([record(number, verdict, tenant)])
        if number % 7 == 0:
            feed.step()
    feed.step()
    for tenant in "ab":
        frame = told(feed, tenant)
        own = Counter(verdict for of, verdict, _ in came if of == tenant)
        assert frame["counts"] == {v: own[v] for v in VERDICTS}
        named = {f"{n:026d}" for n, (of, _, _) in enumerate(came) if of == tenant}
        assert {row["id"] for row in frame["rows"]} <= named
    log.close()


def test_what_is_kept_does_not_grow(log: LocalLog, feed: Feed, clock: Clock) -> None:
    for second in range(3 * WINDOW_S):
        clock.ms += 1000
        log.append([record(second * 10 + n) for n in range(3)])
        feed.step()
    (known,) = feed._of.values()
    assert len(known.seconds) <= WINDOW_S + 2 and len(feed._frames) == 1 and not known.sample


def test_what_was_read_before_the_log_failed_is_counted_and_the_rest_after(
    log: LocalLog, feed: Feed, monkeypatch: pytest.MonkeyPatch
) -> None:
    log.append([record(n) for n in range(40)])
    assert len({message.partition for message in all_messages(log, RECORDS)}) > 2
    read = log.read

    def fails(topic: str, partition: int, offset: int, limit: int = 1000) -> Any:
        if partition == 2:
            raise StorageUnavailable("the disk sulks")
        return read(topic, partition, offset, limit)

    monkeypatch.setattr(log, "read", fails)
    with pytest.raises(StorageUnavailable):
        feed.step()
    monkeypatch.undo()
    feed.step()
    assert sum(told(feed)["counts"].values()) == 40


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_after_a_fault_of_ours_who_looks_next_begins_anew(log: LocalLog, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lumyn.console.feed.TICK_S", 0.01)
    feed, step = Feed(log), Feed.step
    monkeypatch.setattr(Feed, "step", lambda self: {}["a fault"])
    told(feed)
    wait_until(lambda: feed._thread is None, 10, lambda: "it still runs")
    monkeypatch.setattr(Feed, "step", step)
    told(feed)
    log.append([record(1)])
    wait_until(lambda: sum(told(feed)["counts"].values()) == 1, 10, lambda: str(told(feed)))
    feed.close()


def test_what_is_no_record_is_passed_over_and_hostile_text_is_shown(log: LocalLog, feed: Feed) -> None:
    junk = [Append(RECORDS, value, key=b"k") for value in (b"\xff", b"[]", b"{}", b'{"tenant": "default"}', b"7")]
    bad = record(5, reason_codes=["<script>\n\n", "\u202e"], request={"action": {"type": "a\r\ndata: x", "amount": "no"}})
    log.append([*junk, record(3, verdict="MAYBE"), bad])
    feed.step()
    frame = told(feed)
    assert sum(frame["counts"].values()) == 1
    assert frame["rows"][0]["action"] == "a\\x0d\\ndata: x" and "\\u202e" in frame["rows"][0]["reasons"]


def test_who_does_not_read_is_dropped_and_who_goes_is_noticed(
    log: LocalLog, feed: Feed, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(live, "_STUCK_S", 0.05)
    monkeypatch.setattr(live, "TICK_S", 0.02)
    sent: list[Any] = []

    async def stuck(message: Any) -> None:
        if message["type"] == "http.response.body":
            await asyncio.sleep(3600)

    async def read(message: Any) -> None:
        sent.append(message)

    async def stays() -> Any:
        await asyncio.sleep(3600)

    async def goes() -> Any:
        await asyncio.sleep(0.1)
        return {"type": "http.disconnect"}

    async def view(receive: Any, send: Any) -> None:
        stream = live.EventStream(feed, "default")
        await asyncio.wait_for(stream({"type": "http"}, receive, send), 5)

    asyncio.run(view(stays, stuck))
    asyncio.run(view(goes, read))
    assert live._viewers == 0
    assert sent[1]["body"].startswith(b"retry:") and b"data: " in sent[2]["body"]
    monkeypatch.setattr(live, "STREAM_S", 0.1)
    sent.clear()
    asyncio.run(view(stays, read))
    assert sent[-1] == {"type": "http.response.body", "body": b"", "more_body": False}
