"""RFC 8785 canonical JSON: strict decoding of what comes in, one exact encoding of what is stored.

The encoder lets orjson write, then looks at the bytes for the few signs of where orjson and RFC 8785 could differ:
floats that ECMAScript writes another way, keys beyond U+FFFF (orjson sorts by code point, RFC 8785 by UTF-16 unit),
NaN (orjson writes null) and deep nesting. Where a sign is found, an exact encoder in Python takes over.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterable
from typing import Any

import orjson

from schemas.errors import BadJson, TooLarge
from schemas.limits import MAX_BODY_BYTES, MAX_DEPTH, MAX_RECORD_DEPTH, MAX_SAFE_INTEGER

_OPTIONS = (
    orjson.OPT_SORT_KEYS
    | orjson.OPT_STRICT_INTEGER
    | orjson.OPT_PASSTHROUGH_DATACLASS
    | orjson.OPT_PASSTHROUGH_DATETIME
    | orjson.OPT_PASSTHROUGH_SUBCLASS
)
_CONTAINERS = frozenset({dict, list, tuple})
_EXACT = _CONTAINERS | {str, int, float, bool, type(None)}
# Both begin with a literal, which a search finds fast; together they find all that the exact pattern finds, and more.
_WHOLE_FLOAT = re.compile(rb"\.0[,\]}]")
_EXPONENT = re.compile(rb"e[-+]?[0-9]+[,\]}]")
_ODD_NUMBER = re.compile(rb'[:\[,](?<![^"]:)-?[0-9]+(?:\.[0-9]+)?(?:(?<=\.0)[,\]}]|e[-+0-9])')


_ORDER_MARKS = (b"\xef\xbb\xbf", b"\xff\xfe", b"\xfe\xff")
"""UTF-8's and UTF-16's: what editors and shells on Windows write before a text."""


def encode(value: Any, *, finite: bool = False) -> bytes:
    """Canonical bytes of a JSON value (dict, list, str, int, float, bool, None).

    `finite` promises that no float is NaN or infinite (as in anything decoded from JSON), which saves a walk.
    Raises `BadJson` for NaN, Infinity, integers beyond 2^53-1, lone surrogates, keys that are not strings and other
    types; `TooLarge` for more than 80 levels (a record around a request of 64). Source: RFC 8785.
    """
    return encode_noting(value, finite=finite)[0]


def encode_noting(value: Any, *, finite: bool = False) -> tuple[bytes, bool]:
    """As `encode`; also whether orjson surely writes these very bytes (see `is_canonical`)."""
    try:
        data = orjson.dumps(value, option=_OPTIONS)
    except TypeError:  # the walk below says what and where in the project's own words
        data = b"-"
    if (
        (finite or b"null" not in data)
        and is_canonical(data)
        and (data.count(b"{") + data.count(b"[") <= MAX_RECORD_DEPTH or _is_exact(value))
    ):
        return data, True
    if _plain(value, 0):
        data = orjson.dumps(value, option=_OPTIONS)
        return data, is_canonical(data)
    try:  # most often all that is odd is a number like 120.0, which is written as 120
        data = orjson.dumps(_with_whole_numbers(value), option=_OPTIONS)
    except TypeError:
        data = b"-"
    return (data if is_canonical(data) else _slow(value).encode("utf-8")), False


def is_plain_number(value: float | int) -> bool:
    """Whether orjson writes a number as RFC 8785 does."""
    return isinstance(value, int) or (1e-5 <= abs(value) < 1e15 and not value.is_integer())


def encode_plain(value: Any) -> bytes:
    """orjson's bytes: canonical for strings, integers, booleans and null under ASCII keys."""
    return orjson.dumps(value, option=_OPTIONS)


def is_canonical(data: bytes) -> bool:
    """Whether bytes that orjson wrote (keys sorted, numbers finite) surely are RFC 8785's; False means perhaps."""
    if data[0] not in b"{[" or not (data.isascii() or max(data) < 0xF0):
        return False
    sign = _WHOLE_FLOAT.search(data) or _EXPONENT.search(data)
    return sign is None or not _ODD_NUMBER.search(data)


def _is_exact(value: Any) -> bool:
    """Whether there is nothing but JSON's own types in it, and nothing too deep; all else is for the walk below."""
    level = [value]
    for _ in range(MAX_RECORD_DEPTH):
        items = [item for node in level for item in (node.values() if type(node) is dict else node)]
        kinds = set(map(type, items))
        if not kinds <= _EXACT:
            return False
        if kinds.isdisjoint(_CONTAINERS):
            return True
        level = [item for item in items if type(item) in _CONTAINERS]
    return False


