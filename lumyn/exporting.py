"""Exporting: packs of decisions from a home, written whole or not at all."""

from __future__ import annotations

import os
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from lumyn.checkpointing import inclusion_proof
from lumyn.wiring import Home
from schemas.canonical import decode_trusted
from schemas.errors import StorageUnavailable, UsageError
from streams.integrity import check_policy, check_record, require
from streams.packs import write_pack
from streams.topics import LABELS


def export_pack(home: Home, raw: bytes, record: Mapping[str, Any], *, with_memory: bool = False) -> bytes:
    """The bytes of a decision's signed pack, with the proof of its place in the log where there is a checkpoint.

    A record that is not sound, or not the one that its checkpoint was signed for, raises `IntegrityError`.
    """
    source = policy_source(home, record)
    require([*check_record(record), *check_policy(record, source)], where=f"decision {record['decision_id']}")
    labels = memory_labels(home, record) if with_memory else None
    return write_pack(raw, source, home.signing_key(), labels=labels, proof=inclusion_proof(home, record))


def policy_source(home: Home, record: Mapping[str, Any]) -> bytes:
    """The policy document that decided, from the control topic. Raises `NotFound`."""
    return home.agent.control().compiled(record["policy"]["hash"]).source


def memory_labels(home: Home, record: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """The tenant's label events up to the record's memory version: the memory as the decision saw it."""
    events: list[Mapping[str, Any]] = []
    offset, last = 0, record["memory"]["version"] or 0
    while messages := home.log.read(LABELS, 0, offset):
        for message in messages:
            if message.offset >= last:
                return events
            event = decode_trusted(message.value)
            if event["tenant"] == record["tenant"]:
                events.append(event)
        offset = messages[-1].offset + 1
    return events


def write_whole(path: Path, data: bytes) -> None:
    """Write a file so that it is there whole or not at all. Raises `StorageUnavailable`, `UsageError`."""
    if path.name in ("", "..") or path.is_dir():
        raise UsageError("this is a folder, not a file to write", where=str(path))
    temporary = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        with temporary.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except OSError as error:
        raise StorageUnavailable(f"can't be written: {error.strerror or error}", where=str(path)) from None
    finally:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)
