"""A pack of `lumyn` 1.x: its parts, the checks that its own digests allow, and what it can't prove."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, NotRequired

import yaml
from pydantic import TypeAdapter, ValidationError, with_config
from typing_extensions import TypedDict

from schemas.canonical import decode
from schemas.digests import digest
from schemas.errors import BadPack, LumynError
from schemas.limits import MAX_RECORD_BYTES, MAX_RECORD_DEPTH
from streams.integrity import Check
from streams.lumyn1.rules import NEW_NAMES, Outcome, Unreadable, decide_as_then, derived_facts, nearest, with_memory

SCHEMAS = ("decision_record.v0", "decision_record.v1")
_OPEN: Any = {"extra": "allow", "strict": True}


@with_config(_OPEN)
class _Policy(TypedDict):
    policy_id: str
    policy_version: str
    policy_hash: str


@with_config(_OPEN)
class _Determinism(TypedDict):
    engine_version: str
    inputs_digest: str
    memory: NotRequired[dict[str, Any]]


@with_config(_OPEN)
class _Action(TypedDict):
    type: str
    amount: NotRequired[dict[str, Any]]


@with_config(_OPEN)
class _Request(TypedDict):
    schema_version: NotRequired[str]
    subject: dict[str, Any]
    action: _Action
    evidence: NotRequired[dict[str, Any]]
    context: NotRequired[dict[str, Any]]


@with_config(_OPEN)
class _Record(TypedDict):
    schema_version: str
    decision_id: str
    created_at: str
    request: _Request
    policy: _Policy
    verdict: str
    reason_codes: list[str]
    matched_rules: list[dict[str, Any]]
    risk_signals: dict[str, Any]
    determinism: _Determinism


_RECORD: TypeAdapter[_Record] = TypeAdapter(_Record)


@dataclass(frozen=True, slots=True)
class Lumyn1Pack:
    """What a pack of 1.x holds, read but not yet believed."""

    path: str
    record: dict[str, Any]
    request: dict[str, Any]
    policy: dict[str, Any]

    @property
    def made_by(self) -> str:
        """The version that says it decided."""
        return f"lumyn {self.record['determinism']['engine_version']}"

    @property
    def time_ms(self) -> int:
        """When it was decided, as the record says."""
        return _time_ms(self.record["created_at"])

    @property
    def snapshot(self) -> dict[str, Any] | None:
        """The recorded memory hits; None where memory was off, or is said to have been."""
        snapshot: dict[str, Any] | None = self.record["determinism"].get("memory")
        return snapshot


def _time_ms(text: str) -> int:
    moment = datetime.fromisoformat(text)
    return int((moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp() * 1000)


def is_lumyn1(record: object) -> bool:
    """Whether a pack's record is one of 1.x."""
    return isinstance(record, dict) and record.get("schema_version") in SCHEMAS and "schema" not in record


def read_lumyn1(record: Any, request_bytes: bytes, policy_bytes: bytes, where: str) -> Lumyn1Pack:
    """The pack with this record. Raises `BadPack` when a part can't be read."""
    try:
        _RECORD.validate_python(record)
        _time_ms(record["created_at"])
    except ValidationError as error:
        problem = error.errors(include_url=False, include_input=False)[0]
        path = ".".join(map(str, problem["loc"]))
        raise BadPack(f"the record's `{path}`: {problem['msg'].lower()}", where=where) from None
    except (ValueError, OverflowError):
        raise BadPack("the record's `created_at` is not a time", where=where) from None
    try:
        request = decode(request_bytes, where=f"{where}:request.json", limit=MAX_RECORD_BYTES, depth=MAX_RECORD_DEPTH)
    except LumynError as error:
        raise BadPack(error.message, where=error.where) from None
    if not isinstance(request, dict):
        raise BadPack("the request is no object", where=f"{where}:request.json")
    return Lumyn1Pack(where, record, request, _policy(policy_bytes, f"{where}:policy.yml"))


def _policy(data: bytes, where: str) -> dict[str, Any]:
    """The document as 1.x loads it. Aliases, with which a few lines can stand for gigabytes, are refused."""
    try:
        for event in yaml.parse(data, Loader=yaml.SafeLoader):
            if isinstance(event, yaml.AliasEvent):
                raise BadPack("an alias in the policy is not accepted", where=where)
        value = yaml.safe_load(data)
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise BadPack(f"the policy is not YAML: {str(error).splitlines()[0][:120]}", where=where) from None
    if not isinstance(value, dict):
        raise BadPack("the policy is no mapping", where=where)
    return value


