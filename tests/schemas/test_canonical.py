"""Canonical JSON is RFC 8785 to the byte, and what is not exact JSON is refused with its place."""

from __future__ import annotations

import json
import math
import struct
import uuid
from collections import OrderedDict
from enum import IntEnum, StrEnum

import pytest
import rfc8785
from hypothesis import example, given
from hypothesis import strategies as st

from schemas.canonical import decode, decode_trusted, encode, number_text, tidy
from schemas.digests import digest, digest_of
from schemas.errors import BadJson, LumynError, TooLarge
from schemas.limits import MAX_BODY_BYTES, MAX_RECORD_DEPTH, MAX_SAFE_INTEGER

LONE = "\ud800"


def storable(value: float) -> bool:
    """Whole numbers between 2^53 and 1e21 would be written as integers that readers do not keep."""
    return not MAX_SAFE_INTEGER < abs(value) < 1e21


INTEGERS = st.integers(-MAX_SAFE_INTEGER, MAX_SAFE_INTEGER)
ODD_FLOATS = st.sampled_from(
    [
        *(0.0, -0.0, 1.0, -1.0, 1e15, 1e-5, 1e-6, 1e-7, 9.999e-7, 1.5e-6, 2.5e-5, 123456789.0, 0.1),
        *(5e-324, 1.7976931348623157e308, -1e21, 1e21, 1e22, 1e-300, 9007199254740991.0, 1234567890.5),
    ]
)
FLOATS = st.one_of(
    ODD_FLOATS,
    st.floats(allow_nan=False, allow_infinity=False).filter(storable),
    st.floats(-1e-4, 1e-4),
    st.builds(lambda whole: float(whole), INTEGERS),
)
TEXT = st.one_of(
    st.text(max_size=8),
    st.text(alphabet='\x00\x01\x08\t\n\f\r\x1f\x7f\x80"\\/<&\u2028\u2029\ufeff\uffff', max_size=6),
    st.sampled_from(["", ":1.0,", '":1e5,', "null", "[1.0]", "{", "é", "e\u0301", "😀", "\U0010ffff"]),
)
KEYS = st.one_of(
    TEXT,
    st.sampled_from(["\ue000", "\uff5e", "😀", "\U00010000", "\ud7ff", "a", "A", "aa", "\r", "1", "10", "2"]),
)
JSON_VALUES = st.recursive(
    st.one_of(st.none(), st.booleans(), INTEGERS, FLOATS, TEXT),
    lambda inner: st.one_of(st.lists(inner, max_size=4), st.dictionaries(KEYS, inner, max_size=5)),
    max_leaves=12,
)


NUMBERS = st.one_of(
    st.integers(-(2**66), 2**66).map(str),
    st.integers(-(10**18), 10**18).map(str),
    st.floats().map(repr),
    st.sampled_from(["-0", "-0.0", "1e5", "1E5", "1e400", "-1e400", "0.10", "01", "1.", "NaN", "Infinity", "1e16"]),
)
STRINGS = st.one_of(
    TEXT.map(lambda text: json.dumps(text, ensure_ascii=False)),
    st.text(alphabet='\x00\x1f\ud800\udc00😀a"\\', max_size=4).map(json.dumps),
    st.sampled_from(['"a"', '"b"', '"\\u0061"', '"\\ud83d\\ude00"', '"\\/"', '"\x01"']),
)
COMPACT = st.recursive(
    st.one_of(NUMBERS, STRINGS, st.sampled_from(["null", "true", "false", "nul", ""])),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3).map(lambda parts: f"[{','.join(parts)}]"),
        st.lists(st.tuples(STRINGS, inner), max_size=3).map(
            lambda pairs: "{" + ",".join(f"{key}:{value}" for key, value in pairs) + "}"
        ),
    ),
    max_leaves=6,
)
"""JSON without spaces, and what is nearly JSON: keys twice, numbers that no double holds, half characters."""