def _plain(value: Any, depth: int) -> bool:
    """Whether orjson's bytes are the canonical bytes; raises `BadJson` for what JSON can't hold."""
    kind = type(value)
    if value is None or kind is bool:
        return True
    if isinstance(value, str):
        if not value.isascii():
            _check_text(value)
        return kind is str
    if isinstance(value, int):
        if not -MAX_SAFE_INTEGER <= value <= MAX_SAFE_INTEGER:
            raise BadJson(f"integer {str(int(value))[:24]} is beyond 2^53-1, which JSON readers do not keep exactly")
        return kind is int
    if isinstance(value, float):
        if not math.isfinite(value):
            raise BadJson(f"`{float(value)}` is not a JSON number")
        if MAX_SAFE_INTEGER < abs(value) < 1e21:  # its text would be an integer that readers do not keep exactly
            raise BadJson(f"number {float(value)!r} is an integer beyond 2^53-1")
        return kind is float and is_plain_number(value)
    if depth >= MAX_RECORD_DEPTH:
        raise TooLarge(f"nested deeper than {MAX_RECORD_DEPTH} levels")
    if isinstance(value, dict):
        return _plain_keys(value) & _all_plain(value.values(), depth) & (kind is dict)
    if isinstance(value, list | tuple):
        return _all_plain(value, depth) & (kind in (list, tuple))
    raise BadJson(f"`{kind.__name__}` is not a JSON value")


def _all_plain(items: Iterable[Any], depth: int) -> bool:
    plain = True
    for item in items:  # to the end: what JSON can't hold must raise wherever it stands
        plain &= _plain(item, depth + 1)
    return plain


def _plain_keys(value: dict[Any, Any]) -> bool:
    plain = True
    for key in value:
        if not isinstance(key, str):
            raise BadJson(f"key `{key!r}` is not a string")
        if not key.isascii():
            _check_text(key)
            plain = plain and max(key) < "\ud800"
        plain = plain and type(key) is str
    return plain


def _check_text(text: str) -> None:
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        raise BadJson("a string holds a lone surrogate, which is not unicode text") from None


def _with_whole_numbers(value: Any) -> Any:
    """The value with its whole floats as integers, which RFC 8785 writes alike (those beyond 2^53 stay as they are)."""
    kind = type(value)
    if kind is float:
        return int(value) if abs(value) <= MAX_SAFE_INTEGER and value.is_integer() else value
    if kind is dict:
        return {key: _with_whole_numbers(item) for key, item in value.items()}
    if kind is list or kind is tuple:
        return [_with_whole_numbers(item) for item in value]
    return value


def _slow(value: Any) -> str:
    if value is None:
        return "null"
    if value is True:
        return "true"
    if value is False:
        return "false"
    if isinstance(value, str):
        return json.dumps(str(value), ensure_ascii=False)
    if isinstance(value, int):
        return str(int(value))
    if isinstance(value, float):
        return number_text(float(value))
    if isinstance(value, dict):
        keys = sorted(value, key=lambda k: k.encode("utf-16-be", "surrogatepass"))
        return "{" + ",".join(f"{_slow(k)}:{_slow(value[k])}" for k in keys) + "}"
    return "[" + ",".join(map(_slow, value)) + "]"


def tidy(value: float) -> float | int:
    """A score as orjson and RFC 8785 both write it: whole numbers as int, nothing nearer to 0 than 1e-5."""
    value = float(value)
    return int(value) if -1e-5 < value < 1e-5 or value.is_integer() else value


def number_text(value: float) -> str:
    """A finite double as ECMAScript's Number::toString writes it (RFC 8785 section 3.2.2.3)."""
    if value == 0:
        return "0"
    sign = "-" if value < 0 else ""
    digits, _, exponent_text = f"{abs(value)!r}".partition("e")
    whole, _, fraction = digits.partition(".")
    if fraction == "0":
        fraction = ""
    exponent = int(exponent_text or 0) + len(whole)
    digits = whole + fraction
    stripped = digits.lstrip("0")
    exponent -= len(digits) - len(stripped)
    digits = stripped.rstrip("0")
    count = len(digits)
    if count <= exponent <= 21:
        return sign + digits + "0" * (exponent - count)
    if 0 < exponent <= 21:
        return sign + digits[:exponent] + "." + digits[exponent:]
    if -6 < exponent <= 0:
        return sign + "0." + "0" * -exponent + digits
    power = exponent - 1
    mantissa = digits[0] + ("." + digits[1:] if count > 1 else "")
    return f"{sign}{mantissa}e{'+' if power > 0 else '-'}{abs(power)}"


class _Fault(ValueError):
    """Something that JSON's grammar allows or Python's reader accepts, and we don't."""


