"""Memory stores, record indexes and vectorisers from settings: SQLite files of a home, Qdrant Edge, a Qdrant server."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias, cast

from lumyn.config import DEFAULT_EMBEDDER, Options, Settings
from schemas.canonical import decode_trusted
from schemas.errors import BadConfig, MemoryUnavailable

if TYPE_CHECKING:
    from memory_service.embedders.protocol import Embedder
    from memory_service.qdrant.engine import QdrantEngine
    from memory_service.recall import MemoryChoice
    from memory_service.recaller import Recaller
    from memory_service.record_index import RecordIndex
    from memory_service.store import MemoryStore
    from memory_service.vectoriser import Vectoriser

MEMORY_FILE = "memory.db"
INDEX_FILE = "index.db"
_EDGE = "edge:"
Wrap: TypeAlias = "Callable[[MemoryStore], MemoryStore]"


def chosen(settings: Settings, choice: MemoryChoice | None) -> Settings:
    """The settings with the embedder that control chose; what is configured counts until one is chosen."""
    return settings if choice is None else replace(settings, embedder=choice.embedder)


def chosen_vectoriser(settings: Settings, choice: MemoryChoice | None) -> Vectoriser:
    """The vectoriser of the memory that is asked.

    Raises `BadConfig`, `MemoryUnavailable` when the embedder is another one here.
    """
    vectoriser = make_vectoriser(chosen(settings, choice), None if choice is None else choice.profile)
    if choice is not None and vectoriser.id != choice.vectoriser_id:
        raise MemoryUnavailable(
            f"embedder `{choice.embedder}` gives vectors of `{vectoriser.id}` here, and the memory was switched to "
            f"`{choice.vectoriser_id}`",
            help="have the same model here, or `lumyn memory switch EMBEDDER`",
        )
    return vectoriser


def make_vectoriser(settings: Settings, profile: str | None = None) -> Vectoriser:
    """The vectoriser of the configured embedder, with a profile (canonical JSON). Raises `BadConfig`."""
    return _vectoriser(settings.embedder, profile, settings.redact)


@lru_cache(maxsize=8)
def _vectoriser(embedder: str, profile: str | None, redact: tuple[str, ...] = ()) -> Vectoriser:
    from memory_service.profile import DEFAULT_PROFILE, MemoryProfile
    from memory_service.redaction import memory_paths
    from memory_service.vectoriser import Vectoriser

    of = DEFAULT_PROFILE if profile is None else MemoryProfile.from_dict(decode_trusted(profile.encode()))
    if redact:  # another profile, and so another vectoriser: no vector of one is compared with one of the other
        of = replace(of, leave_out=(*of.leave_out, *memory_paths(redact)))
    return Vectoriser(_embedder(embedder), of)


@lru_cache(maxsize=4)
def _embedder(spec: str) -> Embedder:
    from memory_service.embedders.cache import CachedEmbedder

    kind, _, name = spec.partition(":")
    if spec == DEFAULT_EMBEDDER:
        from memory_service.embedders.static import StaticEmbedder

        return CachedEmbedder(StaticEmbedder())
    if kind == "static" and name:
        return CachedEmbedder(_own_static(name))
    if kind == "sentence-transformers" and name:
        from memory_service.embedders.sentence_transformer import SentenceTransformerEmbedder

        return CachedEmbedder(SentenceTransformerEmbedder(name))
    raise BadConfig(
        f"unknown embedder `{spec}`", help="`static`, `static:FOLDER`, or `sentence-transformers:NAME_OR_FOLDER`"
    )


def _own_static(folder: str) -> Embedder:
    """A static model made with `python -m memory_service.embedders.distill --out FOLDER`."""
    from memory_service.embedders.protocol import EmbedderUnavailable
    from memory_service.embedders.static import StaticEmbedder

    try:
        embedder = StaticEmbedder(Path(folder))
        embedder.embed([""])  # whatever is wrong with the files shows here, not at the first decision
    except EmbedderUnavailable as error:
        error.help = "give a folder that `python -m memory_service.embedders.distill --out FOLDER` made"
        raise
    return embedder


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
    settings: Settings,
    folder: Path,
    epoch: str,
    choice: MemoryChoice | None = None,
    *,
    create: bool = True,
    wrap: Wrap | None = None,
) -> tuple[MemoryStore, Recaller]:
    """The memory store of a choice and its recaller; `create` is for the one who fills it.

    `wrap` puts something between the store and all who ask it, such as a game day's faults.
    Raises `MemoryUnavailable`, `BadConfig`.
    """
    from memory_service.recaller import Recaller

    vectoriser = chosen_vectoriser(settings, choice)
    name = memory_name(chosen(settings, choice), vectoriser)
    store: MemoryStore
    if settings.qdrant is not None:
        from memory_service.qdrant.memory_store import QdrantMemoryStore

        store = QdrantMemoryStore(open_engine(settings), vectoriser, epoch, name, create=create)
    else:
        from memory_service.sqlite_store import SqliteMemoryStore

        folder.mkdir(parents=True, exist_ok=True)
        store = SqliteMemoryStore(folder / name, vectoriser, epoch)
    if wrap is not None:
        store = wrap(store)
    return store, Recaller(store, vectoriser, epoch)


def memory_name(settings: Settings, vectoriser: Vectoriser) -> str:
    """The file or the collections of one vectoriser's memory: each has its own, so that their vectors never mix."""
    if settings.embedder == DEFAULT_EMBEDDER and vectoriser.has_default_profile:
        return MEMORY_FILE if settings.qdrant is None else collections(settings)
    of = hashlib.sha256(vectoriser.id.encode()).hexdigest()[:12]
    return f"memory-{of}.db" if settings.qdrant is None else f"{collections(settings)}-{of}"


