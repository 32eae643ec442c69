"""Sealing: what is personal can't be read nor guessed at without the key, and can't be changed with or without it."""

from __future__ import annotations

import base64
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas.canonical import decode_trusted, encode
from schemas.errors import IntegrityError, LumynError
from schemas.request import envelope_in, inputs_digest, opened, parse_request, sealed
from schemas.seal import Opening, box, open_record, open_text, opening_of, seal_record, seal_text

KID, OTHER = "s-" + "1" * 32, "s-" + "2" * 32
KEY = bytes(range(32))

words = st.text(st.characters(categories=["L", "N", "Zs", "P"], max_codepoint=0x2FFF), max_size=30)
secrets = words.map(lambda text: f"secret<{text}>")
facts = st.dictionaries(
    st.sampled_from(["name", "iban", "note", "age"]),
    st.one_of(secrets, st.lists(secrets, max_size=3), st.integers(10**9, 10**12)),
    max_size=4,
)
amounts = st.one_of(
    st.none(),
    st.floats(0, 1e6, allow_nan=False),
    st.fixed_dictionaries({"value": st.integers(0, 10**6), "currency": st.sampled_from(["USD", "EUR"])}),
    st.fixed_dictionaries({"value": st.integers(0, 9), "for": secrets}),
    secrets,
)


@st.composite
def requests(draw):
    body = {
        "tenant": "acme",
        "subject": {"type": "user", "id": "secret-" + draw(st.uuids()).hex, **draw(facts)},
        "action": {"type": "refund", "intent": draw(secrets), **draw(facts)},
        "evidence": draw(facts),
        "context": {"mode": "inline", "inline": draw(facts)},
    }
    amount = draw(amounts)
    if amount is not None:
        body["action"]["amount"] = amount
    if draw(st.booleans()):
        body |= {"request_id": draw(st.uuids()).hex, "provenance": {"model": "m1"}, "policy": "refunds"}
    return parse_request(body)


def strings(value):
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for item in value.values():
            yield from strings(item)
    elif isinstance(value, list):
        for item in value:
            yield from strings(item)


@given(requests())
def test_a_sealed_request_opens_to_the_very_same_and_shows_nothing_personal(request):
    one = sealed(request, KID, KEY)
    back = opened(envelope_in(one.canonical), KEY, "here")
    assert back == one and back.value == request.value and back.clear_digest == request.body_digest
    assert (one.tenant, one.request_id, one.key) == (request.tenant, request.request_id, request.key)
    text = one.canonical.decode()
    assert "secret" not in text
    assert all(json.dumps(s, ensure_ascii=False)[1:-1] not in text for s in strings(request.value) if "secret" in s)
    envelope = decode_trusted(one.canonical)
    assert envelope["subject"] == {"type": "user", "id": KID}
    assert set(envelope) <= {"tenant", "subject", "action", "request_id", "policy", "provenance", "sealed"}
    assert set(envelope["action"]) <= {"type", "amount"}


@given(requests(), st.binary(min_size=32, max_size=32))
def test_the_same_request_is_the_same_bytes_under_one_key_and_others_under_another(request, other):
    one = sealed(request, KID, KEY)
    assert sealed(request, KID, KEY) == one
    assert one.inputs_digest != inputs_digest(request.value), "who knows the inputs must not know their digest"
    if other != KEY:
        another = sealed(request, KID, other)
        assert another.body_digest != one.body_digest and another.inputs_digest != one.inputs_digest
        with pytest.raises(IntegrityError):
            opened(envelope_in(one.canonical), other, "here")


def test_the_inputs_digest_is_the_same_for_the_same_inputs_of_a_subject():
    body = {"subject": {"type": "user", "id": "ann"}, "action": {"type": "refund"}}
    first, second = (sealed(parse_request({**body, "request_id": name}), KID, KEY) for name in ("a", "b"))
    assert first.inputs_digest == second.inputs_digest and first.body_digest != second.body_digest