def _pairs(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    out = dict(pairs)
    if len(out) != len(pairs):
        raise _Fault
    return out


def _no_constant(_: str) -> Any:
    raise _Fault


def _integer(text: str) -> int:
    if _bad_number(text):
        raise _Fault
    return int(text)


def _float(text: str) -> float:
    if _bad_number(text):
        raise _Fault
    return float(text)


def _bad_number(text: str) -> str | None:
    """What is wrong with a number as it is written."""
    if text in ("NaN", "Infinity", "-Infinity"):
        return f"`{text}` is not a JSON number"
    if text.lstrip("-").isdigit():
        if len(text) > 20 or abs(int(text)) > MAX_SAFE_INTEGER:
            return f"integer {text[:24]} is beyond 2^53-1, which JSON readers do not keep exactly"
    elif not math.isfinite(float(text)):
        return f"number {text[:24]} is beyond a double"
    return None


_DECODER = json.JSONDecoder(
    object_pairs_hook=_pairs, parse_constant=_no_constant, parse_int=_integer, parse_float=_float
)
_DIGITS = bytes(48 if byte in b"0123456789" else 32 for byte in range(256))
_LONG_NUMBER = b"0" * 16
"""In bytes whose digits were made alike: a number that may be beyond 2^53-1."""
_TOKEN = re.compile(r'"(?:[^"\\]|\\.)*"|[{}\[\]:,]|[^\s{}\[\]:,"]+')


def _first_fault(text: str) -> tuple[int, str]:
    """Where the first fault of well-formed JSON stands, and what it is: read again token by token."""
    keys: list[set[str]] = []
    word, at = "", 0
    for found in _TOKEN.finditer(text):
        before, before_at, word, at = word, at, found[0], found.start()
        if word in "{[":
            keys.append(set())
        elif word in "}]":
            keys.pop()
        elif word == ":":
            key = json.loads(before)
            if key in keys[-1]:
                return before_at, f"duplicate key `{key}`"
            keys[-1].add(key)
        elif (word[0] in "-NI" or word[0].isdigit()) and (problem := _bad_number(word)):
            return at, problem
    return 0, "not JSON"


def _marked(raw: bytes) -> str | None:
    marked = raw.startswith(_ORDER_MARKS)
    return "it begins with a byte order mark: save it as UTF-8 without one" if marked else None


def decode(data: bytes | str, *, where: str = "input", limit: int = MAX_BODY_BYTES, depth: int = MAX_DEPTH) -> Any:
    """Strict JSON: one value, UTF-8, no duplicate keys, no NaN or Infinity, exact integers, bounded.

    Raises `BadJson` or `TooLarge` whose `where` is `where:line:column` when the place is known.
    """
    raw = data.encode("utf-8", "surrogatepass") if isinstance(data, str) else data
    if len(raw) > limit:
        raise TooLarge(f"{len(raw)} bytes, more than the {limit} accepted", where=where)
    try:
        text = raw.decode("utf-8")
    except UnicodeDecodeError as error:
        raise BadJson(f"not UTF-8 at byte {error.start}", where=where, help=_marked(raw)) from None
    check_depth(text, where, depth)
    if b"\\u" not in raw and _LONG_NUMBER not in raw.translate(_DIGITS):
        try:
            value = orjson.loads(raw)
            if orjson.dumps(value) == raw:  # nothing was read twice, rounded or left out: as strict, and faster
                return value
        except (orjson.JSONDecodeError, TypeError):
            pass
    try:
        value = _DECODER.decode(text)
    except json.JSONDecodeError as error:
        said, place = f"{error.msg[:1].lower()}{error.msg[1:]}", f"{where}:{error.lineno}:{error.colno}"
        raise BadJson(f"malformed JSON: {said}", where=place, help=_marked(raw)) from None
    except _Fault:
        at, problem = _first_fault(text)
        raise BadJson(problem, where=_line_column(text, at, where)) from None
    except RecursionError:
        raise TooLarge(f"nested deeper than {depth} levels", where=where) from None
    if "\\u" in text:
        try:
            _check_text(json.dumps(value, ensure_ascii=False))
        except BadJson as error:
            raise BadJson(error.message, where=where) from None
    return value


def decode_trusted(data: bytes) -> Any:
    """Decode bytes that `encode` wrote (the log's own): fast, no checks beyond JSON itself."""
    return orjson.loads(data)


def check_depth(text: str, where: str, limit: int = MAX_DEPTH) -> None:
    """Refuse deep nesting before a parser recurses into it. Cheap upper bound first, exact scan only if needed."""
    if text.count("[") + text.count("{") <= limit:
        return
    depth = 0
    in_string = False
    escaped = False
    for index, char in enumerate(text):
        if in_string:
            if escaped:
                escaped = False
            elif char == "\\":
                escaped = True
            elif char == '"':
                in_string = False
        elif char == '"':
            in_string = True
        elif char in "[{":
            depth += 1
            if depth > limit:
                raise TooLarge(f"nested deeper than {limit} levels", where=_line_column(text, index, where))
        elif char in "]}":
            depth -= 1


def _line_column(text: str, index: int, where: str) -> str:
    line = text.count("\n", 0, index) + 1
    return f"{where}:{line}:{index - text.rfind(chr(10), 0, index)}"
