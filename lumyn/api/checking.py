"""Replaying and verifying a stored decision, with what the log holds now and not what this process remembers of it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from lumyn.checkpointing import kept_chain
from lumyn.home import Home
from lumyn.lookup import find_record
from schemas.errors import IntegrityError, IrHashMismatch
from schemas.seal import is_sealed
from streams.control import ControlState, read_control
from streams.integrity import Check, recorded_policy
from streams.proof import prove
from streams.replay import replay
from streams.sealing import opened_record
from streams.verify import verify_record


def verified(home: Home, served: Home, decision_id: str) -> dict[str, Any]:
    """Every check of the whole record, and its place under a signed checkpoint. Raises `NotFound`.

    `served` is the home itself, whose chain of checkpoints is kept; `home` the same as its asker's.
    """
    raw, record = find_record(home, decision_id)
    checks, proof = _checked(home, served, raw, record, read_control(home.log))
    policy = _object(record.get("policy"))
    return {
        "decision_id": record.get("decision_id"),
        "ir_hash": record.get("ir_hash"),
        "verified": all(check.ok for check in checks),
        "condition_id": policy.get("name"),
        "condition_version": policy.get("version"),
        "record_digest": record.get("record_digest"),
        "checks": [{"name": check.name, "ok": check.ok, "detail": check.detail} for check in checks],
        "checkpoint": proof,
    }


def _checked(
    home: Home, served: Home, raw: bytes, record: Mapping[str, Any], control: ControlState
) -> tuple[list[Check], Any]:
    with kept_chain(served) as chain:
        try:
            checks = verify_record(home.log, control, raw, record, chain=chain)
        except (TypeError, ValueError, LookupError, AttributeError) as error:  # what no log of ours could hold
            return [Check("stored", False, f"what is stored can't be read: {type(error).__name__}")], None
        try:
            proof = prove(chain, record) if all(check.ok for check in checks) else None
        except IntegrityError as error:
            return [*checks, Check("checkpoint", False, error.message)], None
    return checks, proof


def replayed(home: Home, served: Home, decision_id: str) -> dict[str, Any]:
    """The recorded inputs decided again, by the recorded policy and memory; a difference is data.

    Raises `NotFound`; `IrHashMismatch` when the record or the program was touched: then there is nothing to replay.
    """
    raw, record = find_record(home, decision_id)
    control = read_control(home.log)
    checks, _ = _checked(home, served, raw, record, control)
    failed = [check for check in checks if not check.ok and check.name != "reproduction"]
    if failed:
        told = "; ".join(f"{check.name}: {check.detail}" if check.detail else check.name for check in failed)
        raise IrHashMismatch(
            f"this is not what decided: {told}", where=f"decision {decision_id}",
            help="`GET .../verify` lists every check; the log's files or its control topic were changed",
        )  # fmt: skip
    policy = recorded_policy(record, control.compiled(record["policy"]["hash"]).source)
    opened = opened_record(home.log.keys, record) if is_sealed(record) else record
    result = replay(opened, policy, memory="recorded")
    return {
        "decision_id": record["decision_id"],
        "result": "same" if not result.differences else "different",
        "matches": result.matches,
        "verdict": result.record["verdict"],
        "reason_codes": result.record["reason_codes"],
        "original": {"verdict": record["verdict"], "reason_codes": record["reason_codes"]},
        "differences": [{"field": d.field, "old": d.old, "new": d.new} for d in result.differences],
        "causes": list(result.causes),
        "engine_changed": result.engine_changed,
        "memory": result.memory,
        "ir_hash": policy.ir_hash,
        "condition_id": record["policy"]["name"],
        "condition_version": record["policy"]["version"],
    }


def _object(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, dict) else {}