def read(text: str) -> str:
    """What a text says, types included, or that it is refused and why."""
    try:
        return repr(decode(text))
    except LumynError as error:
        return f"{type(error).__name__}: {error.message}"


class TestEncoding:
    @given(JSON_VALUES)
    @example({"\ue000": 1, "😀": 2})
    @example([1.0, -0.0, {"x": 1e-7, "null": None}])
    @example({"a": ':1.0,"', "b": [[], {}, ""]})
    def test_every_value_gets_the_bytes_of_the_reference_encoder(self, value):
        assert encode(value) == rfc8785.dumps(value)

    @given(JSON_VALUES)
    def test_a_promise_of_finite_numbers_changes_no_byte(self, value):
        assert encode(value, finite=True) == encode(value)

    @given(JSON_VALUES)
    def test_what_was_encoded_decodes_to_the_same_value(self, value):
        assert decode(encode(value)) == value
        assert decode_trusted(encode(value)) == value

    @given(JSON_VALUES)
    def test_encoding_again_what_was_decoded_gives_the_same_bytes(self, value):
        canonical = encode(value)
        assert encode(decode(canonical)) == canonical
        assert encode(decode_trusted(canonical)) == canonical

    @given(COMPACT)
    @example('{"a":1,"b":{},"a":1}')
    @example("[9007199254740993]")
    @example("[9007199254740992,-9007199254740992]")
    @example("[-0,1.0,1E5,1e400,1e16]")
    @example("[18446744073709551615]")
    @example('{"\\u0061":1,"a":2}')
    @example('["\\ud800"]')
    @example("[NaN]")
    @example("\ufeff[]")
    def test_text_that_is_compact_already_is_read_as_strictly_as_any_other(self, text):
        """A space before the value keeps the reader from its short way; which way was gone must not show."""
        assert read(text) == read(" " + text)

    @given(JSON_VALUES)
    def test_the_layout_and_key_order_of_the_input_do_not_matter(self, value):
        loose = json.dumps(value, indent=3, ensure_ascii=True)
        assert encode(decode(loose)) == encode(value)
        assert digest_of(decode(loose)) == digest(encode(value))

    @given(st.floats(allow_nan=False, allow_infinity=False))
    def test_numbers_are_written_as_ecmascript_writes_them(self, value):
        assert number_text(value).encode() == rfc8785.dumps(value)

    def test_the_standards_own_object_comes_out_as_printed_there(self):  # RFC 8785 sections 3.2.2 to 3.2.4
        given_text = r"""{
          "numbers": [333333333.33333329, 1E30, 4.50, 2e-3, 0.000000000000000000000000001],
          "string": "\u20ac$\u000F\u000aA'\u0042\u0022\u005c\\\"\/",
          "literals": [null, true, false]
        }"""
        wanted = bytes.fromhex(
            "7b226c69746572616c73223a5b6e756c6c2c747275652c66616c73655d2c226e756d62657273223a"
            "5b3333333333333333332e333333333333332c31652b33302c342e352c302e3030322c31652d3237"
            "5d2c22737472696e67223a22e282ac245c75303030665c6e4127425c225c5c5c5c5c222f227d"
        )
        assert encode(decode(given_text)) == wanted

    def test_keys_are_sorted_by_utf16_unit_as_in_the_standard(self):  # RFC 8785 section 3.2.3
        value = {
            "\u20ac": "Euro Sign",
            "\r": "Carriage Return",
            "\ufb33": "Hebrew Letter Dalet With Dagesh",
            "1": "One",
            "\U0001f600": "Emoji: Grinning Face",
            "\u0080": "Control",
            "\u00f6": "Latin Small Letter O With Diaeresis",
        }
        assert list(json.loads(encode(value)).values()) == [
            "Carriage Return",
            "One",
            "Control",
            "Latin Small Letter O With Diaeresis",
            "Euro Sign",
            "Emoji: Grinning Face",
            "Hebrew Letter Dalet With Dagesh",
        ]

    @pytest.mark.parametrize(
        ("bits", "text"),
        [  # RFC 8785 appendix B
            ("0000000000000000", "0"),
            ("8000000000000000", "0"),
            ("0000000000000001", "5e-324"),
            ("8000000000000001", "-5e-324"),
            ("7fefffffffffffff", "1.7976931348623157e+308"),
            ("ffefffffffffffff", "-1.7976931348623157e+308"),
            ("4340000000000000", "9007199254740992"),
            ("c340000000000000", "-9007199254740992"),
            ("4430000000000000", "295147905179352830000"),
            ("44b52d02c7e14af5", "9.999999999999997e+22"),
            ("44b52d02c7e14af6", "1e+23"),
            ("44b52d02c7e14af7", "1.0000000000000001e+23"),
            ("444b1ae4d6e2ef4e", "999999999999999700000"),
            ("444b1ae4d6e2ef4f", "999999999999999900000"),
            ("444b1ae4d6e2ef50", "1e+21"),
            ("3eb0c6f7a0b5ed8c", "9.999999999999997e-7"),
            ("3eb0c6f7a0b5ed8d", "0.000001"),
            ("41b3de4355555553", "333333333.3333332"),
            ("41b3de4355555554", "333333333.33333325"),
            ("41b3de4355555555", "333333333.3333333"),
            ("41b3de4355555556", "333333333.3333334"),
            ("41b3de4355555557", "333333333.33333343"),
            ("becbf647612f3696", "-0.0000033333333333333333"),
            ("43143ff3c1cb0959", "1424953923781206.2"),
        ],
    )
    def test_the_standards_number_samples(self, bits, text):
        value = struct.unpack(">d", bytes.fromhex(bits))[0]
        assert number_text(value) == text
        if storable(value):
            assert encode([value]) == f"[{text}]".encode()
        else:
            with pytest.raises(BadJson, match="beyond 2\\^53-1"):
                encode([value])

    @pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
    @pytest.mark.parametrize("inside", [lambda v: v, lambda v: [v], lambda v: {"a": {"b": [1, v]}}])
    def test_what_is_no_number_is_never_written(self, value, inside):
        with pytest.raises(BadJson, match="not a JSON number"):
            encode(inside(value))

    @pytest.mark.parametrize("value", [2**53, -(2**53), 2**64, 10**400, 9007199254740993.0, 1e20])
    def test_whole_numbers_beyond_double_precision_are_refused(self, value):
        with pytest.raises(BadJson, match="beyond 2\\^53-1"):
            encode({"n": value})

    @pytest.mark.parametrize("value", [{1: 2}, {None: 1}, {"a": {("x",): 1}}, {1.5: 1}, {True: 1}])
    def test_a_key_that_is_not_a_string_is_refused(self, value):
        with pytest.raises(BadJson, match="is not a string"):
            encode(value)

    @pytest.mark.parametrize("value", [{1, 2}, b"bytes", object(), 1j, {"a": [range(3)]}])
    def test_what_json_does_not_know_is_refused_by_its_type(self, value):
        with pytest.raises(BadJson, match="is not a JSON value"):
            encode(value)

    @pytest.mark.parametrize("value", [LONE, ["ok", LONE], {LONE: 1}, {"a": {"b": "x" + LONE}}])
    def test_lone_surrogates_are_refused(self, value):
        with pytest.raises(BadJson, match="lone surrogate"):
            encode(value)

    def test_nesting_is_bounded_and_the_bound_itself_is_accepted(self):
        assert encode(nested(MAX_RECORD_DEPTH)) == b"[" * MAX_RECORD_DEPTH + b"]" * MAX_RECORD_DEPTH
        for finite in (False, True):
            with pytest.raises(TooLarge, match=f"{MAX_RECORD_DEPTH} levels"):
                encode(nested(MAX_RECORD_DEPTH + 1), finite=finite)

    def test_many_small_containers_are_not_taken_for_depth(self):
        assert encode([[{}] for _ in range(500)]) == b"[" + b",".join([b"[{}]"] * 500) + b"]"

    @given(JSON_VALUES)
    @example({"\ue000": 1, "😀": 2})
    @example((1.0, 1e-7, "null", None))
    def test_a_value_in_a_long_list_gets_the_bytes_that_it_gets_alone(self, value):
        many = [[{}] for _ in range(MAX_RECORD_DEPTH)]
        for finite in (False, True):
            assert encode([*many, value], finite=finite) == rfc8785.dumps([*many, value])

    def test_in_a_long_list_too_what_is_too_deep_or_no_json_is_refused(self):
        many = [[] for _ in range(MAX_RECORD_DEPTH)]
        assert encode([nested(MAX_RECORD_DEPTH - 1), *many], finite=True)
        with pytest.raises(TooLarge):
            encode([nested(MAX_RECORD_DEPTH), *many], finite=True)
        with pytest.raises(BadJson, match="`UUID` is not a JSON value"):
            encode([{"id": uuid.uuid4()}, *many], finite=True)

    def test_tuples_and_subclasses_of_json_types_are_written_as_what_they_hold(self):
        class Level(IntEnum):
            HIGH = 3

        class Name(StrEnum):
            A = "a"

        value = {"t": (1, 2.0), "level": Level.HIGH, "name": Name.A, "o": OrderedDict(b=1, a=[1.0])}
        assert encode(value) == b'{"level":3,"name":"a","o":{"a":[1],"b":1},"t":[1,2]}'

    @pytest.mark.parametrize(
        "make",
        [
            lambda: type("Float", (float,), {})("nan"),
            lambda: OrderedDict(a=math.nan),
            lambda: OrderedDict(a=2**60),
            lambda: OrderedDict({1: 2}),
            lambda: type("Text", (str,), {})(LONE),
            lambda: OrderedDict(a=nested(MAX_RECORD_DEPTH)),
        ],
        ids=["nan float", "nan inside", "big integer inside", "number as key", "lone surrogate", "too deep"],
    )
    def test_subclasses_hide_no_fault(self, make):
        try:
            data = encode([make()])
        except LumynError:
            return
        raise AssertionError(f"{data!r} was written")

    @given(FLOATS.filter(lambda value: abs(value) <= MAX_SAFE_INTEGER))
    def test_tidy_keeps_a_number_and_its_text_but_for_what_is_next_to_nothing(self, value):
        if abs(value) < 1e-5:
            assert tidy(value) == 0
        else:
            assert tidy(value) == value
            assert encode(tidy(value)) == encode(value)


