"""Recall, as the decider and the record use it: signals, counted neighbours, and honest silence."""

from __future__ import annotations

import pytest
from memory_model import EPOCH, event
from store_contract import FAILED, WORKED, decision

from memory_service.recall import OFF, Asked, Recall, recorded, unavailable
from memory_service.recaller import Recaller
from memory_service.sqlite_store import SqliteMemoryStore
from schemas.policy import MemorySettings

SETTINGS = MemorySettings()
NOTHING_NEAR = {"failure_rate": None, "lower": 0, "upper": 1, "n_effective": 0}


@pytest.fixture
def store(tmp_path, vectoriser):
    opened = SqliteMemoryStore(tmp_path / "memory.db", vectoriser, EPOCH)
    yield opened
    opened.close()


@pytest.fixture
def recaller(store, vectoriser):
    return Recaller(store, vectoriser, EPOCH)


def request(name="D", **changes):
    told = decision(name, **changes)
    facts = told["decision"]["facts"]
    return {
        "tenant": told["tenant"],
        **facts,
        "action": {**facts["action"], "type": told["decision"]["action_type"]},
    }


def test_where_nothing_is_known_the_signals_are_there_and_say_so(recaller):
    (found,) = recaller.recall([Asked(request(), SETTINGS, 0)])
    assert found.available and found.counted == ()
    assert (
        found.signals["failure_similarity"]
        == found.signals["success_similarity"]
        == {"score": 0, "top_k": []}
    )
    assert found.signals["nearby"] == NOTHING_NEAR
    assert found.signals["uncertainty_score"] == 1


def test_a_recall_names_the_state_that_answered(recaller, vectoriser):
    (found,) = recaller.recall([Asked(request(), SETTINGS, 0)])
    assert (found.mode, found.version, found.epoch, found.vectoriser_id) == ("exact", 0, EPOCH, vectoriser.id)
    assert (found.coverage, found.facts) == (1, 4)


def test_similarity_is_by_label_and_what_counts_is_by_meaning(store, recaller):
    denied = decision("D1", verdict="DENY")
    store.apply([event(1, denied, WORKED, "ann"), event(2, decision("D2", tier="new"), FAILED, "ann")])
    (found,) = recaller.recall([Asked(request(), SETTINGS, 2)])
    assert [hit["memory_id"] for hit in found.signals["success_similarity"]["top_k"]] == ["D1"]
    assert [hit["memory_id"] for hit in found.signals["failure_similarity"]["top_k"]] == ["D2"]
    assert found.nearest("harmful").memory_id == "D1", "a DENY that was right says that allowing is wrong"
    assert found.signals["success_similarity"]["score"] == found.nearest("harmful").score
    assert found.signals["nearby"]["failure_rate"] == 1


def test_scores_by_block_add_up_to_the_score(store, recaller):
    store.apply([event(1, decision("D1", tier="new"), FAILED, "ann")])
    (found,) = recaller.recall([Asked(request(), SETTINGS, 1)])
    (hit,) = found.signals["failure_similarity"]["top_k"]
    assert set(hit["score_by_block"]) == {"text", "categories", "numbers"}
    assert sum(hit["score_by_block"].values()) == pytest.approx(hit["score"], abs=1e-4)


def test_a_batch_is_answered_in_order_each_with_its_own_settings(store, recaller):
    store.apply([event(n, decision(f"D{n}"), FAILED, "ann") for n in range(1, 5)])
    asked = [
        Asked(request(), MemorySettings(top_k=2), 4),
        Asked(request(tenant="globex"), SETTINGS, 4),
        Asked(request(), SETTINGS, 1),
        Asked(request(), SETTINGS, 4, leave_out="D1"),
    ]
    shown = [
        [hit["memory_id"] for hit in found.signals["failure_similarity"]["top_k"]]
        for found in recaller.recall(asked)
    ]
    assert shown == [["D1", "D2"], [], ["D1"], ["D2", "D3", "D4"]]


def test_memory_that_can_not_answer_is_unavailable_for_all_never_empty(store, recaller):
    store.apply([event(1, decision("D1"), FAILED, "ann")])
    assert (
        recaller.recall([Asked(request(), SETTINGS, 1), Asked(request(), SETTINGS, 7)]) == [unavailable()] * 2
    )
    assert recaller.recall([Asked(request(), SETTINGS, 1)])[0].available


def test_memory_that_was_closed_is_unavailable_for_what_it_had_not_read(store, recaller):
    store.apply([event(1, decision("D1"), FAILED, "ann")])
    store.close()
    assert recaller.recall([Asked(request(), SETTINGS, 1)]) == [unavailable()]


def test_rules_see_memory_only_when_it_answered(recaller):
    (found,) = recaller.recall([Asked(request(), SETTINGS, 0)])
    assert found.memory_facts()["nearby"] == NOTHING_NEAR
    assert found.memory_facts()["available"] is True
    assert OFF.memory_facts() is unavailable().memory_facts() is None


@pytest.mark.parametrize("made", [OFF, unavailable()])
def test_no_memory_is_recorded_and_read_back(made):
    assert recorded({"memory": made.as_record(), "risk_signals": made.signals}) == made


def test_a_recall_is_recorded_and_read_back(store, recaller):
    harm, denied = decision("D1", rules=("R1",)), decision("D2", verdict="DENY", rules=("R1", "R2"))
    store.apply([event(1, harm, FAILED, "ann"), event(2, denied, FAILED, "ann")])
    (found,) = recaller.recall([Asked(request(), SETTINGS, 2)])
    assert [hit.role for hit in found.counted] == ["harmful", "harmful_without_text", "fine", "softening"]
    assert recorded({"memory": found.as_record(), "risk_signals": found.signals}) == found
    assert isinstance(found, Recall) and found.in_role("softening")[0].rules == ("R1", "R2")
