"""The embedded decide agent: every request offset decided exactly once, durably, whatever happens beside it."""

from __future__ import annotations

import base64
import os
import signal
import sqlite3
import subprocess
import sys
import textwrap
import threading
from dataclasses import replace
from pathlib import Path

import pytest
from embedded import POLICY, WITH_MEMORY, Embedded, policy, request
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from log_contract import in_processes

from memory_service.recall import recorded
from memory_service.sqlite_store import rebuild_file
from schemas.canonical import decode_trusted, encode
from schemas.errors import (
    BadInput,
    BadRequest,
    LumynError,
    NotFound,
    RequestConflict,
    StorageUnavailable,
)
from schemas.ids import decision_id
from schemas.limits import IDEMPOTENCY_WINDOW_MS, MAX_BODY_BYTES
from schemas.receipt import ADAPTER as RECEIPT
from schemas.receipt import DEAD_LETTER
from schemas.record import ADAPTER as RECORD
from schemas.record import record_digest
from schemas.request import stored_request
from streams.control import ControlState, control_append, publish_event
from streams.decide import Position, decide
from streams.log import Append
from streams.policy import load_policy

ROOT = Path(__file__).parents[2]
NOW = 1_734_618_600_000
DAY = 24 * 3600 * 1000


@pytest.fixture
def home(tmp_path, vectoriser):
    made = Embedded(tmp_path, policy(), vectoriser=vectoriser)
    yield made
    made.close()


@pytest.fixture
def remembering(tmp_path, vectoriser):
    made = Embedded(tmp_path, policy(WITH_MEMORY), vectoriser=vectoriser)
    yield made
    made.close()


class Broken:
    """A program of a policy that raises for requests which say so."""

    def __init__(self, inner):
        self._inner = inner

    def find(self, asked, time_ms, recalled):
        if "boom" in asked.get("evidence", {}):
            raise ZeroDivisionError("boom")
        return self._inner.find(asked, time_ms, recalled)


def broken_policy():
    return replace(policy(), _program=Broken(policy()._program))


def nest(depth):
    value = 1
    for _ in range(depth):
        value = {"a": value}
    return value


# one receipt, one record


def test_a_request_gets_a_record_a_receipt_and_a_moved_position(home):
    (record,) = home.decide(request("r-1"))
    (receipt,) = home.values("receipts")
    assert home.check() == {"decided": 1}
    assert (receipt["tenant"], receipt["request_id"], receipt["outcome"]) == ("default", "r-1", "decided")
    assert receipt["body_digest"] == request("r-1").body_digest
    assert record["verdict"] == "ALLOW"


def test_records_receipts_and_dead_letters_keep_their_contracts(home):
    home.log.append([Append("requests", b"{", b"x")])
    home.decide(request("r-1"), request("r-1"), request("r-1", amount=5), request())
    home.agent.drain()
    for message in home.all("records"):
        record = decode_trusted(message.value)
        assert RECORD.validate_python(record) == record
        assert message.value == encode(record), "what is stored is canonical"
        assert record["record_digest"] == record_digest(record)
        assert message.key == record["decision_id"].encode()
        assert message.partition == record["log"]["partition"]
    for receipt in home.values("receipts"):
        assert RECEIPT.validate_python(receipt) == receipt
    for letter in home.values("dead-letters"):
        assert DEAD_LETTER.validate_python(letter) == letter
    assert home.check() == {"decided": 2, "duplicate": 1, "conflict": 1, "rejected": 1}


def test_a_records_id_and_time_are_the_logs(tmp_path):
    home = Embedded(tmp_path, policy(), clock=lambda: NOW)
    (record,) = home.decide(request())
    log = record["log"]
    assert record["created_at"] == "2024-12-19T14:30:00.000Z"
    assert record["decision_id"] == decision_id(log["topic"], log["partition"], log["offset"], NOW)
    assert log["topic"] == "lumyn.requests"


def test_answers_come_in_the_order_of_the_requests(home):
    answers = home.decide(*[request(amount=n) for n in range(60)])
    assert [a["request"]["action"]["amount"] for a in answers] == list(range(60))
    assert home.check() == {"decided": 60}


def test_more_than_one_transaction_of_requests_keeps_order_and_count(home):
    answers = home.decide(*[request(f"r-{n}", amount=n % 7) for n in range(1100)])
    assert [a["request_id"] for a in answers] == [f"r-{n}" for n in range(1100)]
    assert home.check() == {"decided": 1100}


