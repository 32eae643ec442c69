"""Exporting: packs of decisions from a home, written whole or not at all."""

from __future__ import annotations

import os
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from lumyn.checkpointing import inclusion_proof
from lumyn.home import Home
from schemas.canonical import decode_trusted, encode
from schemas.errors import StorageUnavailable, UsageError
from schemas.seal import OPENING, OpenRecord, is_sealed, opening_text, stored_of
from streams.integrity import check_policy, check_record, require
from streams.packs import write_pack
from streams.sealing import opened_record
from streams.topics import LABELS


def export_pack(
    home: Home, raw: bytes, record: Mapping[str, Any], *, with_memory: bool = False, redact: bool = False
) -> bytes:
    """The bytes of a decision's signed pack, with the proof of its place in the log where there is a checkpoint.

    Of a sealed record the pack holds what opens this one decision; `redact` leaves that out. A record that is
    not sound, or not the one that its checkpoint was signed for, raises `IntegrityError`.
    """
    source = policy_source(home, record)
    record = opened_record(home.log.keys, record)
    if redact and not is_sealed(stored_of(record)):
        raise UsageError(
            f"decision {record['decision_id']} was stored in clear, and its digests cover that: it can't be redacted",
            help="`[privacy] encrypt_subjects = true` makes it possible for decisions from then on",
        )
    if with_memory and (redact or is_sealed(stored_of(record))):
        raise UsageError("the memory holds others' labels, sealed under their own keys: it can't be put into this pack")
    require([*check_record(record), *check_policy(record, source)], where=f"decision {record['decision_id']}")
    labels = memory_labels(home, record) if with_memory else None
    opening = record.opening if isinstance(record, OpenRecord) and not redact else None
    proof = inclusion_proof(home, record)
    return write_pack(raw, source, home.signing_key(), labels=labels, proof=proof, opening=opening)


def exported_line(home: Home, raw: bytes, *, redact: bool = False) -> bytes:
    """A record as a line of a data set: as it is stored, and, where it is sealed, with what opens it beside it."""
    stored = decode_trusted(raw)
    record = opened_record(home.log.keys, stored)
    if redact or not isinstance(record, OpenRecord):
        return raw
    return encode({**stored, OPENING: opening_text(record.opening)})


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
        if path.exists() and not path.is_file():  # a device or a pipe takes it in; a file must never stand in its place
            path.write_bytes(data)
            return
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
