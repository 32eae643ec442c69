"""The memory store on Qdrant keeps the contract, on Edge and on a server, and answers as the exact store does.

Its pages are cut by limits and its batches by deaths: here are the histories that make both happen.
"""

from __future__ import annotations

import random
import threading
from dataclasses import replace

import pytest
from effort import examples
from hashing_embedder import Hashing
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from memory_model import EPOCH, TRUSTS, WEIGHTS, event, part, plain, time_of
from store_contract import (
    ANN,
    BEN,
    FAILED,
    RETRACTED,
    WORKED,
    Asker,
    MemoryStoreContract,
    decision,
    forget_event,
    ids,
    of_subject,
)

from memory_service.profile import amount_of, has_comparable_amount
from memory_service.qdrant import memory_search, memory_store
from memory_service.qdrant.engine import EngineError, Filter, Match, NoCollection
from memory_service.qdrant.memory_points import WATERMARK, watermark_point
from memory_service.qdrant.memory_store import QdrantMemoryStore
from memory_service.sqlite_store import SqliteMemoryStore
from memory_service.store import Search, Watermark
from memory_service.vectoriser import Vectoriser, query_of
from schemas.errors import EXIT_UNREACHABLE, MemoryUnavailable


@pytest.fixture
def reopen(place, vectoriser):
    """Opens the store again; each opener has an engine of its own."""

    def again(create=True, wrap=lambda engine: engine, **changes) -> QdrantMemoryStore:
        arguments = {"vectoriser": vectoriser, "epoch": EPOCH, "prefix": place.prefix, **changes}
        return QdrantMemoryStore(wrap(place.open()), create=create, **arguments)

    return again


@pytest.fixture
def store(reopen):
    return reopen()


@pytest.fixture
def exact(tmp_path, vectoriser):
    """The exact store on SQLite, to compare with."""
    store = SqliteMemoryStore(tmp_path / "exact.db", vectoriser, EPOCH)
    yield store
    store.close()


class TestQdrantMemoryStore(MemoryStoreContract):
    """The contract."""


# forgetting


def held(store, collection: str, key: str) -> list[str]:
    """What the points of a collection have at a key."""
    points = store._engine.scroll(collection, None, limit=100).points
    return sorted(p.payload[key] for p in points if key in p.payload)


class _Dies:
    """An engine whose nth write does not happen."""

    def __init__(self, engine, at: int) -> None:
        self._engine, self._left = engine, at

    def __getattr__(self, name):
        found = getattr(self._engine, name)
        if name not in ("upsert", "set_payload", "delete"):
            return found

        def write(*args, **more):
            self._left -= 1
            if self._left < 0:
                raise EngineError("killed")
            return found(*args, **more)

        return write


def test_a_writer_that_dies_while_it_forgets_leaves_nothing_behind(reopen, vectoriser):
    steps = 0
    while True:
        store = reopen()
        store.reset(EPOCH)
        memory = Asker(store, vectoriser)
        memory.say(of_subject(decision("A"), ANN))
        memory.say(of_subject(decision("A"), ANN), WORKED)
        memory.say(of_subject(decision("B"), BEN))
        dying = reopen(wrap=lambda engine, at=steps: _Dies(engine, at))
        try:
            dying.apply([forget_event(4, ANN)])
            died = False
        except MemoryUnavailable:
            died = True
        again = reopen()
        again.apply([forget_event(4, ANN)])
        asker = Asker(again, vectoriser)
        assert [ids(asker.ask(version=v).failures) for v in range(5)] == [[], [], [], ["B"], ["B"]], steps
        assert (again.watermark().version, again.watermark().count) == (4, 1)
        assert held(again, again._memory, "memory_id") == ["B"]
        assert held(again, again._labels, "decision_id") == ["B"]
        assert held(again, again._labels, "forgetting") == []
        for one in (store, dying, again):
            one.close()
        if not died:
            break
        steps += 1
    assert steps >= 5


# as the exact store


WORDS = (FAILED, FAILED, WORKED, ("label", "failure", "ESCALATE"), ("label", "failure", "ALLOW"), RETRACTED)


