"""What memory looks at: action, evidence and context; never who, when, which id, or the provenance."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from memory_service.profile import (
    DEFAULT_PROFILE,
    MemoryProfile,
    amount_of,
    facts_of,
    has_comparable_amount,
    remembered_part,
)

SECRET = "secret-0f3a"
REQUEST = {
    "request_id": SECRET,
    "tenant": SECRET,
    "policy": SECRET,
    "subject": {"type": SECRET, "id": SECRET, "tier": SECRET},
    "action": {"type": "refund", "intent": "late refund", "amount": {"value": 500, "currency": "USD"}},
    "evidence": {"tier": "gold", "chargeback_risk": 0.91, "vip": True},
    "context": {"mode": "inline", "inline": {"channel": "chat"}, "digest": "sha256:" + "0" * 64},
    "provenance": {"model": SECRET, "note": SECRET, "lag": 12},
}


def facts(**evidence):
    return facts_of({"action": {"type": "refund"}, "evidence": evidence})


def said(found) -> str:
    return repr((found.text, found.categories, found.numbers))


def test_facts_go_to_the_block_of_their_kind():
    found = facts_of(remembered_part(REQUEST))
    assert found.text == "late refund"
    assert found.categories == (
        "action.amount.currency=USD",
        "context.channel=chat",
        "evidence.tier=gold",
        "evidence.vip=true",
    )
    assert found.numbers == (("action.amount.value", 500.0), ("evidence.chargeback_risk", 0.91))
    assert found.count == 6


def test_who_when_and_provenance_are_never_remembered():
    part = remembered_part(REQUEST)
    assert set(part) == {"action", "evidence", "context"}
    assert SECRET not in repr(part)
    assert SECRET not in said(facts_of(part))


@given(
    st.text(min_size=1, max_size=12),
    st.one_of(st.text(min_size=1), st.integers(), st.floats(0, 1), st.booleans()),
)
def test_nothing_in_provenance_or_subject_changes_the_facts(name, value):
    other = {**REQUEST, "provenance": {name: value}, "subject": {"type": "u", "id": "1", name: value}}
    assert facts_of(remembered_part(other)) == facts_of(remembered_part(REQUEST))


@pytest.mark.parametrize(
    "name",
    [
        "id", "order_id", "ORDER_ID", "ids", "uuid", "request_uuid", "digest", "body_digest", "hash", "prompt_hash",
        "token", "session_token", "api_key", "signature", "nonce", "seed", "cursor", "url", "callback_uri",
        "at", "created_at", "date", "order_date", "time", "timestamp", "event_timestamp", "start_time", "ts", "dob",
    ],
)  # fmt: skip
@pytest.mark.parametrize("value", ["A-1734", 1734618600, True, ["A-1"], [17, 18]])
def test_ids_digests_and_times_are_left_out_by_name(name, value):
    found = facts(**{name: value, "tier": "gold"})
    assert found.categories == ("evidence.tier=gold",)
    assert found.text == ""
    assert all(path.endswith(".count") for path, _ in found.numbers), "at most how many there are"


@pytest.mark.parametrize(
    "value",
    [
        "sha256:" + "ab" * 32,
        "7d444840-9dc0-11d1-b245-5ffdce74fad2",
        "7D444840-9DC0-11D1-B245-5FFDCE74FAD2",
        "0123456789abcdef",
        "2024-12-19",
        "2024-12-19T14:30:00Z",
        "2024-12-19 14:30",
        "01ARZ3NDEKTSV4RRFFQ69G5FAV",
    ],
)
def test_ids_digests_and_times_are_left_out_by_value(value):
    assert facts(reference=value).count == 0
    assert facts(references=[value, value]).count == 0
    assert facts(nested={"reference": value}).count == 0


@pytest.mark.parametrize(
    "name", ["orderId", "transactionID", "createdAt", "sessionToken", "order-id", "orderDate"]
)
def test_ids_and_times_are_left_out_however_their_name_is_written(name):
    assert facts(**{name: "A-1734"}).count == 0


def test_what_stands_below_an_id_is_left_out_too():
    assert facts(customer_id={"value": "usr_abc123"}).count == 0


def test_the_action_type_is_no_fact_because_recall_filters_by_it():
    assert "refund" not in said(facts_of({"action": {"type": "refund"}}))
    assert facts(type="partial").categories == ("evidence.type=partial",)


def test_message_like_names_and_prose_are_text():
    found = facts(
        message="hello", notes=["one", "two"], other="the parcel never came to my door", code="late"
    )
    assert found.text == "hello one two the parcel never came to my door"
    assert found.categories == ("evidence.code=late",)
    assert facts(x="w" * 65).text == "w" * 65


def test_order_numbers_and_the_like_are_left_out_of_the_text():
    said_with = "refund order #W1234567 of usr_abc123, see 7d444840-9dc0-11d1-b245-5ffdce74fad2"
    assert facts(message=said_with).text == "refund order # of , see"
    assert facts(message="refund 2 of 500 dollars within 24h").text == "refund 2 of 500 dollars within 24h"


@pytest.mark.parametrize("message", ["注文の返金を5000円お願いします", "请退款500元到我的账户"])
def test_a_sentence_without_spaces_is_no_order_number(message):
    assert facts(message=message).text


def test_nested_facts_have_dotted_names():
    assert facts(a={"b": {"c": 1, "d": "x"}}).numbers == (("evidence.a.b.c", 1.0),)
    assert facts(a={"b": {"c": 1, "d": "x"}}).categories == ("evidence.a.b.d=x",)


def test_lists_of_words_are_a_set_and_lists_of_things_are_counted():
    assert facts(tags=["b", "a", "b"]).categories == ("evidence.tags=b", "evidence.tags=a")
    assert ("evidence.items.count", 2.0) in facts(items=[{"price": 1}, {"price": 2}]).numbers


def test_the_order_of_keys_does_not_matter():
    assert facts(a=1, b="x", c="y") == facts(c="y", b="x", a=1)


def test_nulls_say_nothing():
    assert facts(a=None, b={"c": None}).count == 0


def test_a_huge_request_is_cut_not_refused():
    assert facts(**{f"n{k}": k for k in range(1000)}).count <= 256


@pytest.mark.parametrize(
    ("amount", "compared"),
    [
        ({"value": 500, "currency": "USD"}, 500),
        ({"value": 500}, 500),
        (12.5, 12.5),
        ({"value": 500, "currency": "EUR"}, None),
        ({"value": "500", "currency": "USD"}, None),
        ({"value": True}, None),
        (True, None),
        ("500", None),
        (None, None),
        ({}, None),
    ],
)
def test_an_amount_that_can_not_be_compared_in_dollars_is_none(amount, compared):
    assert amount_of({"action": {"amount": amount}}) == compared


def test_a_request_without_an_amount_has_none():
    assert amount_of({"action": {"type": "refund"}}) is None


def test_names_and_values_of_strangers_do_not_fill_the_memory() -> None:
    """What is kept of them is bounded in bytes, not only in number."""
    import tracemalloc

    from memory_service.blocks import categories_block, numbers_block

    def ask(number: int) -> None:
        name = f"{number:06d}" + "n" * 20_000
        facts = facts_of({"action": {name: "blue", name + "2": 3.5, name + "3": {"deeper": True}}})
        assert (len(facts.categories), len(facts.numbers)) == (2, 1)
        categories_block(facts.categories)
        numbers_block(facts.numbers)

    ask(0)
    tracemalloc.start()
    for number in range(1, 200):
        ask(number)
    kept, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert kept < 1_000_000


# other profiles

SHOP = MemoryProfile(
    "shop",
    text=("evidence.note",),
    categories=("context.tier", "evidence.order"),
    leave_out=("evidence.debug",),
    keep=("evidence.country_id",),
    fx=(("EUR", 1.5),),
)


def placed(part, profile=SHOP):
    return facts_of({"action": {"type": "refund"}, **part}, profile)


def test_a_profile_places_what_it_names_and_all_below():
    found = placed(
        {
            "evidence": {
                "note": "short",
                "debug": {"trace": "x", "n": 3},
                "debugger": "on",
                "order": {"lines": 3, "kind": "a b c d e f g"},
                "country_id": "DE",
                "user_id": "u_1",
            },
            "context": {"tier": 2},
        }
    )
    assert found.text == "short"
    assert set(found.categories) == {
        "context.tier=2",
        "evidence.debugger=on",
        "evidence.order.lines=3",
        "evidence.order.kind=a b c d e f g",
        "evidence.country_id=DE",
    }
    assert found.numbers == ()


@given(st.dictionaries(st.text(min_size=1, max_size=8), st.one_of(st.text(), st.floats(0, 9), st.booleans()), max_size=6))
def test_a_profile_that_says_nothing_places_like_the_default_one(evidence):
    named = MemoryProfile("named")
    part = {"action": {"type": "refund"}, "evidence": evidence}
    assert facts_of(part, named) == facts_of(part)
    assert named.id != DEFAULT_PROFILE.id


@pytest.mark.parametrize(
    ("amount", "worth"),
    [
        ({"value": 100, "currency": "EUR"}, 150),
        ({"value": 100, "currency": "USD"}, 100),
        ({"value": 100, "currency": "GBP"}, None),
        ({"value": 1e300, "currency": "EUR"}, None),
        ({"value": 100, "currency": ["EUR"]}, None),
        (100, 100),
    ],
)
def test_rates_make_amounts_comparable(amount, worth):
    part = {"action": {"type": "refund", "amount": amount}}
    assert amount_of(part, SHOP) == worth
    assert has_comparable_amount(part, SHOP) == (worth is not None)


@pytest.mark.parametrize(
    "value",
    [
        None,
        "shop",
        {},
        {"profile": 5},
        {"profile": "a", "text": "evidence.x"},
        {"profile": "a", "text": [5]},
        {"profile": "a", "fx": {"EUR": "1"}},
        {"profile": "a", "fx": {"EUR": 0}},
        {"profile": "a", "fx": {"EUR": float("inf")}},
        {"profile": "a", "more": 1},
    ],
)
def test_what_is_no_profile_is_refused(value):
    with pytest.raises(ValueError, match=r"profile|paths|rate"):
        MemoryProfile.from_dict(value)


def test_ids_differ_as_profiles_do():
    others = [MemoryProfile("a"), MemoryProfile("b"), MemoryProfile("a", text=("evidence.x",)), SHOP]
    assert len({one.id for one in (DEFAULT_PROFILE, *others)}) == 5
