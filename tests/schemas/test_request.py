"""A request is checked and made canonical before anything sees it; a refusal says what and where."""

from __future__ import annotations

import copy
import json
import math
from collections import OrderedDict

import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas.canonical import encode
from schemas.digests import digest, digest_of
from schemas.errors import BadInput, BadRequest, LumynError
from schemas.limits import MAX_BODY_BYTES
from schemas.request import inputs_digest, parse_request, stored_request

FULL = {
    "request_id": "r-1",
    "tenant": "acme",
    "policy": "refunds",
    "subject": {"type": "user", "id": "usr_abc123"},
    "action": {"type": "refund", "intent": "late", "amount": {"value": 500, "currency": "USD"}, "order": 7},
    "evidence": {"chargeback_risk": 0.91},
    "context": {"mode": "inline", "inline": {"channel": "chat"}, "digest": digest_of({"channel": "chat"})},
    "provenance": {"model": "gpt-4o-2024-08-06", "freshness_lag_s": 12},
}
GONE = object()


def changed(path: str, value: object) -> dict:
    """FULL with one path set, or removed."""
    out = copy.deepcopy(FULL)
    *way, last = path.split(".")
    spot = out
    for name in way:
        spot = spot[name]
    if value is GONE:
        del spot[last]
    else:
        spot[last] = value
    return out


def nest(depth: int) -> object:
    value: object = 1
    for _ in range(depth):
        value = {"a": value}
    return value


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        ("subject", GONE, "`subject` is missing"),
        ("subject.type", GONE, "`subject.type` is missing"),
        ("subject.id", GONE, "`subject.id` is missing"),
        ("action", GONE, "`action` is missing"),
        ("action.type", GONE, "`action.type` is missing"),
        ("subject", None, "`subject`"),
        ("subject", "usr", "`subject`"),
        ("subject.id", 7, "`subject.id`"),
        ("subject.id", "", "`subject.id` must be 1 to 512"),
        ("subject.id", "   ", "`subject.id` must be 1 to 512"),
        ("subject.id", "x" * 513, "`subject.id` must be 1 to 512"),
        ("subject.type", "a\nb", "`subject.type` must be 1 to 512 printable"),
        ("action.type", "\x00", "`action.type` must be 1 to 512 printable"),
        ("action.type", ["refund"], "`action.type`"),
        ("action.intent", 5, "`action.intent`"),
        ("action.amount", -1, "`action.amount` must not be negative"),
        ("action.amount", {"value": -0.01, "currency": "USD"}, "`action.amount` must not be negative"),
        ("tenant", "", "`tenant` must be"),
        ("tenant", "a/b", "`tenant` must be"),
        ("tenant", "../x", "`tenant` must be"),
        ("tenant", "x" * 65, "`tenant` must be"),
        ("tenant", 5, "`tenant`"),
        ("request_id", "", "`request_id` must be 1 to 256"),
        ("request_id", "x" * 257, "`request_id` must be 1 to 256"),
        ("request_id", "a\x00b", "`request_id` must be 1 to 256 printable"),
        ("request_id", 17, "`request_id`"),
        ("policy", ["p"], "`policy`"),
        ("evidence", [1], "`evidence`"),
        ("evidence", "high", "`evidence`"),
        ("provenance", 1, "`provenance`"),
        ("context", "chat", "`context`"),
        ("context.inline", ["chat"], "`context.inline`"),
        ("context.mode", "remote", "`context.mode` must be `inline` or `digest_only`, not `remote`"),
        ("context.inline", GONE, "`context.inline` is missing"),
        ("context.digest", "sha256:00", "`context.digest` must be `sha256:` and 64 hex digits"),
        ("context.digest", "sha256:" + "A" * 64, "`context.digest` must be"),
        ("context.digest", "sha256:" + "0" * 64, "`context.digest` is not the digest of `context.inline`"),
        ("context.inlin", {}, "unknown key `context.inlin`; did you mean `inline`?"),
        ("evidnce", {}, "unknown key `evidnce`; did you mean `evidence`?"),
        ("zzz", 1, "unknown key `zzz`"),
        ("evidence.risk", math.nan, "`nan` is not a JSON number"),
        ("evidence.risk", math.inf, "`inf` is not a JSON number"),
        ("evidence.n", 2**53, "beyond 2^53-1"),
        ("action.amount", 1e17, "beyond 2^53-1"),
        ("evidence.text", "\ud800", "lone surrogate"),
        ("evidence.when", {1, 2}, "`set` is not a JSON value"),
        ("evidence", {1: 2}, "key `1` is not a string"),
        ("evidence", nest(64), "nested deeper than 64 levels"),
        ("evidence.text", "x" * MAX_BODY_BYTES, f"more than the {MAX_BODY_BYTES} accepted"),
    ],
)
def test_what_breaks_the_contract_is_refused_saying_what_and_where(path, value, message):
    with pytest.raises(BadInput) as caught:
        parse_request(changed(path, value), where="req.json")
    text = str(caught.value)
    assert text.startswith("req.json")
    assert message in text


