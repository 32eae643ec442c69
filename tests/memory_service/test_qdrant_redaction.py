"""What is redacted reaches Qdrant in no form, on Edge and on a server: no payload, no vector, no text for one."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hashing_embedder import Hashing
from inside import Inside
from memory_model import EPOCH, event
from record_index_model import fetch_from, ids, placed, query, record

from lumyn import sdk
from lumyn.wiring import close_homes
from memory_service.profile import DEFAULT_PROFILE, kept_part, remembered_part
from memory_service.qdrant.engine import EnginePoint, Filter, QdrantEngine
from memory_service.qdrant.memory_store import QdrantMemoryStore
from memory_service.qdrant.record_index import QdrantRecordIndex, remove_record_index
from memory_service.redaction import RedactedIndex, index_epoch, memory_paths
from memory_service.vectoriser import Vectoriser

pytest_plugins = ("inside_plugin",)
SECRET = "ann.smith.personal"
REDACT = (
    "evidence.email", "evidence.note", "action.contact", "context.inline.customer", "context.inline.messages.content",
    "subject.email", "provenance.trace",
)  # fmt: skip


def asked(secret: str) -> dict[str, Any]:
    """A request that names somebody as a word, in prose, deep, in a list, and as a name of a field."""
    return {
        "action": {"type": "refund", "intent": "late refund", "contact": {"mail": secret, secret: True}},
        "evidence": {"tier": "gold", "email": secret, "note": f"please call {secret} about the kettle that broke"},
        "context": {
            "mode": "inline",
            "inline": {"customer": {"name": [secret]}, "messages": [{"role": "user", "content": f"I am {secret}"}]},
        },
        "subject": {"type": "user", "id": "u1", "email": secret},
    }


class Listening(Hashing):
    """An embedder that keeps what it was given."""

    def __init__(self) -> None:
        super().__init__(16)
        self.heard: list[str] = []

    def embed(self, texts: Sequence[str]) -> Any:
        self.heard += texts
        return super().embed(texts)


class Recorded:
    """An engine that notes all that is written through it, also what is changed or removed later."""

    def __init__(self, engine: QdrantEngine) -> None:
        self._engine = engine
        self.payloads: list[Mapping[str, Any]] = []
        self.vectors: list[Any] = []

    def upsert(self, collection: str, points: Sequence[EnginePoint], only_if: Filter | None = None) -> None:
        self.payloads += [point.payload for point in points]
        self.vectors += [point.vector for point in points if point.vector is not None]
        self._engine.upsert(collection, points, only_if)

    def set_payload(self, collection: str, changes: Sequence[tuple[Any, Mapping[str, Any]]]) -> None:
        self.payloads += [payload for _, payload in changes]
        self._engine.set_payload(collection, changes)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._engine, name)


def labelled(secret: str) -> list[Any]:
    """A label on a decision, another that changes it, and one that takes it out."""
    facts = remembered_part(asked(secret))
    of = {
        "decision_id": "D1", "tenant": "acme",
        "decision": {"action_type": "refund", "verdict": "ALLOW", "rules": [], "amount": None, "facts": facts},
    }  # fmt: skip
    words = [("label", "failure", None), ("label", "failure", "DENY"), ("label", "retracted", None)]
    return [event(version, of, word, "ann") for version, word in enumerate(words, start=1)]


def filled(place: Any, name: str, redact: Sequence[str], secret: str) -> tuple[Recorded, Listening]:
    """A memory that took the labels in, by what was written into Qdrant and what was embedded."""
    engine, embedder = Recorded(place.open()), Listening()
    profile = replace(DEFAULT_PROFILE, leave_out=memory_paths(redact))
    vectoriser = Vectoriser(embedder, profile)
    store = QdrantMemoryStore(engine, vectoriser, EPOCH, f"{place.prefix}{name}", create=True)  # type: ignore[arg-type]
    store.apply(labelled(secret))
    store.close()
    return engine, embedder


@pytest.fixture
def removed(place: Any) -> Iterator[None]:
    yield
    engine = place.open()
    for name in ("memory", "memory-labels"):
        for kind in ("-a", "-b"):
            engine.drop_collection(f"{place.prefix}{kind}-{name}")


@pytest.mark.usefixtures("removed")
def test_memory_writes_and_embeds_nothing_of_it(place: Any) -> None:
    written, embedder = filled(place, "-a", REDACT, SECRET)
    assert written.payloads and written.vectors and embedder.heard
    assert SECRET not in json.dumps(written.payloads, default=str) and SECRET not in "\n".join(embedder.heard)
    other, _ = filled(place, "-b", REDACT, "somebody.else.entirely")
    assert all(np.array_equal(one, same) for one, same in zip(written.vectors, other.vectors, strict=True))


@pytest.mark.usefixtures("removed")
def test_without_redaction_all_of_it_would_be_there(place: Any) -> None:
    """So that the test above can fail: this is where it would be found."""
    written, embedder = filled(place, "-a", (), SECRET)
    assert SECRET in json.dumps(written.payloads, default=str) and SECRET in "\n".join(embedder.heard)
    other, _ = filled(place, "-b", (), "somebody.else.entirely")
    assert not all(np.array_equal(one, same) for one, same in zip(written.vectors, other.vectors, strict=True))


def test_the_index_writes_nothing_of_it_and_finds_it_all_the_same(place: Any) -> None:
    engine = Recorded(place.open())
    records = [
        record(n, provenance={"trace": who, "model": "m-1"}, evidence={"email": who, "note": who})
        for n, who in enumerate([SECRET, "somebody.else"])
    ]
    try:
        found = QdrantRecordIndex(engine, place.prefix, index_epoch(EPOCH, REDACT))  # type: ignore[arg-type]
        index = RedactedIndex(found, REDACT)
        index.apply(placed(records))
        asked_for = query(f"provenance.trace = '{SECRET}'")
        rows = index.find(asked_for, tenant="default", limit=10, fetch=fetch_from(records))
        assert ids(rows) == [records[0]["decision_id"]]
        assert engine.payloads and SECRET not in json.dumps(engine.payloads, default=str)
        plain = QdrantRecordIndex(engine, f"{place.prefix}-b", EPOCH)  # type: ignore[arg-type]
        plain.apply(placed(records))
        assert SECRET in json.dumps(engine.payloads, default=str), "without redaction it would be found here"
    finally:
        for prefix in (place.prefix, f"{place.prefix}-b"):
            remove_record_index(place.open(), prefix)


@pytest.mark.parametrize(
    ("path", "left"),
    [
        ("context.inline.customer", {"messages": [{"role": "user", "content": "hi"}]}),
        ("context.customer", {"messages": [{"role": "user", "content": "hi"}]}),
        ("context.inline.messages.content", {"customer": {"name": "x"}, "messages": [{"role": "user"}]}),
        ("context.inline", {}),
    ],
)
def test_a_path_into_the_context_means_what_a_request_calls_so(path: str, left: dict[str, Any]) -> None:
    inline = {"customer": {"name": "x"}, "messages": [{"role": "user", "content": "hi"}]}
    part = remembered_part({"action": {"type": "refund"}, "context": {"mode": "inline", "inline": inline}})
    profile = replace(DEFAULT_PROFILE, leave_out=memory_paths([path]))
    assert kept_part(part, profile)["context"] == left


def holders(folder: Path) -> list[str]:
    close_homes()
    files = [path for path in folder.rglob("*") if path.is_file()]
    return sorted(str(path.relative_to(folder)) for path in files if SECRET.encode() in path.read_bytes())


@pytest.mark.parametrize("redacts", [True, False])
def test_as_it_is_configured_no_file_of_edge_holds_it(
    inside: Inside, monkeypatch: pytest.MonkeyPatch, redacts: bool
) -> None:
    pytest.importorskip("qdrant_edge")
    monkeypatch.setenv("LUMYN_QDRANT", f"edge:{inside.folder / 'edge'}")
    if redacts:
        inside.write("lumyn.toml", f"[privacy]\nredact = {json.dumps(list(REDACT))}\n")
    first = sdk.decide(asked(SECRET) | {"provenance": {"trace": SECRET}})
    sdk.label(first["decision_id"], "failure", summary="x")
    sdk.decide(asked(SECRET))
    inside.run("list")
    assert bool(holders(inside.folder / "edge")) is not redacts
    assert holders(inside.home) == (["lumyn.db"] if redacts else ["index.db", "lumyn.db"])
