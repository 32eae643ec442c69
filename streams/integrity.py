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
from schemas.request import Request, inputs_digest, stored_request
from streams.control import ControlState, KillSwitch, compile_policy
from streams.decide import Decision, Position, decide
from streams.policy import CompiledPolicy


@dataclass(frozen=True, slots=True)
class Check:
    """One check of a record: its name, whether it held, and what was found."""

    name: str
    ok: bool
    detail: str = ""


def check_record(record: Mapping[str, Any]) -> list[Check]:
    """The checks that need the record alone. Where its digest or its shape fails, nothing in it is read further."""
    sealed = [_sealed(record), _shaped(record)]
    if not all(check.ok for check in sealed):
        return sealed
    request, log = record["request"], record["log"]
    inline, given = _context(request)
    return [
        *sealed,
        _same("inputs_digest", record["inputs_digest"], inputs_digest(request)),
        _same("context.digest", given, digest_of(inline) if inline is not None and given else given),
        _same("decision_id", record["decision_id"], _expected_id(record, log)),
        _same("tenant", record["tenant"], request.get("tenant")),
        _same("request_id", record["request_id"], request.get("request_id")),
        _same("provenance", record["provenance"], request.get("provenance") or {}),
    ]


def _sealed(record: Mapping[str, Any]) -> Check:
    try:
        return _same("record_digest", record.get("record_digest"), record_digest(record))
    except LumynError as error:
        return Check("record_digest", False, error.message)


def _shaped(record: Mapping[str, Any]) -> Check:
    for adapter, value, prefix in ((ADAPTER, record, ()), (REQUEST, record.get("request"), ("request",))):
        try:
            adapter.validate_python(value)
        except ValidationError as error:
            problem = error.errors(include_url=False, include_input=False)[0]
            path = ".".join(map(str, (*prefix, *problem["loc"])))
            return Check("schema", False, f"the record's `{path}`: {problem['msg'].lower()}")
    return Check("schema", True)


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
    """The record's request, as the decider takes it."""
    return stored_request(encode(record["request"], finite=True))


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
        raise IntegrityError(
            "; ".join(f"{check.name} failed ({check.detail})" for check in failed),
            where=where,
            help="the record is not what was decided: keep this file as evidence, and export the decision again",
        )
