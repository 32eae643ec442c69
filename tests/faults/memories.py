"""Whether a memory holds exactly what the `labels` topic says: compared with one that is made from it anew."""

from __future__ import annotations

import hashlib
import tempfile
from pathlib import Path
from typing import Any

from faults.deployment import Deployment
from lumyn.config import LumynConfig, resolve
from lumyn.stores import open_memory
from memory_service.store import MemoryStore
from streams.memory_sync import catch_up

Contents = tuple[int, dict[str, dict[str, Any]]]
"""A memory's version, and its points in force by memory id."""


def _points(store: MemoryStore) -> dict[str, dict[str, Any]]:
    """Every point in force; its vector, which is of whole numbers, as a digest."""
    out = {}
    for point in store.points():
        fields = {name: getattr(point, name) for name in point.__slots__}
        fields["vector"] = hashlib.sha256(point.vector.astype("<i8").tobytes()).hexdigest()
        out[point.memory_id] = fields
    return out


def differences(one: Contents, other: Contents) -> list[str]:
    """Where two memories differ, field by field."""
    out = [] if one[0] == other[0] else [f"version {one[0]} and {other[0]}"]
    for name in sorted(one[1].keys() | other[1].keys()):
        a, b = one[1].get(name), other[1].get(name)
        if a is None or b is None:
            out.append(f"{name} is only in the {'second' if a is None else 'first'}")
        else:
            out += [f"{name}: {field} is {a[field]!r} and {b[field]!r}" for field in a if a[field] != b[field]]
    return out


def memory_of(deployment: Deployment, folder: Path, qdrant: str | None = None) -> Contents:
    """The version and the points of a memory as it stands: the server's, or the file in a worker's folder."""
    settings = resolve(LumynConfig(home=folder, kafka=deployment.address, prefix=deployment.prefix, qdrant=qdrant))
    store, _ = open_memory(settings, folder, deployment.log.epoch, create=qdrant is None)
    try:
        return store.watermark().version, _points(store)
    finally:
        store.close()


def memory_anew(deployment: Deployment) -> Contents:
    """The same of a memory made from the labels alone."""
    with tempfile.TemporaryDirectory() as folder:
        settings = resolve(LumynConfig(home=folder, kafka=deployment.address, prefix=deployment.prefix))
        store, _ = open_memory(settings, Path(folder), deployment.log.epoch)
        try:
            return catch_up(deployment.log, store), _points(store)
        finally:
            store.close()
