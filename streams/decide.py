"""The one evaluator: (request, log position and time, compiled policy, control state, recall) -> record. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from operator import itemgetter
from typing import Any

import orjson

from memory_service.recall import OFF, Recall
from schemas.canonical import decode_trusted, encode, is_canonical, is_plain_number
from schemas.digests import digest
from schemas.ids import decision_id, is_decision_id, iso_time
from schemas.reasons import CONTROL_STALE, INTERNAL_ERROR, KILL_SWITCH
from schemas.record import ENGINE, SCHEMA, DecisionRecord, record_digest
from schemas.request import Request
from schemas.seal import OpenRecord, seal_record
from streams.arbitration import Outcome, arbitrate
from streams.control import ControlState, KillSwitch
from streams.policy import CompiledPolicy, RuleHit


@dataclass(frozen=True, slots=True)
class Position:
    """Where and when a request entered the log; `topic` is the full name."""

    topic: str
    partition: int
    offset: int
    time_ms: int


@dataclass(frozen=True, slots=True)
class Decision:
    """A record and its canonical bytes, which are what is stored; of a sealed request the record is the opened one."""

    record: dict[str, Any]
    canonical: bytes


def decide(
    request: Request,
    position: Position,
    policy: CompiledPolicy,
    control: ControlState,
    recall: Recall = OFF,
) -> Decision:
    """Decide one request. No clock, no random, no I/O: the same arguments give the same bytes."""
    switches = control.switches_for(request.tenant, request.value["action"]["type"], policy.name)
    return _seal(
        request,
        position,
        policy,
        control.version,
        switches,
        recall,
        _outcome(request, position, policy, control.stale, switches, recall),
        links_of(request),
    )


def internal_error(
    request: Request, position: Position, policy: CompiledPolicy, control: ControlState
) -> Decision:
    """The record of a request whose evaluation raised: ABSTAIN, so that nothing is lost and nothing is let through."""
    switches = control.switches_for(request.tenant, request.value["action"]["type"], policy.name)
    outcome = Outcome("ABSTAIN", (INTERNAL_ERROR,), (), (), ())
    if switches:
        outcome = Outcome("DENY", (KILL_SWITCH, INTERNAL_ERROR), (), (), ())
    return _seal(request, position, policy, control.version, switches, OFF, outcome, links_of(request))


def links_of(request: Request) -> dict[str, Any]:
    """What the request says it follows from: `provenance.redrive_of`, the decision that it decides again."""
    first = (request.value.get("provenance") or {}).get("redrive_of")
    return {"redrive_of": first} if isinstance(first, str) and is_decision_id(first) else {}


def _outcome(
    request: Request,
    position: Position,
    policy: CompiledPolicy,
    stale: bool,
    switches: tuple[KillSwitch, ...],
    recall: Recall,
) -> Outcome:
    evaluation = policy.evaluate(request.value, time_ms=position.time_ms, memory=recall.memory_facts())
    if switches:
        return Outcome("DENY", (KILL_SWITCH,), evaluation.hits, (), ())
    if stale:
        return Outcome("ABSTAIN", (CONTROL_STALE,), evaluation.hits, (), ())
    return arbitrate(policy, evaluation, recall)


def _seal(
    request: Request,
    position: Position,
    policy: CompiledPolicy,
    control_version: int,
    switches: tuple[KillSwitch, ...],
    recall: Recall,
    outcome: Outcome,
    links: Mapping[str, Any],
) -> Decision:
    """Compose the record and close it with the digest of everything in it."""
    record: dict[str, Any] = {
        "schema": SCHEMA,
        "engine": ENGINE,
        "decision_id": decision_id(position.topic, position.partition, position.offset, position.time_ms),
        "request_id": request.request_id,
        "tenant": request.tenant,
        "created_at": iso_time(position.time_ms),
        "inputs_digest": request.inputs_digest,
        "policy": {"name": policy.name, "version": policy.version, "hash": policy.policy_hash},
        "ir_hash": policy.ir_hash,
        "control": {"version": control_version, "switches": [s.as_record() for s in switches]},
        "verdict": outcome.verdict,
        "reason_codes": list(outcome.reason_codes),
        "matched_rules": [trace_of(hit) for hit in outcome.hits],
        "obligations": list(outcome.obligations),
        "queries": list(outcome.queries),
        "risk_signals": recall.signals,
        "memory": {**recall.as_record(), "settings": _settings(policy, recall)},
        "log": {"topic": position.topic, "partition": position.partition, "offset": position.offset},
        "links": dict(links),
    }
    record["provenance"] = request.value.get("provenance") or {}
    if request.opening is not None:
        stored = seal_record(record, decode_trusted(request.canonical), request.opening)
        stored["record_digest"] = record["record_digest"] = record_digest(stored)
        record["request"] = request.value
        return Decision(OpenRecord(record, stored, request.opening), encode(stored, finite=True))
    # A record's numbers come from the request, the policy, `tidy` and neighbours' amounts: where these are plain,
    # orjson's bytes are canonical.
    plain = request.plain and _is_plain(policy) and all(is_plain_number(h.amount or 0) for h in recall.counted)
    if plain or is_canonical(orjson.dumps(record, option=orjson.OPT_SORT_KEYS)):
        record["record_digest"], canonical = _sealed_bytes(record, request.canonical)
        record["request"] = request.value
    else:
        record["request"] = request.value
        record["record_digest"] = record_digest(record)
        canonical = encode(record, finite=True)
    return Decision(record, canonical)


_NAMES = sorted(DecisionRecord.__annotations__.keys() - {"sealed"})
_BEFORE_DIGEST = tuple(name for name in _NAMES if name < "record_digest")
_AFTER_DIGEST = tuple(name for name in _NAMES if name > "request")
_parts_before, _parts_after = itemgetter(*_BEFORE_DIGEST), itemgetter(*_AFTER_DIGEST)


def _sealed_bytes(record: Mapping[str, Any], request: bytes) -> tuple[str, bytes]:
    """The digest and the canonical bytes of a plain record.

    Each part is encoded once: what sorts before the digest, and what sorts after it. Between them stand the digest
    itself, which it does not cover, and the request, whose bytes are canonical already.
    """
    before = orjson.dumps(dict(zip(_BEFORE_DIGEST, _parts_before(record), strict=True)), option=orjson.OPT_SORT_KEYS)
    after = orjson.dumps(dict(zip(_AFTER_DIGEST, _parts_after(record), strict=True)), option=orjson.OPT_SORT_KEYS)
    start = before[:-1] + b","
    rest = b'"request":' + request + b"," + after[1:]
    record_digest = digest(start + rest)
    return record_digest, start + b'"record_digest":"' + record_digest.encode() + b'",' + rest


@lru_cache(maxsize=1024)
def _is_plain(policy: CompiledPolicy) -> bool:
    """Whether every number that the policy puts into a record is written alike; exchange rates make new ones."""
    settings = policy.memory.as_dict() if policy.memory is not None else None
    parts = orjson.dumps([[rule.ir() for rule in policy.rules], settings], option=orjson.OPT_SORT_KEYS)
    return not policy.fx and is_canonical(parts)


def _settings(policy: CompiledPolicy, recall: Recall) -> dict[str, Any] | None:
    """The thresholds and weights in force, so that the record explains itself."""
    return policy.memory.as_dict() if policy.memory is not None and recall.mode != "off" else None


def trace_of(hit: RuleHit) -> dict[str, Any]:
    """A hit as a record's `matched_rules` show it."""
    return {
        "id": hit.id,
        "stage": hit.stage,
        "effect": hit.effect,
        "outcome": hit.outcome,
        "reason_codes": list(hit.reason_codes),
        "facts": [dict(fact) for fact in hit.facts],
    }
