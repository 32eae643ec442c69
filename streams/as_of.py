"""As-of: recall again at the version that a decision was made at; it must be what its record holds."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from memory_service.recall import Asked, Recall
from schemas.errors import MemoryUnavailable
from schemas.ids import time_ms_of
from schemas.policy import MemorySettings
from schemas.seal import is_sealed
from streams.erasures import NOTHING_ERASED, Erasures
from streams.memory_sync import Memory
from streams.sealing import is_erased, require_open

_AT_ONCE = 256
_MISSING = object()


@dataclass(frozen=True, slots=True)
class Change:
    """One part of a recall that came out otherwise than recorded."""

    field: str
    recorded: Any
    now: Any


@dataclass(frozen=True, slots=True)
class RecalledAgain:
    """`same`, `differs` (where), `erased`, or `not_comparable`: another memory or another vectoriser answered then.

    `erased`: the decision's own subject was forgotten, or one whose memories it could meet then; it can't be the same.
    """

    decision_id: str
    outcome: Literal["same", "differs", "erased", "not_comparable"]
    changes: tuple[Change, ...] = ()
    detail: str = ""


def was_recalled(record: Mapping[str, Any]) -> bool:
    """Whether a decision was made on what the memory answered, so that it can be asked again."""
    memory = record.get("memory")
    return isinstance(memory, dict) and memory.get("mode") == "exact" and memory.get("available") is True


def recall_again(
    records: Sequence[Mapping[str, Any]],
    recaller: Memory,
    *,
    epoch: str,
    vectoriser_id: str,
    version: int,
    erasures: Erasures = NOTHING_ERASED,
) -> Iterator[RecalledAgain]:
    """Each record's recall, made again; in order of the memory's versions. The records were recalled (`was_recalled`).

    `epoch`, `vectoriser_id`, `version` are of the memory that is asked. Raises `MemoryUnavailable` if it can't answer.
    """
    comparable = []
    for record in records:
        memory = record["memory"]
        if is_erased(record):
            yield RecalledAgain(record["decision_id"], "erased", detail="its subject was forgotten")
        elif is_sealed(record):
            yield _not_comparable(record, "its subject's key is not here")
        elif memory["epoch"] != epoch:
            yield _not_comparable(record, f"recalled from another memory (epoch {memory['epoch']})")
        elif memory["vectoriser_id"] != vectoriser_id:
            yield _not_comparable(record, f"recalled with another vectoriser ({memory['vectoriser_id']})")
        elif memory["version"] > version:
            change = Change("memory.version", memory["version"], version)
            yield RecalledAgain(record["decision_id"], "differs", (change,), "the memory lacks labels that it had then")
        else:
            comparable.append(record)
    comparable.sort(key=lambda record: (record["memory"]["version"], record["decision_id"]))
    for start in range(0, len(comparable), _AT_ONCE):
        some = comparable[start : start + _AT_ONCE]
        for record, recall in zip(some, recaller.recall([asked_by(record) for record in some]), strict=True):
            if not recall.available:
                raise MemoryUnavailable("the memory stopped answering", help="`lumyn doctor` checks it")
            found = tuple(changes(record, recall))
            if found and erasures.touched(record):
                yield RecalledAgain(record["decision_id"], "erased", found, "it could meet what was forgotten")
            else:
                yield RecalledAgain(record["decision_id"], "differs" if found else "same", found)


def _not_comparable(record: Mapping[str, Any], why: str) -> RecalledAgain:
    return RecalledAgain(record["decision_id"], "not_comparable", detail=why)


def asked_by(record: Mapping[str, Any]) -> Asked:
    """What a decision asked of the memory, as of its own version. Raises `Erased`, `KeyMissing`."""
    memory = record["memory"]
    settings, at_ms = MemorySettings(**memory["settings"]), time_ms_of(record["created_at"])
    return Asked(require_open(record)["request"], settings, memory["version"], at_ms=at_ms)


def changes(record: Mapping[str, Any], recall: Recall) -> Iterator[Change]:
    """Where a recall is not the recorded one."""
    for name, now in recall.as_record().items():
        if record["memory"].get(name, _MISSING) != now:
            yield Change(f"memory.{name}", record["memory"].get(name), now)
    for name, now in recall.signals.items():
        if record["risk_signals"].get(name, _MISSING) != now:
            yield Change(f"risk_signals.{name}", record["risk_signals"].get(name), now)