@given(requests(), st.data())
def test_no_byte_of_an_envelope_can_be_changed(request, data):
    canonical = sealed(request, KID, KEY).canonical
    at = data.draw(st.integers(0, len(canonical) - 1))
    changed = canonical[:at] + bytes([canonical[at] ^ data.draw(st.integers(1, 127))]) + canonical[at + 1 :]
    try:
        envelope = envelope_in(changed)
        if envelope is None or encode(envelope) == canonical:
            return
        found = opened(envelope, KEY, "here")
    except (LumynError, KeyError, TypeError, AttributeError, RecursionError, UnicodeDecodeError):
        return
    # base64 has bits that say nothing: the same box, written otherwise, is another stored form with another digest
    assert found.value == request.value and found.canonical != canonical


def test_a_sealer_that_shows_another_clear_part_than_it_sealed_is_not_believed():
    request = parse_request({"subject": {"type": "user", "id": "ann"}, "action": {"type": "refund", "amount": 900}})
    envelope = decode_trusted(sealed(request, KID, KEY).canonical)
    opening = opening_of(envelope, KEY)
    clear = {name: part for name, part in envelope.items() if name != "sealed"} | {"action": {"type": "refund", "amount": 1}}
    boxed = base64.urlsafe_b64encode(box(opening.key, request.canonical, encode(clear))).decode()
    forged = {**clear, "sealed": {**envelope["sealed"], "box": boxed}}
    with pytest.raises(IntegrityError, match="clear part"):
        opened(forged, KEY, "here")


def record(request, one):
    return {
        "decision_id": "01JBQX8P2M4T5V6W7X8Y9Z0A1B",
        "matched_rules": [
            {"id": "R1", "facts": [{"fact": "evidence.name", "op": "eq", "value": "secret<x>", "want": "secret<y>"}]},
            {"id": "R2", "facts": [{"fact": "amount_usd", "op": "lte", "value": 7, "want": 9}]},
        ],
        "obligations": [{"tell": "secret<o>"}],
        "queries": ["secret<q>"],
        "request": request.value,
    }


@given(requests())
def test_a_sealed_record_opens_to_the_very_same(request):
    one = sealed(request, KID, KEY)
    whole = record(request, one)
    stored = seal_record(whole, decode_trusted(one.canonical), one.opening)
    assert b"secret" not in encode(stored)
    assert stored["matched_rules"][1]["facts"] == whole["matched_rules"][1]["facts"], "what sums are made of stays"
    back = open_record(stored, opening_of(stored["request"], KEY))
    assert dict(back) == whole and back.stored == stored
    assert open_record(stored, Opening(KID, one.opening.key)) == back, "what a pack holds opens it too"


def test_a_box_of_another_decision_does_not_open():
    request = parse_request({"subject": {"type": "user", "id": "ann"}, "action": {"type": "refund"}})
    one = sealed(request, KID, KEY)
    stored = seal_record(record(request, one), decode_trusted(one.canonical), one.opening)
    with pytest.raises(IntegrityError):
        open_record({**stored, "decision_id": "01JBQX8P2M4T5V6W7X8Y9Z0A1C"}, one.opening)


def test_a_key_never_stands_in_a_repr():
    request = parse_request({"subject": {"type": "user", "id": "ann"}, "action": {"type": "refund"}})
    one = sealed(request, KID, KEY)
    assert "opening" not in repr(one) and "key" not in repr(one.opening)


@given(words.filter(bool), words, words)
def test_a_text_opens_in_its_place_only(text, about, elsewhere):
    token = seal_text(text.encode(), KID, KEY, about, "summary")
    assert open_text(token, KEY, about, "summary").decode() == text
    for wrong in [(elsewhere, "summary")] * (elsewhere != about) + [(about, "facts")]:
        with pytest.raises(IntegrityError):
            open_text(token, KEY, *wrong)
    with pytest.raises(IntegrityError):
        open_text(token, KEY[::-1], about, "summary")