class Life:
    """Decisions of few kinds, so that many are equally near, and what is said of them; versions count themselves."""

    def __init__(self, seed: int, tenant: str = "acme", start: int = 0) -> None:
        self.random, self.tenant, self.version, self.known = random.Random(seed), tenant, start, []

    def part(self):
        pick = self.random.choice
        made = part(
            pick((None, "late refund", "late refund please", "where is my parcel")),
            pick(("gold", "new")),
            pick((None, 20, 20, 100, 100, 5000)),
            pick((None, 0.1)),
        )
        if "amount" in made["action"] and self.random.random() < 0.2:
            made["action"]["amount"]["currency"] = "EUR"  # which can't be compared
        return made

    def events(self, count: int, again: float = 0.3):
        """That many events, each of a new decision or, with a probability, of one spoken of before."""
        out = []
        for _ in range(count):
            if not self.known or self.random.random() > again:
                name = f"{self.random.randrange(10**6):06}-{len(self.known)}-{self.tenant}"
                made = decision(
                    name,
                    tenant=self.tenant,
                    verdict=self.random.choice(("ALLOW", "ALLOW", "DENY", "DENY", "ESCALATE")),
                )
                made["decision"]["facts"] = self.part()
                self.known.append(made)
                told = made
            else:
                told = self.random.choice(self.known)
            self.version += 1
            trusted = self.random.random() < min(0.3, 8 / count)  # each may change all that was said before
            word = self.random.choice(TRUSTS if trusted else WORDS)
            out.append(event(self.version, told, word, self.random.choice(("ann", "bob"))))
        return out

    def searches(self, vectoriser: Vectoriser, count: int, earliest: int = 0, newest: int | None = None):
        pick, newest = self.random.choice, self.version if newest is None else newest
        out = []
        for _ in range(count):
            asked = self.part()
            weights = pick((WEIGHTS, {"text": 0, "categories": 1, "numbers": 0.5}))
            out.append(
                Search(
                    tenant=self.tenant,
                    action_type="refund",
                    version=pick((newest, newest, self.random.randint(earliest, newest))),
                    query=query_of(vectoriser.vectorise([asked])[0], weights),
                    amount=amount_of(asked),
                    amount_within=pick((1, 3)),
                    top_k=pick((1, 2, 5)),
                    neighbours=pick((1, 2, 5, 20, 64)),
                    leave_out=pick((None, None, pick(self.known)["decision_id"])),
                    comparable=has_comparable_amount(asked),
                    half_life_ms=pick((None, 86_400_000, 5 * 86_400_000 + 1)),
                    at_ms=time_of(newest) + pick((0, 3_600_000, 10**9)),
                    named=pick((False, True)),
                )
            )
        return out


def assert_same(store, exact, searches) -> None:
    for search, found, wanted in zip(searches, store.search(searches), exact.search(searches), strict=True):
        assert plain(found) == plain(wanted), search


def everything(store, version=None):
    return [
        (p.memory_id, p.from_version, p.to_version, p.label, p.meaning, p.contested, p.labeller, p.summary, p.amount)
        for p in store.points(version=version)
    ]  # fmt: skip


