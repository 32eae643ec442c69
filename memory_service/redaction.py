"""Fields that derived stores must not hold. The record keeps them: it is what was decided by, and digests cover it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, cast

from memory_service.profile import MemoryProfile, kept_part
from memory_service.record_index import RecordIndex, Refused
from schemas.canonical import encode
from schemas.digests import digest
from schemas.label import LabelEvent

_ROOTS = ("action", "context", "evidence", "provenance", "subject")
_NEEDED = (
    "action.type", "action.amount", "action.amount.value", "action.amount.currency", "subject.id", "subject.type",
)  # fmt: skip


def refused_path(path: str) -> str | None:
    """Why a path can't be redacted; None: it can."""
    root, dot, rest = path.partition(".")
    if root not in _ROOTS or not dot or not all(rest.split(".")):
        return f"it is not a path such as `evidence.email`, under {', '.join(_ROOTS)}"
    if path in _NEEDED:
        return "lists and memory go by it; a subject's id can be a pseudonym, or use `encrypt_subjects`"
    return None


def memory_paths(paths: Sequence[str]) -> tuple[str, ...]:
    """Redacted paths as memory names fields: what stands in a request's `context.inline` is its `context`."""
    inline = "context.inline"
    seen = [path.replace(inline, "context", 1) for path in paths if path == inline or path.startswith(f"{inline}.")]
    return tuple(dict.fromkeys((*paths, *seen)))


class RedactedIndex:
    """A record index that takes records in without some of their provenance.

    A query on what was left out is answered by the records themselves, as with anything that is too long to be indexed.
    """

    def __init__(self, index: RecordIndex, paths: Sequence[str]) -> None:
        self._index = index
        self._paths = tuple(paths)

    def apply(
        self, records: Sequence[tuple[int, int, Mapping[str, Any]]], labels: Sequence[LabelEvent] = ()
    ) -> list[Refused]:
        """As `RecordIndex.apply`."""
        return self._index.apply([(p, o, _without(record, self._paths)) for p, o, record in records], labels)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._index, name)


def kept_event(event: LabelEvent, profile: MemoryProfile) -> LabelEvent:
    """A label event as a memory keeps it: of its decision only what the profile lets memory look at."""
    decision = event["decision"]
    if decision is None or not profile.leave_out:
        return event
    kept = {**event, "decision": {**decision, "facts": kept_part(decision["facts"], profile)}}
    return cast(LabelEvent, kept)


def index_epoch(epoch: str, paths: Sequence[str]) -> str:
    """What an index belongs to: the log, and what it leaves out. Another list needs another index."""
    hidden = sorted(path for path in paths if path.startswith("provenance."))
    return f"{epoch}+{digest(encode(hidden)).removeprefix('sha256:')[:12]}" if hidden else epoch


def _without(record: Mapping[str, Any], paths: Sequence[str]) -> Mapping[str, Any]:
    provenance = record.get("provenance")
    if not isinstance(provenance, Mapping) or not provenance:
        return record
    # an object in a value's place: an index notes that the name is there, and asks the record for its value
    shown = {name: {} if _touches(f"provenance.{name}", paths) else value for name, value in provenance.items()}
    return {**record, "provenance": shown}


def _touches(path: str, paths: Sequence[str]) -> bool:
    return any(path == one or path.startswith(f"{one}.") or one.startswith(f"{path}.") for one in paths)