def remove_left_memories(folder: Path, settings: Settings, choice: MemoryChoice | None) -> None:
    """Remove the files of memories that were left, but for the one of `choice`; they are made anew when asked for.

    What is forgotten must not stay in a memory that nobody brings up to the labels.
    """
    from memory_service.sqlite_store import rebuild_file

    keep = memory_name(chosen(settings, choice), chosen_vectoriser(settings, choice))
    for path in folder.glob("memory*.db"):
        if path.name != keep:
            rebuild_file(path)


def remove_memory(settings: Settings, folder: Path, epoch: str, choice: MemoryChoice | None = None) -> None:
    """Empty the memory of a choice, to be filled again from the labels."""
    vectoriser = chosen_vectoriser(settings, choice)
    name = memory_name(chosen(settings, choice), vectoriser)
    if settings.qdrant is None:
        from memory_service.sqlite_store import rebuild_file

        rebuild_file(folder / name)
        return
    from memory_service.qdrant.memory_store import QdrantMemoryStore

    engine = open_engine(settings)
    try:
        QdrantMemoryStore(engine, vectoriser, epoch, name).reset(epoch)
    finally:
        engine.close()


def open_index(settings: Settings, folder: Path, epoch: str) -> RecordIndex:
    """The record index: a Qdrant server's where there is one, else a SQLite file. Raises `StorageUnavailable`."""
    if uses_server(settings):
        from memory_service.qdrant.record_index import QdrantRecordIndex
        from memory_service.redaction import index_epoch

        engine, name = open_engine(settings), collections(settings)
        return _redacted(QdrantRecordIndex(engine, name, index_epoch(epoch, settings.redact)), settings)
    return open_index_file(settings, folder, epoch)


def open_index_file(settings: Settings, folder: Path, epoch: str) -> RecordIndex:
    """The record index in a SQLite file. Raises `StorageUnavailable`."""
    from memory_service.redaction import index_epoch
    from memory_service.sqlite_record_index import SqliteRecordIndex

    folder.mkdir(parents=True, exist_ok=True)
    return _redacted(SqliteRecordIndex(folder / INDEX_FILE, index_epoch(epoch, settings.redact)), settings)


def _redacted(index: RecordIndex, settings: Settings) -> RecordIndex:
    """The index, without what the configuration keeps out of it."""
    from memory_service.redaction import RedactedIndex

    return cast("RecordIndex", RedactedIndex(index, settings.redact)) if settings.redact else index


def collections(settings: Settings) -> str:
    """What this deployment's collections are named after: prefixes that differ in any character never meet."""
    plain = "".join(char if char.isalnum() or char in "-_" else "_" for char in settings.prefix)
    if plain == settings.prefix:
        return plain
    return f"{plain}-{hashlib.sha256(settings.prefix.encode()).hexdigest()[:8]}"