def test_it_answers_as_the_exact_store_where_limits_cut_through_equal_scores(store, exact, vectoriser, monkeypatch):
    version = 0

    @settings(max_examples=examples(60), suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
    @given(
        seed=st.integers(0, 2**32), count=st.integers(1, 120), spare=st.sampled_from((0, 1, 16)), again=st.floats(0, 1)
    )  # fmt: skip
    def compare(seed, count, spare, again):
        nonlocal version
        monkeypatch.setattr(memory_search, "_SPARE", spare)
        life = Life(seed, f"tenant-{version}", version)
        events = life.events(count, again)
        store.apply(events)
        exact.apply(events)
        assert_same(store, exact, life.searches(vectoriser, 30, earliest=version))
        version = life.version

    compare()
    assert store.watermark().version == exact.watermark().version
    assert store.watermark().count == exact.watermark().count
    assert everything(store) == everything(exact)


@pytest.mark.parametrize("text_dims", [3, 384, 1024])
def test_texts_of_other_dimensions_are_answered_as_by_the_exact_store(reopen, tmp_path, text_dims):
    vectoriser = Vectoriser(Hashing(text_dims))
    store, exact = reopen(vectoriser=vectoriser), SqliteMemoryStore(tmp_path / "exact.db", vectoriser, EPOCH)
    life = Life(text_dims)
    events = life.events(80)
    store.apply(events)
    exact.apply(events)
    assert_same(store, exact, life.searches(vectoriser, 40))
    assert everything(reopen(vectoriser=vectoriser)) == everything(exact)
    exact.close()


def test_a_thousand_equal_ones_are_told_apart_by_their_ids(store, exact, vectoriser):
    many = [decision(f"{k * 7919 % 1000:04}", verdict=("ALLOW", "DENY")[k % 2]) for k in range(1000)]
    events = [event(k + 1, one, (FAILED, WORKED)[k % 3 == 0], "ann") for k, one in enumerate(many)]
    store.apply(events)
    exact.apply(events)
    asker = Asker(store, vectoriser)
    asker.version = 1000
    asked = [asker.search(neighbours=n, top_k=5, leave_out=out) for n in (3, 200) for out in (None, "0001")]
    assert_same(store, exact, asked)
    found = store.search(asked)[0]
    assert [h.point.memory_id for h in found.failures] == sorted(h.point.memory_id for h in found.failures)
    assert len(found.softening) == 16


def test_a_hit_carries_its_whole_point(store, exact, vectoriser):
    life = Life(5)
    events = life.events(60)
    store.apply(events)
    exact.apply(events)
    asked = life.searches(vectoriser, 20, newest=life.version)
    for found, wanted in zip(store.search(asked), exact.search(asked), strict=True):
        for ours, theirs in zip(found.failures + found.softening, wanted.failures + wanted.softening, strict=True):
            assert replace(ours.point, vector=None, to_version=0) == replace(theirs.point, vector=None, to_version=0)


def test_what_it_keeps_of_points_is_bounded_and_answers_stay_the_same(store, exact, vectoriser):
    life = Life(9)
    events = life.events(120)
    store.apply(events)
    exact.apply(events)
    store._cache._most, store._cache._most_whole = 10, 4
    for _ in range(4):
        assert_same(store, exact, life.searches(vectoriser, 8))
    assert len(store._cache._known) <= 120 and len(store._cache._whole) <= 120


def test_equal_searches_of_one_batch_are_asked_once(store, vectoriser, monkeypatch):
    store.apply(Life(3).events(30))
    asker = Asker(store, vectoriser)
    asker.version = 30
    asked = []
    real = store._engine.query_batch
    monkeypatch.setattr(store._engine, "query_batch", lambda c, q: asked.append(len(q)) or real(c, q))
    found = store.search([asker.search() for _ in range(10)])
    assert all(plain(one) == plain(found[0]) for one in found)
    assert max(asked) <= 4, "two first looks and the watermark, or what they left open"


def test_searches_of_one_batch_that_differ_in_anything_are_asked_apart(store, exact, vectoriser):
    life = Life(29)
    events = life.events(150)
    store.apply(events)
    exact.apply(events)
    asker = Asker(store, vectoriser)
    asker.version = 150
    one = asker.search(amount=100)
    without = query_of(vectoriser.vectorise([part("late refund", "gold", 100, 0.1)])[0], {**WEIGHTS, "text": 0})
    changes = (
        {"amount": 20},
        {"amount": None},
        {"amount": None, "comparable": False},
        {"amount_within": 60},
        {"top_k": 1},
        {"neighbours": 3},
        {"leave_out": life.known[0]["decision_id"]},
        {"version": 75},
        {"tenant": "nobody"},
        {"action_type": "credit"},
        {"query": without},
        {"query": replace(one.query, without_text=None)},
    )
    asked = [one, *(replace(one, **change) for change in changes)]
    assert_same(store, exact, asked)
    answers = [str(plain(found)) for found in exact.search(asked)]
    assert all(answer != answers[0] for answer in answers[1:3]), "the amounts make a difference here"


# a writer that dies


class Died(BaseException):
    """The process is gone."""


class Dying:
    """An engine whose process dies at its n-th write: before it, or in the middle of it."""

    def __init__(self, engine, writes: int, torn: bool) -> None:
        self._engine, self._left, self._torn = engine, writes, torn

    def __getattr__(self, name):
        return getattr(self._engine, name)

    def upsert(self, collection, points, only_if=None):
        if self._left == 0 and self._torn:
            self._engine.upsert(collection, points[: (len(points) + 1) // 2], only_if)
        self._step()
        self._engine.upsert(collection, points, only_if)

    def ensure_collection(self, collection, vector_size, indexes):
        self._step()
        self._engine.ensure_collection(collection, vector_size, indexes)

    def delete(self, collection, which):
        self._step()
        self._engine.delete(collection, which)

    def drop_collection(self, collection):
        self._step()
        self._engine.drop_collection(collection)

    def _step(self) -> None:
        if self._left == 0:
            raise Died
        self._left -= 1


def test_a_writer_may_die_at_any_step_and_nobody_sees_half_of_it(reopen, exact, vectoriser, monkeypatch):
    monkeypatch.setattr(memory_store, "_BATCH", 4)
    reopen()
    life, reader = Life(11), reopen(create=False)
    deaths = 0
    for torn in (False, True):
        for writes in range(8):
            before, events = life.version, life.events(10, again=0.6)
            dying = reopen(create=False, wrap=lambda e, w=writes, t=torn: Dying(e, w, t))
            try:
                dying.apply(events)
            except Died:
                deaths += 1
            stands = reader.watermark().version
            assert before <= stands <= life.version
            exact.apply(events[: stands - before])
            assert reader.watermark().count == exact.watermark().count
            assert everything(reader) == everything(exact)
            assert_same(reader, exact, life.searches(vectoriser, 6, newest=stands))
            if stands < life.version:
                with pytest.raises(MemoryUnavailable, match="stands at"):
                    reader.search(life.searches(vectoriser, 9))

            # the next one goes on from the watermark, with batches of other sizes
            monkeypatch.setattr(memory_store, "_BATCH", life.random.choice((1, 3, 4, 512)))
            reopen().apply(events)
            monkeypatch.setattr(memory_store, "_BATCH", 4)
            exact.apply(events)
            assert reader.watermark() == exact.watermark()
            assert everything(reader) == everything(exact)
            assert_same(reader, exact, life.searches(vectoriser, 12, earliest=before))
            for name in {e["decision_id"] for e in events}:
                assert reader.is_remembered(name) == exact.is_remembered(name)
    assert deaths == 16


def test_a_death_while_the_store_is_emptied_leaves_the_old_one_or_none(reopen):
    """delete the watermark, drop twice, make twice, head, watermark: whatever was done, it can be done again."""
    for step in range(8):
        reopen(create=False).reset(EPOCH)
        reopen().apply(Life(1).events(3))
        dying = reopen(create=False, wrap=lambda e, s=step: Dying(e, s, False))
        worker = reopen(create=False)
        if step < 7:
            with pytest.raises(Died):
                dying.reset(EPOCH)
        else:
            dying.reset(EPOCH)
        if step in (0, 7):
            assert worker.watermark().version == {0: 3, 7: 0}[step]
        else:
            refused(worker.watermark, "watermark|collection")
    reopen(create=False).reset(EPOCH)
    assert reopen().apply(Life(1).events(3)).version == 3


def test_a_death_while_the_store_is_made_is_made_good_by_the_next_opener(place, reopen):
    for step in range(6):
        engine = place.open()
        for name in ("memory", "memory-labels"):
            engine.drop_collection(f"{place.prefix}-{name}")
        with pytest.raises(Died):
            reopen(wrap=lambda e, s=step: Dying(e, s, False))
        refused(reopen(create=False).watermark, "watermark|collection")
        assert reopen().apply(Life(1).events(3)).version == 3


class Late:
    """An engine whose caller is held up before its n-th write, while something else happens."""

    def __init__(self, engine, writes: int, meanwhile) -> None:
        self._engine, self._left, self._meanwhile = engine, writes, meanwhile

    def __getattr__(self, name):
        return getattr(self._engine, name)

    def upsert(self, collection, points, only_if=None):
        if self._left == 0:
            self._meanwhile()
        self._left -= 1
        self._engine.upsert(collection, points, only_if)


def test_a_writer_that_was_replaced_and_comes_back_undoes_nothing(reopen, exact, vectoriser, monkeypatch):
    monkeypatch.setattr(memory_store, "_BATCH", 4)
    reader, life = reopen(), Life(17)
    for writes in range(6):
        before, events = life.version, life.events(14, again=0.7)
        successor = reopen()
        late = reopen(wrap=lambda e, w=writes, s=successor, ev=events: Late(e, w, lambda: s.apply(ev)))
        late.apply(events[:8])
        exact.apply(events)
        assert reader.watermark() == exact.watermark()
        assert everything(reader) == everything(exact)
        assert_same(reader, exact, life.searches(vectoriser, 12, earliest=before))
        more = life.events(5, again=0.9)
        successor.apply(more)
        exact.apply(more)
        assert everything(reader) == everything(exact)


# a memory that is not what it was


@pytest.fixture
def filled(store):
    """A store of 40 events."""
    store.apply(Life(21).events(40))
    return store


def asks(store, vectoriser, version=40):
    return lambda: Asker(store, vectoriser).ask(version=version)


def refused(question, match: str, help: str | None = "lumyn memory rebuild") -> None:
    with pytest.raises(MemoryUnavailable, match=match) as caught:
        question()
    assert caught.value.exit_code == EXIT_UNREACHABLE
    assert caught.value.where
    if help is not None:
        assert help in caught.value.help


def put_watermark(place, **changes) -> None:
    mark = Watermark(EPOCH, 40, 0, "none")
    engine = place.open()
    name = f"{place.prefix}-memory"
    (found,) = engine.retrieve(name, [WATERMARK])
    point = watermark_point(mark, 448)
    engine.upsert(name, [replace(point, payload={**found.payload, **changes})])


@pytest.mark.parametrize(
    ("changes", "match"),
    [
        ({"epoch": "epoch-2"}, "epoch `epoch-2`, not `epoch-1`"),
        ({"vectoriser_id": "other/1"}, "vectoriser_id `other/1`, not"),
        ({"layout": 99}, "layout `99`, not `2`"),
        ({"version": 39}, "an older copy was put back"),
        ({"version": "many"}, "no readable watermark"),
        ({"count": None}, "no readable watermark"),
    ],
)
def test_a_watermark_of_something_else_is_refused_while_running_and_when_opening(
    place, filled, reopen, vectoriser, changes, match
):
    asks(filled, vectoriser)()
    put_watermark(place, **changes)
    for question in (asks(filled, vectoriser), filled.watermark, filled.version, lambda: filled.apply([])):
        refused(question, match)
    if changes != {"version": 39}:
        refused(reopen(create=False).watermark, match)
        refused(reopen, match)


def test_a_memory_of_another_epoch_or_vectoriser_is_not_opened(filled, reopen, embedder):
    class OtherName:
        id, dimensions, embed = "other/1", embedder.dimensions, embedder.embed

    refused(lambda: reopen(epoch="epoch-2"), "epoch `epoch-1`, not `epoch-2`")
    refused(lambda: reopen(vectoriser=Vectoriser(OtherName())), "vectoriser_id")


def test_an_emptied_memory_is_noticed_at_the_next_search_and_when_opening(place, filled, reopen, vectoriser):
    question = asks(filled, vectoriser)
    question()
    engine = place.open()
    engine.drop_collection(f"{place.prefix}-memory")
    engine.drop_collection(f"{place.prefix}-memory-labels")
    refused(question, "collection")
    refused(filled.watermark, "collection")
    refused(lambda: filled.apply([]), "collection")
    refused(lambda: filled.is_remembered("A"), "collection")
    refused(lambda: list(filled.points()), "collection")
    refused(reopen(create=False).watermark, "collection")
    refused(asks(reopen(create=False), vectoriser, version=0), "collection")


def test_an_emptied_memory_begun_anew_is_older_than_seen_until_it_has_caught_up(
    place, filled, reopen, exact, vectoriser
):
    question = asks(filled, vectoriser)
    before = plain(question())
    engine = place.open()
    engine.drop_collection(f"{place.prefix}-memory")
    writer = reopen()
    assert writer.watermark().version == 0
    events = Life(21).events(40)
    for start in range(0, 40, 10):
        refused(question, "older copy")
        writer.apply(events[start : start + 10])
    assert plain(question()) == before
    exact.apply(events)
    assert everything(filled) == everything(exact)


def test_points_that_went_missing_are_noticed_by_their_count(place, filled, reopen, vectoriser):
    asks(filled, vectoriser)()
    engine, name = place.open(), f"{place.prefix}-memory"
    first = next(filled.points())
    gone = Filter(must=(Match("from_version", first.from_version), Match("memory_id", first.memory_id)))
    assert engine.count(name, gone) == 1
    engine.delete(name, gone)
    refused(filled.watermark, "points in force, its watermark says")
    refused(asks(filled, vectoriser), "points in force, its watermark says")
    refused(asks(reopen(create=False), vectoriser), "points in force, its watermark says")
    refused(reopen, "points in force, its watermark says")


def test_points_without_a_watermark_are_refused_not_begun_anew(place, filled, reopen, vectoriser):
    place.open().delete(f"{place.prefix}-memory", [WATERMARK])
    refused(reopen, "has points, but no watermark")
    refused(asks(filled, vectoriser), "no watermark")
    filled.reset(EPOCH)
    assert filled.apply(Life(21).events(40)).version == 40


def test_labels_that_went_missing_stop_the_writer(place, filled, reopen):
    more = Life(22, start=40).events(3)
    place.open().drop_collection(f"{place.prefix}-memory-labels")
    refused(lambda: filled.apply(more), "collection")
    writer = reopen()
    refused(lambda: writer.apply(more), "not all there")
    refused(lambda: writer.is_remembered("A"), "not all there")
    assert writer.watermark().version == 40


def test_labels_of_an_older_or_a_newer_copy_stop_the_writer_or_do_no_harm(place, store, reopen, exact, vectoriser):
    """The collections put back from copies of different times: found out, or made good by going on."""
    life = Life(23)
    early, late = life.events(20, again=0.5), life.events(20, again=0.9)
    engine, labels = place.open(), f"{place.prefix}-memory-labels"
    store.apply(early)
    old = engine.scroll(labels, limit=1000).points
    store.apply(late)
    new = engine.scroll(labels, limit=1000).points

    engine.delete(labels, Filter())
    engine.upsert(labels, old)
    refused(lambda: reopen().apply(life.events(1)), "not all there")

    # labels of version 40 beside a memory of version 20
    store.reset(EPOCH)
    store.apply(early)
    engine.delete(labels, Filter())
    engine.upsert(labels, new)
    try:
        reopen().apply(late)
    except MemoryUnavailable as error:
        assert "after 20" in str(error) and "lumyn memory rebuild" in error.help
    else:
        exact.apply(early + late)
        assert everything(store) == everything(exact)


def test_content_that_can_not_be_read_is_unavailable_not_empty(place, filled, reopen, vectoriser):
    engine, name = place.open(), f"{place.prefix}-memory"
    everyone = Filter(must=(Match("tenant", "acme"),))
    for damage in ({"body": "{"}, {"body": 7}, {"body": "{}"}):
        engine.set_payload(name, [(everyone, damage)])
        refused(asks(reopen(create=False), vectoriser), "can't answer", help=None)
        refused(lambda: list(reopen(create=False).points()), "can't answer", help=None)


def test_more_points_than_there_can_be_are_refused_not_asked_for_again_and_again(store, vectoriser):
    store.apply([event(k + 1, decision(f"D{k:03}"), FAILED, "ann") for k in range(100)])
    store._mark.seen = replace(store._mark.seen, count=50)
    question = Asker(store, vectoriser)
    question.version = 100
    refused(lambda: question.ask(neighbours=60), "more points in force")


def test_scores_that_are_not_exact_are_refused(filled, vectoriser, monkeypatch):
    """As they would be from a quantized collection, or one of another distance."""
    real = filled._engine.query_batch

    def off_by_one(collection, queries):
        answers = real(collection, queries)
        return [*(replace(a, scores=[s + 1 for s in a.scores]) for a in answers[:-1]), answers[-1]]

    monkeypatch.setattr(filled._engine, "query_batch", off_by_one)
    refused(asks(filled, vectoriser), "not exact")


# workers and the label agent


def test_a_worker_finds_no_memory_instead_of_making_one(place, reopen, vectoriser):
    worker = reopen(create=False)
    refused(worker.watermark, "collection")
    refused(asks(worker, vectoriser, version=0), "collection")
    assert not place.open().exists(f"{place.prefix}-memory")
    reopen().apply(Life(2).events(5))
    assert worker.watermark().version == 5, "and finds it once it is there"


def test_a_worker_is_made_without_asking_the_engine(vectoriser):
    class Untouched:
        def __getattr__(self, name):
            raise AssertionError(name)

    QdrantMemoryStore(Untouched(), vectoriser, EPOCH)


def test_a_beat_renews_the_time_and_nothing_else(store, reopen):
    worker = reopen(create=False)
    assert store.watermark().at_ms is None
    store.apply(Life(2).events(5))
    before = store.watermark()
    assert before.at_ms is None, "applying vouches for nothing: there may be more to apply"
    assert store.beat(1_700_000_000_000) == replace(before, at_ms=1_700_000_000_000) == worker.watermark()
    assert store.beat(1_600_000_000_000).at_ms == 1_700_000_000_000, "time does not go back"
    after = store.apply(Life(4, start=5).events(2))
    assert (after.version, after.at_ms) == (7, 1_700_000_000_000)
    store.reset(EPOCH)
    assert store.watermark().at_ms is None


def test_an_event_that_can_not_be_read_leaves_its_batch_out(store):
    broken = event(3, decision("C"), FAILED, "ann")
    broken["decision"] = {**broken["decision"], "facts": {"action": 7}}
    events = [event(1, decision("A"), FAILED, "ann"), event(2, decision("B"), FAILED, "ann"), broken]
    with pytest.raises(MemoryUnavailable):
        store.apply(events)
    assert (store.watermark().version, store.watermark().count) == (0, 0)


def test_threads_may_apply_and_search_at_once(store, reopen, vectoriser):
    events = [event(n, decision(f"D{n:03}"), FAILED, "ann") for n in range(1, 121)]
    worker, faults = reopen(create=False), []

    def read() -> None:
        try:
            for _ in range(30):
                version = worker.version()
                found = Asker(worker, vectoriser).ask(version=version, neighbours=500)
                assert len(found.nearby) == version
        except BaseException as error:
            faults.append(error)

    threads = [threading.Thread(target=read) for _ in range(3)]
    for thread in threads:
        thread.start()
    for start in range(0, 120, 20):
        store.apply(events[start : start + 20])
    for thread in threads:
        thread.join()
    assert not faults, faults[0]


class Overtaken:
    """An engine whose answers come back after something else happened."""

    def __init__(self, engine) -> None:
        self._engine, self.meanwhile = engine, None

    def __getattr__(self, name):
        real = getattr(self._engine, name)
        if name not in ("retrieve", "query_batch"):
            return real

        def answer(*arguments, **options):
            found, meanwhile = real(*arguments, **options), self.meanwhile
            self.meanwhile = None
            if meanwhile is not None:
                meanwhile()
            return found

        return answer


@pytest.mark.parametrize("ask", ["version", "search"])
def test_an_answer_overtaken_by_a_newer_one_is_no_older_copy(store, reopen, vectoriser, ask):
    """Two threads of one worker: the one that asked first hears last."""
    events, worker = Life(2).events(20), reopen(create=False, wrap=Overtaken)
    store.apply(events[:10])
    assert worker.version() == 10

    def another_thread() -> None:
        store.apply(events)
        assert worker.version() == 20

    worker._engine.meanwhile = another_thread
    if ask == "version":
        assert worker.version() == 10
    else:
        asks(worker, vectoriser, version=10)()
    assert worker._engine.meanwhile is None
    assert worker._mark.seen.version == 20, "and what was seen does not go back"


def test_the_collections_bear_the_prefix_and_nothing_else_is_touched(place, reopen):
    other = reopen(prefix=f"{place.prefix}-points")
    other.apply(Life(2).events(3))
    reopen().reset("epoch-2")
    assert other.watermark().version == 3
    engine = place.open()
    for name in ("memory", "memory-labels"):
        assert engine.exists(f"{place.prefix}-{name}")
        engine.drop_collection(f"{place.prefix}-points-{name}")
    with pytest.raises(NoCollection):
        engine.count(f"{place.prefix}-points-memory")