def test_deciding_nothing_is_nothing(home):
    assert home.agent.decide([]) == []
    assert home.agent.drain() == 0
    assert home.all("records") == []


def test_without_a_request_id_the_same_body_is_a_new_decision(home):
    one, other = home.decide(request(), request())
    (third,) = home.decide(request())
    assert len({one["decision_id"], other["decision_id"], third["decision_id"]}) == 3
    assert home.check() == {"decided": 3}


# idempotency


def test_a_retry_gets_the_first_record_byte_for_byte(home):
    (first,) = home.agent.decide([request("r-1")])
    (again,) = home.agent.decide([request("r-1")])
    assert (first.outcome, again.outcome) == ("decided", "duplicate")
    assert again.canonical == first.canonical
    assert home.check() == {"decided": 1, "duplicate": 1}


def test_a_retry_after_the_world_has_changed_still_gets_the_first_record(remembering):
    (first,) = remembering.decide(request("r-1"))
    remembering.label(first["decision_id"], "failure")
    remembering.log.append([control_append({"type": "kill_switch_on", "actor": "ops", "switch_id": "k", "scope": {}})])
    assert remembering.decide(request("r-1")) == [first]
    assert remembering.decide(request("r-2"))[0]["reason_codes"] == ["KILL_SWITCH"]


def test_another_body_under_the_same_request_id_is_a_conflict_and_nothing_is_decided(home):
    (first,) = home.decide(request("r-1"))
    (conflict,) = home.decide(request("r-1", amount=5))
    assert isinstance(conflict, RequestConflict)
    assert first["decision_id"] in str(conflict) and conflict.exit_code == 2
    assert home.check() == {"decided": 1, "conflict": 1}
    assert home.decide(request("r-1")) == [first], "and the first one stands"


def test_other_provenance_is_another_body(home):
    home.decide(request("r-1", provenance={"model": "a"}))
    (conflict,) = home.decide(request("r-1", provenance={"model": "b"}))
    assert isinstance(conflict, RequestConflict)


def test_the_same_request_id_twice_in_one_batch_is_decided_once(home):
    first, duplicate, conflict, other = home.agent.decide(
        [request("r-1"), request("r-1"), request("r-1", amount=5), request("r-2")]
    )
    assert (first.outcome, duplicate.outcome, other.outcome) == ("decided", "duplicate", "decided")
    assert duplicate.canonical == first.canonical
    assert isinstance(conflict, RequestConflict)
    assert home.check() == {"decided": 2, "duplicate": 1, "conflict": 1}


def test_other_tenants_with_the_same_request_id_are_other_requests(home):
    one, other = home.decide(request("r-1", tenant="acme"), request("r-1", tenant="globex", amount=5))
    assert one["decision_id"] != other["decision_id"]
    assert home.decide(request("r-1", tenant="acme"))[0] == one
    assert home.check() == {"decided": 2, "duplicate": 1}


def test_a_retry_is_safe_for_seven_days_and_then_a_new_decision(tmp_path):
    now = [NOW]
    home = Embedded(tmp_path, policy(), clock=lambda: now[0])
    (first,) = home.decide(request("r-1"))
    now[0] = NOW + 3 * DAY
    assert home.decide(request("r-1")) == [first]
    now[0] = NOW + IDEMPOTENCY_WINDOW_MS
    assert IDEMPOTENCY_WINDOW_MS == 7 * DAY
    assert home.decide(request("r-1")) == [first], "a retry does not make the window longer or shorter"
    now[0] += 1
    (new,) = home.decide(request("r-1", amount=5))
    assert new["decision_id"] != first["decision_id"]
    assert home.decide(request("r-1", amount=5)) == [new], "the new one opens a window of its own"
    assert isinstance(home.decide(request("r-1"))[0], RequestConflict)
    home.check()


def test_a_clock_that_goes_back_loses_no_idempotency(tmp_path):
    now = [NOW]
    home = Embedded(tmp_path, policy(), clock=lambda: now[0])
    (first,) = home.decide(request("r-1"))
    now[0] = NOW - 30 * DAY
    assert home.decide(request("r-1")) == [first]


def test_a_retry_finds_the_first_after_reopening(tmp_path):
    first_home = Embedded(tmp_path, policy())
    (first,) = first_home.decide(request("r-1"))
    first_home.close()
    assert Embedded(tmp_path, policy()).decide(request("r-1")) == [first]


