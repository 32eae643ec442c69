"""What a label means, and which labels contradict themselves."""

from __future__ import annotations

import itertools

import pytest

from schemas.errors import EXIT_USAGE, BadInput
from schemas.label import EVENT, key_of, labellers_of, meaning_of, speaks_of_labeller, trust_of
from schemas.label_check import check_label, check_label_form
from schemas.limits import MAX_TEXT

VERDICTS = ("ALLOW", "DENY", "ESCALATE", "ABSTAIN")
SHOULDS = (None, "ALLOW", "DENY", "ESCALATE")

# CONTRACTS, Meaning: failed ALLOW, or DENY that was right = harmful; ALLOW that was right, or failed DENY = fine;
# a bare label on ESCALATE or ABSTAIN = neutral; a failed ALLOW is harmful whatever `should` says.
MEANING = {
    ("ALLOW", "failure", None): "harmful",
    ("ALLOW", "failure", "DENY"): "harmful",
    ("ALLOW", "failure", "ESCALATE"): "harmful",
    ("ALLOW", "success", None): "fine",
    ("ALLOW", "success", "ALLOW"): "fine",
    ("DENY", "failure", None): "fine",
    ("DENY", "failure", "ALLOW"): "fine",
    ("DENY", "failure", "ESCALATE"): "neutral",
    ("DENY", "success", None): "harmful",
    ("DENY", "success", "DENY"): "harmful",
    ("ESCALATE", "failure", None): "neutral",
    ("ESCALATE", "failure", "ALLOW"): "fine",
    ("ESCALATE", "failure", "DENY"): "harmful",
    ("ESCALATE", "success", None): "neutral",
    ("ESCALATE", "success", "ESCALATE"): "neutral",
    ("ABSTAIN", "failure", None): "neutral",
    ("ABSTAIN", "failure", "ALLOW"): "fine",
    ("ABSTAIN", "failure", "DENY"): "harmful",
    ("ABSTAIN", "failure", "ESCALATE"): "neutral",
    ("ABSTAIN", "success", None): "neutral",
}
ALL = list(itertools.product(VERDICTS, ("failure", "success"), SHOULDS))


def request(**changes):
    base = {
        "event_id": "e1",
        "decision_id": "01ARZ3NDEKTSV4RRFFQ69G5FAV",
        "tenant": "default",
        "type": "label",
        "label": "failure",
        "summary": "chargeback",
        "actor": "ops",
    }
    return {k: v for k, v in {**base, **changes}.items() if v is not ...}


@pytest.mark.parametrize(("case", "meaning"), MEANING.items())
def test_a_label_means_what_the_contract_says(case, meaning):
    assert meaning_of(*case) == meaning


@pytest.mark.parametrize("case", ALL, ids=str)
def test_a_pair_is_either_in_the_table_or_refused_as_contradictory(case):
    verdict, label, should = case
    asked = request(label=label, should=should)
    if case in MEANING:
        check_label(asked, verdict)
    else:
        with pytest.raises(BadInput, match="`should` can't be") as caught:
            check_label(asked, verdict)
        assert caught.value.exit_code == EXIT_USAGE
        assert caught.value.help


def test_a_failed_allow_is_harmful_whatever_should_says():
    assert {meaning_of("ALLOW", "failure", should) for should in SHOULDS} == {"harmful"}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"label": None}, "`label` is missing"),
        ({"label": ...}, "`label` is missing"),
        ({"type": "settle", "label": ...}, "`label` is missing"),
        ({"label": "bad"}, "`label`"),
        ({"label": "retracted", "should": "DENY"}, "failure or success only"),
        ({"type": "note", "label": ..., "should": "DENY"}, "failure or success only"),
        ({"should": "ABSTAIN"}, "`should`"),
        ({"type": "delete"}, "`type`"),
        ({"summary": "x" * (MAX_TEXT + 1)}, f"{MAX_TEXT + 1} characters"),
        ({"summary": 7}, "`summary`"),
        ({"actor": ...}, "`actor`"),
        ({"actor": None}, "`actor`"),
        ({"verdict": "ALLOW"}, "`verdict`"),
    ],
)
def test_a_malformed_label_is_refused_by_its_field(changes, message):
    with pytest.raises(BadInput) as caught:
        check_label(request(**changes), "ALLOW")
    assert message in caught.value.message
    assert "\n" not in caught.value.message


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"label": "retracted"},
        {"type": "note", "label": ...},
        {"type": "quarantine", "label": ...},
        {"type": "release", "label": None},
        {"type": "settle", "label": "success"},
        {"summary": "x" * MAX_TEXT},
        {"job": "j1"},
    ],
)
def test_a_sound_label_is_accepted(changes):
    check_label(request(**changes), "ALLOW")


def test_an_event_with_another_key_is_not_an_event():
    event = {
        **request(should=None, job=None),
        "version": 1,
        "at": "2024-12-19T14:30:00.000Z",
        "decision": None,
    }
    assert EVENT.validate_python(event) == event
    for broken in (
        {**event, "extra": 1},
        {**event, "version": "1"},
        {k: v for k, v in event.items() if k != "at"},
    ):
        with pytest.raises(ValueError, match="validation error"):
            EVENT.validate_python(broken)


def trusted(**changes):
    return request(type="trust", label=..., should=..., decision_id="", labeller="bot", trust=0.5, **changes)


@pytest.mark.parametrize("much", [0, 0.05, 0.35, 0.7, 0.95, 1, 1.0])
def test_trust_goes_in_steps_from_held_to_full(much):
    asked = {**trusted(), "trust": much}
    assert check_label_form(asked) == asked
    assert trust_of(asked) == round(much * 100) and speaks_of_labeller(asked)
    assert key_of(asked) == f"labeller/{asked['tenant']}/bot"


@pytest.mark.parametrize("much", [-0.05, 1.05, 0.01, 0.333, 1e-9, float("nan"), float("inf"), True, None, "1"])
def test_another_trust_is_refused(much):
    with pytest.raises(BadInput):
        check_label_form({**trusted(), "trust": much})


def restore(*said, **more):
    words = [{"actor": actor, "label": "success", "should": None, "summary": "", **rest} for actor, rest in said]
    return request(type="restore", label=..., should=..., undoes={"job": "J"}, expects=3,
                   restored={"said": words, "quarantined": False, **more})  # fmt: skip


def test_a_restore_may_hold_what_a_settlement_covers_and_when_it_was_said():
    asked = restore(("ann", {"at": "2024-12-19T14:30:00.000Z"}), ("bob", {"settles": True}), ("bob", {}),
                    quarantines=[{"actor": "ann", "out": True}])  # fmt: skip
    check_label(asked, "ALLOW")
    assert labellers_of(asked) >= {"ann", "bob"}


@pytest.mark.parametrize(
    ("said", "more"),
    [
        ([("bob", {}), ("bob", {})], {}),
        ([("bob", {"settles": True}), ("bob", {"settles": True})], {}),
        ([("bob", {}), ("bob", {"settles": True})], {}),
        ([("bob", {"at": "yesterday"})], {}),
        ([("bob", {"at": "2024-12-19T14:30:00Z"})], {}),
        ([], {"quarantines": [{"actor": "a", "out": True}, {"actor": "a", "out": False}]}),
        ([], {"quarantines": [{"actor": "a"}]}),
    ],
)
def test_a_restore_that_no_fold_can_have_made_is_refused(said, more):
    with pytest.raises(BadInput):
        check_label(restore(*said, **more), "ALLOW")
