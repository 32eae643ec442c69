"""What every memory backend must do. A backend's test module subclasses `MemoryStoreContract` with two fixtures:

`store`: an empty store of `EPOCH`, its vectoriser the session's; `reopen`: a function that opens the same storage
again, beside the first.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from effort import examples
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from memory_model import EPOCH, WEIGHTS, Model, event, histories, part, plain, searches, time_of

from memory_service.store import Found, MemoryStore, Search
from memory_service.vectoriser import Vectoriser, query_of
from memory_service.worth import oldest_that_counts
from schemas.errors import MemoryUnavailable

ANN, BEN = "s-" + "a" * 32, "s-" + "b" * 32
FAILED = ("label", "failure", None)
WORKED = ("label", "success", None)
RETRACTED = ("label", "retracted", None)
SAME_STORE = settings(
    max_examples=examples(60),
    suppress_health_check=[
        HealthCheck.function_scoped_fixture,
        HealthCheck.too_slow,
        HealthCheck.differing_executors,
    ]
)


def decision(
    name="D1",
    *,
    tenant="acme",
    action="refund",
    verdict="ALLOW",
    amount=100,
    rules=(),
    intent="late refund",
    tier="gold",
):
    return {
        "decision_id": name,
        "tenant": tenant,
        "decision": {
            "action_type": action,
            "verdict": verdict,
            "rules": list(rules),
            "amount": None,
            "facts": part(intent, tier, amount, 0.1),
        },
    }


class Asker:
    """Tells a store labels and asks it; versions count themselves."""

    def __init__(self, store: MemoryStore, vectoriser: Vectoriser) -> None:
        self.store, self.vectoriser, self.version = store, vectoriser, 0

    def trust(self, labeller: str, much: float, tenant: str = "acme") -> int:
        return self.say(decision(tenant=tenant), ("trust", labeller, much))

    def say(self, told: dict, word: tuple = FAILED, actor: str = "ann") -> int:
        self.version += 1
        self.store.apply([event(self.version, told, word, actor)])
        return self.version

    def search(self, **changes) -> Search:
        asked = part(
            changes.pop("intent", "late refund"), changes.pop("tier", "gold"), changes.get("amount", 100), 0.1
        )
        base = Search(
            tenant="acme",
            action_type="refund",
            version=self.version,
            query=query_of(self.vectoriser.vectorise([asked])[0], WEIGHTS),
            amount=100,
            amount_within=3,
            top_k=5,
            neighbours=64,
        )
        return replace(base, **changes)

    def ask(self, **changes) -> Found:
        return self.store.search([self.search(**changes)])[0]


def ids(hits) -> list[str]:
    return [h.point.memory_id for h in hits]


class MemoryStoreContract:
    """One suite for every backend."""

    @pytest.fixture
    def memory(self, store, vectoriser):
        return Asker(store, vectoriser)

    # the state

    def test_a_new_store_is_empty_and_stands_at_version_0(self, store, vectoriser):
        mark = store.watermark()
        assert (mark.epoch, mark.version, mark.count, mark.vectoriser_id) == (EPOCH, 0, 0, vectoriser.id)
        assert list(store.points()) == []

    def test_a_new_store_finds_nothing_and_says_so_without_error(self, memory):
        assert memory.ask() == Found()
        assert memory.store.search([]) == []

    def test_the_watermark_counts_events_and_points_in_force(self, memory):
        memory.say(decision("A"))
        memory.say(decision("B"))
        memory.say(decision("B"), ("note", None, None))
        memory.say(decision("A"), RETRACTED)
        mark = memory.store.watermark()
        assert (mark.version, mark.count) == (4, 1)

    def test_applying_the_same_events_again_changes_nothing(self, memory):
        events = [event(1, decision("A"), FAILED, "ann"), event(2, decision("B"), WORKED, "ann")]
        memory.store.apply(events)
        memory.version = 2
        before = (memory.store.watermark(), plain(memory.ask()), points_of(memory.store))
        memory.store.apply(events)
        memory.store.apply(events[1:])
        memory.store.apply([])
        assert (memory.store.watermark(), plain(memory.ask()), points_of(memory.store)) == before

    def test_an_overlap_of_old_and_new_events_applies_the_new_ones(self, memory):
        events = [event(n, decision(f"D{n}"), FAILED, "ann") for n in range(1, 5)]
        memory.store.apply(events[:2])
        assert memory.store.apply(events).version == 4
        assert memory.store.watermark().count == 4

    def test_a_gap_is_refused_and_nothing_of_it_is_kept(self, memory):
        memory.say(decision("A"))
        for broken in ([3], [2, 4]):
            with pytest.raises(MemoryUnavailable, match="missing"):
                memory.store.apply([event(n, decision(f"X{n}"), FAILED, "ann") for n in broken])
            assert memory.store.watermark().version == 1
            assert [p.memory_id for p in memory.store.points()] == ["A"]
        memory.say(decision("B"))
        assert (memory.store.watermark().version, memory.store.watermark().count) == (2, 2)

    def test_a_version_above_the_watermark_is_refused_not_answered_short(self, memory):
        memory.say(decision("A"))
        with pytest.raises(MemoryUnavailable):
            memory.ask(version=2)
        assert ids(memory.ask(version=1).failures) == ["A"]

    def test_what_was_applied_is_there_after_reopening(self, memory, reopen):
        memory.say(decision("A"))
        memory.say(decision("B"), WORKED)
        again = Asker(reopen(), memory.vectoriser)
        again.version = 2
        assert again.store.watermark() == memory.store.watermark()
        assert plain(again.ask()) == plain(memory.ask())
        again.say(decision("C"))
        memory.version = 3
        assert ids(memory.ask().failures) == ["A", "C"], "another connection's events are caught up on"

    def test_two_openers_applying_the_same_events_apply_them_once(self, memory, reopen):
        events = [event(n, decision(f"D{n}"), FAILED, "ann") for n in range(1, 4)]
        other = reopen()
        memory.store.apply(events[:2])
        other.apply(events)
        memory.store.apply(events)
        assert memory.store.watermark() == other.watermark()
        assert memory.store.watermark().count == 3

    def test_a_reset_empties_it_for_another_epoch(self, memory):
        memory.say(decision("A"))
        assert memory.ask().harmful is not None
        memory.store.reset("epoch-2")
        mark = memory.store.watermark()
        assert (mark.epoch, mark.version, mark.count) == ("epoch-2", 0, 0)
        with pytest.raises(MemoryUnavailable):
            memory.ask(version=1)
        assert memory.ask(version=0) == Found()

    def test_after_closing_it_is_unavailable_not_empty(self, memory):
        memory.say(decision("A"))
        memory.store.close()
        for question in (
            memory.store.watermark,
            lambda: memory.store.apply([event(2, decision("B"), FAILED, "ann")]),
            lambda: list(memory.store.points()),
            lambda: memory.store.is_remembered("A"),
        ):
            with pytest.raises(MemoryUnavailable):
                question()

    def test_is_remembered_follows_labels_retraction_and_quarantine(self, memory):
        assert not memory.store.is_remembered("A")
        for word, remembered in (
            (FAILED, True), (RETRACTED, False), (WORKED, True), (("quarantine", None, None), False),
            (FAILED, False), (("release", None, None), True),
        ):  # fmt: skip
            memory.say(decision("A"), word)
            assert memory.store.is_remembered("A") is remembered, word

    def test_a_change_closes_the_old_point_and_opens_a_new_one(self, memory):
        memory.say(decision("A"), FAILED)
        memory.say(decision("A"), WORKED)
        (before,), (after,) = memory.store.points(version=1), memory.store.points(version=2)
        assert (before.label, before.meaning, before.from_version) == ("failure", "harmful", 1)
        assert (after.label, after.meaning, after.from_version) == ("success", "fine", 2)
        assert before.to_version == 2 and after.to_version > 2

    def test_points_are_listed_by_id_and_by_tenant(self, memory):
        for name, tenant in (("C", "acme"), ("A", "globex"), ("B", "acme")):
            memory.say(decision(name, tenant=tenant))
        assert [p.memory_id for p in memory.store.points()] == ["A", "B", "C"]
        assert [p.memory_id for p in memory.store.points("acme")] == ["B", "C"]
        assert [p.memory_id for p in memory.store.points("acme", 1)] == ["C"]

    # whom it speaks to

    def test_another_tenants_memory_is_never_recalled(self, memory):
        memory.say(decision("A", tenant="globex"))
        assert memory.ask() == Found()
        assert ids(memory.ask(tenant="globex").failures) == ["A"]

    def test_another_action_types_memory_is_never_recalled(self, memory):
        memory.say(decision("A", action="credit"))
        assert memory.ask() == Found()
        assert ids(memory.ask(action_type="credit").failures) == ["A"]

    def test_asking_between_changes_never_shows_what_was_taken_back(self, memory):
        for word, found in ((FAILED, ["A"]), (RETRACTED, []), (FAILED, ["A"]), (WORKED, [])):
            memory.say(decision("A"), word)
            assert ids(memory.ask().failures) == found, word

    def test_a_decision_can_be_left_out(self, memory):
        memory.say(decision("A"))
        memory.say(decision("B"))
        found = memory.ask(leave_out="A")
        assert ids(found.failures) == [found.harmful.point.memory_id] == ["B"]
        assert found.nearby == ((found.harmful.dot, True),)

    def test_one_batch_answers_each_search_for_itself_and_in_order(self, memory):
        memory.say(decision("A"))
        memory.say(decision("B", tenant="globex"))
        asked = [memory.search(), memory.search(tenant="globex"), memory.search(version=0), memory.search()]
        answers = [ids(found.failures) for found in memory.store.search(asked)]
        assert answers == [["A"], ["B"], [], ["A"]]

    # order and exactness

    def test_equal_scores_are_ordered_by_memory_id(self, memory):
        for name in ("C", "A", "D", "B"):
            memory.say(decision(name))
        found = memory.ask(top_k=3)
        assert ids(found.failures) == ["A", "B", "C"]
        assert found.harmful.point.memory_id == "A"
        assert found.nearby == ((found.harmful.dot, True),) * 4

    def test_nearer_comes_first_whatever_the_id(self, memory):
        memory.say(decision("A", tier="new", intent="send the parcel again"))
        memory.say(decision("Z"))
        found = memory.ask()
        assert ids(found.failures) == ["Z", "A"]
        assert found.failures[0].dot > found.failures[1].dot
        assert all(h.dot == sum(h.dots) for h in found.failures)

    # the amount gate: more money is never safer

    @pytest.mark.parametrize(
        ("remembered", "asked", "counts"),
        [
            (20, 20_000, False),
            (20_000, 20, True),
            (100, 300, True),
            (99.99, 300, False),
            (None, 100, False),
            (100, None, False),
        ],
    )
    def test_a_fine_one_counts_from_a_third_of_the_amount_on(self, memory, remembered, asked, counts):
        memory.say(decision("A", amount=remembered), WORKED)
        assert (memory.ask(amount=asked).fine is not None) is counts

    @pytest.mark.parametrize(
        ("remembered", "asked", "counts"),
        [
            (20, 20_000, True),
            (20_000, 20, False),
            (300, 100, True),
            (300.01, 100, False),
            (None, 100, True),
            (100, None, True),
        ],
    )
    def test_a_harmful_one_counts_up_to_three_times_the_amount(self, memory, remembered, asked, counts):
        memory.say(decision("A", amount=remembered), FAILED)
        assert (memory.ask(amount=asked).harmful is not None) is counts

    def test_failures_successes_and_nearby_are_not_gated(self, memory):
        memory.say(decision("A", amount=20), WORKED)
        memory.say(decision("B", amount=90_000), FAILED)
        found = memory.ask(amount=1000)
        assert found.fine is None and found.harmful is None
        assert ids(found.successes) == ["A"] and ids(found.failures) == ["B"]
        assert sorted(harmful for _, harmful in found.nearby) == [False, True]

    def test_a_failed_denial_softens_only_when_it_is_as_near_as_the_nearest_harm(self, memory):
        memory.say(decision("D", verdict="DENY"), FAILED)
        assert ids(memory.ask().softening) == ["D"]
        memory.say(decision("H", tier="new"), FAILED)
        assert ids(memory.ask().softening) == ["D"]
        assert ids(memory.ask(tier="new").softening) == []

    def test_a_failed_denial_of_less_money_does_not_soften(self, memory):
        memory.say(decision("D", verdict="DENY", amount=20), FAILED)
        assert memory.ask(amount=20_000).softening == ()

    # labellers who disagree

    def test_a_contested_fine_one_neither_supports_nor_softens_until_settled(self, memory):
        memory.say(decision("D", verdict="DENY"), FAILED, "ann")
        memory.say(decision("D", verdict="DENY"), ("label", "failure", "ESCALATE"), "bob")
        memory.say(decision("D", verdict="DENY"), FAILED, "cat")
        assert (memory.ask().fine, memory.ask().softening) == (None, ())
        memory.say(decision("D", verdict="DENY"), ("settle", "failure", None), "boss")
        assert memory.ask().fine.point.memory_id == "D"
        assert ids(memory.ask().softening) == ["D"]

    def test_a_contested_harmful_one_keeps_full_force_whoever_spoke_last(self, memory):
        memory.say(decision("A"), FAILED, "ann")
        memory.say(decision("A"), WORKED, "bob")
        found = memory.ask()
        assert found.harmful.point.contested and found.harmful.point.label == "success"
        assert found.fine is None
        assert ids(found.successes) == ["A"] and found.failures == ()

    def test_one_labeller_who_changes_their_mind_contests_nothing(self, memory):
        memory.say(decision("A"), FAILED, "ann")
        memory.say(decision("A"), WORKED, "ann")
        found = memory.ask()
        assert found.harmful is None and not found.fine.point.contested

    def test_neutral_ones_are_shown_by_label_and_left_out_of_nearby(self, memory):
        memory.say(decision("A", verdict="ESCALATE"), FAILED)
        found = memory.ask()
        assert ids(found.failures) == ["A"]
        assert found.nearby == () and found.harmful is None and found.fine is None

    # forgetting

    def test_a_forgotten_subjects_memories_are_gone_from_every_version(self, memory, store):
        memory.say(of_subject(decision("A"), ANN))
        memory.say(of_subject(decision("B"), BEN))
        memory.say(of_subject(decision("A"), ANN), WORKED)
        assert ids(memory.ask().failures) == ["B"] and ids(memory.ask(version=1).failures) == ["A"]
        memory.version += 1
        store.apply([forget_event(memory.version, ANN)])
        assert [ids(memory.ask(version=v).failures) for v in range(5)] == [[], [], ["B"], ["B"], ["B"]]
        assert [ids(memory.ask(version=v).successes) for v in range(5)] == [[]] * 5
        assert not store.is_remembered("A") and store.is_remembered("B")
        assert (store.watermark().version, store.watermark().count) == (4, 1)

    def test_who_had_the_store_open_meanwhile_forgets_too(self, memory, store, reopen):
        memory.say(of_subject(decision("A"), ANN))
        other = reopen()
        seen = Asker(other, memory.vectoriser)
        seen.version = memory.version
        assert ids(seen.ask().failures) == ["A"]
        store.apply([forget_event(2, ANN)])
        assert ids(seen.ask(version=2).failures) == []
        other.close()

    def test_forgetting_again_or_somebody_unknown_changes_nothing(self, memory, store):
        memory.say(of_subject(decision("A"), ANN))
        memory.say(decision("B"))
        store.apply([forget_event(3, ANN), forget_event(4, ANN), forget_event(5, BEN)])
        memory.version = 5
        assert ids(memory.ask().failures) == ["B"] and store.watermark().count == 1

    @settings(SAME_STORE, max_examples=examples(40))
    @given(data=st.data(), events=histories())
    def test_after_forgetting_all_is_as_if_those_events_had_spoken_of_nothing(self, store, vectoriser, data, events):
        names = sorted({e["decision_id"] for e in events})
        theirs = set(data.draw(st.lists(st.sampled_from(names), unique=True))) if names else set()
        told = [of_subject(e, ANN) if e["decision_id"] in theirs and e["decision"] else e for e in events]
        last = len(events) + 1
        asked = [data.draw(searches(vectoriser, version)) for version in range(last + 1)]
        store.reset(EPOCH)
        store.apply([{**e, "decision": None} if e["decision_id"] in theirs else e for e in events])
        store.apply([forget_event(last, ANN)])
        never, points = [plain(f) for f in store.search(asked)], points_of(store)
        store.reset(EPOCH)
        cut = data.draw(st.integers(0, len(told)))
        store.apply(told[:cut])
        store.apply(told[cut:])
        store.apply([forget_event(last, ANN)])
        assert [plain(f) for f in store.search(asked)] == never
        assert points_of(store) == points
    def test_trust_after_forgetting_reaches_what_is_left(self, memory, store):
        memory.say(of_subject(decision("A"), ANN), FAILED, "bot")
        memory.say(of_subject(decision("B"), BEN), FAILED, "bot")
        memory.version += 1
        store.apply([forget_event(memory.version, ANN)])
        memory.trust("bot", 0.5)
        assert ids(memory.ask().failures) == ["B"] and store.watermark().count == 1
        memory.trust("bot", 0)
        assert ids(memory.ask().failures) == [] and store.watermark().count == 0

    # the trust in a labeller

    def test_a_held_labeller_counts_for_nothing_in_what_he_said_and_in_what_he_says_until_he_is_released(self, memory):
        memory.say(decision("A"), FAILED, "bot")
        memory.say(decision("B"), WORKED, "ann")
        memory.trust("bot", 0)
        memory.say(decision("C"), FAILED, "bot")
        memory.say(decision("B"), FAILED, "bot")
        found = memory.ask()
        assert (found.harmful, ids(found.failures), ids(found.successes)) == (None, [], ["B"])
        assert found.nearby == ((found.fine.dot, False),) and not found.fine.point.contested
        assert memory.store.watermark().count == 1
        assert [memory.store.is_remembered(name) for name in "ABC"] == [False, True, False]
        memory.trust("bot", 1)
        found = memory.ask()
        assert ids(found.failures) == ["A", "B", "C"] and found.fine is None
        assert memory.store.watermark().count == 3

    def test_each_version_has_its_own_trust(self, memory):
        memory.say(decision("A"), FAILED, "bot")
        memory.trust("bot", 0)
        memory.trust("bot", 0.5)
        found = [ids(memory.ask(version=version).failures) for version in range(4)]
        assert found == [[], ["A"], [], ["A"]]
        assert [memory.ask(version=version).worths for version in (1, 3)] == [(), (0.5,)]

    def test_who_is_held_settles_nothing_and_takes_nothing_out(self, memory):
        memory.say(decision("A"), FAILED, "ann")
        memory.say(decision("A"), ("settle", "success", None), "bot")
        memory.say(decision("B"), FAILED, "ann")
        memory.say(decision("B"), ("quarantine", None, None), "bot")
        assert memory.ask().harmful is None
        memory.trust("bot", 0)
        assert ids(memory.ask().failures) == ["A", "B"]
        memory.say(decision("A"), ("quarantine", None, None), "bot")
        assert ids(memory.ask().failures) == ["A", "B"]

    def test_trust_is_of_one_tenant(self, memory):
        memory.say(decision("A"), FAILED, "bot")
        memory.say(decision("B", tenant="globex"), FAILED, "bot")
        memory.trust("bot", 0, "globex")
        assert ids(memory.ask().failures) == ["A"]
        assert memory.ask(tenant="globex") == Found()

    def test_harm_keeps_full_force_at_any_trust_and_a_fine_one_needs_a_half(self, memory):
        memory.say(decision("A"), FAILED, "bot")
        memory.say(decision("B"), WORKED, "bot")
        memory.say(decision("D", verdict="DENY"), FAILED, "bot")
        for much, counts in ((0.5, True), (0.45, False), (0.05, False), (1, True)):
            memory.trust("bot", much)
            found = memory.ask()
            assert found.harmful.point.memory_id == "A"
            assert ((found.fine is not None), ids(found.softening)) == (counts, ["D"] if counts else []), much
            assert found.worths == ((much,) * 3 if much < 1 else ())

    def test_a_labeller_may_be_held_before_he_says_anything(self, memory):
        memory.trust("bot", 0)
        memory.say(decision("A"), FAILED, "bot")
        assert memory.ask() == Found()
        assert memory.store.watermark().count == 0

    def test_many_of_one_labeller_are_held_at_once(self, memory):
        events = [event(n, decision(f"D{n:04}"), FAILED, "bot") for n in range(1, 1101)]
        held = event(1101, decision(), ("trust", "bot", 0), "ann")
        memory.store.apply([*events, held])
        assert (memory.store.watermark().version, memory.store.watermark().count) == (1101, 0)
        memory.store.apply([event(1102, decision(), ("trust", "bot", 0.25), "ann")])
        assert memory.store.watermark().count == 1100
        assert {p.trust for p in memory.store.points()} == {25}

    # age

    def test_a_fine_one_counts_while_it_is_worth_a_half_and_a_harmful_one_for_ever(self, memory):
        said = memory.say(decision("A"), FAILED, "ann")
        memory.say(decision("B"), WORKED, "ann")
        now, half = time_of(memory.version), 10_000
        for age, counts in ((0, True), (half, True), (half + 1, False), (50 * half, False)):
            found = memory.ask(half_life_ms=half, at_ms=now + age)
            assert (found.fine is not None) is counts, age
            assert found.harmful.point.memory_id == "A"
            young = 0.5 ** (age / half)
            wants = (young * 0.5 ** ((now - time_of(said)) / half), young)
            assert found.worths == pytest.approx(wants) if age else found.worths in ((), pytest.approx(wants))
        assert memory.ask(at_ms=now + 10**12).worths == (), "without a half-life nothing ages"

    def test_saying_it_again_makes_it_new(self, memory):
        memory.say(decision("A"), WORKED, "ann")
        for _ in range(5):
            memory.say(decision("Z", tenant="globex"))
        later = time_of(memory.version + 1)
        assert memory.ask(half_life_ms=1000, at_ms=later).fine is None
        memory.say(decision("A"), WORKED, "ann")
        assert memory.ask(half_life_ms=1000, at_ms=later).fine is not None

    def test_less_trust_makes_a_shorter_life(self, memory):
        memory.say(decision("A"), WORKED, "bot")
        memory.trust("bot", 0.7)
        now, half = time_of(1), 1_000_000
        oldest = oldest_that_counts(70, half)
        assert 0 < oldest < half
        assert memory.ask(half_life_ms=half, at_ms=now + oldest).fine is not None
        assert memory.ask(half_life_ms=half, at_ms=now + oldest + 1).fine is None

    def test_what_nearby_is_made_of_is_named_when_asked_for(self, memory):
        for name, word in (("A", FAILED), ("B", WORKED), ("C", FAILED)):
            memory.say(decision(name), word)
        assert memory.ask().named == ()
        found = memory.ask(named=True)
        assert ids(found.named) == ["A", "B", "C"]
        assert [h.dot for h in found.named] == [dot for dot, _ in found.nearby]

    # against the model

    @settings(SAME_STORE, max_examples=examples(150))
    @given(data=st.data(), events=histories())
    def test_every_answer_at_every_version_equals_brute_force(self, store, vectoriser, data, events):
        store.reset(EPOCH)
        cut = data.draw(st.integers(0, len(events)))
        store.apply(events[:cut])
        model = Model(vectoriser, events)
        early = data.draw(searches(vectoriser, cut))
        assert plain(store.search([early])[0]) == model.search(early)
        store.apply(events[cut:])
        asked = [
            data.draw(searches(vectoriser, version)) for version in range(len(events) + 1) for _ in range(2)
        ]
        for search, found in zip(asked, store.search(asked), strict=True):
            assert plain(found) == model.search(search), search

    @SAME_STORE
    @given(events=histories())
    def test_the_points_in_force_at_every_version_equal_the_fold(self, store, vectoriser, events):
        store.reset(EPOCH)
        for one in events:
            store.apply([one])
        model = Model(vectoriser, events)
        for version in range(len(events) + 1):
            for tenant in ("acme", "globex"):
                found = list(store.points(tenant, version))
                wanted = model.known(tenant, None, version)
                assert [
                    (p.memory_id, p.label, p.meaning, p.contested, p.labeller, p.summary, p.trust / 100, p.at_ms)
                    for p in found
                ] == [
                    (k.memory_id, k.label, k.meaning, k.contested, k.labeller, k.summary, k.trust, k.at_ms)
                    for k in wanted
                ]
                assert [(p.verdict, p.rules, p.amount) for p in found] == [
                    (k.verdict, k.rules, k.amount) for k in wanted
                ]
                assert all(np.array_equal(p.vector, k.vector) for p, k in zip(found, wanted, strict=True))

    @settings(SAME_STORE, max_examples=examples(20))
    @given(data=st.data(), events=histories())
    def test_a_rebuild_answers_as_before_at_every_version(self, store, vectoriser, data, events):
        store.reset(EPOCH)
        for one in events:
            store.apply([one])
        asked = [data.draw(searches(vectoriser, version)) for version in range(len(events) + 1)]
        before = [plain(f) for f in store.search(asked)]
        mark, points = store.watermark(), points_of(store)
        store.reset(EPOCH)
        store.apply(events)
        assert [plain(f) for f in store.search(asked)] == before
        assert (store.watermark(), points_of(store)) == (mark, points)


def of_subject(told: dict, subject: str) -> dict:
    """The same, of a decision about a subject."""
    return {**told, "decision": {**told["decision"], "subject": subject}}


def forget_event(version: int, subject: str) -> dict:
    """What the log says of a forgotten subject."""
    told = {"decision_id": "", "tenant": "acme", "decision": None}
    return {**event(version, told, ("forget", None, None), "dpo"), "subject": subject}


def points_of(store: MemoryStore) -> list[tuple]:
    return [
        (p.memory_id, p.label, p.meaning, p.from_version, p.to_version, p.vector.tobytes())
        for p in store.points()
    ]