@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(
    st.lists(
        st.lists(
            st.tuples(st.sampled_from(["a", "b", None]), st.sampled_from(["t1", "t2"]), st.sampled_from([1, 2])),
            min_size=1,
            max_size=6,
        ),
        max_size=4,
    ),
    st.booleans(),
)
def test_any_sequence_of_retries_is_decided_as_a_naive_ledger_says(tmp_path_factory, batches, waiting):
    home = Embedded(tmp_path_factory.mktemp("ledger"), policy())
    ledger: dict[tuple, tuple] = {}
    for batch in batches:
        requests = [request(name, tenant=tenant, amount=amount) for name, tenant, amount in batch]
        if waiting:
            home.agent.submit(requests)
            assert home.agent.drain() == len(requests)
            continue
        for asked, answer in zip(batch, home.decide(*requests), strict=True):
            name, tenant, amount = asked
            if name is None:
                assert answer["request"]["action"]["amount"] == amount
                continue
            first = ledger.setdefault((name, tenant), (amount, answer))
            if first[0] == amount:
                assert answer == first[1]
            else:
                assert isinstance(answer, RequestConflict)
    outcomes = home.check()
    asked = [one for batch in batches for one in batch]
    assert outcomes["decided"] == len({a[:2] for a in asked if a[0]}) + sum(a[0] is None for a in asked)
    home.close()


# submitted requests


def test_submitted_requests_wait_and_are_then_decided_in_order(home):
    home.agent.submit([request("a", amount=n) for n in (1, 2)] + [request("a", amount=1)])
    assert home.all("records") == []
    assert home.agent.drain() == 3
    assert [r["outcome"] for r in home.values("receipts")] == ["decided", "conflict", "duplicate"]
    assert home.values("records")[0]["request"]["action"]["amount"] == 1
    assert home.agent.drain() == 0
    home.check()


def test_what_was_submitted_is_decided_before_what_comes_after_in_its_partition(home):
    (waiting,) = home.agent.submit([request("a", amount=1)])
    (answer,) = home.agent.decide([request("a", amount=2)])
    assert isinstance(answer, RequestConflict), "the one that waited came first"
    (record,) = home.values("records")
    assert (record["log"]["partition"], record["log"]["offset"]) == (waiting.partition, waiting.offset)
    home.check()


def test_many_waiting_requests_are_decided_a_limit_at_a_time(home):
    home.agent.submit([request(f"r-{n}") for n in range(100)])
    steps = []
    while count := home.agent.drain(limit=3):
        steps.append(count)
    assert sum(steps) == 100 and max(steps) <= 24
    assert home.check() == {"decided": 100}


def test_a_retry_of_a_waiting_request_is_its_duplicate(home):
    home.agent.submit([request("a")])
    (answer,) = home.agent.decide([request("a")])
    assert answer.outcome == "duplicate"
    assert home.check() == {"decided": 1, "duplicate": 1}


# poison


POISON = [
    b"",
    b"not json",
    b" \n{ \n",
    b"\xff\xfe\x00",
    b'{"a": NaN}',
    b'{"subject": 1}',
    b"[" * 100_000,
    b'{"x":"' + b"y" * MAX_BODY_BYTES + b'"}',
    b'{"action":{"type":"refund"},"subject":{"id":"1","type":"u"},"unknown":1}',
]


@pytest.mark.parametrize("payload", POISON, ids=[p[:12].decode("latin-1") for p in POISON])
def test_poison_becomes_a_dead_letter_byte_for_byte_and_the_next_ones_go_on(home, payload):
    good = request("r-1")
    partition = home.log.append([Append("requests", good.canonical, good.key)])[0].partition
    home.log.append(
        [
            Append("requests", payload, b"some key", partition),
            Append("requests", request("r-2").canonical, None, partition),
        ]
    )
    assert home.agent.drain() == 3
    (letter,) = home.values("dead-letters")
    assert base64.b64decode(letter["payload_base64"]) == payload
    assert letter["source"] == {"topic": "lumyn.requests", "partition": partition, "offset": 1}
    assert letter["reason"] in ("bad_json", "bad_request", "too_large") and letter["detail"]
    assert home.all("dead-letters")[0].key == b"some key"
    assert home.check() == {"decided": 2, "rejected": 1}


def test_poison_before_a_decision_in_its_partition_stops_nobody(home):
    asked = request("r-1")
    partition = home.log.append([Append("requests", b"{", asked.key)])[0].partition
    (record,) = home.decide(asked)
    assert (record["log"]["partition"], record["log"]["offset"]) == (partition, 1)
    assert home.check() == {"decided": 1, "rejected": 1}


