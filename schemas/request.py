"""The decision request: what an agent wants to do, checked and made canonical before anything sees it."""

from __future__ import annotations

import difflib
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, NotRequired

from pydantic import TypeAdapter, ValidationError, with_config
from typing_extensions import TypedDict

from schemas.canonical import check_depth, decode, decode_trusted, encode, encode_noting, encode_plain
from schemas.digests import digest, digest_of
from schemas.errors import BadRequest, LumynError, TooLarge
from schemas.limits import MAX_BODY_BYTES, MAX_DEPTH, MAX_ENVELOPE_BYTES
from schemas.seal import Opening, is_envelope, keyed_digest, open_request, opening_of, seal_request
from schemas.tenant import DEFAULT_TENANT, TENANT


@with_config({"extra": "allow", "strict": True})
class Subject(TypedDict):
    """Whom the action is about. `id` may be a pseudonym."""

    type: str
    id: str


@with_config({"extra": "allow", "strict": True})
class Action(TypedDict):
    """What is to be done: `type`, and any further arguments."""

    type: str
    intent: NotRequired[str | None]
    amount: NotRequired[Any]


@with_config({"extra": "forbid", "strict": True})
class Context(TypedDict):
    """What the agent saw: `inline` facts, and the sha256 of their canonical JSON."""

    mode: NotRequired[str | None]
    inline: NotRequired[dict[str, Any] | None]
    digest: NotRequired[str | None]


@with_config({"extra": "forbid", "strict": True, "title": "DecisionRequest"})
class DecisionRequest(TypedDict):
    """One decision request (CONTRACTS: Decision request)."""

    request_id: NotRequired[str | None]
    tenant: NotRequired[str]
    policy: NotRequired[str | None]
    subject: Subject
    action: Action
    evidence: NotRequired[dict[str, Any] | None]
    context: NotRequired[Context | None]
    provenance: NotRequired[dict[str, Any] | None]


@with_config({"extra": "forbid", "strict": True})
class Sealed(TypedDict):
    """The box that holds the whole request; `tag` names its key among its subject's."""

    schema: str
    tag: str
    box: str


@with_config({"extra": "forbid", "strict": True})
class SealedAction(TypedDict):
    """What of an action stays in clear."""

    type: str
    amount: NotRequired[Any]


@with_config({"extra": "forbid", "strict": True, "title": "SealedRequest"})
class SealedRequest(TypedDict):
    """A request as it is stored with `encrypt_subjects`: `subject.id` is a pseudonym, the rest is in the box."""

    request_id: NotRequired[str]
    tenant: str
    policy: NotRequired[str]
    subject: Subject
    action: SealedAction
    provenance: NotRequired[dict[str, Any]]
    sealed: Sealed


ADAPTER: TypeAdapter[DecisionRequest] = TypeAdapter(DecisionRequest)
SEALED: TypeAdapter[SealedRequest] = TypeAdapter(SealedRequest)
_TOP_LEVEL = tuple(DecisionRequest.__annotations__)
_CONTEXT = tuple(Context.__annotations__)


@dataclass(frozen=True, slots=True)
class Request:
    """A valid request: `value` as asked, its canonical bytes as stored, and the digests that name it.

    A sealed one has an `opening`: then `canonical` is the envelope, and `clear_digest` is what `body_digest` would be
    without sealing (the same request may have come before it was turned on).
    """

    value: dict[str, Any]
    canonical: bytes
    body_digest: str
    inputs_digest: str
    tenant: str
    request_id: str | None
    plain: bool
    """Whether orjson writes the very same bytes, so that a record around it needs no second look."""
    opening: Opening | None = field(default=None, repr=False)
    clear_digest: str | None = None

    @property
    def key(self) -> bytes | None:
        """The log key that makes a retry find the first decision; None without a `request_id`."""
        return f"{self.tenant}/{self.request_id}".encode() if self.request_id is not None else None


def parse_request(
    body: bytes | str | Mapping[str, Any], *, tenant: str = DEFAULT_TENANT, where: str = "request"
) -> Request:
    """Check a request and make it canonical; `tenant` fills an absent one only.

    Raises `BadRequest`, `BadJson` or `TooLarge` saying where. What is returned is exactly what is stored.
    """
    given = decode(body, where=where) if isinstance(body, bytes | str) else body
    if not isinstance(given, Mapping):
        raise BadRequest(f"a request is a JSON object, not {_kind(given)}", where=where)
    value = {k: v for k, v in given.items() if v is not None or k not in _OPTIONAL}
    value.setdefault("tenant", tenant)
    canonical, plain = _canonical(value, where)
    if canonical != body:  # else what was read is what these bytes say
        value = decode_trusted(canonical)
    _validate(value, where)
    return _sealed(value, canonical, plain or encode_plain(value) == canonical)


def stored_request(canonical: bytes) -> Request:
    """A request from the log's own bytes, which `parse_request` made."""
    value = decode_trusted(canonical)
    return _sealed(value, canonical, encode_plain(value) == canonical)


def _sealed(value: dict[str, Any], canonical: bytes, plain: bool) -> Request:
    body_digest = digest(canonical)
    return Request(
        value=value,
        canonical=canonical,
        body_digest=body_digest,
        inputs_digest=inputs_digest(value) if value.keys() & _NOT_INPUTS else body_digest,
        tenant=value["tenant"],
        request_id=value.get("request_id"),
        plain=plain,
    )


def sealed(request: Request, kid: str, key: bytes) -> Request:
    """The request with its personal part sealed under its subject's key."""
    envelope, opening = seal_request(request.value, request.canonical, kid, key)
    return _of_envelope(request.value, request.canonical, encode(envelope), opening)


