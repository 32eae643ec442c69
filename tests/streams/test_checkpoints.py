"""Checkpoints on real logs: what they cover, how their chain holds, and what they prove of a decision."""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import embedded
import pytest
from checkpointed import PARTITIONS, Home, rewritten
from embedded import Embedded

from schemas.canonical import decode_trusted, encode
from schemas.errors import Fenced, IntegrityError
from schemas.limits import MAX_CHECKPOINT_LEAVES
from streams import checkpointer as making
from streams.checkpointer import Checkpointer
from streams.checkpoints import Chain, read_checkpoint, sign
from streams.leaves import GAP, split
from streams.log import Append
from streams.proof import check_proof, prove
from streams.signing import SigningKey

pytest_plugins = ("checkpointed_plugin",)
SHIFT = 48


# Making them


def test_everything_is_covered_once_and_what_comes_later_by_later_ones(home: Home) -> None:
    made = home.checkpoint()
    covered = {one.place: one.statement for one in made}
    assert len(covered) == len(made) == PARTITIONS + 2
    for (topic, partition), statement in covered.items():
        held = [m for m in home.all(topic.removeprefix("lumyn.")) if m.partition == partition]
        assert statement["count"] == len(held)
        assert statement["end"] == held[-1].offset + 1
        assert statement["start"] == (held[0].offset if topic == "lumyn.requests" else 0)
    assert home.checkpoint() == []
    told, summary = home.verify()
    assert told == []
    assert summary.covered == summary.decisions == len(home.all("records"))
    home.decide(embedded.request("later"))
    told, summary = home.verify()
    assert (told, summary.after_last) == ([], 1)
    (more,) = home.checkpoint()
    assert more.statement["count"] == 1
    assert more.statement["number"] == len(made)
    assert more.statement["previous"] == made[-1].digest
    assert home.verify()[1].covered == summary.decisions


def test_control_and_labels_are_covered_first_and_every_later_checkpoint_names_their_state(home: Home) -> None:
    made = home.checkpoint()
    assert [one.place[0] for one in made[:2]] == ["lumyn.control", "lumyn.labels"]
    for one in made[2:]:
        for topic, of in (("control", made[0]), ("labels", made[1])):
            assert one.statement[topic] == {"end": of.statement["end"], "checkpoint": of.digest}


def test_a_gap_is_covered_as_a_gap_and_leaves_stand_at_their_offsets(tmp_path: Path) -> None:
    home = Home(tmp_path, sparse=True)
    home.fill()
    made = [one for one in home.checkpoint() if one.place[0] == "lumyn.requests"]
    for one in made:
        offsets = {m.offset for m in home.all("requests") if m.partition == one.place[1]}
        start, end = one.statement["start"], one.statement["end"]
        filled = {start + at for at, leaf in enumerate(split(one.leaves)) if leaf[:1] != GAP}
        assert filled == offsets
        assert len(filled) < end - start
    home.close()


