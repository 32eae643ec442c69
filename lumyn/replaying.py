"""Replaying packs in a home: whose signature counts, and which memory answers."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, cast

from lumyn.config import LumynConfig, resolve
from lumyn.home import KEY_FILE, LOG_FILE, TRUSTED_FOLDER, Home
from lumyn.replaying_lumyn1 import Lumyn1Replay, replay_lumyn1
from lumyn.replaying_lumyn1 import as_dict as lumyn1_as_dict
from lumyn.wiring import operator_home
from memory_service.recall import Asked, Recall
from schemas.errors import Erased, IntegrityError, LumynError, UsageError
from schemas.seal import is_sealed, open_record
from streams.as_of import was_recalled
from streams.erasures import erasures
from streams.integrity import (
    Check,
    check_policy,
    check_record,
    check_reproduction,
    recorded_policy,
    require,
)
from streams.lumyn1.pack import Lumyn1Pack
from streams.packs import Pack, read_any_pack
from streams.policy import CompiledPolicy
from streams.proof import check_proof
from streams.replay import MemoryMode, Replay, replay

MODES = ("current", "recorded", "as-of")
UNKNOWN = "no key is known here to say whose that is"


@dataclass(frozen=True, slots=True)
class PackReplay:
    """A replay of a pack, with what should be said about it."""

    pack: Pack
    result: Replay
    active: dict[str, Any] | None
    notes: tuple[str, ...]

    @property
    def matches(self) -> bool:
        """Whether verdict and reason codes are the original's."""
        return self.result.matches


def check_pack(pack: Pack, *, trust_signer: bool = False, settings_home: Path | None = None) -> list[Check]:
    """Every check of a pack: signature, digests, policy, checkpoint, and that deciding again gives the same record."""
    checks = [_signed(pack, trust_signer, settings_home), Check("request", *_same_request(pack))]
    try:
        record = opened_pack(pack)
        checks += check_record(record)
    except IntegrityError as error:
        return [*checks, Check("sealed", False, error.message)]
    checks += check_policy(pack.record, pack.policy_source)
    if pack.proof is not None and all(check.ok for check in checks):
        known = None if trust_signer or settings_home is None else trusted_keys(settings_home)
        checks.append(check_proof(pack.record, pack.proof, known))
    if all(check.ok for check in checks):
        checks.append(check_reproduction(record, recorded_policy(pack.record, pack.policy_source)))
    return checks


def opened_pack(pack: Pack) -> Mapping[str, Any]:
    """The pack's record, opened where the pack holds what opens it. Raises `IntegrityError`."""
    return pack.record if pack.opening is None else open_record(pack.record, pack.opening)


def _same_request(pack: Pack) -> tuple[bool, str]:
    same = pack.request == pack.record["request"]
    return same, "" if same else "request.json is not the record's request"


def _signed(pack: Pack, trust_signer: bool, home: Path | None) -> Check:
    if pack.signer is None:
        return Check("signature", False, "the pack is not signed")
    return believed(pack.signer.key_id, trust_signer, home)


def believed(key_id: str, trust_signer: bool, home: Path | None) -> Check:
    """A home with keys believes its own and the trusted ones; where none is known, any sound signature is told."""
    known = trusted_keys(home) if home is not None else None
    if known is None:
        return Check("signature", True, f"by key {key_id}; {UNKNOWN}")
    if key_id in known:
        whose = "this home's own" if known[key_id] == "own" else "which this home trusts"
        return Check("signature", True, f"by key {key_id}, {whose}")
    if trust_signer:
        return Check("signature", True, f"by key {key_id}, which this home does not trust; accepted for once")
    has = " and ".join(
        one for one in ("a key of its own" if "own" in known.values() else "", _trusted(known)) if one
    )
    return Check(
        "signature",
        False,
        f"by key {key_id}, which this home does not trust: it has {has}, and believes nothing by others, whatever it "
        "took before it had any key; `lumyn keys trust PACK` if you know that it is right, `--trust-signer` for once",
    )


def _trusted(known: Mapping[str, str]) -> str:
    count = sum(kind == "trusted" for kind in known.values())
    return f"{count} trusted one{'s' if count != 1 else ''}" if count else ""


def trusted_keys(home: Path) -> dict[str, str] | None:
    """Key ids that this home believes, with what they are (`own`, `trusted`); None where it has none."""
    known: dict[str, str] = {}
    if (home / KEY_FILE).exists():
        from streams.signing import SigningKey

        known[SigningKey.load_or_create(home / KEY_FILE).public.key_id] = "own"
    folder = home / TRUSTED_FOLDER
    if folder.is_dir():
        known |= {path.stem: "trusted" for path in folder.glob("*.pub")}
    return known or None