def test_a_request_for_a_policy_that_is_not_there_is_rejected_and_may_come_again(home):
    (error,) = home.decide(request("r-1", policy="other"))
    assert isinstance(error, BadRequest) and "other" in str(error)
    assert home.check() == {"rejected": 1}
    (error,) = Embedded(home.home).decide(request("r-2"))
    assert "no policy is active" in str(error)
    (record,) = home.decide(request("r-1"))
    assert record["verdict"] == "ALLOW", "a rejected one does not take the request_id"
    assert home.check() == {"rejected": 2, "decided": 1}


def test_an_evaluation_that_raises_abstains_and_the_next_ones_go_on(home):
    answers = home.agent.decide([request("a"), request("b", evidence={"boom": 1}), request("c")], broken_policy())
    records = [decode_trusted(a.canonical) for a in answers]
    assert [r["verdict"] for r in records] == ["ALLOW", "ABSTAIN", "ALLOW"]
    assert records[1]["reason_codes"] == ["INTERNAL_ERROR"]
    assert records[1]["matched_rules"] == []
    assert RECORD.validate_python(records[1]) == records[1]
    assert home.check() == {"decided": 3}


DEEP = {"evidence": {"a": nest(62)}, "provenance": {"temperature": 1e-7}}


def test_a_request_as_deep_as_accepted_is_decided(home):
    answers = home.agent.decide([request("a"), request("b", **DEEP)])
    assert [a.outcome for a in answers] == ["decided", "decided"]


def test_a_waiting_request_as_deep_as_accepted_blocks_nobody(home):
    home.agent.submit([request("b", **DEEP)])
    home.agent.drain()
    home.check()


def test_the_record_of_a_deep_request_can_be_checked(home):
    (record,) = home.decide(request("b", evidence={"a": nest(62)}))
    assert record_digest(record) == record["record_digest"]


def test_a_label_on_a_deep_request_is_applied_or_leaves_nothing(home):
    (record,) = home.decide(request(context={"inline": {"a": nest(61)}}))
    result = home.label(record["decision_id"])
    assert not isinstance(result, LumynError) or home.all("label-requests") == []


def test_memory_that_raises_what_it_should_not_decides_nothing_and_loses_nothing(tmp_path):
    """`Memory.recall` never raises by contract; if it does, the transaction is undone and can be tried again."""

    class Interrupted:
        def recall(self, asked):
            raise KeyboardInterrupt

    home = Embedded(tmp_path, policy(WITH_MEMORY))
    home.agent._deciding._memory = Interrupted()
    with pytest.raises(KeyboardInterrupt):
        home.agent.decide([request("r-1")])
    assert home.all("requests") == home.all("records") == home.all("receipts") == home.all("control") == []


# trouble with the log


def fill_the_disk(home, pages=3):
    now = home.log._db.execute("PRAGMA page_count").fetchone()[0]
    home.log._db.execute(f"PRAGMA max_page_count={now + pages}")


def test_an_unwritable_log_gives_no_verdict_and_leaves_nothing(home):
    home.decide(request("r-0"))
    fill_the_disk(home)
    with pytest.raises(StorageUnavailable, match="full"):
        home.decide(*[request(f"r-{n}") for n in range(1, 200)])
    assert home.check() == {"decided": 1}
    home.log._db.execute("PRAGMA max_page_count=1000000")
    home.decide(*[request(f"r-{n}") for n in range(1, 200)])
    assert home.check() == {"decided": 200}


def test_a_locked_log_gives_no_verdict(home):
    home.decide(request("r-0"))
    impatient = Embedded(home.home, policy(), busy_timeout_s=0.05)
    with home.log.transaction(), pytest.raises(StorageUnavailable, match="locked"):
        impatient.decide(request("r-1"))
    impatient.decide(request("r-1"))
    assert home.check() == {"decided": 2}


def test_after_a_failed_transaction_a_kill_switch_is_still_heard(home):
    fill_the_disk(home)
    with pytest.raises(StorageUnavailable):
        home.decide(*[request() for _ in range(200)])
    home.log._db.execute("PRAGMA max_page_count=1000000")
    home.log.append([control_append({"type": "kill_switch_on", "actor": "ops", "switch_id": "k", "scope": {}})])
    (record,) = home.decide(request())
    assert record["reason_codes"] == ["KILL_SWITCH"]


