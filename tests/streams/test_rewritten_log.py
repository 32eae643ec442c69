"""A log that was rewritten behind its back, every digest made right again: verifying finds it and names what."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import embedded
import pytest
from checkpointed import ALL, PARTITIONS, SHIFT, START_MS, Home, expire, rewritten

from schemas.canonical import encode
from schemas.digests import digest
from schemas.errors import UsageError
from schemas.ids import time_ms_of
from schemas.record import record_digest
from streams.control import read_control
from streams.log import Append, Message
from streams.reading import first_from, is_embedded, last_of, of_request, request_offset
from streams.span import Span, parse_span
from streams.topics import DAY_MS
from streams.verify import verify_record

pytest_plugins = ("checkpointed_plugin",)


# Records, receipts and requests


def memory_of(record: dict[str, Any]) -> dict[str, Any]:
    return {**record["memory"], "coverage": 0.5}


REWRITES: dict[str, Callable[[dict[str, Any]], dict[str, Any]]] = {
    "the engine and the verdict": lambda record: {"engine": "lumyn-engine/0", "verdict": "DENY"},
    "the engine and the reasons": lambda record: {"engine": "lumyn-engine/0", "reason_codes": ["OTHER"]},
    "the control version": lambda record: {"control": {**record["control"], "version": 0}},
    "the memory": lambda record: {"engine": "lumyn-engine/0", "memory": memory_of(record)},
    "the provenance": lambda record: {
        "engine": "lumyn-engine/0", "provenance": {"model": "x"}, "request": {**record["request"], "provenance": {"model": "x"}},
    },
}  # fmt: skip


@pytest.mark.parametrize("what", REWRITES)
def test_a_record_rewritten_with_every_digest_made_right_is_found_by_its_checkpoint(home: Home, what: str) -> None:
    for number in (0, 4, -1):
        rows = home.rows(*ALL)
        record_pos, receipt_pos = home.decided()[number]
        before = home.value("records", record_pos)
        rewrite = REWRITES[what](before)
        if "request" in rewrite:
            home.set("requests", home.request_row(before), rewrite["request"])
            receipt = home.value("receipts", receipt_pos)
            home.set("receipts", receipt_pos, {**receipt, "body_digest": digest(encode(rewrite["request"]))})
        name = rewritten(home, record_pos, receipt_pos, **rewrite)
        assert home.verify()[0] == [], "without a checkpoint nothing in the log disagrees"
        home.restore(rows)
        home.checkpoint()
        rewritten_rows = home.rows("checkpoints")
        if "request" in rewrite:
            home.set("requests", home.request_row(before), rewrite["request"])
            receipt = home.value("receipts", receipt_pos)
            home.set("receipts", receipt_pos, {**receipt, "body_digest": digest(encode(rewrite["request"]))})
        rewritten(home, record_pos, receipt_pos, **rewrite)
        told = home.verify()[0]
        assert len(told) == 1
        assert told[0].startswith(f"{name}: checkpoint: "), told
        assert "signed for another record" in told[0]
        record = home.value("records", record_pos)
        checks = verify_record(home.seen, read_control(home.seen), encode(record), record, chain=home.chain())
        assert [check.name for check in checks if not check.ok] == ["checkpoint"]
        assert rewritten_rows == home.rows("checkpoints")
        home.restore(rows)


def test_a_decision_removed_with_every_trace_is_named_by_its_offset(home: Home) -> None:
    home.checkpoint()
    decided = home.decided()
    for record_pos, receipt_pos in (decided[0], decided[7], decided[-1]):
        rows = home.rows(*ALL)
        record = home.value("records", record_pos)
        for topic, pos in (("records", record_pos), ("receipts", receipt_pos), ("requests", home.request_row(record))):
            home.sql(f"DELETE FROM log_{topic} WHERE pos = ?", pos)
        told = home.verify()[0]
        place = f"requests/{record['log']['partition']}/{record['log']['offset']}"
        assert any(line.startswith(f"{place}: record: the decision that checkpoint") for line in told), told
        home.restore(rows)


@pytest.mark.parametrize("outcome", ["duplicate", "conflict", "rejected"])
def test_a_retry_or_dead_letter_removed_with_every_trace_is_named_by_its_offset(home: Home, outcome: str) -> None:
    home.checkpoint()
    (pos, *_) = [p for p in home.places("receipts") if home.value("receipts", p)["outcome"] == outcome]
    source = home.value("receipts", pos)["source"]
    home.sql("DELETE FROM log_receipts WHERE pos = ?", pos)
    home.sql("DELETE FROM log_requests WHERE pos = ?", (source["partition"] << SHIFT) + source["offset"])
    home.sql("DELETE FROM log_dead_letters")
    told = home.verify()[0]
    assert any(f"requests/{source['partition']}/{source['offset']}: receipt:" in line and outcome in line for line in told)


def test_the_first_decisions_of_a_partition_can_not_be_passed_off_as_expired(home: Home) -> None:
    """A prefix may go when it is old enough, and only then."""
    rows = home.rows(*ALL)
    first = [(record, receipt) for record, receipt in home.decided() if record >> SHIFT == 0][:3]
    last_request = home.request_row(home.value("records", first[-1][0]))

    def remove() -> None:
        for record, receipt in first:
            home.sql("DELETE FROM log_records WHERE pos = ?", record)
            home.sql("DELETE FROM log_receipts WHERE pos = ?", receipt)
        home.sql("DELETE FROM log_requests WHERE pos <= ?", last_request)

    remove()
    if not home.sparse:
        assert any(line.startswith("requests/0/0 to ") for line in home.verify()[0]), "offsets are dense, the log is young"
    home.restore(rows)
    home.checkpoint()
    remove()
    for days in (0, 8, 100):
        told = home.verify(days=days)[0]
        assert len([line for line in told if ": record: the decision that checkpoint" in line]) == 3, (days, told)


def test_swapped_records_are_found(home: Home) -> None:
    home.checkpoint()
    one, two = (pos for pos, _ in home.decided()[1:3])
    values = home.value("records", one), home.value("records", two)
    keys = [home.sql("SELECT key FROM log_records WHERE pos = ?", pos)[0][0] for pos in (one, two)]
    home.set("records", one, values[1])
    home.set("records", two, values[0])
    home.sql("UPDATE log_records SET key = ? WHERE pos = ?", keys[1], one)
    home.sql("UPDATE log_records SET key = ? WHERE pos = ?", keys[0], two)
    told = home.verify()[0]
    assert any(values[0]["decision_id"] in line and "after the record of a later request" in line for line in told), told


def test_a_record_moved_to_another_partition_is_found(home: Home) -> None:
    pos = next(pos for pos in reversed(home.places("records")) if pos >> SHIFT == 0)
    record = home.value("records", pos)
    home.sql("UPDATE log_records SET pos = ? WHERE pos = ?", home.places("records")[-1] + 1, pos)
    assert any(line.startswith(f"{record['decision_id']}: request: its place") for line in home.verify()[0])
    checks = verify_record(home.seen, read_control(home.seen), encode(record), record)
    assert [check.name for check in checks if not check.ok] == ["record"]


def test_a_request_in_other_bytes_is_the_same_only_where_others_may_have_written_it(home: Home) -> None:
    pos = home.request_row(home.value("records", home.decided()[2][0]))
    home.set("requests", pos, encode(home.value("requests", pos)).replace(b'","', b'", "'))
    told = home.verify()[0]
    assert (told == []) == home.sparse
    assert home.sparse or "the log's request is not the record's" in told[0]
    home.set("requests", pos, {**home.value("requests", pos), "evidence": {}})
    assert "the log's request is not the record's" in home.verify()[0][0]


def test_two_decisions_that_changed_places_are_found(home: Home) -> None:
    """All rows of two requests swapped, ids and digests made for the new places."""
    home.checkpoint()
    (one, one_receipt), (two, two_receipt) = home.decided()[1:3]
    for pos, receipt, other in ((one, one_receipt, home.value("records", two)), (two, two_receipt, home.value("records", one))):
        mine = home.value("records", pos)
        home.set("requests", home.request_row(mine), other["request"])
        changed = {**other, "log": mine["log"], "decision_id": mine["decision_id"], "created_at": mine["created_at"]}
        changed["record_digest"] = record_digest(changed)
        home.set("records", pos, changed)
        written = home.value("receipts", receipt)
        home.set("receipts", receipt, {
            **written, "request_id": changed["request_id"], "record_digest": changed["record_digest"],
            "body_digest": digest(encode(changed["request"])),
        })  # fmt: skip
        home.sql("UPDATE log_receipts SET key = ? WHERE pos = ?", f"default/{changed['request_id']}".encode(), receipt)
    names = {home.value("records", pos)["decision_id"] for pos in (one, two)}
    told = home.verify()[0]
    assert {line.split(":")[0] for line in told} >= names
    assert all("signed for another re" in line for line in told), told


def test_a_decision_put_into_a_gap_is_found(tmp_path: Path) -> None:
    home = Home(tmp_path, sparse=True)
    home.fill()
    pos, receipt_pos = next((p, r) for p, r in home.decided() if home.value("records", p)["log"]["offset"] > 2)
    record, receipt = home.value("records", pos), home.value("receipts", receipt_pos)
    request = home.request_row(record)
    rows = home.rows(*ALL)
    for row in (("records", pos), ("receipts", receipt_pos), ("requests", request)):
        home.sql(f"DELETE FROM log_{row[0]} WHERE pos = ?", row[1])
    home.checkpoint()  # as if it had never been
    signed = home.rows("checkpoints")
    home.restore({**rows, **signed})
    assert receipt["decision_id"] == record["decision_id"]
    told = home.verify()[0]
    assert len(told) == 1
    assert told[0].startswith(record["decision_id"])
    assert "put in later" in told[0]
    home.sql("DELETE FROM log_records WHERE pos = ?", pos)
    assert any("put in later" in line for line in home.verify()[0])
    home.sql("DELETE FROM log_receipts WHERE pos = ?", receipt_pos)
    assert any("put in later" in line for line in home.verify()[0])
    home.close()


@pytest.mark.parametrize("field", ["decision_id", "record_digest", "body_digest", "outcome"])
def test_a_rewritten_receipt_of_a_retry_is_found(home: Home, field: str) -> None:
    home.checkpoint()
    pos = next(p for p in home.places("receipts") if home.value("receipts", p)["outcome"] == "duplicate")
    value = home.value("receipts", pos)
    other = home.value("records", home.decided()[3][0])
    changed = {"decision_id": other["decision_id"], "record_digest": other["record_digest"], "outcome": "conflict",
               "body_digest": digest(b"other")}[field]  # fmt: skip
    home.set("receipts", pos, {**value, field: changed})
    told = home.verify()[0]
    place = f"receipts/{pos >> SHIFT}/{pos & ((1 << SHIFT) - 1)}"
    assert any(line.startswith(place) and "checkpoint" in line and "duplicate" in line for line in told), told


def test_a_retrys_receipt_with_another_digest_than_its_first_decision_is_found_without_a_checkpoint(home: Home) -> None:
    pos = next(p for p in home.places("receipts") if home.value("receipts", p)["outcome"] == "duplicate")
    home.set("receipts", pos, {**home.value("receipts", pos), "record_digest": digest(b"other")})
    (line,) = home.verify()[0]
    assert "its record_digest is not the first decision's" in line


def test_a_removed_record_that_only_a_retry_still_speaks_of_is_missed(home: Home) -> None:
    duplicate = next(v for p in home.places("receipts") if (v := home.value("receipts", p))["outcome"] == "duplicate")
    pos, receipt_pos = next(
        (p, r) for p, r in home.decided() if home.value("records", p)["decision_id"] == duplicate["decision_id"]
    )
    record = home.value("records", pos)
    for topic, at in (("records", pos), ("receipts", receipt_pos), ("requests", home.request_row(record))):
        home.sql(f"DELETE FROM log_{topic} WHERE pos = ?", at)
    told = home.verify()[0]
    assert any(line.startswith(duplicate["decision_id"]) and "a retry's receipt" in line for line in told), told


@pytest.mark.parametrize("data", [b"another request", b"\xff"])
def test_a_rewritten_dead_letter_is_found_while_its_receipt_is_held_and_after(home: Home, data: bytes) -> None:
    home.checkpoint()
    pos = next(
        (r["source"]["partition"] << SHIFT) + r["source"]["offset"]
        for p in reversed(home.places("receipts"))
        if (r := home.value("receipts", p))["outcome"] == "rejected"
    )
    home.set("requests", pos, data)
    assert any("receipt: its body_digest" in line for line in home.verify()[0])
    home.sql("DELETE FROM log_receipts")
    told = home.verify(days=8)[0]
    place = f"requests/{pos >> SHIFT}/{pos & ((1 << SHIFT) - 1)}"
    assert [line for line in told if line.startswith(place) and "another request" in line], told


def test_a_receipt_or_dead_letter_gone_is_missed_without_a_checkpoint(home: Home) -> None:
    rows = home.rows(*ALL)
    for outcome in ("duplicate", "conflict", "rejected"):
        pos = next(p for p in home.places("receipts") if home.value("receipts", p)["outcome"] == outcome)
        source = home.value("receipts", pos)["source"]
        home.sql("DELETE FROM log_receipts WHERE pos = ?", pos)
        place = f"requests/{source['partition']}/{source['offset']}"
        assert home.verify()[0] == [f"{place}: receipt: decided once, and its receipt is gone"]
        home.restore(rows)
    home.sql("DELETE FROM log_dead_letters")
    told = home.verify()[0]
    assert told
    assert all("it is neither a decision's nor a dead letter's" in line for line in told)


def test_a_second_receipt_of_a_request_is_found(home: Home) -> None:
    pos = home.places("receipts")[-1]
    first = next(p for p in home.places("receipts") if p >> SHIFT == pos >> SHIFT)
    home.sql("INSERT INTO log_receipts VALUES (?, ?, NULL, ?)", pos + 1, home.now_ms, encode(home.value("receipts", first)))
    assert any("another receipt of request" in line for line in home.verify()[0])


def test_a_record_filed_under_another_id_is_told_of_once(home: Home) -> None:
    pos = home.decided()[2][0]
    home.sql("UPDATE log_records SET key = x'3031' WHERE pos = ?", pos)
    told, summary = home.verify()
    assert told == [f"{home.value('records', pos)['decision_id']}: record: it is filed under another id"]
    assert summary.decisions == len(home.places("records"))


def test_the_newest_of_a_partition_are_missed_too(home: Home) -> None:
    rows = home.rows(*ALL)
    (record,) = home.decide(embedded.request("last"))
    partition, offset = record["log"]["partition"], record["log"]["offset"]
    with_last = home.rows(*ALL)
    home.sql("DELETE FROM log_requests WHERE pos = ?", home.request_row(record))
    assert home.verify()[0] == [f"{record['decision_id']}: request: no request at its offset"]
    home.sql("UPDATE log_positions SET position = position - 1 WHERE partition = ?", partition)
    assert home.verify()[0] == [f"{record['decision_id']}: request: no request at its offset"]
    home.restore(with_last)
    home.checkpoint()
    home.restore({**rows, "checkpoints": home.rows("checkpoints")["checkpoints"]})
    (line,) = home.verify()[0]
    assert line.startswith(f"requests/{partition}/{offset}: record: the decision that checkpoint")


def test_the_readers_position_tells_of_the_newest_in_the_embedded_log(dense: Home) -> None:
    rows = dense.rows(*ALL)
    (record,) = dense.decide(embedded.request("last"))
    dense.restore(rows)
    (line,) = dense.verify()[0]
    assert line.startswith(f"requests/{record['log']['partition']}/{record['log']['offset']}: request: what was asked")


# Control and labels


def edited_source(event: dict[str, Any]) -> dict[str, Any]:
    source = event["source"].replace("gte: 0.8", "gte: 0.9")
    return {**event, "source": source, "hash": digest(source.encode())}


def test_a_rewritten_policy_document_is_found_and_named(home: Home) -> None:
    home.checkpoint()
    pos = home.places("control")[0]
    home.set("control", pos, edited_source(home.value("control", pos)))
    told = home.verify()[0]
    assert f"control/0/{pos}: checkpoint: the event `policy_published` of `refunds` is not what checkpoint 0 was signed for" in told


def test_a_policy_that_decided_nothing_can_not_be_rewritten_either(home: Home) -> None:
    """No record speaks of it: only the checkpoint knows."""
    event = home.value("control", home.places("control")[0])
    other = {**edited_source(event), "policy_version": "5.0.0"}
    home.log.append([Append("control", encode(other))])
    home.checkpoint()
    assert home.verify()[0] == []
    pos = home.places("control")[-1]
    home.set("control", pos, {**other, "actor": "mallory"})
    assert len(home.verify()[0]) == 1
    home.sql("UPDATE log_control SET time_ms = time_ms + 1 WHERE pos = ?", home.places("control")[0])
    assert len(home.verify()[0]) == 2, "when it was published counts too"


@pytest.mark.parametrize("which", [0, 2, -1])
def test_a_rewritten_removed_or_added_label_is_found_and_named(home: Home, which: int) -> None:
    home.checkpoint()
    rows = home.rows("labels")
    pos = home.places("labels")[which]
    event = home.value("labels", pos)
    home.set("labels", pos, {**event, "label": "success" if event["label"] == "failure" else "failure"})
    told = home.verify()[0]
    assert told == [f"labels/0/{pos}: checkpoint: the label of decision {event['decision_id']} is not what checkpoint 1 "
                    "was signed for"]  # fmt: skip
    home.restore(rows)
    home.sql("UPDATE log_labels SET key = x'00' WHERE pos = ?", pos)
    assert len(home.verify()[0]) == 1, "the key finds a decision's labels"
    home.restore(rows)
    home.sql("DELETE FROM log_labels WHERE pos = ?", pos)
    assert any(f"labels/0/{pos}: checkpoint: an event is gone" in line for line in home.verify()[0])
    home.restore(rows)
    home.log.append([Append("labels", encode(event), b"k")])
    told, summary = home.verify()
    assert (told, summary.events_after_last) == ([], 1), "what is not covered is told of"


def test_a_label_put_into_a_gap_is_found(tmp_path: Path) -> None:
    home = Home(tmp_path, sparse=True)
    home.fill()
    home.checkpoint()
    pos = home.places("labels")[1] + 1
    value = home.value("labels", pos - 1)
    home.sql("INSERT INTO log_labels VALUES (?, ?, NULL, ?)", pos, home.now_ms, encode(value))
    assert any(line.startswith(f"labels/0/{pos}: checkpoint: ") and "put in after" in line for line in home.verify()[0])
    home.close()


def test_an_event_gone_from_the_embedded_log_is_missed_without_a_checkpoint(dense: Home) -> None:
    dense.sql("DELETE FROM log_labels WHERE pos = ?", dense.places("labels")[2])
    assert dense.verify()[0] == ["labels/0/2: log: an event that stood here is gone"]


# Expiry


@pytest.mark.parametrize("keep", [0, 4])
def test_expired_receipts_are_told_from_removed_ones_by_their_age(home: Home, keep: int) -> None:
    home.checkpoint()
    expire(home, "receipts", keep=keep)
    told, summary = home.verify(days=8)
    assert told == []
    assert summary.covered == summary.decisions
    assert summary.expired > 0 or keep, "retries and dead letters can't be compared any more, and that is said"
    assert any("its receipt is gone" in line or "no receipt" in line for line in home.verify(days=6)[0])


@pytest.mark.parametrize("keep", [1, 4])
def test_expired_requests_and_receipts_leave_what_records_alone_can_show(home: Home, keep: int) -> None:
    home.checkpoint()
    expire(home, "receipts", "requests", keep=keep)
    told, summary = home.verify(days=91)
    assert told == []
    assert summary.covered == summary.decisions
    assert home.verify(days=80)[0]
    decided = home.places("records")[1]
    rows = home.rows("records")
    record = {**home.value("records", decided), "engine": "lumyn-engine/0"}
    record["record_digest"] = record_digest(record)
    home.set("records", decided, record)
    told = home.verify(days=91)[0]
    assert [line.split(":")[0] for line in told] == [record["decision_id"]]
    home.restore(rows)
    home.sql("DELETE FROM log_records WHERE pos = ?", decided)
    (line,) = home.verify(days=91)[0]
    assert line.startswith(f"requests/{record['log']['partition']}/{record['log']['offset']}: record: the decision")


def test_a_hole_after_what_is_still_held_has_not_expired_however_old(home: Home) -> None:
    home.checkpoint()
    pos = [p for _, p in home.decided()][4]
    home.sql("DELETE FROM log_receipts WHERE pos = ?", pos)
    assert any("no receipt" in line for line in home.verify(days=1000)[0])


def test_without_a_checkpoint_a_removed_record_whose_receipt_expired_is_missed_when_it_was_no_retry(home: Home) -> None:
    made = home.decide(embedded.request(None))
    expire(home, "receipts")
    assert home.verify(days=8)[0] == []
    home.sql("DELETE FROM log_records WHERE key = ?", made[0]["decision_id"].encode())
    told = home.verify(days=8)[0]
    place = f"requests/{made[0]['log']['partition']}/{made[0]['log']['offset']}"
    assert told == [f"{place}: record: decided once, and its record is gone"]


def test_checkpoints_go_on_after_receipts_have_expired_and_leave_out_what_nobody_knows(home: Home) -> None:
    home.checkpoint()
    home.decide(*(embedded.request(f"late-{n}") for n in range(8)))
    before = len(home.places("records"))
    expire(home, "receipts", keep=1)
    home.decide(*(embedded.request(f"later-{n}") for n in range(8)))
    home.checkpoint()
    told, summary = home.verify(days=8)
    assert told == []
    assert (summary.never_covered, summary.after_last) == (8 - PARTITIONS, 0), "all but those whose receipts are held"
    assert summary.covered == before + PARTITIONS


# Spans


def test_a_span_of_positions_checks_those_alone(home: Home) -> None:
    home.checkpoint()
    pos, receipt_pos = [d for d in home.decided() if d[0] >> SHIFT == 1][4]
    name = rewritten(home, pos, receipt_pos, engine="lumyn-engine/0")
    offset = home.value("records", pos)["log"]["offset"]
    for span, found in (
        (Span(offset, offset + 1, 1), True), (Span(None, offset + 1, 1), True), (Span(offset, None, 1), True),
        (Span(None, offset, 1), False), (Span(offset + 1, None, 1), False), (Span(None, None, 0), False),
    ):  # fmt: skip
        told, _ = home.verify(span=span)
        assert [line.split(":")[0] for line in told] == ([name] if found else []), span
    assert home.verify(span=Span(offset, offset + 1, 1))[1].decisions == 1


def test_a_span_of_times_is_the_requests_of_that_time_also_when_they_have_expired(home: Home) -> None:
    records = sorted(home.values("records"), key=lambda record: record["created_at"])
    times = [time_ms_of(record["created_at"]) for record in records]
    middle = times[len(times) // 2]
    late, early = sum(t >= middle for t in times), sum(t < middle for t in times)
    assert late and early
    for topics in ((), ("receipts",), ("requests",)):
        expire(home, *topics, keep=2)
        days = {(): 0, ("receipts",): 8, ("requests",): 100}[topics]
        told, summary = home.verify(span=Span(middle, None), days=days)
        assert (told, summary.decisions) == ([], late), topics
        told, summary = home.verify(span=Span(None, middle), days=days)
        assert (told, summary.decisions) == ([], early), topics
    told, summary = home.verify(span=Span(times[-1] + DAY_MS, None), days=100)
    assert (told, summary.decisions) == ([], 0)


# Reading by place


def test_receipts_and_records_are_found_by_the_request_that_they_speak_of(home: Home) -> None:
    log = home.seen
    assert is_embedded(log) != home.sparse
    for partition in range(PARTITIONS):
        requests = [m for m in home.all("requests") if m.partition == partition]
        for request in requests:
            receipt = of_request(log, "receipts", partition, request.offset)
            assert receipt is not None and request_offset(receipt) == request.offset
        with_record = {r["log"]["offset"] for r in home.values("records") if r["log"]["partition"] == partition}
        for offset in range(requests[-1].offset + 3):
            record = of_request(log, "records", partition, offset)
            assert (request_offset(record) if record else None) == (offset if offset in with_record else None)
        last = last_of(log, "records", partition)
        assert isinstance(last, Message) and request_offset(last) == max(with_record)
        assert first_from(log, "records", partition, 10**6, request_offset) == log.end("records", partition)


@pytest.mark.parametrize(
    ("start", "end", "span"),
    [
        (None, None, Span()),
        ("3:1000", None, Span(1000, None, 3)),
        (None, "3:1000", Span(None, 1000, 3)),
        ("3:10", "3:200", Span(10, 200, 3)),
        ("14:025", "014:26", Span(25, 26, 14)),
        ("07:25", None, Span(1_759_994_700_000, None)),
        (None, "14:25", Span(None, 1_760_019_960_000)),
        ("2025-10-09 14:25", None, Span(1_760_019_900_000, None)),
        ("2025-10-09", "2025-10-09", Span(1_759_968_000_000, 1_760_054_400_000)),
        (None, "2025-10-09 08:54:01", Span(None, 1_760_000_042_000)),
    ],
)
def test_spans_are_read_as_times_or_positions(start: str | None, end: str | None, span: Span) -> None:
    assert parse_span(start, end, now_ms=START_MS) == span


def test_a_bare_time_that_has_not_come_yet_says_which_day_it_was_read_as() -> None:
    with pytest.raises(UsageError, match=r"2025-10-09T08:54:00\.000Z has not come yet") as refused:
        parse_span("08:54", None, now_ms=START_MS)
    assert "give the day" in str(refused.value)
