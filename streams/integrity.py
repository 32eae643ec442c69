"""Integrity: does a record still say what was decided? Every digest is checked before anything is interpreted."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from pydantic import ValidationError

from memory_service.recall import recorded
from schemas.canonical import encode
from schemas.digests import digest, digest_of
from schemas.errors import IntegrityError, LumynError
from schemas.ids import decision_id, time_ms_of
from schemas.reasons import CONTROL_STALE, INTERNAL_ERROR
from schemas.record import ADAPTER, ENGINE, record_digest
from schemas.request import ADAPTER as REQUEST
from schemas.request import SEALED, Request, inputs_digest, recorded_sealed, stored_request
from schemas.seal import ClosedRecord, OpenRecord, is_sealed, stored_of
from streams.control import ControlState, KillSwitch, compile_policy
from streams.decide import Decision, Position, decide
from streams.policy import CompiledPolicy
from streams.sealing import require_open


@dataclass(frozen=True, slots=True)
class Check:
    """One check of a record: its name, whether it held, and what was found."""

    name: str
    ok: bool
    detail: str = ""


def check_record(record: Mapping[str, Any]) -> list[Check]:
    """The checks that need the record alone. Where its digest or its shape fails, nothing in it is read further.

    Digests cover the stored form. Of a sealed record that is not opened, what is in its boxes is not looked at.
    """
    stored = stored_of(record)
    sealed = [_sealed(stored), _shaped(stored)]
    if not all(check.ok for check in sealed):
        return sealed
    if isinstance(record, OpenRecord):
        shaped = _shaped_request(record["request"])
        if not shaped.ok:
            return [*sealed[:-1], shaped]
    request, log = record["request"], record["log"]
    return [
        *sealed,
        *(_unopened(record) if is_sealed(record) else _inputs(record)),
        _same("decision_id", record["decision_id"], _expected_id(record, log)),
        _same("tenant", record["tenant"], request.get("tenant")),
        _same("request_id", record["request_id"], request.get("request_id")),
        _same("provenance", record["provenance"], request.get("provenance") or {}),
    ]


def _unopened(record: Mapping[str, Any]) -> list[Check]:
    erased = isinstance(record, ClosedRecord) and record.erased
    return [Check("sealed", True, "erased: its subject was forgotten" if erased else "its subject's key is not here")]


def _inputs(record: Mapping[str, Any]) -> list[Check]:
    request = record["request"]
    inline, given = _context(request)
    if isinstance(record, OpenRecord):
        found = recorded_request(record).inputs_digest
    else:
        found = inputs_digest(request)
    return [
        _same("inputs_digest", record["inputs_digest"], found),
        _same("context.digest", given, digest_of(inline) if inline is not None and given else given),
    ]


def _sealed(record: Mapping[str, Any]) -> Check:
    try:
        return _same("record_digest", record.get("record_digest"), record_digest(record))
    except LumynError as error:
        return Check("record_digest", False, error.message)


def _shaped(record: Mapping[str, Any]) -> Check:
    try:
        ADAPTER.validate_python(record)
    except ValidationError as error:
        return _misshapen(error)
    return _shaped_request(record.get("request"), sealed="sealed" in record)


def _shaped_request(request: Any, *, sealed: bool = False) -> Check:
    try:
        (SEALED if sealed else REQUEST).validate_python(request)
    except ValidationError as error:
        return _misshapen(error, "request")
    return Check("schema", True)


def _misshapen(error: ValidationError, *prefix: str) -> Check:
    problem = error.errors(include_url=False, include_input=False)[0]
    path = ".".join(map(str, (*prefix, *problem["loc"])))
    return Check("schema", False, f"the record's `{path}`: {problem['msg'].lower()}")


def _context(request: Mapping[str, Any]) -> tuple[Any, Any]:
    context = request.get("context") or {}
    return context.get("inline"), context.get("digest")


def _expected_id(record: Mapping[str, Any], log: Mapping[str, Any]) -> str:
    try:
        return decision_id(log["topic"], log["partition"], log["offset"], time_ms_of(record["created_at"]))
    except (ValueError, OverflowError):
        return "none: created_at is not a time"


def _same(name: str, recorded_value: Any, found: Any) -> Check:
    ok = recorded_value == found
    return Check(name, ok, "" if ok else f"recorded `{_short(recorded_value)}`, computed `{_short(found)}`")


def _short(value: Any) -> str:
    text = value if isinstance(value, str) else encode(value).decode()
    return text if len(text) <= 80 else text[:77] + "..."


def check_policy(record: Mapping[str, Any], source: bytes) -> list[Check]:
    """The checks that need the policy document: its hash, its name, and its rule graph on the same engine."""
    checks = [_same("policy_hash", record["policy"]["hash"], digest(source))]
    if not checks[0].ok:
        return checks
    try:
        policy = recorded_policy(record, source)
    except LumynError as error:
        return [*checks, Check("policy", False, str(error))]
    checks.append(
        _same("policy", [record["policy"]["name"], record["policy"]["version"]], [policy.name, policy.version])
    )
    if record["engine"] == ENGINE:
        checks.append(_same("ir_hash", record["ir_hash"], policy.ir_hash))
    return checks


def recorded_policy(record: Mapping[str, Any], source: bytes) -> CompiledPolicy:
    """The compiled policy that a record names, from its document. An unnamed policy has its file's name."""
    return compile_policy(source, record["policy"]["name"] + ".yml", record["policy"]["hash"])


