"""What every log must do. A backend's test module subclasses `LogContract` with two fixtures:

`log`: an empty log with 8 partitions; `reopen`: a function that opens the same storage once more, beside the first
(another connection, as another process would have). `reopen` is pickled into other processes.
"""

from __future__ import annotations

import multiprocessing
import time
from collections.abc import Callable

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from schemas.errors import BadConfig, Fenced, StorageUnavailable
from streams.log import Append, Log, Message
from streams.partitioner import murmur2, partition_for
from streams.tail import tail_of
from streams.topics import TOPICS

JAVA_MURMUR2 = {  # org.apache.kafka.common.utils.UtilsTest.testMurmur2
    b"21": -973932308,
    b"foobar": -790332482,
    b"a-little-bit-long-string": -985981536,
    b"a-little-bit-longer-string": -1486304829,
    b"lkjh234lh9fiuh90y23oiuhsafujhadof229phr9h19h89h8": -58897971,
    b"abc": 479470107,
}


@pytest.mark.parametrize(("key", "java"), JAVA_MURMUR2.items())
def test_murmur2_is_the_java_clients(key, java):
    assert murmur2(key) == java & 0xFFFFFFFF


@given(st.binary(max_size=40), st.integers(1, 64))
def test_a_partition_is_the_positive_hash_modulo_the_count(key, count):
    assert partition_for(key, count) == (murmur2(key) & 0x7FFFFFFF) % count


def values(messages: list[Message]) -> list[bytes]:
    return [m.value for m in messages]


def all_of(log: Log, topic: str) -> list[Message]:
    """Every message of a topic, read in small steps."""
    out: list[Message] = []
    for partition in range(log.partitions(topic)):
        offset = log.begin(topic, partition)
        while messages := log.read(topic, partition, offset, 7):
            out += messages
            offset = messages[-1].offset + 1
    return out


def append_many(reopen: Callable[[], Log], name: int, count: int) -> None:
    """Another process's work: `count` appends of three messages each, to two topics."""
    log = reopen()
    for number in range(count):
        body = f"{name}-{number}".encode()
        log.append(
            [Append("requests", body, body), Append("requests", body, None, 5), Append("labels", body)]
        )
    log.close()


def commit_many(reopen: Callable[[], Log], name: int, count: int) -> None:
    """Another process's work: take the partition, commit until fenced."""
    log = reopen()
    writer = log.writer("decide", "requests", 2)
    try:
        for number in range(count):
            body = f"{name}-{number}".encode()
            writer.commit(
                [Append("records", body, body, 2), Append("receipts", body, body, 2)], writer.position + 1
            )
    except StorageUnavailable:  # fenced; a broker that is told to commit just then may call it an unknown error
        pass
    log.close()


def in_processes(work: Callable[..., None], *argument_lists: tuple) -> None:
    context = multiprocessing.get_context("spawn")
    processes = [context.Process(target=work, args=arguments) for arguments in argument_lists]
    for process in processes:
        process.start()
    for process in processes:
        process.join(120)
    assert [p.exitcode for p in processes] == [0] * len(processes)


