"""A LUMYN_HOME as everything else sees it: its parts, whoever stands behind them, and its files."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from lumyn.config import Settings
from schemas.errors import LumynError
from schemas.label import LabelEvent, LabelRequest
from schemas.request import Request
from streams.chosen_memory import ChosenMemory
from streams.control import ControlState
from streams.deciding import Answer
from streams.log import Log, Message
from streams.memory_sync import Memory
from streams.policy import CompiledPolicy

if TYPE_CHECKING:
    from memory_service.recall import MemoryChoice
    from memory_service.recaller import Recaller
    from memory_service.record_index import RecordIndex
    from memory_service.store import MemoryStore
    from streams.index_sync import CaughtUp
    from streams.signing import SigningKey

LOG_FILE = "lumyn.db"
INDEX_FILE = "index.db"
KEY_FILE = "keys/signing.pem"
TRUSTED_FOLDER = "keys/trusted"


class Gate(Protocol):
    """Who decides: the embedded agent here, or the workers behind Kafka."""

    def decide(self, requests: Sequence[Request], policy: CompiledPolicy | None = None) -> list[Answer | LumynError]:
        """Append and decide, in order; an error in its place."""
        ...

    def submit(self, requests: Sequence[Request]) -> Sequence[Message | LumynError]:
        """Append without waiting."""
        ...

    def drain(self, limit: int = 1024) -> int:
        """Decide what waits, where that is this process's business; returns how many there were."""
        ...

    def control(self) -> ControlState:
        """The control state, read to its end."""
        ...


class Labels(Protocol):
    """Who takes labels."""

    def label(self, requests: Sequence[LabelRequest]) -> list[LabelEvent | LumynError]:
        """Accept labels, in order; a refused one is an error in its place."""
        ...


class HomeMemory(Memory, Protocol):
    """The memory as a home's commands use it. All raise `LumynError`."""

    def store(self) -> MemoryStore:
        """The store."""
        ...

    def recaller(self) -> Recaller:
        """The recaller over the store."""
        ...

    def version(self) -> int:
        """The version that questions of now are asked at."""
        ...

    def close(self) -> None:
        """Let go of files and connections."""
        ...


class Home(Protocol):
    """A LUMYN_HOME with its parts; each is opened when it is first used."""

    settings: Settings
    path: Path
    given_policy: CompiledPolicy | None

    @property
    def log(self) -> Log:
        """The log."""
        ...

    @property
    def agent(self) -> Gate:
        """Who decides."""
        ...

    @property
    def labels(self) -> Labels:
        """Who takes labels."""
        ...

    @property
    def memory(self) -> HomeMemory:
        """The memory that decisions are made with now."""
        ...

    @property
    def memories(self) -> ChosenMemory[Any]:
        """The memories of all choices."""
        ...

    def index(self) -> RecordIndex:
        """The record index, caught up."""
        ...

    def bring_index_on(self, progress: Callable[[int], None]) -> None:
        """Catch the record index up in small batches, each told to `progress`; nothing where a worker does."""
        ...

    def rebuild_index(self, progress: Callable[[int], None]) -> CaughtUp:
        """Make the record index again from the log."""
        ...

    def fill_memory(self, choice: MemoryChoice | None, progress: Callable[[int], None], *, anew: bool) -> int:
        """Bring the memory of a choice up to the labels, made `anew` or from where it stands; returns its version."""
        ...

    def records(self, prefix: str, limit: int) -> list[Message]:
        """The newest record of each id that starts with a prefix, in order, at most `limit`; of every tenant."""
        ...

    def events(self, decision_id: str) -> list[LabelEvent]:
        """All label events of a decision, in version order, as people may read them."""
        ...

    def remembers(self, version: int, within_s: float) -> bool:
        """Whether decisions from now on are made with the labels up to a version; waits for it. Never raises."""
        ...

    def forget_memories(self) -> None:
        """Bring what this process keeps of the memory up to the labels, so that what they take out is out."""
        ...

    def signing_key(self) -> SigningKey:
        """The home's own key, made at first use."""
        ...

    def close(self) -> None:
        """Let go of files and connections."""
        ...