def _digest(value: Any) -> str:
    """1.x's digest: sha256 of Python's sorted JSON, which is not RFC 8785 (120.0 stays 120.0)."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return digest(text.encode("utf-8", "surrogatepass"))


def check_lumyn1(pack: Lumyn1Pack) -> list[Check]:
    """Every check that such a pack allows; the last one decides again by the pack's own rules and recorded scores."""
    record = pack.record
    checks = [
        Check("request", *_held(pack.request == record["request"], "request.json is not the record's request")),
        _compared("policy_hash", record["policy"]["policy_hash"], lambda: _digest(pack.policy)),
        _compared("policy", _named(record["policy"]), lambda: _named(pack.policy)),
        _inputs(pack),
    ]
    if pack.snapshot is not None:
        covered = {key: value for key, value in pack.snapshot.items() if key != "snapshot_digest"}
        checks.append(_compared("memory snapshot", pack.snapshot.get("snapshot_digest"), lambda: _digest(covered)))
        checks.append(_scores(pack))
    if all(check.ok for check in checks):
        checks.append(_reproduced(pack))
    return checks


def _held(ok: bool, otherwise: str) -> tuple[bool, str]:
    return ok, "" if ok else otherwise


def _named(policy: Mapping[str, Any]) -> Any:
    return [policy.get("policy_id"), policy.get("policy_version")]


def _compared(name: str, recorded: Any, computed: Any) -> Check:
    try:
        found = computed()
    except (TypeError, ValueError, RecursionError):
        return Check(name, False, "it can't be computed from what the pack holds")
    return Check(name, *_held(recorded == found, f"recorded `{str(recorded)[:80]}`, computed `{str(found)[:80]}`"))


def _inputs(pack: Lumyn1Pack) -> Check:
    """`lumyn convert` left the digest of a v0 request in a pack that it made v1."""
    request = pack.request
    forms = [request]
    if request.get("schema_version") == "decision_request.v1":
        forms.append({**request, "schema_version": "decision_request.v0"})
    recorded = pack.record["determinism"]["inputs_digest"]
    try:
        found = [_digest({"request": form, "derived": derived_facts(form)}) for form in forms]
    except (TypeError, ValueError, AttributeError, RecursionError):
        return Check("inputs_digest", False, "it can't be computed from what the pack holds")
    return Check("inputs_digest", *_held(recorded in found, f"recorded `{recorded[:80]}`, computed `{found[0]}`"))


def _scores(pack: Lumyn1Pack) -> Check:
    assert pack.snapshot is not None
    signals = pack.record["risk_signals"]
    try:
        for name, outcome in (("failure_similarity", -1), ("success_similarity", 1)):
            if float(signals[name]["score"]) != nearest(pack.snapshot, outcome):
                return Check("memory scores", False, f"`{name}` is not that of the recorded hits")
    except (KeyError, TypeError, ValueError):
        return Check("memory scores", False, "the recorded hits can't be read")
    return Check("memory scores", True)


def _reproduced(pack: Lumyn1Pack) -> Check:
    record = pack.record
    if "STORAGE_UNAVAILABLE" in record["reason_codes"] and not record["matched_rules"]:
        return Check("verdict", True, "its store failed then; there is nothing to reproduce")
    try:
        again = decide_again(pack)
    except Unreadable as error:
        return Check("verdict", False, str(error))
    for name, old, new in (
        ("verdict", record["verdict"], again.verdict),
        ("reason_codes", record["reason_codes"], again.reason_codes),
        ("matched_rules", record["matched_rules"], again.matched_rules),
    ):
        if old != new:
            detail = f"the pack's own rules and recorded scores give another `{name}`: {str(new)[:80]}"
            return Check("verdict", False, detail)
    return Check("verdict", True, f"follows from the pack's own rules, as {pack.made_by} reads them")


def decide_again(pack: Lumyn1Pack) -> Outcome:
    """The pack's request by its own rules and recorded memory scores. Raises `Unreadable`."""
    outcome = decide_as_then(pack.request, pack.policy)
    if pack.snapshot is not None:
        outcome = with_memory(outcome, pack.snapshot)
    if pack.record["schema_version"] == "decision_record.v1":  # of v0 rules, when the pack was converted
        return Outcome(NEW_NAMES.get(outcome.verdict, outcome.verdict), outcome.reason_codes, outcome.matched_rules)
    return outcome


def not_provable(pack: Lumyn1Pack) -> list[str]:
    """What can't be shown from such a pack, however many of its digests hold."""
    told = [
        "who made it, and that nobody edited it since: it is not signed, and whoever edits it can make every digest "
        "right again",
        "that verdict, reason codes, rules and obligations are those given then: no digest covers them; that the "
        "verdict follows from the pack's own rules is all that can be checked",
        "when it was decided, in which order, and that nothing was left out: there is no log, no receipt, no "
        "checkpoint",
        "the request as it came: it was redacted before it was stored and digested",
        "the policy file's own bytes: its hash is of what the YAML says",
    ]
    if pack.snapshot is not None:
        told.append(
            "the memory's arithmetic: of neighbours it holds ids, outcomes and scores, no vectors, labels or version"
        )
    elif pack.record["schema_version"] == "decision_record.v1":
        told.append("that memory was off: nothing would show that a memory snapshot was taken out")
    if "failure_similarity_score" in (pack.request.get("evidence") or {}):
        told.append("the failure similarity that its rules saw: what it was computed from is not in the pack")
    return told