def test_after_a_failed_transaction_the_policy_is_still_published(home):
    fill_the_disk(home)
    with pytest.raises(StorageUnavailable):
        home.decide(*[request() for _ in range(200)])
    home.log._db.execute("PRAGMA max_page_count=1000000")
    (record,) = home.decide(request())
    assert [event["hash"] for event in home.values("control")] == [record["policy"]["hash"]]


# several at once


def test_eight_threads_lose_nothing_and_each_gets_its_own_answers(home):
    answers: dict[int, list] = {}
    start = threading.Barrier(8)

    def work(name: int) -> None:
        start.wait()
        got = []
        for number in range(15):
            got += home.decide(request(f"{name}-{number}", amount=name), request(f"shared-{number}", amount=7))
        answers[name] = got

    threads = [threading.Thread(target=work, args=(name,)) for name in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for name in range(8):
        assert [r["request_id"] for r in answers[name][::2]] == [f"{name}-{n}" for n in range(15)]
        assert answers[name][1::2] == answers[0][1::2], "all get the one decision of a shared request"
    assert home.check() == {"decided": 8 * 15 + 15, "duplicate": 7 * 15}
    again = Embedded(home.home, policy())
    assert {r["decision_id"]: r for r in again.values("records")} == {
        r["decision_id"]: r for name in answers for r in answers[name]
    }


def test_one_threads_bad_luck_is_not_anothers(home):
    results: dict[str, object] = {}
    start = threading.Barrier(4)

    def work(name: str, asked, rules) -> None:
        start.wait()
        results[name] = home.agent.decide([asked], rules)[0]

    threads = [
        threading.Thread(target=work, args=arguments)
        for arguments in (
            ("good", request("g"), None),
            ("boom", request("b", evidence={"boom": 1}), broken_policy()),
            ("nobody", request("n", policy="other"), None),
            ("also good", request("h"), None),
        )
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert results["good"].outcome == results["also good"].outcome == results["boom"].outcome == "decided"
    assert isinstance(results["nobody"], BadRequest)
    home.check()


def decide_in_a_process(folder: Path, name: int, count: int) -> None:
    home = Embedded(folder, policy(WITH_MEMORY if name == 0 else POLICY))
    for number in range(count):
        mine, shared = home.decide(request(f"{name}-{number}"), request(f"shared-{number}"))
        assert (mine["request_id"], shared["request_id"]) == (f"{name}-{number}", f"shared-{number}")
        home.agent.submit([request(f"later-{name}-{number}")])
        if number % 5 == 0:
            home.label(mine["decision_id"], "success")
    home.close()


def test_three_processes_on_one_home_decide_each_request_once(tmp_path):
    in_processes(decide_in_a_process, *[(tmp_path, name, 12) for name in range(3)])
    home = Embedded(tmp_path, policy())
    home.agent.drain()
    outcomes = home.check()
    assert outcomes == {"decided": 3 * 12 * 2 + 12, "duplicate": 2 * 12}
    assert [event["version"] for event in home.values("labels")] == list(range(1, 10))
    assert len(home.values("control")) == 2, "each policy document is published once"


KILLED = """
    import sys
    from pathlib import Path
    sys.path.insert(0, "tests/streams")
    from embedded import Embedded, policy, request
    home = Embedded(Path(sys.argv[1]), policy())
    batch = 0
    while True:
        home.agent.submit([request(f"s-{batch}-{n}") for n in range(3)])
        home.agent.decide([request(f"d-{batch}-{n}") for n in range(7)])
        print(batch, flush=True)
        batch += 1
"""


@pytest.mark.parametrize("after", [1, 8])
def test_a_killed_process_leaves_whole_transactions_only(tmp_path, after):
    process = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(KILLED), str(tmp_path)],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    for _ in range(after):
        line = process.stdout.readline()
        assert line, process.stderr.read()
    process.send_signal(signal.SIGKILL)
    rest, _ = process.communicate(timeout=30)
    acknowledged = int((rest.split() or [line])[-1])
    home = Embedded(tmp_path, policy())
    decided = [r["request_id"] for r in home.values("records") if r["request_id"].startswith("d-")]
    batches = {name.split("-")[1] for name in decided}
    assert len(decided) == 7 * len(batches), "a batch is there as a whole or not at all"
    assert {str(n) for n in range(acknowledged + 1)} <= batches, "and what was answered is there"
    submitted = [m for m in home.all("requests") if b'"s-' in m.value]
    assert len(submitted) % 3 == 0
    home.agent.drain()
    assert home.check() == {"decided": 7 * len(batches) + len(submitted)}


# policies and control


def test_a_policy_is_published_once_by_its_hash(home):
    home.decide(request(), request())
    home.decide(request())
    Embedded(home.home, policy()).decide(request())
    (event,) = home.values("control")
    assert (event["type"], event["hash"], event["origin"]) == (
        "policy_published",
        policy().policy_hash,
        "file",
    )
    assert event["source"].encode() == POLICY
    other = load_policy(POLICY + b"# changed\n", name="refunds.yml")
    home.agent.decide([request(), request()], other)
    assert [e["hash"] for e in home.values("control")] == [policy().policy_hash, other.policy_hash]


def test_the_callers_policy_comes_before_the_active_one_and_that_before_the_files(home):
    active = load_policy(b"policy: active\nrules: []\n", name="a.yml")
    caller = load_policy(b"policy: mine\nrules: []\n", name="b.yml")
    assert home.decide(request())[0]["policy"]["name"] == "refunds"
    home.log.append(
        [
            publish_event(active, "ops", "publish"),
            control_append({"type": "policy_activated", "actor": "ops", "name": "active", "hash": active.policy_hash}),
        ]
    )
    assert home.decide(request())[0]["policy"]["name"] == "active"
    assert decode_trusted(home.agent.decide([request()], caller)[0].canonical)["policy"]["name"] == "mine"
    (named,) = home.decide(request(policy="active"))
    assert named["policy"] == {"name": "active", "version": "0", "hash": active.policy_hash}


def test_control_is_read_to_its_end_before_each_decision(home):
    other = Embedded(home.home, policy())
    for number in range(3):
        home.decide(request())
        other.log.append(
            [control_append({"type": "kill_switch_on", "actor": "ops", "switch_id": f"k{number}", "scope": {}})]
        )
        (record,) = home.decide(request())
        assert record["reason_codes"] == ["KILL_SWITCH"]
        assert record["control"]["version"] == other.log.end("control", 0)
        other.log.append([control_append({"type": "kill_switch_off", "actor": "ops", "switch_id": f"k{number}"})])


@pytest.mark.parametrize(
    ("scope", "denied"),
    [
        ({}, {"refund/acme", "refund/globex", "credit/acme", "credit/globex"}),
        ({"tenant": "acme"}, {"refund/acme", "credit/acme"}),
        ({"action_type": "refund"}, {"refund/acme", "refund/globex"}),
        ({"tenant": "acme", "action_type": "refund"}, {"refund/acme"}),
        ({"policy": "refunds"}, {"refund/acme", "refund/globex", "credit/acme", "credit/globex"}),
        ({"policy": "other"}, set()),
        ({"tenant": "nobody"}, set()),
    ],
)
def test_a_kill_switch_covers_its_scope_and_nothing_else(home, scope, denied):
    home.log.append([control_append({"type": "kill_switch_on", "actor": "ops", "switch_id": "k", "scope": scope})])

    def all_four():
        cases = [(action, tenant) for action in ("refund", "credit") for tenant in ("acme", "globex")]
        return cases, home.decide(*[request(tenant=t, action={"type": a, "amount": 1}) for a, t in cases])

    cases, records = all_four()
    stopped = {f"{a}/{t}" for (a, t), r in zip(cases, records, strict=True) if r["reason_codes"] == ["KILL_SWITCH"]}
    assert stopped == denied
    assert {r["verdict"] for r in records if r["reason_codes"] != ["KILL_SWITCH"]} <= {"ALLOW"}
    home.log.append([control_append({"type": "kill_switch_off", "actor": "ops", "switch_id": "k"})])
    assert {r["verdict"] for r in all_four()[1]} == {"ALLOW"}


def test_a_kill_switch_that_was_sent_twice_is_one_switch(home):
    for why in ("double refunds", "sent again"):
        home.log.append(
            [control_append({"type": "kill_switch_on", "actor": "ops", "switch_id": "k", "why": why, "scope": {}})]
        )
    (record,) = home.decide(request())
    assert [switch["why"] for switch in record["control"]["switches"]] == ["double refunds"]
    home.log.append([control_append({"type": "kill_switch_off", "actor": "ops", "switch_id": "k"})])
    assert home.decide(request())[0]["verdict"] == "ALLOW"


# memory


def test_a_labelled_failure_changes_the_next_similar_decision(remembering):
    (first,) = remembering.decide(request())
    assert first["verdict"] == "ALLOW"
    remembering.label(first["decision_id"], "failure")
    (second,) = remembering.decide(request())
    assert (second["verdict"], second["reason_codes"]) == ("DENY", ["FAILURE_MEMORY_SIMILAR_BLOCK"])
    assert second["memory"]["version"] == 1 and second["memory"]["counted"][0]["memory_id"] == first["decision_id"]
    remembering.label(first["decision_id"], "retracted")
    assert remembering.decide(request())[0]["verdict"] == "ALLOW"


def test_another_tenants_failures_change_nothing(remembering):
    (first,) = remembering.decide(request(tenant="acme"))
    remembering.label(first["decision_id"], "failure", tenant="acme")
    assert remembering.decide(request(tenant="globex"))[0]["verdict"] == "ALLOW"
    assert remembering.decide(request(tenant="acme"))[0]["verdict"] == "DENY"


def test_a_label_by_another_process_counts_at_once(remembering, vectoriser):
    (first,) = remembering.decide(request())
    other = Embedded(remembering.home, policy(WITH_MEMORY), vectoriser=vectoriser)
    other.label(first["decision_id"], "failure")
    assert remembering.decide(request())[0]["verdict"] == "DENY"


def test_labels_are_refused_repeated_or_versioned_densely(remembering):
    (record,) = remembering.decide(request())
    one = record["decision_id"]
    first = remembering.label(one, event_id="e1")
    assert remembering.label(one, event_id="e1") == first, "a retry gives the first event"
    assert isinstance(remembering.label(one, "success", event_id="e1"), BadInput)
    assert isinstance(remembering.label("01ARZ3NDEKTSV4RRFFQ69G5FAV"), NotFound)
    assert isinstance(remembering.label(one, tenant="acme"), NotFound), "another tenant's decision does not exist"
    assert isinstance(remembering.label(one, "failure", should="ALLOW"), BadInput)
    note = remembering.label(one, None, type="note")
    assert (first["version"], note["version"], note["decision"]) == (1, 2, None)
    assert [event["version"] for event in remembering.values("labels")] == [1, 2]
    assert len(remembering.all("label-requests")) == 2, "what was refused leaves nothing"


def test_nothing_that_names_a_person_goes_into_the_memory(remembering):
    asked = request(provenance={"model": "m"}, subject={"type": "user", "id": "jane.doe@example.com"})
    (record,) = remembering.decide(asked)
    event = remembering.label(record["decision_id"])
    assert b"jane.doe" not in encode(event)
    assert "provenance" not in event["decision"]["facts"]


@pytest.mark.parametrize(
    ("setting", "verdict", "codes"),
    [
        ("abstain", "ABSTAIN", ["STORAGE_UNAVAILABLE"]),
        ("escalate", "ESCALATE", ["STORAGE_UNAVAILABLE"]),
        ("policy_only", "ALLOW", ["SMALL"]),
    ],
)
@pytest.mark.parametrize("garbage", [b"this is no database" * 500, b"SQLite format 3\x00" + b"\xff" * 9000])
def test_a_broken_memory_is_an_outage_of_the_memory_only(tmp_path, vectoriser, setting, verdict, codes, garbage):
    (tmp_path / "memory.db").write_bytes(garbage)
    rules = policy(POLICY + f"memory: {{on_unavailable: {setting}}}\n".encode())
    home = Embedded(tmp_path, rules, vectoriser=vectoriser)
    record, denied = home.decide(request("r-1"), request("r-2", risk=0.9))
    assert (record["verdict"], record["reason_codes"]) == (verdict, codes)
    assert (denied["verdict"], denied["reason_codes"]) == ("DENY", ["RISK"]), "trouble never makes a DENY milder"
    assert record["memory"]["available"] is False and record["memory"]["counted"] == []
    assert home.check() == {"decided": 2}, "and such records are stored like any other"
    (tmp_path / "memory.db").unlink()
    assert home.decide(request("r-3"))[0]["verdict"] == "ALLOW", "it is heard of again when it is back"
    assert home.decide(request("r-1")) == [record], "but what was decided stays"


def test_memory_that_breaks_while_open_is_an_outage_too(remembering):
    (first,) = remembering.decide(request())
    remembering.label(first["decision_id"], "failure")
    remembering.decide(request())
    with sqlite3.connect(remembering.home / "memory.db") as db:
        db.execute("DROP TABLE points")
    remembering.label(first["decision_id"], "success", actor="bob")
    (record,) = remembering.decide(request())
    assert (record["verdict"], record["reason_codes"]) == ("ABSTAIN", ["STORAGE_UNAVAILABLE"])
    rebuild_file(remembering.home / "memory.db")
    (record,) = remembering.decide(request())
    assert record["memory"]["available"], "and is opened anew when trouble has passed"
    assert record["verdict"] == "DENY"
    remembering.check()


def test_a_policy_without_memory_never_opens_the_store(home):
    home.decide(request())
    assert not (home.home / "memory.db").exists()


# determinism


def test_deciding_an_offset_again_gives_the_same_bytes(remembering):
    for number in range(3):
        (record,) = remembering.decide(request(amount=100 + number, provenance={"temperature": 1e-7}))
        remembering.label(record["decision_id"], "failure")
    remembering.log.append(
        [control_append({"type": "kill_switch_on", "actor": "o", "switch_id": "k", "scope": {"tenant": "x"}})]
    )
    remembering.decide(request("last", risk=0.9), request("killed", tenant="x"), request("missing", evidence={}))
    control = remembering.agent.control()
    for message in remembering.all("records"):
        record = decode_trusted(message.value)
        place = record["log"]
        (source,) = remembering.log.read("requests", place["partition"], place["offset"], 1)
        position = Position(place["topic"], place["partition"], place["offset"], source.time_ms)
        asked = stored_request(source.value)
        as_then = replace(control, version=record["control"]["version"])
        for _ in range(2):
            again = decide(asked, position, policy(WITH_MEMORY), as_then, recorded(record))
            assert again.canonical == message.value


@settings(max_examples=60)
@given(
    st.sampled_from([0.1, 0.9, 1e-7, 5e-324, 1e21, 0, -0.0, "high", None, True]),
    st.sampled_from([1, 100.0, 99.99, 1e-6, {"value": 5, "currency": "USD"}, {"value": 1e22}]),
    st.dictionaries(st.text(max_size=3), st.one_of(st.floats(-1e9, 1e9), st.text(max_size=4)), max_size=3),
    st.integers(0, 7),
    st.integers(0, 10**9),
)
def test_the_same_arguments_give_the_same_canonical_record(risk, amount, provenance, partition, offset):
    asked = request("r", risk=risk, amount=amount, provenance=provenance)
    position = Position("lumyn.requests", partition, offset, NOW)
    one, other = (decide(asked, position, policy(), ControlState()) for _ in range(2))
    assert one.canonical == other.canonical == encode(one.record)
    assert one.record["record_digest"] == record_digest(decode_trusted(one.canonical))
    assert RECORD.validate_python(decode_trusted(one.canonical))


@pytest.mark.parametrize("small", [1e-6, 2e-6, 9.5e-6])
def test_a_request_read_back_from_the_log_decides_to_the_same_bytes(small):
    asked = request("r", amount=small)
    position = Position("lumyn.requests", 0, 0, NOW)
    first = decide(asked, position, policy(), ControlState())
    again = decide(stored_request(asked.canonical), position, policy(), ControlState())
    assert again.canonical == first.canonical


@pytest.mark.parametrize("odd", [1e22, 2e-6])
def test_a_record_beside_a_neighbour_with_an_odd_amount_is_canonical(remembering, odd):
    (first,) = remembering.decide(request(amount=odd))
    remembering.label(first["decision_id"], "failure", should="DENY")
    (answer,) = remembering.agent.decide([request(amount={})])
    record = decode_trusted(answer.canonical)
    assert record["memory"]["counted"][0]["amount"] == odd
    assert answer.canonical == encode(record)
    assert record["record_digest"] == record_digest(record)


def test_a_document_used_from_a_file_and_published_later_keeps_its_name_and_version(tmp_path):
    from lumyn import decide
    from lumyn.config import LumynConfig
    from lumyn.policy_file import load_policy_file
    from lumyn.wiring import operator_home
    from schemas.errors import PolicyConflict
    from streams.control import check_publishable, publish_event

    path = tmp_path / "p.yml"
    path.write_text("policy: p\nversion: 1.0.0\nrules: []\n")
    config = LumynConfig(home=tmp_path / "home", policy_path=path)
    decide({"subject": {"type": "u", "id": "1"}, "action": {"type": "a"}}, config=config)
    home = operator_home(config)
    home.log.append([publish_event(load_policy_file(path), "me", "publish")])
    path.write_text("policy: p\nversion: 1.0.0\nrules: []\ndescription: another\n")
    with pytest.raises(PolicyConflict):
        check_publishable(home.agent.control(), load_policy_file(path))