class LogContract:
    """One suite for every backend."""

    dense = True
    """Offsets have no gaps. A backend whose transactions take offsets of their own (Kafka's markers) says False."""

    def assert_follow(self, messages: list[Message], start: int = 0) -> None:
        """One partition's offsets grow from `start`, without a gap where the backend is dense."""
        offsets = [m.offset for m in messages]
        if self.dense:
            assert offsets == list(range(start, start + len(offsets)))
        else:
            assert offsets == sorted(set(offsets)) and offsets[0] >= start

    # topics and partitions

    def test_a_tail_gives_what_comes_after_it_once_and_each_partition_in_order(self, log, reopen):
        other = reopen()
        log.append([Append("records", b"before", b"k", partition) for partition in range(8)])
        tail = tail_of(log, "records")
        assert list(tail.news()) == []
        seen: list[Message] = []
        for step in range(5):
            other.append([Append("records", b"%d-%d" % (step, n), b"k", n % 8) for n in range(100)])
            until = time.monotonic() + 30
            while len(seen) < 100 * (step + 1) and time.monotonic() < until:
                seen += tail.news()
        assert list(tail.news()) == []
        tail.close()
        other.close()
        by_partition = [[m.value for m in seen if m.partition == p] for p in range(8)]
        assert by_partition == [[b"%d-%d" % (s, n) for s in range(5) for n in range(100) if n % 8 == p] for p in range(8)]
        assert {m.topic for m in seen} == {"records"}

    def test_every_topic_is_there_and_empty(self, log):
        for topic, described in TOPICS.items():
            assert log.partitions(topic) == (described.partitions or 8)
            for partition in range(log.partitions(topic)):
                assert (log.begin(topic, partition), log.end(topic, partition)) == (0, 0)
                assert log.read(topic, partition, 0) == []

    def test_an_unknown_topic_is_refused(self, log):
        for use in (
            lambda: log.partitions("nope"),
            lambda: log.read("nope", 0, 0),
            lambda: log.end("nope", 0),
            lambda: log.append([Append("nope", b"x")]),
        ):
            with pytest.raises(BadConfig, match="nope"):
                use()

    @pytest.mark.parametrize("key", [*JAVA_MURMUR2, b"acme/r-1", "acme/é😀".encode(), b"\x00\xff" * 9])
    def test_a_key_goes_to_the_partition_where_java_would_send_it(self, log, key):
        (message,) = log.append([Append("requests", b"v", key)])
        assert message.partition == (murmur2(key) & 0x7FFFFFFF) % 8
        assert values(log.read("requests", message.partition, 0)) == [b"v"]

    def test_a_partition_that_is_named_wins_over_the_key(self, log):
        messages = log.append([Append("records", b"v", b"21", p) for p in range(8)])
        assert [m.partition for m in messages] == list(range(8))

    def test_without_a_key_the_value_chooses(self, log):
        (one,) = log.append([Append("requests", b"foobar")])
        assert one.partition == partition_for(b"foobar", 8)
        assert one.key is None

    def test_a_topic_of_one_partition_keeps_everything_in_order(self, log):
        log.append([Append("labels", b"%d" % n, b"%d" % n) for n in range(20)])
        assert values(log.read("labels", 0, 0)) == [b"%d" % n for n in range(20)]

    # offsets, order, reading

    def test_offsets_follow_each_other_per_partition(self, log):
        for _ in range(3):
            log.append([Append("requests", b"v", None, p) for p in (1, 1, 4)])
        self.assert_follow(log.read("requests", 1, 0))
        self.assert_follow(log.read("requests", 4, 0))
        assert len(log.read("requests", 1, 0)) == 6
        assert len(log.read("requests", 4, 0)) == 3
        assert log.read("requests", 0, 0) == log.read("requests", 5, 0) == []

    def test_what_append_returns_is_what_is_read(self, log):
        sent = log.append([Append("requests", b"%d" % n, b"k%d" % n) for n in range(50)])
        key_of = lambda m: (m.partition, m.offset)  # noqa: E731
        assert sorted(sent, key=key_of) == sorted(all_of(log, "requests"), key=key_of)
        assert [m.value for m in sent] == [b"%d" % n for n in range(50)]

    @pytest.mark.parametrize("value", [b"", b"\x00", b"\xff\xfe", b"x" * 3_000_000])
    @pytest.mark.parametrize("key", [None, b"k", b"\x00\xff"])
    def test_values_and_keys_are_any_bytes(self, log, value, key):
        log.append([Append("receipts", value, key, 3)])
        (message,) = log.read("receipts", 3, 0)
        assert (message.value, message.key) == (value, key)

    def test_a_compacted_topic_takes_no_message_without_a_key(self, log):
        with pytest.raises(BadConfig, match="needs a key"):
            log.append([Append("requests", b"q", None, 0), Append("records", b"r", None, 0)])
        assert all_of(log, "requests") == all_of(log, "records") == []

    def test_a_read_takes_as_many_as_asked_from_where_asked(self, log):
        log.append([Append("requests", b"%d" % n, None, 0) for n in range(10)])
        assert values(log.read("requests", 0, 0, 3)) == [b"0", b"1", b"2"]
        assert values(log.read("requests", 0, 7, 100)) == [b"7", b"8", b"9"]
        assert log.read("requests", 0, 0, 0) == []
        assert log.read("requests", 0, 10) == []
        assert log.read("requests", 0, 10**6) == []

    def test_begin_and_end_enclose_what_is_held(self, log):
        log.append([Append("requests", b"v", None, 0) for _ in range(3)])
        assert log.begin("requests", 0) == 0
        assert log.end("requests", 0) >= log.read("requests", 0, 0)[-1].offset + 1
        if self.dense:
            assert log.end("requests", 0) == 3
        assert log.end("requests", 1) == 0

    def test_appending_nothing_is_nothing(self, log):
        assert log.append([]) == []

    def test_time_is_the_logs_own_and_never_goes_back(self, log):
        for _ in range(20):
            log.append([Append("requests", b"v", None, 0), Append("requests", b"v", None, 0)])
        times = [m.time_ms for m in log.read("requests", 0, 0)]
        assert times == sorted(times)
        assert times[0] > 1_500_000_000_000

    @settings(
        max_examples=20,
        suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.differing_executors],
    )
    @given(
        st.lists(
            st.lists(
                st.tuples(st.sampled_from(["requests", "receipts", "control"]), st.integers(0, 2)), max_size=5
            ),
            max_size=6,
        )
    )
    def test_each_partition_is_read_in_the_order_of_appending(self, log, batches):
        model: dict[tuple[str, int], list[bytes]] = {}
        starts = {
            (t, p): log.end(t, p)
            for t in ("requests", "receipts", "control")
            for p in range(log.partitions(t))
        }
        for number, batch in enumerate(batches):
            appends = []
            for place, (topic, partition) in enumerate(batch):
                partition = min(partition, log.partitions(topic) - 1)
                body = b"%d-%d" % (number, place)
                model.setdefault((topic, partition), []).append(body)
                appends.append(Append(topic, body, None, partition))
            log.append(appends)
        for place, start in starts.items():
            found = log.read(*place, start)
            assert values(found) == model.get(place, [])
            if found:
                self.assert_follow(found, start)

    # keys

    def test_the_latest_of_a_key_is_the_newest(self, log):
        assert log.latest("records", b"a") is None
        log.append([Append("records", b"1", b"a", 0), Append("records", b"x", b"b", 0)])
        log.append([Append("records", b"2", b"a", 0)])
        message = log.latest("records", b"a")
        assert message == log.read("records", 0, 0)[-1]
        assert message.value == b"2"
        assert log.latest("records", b"c") is None

    def test_the_latest_of_a_key_is_found_in_any_partition_and_topic_of_its_own(self, log):
        for partition in range(8):
            log.append([Append("receipts", b"r%d" % partition, b"k%d" % partition, partition)])
        assert [log.latest("receipts", b"k%d" % p).partition for p in range(8)] == list(range(8))
        assert log.latest("records", b"k1") is None

    # all or nothing

    def test_an_append_to_several_topics_is_one_whole(self, log):
        messages = log.append(
            [Append("requests", b"q", b"k"), Append("control", b"c"), Append("records", b"r", b"k", 1)]
        )
        assert [m.topic for m in messages] == ["requests", "control", "records"]
        assert values(all_of(log, "requests") + all_of(log, "control") + all_of(log, "records")) == [
            b"q",
            b"c",
            b"r",
        ]

    @pytest.mark.parametrize("broken", [Append("nope", b"x"), Append("records", None, b"k", 1)])  # type: ignore[arg-type]
    def test_an_append_that_fails_leaves_nothing_in_any_topic(self, log, broken):
        log.append([Append("requests", b"before", None, 0)])
        with pytest.raises(Exception):  # noqa: B017
            log.append([Append("requests", b"q", None, 0), Append("control", b"c"), broken])
        assert values(log.read("requests", 0, 0)) == [b"before"]
        assert all_of(log, "control") == all_of(log, "records") == []
        log.append([Append("requests", b"after", None, 0)])
        found = log.read("requests", 0, 0)
        assert values(found) == [b"before", b"after"]
        self.assert_follow(found)

    # the partition writer

    def test_a_writer_starts_at_0_and_stands_where_it_committed(self, log):
        writer = log.writer("decide", "requests", 2)
        assert writer.position == log.committed("decide", "requests", 2) == 0
        messages = writer.commit([Append("records", b"r", b"k", 2), Append("receipts", b"c", None, 2)], 1)
        assert [m.topic for m in messages] == ["records", "receipts"]
        assert writer.position == log.committed("decide", "requests", 2) == 1
        assert values(log.read("records", 2, 0) + log.read("receipts", 2, 0)) == [b"r", b"c"]
        writer.close()

    def test_positions_are_of_one_group_and_partition(self, log):
        log.writer("decide", "requests", 2).commit([], 7)
        assert log.committed("decide", "requests", 2) == 7
        assert log.committed("decide", "requests", 3) == 0
        assert log.committed("shadow", "requests", 2) == 0
        assert log.committed("decide", "records", 2) == 0

    def test_a_new_writer_goes_on_where_the_old_one_stopped(self, log, reopen):
        log.writer("decide", "requests", 0).commit([Append("records", b"r", b"k", 0)], 5)
        other = reopen()
        writer = other.writer("decide", "requests", 0)
        assert writer.position == 5
        writer.commit([Append("records", b"s", b"k", 0)], 6)
        assert values(log.read("records", 0, 0)) == [b"r", b"s"]

    def test_the_older_writer_is_fenced_and_nothing_of_its_commit_remains(self, log, reopen):
        old = log.writer("decide", "requests", 2)
        old.commit([Append("records", b"first", b"k", 2)], 1)
        new = reopen().writer("decide", "requests", 2)
        with pytest.raises(Fenced):
            old.commit([Append("records", b"zombie", b"k", 2), Append("receipts", b"zombie", b"k", 2)], 2)
        assert new.position == 1
        assert values(log.read("records", 2, 0)) == [b"first"]
        assert log.read("receipts", 2, 0) == []
        new.commit([Append("records", b"second", b"k", 2)], 2)
        with pytest.raises(Fenced):
            old.commit([], 9)
        assert new.position == 2
        assert values(log.read("records", 2, 0)) == [b"first", b"second"]

    def test_a_writer_fences_none_of_another_partition_or_group(self, log):
        writers = [
            log.writer("decide", "requests", 0),
            log.writer("decide", "requests", 1),
            log.writer("shadow", "requests", 0),
        ]
        for number, writer in enumerate(writers):
            writer.commit([Append("records", b"%d" % number, b"k", 0)], number + 1)
        assert [w.position for w in writers] == [1, 2, 3]

    def test_a_commit_that_fails_moves_nothing(self, log):
        writer = log.writer("decide", "requests", 2)
        with pytest.raises(BadConfig):
            writer.commit([Append("records", b"r", b"k", 2), Append("nope", b"x")], 1)
        assert writer.position == 0
        assert log.read("records", 2, 0) == []
        writer.commit([Append("records", b"again", b"k", 2)], 1)
        assert values(log.read("records", 2, 0)) == [b"again"]

    # durability, other connections, other processes

    def test_everything_is_there_after_closing_and_opening(self, log, reopen):
        log.append([Append("requests", b"%d" % n, b"k%d" % n) for n in range(30)])
        log.writer("decide", "requests", 3).commit([Append("records", b"r", b"id", 3)], 4)
        before = [all_of(log, topic) for topic in ("requests", "records")]
        log.close()
        again = reopen()
        assert [all_of(again, topic) for topic in ("requests", "records")] == before
        assert again.committed("decide", "requests", 3) == 4
        assert again.latest("records", b"id").value == b"r"
        assert again.prefix == log.prefix
        last = again.append([Append("requests", b"next", None, 0)])[0]
        assert last.offset == len(again.read("requests", 0, 0)) - 1 or not self.dense

    def test_another_connection_sees_what_is_committed_at_once(self, log, reopen):
        other = reopen()
        for number in range(5):
            log.append([Append("labels", b"%d" % number, b"k")])
            assert values(other.read("labels", 0, 0))[-1] == b"%d" % number
            assert other.end("labels", 0) == log.end("labels", 0)
            assert other.latest("labels", b"k").value == b"%d" % number
            other.append([Append("labels", b"other", b"o")])
            assert values(log.read("labels", 0, 0))[-1] == b"other"
            assert other.end("labels", 0) == log.end("labels", 0)
        self.assert_follow(log.read("labels", 0, 0))

    def test_three_processes_appending_at_once_lose_nothing(self, log, reopen):
        in_processes(append_many, *[(reopen, name, 25) for name in range(3)])
        sent = sorted(b"%d-%d" % (name, number) for name in range(3) for number in range(25))
        assert sorted(values(log.read("labels", 0, 0))) == sent
        assert sorted(values(all_of(log, "requests"))) == sorted(sent * 2)
        for partition in range(8):
            found = log.read("requests", partition, 0)
            if found:
                self.assert_follow(found)
                assert [m.time_ms for m in found] == sorted(m.time_ms for m in found)
        for name in range(3):
            mine = [v for v in values(log.read("labels", 0, 0)) if v.startswith(b"%d-" % name)]
            assert mine == [b"%d-%d" % (name, number) for number in range(25)], "each one's order is kept"

    def test_writers_of_several_processes_never_both_commit(self, log, reopen):
        in_processes(commit_many, *[(reopen, name, 30) for name in range(3)])
        records, receipts = log.read("records", 2, 0), log.read("receipts", 2, 0)
        assert values(records) == values(receipts)
        assert len(records) == log.committed("decide", "requests", 2) >= 30


