"""Memory stores, record indexes and vectorisers from settings: SQLite files of a home, Qdrant Edge, a Qdrant server."""

from __future__ import annotations

import hashlib
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lumyn.config import Options, Settings
from schemas.errors import BadConfig

if TYPE_CHECKING:
    from memory_service.qdrant.engine import QdrantEngine
    from memory_service.recaller import Recaller
    from memory_service.record_index import RecordIndex
    from memory_service.store import MemoryStore
    from memory_service.vectoriser import Vectoriser

MEMORY_FILE = "memory.db"
INDEX_FILE = "index.db"
_EDGE = "edge:"


def make_vectoriser(settings: Settings) -> Vectoriser:
    """The vectoriser of the configured embedder. Raises `BadConfig`."""
    kind, _, name = settings.embedder.partition(":")
    if settings.embedder == "static":
        return _static_vectoriser()
    if kind == "sentence-transformers" and name:
        return _transformer_vectoriser(name)
    raise BadConfig(
        f"unknown embedder `{settings.embedder}`", help="`static`, or `sentence-transformers:NAME_OR_FOLDER`"
    )


@lru_cache(maxsize=1)
def _static_vectoriser() -> Vectoriser:
    from memory_service.embedders.cache import CachedEmbedder
    from memory_service.embedders.static import StaticEmbedder
    from memory_service.vectoriser import Vectoriser

    return Vectoriser(CachedEmbedder(StaticEmbedder()))


@lru_cache(maxsize=4)
def _transformer_vectoriser(name: str) -> Vectoriser:
    from memory_service.embedders.cache import CachedEmbedder
    from memory_service.embedders.sentence_transformer import SentenceTransformerEmbedder
    from memory_service.vectoriser import Vectoriser

    return Vectoriser(CachedEmbedder(SentenceTransformerEmbedder(name)))


def uses_server(settings: Settings) -> bool:
    """Whether memory and index are a Qdrant server's, shared by all processes."""
    return settings.qdrant is not None and not settings.qdrant.startswith(_EDGE)


def open_engine(settings: Settings) -> QdrantEngine:
    """The configured Qdrant engine. Raises `BadConfig`."""
    address = settings.qdrant or ""
    try:
        if address.startswith(_EDGE):
            from memory_service.qdrant.edge import EdgeEngine

            return EdgeEngine(Path(address.removeprefix(_EDGE)))
        from memory_service.qdrant.server import ServerEngine
    except ImportError as error:
        extra = "edge" if address.startswith(_EDGE) else "qdrant"
        raise BadConfig(f"LUMYN_QDRANT needs {error.name}", help=f"pip install 'lumyn-streams[{extra}]'") from None
    return ServerEngine(address, **_server_options(settings.qdrant_options))


def _server_options(options: Options) -> dict[str, Any]:
    """`[qdrant]` as the engine takes it: grpc_port, api_key, ca_certificate (a file), replicas, deadlines."""
    known = {"grpc_port": int, "api_key": str, "replicas": int, "deadline": float, "write_deadline": float}
    out: dict[str, Any] = {}
    for name, value in options:
        if name == "ca_certificate":
            try:
                out[name] = Path(str(value)).read_bytes()
            except OSError as error:
                raise BadConfig(f"[qdrant] ca_certificate can't be read: {error.strerror}", where=str(value)) from None
        elif name in known:
            try:
                out[name] = known[name](value)
            except ValueError:
                raise BadConfig(f"[qdrant] `{name}` must be a number") from None
        else:
            raise BadConfig(f"[qdrant] unknown option `{name}`", help=f"known: ca_certificate, {', '.join(known)}")
    return out


def open_memory(
    settings: Settings, folder: Path, epoch: str, *, create: bool = True
) -> tuple[MemoryStore, Recaller]:
    """The memory store and its recaller; `create` is for the one who fills it.

    Raises `MemoryUnavailable`, `BadConfig`.
    """
    from memory_service.recaller import Recaller

    vectoriser = make_vectoriser(settings)
    store: MemoryStore
    if settings.qdrant is not None:
        from memory_service.qdrant.memory_store import QdrantMemoryStore

        store = QdrantMemoryStore(open_engine(settings), vectoriser, epoch, collections(settings), create=create)
    else:
        from memory_service.sqlite_store import SqliteMemoryStore

        folder.mkdir(parents=True, exist_ok=True)
        store = SqliteMemoryStore(folder / MEMORY_FILE, vectoriser, epoch)
    return store, Recaller(store, vectoriser, epoch)


def remove_memory(settings: Settings, folder: Path, epoch: str) -> None:
    """Empty the memory, to be filled again from the labels."""
    if settings.qdrant is None:
        from memory_service.sqlite_store import rebuild_file

        rebuild_file(folder / MEMORY_FILE)
        return
    from memory_service.qdrant.memory_store import QdrantMemoryStore

    engine = open_engine(settings)
    try:
        QdrantMemoryStore(engine, make_vectoriser(settings), epoch, collections(settings)).reset(epoch)
    finally:
        engine.close()


def open_index(settings: Settings, folder: Path, epoch: str) -> RecordIndex:
    """The record index: a Qdrant server's where there is one, else a SQLite file. Raises `StorageUnavailable`."""
    if uses_server(settings):
        from memory_service.qdrant.record_index import QdrantRecordIndex

        return QdrantRecordIndex(open_engine(settings), collections(settings), epoch)
    from memory_service.sqlite_record_index import SqliteRecordIndex

    folder.mkdir(parents=True, exist_ok=True)
    return SqliteRecordIndex(folder / INDEX_FILE, epoch)


def collections(settings: Settings) -> str:
    """What this deployment's collections are named after: prefixes that differ in any character never meet."""
    plain = "".join(char if char.isalnum() or char in "-_" else "_" for char in settings.prefix)
    if plain == settings.prefix:
        return plain
    return f"{plain}-{hashlib.sha256(settings.prefix.encode()).hexdigest()[:8]}"