def replay_pack(
    path: Path,
    *,
    config: LumynConfig | None = None,
    candidate: CompiledPolicy | None = None,
    memory: str | None = None,
    trust_signer: bool = False,
) -> PackReplay | Lumyn1Replay:
    """Check a pack, then replay it. Raises `BadPack`, `IntegrityError`, `UsageError`."""
    if memory is not None and memory not in MODES:
        raise UsageError(f"unknown memory `{memory}`", help=f"one of {', '.join(MODES)}")
    settings = resolve(config)
    pack = read_any_pack(path)
    if isinstance(pack, Lumyn1Pack):
        return replay_lumyn1(pack, candidate, memory)
    require(check_pack(pack, trust_signer=trust_signer, settings_home=settings.home), where=str(path))
    if is_sealed(pack.record):
        if pack.opening is None:
            raise UsageError(
                "this pack is redacted: it is sound, and what was asked is not in it, so it can't be decided again",
                where=str(path), help="`lumyn verify` checks what it holds; replay the whole pack where it may be read",
            )  # fmt: skip
        pack = replace(pack, record=cast(dict[str, Any], opened_pack(pack)))
    policy = recorded_policy(pack.record, pack.policy_source)
    there = settings.kafka is not None or (settings.home / LOG_FILE).exists()
    home = operator_home(config) if there else None
    notes: list[str] = []
    if pack.signer is not None and trusted_keys(settings.home) is None:
        notes.append(f"signed by key {pack.signer.key_id}; {UNKNOWN}")
    mode, recalls, version = _memory(home, pack, policy, candidate, memory, notes)
    result = replay(pack.record, policy, candidate=candidate, memory=mode, recalls=recalls, version=version)
    if mode == "as-of" and home is not None and was_recalled(pack.record) and erasures(home.log).touched(pack.record):
        if result.differences:
            raise Erased(
                "memories that this decision could meet were forgotten, so the memory as of then can't answer any more",
                where=str(path), help="use `--memory recorded`, which the pack holds, or `--memory current`",
            )  # fmt: skip
        notes.append("memories that this decision could meet are erased now; the answer is the same without them")
    return PackReplay(pack, result, _active(home, pack, mode, recalls, version), tuple(notes))


def _memory(
    home: Home | None,
    pack: Pack,
    policy: CompiledPolicy,
    candidate: CompiledPolicy | None,
    asked: str | None,
    notes: list[str],
) -> tuple[MemoryMode, Callable[[Asked], Recall] | None, int]:
    """Which memory answers: the current one where there is a store, else what the record holds."""
    if (candidate or policy).memory is None and policy.memory is None:
        return cast(MemoryMode, asked or "recorded"), None, 0
    if asked == "recorded":
        return "recorded", None, 0
    if home is None:
        if asked is not None:
            raise UsageError(
                f"`--memory {asked}` needs a memory, and there is no home here",
                help="set LUMYN_HOME, or use `--memory recorded`",
            )
        notes.append("there is no memory here: the memory recorded in the pack is used")
        return "recorded", None, 0
    if asked == "as-of" and pack.record["memory"]["epoch"] not in (None, home.log.epoch):
        raise UsageError(
            "the record's memory is another home's, so this home can't answer as of its version",
            help="use `--memory recorded` or `--memory current`",
        )
    control, then = home.agent.control(), pack.record["memory"]["vectoriser_id"]
    try:
        source = home.memories.of(control.memory_of(then) if asked == "as-of" else control.memory)
        mark = source.store().watermark()
        if asked == "as-of" and then not in (None, mark.vectoriser_id):
            raise UsageError(
                f"the record's memory was of vectoriser `{then}`, which is not kept here",
                help="use `--memory recorded` or `--memory current`",
            )
        # a memory that was left is vouched for by nobody any more, and answers as of then all the same
        recaller, version = source.recaller(), mark.version if asked == "as-of" else source.version()
    except UsageError:
        raise
    except LumynError as error:
        raise UsageError(f"the current memory can't be asked: {error}", help="or use `--memory recorded`") from None
    if asked != "as-of" and source.store().is_remembered(pack.record["decision_id"]):
        notes.append("this decision's own label is in the current memory, and counts")
    return cast(MemoryMode, asked or "current"), lambda one: recaller.recall([one])[0], version


def _active(
    home: Home | None, pack: Pack, mode: MemoryMode, recalls: Callable[[Asked], Recall] | None, version: int
) -> dict[str, Any] | None:
    """What the policy that is active now would say, when it is another one than the record's."""
    published = home.agent.control().active_policy(pack.record["request"].get("policy")) if home is not None else None
    if published is None or home is None or published.hash == pack.record["policy"]["hash"]:
        return None
    active = home.agent.control().compiled(published.hash)
    if active.memory is not None and recalls is None:
        recaller = home.memory.recaller()
        recalls, version, mode = (lambda one: recaller.recall([one])[0]), home.memory.version(), "current"
    try:
        now = replay(
            pack.record,
            recorded_policy(pack.record, pack.policy_source),
            candidate=active,
            memory=mode,
            recalls=recalls,
            version=version,
        ).record
    except UsageError:
        return None
    return {"policy": f"{active.name}@{active.version}", "verdict": now["verdict"], "reason_codes": now["reason_codes"]}


def as_dict(replayed: PackReplay | Lumyn1Replay) -> dict[str, Any]:
    """The JSON form of a replay."""
    if isinstance(replayed, Lumyn1Replay):
        return lumyn1_as_dict(replayed)
    result = replayed.result
    return {
        "pack": replayed.pack.path,
        "decision_id": result.original["decision_id"],
        "matches": result.matches,
        "verdict": result.record["verdict"],
        "reason_codes": result.record["reason_codes"],
        "original": {"verdict": result.original["verdict"], "reason_codes": result.original["reason_codes"]},
        "matched_rules": result.record["matched_rules"],
        "risk_signals": result.record["risk_signals"],
        "memory": result.memory,
        "differences": [{"field": d.field, "old": d.old, "new": d.new} for d in result.differences],
        "causes": list(result.causes),
        "engine_changed": result.engine_changed,
        "active_policy": replayed.active,
        "notes": list(replayed.notes),
    }