def reproduce(record: Mapping[str, Any], policy: CompiledPolicy) -> Decision:
    """Decide the recorded inputs again: same request, position, time, switches and recorded memory."""
    return decide(
        recorded_request(record),
        position_of(record),
        policy,
        recorded_control(record),
        recorded(record),
    )


def recorded_request(record: Mapping[str, Any]) -> Request:
    """The record's request, as the decider takes it. Raises `Erased`, `KeysUnavailable` where it can't be opened."""
    if isinstance(record, OpenRecord):
        return recorded_sealed(record["request"], record.stored["request"], record.opening, record["inputs_digest"])
    require_open(record)
    return stored_request(encode(record["request"], finite=True))


def stored_form(record: Mapping[str, Any]) -> Request:
    """The record's request as the log holds it, for what names it (its digest and its key): nothing is opened."""
    return stored_request(encode(stored_of(record)["request"], finite=True))


def position_of(record: Mapping[str, Any]) -> Position:
    """Where and when the record's request stood in the log."""
    log = record["log"]
    return Position(log["topic"], log["partition"], log["offset"], time_ms_of(record["created_at"]))


def recorded_control(record: Mapping[str, Any]) -> ControlState:
    """The part of the control state that the decision used."""
    switches = tuple(
        KillSwitch(s["switch_id"], s["scope"], s["why"], s["actor"], s["at"]) for s in record["control"]["switches"]
    )
    return ControlState(
        version=record["control"]["version"], switches=switches, stale=CONTROL_STALE in record["reason_codes"]
    )


def check_reproduction(record: Mapping[str, Any], policy: CompiledPolicy) -> Check:
    """Whether the recorded inputs give the recorded decision, byte for byte, on the engine that made it."""
    if record["engine"] != ENGINE:
        return Check("reproduction", True, f"engine_changed: made by `{record['engine']}`, this is `{ENGINE}`")
    if INTERNAL_ERROR in record["reason_codes"]:
        return Check("reproduction", True, "the evaluation raised then; there is nothing to reproduce")
    if is_sealed(record):
        return Check("reproduction", True, "sealed: what was asked can't be read, so it can't be decided again")
    try:
        again = reproduce(record, policy).record
    except Exception as error:  # inputs that no decision could have had
        return Check("reproduction", False, f"its inputs can't be decided: {type(error).__name__}")
    different = [key for key in again if again[key] != record.get(key)]
    detail = f"deciding again gives another `{different[0]}`: {_short(again[different[0]])}" if different else ""
    return Check("reproduction", not different, detail)


def require(checks: list[Check], where: str | None = None) -> None:
    """Raise `IntegrityError` naming every check that failed."""
    failed = [check for check in checks if not check.ok]
    if failed:
        only_signer = [check.name for check in failed] == ["signature"]
        raise IntegrityError(
            "; ".join(f"{check.name} failed ({check.detail})" for check in failed),
            where=where,
            help="its digests hold: find out whose key it is; `--trust-signer` accepts it for this once"
            if only_signer
            else "the record is not what was decided: keep this file as evidence, and export the decision again",
        )
