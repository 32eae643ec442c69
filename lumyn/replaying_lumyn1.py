"""Replaying packs of `lumyn` 1.x: their own checks, and their request under a policy of ours."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from memory_service.recall import OFF
from schemas.errors import BadRequest, UsageError
from schemas.request import parse_request
from schemas.tenant import DEFAULT_TENANT
from streams.control import ControlState
from streams.decide import Position, decide
from streams.integrity import Check, require
from streams.lumyn1.pack import Lumyn1Pack, check_lumyn1, not_provable
from streams.lumyn1.rules import NEW_NAMES
from streams.policy import CompiledPolicy


@dataclass(frozen=True, slots=True)
class Lumyn1Replay:
    """What became of a pack of 1.x: its checks, and the verdict now. `record` is None without a candidate policy."""

    pack: Lumyn1Pack
    checks: tuple[Check, ...]
    record: dict[str, Any] | None
    unproven: tuple[str, ...]

    @property
    def original(self) -> tuple[str, list[str]]:
        """Verdict and reason codes as recorded."""
        return self.pack.record["verdict"], self.pack.record["reason_codes"]

    @property
    def now(self) -> tuple[str, list[str]]:
        """Verdict and reason codes of the candidate; without one, those that the pack's own rules give."""
        return self.original if self.record is None else (self.record["verdict"], self.record["reason_codes"])

    @property
    def matches(self) -> bool:
        """Whether the verdict is the original's; v0 had other names for two. Reason codes are each policy's own."""
        old, new = self.original[0], self.now[0]
        return NEW_NAMES.get(old, old) == NEW_NAMES.get(new, new)


def replay_lumyn1(pack: Lumyn1Pack, candidate: CompiledPolicy | None, memory: str | None) -> Lumyn1Replay:
    """Check a pack of 1.x and decide its request by a candidate. Raises `IntegrityError`, `UsageError`."""
    if memory not in (None, "recorded"):
        raise UsageError(
            f"`--memory {memory}` can't be asked about a pack of {pack.made_by}: it was made on another memory",
            where=pack.path,
            help="leave `--memory` out: the pack's recorded scores are used",
        )
    checks = check_lumyn1(pack)
    require(checks, where=pack.path)
    record = None if candidate is None else _decide(pack, candidate)
    return Lumyn1Replay(pack, tuple(checks), record, tuple(not_provable(pack)))


def _decide(pack: Lumyn1Pack, candidate: CompiledPolicy) -> dict[str, Any]:
    if candidate.memory is not None:
        raise UsageError(
            f"the policy asks a memory, and a pack of {pack.made_by} holds no answer that it could use",
            where=pack.path,
            help="use a policy without `memory`",
        )
    try:
        request = parse_request(as_request(pack), where=f"{pack.path}:request.json")
    except BadRequest as error:
        raise UsageError(f"its request can't be asked here: {error.message}", where=error.where) from None
    return decide(request, Position("lumyn-1.x", 0, 0, pack.time_ms), candidate, ControlState(), OFF).record


def as_request(pack: Lumyn1Pack) -> dict[str, Any]:
    """The pack's request in our form. What its engine put into the evidence, and digests of its own kind, stay out."""
    given = pack.request
    subject = {key: value for key, value in given["subject"].items() if key != "tenant_id"}
    evidence = {key: value for key, value in (given.get("evidence") or {}).items() if key != "failure_similarity_score"}
    request: dict[str, Any] = {
        "tenant": given["subject"].get("tenant_id") or DEFAULT_TENANT,
        "subject": subject,
        "action": given["action"],
        "evidence": evidence,
    }
    if given.get("request_id") is not None:
        request["request_id"] = given["request_id"]
    inline = (given.get("context") or {}).get("inline")
    if isinstance(inline, dict):
        request["context"] = {"inline": inline}
    return request


def as_dict(replayed: Lumyn1Replay) -> dict[str, Any]:
    """The JSON form."""
    verdict, codes = replayed.original
    return {
        "pack": replayed.pack.path,
        "decision_id": replayed.pack.record["decision_id"],
        "made_by": replayed.pack.made_by,
        "schema": replayed.pack.record["schema_version"],
        "matches": replayed.matches,
        "verdict": replayed.now[0],
        "reason_codes": replayed.now[1],
        "original": {"verdict": verdict, "reason_codes": codes},
        "matched_rules": (replayed.record or replayed.pack.record)["matched_rules"],
        "checks": [{"name": check.name, "ok": check.ok, "detail": check.detail} for check in replayed.checks],
        "not_provable": list(replayed.unproven),
    }
