"""Attesting that the logic was unchanged: from verified records, by `ir_hash`; signed, and checked by anyone."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, cast

from pydantic import ValidationError

from schemas.attestation import (
    ADAPTER,
    SCHEMA,
    Attestation,
    Compared,
    Covered,
    Difference,
    Logic,
    Memory,
    Seen,
    Source,
    Statement,
)
from schemas.canonical import decode, encode
from schemas.digests import digest_of
from schemas.errors import IntegrityError, LumynError
from schemas.limits import MAX_PACK_BYTES
from schemas.reasons import (
    FAILURE_MEMORY_SIMILAR_BLOCK,
    FAILURE_MEMORY_SIMILAR_ESCALATE,
    INTERNAL_ERROR,
    KILL_SWITCH,
)
from schemas.record import ENGINE
from streams.control import compile_policy
from streams.integrity import Check
from streams.signing import PublicKey, SigningKey

_MEMORY_CODES = frozenset({FAILURE_MEMORY_SIMILAR_BLOCK, FAILURE_MEMORY_SIMILAR_ESCALATE})
_Key = tuple[str | None, str, str, str]


@dataclass(slots=True)
class Collected:
    """What the records of a period say about the logic; filled record by record, in the order of the log.

    It grows with the number of policies, not of decisions.
    """

    decisions: int = 0
    kill_switch: int = 0
    internal_error: int = 0
    _logic: dict[_Key, Logic] = field(default_factory=dict)
    _memory: dict[str, Memory] = field(default_factory=dict)
    _records: Any = field(default_factory=hashlib.sha256)

    def add(self, record: Mapping[str, Any]) -> None:
        """Take in a record whose checks all held."""
        self.decisions += 1
        self._records.update(record["record_digest"].encode() + b"\n")
        self.kill_switch += KILL_SWITCH in record["reason_codes"]
        self.internal_error += INTERNAL_ERROR in record["reason_codes"]
        self._take_logic(record)
        if record["memory"]["epoch"] is not None:
            self._take_memory(record)

    def _take_logic(self, record: Mapping[str, Any]) -> None:
        policy, seen = record["policy"], Seen(decision_id=record["decision_id"], at=record["created_at"])
        asked = record["request"].get("policy")
        logic = self._logic.setdefault(
            (asked, policy["name"], record["ir_hash"], record["engine"]),
            {
                "asked": asked,
                "policy": policy["name"],
                "ir_hash": record["ir_hash"],
                "engine": record["engine"],
                "documents": [],
                "decisions": 0,
                "verdicts": {},
                "first": seen,
                "last": seen,
            },
        )
        document = {"version": policy["version"], "hash": policy["hash"]}
        if document not in logic["documents"]:
            logic["documents"].append(cast(Any, document))
        logic["decisions"] += 1
        logic["verdicts"][record["verdict"]] = logic["verdicts"].get(record["verdict"], 0) + 1
        logic["first"] = min(logic["first"], seen, key=_moment)  # partitions come one after another
        logic["last"] = max(logic["last"], seen, key=_moment)

    def _take_memory(self, record: Mapping[str, Any]) -> None:
        memory = record["memory"]
        version = memory["version"] or 0
        known = self._memory.setdefault(
            memory["epoch"],
            {
                "epoch": memory["epoch"],
                "from_version": version,
                "to_version": version,
                "decisions": 0,
                "changed_verdict": 0,
            },
        )
        known["from_version"] = min(known["from_version"], version)
        known["to_version"] = max(known["to_version"], version)
        known["decisions"] += 1
        known["changed_verdict"] += not _MEMORY_CODES.isdisjoint(record["reason_codes"])

    @property
    def logic(self) -> list[Logic]:
        """By the policy that was asked for, then by time."""
        return sorted(self._logic.values(), key=lambda one: (one["asked"] or "", one["first"]["at"], one["ir_hash"]))

    @property
    def memory(self) -> list[Memory]:
        """One a memory."""
        return list(self._memory.values())

    @property
    def records(self) -> str:
        """The digest of all record digests."""
        return "sha256:" + str(self._records.hexdigest())


def _moment(seen: Seen) -> tuple[str, str]:
    return seen["at"], seen["decision_id"]


def is_unchanged(logic: Iterable[Logic]) -> bool:
    """Whether requests that asked for the same policy were all decided by the same rules, on the same engine."""
    return all(len(rules) == 1 for rules in _by_asked(logic).values())


def make_statement(
    collected: Collected,
    *,
    environment: str,
    tenant: str,
    log: str,
    period: tuple[str, str],
    made_at: str,
    checkpoints: Covered,
    key: SigningKey,
    other: Attestation | None = None,
) -> Statement:
    """The statement to sign; `other` is an attestation that it is compared with."""
    logic = collected.logic
    return {
        "schema": SCHEMA,
        "environment": environment,
        "tenant": tenant,
        "log": log,
        "start": period[0],
        "end": period[1],
        "made_at": made_at,
        "verified_by": ENGINE,
        "decisions": collected.decisions,
        "records": collected.records,
        "logic": logic,
        "unchanged": is_unchanged(logic),
        "kill_switch": collected.kill_switch,
        "internal_error": collected.internal_error,
        "memory": collected.memory,
        "checkpoints": checkpoints,
        "compared": compare(logic, other) if other is not None else None,
        "key_id": key.public.key_id,
    }


def sign_attestation(statement: Statement, key: SigningKey, policies: list[Source] | None = None) -> Attestation:
    """The signed document."""
    attestation: Attestation = {
        "statement": statement,
        "public_key": key.public.text,
        "signature": key.sign(encode(statement)),
    }
    if policies is not None:
        attestation["policies"] = policies
    return attestation


def read_attestation(data: bytes, where: str) -> Attestation:
    """An attestation, read but not yet believed. Raises `IntegrityError`."""
    try:
        value = decode(data, where=where, limit=MAX_PACK_BYTES)
        ADAPTER.validate_python(value)
    except ValidationError as error:
        problem = error.errors(include_url=False, include_input=False)[0]
        path = ".".join(map(str, problem["loc"]))
        raise IntegrityError(f"not an attestation: `{path}`: {problem['msg'].lower()}", where=where) from None
    except LumynError as error:
        raise IntegrityError(f"not an attestation: {error.message}", where=error.where) from None
    return cast(Attestation, value)


def check_attestation(attestation: Attestation) -> list[Check]:
    """What anyone can check: the signature, that the statement agrees with itself, and enclosed policies.

    Whose key it is, is for the caller to know.
    """
    checks = [_signature(attestation)]
    if checks[0].ok:
        checks.append(_agrees(attestation["statement"]))
        checks += [_policy(attestation["statement"], policy) for policy in attestation.get("policies", [])]
    return checks


def _signature(attestation: Attestation) -> Check:
    statement = attestation["statement"]
    try:
        key = PublicKey.from_text(attestation["public_key"])
        signed = encode(statement)
    except LumynError as error:
        return Check("signature", False, error.message)
    if key.key_id != statement["key_id"]:
        return Check("signature", False, "it does not name its own key")
    if not key.verify(attestation["signature"], signed):
        return Check("signature", False, f"it is not key {key.key_id}'s over this statement")
    return Check("signature", True, f"by key {key.key_id}")


def _agrees(statement: Statement) -> Check:
    logic = statement["logic"]
    wrong = None
    if sum(one["decisions"] for one in logic) != statement["decisions"]:
        wrong = "its decisions are not the sum of its parts"
    elif any(sum(one["verdicts"].values()) != one["decisions"] for one in logic):
        wrong = "its verdicts are not as many as its decisions"
    elif statement["unchanged"] != is_unchanged(logic):
        wrong = "what it says about change does not follow from what it lists"
    return Check("statement", wrong is None, wrong or "")


def _policy(statement: Statement, policy: Source) -> Check:
    """Whether an enclosed document has the hash, and its rules the `ir_hash`, that were signed."""
    source, name = policy["source"].encode("utf-8", "surrogatepass"), f"policy {policy['hash'][:19]}"
    users = [one for one in statement["logic"] if any(d["hash"] == policy["hash"] for d in one["documents"])]
    if not users:
        return Check(name, False, "nothing was decided by it")
    try:
        found = compile_policy(source, f"{policy['name']}.yml", policy["hash"]).ir_hash
    except LumynError as error:
        return Check(name, False, error.message[:200])
    wrong = [one for one in users if one["engine"] == ENGINE and one["ir_hash"] != found]
    return Check(name, not wrong, f"its rules have `{found}`, not the signed ir_hash" if wrong else f"ir_hash {found}")


def compare(logic: Iterable[Logic], other: Attestation) -> Compared:
    """What two environments have in common, by `ir_hash` and engine. The other one's checks are the caller's."""
    statement = other["statement"]
    here, there = _by_asked(logic), _by_asked(statement["logic"])
    differences: list[Difference] = [
        {
            "asked": asked,
            "here": here.get(asked, []),
            "there": there.get(asked, []),
            "same": here.get(asked) == there.get(asked),
        }
        for asked in sorted({*here, *there}, key=lambda name: name or "")
    ]
    return {
        "statement": digest_of(statement),
        "key_id": statement["key_id"],
        "environment": statement["environment"],
        "period": [statement["start"], statement["end"]],
        "same": all(one["same"] for one in differences),
        "logic": differences,
    }


def _by_asked(logic: Iterable[Logic]) -> dict[str | None, list[str]]:
    found: dict[str | None, set[str]] = {}
    for one in logic:
        found.setdefault(one["asked"], set()).add(f"{one['ir_hash']} {one['engine']}")
    return {asked: sorted(names) for asked, names in found.items()}
