"""Decision ids are ULIDs made from the log position alone: the same offset twice gives the same id."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from ulid import ULID

from schemas.ids import decision_bytes, decision_id, decision_text, id_prefix, is_decision_id, iso_time, time_ms_of

TIMES = st.integers(0, 253_402_300_799_999)
PLACES = st.tuples(
    st.sampled_from(["lumyn.requests", "other.requests"]), st.integers(0, 63), st.integers(0, 2**47)
)


@given(PLACES, TIMES)
def test_an_id_is_a_ulid_that_carries_the_logs_time(place, time_ms):
    made = decision_id(*place, time_ms)
    assert is_decision_id(made)
    assert int.from_bytes(ULID.from_str(made).bytes[:6], "big") == time_ms


@given(PLACES, TIMES)
def test_the_same_position_gives_the_same_id(place, time_ms):
    assert decision_id(*place, time_ms) == decision_id(*place, time_ms)


@given(PLACES, PLACES, TIMES)
def test_different_positions_give_different_ids(one, other, time_ms):
    assert (decision_id(*one, time_ms) == decision_id(*other, time_ms)) == (one == other)


def test_a_topic_partition_and_offset_never_run_into_each_other():
    seen = {decision_id("t", p, o, 0) for p in range(40) for o in range(40)}
    assert len(seen) == 1600
    assert decision_id("t", 1, 11, 0) != decision_id("t", 11, 1, 0)
    assert decision_id("t1", 1, 1, 0) != decision_id("t", 11, 1, 0)


def test_an_id_is_what_it_always_was():  # a golden value: ids of stored records must never change
    assert decision_id("lumyn.requests", 3, 1041, 1_734_618_600_123) == "01JFFN6MNVY5FMNG3S6HPY4KAW"


@given(PLACES, TIMES, TIMES)
def test_ids_sort_by_time(place, one, other):
    if one < other:
        assert decision_id(*place, one) < decision_id(*place, other)


@pytest.mark.parametrize(
    "text",
    ["", "01JBQ", "8" + "0" * 25, "01ARZ3NDEKTSV4RRFFQ69G5FAI", "01arz3ndektsv4rrffq69g5fav", "0" * 27],
)
def test_what_is_no_whole_ulid_is_not_an_id(text):
    assert not is_decision_id(text)


def test_an_id_with_a_newline_after_it_is_not_an_id():
    assert not is_decision_id("01ARZ3NDEKTSV4RRFFQ69G5FAV\n")


@pytest.mark.parametrize(
    ("typed", "meant"),
    [
        ("01jbq...", "01JBQ"),
        ("01JBQ…", "01JBQ"),
        ("  01JBQ \n", "01JBQ"),
        ("01ARZ3NDEKTSV4RRFFQ69G5FAV", "01ARZ3NDEKTSV4RRFFQ69G5FAV"),
        ("0", "0"),
        ("", None),
        ("...", None),
        ("01JBQU", None),
        ("9", None),
        ("01ARZ3NDEKTSV4RRFFQ69G5FAV0", None),
        ("../etc", None),
    ],
)
def test_a_prefix_is_read_as_a_person_means_it(typed, meant):
    assert id_prefix(typed) == meant


@given(TIMES)
def test_times_are_written_and_read_back(time_ms):
    assert time_ms_of(iso_time(time_ms)) == time_ms


def test_a_time_is_iso_8601_in_utc_with_milliseconds():
    assert iso_time(1_734_618_600_123) == "2024-12-19T14:30:00.123Z"
    assert iso_time(0) == "1970-01-01T00:00:00.000Z"


@pytest.mark.parametrize("text", ["2024-12-19", "2024-12-19T14:30:00+01:00", "yesterday", ""])
def test_another_form_of_time_is_refused(text):
    with pytest.raises(ValueError, match="does not match"):
        time_ms_of(text)


@given(st.binary(min_size=16, max_size=16))
def test_an_ids_bytes_have_one_text(raw):
    assert decision_text(raw) == str(ULID.from_bytes(raw))
    assert decision_bytes(decision_text(raw)) == raw