def nested(depth: int):
    value: list = []
    for _ in range(depth - 1):
        value = [value]
    return value


class TestDecoding:
    """Faults say `where:line:column`."""

    @pytest.mark.parametrize(
        ("text", "where", "message"),
        [
            ('{"a": 1,\n "b": NaN}', "in:2:7", "`NaN` is not a JSON number"),
            ("[Infinity]", "in:1:2", "`Infinity` is not a JSON number"),
            ("[1,\n\n  -Infinity]", "in:3:3", "`-Infinity` is not a JSON number"),
            ('{"a": 1,\n  "a": 2}', "in:2:3", "duplicate key `a`"),
            ('{"é": {"b": 1, "b": 1}}', "in:1:16", "duplicate key `b`"),
            ("[9007199254740992]", "in:1:2", "integer 9007199254740992 is beyond 2^53-1"),
            ("[1, -9007199254740992]", "in:1:5", "integer -9007199254740992 is beyond 2^53-1"),
            ("[" + "9" * 5000 + "]", "in:1:2", "beyond 2^53-1"),
            ("[1, 1e400]", "in:1:5", "number 1e400 is beyond a double"),
            ("[1, -1e999]", "in:1:5", "number -1e999 is beyond a double"),
            ("", "in:1:1", "malformed JSON: expecting value"),
            ("[1,\n 2", "in:2:3", "malformed JSON"),
            ("[1] x", "in:1:5", "malformed JSON: extra data"),
            ("[01]", "in:1:3", "malformed JSON"),
            ("[.5]", "in:1:2", "malformed JSON"),
            ("{'a': 1}", "in:1:2", "malformed JSON"),
            ("[1,]", "in:1", "malformed JSON"),
            ('["a\tb"]', "in:1:4", "malformed JSON: invalid control character"),
            ('["\\x"]', "in:1:3", "malformed JSON"),
            ("\ufeff[1]", "in:1:1", "malformed JSON"),
            ("[" * 65 + "]" * 65, "in:1:65", "nested deeper than 64 levels"),
            ('{"a":\n' + '{"a":' * 64 + "1" + "}" * 65, "in:2:316", "nested deeper than 64 levels"),
            ("[" * 100_000, "in:1:65", "nested deeper than 64 levels"),
            ('["\\ud800"]', "in", "lone surrogate"),
            ('{"\\udfff": 1}', "in", "lone surrogate"),
            ('["' + LONE + '"]', "in", "not UTF-8 at byte 2"),
        ],
    )
    def test_a_fault_is_refused_with_its_place(self, text, where, message):
        with pytest.raises(LumynError) as caught:
            decode(text, where="in")
        assert message in caught.value.message
        assert (caught.value.where or "").startswith(where)
        assert str(caught.value).startswith("in")

    @pytest.mark.parametrize(
        "data", [b'["\xff"]', b'["\xed\xa0\x80"]', b'["\xc0\xaf"]', b"\xff\xfe[\x001\x00]\x00"]
    )
    def test_bytes_that_are_not_utf8_are_refused(self, data):
        with pytest.raises(BadJson, match="not UTF-8 at byte"):
            decode(data)

    def test_size_is_bounded_and_the_bound_itself_is_accepted(self):
        fits = b'"' + b"x" * (MAX_BODY_BYTES - 2) + b'"'
        assert decode(fits) == "x" * (MAX_BODY_BYTES - 2)
        with pytest.raises(
            TooLarge, match=f"{MAX_BODY_BYTES + 1} bytes, more than the {MAX_BODY_BYTES} accepted"
        ):
            decode(fits + b" ")

    def test_sixty_four_levels_are_accepted(self):
        assert decode("[" * 64 + "]" * 64) == nested(64)

    def test_brackets_inside_strings_are_not_levels(self):
        assert decode('["' + "[" * 500 + '\\"{"]') == ["[" * 500 + '"{']

    def test_paired_surrogates_are_one_character(self):
        assert decode('["\\ud83d\\ude00"]') == ["😀"]

    @pytest.mark.parametrize("text", ["9007199254740991", "-9007199254740991", "-0", "1E5", "1e-400", "0.10"])
    def test_numbers_within_bounds_are_read(self, text):
        assert decode(text) == float(text)

    @pytest.mark.parametrize(
        ("text", "where"),
        [
            ('{"x": "a", "a": 1, "a": 2}', "in:1:20"),
            ('{"x": "NaN", "b": NaN}', "in:1:19"),
            ('{"x": "9007199254740992", "b": 9007199254740992}', "in:1:32"),
            ('{"ab": 1, "a\\u0062": 2}', "in:1:11"),
        ],
    )
    def test_the_place_is_right_when_a_string_holds_the_same_text(self, text, where):
        with pytest.raises(BadJson) as caught:
            decode(text, where="in")
        assert caught.value.where == where

    @given(st.text(max_size=30))
    def test_any_text_is_read_or_refused_in_the_projects_own_words(self, text):
        try:
            decode(text)
        except LumynError as error:
            assert error.code in ("bad_json", "too_large")

    @given(st.binary(max_size=30))
    def test_any_bytes_are_read_or_refused_in_the_projects_own_words(self, data):
        try:
            decode(data)
        except LumynError as error:
            assert error.code in ("bad_json", "too_large")