class TransactionalLogContract(LogContract):
    """What a log must do on top, to append a request and decide it in one transaction (the embedded one)."""

    def test_a_transaction_sees_its_own_appends_and_positions(self, log):
        with log.transaction() as transaction:
            (message,) = transaction.append([Append("requests", b"q", None, 1)])
            assert message.offset == 0
            assert log.read("requests", 1, 0) == [message]
            assert log.end("requests", 1) == 1
            transaction.move("decide", "requests", 1, 1)
            assert transaction.position("decide", "requests", 1) == 1
            assert transaction.position("decide", "requests", 2) == 0
        assert log.read("requests", 1, 0) == [message]
        assert log.committed("decide", "requests", 1) == 1

    def test_another_connection_sees_nothing_of_it_before_the_commit(self, log, reopen):
        other = reopen()
        with log.transaction() as transaction:
            transaction.append([Append("requests", b"q", None, 1), Append("records", b"r", b"k", 1)])
            transaction.move("decide", "requests", 1, 1)
            assert other.read("requests", 1, 0) == []
            assert other.end("requests", 1) == 0
            assert other.latest("records", b"k") is None
            assert other.committed("decide", "requests", 1) == 0
        assert values(other.read("requests", 1, 0)) == [b"q"]
        assert other.committed("decide", "requests", 1) == 1

    @pytest.mark.parametrize("fault", [ValueError, KeyboardInterrupt])
    def test_a_transaction_that_fails_leaves_nothing(self, log, reopen, fault):
        log.append([Append("requests", b"before", None, 1)])
        with pytest.raises(fault), log.transaction() as transaction:
            transaction.append([Append("requests", b"lost", None, 1), Append("records", b"lost", b"k", 1)])
            transaction.move("decide", "requests", 1, 2)
            raise fault
        for one in (log, reopen()):
            assert values(one.read("requests", 1, 0)) == [b"before"]
            assert one.end("requests", 1) == 1
            assert one.latest("records", b"k") is None
            assert one.committed("decide", "requests", 1) == 0
        (message,) = log.append([Append("requests", b"after", None, 1)])
        assert message.offset == 1

    def test_transactions_do_not_nest_and_the_outer_one_goes_on(self, log):
        with log.transaction() as transaction:
            transaction.append([Append("control", b"1")])
            with pytest.raises(RuntimeError, match="nest"), log.transaction():
                pass
            transaction.append([Append("control", b"2")])
        assert values(log.read("control", 0, 0)) == [b"1", b"2"]

    def test_moving_a_position_does_not_fence_the_writer(self, log):
        writer = log.writer("decide", "requests", 1)
        with log.transaction() as transaction:
            transaction.move("decide", "requests", 1, 3)
        assert writer.position == 3
        writer.commit([], 4)
        assert writer.position == 4

    def test_all_messages_of_a_key_are_given_in_order(self, log):
        log.append([Append("labels", b"%d" % n, (b"a", b"b")[n % 2]) for n in range(6)])
        assert values(log.with_key("labels", b"a")) == [b"0", b"2", b"4"]
        assert log.with_key("labels", b"a")[1] == log.read("labels", 0, 2, 1)[0]
        assert log.with_key("labels", b"c") == []

    def test_keys_are_found_by_prefix_each_once_and_in_order(self, log):
        for key in (b"01B", b"01A", b"01A", b"02", b"01AX", b"0"):
            log.append([Append("records", b"v", key)])
        log.append([Append("receipts", b"v", None, 0)])
        assert log.keys_from("records", b"01", 10) == [b"01A", b"01AX", b"01B"]
        assert log.keys_from("records", b"01", 2) == [b"01A", b"01AX"]
        assert log.keys_from("records", b"01A", 10) == [b"01A", b"01AX"]
        assert log.keys_from("records", b"", 10) == [b"0", b"01A", b"01AX", b"01B", b"02"]
        assert log.keys_from("records", b"9", 10) == []
        assert log.keys_from("receipts", b"0", 10) == []