@pytest.mark.parametrize(
    ("body", "where", "message"),
    [
        (b"[]", "req.json", "a request is a JSON object, not an array"),
        (b"null", "req.json", "not null"),
        (b'"x"', "req.json", "not a string"),
        (b"{", "req.json:1:2", "malformed JSON"),
        (b'{"subject": {"type": "u", "id": "1", "id": "2"}}', "req.json:1:38", "duplicate key `id`"),
        (b'{"evidence":\n{"risk": NaN}}', "req.json:2:10", "`NaN` is not a JSON number"),
        (b'{"action": {"amount": 1e999}}', "req.json:1:23", "beyond a double"),
        (b'{"a": "\xff"}', "req.json", "not UTF-8"),
        (b" " * (MAX_BODY_BYTES + 1), "req.json", "more than"),
    ],
)
def test_bytes_that_are_no_request_are_refused_with_the_place(body, where, message):
    with pytest.raises(BadInput) as caught:
        parse_request(body, where="req.json")
    assert str(caught.value).startswith(where)
    assert message in str(caught.value)


@pytest.mark.parametrize("missing", [GONE, None])
def test_the_callers_tenant_fills_an_absent_one_only(missing):
    assert parse_request(changed("tenant", missing), tenant="other").tenant == "other"
    assert parse_request(changed("tenant", missing)).tenant == "default"
    assert parse_request(FULL, tenant="other").tenant == "acme"


def test_a_filled_tenant_is_part_of_what_is_stored():
    parsed = parse_request(changed("tenant", GONE), tenant="other")
    assert parsed.value["tenant"] == "other"
    assert b'"tenant":"other"' in parsed.canonical


def test_a_tenant_with_a_newline_after_it_is_refused():
    with pytest.raises(BadRequest):
        parse_request(changed("tenant", "acme\n"))


@pytest.mark.parametrize(
    "evidence", [OrderedDict(risk=math.nan), {"risk": type("Float64", (float,), {})("nan")}]
)
def test_nan_in_a_subclass_is_refused_like_any_other(evidence):
    with pytest.raises(LumynError):
        parse_request(changed("evidence", evidence))


def test_a_matching_context_digest_is_accepted_and_a_lone_one_too():
    assert parse_request(FULL).value["context"]["digest"] == digest_of({"channel": "chat"})
    alone = parse_request(changed("context", {"mode": "digest_only", "digest": "sha256:" + "0" * 64}))
    assert alone.value["context"]["mode"] == "digest_only"


def test_the_context_digest_is_over_the_canonical_form():
    inline = {"b": 1.0, "a": "é"}
    right = digest('{"a":"é","b":1}'.encode())
    assert parse_request(changed("context", {"inline": inline, "digest": right}))


def test_optional_parts_that_are_null_are_as_if_absent():
    nulls = dict.fromkeys(("request_id", "policy", "evidence", "context", "provenance"))
    bare = {"subject": FULL["subject"], "action": FULL["action"]}
    assert parse_request({**bare, **nulls}).canonical == parse_request(bare).canonical


def test_further_arguments_of_action_and_subject_are_kept():
    request = changed("subject.tier", "gold")
    assert parse_request(request).value == request


def test_bytes_text_and_mappings_give_the_same_request():
    body = json.dumps(FULL, indent=2)
    assert parse_request(body) == parse_request(body.encode()) == parse_request(FULL)


def test_what_the_caller_passed_is_left_alone():
    given_request = changed("tenant", GONE)
    before = copy.deepcopy(given_request)
    parsed = parse_request(given_request)
    parsed.value["action"]["type"] = "other"
    assert given_request == before


def test_the_body_digest_is_over_the_whole_request():
    parsed = parse_request(FULL)
    assert parsed.body_digest == digest(encode(FULL))
    assert parse_request(changed("provenance.model", "x")).body_digest != parsed.body_digest
    assert parse_request(changed("request_id", "r-2")).body_digest != parsed.body_digest


def test_the_inputs_digest_leaves_out_provenance_and_request_id_and_nothing_else():
    base = parse_request(FULL).inputs_digest
    assert base == digest_of({k: v for k, v in FULL.items() if k not in ("provenance", "request_id")})
    for path, value in (
        ("provenance", GONE),
        ("provenance.model", "x"),
        ("request_id", GONE),
        ("request_id", "z"),
    ):
        assert parse_request(changed(path, value)).inputs_digest == base
    for path, value in (
        ("tenant", "b"), ("policy", GONE), ("subject.id", "x"), ("action.order", 8),
        ("evidence.chargeback_risk", 0.9), ("context", GONE),
    ):  # fmt: skip
        assert parse_request(changed(path, value)).inputs_digest != base


def test_the_key_names_tenant_and_request_id():
    assert parse_request(FULL).key == b"acme/r-1"
    assert parse_request(changed("request_id", GONE)).key is None


@given(
    st.dictionaries(
        st.text(max_size=5),
        st.one_of(
            st.none(),
            st.booleans(),
            st.integers(-(2**53) + 1, 2**53 - 1),
            st.floats(-1e9, 1e9),
            st.text(max_size=9),
        ),
        max_size=5,
    )
)
def test_the_stored_bytes_alone_give_the_same_request_back(evidence):
    parsed = parse_request({**FULL, "evidence": evidence})
    assert stored_request(parsed.canonical) == parsed
    assert parse_request(parsed.canonical) == parsed
    assert inputs_digest(parsed.value) == parsed.inputs_digest


def test_a_request_as_deep_as_allowed_is_accepted():
    assert parse_request(changed("evidence", nest(63))).value["evidence"] == nest(63)