def opened(envelope: Mapping[str, Any], key: bytes, where: str) -> Request:
    """The request in an envelope from the log, checked as any other. Raises `IntegrityError`, `BadRequest`."""
    opening = opening_of(envelope, key)
    canonical = open_request(envelope, opening)
    return _of_envelope(parse_request(canonical, where=where).value, canonical, encode(envelope), opening)


def recorded_sealed(
    value: dict[str, Any], envelope: Mapping[str, Any], opening: Opening, recorded_digest: str
) -> Request:
    """The request of an opened record. Where the opening can't key the `inputs_digest`, it is the recorded one."""
    return _of_envelope(value, encode(value), encode(envelope), opening, recorded_digest)


def _of_envelope(
    value: dict[str, Any], clear: bytes, canonical: bytes, opening: Opening, recorded_digest: str = ""
) -> Request:
    return Request(
        value=value,
        canonical=canonical,
        body_digest=digest(canonical),
        inputs_digest=keyed_digest(opening, encode(_inputs(value), finite=True)) or recorded_digest,
        tenant=value["tenant"],
        request_id=value.get("request_id"),
        plain=False,
        opening=opening,
        clear_digest=digest(clear),
    )


def envelope_in(body: bytes) -> dict[str, Any] | None:
    """The envelope in a message, if it holds one."""
    if b'"sealed":' not in body or len(body) > MAX_ENVELOPE_BYTES:
        return None
    try:
        value = decode_trusted(body)
    except ValueError:
        return None
    return value if is_envelope(value) else None


_NOT_INPUTS = frozenset({"provenance", "request_id"})
_OPTIONAL = frozenset({"request_id", "policy", "evidence", "context", "provenance", "tenant"})


def inputs_digest(request: Mapping[str, Any]) -> str:
    """Digest of the request without `provenance` and `request_id`: the inputs that a decision rests on."""
    return digest_of(_inputs(request))


def _inputs(request: Mapping[str, Any]) -> dict[str, Any]:
    return {k: v for k, v in request.items() if k not in _NOT_INPUTS}


def _canonical(value: dict[str, Any], where: str) -> tuple[bytes, bool]:
    try:
        canonical, plain = encode_noting(value)
    except LumynError as error:
        raise type(error)(error.message, where=error.where or where, help=error.help) from None
    except RecursionError:
        raise TooLarge("nested too deep", where=where) from None
    if canonical.count(b"[") + canonical.count(b"{") > MAX_DEPTH:
        try:
            check_depth(canonical.decode("utf-8"), where)
        except TooLarge as error:
            raise TooLarge(error.message, where=where) from None
    if len(canonical) > MAX_BODY_BYTES:
        raise TooLarge(f"{len(canonical)} bytes, more than the {MAX_BODY_BYTES} accepted", where=where)
    return canonical, plain


def _validate(value: dict[str, Any], where: str) -> None:
    try:
        ADAPTER.validate_python(value)
    except ValidationError as error:
        raise BadRequest(*_first_problem(error, where)) from None
    for path, text in (
        ("subject.id", value["subject"]["id"]),
        ("subject.type", value["subject"]["type"]),
        ("action.type", value["action"]["type"]),
    ):
        if not text.strip() or len(text) > 512 or not text.isprintable():
            raise BadRequest(f"`{path}` must be 1 to 512 printable characters", where=where)
    if not TENANT.match(value["tenant"]):
        raise BadRequest("`tenant` must be 1 to 64 letters, digits, `_`, `.` or `-`", where=where)
    request_id = value.get("request_id")
    if request_id is not None and not (0 < len(request_id) <= 256 and request_id.isprintable()):
        raise BadRequest("`request_id` must be 1 to 256 printable characters", where=where)
    amount = value["action"].get("amount")
    number = amount.get("value") if isinstance(amount, dict) else amount
    if isinstance(number, int | float) and number < 0:
        raise BadRequest(f"`action.amount` must not be negative (it is {number})", where=where)
    _check_context(value.get("context"), where)


def _check_context(context: Any, where: str) -> None:
    if not context:
        return
    mode = context.get("mode")
    if mode not in (None, "inline", "digest_only"):
        raise BadRequest(f"`context.mode` must be `inline` or `digest_only`, not `{mode}`", where=where)
    inline, given = context.get("inline"), context.get("digest")
    if mode == "inline" and inline is None:
        raise BadRequest("`context.mode` is `inline` but `context.inline` is missing", where=where)
    if given is not None and not re.fullmatch(r"sha256:[0-9a-f]{64}", given):
        raise BadRequest("`context.digest` must be `sha256:` and 64 hex digits", where=where)
    if inline is not None and given is not None and digest_of(inline) != given:
        raise BadRequest(
            f"`context.digest` is not the digest of `context.inline`, which is `{digest_of(inline)}`",
            where=where,
            help="digest = sha256 of the RFC 8785 canonical JSON of `inline`",
        )


def _first_problem(error: ValidationError, where: str) -> tuple[str]:
    problem = error.errors(include_url=False, include_input=False)[0]
    path = ".".join(str(part) for part in problem["loc"])
    if problem["type"] == "missing":
        return (f"{where}: `{path}` is missing",)
    if problem["type"] == "extra_forbidden":
        name = str(problem["loc"][-1])
        known = _CONTEXT if len(problem["loc"]) > 1 else _TOP_LEVEL
        close = difflib.get_close_matches(name, known, 1)
        return (f"{where}: unknown key `{path}`" + (f"; did you mean `{close[0]}`?" if close else ""),)
    text = problem["msg"]
    return (f"{where}: `{path}`: {text[:1].lower()}{text[1:]}",)


def _kind(value: Any) -> str:
    names = {list: "an array", str: "a string", int: "a number", float: "a number", bool: "a boolean"}
    return "null" if value is None else names.get(type(value), type(value).__name__)