def test_a_long_range_is_split_into_checkpoints_of_bounded_size(
    home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(making, "MAX_CHECKPOINT_LEAVES", 5)
    made = home.checkpoint()
    assert len(made) > 6
    assert all(0 < len(split(one.leaves)) <= 5 for one in made)
    monkeypatch.undo()
    assert MAX_CHECKPOINT_LEAVES > 5
    told, summary = home.verify()
    assert (told, summary.after_last, summary.never_covered) == ([], 0, 0)
    assert home.checkpoint() == []


def test_an_event_of_the_largest_size_fits_below_the_size_that_brokers_take_by_default(dense: Home) -> None:
    (one, *_) = dense.checkpoint()
    full = sign(one.statement, b"\xff" * 33 * MAX_CHECKPOINT_LEAVES, dense.key)
    assert len(full.as_event()) < 500_000


def test_requests_that_wait_are_not_covered_until_they_are_decided(dense: Home) -> None:
    dense.checkpoint()
    dense.agent.submit([embedded.request("waits")])
    assert dense.checkpoint() == []
    assert dense.verify()[0] == []
    dense.agent.drain()
    (one,) = dense.checkpoint()
    assert one.statement["count"] == 1


def test_an_append_that_never_was_and_one_that_nobody_heard_of_repeat_no_range(home: Home) -> None:
    """Killed before or after the commit: the next run reads the log, and only the log."""
    first = Checkpointer(home.seen, home.key)
    made = first.run()
    home.decide(embedded.request("later"))
    other = Checkpointer(home.seen, home.key)
    more = other.run()
    if home.sparse:
        with pytest.raises(Fenced):
            home.decide(embedded.request("last"))
            first.run()
    else:
        assert first.run() == []
    third = Checkpointer(home.seen, home.key)
    third.run()
    told, summary = home.verify()
    assert (told, summary.after_last) == ([], 0)
    numbers = [read_checkpoint(m).statement["number"] for m in home.all("checkpoints")]
    assert numbers == list(range(len(numbers)))
    assert len(numbers) >= len(made) + len(more)


def race(folder: Path, name: int) -> None:
    """Another process: decide and checkpoint, again and again."""
    home = Embedded(folder, embedded.policy())
    checkpointer = Checkpointer(home.log, SigningKey.load_or_create(folder / "signing.pem"))
    for number in range(12):
        home.decide(embedded.request(f"{name}-{number}"))
        checkpointer.run()
    home.close()


def test_checkpointers_of_several_processes_continue_one_chain(tmp_path: Path) -> None:
    home = Home(tmp_path, sparse=False)
    context = multiprocessing.get_context("spawn")
    processes = [context.Process(target=race, args=(tmp_path, name)) for name in range(3)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(120)
    assert [process.exitcode for process in processes] == [0, 0, 0]
    told, summary = home.verify()
    assert told == []
    assert (summary.decisions, summary.covered) == (36, 36)
    home.close()


def test_what_another_one_appends_at_the_last_moment_is_continued(dense: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    """Between looking and the transaction, another process covers the same range."""
    other = Home(dense.home, sparse=False)
    checkpointer = Checkpointer(dense.log, dense.key)
    begin = dense.log.transaction
    overtaken = []

    def late() -> Any:
        if not overtaken:
            overtaken.extend(other.checkpoint())
        return begin()

    monkeypatch.setattr(dense.log, "transaction", late)
    assert checkpointer.run() == []
    assert len(overtaken) == PARTITIONS + 2
    assert dense.verify()[0] == []
    other.close()


def test_what_is_decided_meanwhile_waits_for_the_next_run_with_the_control_that_it_rests_on(
    dense: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A checkpoint's state of control is never older than what its decisions were made under."""
    begin = dense.log.transaction
    meanwhile: list[Any] = []

    def late() -> Any:
        if not meanwhile:
            meanwhile.append(None)
            dense.log.append([Append("control", dense.all("control")[0].value)])
            meanwhile.extend(dense.decide(embedded.request("meanwhile")))
        return begin()

    monkeypatch.setattr(dense.log, "transaction", late)
    dense.checkpoint()
    assert meanwhile[1]["control"]["version"] == 2
    told, summary = dense.verify()
    assert (told, summary.after_last, summary.events_after_last) == ([], 1, 1)
    dense.checkpoint()
    assert dense.verify()[1].after_last == 0


def test_others_may_write_while_a_range_is_gone_through(dense: Home) -> None:
    """The pace is asked between any two messages, and never while the log is locked: transactions do not nest."""
    asked: list[Any] = []

    def pace() -> None:
        asked.extend(dense.decide(embedded.request(f"meanwhile-{len(asked)}")))

    made = Checkpointer(dense.log, dense.key).run(pace)
    assert len(asked) >= sum(one.statement["count"] for one in made) > 0
    told, summary = dense.verify()
    assert (told, summary.after_last) == ([], len(asked))


def test_a_run_that_is_broken_off_anywhere_is_gone_on_with_by_the_next(dense: Home) -> None:
    class Stopped(Exception):
        pass

    checkpointer = Checkpointer(dense.log, dense.key)
    for most in range(12):
        steps = iter(range(most))

        def pace(steps: Iterator[int] = steps) -> None:
            if next(steps, None) is None:
                raise Stopped

        with pytest.raises(Stopped):
            checkpointer.run(pace)
    checkpointer.run()
    told, summary = dense.verify()
    assert (told, summary.after_last, summary.never_covered) == ([], 0, 0)


def test_a_gap_at_the_seam_of_two_checkpoints_is_covered_too(tmp_path: Path) -> None:
    home = Home(tmp_path, sparse=True)
    home.fill()
    ends = {one.place: one.statement["end"] for one in home.checkpoint()}
    for partition in range(PARTITIONS):
        home.pass_requests(partition, 3)
    home.decide(*(embedded.request(f"later-{n}") for n in range(6)))
    home.sql("DELETE FROM log_requests WHERE value = x'00'")
    more = home.checkpoint()
    assert len(more) == PARTITIONS
    for one in more:
        assert one.statement["start"] == ends[one.place]
        assert [leaf[:1] == GAP for leaf in split(one.leaves)][:4] == [True, True, True, False]
    assert home.verify()[0] == []
    home.close()


def test_a_hole_in_the_embedded_log_is_never_signed(dense: Home) -> None:
    pos = [pos for pos in dense.places("receipts") if pos >> SHIFT == 1][3]
    for topic in ("records", "receipts", "requests"):
        dense.sql(f"DELETE FROM log_{topic} WHERE pos = ?", pos)
    with pytest.raises(IntegrityError, match="what stood here is gone") as caught:
        dense.checkpoint()
    assert caught.value.where == "requests/1/3"
    dense.sql("DELETE FROM log_labels WHERE pos = 2")
    dense.label(dense.values("records")[0]["decision_id"], "success")
    other = SigningKey.load_or_create(dense.home / "other.pem")  # a chain of its own, which begins at 0
    with pytest.raises(IntegrityError) as caught:
        dense.checkpoint(other)
    assert caught.value.where == "labels/0/2"


@pytest.mark.parametrize("what", ["gone", "bytes", "source", "outcome", "lacking", "nowhere", "twice"])
def test_what_is_not_sound_is_not_signed_and_the_rest_is(home: Home, what: str) -> None:
    victims = [pos for pos in home.places("receipts") if pos >> SHIFT == 1]
    pos = victims[3]
    value = home.value("receipts", pos)
    if what == "gone":
        home.sql("DELETE FROM log_receipts WHERE pos = ?", pos)
    elif what == "bytes":
        home.set("receipts", pos, b"{")
    elif what == "source":
        home.set("receipts", pos, {**value, "source": {**value["source"], "topic": "other.requests"}})
    elif what == "outcome":
        home.set("receipts", pos, {**value, "outcome": "allowed"})
    elif what == "lacking":
        home.set("receipts", pos, {name: part for name, part in value.items() if name != "record_digest"})
    elif what == "nowhere":
        value = home.value("receipts", victims[-1])
        home.set("receipts", victims[-1], {**value, "source": {**value["source"], "offset": 10**12}})
    else:
        home.set("receipts", pos, home.value("receipts", victims[2]))
    with pytest.raises(IntegrityError) as caught:
        home.checkpoint()
    assert "/1/" in (caught.value.where or "")
    chain = home.chain()
    assert chain.head("requests", 0)["end"] > 0
    assert chain.head("control", 0)["end"] > 0
    assert chain.head("requests", 1)["end"] == 0


# The chain


def forge(home: Home, change: Callable[[dict[str, Any]], None], key: SigningKey, number: int = 1) -> None:
    """Sign a checkpoint of the log anew after a change of its statement."""
    pos = home.places("checkpoints")[number]
    event = home.value("checkpoints", pos)
    change(event["statement"])
    event["statement"]["key_id"] = key.public.key_id
    event["public_key"], event["signature"] = key.public.text, key.sign(encode(event["statement"]))
    home.set("checkpoints", pos, event)


def test_a_removed_checkpoint_is_missed_wherever_it_stood(home: Home) -> None:
    home.checkpoint()
    places = home.places("checkpoints")
    for number, pos in enumerate(places[:-1]):
        rows = home.rows("checkpoints")
        home.sql("DELETE FROM log_checkpoints WHERE pos = ?", pos)
        told = home.verify()[0]
        assert any(f"checkpoint {number} is gone" in line for line in told), (number, told)
        home.restore(rows)
    home.sql("DELETE FROM log_checkpoints WHERE pos IN (?, ?)", *places[:2])
    assert any("checkpoints 0 to 1 are gone" in line for line in home.verify()[0])


def test_a_cut_tail_shows_as_decisions_that_are_not_covered_and_to_who_kept_the_head(home: Home) -> None:
    home.checkpoint()
    home.decide(embedded.request("later"))
    head = home.checkpoint()[-1]
    known = Chain(home.seen, {home.key.public.key_id}, wanted=head.digest)
    known.catch_up()
    assert known.seen_wanted
    home.sql("DELETE FROM log_checkpoints WHERE pos = ?", home.places("checkpoints")[-1])
    told, summary = home.verify()
    assert (told, summary.after_last) == ([], 1)
    known = Chain(home.seen, {home.key.public.key_id}, wanted=head.digest)
    known.catch_up()
    assert not known.seen_wanted
    home.checkpoint()  # made anew over the same receipts, it is the very same statement
    known.catch_up()
    assert known.seen_wanted


def test_reordered_checkpoints_are_found(home: Home) -> None:
    home.checkpoint()
    one, two = home.places("checkpoints")[1:3]
    values = home.value("checkpoints", one), home.value("checkpoints", two)
    home.set("checkpoints", one, values[1])
    home.set("checkpoints", two, values[0])
    assert any("out of order" in line for line in home.verify()[0])


def test_a_repeated_checkpoint_is_found(home: Home) -> None:
    home.checkpoint()
    home.log.append([Append("checkpoints", home.all("checkpoints")[1].value)])
    assert any("checkpoint 1 stands after checkpoint 3" in line for line in home.verify()[0])


@pytest.mark.parametrize("field", ["root", "end", "start", "count", "previous", "number", "partition", "up_to", "topic"])
def test_an_edited_statement_is_found_by_its_signature(home: Home, field: str) -> None:
    home.checkpoint()
    pos = home.places("checkpoints")[2]
    event = home.value("checkpoints", pos)
    value = event["statement"][field]
    event["statement"][field] = value + 1 if isinstance(value, int) else f"{value}x"
    home.set("checkpoints", pos, event)
    told = home.verify()[0]
    assert any("the signature is not key" in line for line in told), told


def test_a_checkpoint_by_another_key_is_not_believed_and_covers_nothing(home: Home, stranger: SigningKey) -> None:
    home.checkpoint()
    forge(home, lambda statement: None, stranger, number=2)
    told, summary = home.verify()
    assert any(stranger.public.key_id in line and "not trusted" in line for line in told)
    assert any("checkpoint 2 is gone" in line for line in told), "the forged one takes no place in the chain"
    assert summary.after_last > 0
    told, _ = home.verify(chain=home.chain(stranger))
    assert any("does not follow" in line for line in told), "even a trusted key can't replace a link"


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda s: s.update(previous="sha256:" + "0" * 64), "does not follow"),
        (lambda s: s.update(count=s["count"] - 1), "its count is not that of its leaves"),
        (lambda s: s.update(start=s["start"] - 1), "not as many as its offsets"),
        (lambda s: s.update(root="sha256:" + "0" * 64), "not those of the signed root"),
        (lambda s: s.update(control={"end": 0, "checkpoint": None}), "another state of `control`"),
        (lambda s: s.update(labels={"end": 1, "checkpoint": s["root"]}), "another state of `labels`"),
        (lambda s: s.update(number=s["number"] + 3), "checkpoints 3 to 5 are gone"),
    ],
)
def test_not_even_the_homes_own_key_can_sign_a_link_that_does_not_fit(
    home: Home, change: Callable[[dict[str, Any]], None], said: str
) -> None:
    home.checkpoint()
    forge(home, change, home.key, number=3)
    told = home.verify()[0]
    assert any(said in line for line in told), told


def test_a_range_can_not_be_covered_twice(home: Home) -> None:
    last = home.checkpoint()[-1]
    again = sign(
        {**last.statement, "number": last.statement["number"] + 1, "previous": last.digest}, last.leaves, home.key
    )
    home.log.append([Append("checkpoints", again.as_event())])
    assert any("covers offsets that are covered already" in line for line in home.verify()[0])


def test_a_checkpoint_that_names_another_key_than_it_carries_is_not_believed(home: Home, stranger: SigningKey) -> None:
    home.checkpoint()
    pos = home.places("checkpoints")[-1]
    event = home.value("checkpoints", pos)
    event |= {"public_key": stranger.public.text, "signature": stranger.sign(encode(event["statement"]))}
    home.set("checkpoints", pos, event)
    told, _ = home.verify(chain=home.chain(stranger))
    assert any("does not name its own key" in line for line in told)


def test_a_checkpoint_replaced_after_the_chain_was_read_is_refused(home: Home) -> None:
    home.checkpoint()
    chain = home.chain()
    one, two = home.places("checkpoints")[-2:]
    stretch = chain.covering("lumyn.requests", 1, chain.head("requests", 1)["end"] - 1)
    assert stretch is not None
    home.set("checkpoints", two, home.value("checkpoints", one))
    with pytest.raises(IntegrityError, match="another one than before"):
        chain.load(stretch)
    home.sql("DELETE FROM log_checkpoints WHERE pos = ?", two)
    with pytest.raises(IntegrityError, match="is gone"):
        chain.load(stretch)


def test_leaves_that_were_edited_are_found_by_the_root(home: Home) -> None:
    import base64

    home.checkpoint()
    pos = home.places("checkpoints")[2]
    event = home.value("checkpoints", pos)
    leaves = bytearray(base64.b64decode(event["leaves"]))
    leaves[40] ^= 1
    home.set("checkpoints", pos, {**event, "leaves": base64.b64encode(leaves).decode()})
    assert any("not those of the signed root" in line for line in home.verify()[0])


@pytest.mark.parametrize("data", [b"", b"{", b"[]", b"null", b"{}", b"\xff", b'{"statement":{},"leaves":"AA=="}'])
def test_bytes_that_are_no_checkpoint_are_found_and_passed_over(home: Home, data: bytes) -> None:
    home.checkpoint()
    home.log.append([Append("checkpoints", data)])
    told, summary = home.verify()
    assert len(told) == 1 and "not a checkpoint" in told[0], told
    assert summary.after_last == 0
    home.decide(embedded.request("later"))
    (one,) = home.checkpoint()
    assert one.statement["number"] == PARTITIONS + 2, "the chain goes on behind it"


def test_a_forged_tail_does_not_keep_the_true_chain_from_going_on(home: Home, stranger: SigningKey) -> None:
    made = home.checkpoint()
    home.decide(embedded.request("later"))
    last = made[-1].statement
    forged = sign(
        {**last, "number": last["number"] + 1, "previous": made[-1].digest, "start": last["end"], "end": last["end"] + 1,
         "count": 1, "key_id": stranger.public.key_id},
        made[-1].leaves[:33], stranger,
    )  # fmt: skip
    home.log.append([Append("checkpoints", forged.as_event())])
    home.checkpoint()
    told, summary = home.verify()
    assert len(told) == 1 and stranger.public.key_id in told[0]
    assert summary.after_last == 0


# Proofs


def test_every_decision_is_proven_and_no_proof_fits_another(home: Home, stranger: SigningKey) -> None:
    home.checkpoint()
    chain, keys = home.chain(), {home.key.public.key_id}
    records = home.values("records")
    proofs = [prove(chain, record) for record in records]
    for record, proof in zip(records, proofs, strict=True):
        assert proof is not None
        assert check_proof(record, proof, keys).ok
        assert check_proof(record, proof, None).ok
        failed = check_proof(record, proof, {stranger.public.key_id})
        assert not failed.ok and "not trusted" in failed.detail
        for other in records:
            if other is not record:
                assert not check_proof(other, proof, keys).ok
    home.decide(embedded.request("later"))
    (later,) = [r for r in home.values("records") if r["request_id"] == "later"]
    assert prove(home.chain(), later) is None


def test_any_edit_of_a_proof_is_found(dense: Home) -> None:
    from hypothesis import given
    from hypothesis import strategies as st

    dense.checkpoint()
    record = dense.values("records")[3]
    proof = prove(dense.chain(), record)
    assert proof is not None

    def places(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
        items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
        yield from [path] if not isinstance(value, dict | list) else ()
        for key, item in items:
            yield from places(item, (*path, key))

    @given(st.sampled_from(list(places(proof))), st.integers(0, 10**6))
    def edited(path: tuple[Any, ...], noise: int) -> None:
        changed = decode_trusted(encode(proof))
        inner = changed
        for key in path[:-1]:
            inner = inner[key]
        value = inner[path[-1]]
        if isinstance(value, str):
            at = noise % len(value)
            inner[path[-1]] = value[:at] + ("0" if value[at] != "0" else "1") + value[at + 1 :]
        else:
            inner[path[-1]] = 1 + noise if not isinstance(value, int) else value + 1 + noise
        if path == ("schema",):
            return
        assert not check_proof(record, changed, {dense.key.public.key_id}).ok, path

    edited()


def test_a_proof_of_a_rewritten_record_is_refused(home: Home) -> None:
    home.checkpoint()
    pos, receipt_pos = home.decided()[2]
    rewritten(home, pos, receipt_pos, engine="lumyn-engine/0")
    with pytest.raises(IntegrityError, match="signed for another record"):
        prove(home.chain(), home.value("records", pos))
