"""Memory that another process fills: what its watermark must be like to be gone by. On the Qdrant engine in-process."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import pytest

from memory_service.qdrant.edge import EdgeEngine
from memory_service.qdrant.memory_store import QdrantMemoryStore
from memory_service.recall import Asked
from memory_service.recaller import Recaller
from memory_service.store import Watermark
from memory_service.vectoriser import Vectoriser
from schemas.errors import LumynError
from schemas.policy import MemorySettings
from streams.observe import Observer
from streams.served_memory import ServedMemory

EPOCH = "epoch"
REQUEST: dict[str, Any] = {
    "tenant": "acme",
    "subject": {"type": "user", "id": "u"},
    "action": {"type": "refund", "intent": "late refund", "amount": 100},
    "evidence": {"tier": "gold"},
}


def event(version: int) -> Any:
    return {
        "version": version, "event_id": f"e{version}", "decision_id": f"D{version}", "tenant": "acme", "type": "label",
        "label": "failure", "should": None, "summary": "", "actor": "ann", "at": "2026-01-01T00:00:00.000Z", "job": None,
        "decision": {"action_type": "refund", "verdict": "ALLOW", "rules": [], "amount": 100,
                     "facts": {"action": REQUEST["action"], "evidence": REQUEST["evidence"]}},
    }  # fmt: skip


class Troubles(Observer):
    def __init__(self) -> None:
        self.said: list[str] = []

    def trouble(self, name: str, error: BaseException, facts: Any = None) -> None:
        self.said.append(error.message if isinstance(error, LumynError) else str(error))


class Home:
    """A folder with a store, which the label worker of this story fills, and a copy that may be put back."""

    def __init__(self, folder: Path, vectoriser: Vectoriser) -> None:
        self._store, self._copy = folder / "store", folder / "copy"
        self._vectoriser = vectoriser
        self.observer = Troubles()
        self.served = ServedMemory(lambda: self.opened(create=False), self.observer, max_staleness_s=60)

    def opened(self, *, create: bool) -> tuple[QdrantMemoryStore, Recaller]:
        store = QdrantMemoryStore(EdgeEngine(self._store), self._vectoriser, EPOCH, create=create)
        return store, Recaller(store, self._vectoriser, EPOCH)

    def label(self, version: int, at_s: Callable[[], float] = time.time) -> None:
        """What the label worker does: apply what is new, then vouch for it."""
        self.served.close()  # the engine has one opener at a time
        store, _ = self.opened(create=True)
        store.apply([event(number) for number in range(1, version + 1)])
        store.beat(int(at_s() * 1000))
        store.close()

    def keep(self) -> None:
        self.served.close()
        shutil.copytree(self._store, self._copy)

    def put_back(self) -> None:
        self.served.close()
        shutil.rmtree(self._store)
        shutil.copytree(self._copy, self._store)

    def recall(self) -> tuple[bool, int | None]:
        (recall,) = self.served.recall([Asked(REQUEST, MemorySettings())])
        return recall.available, recall.version


@pytest.fixture
def home(tmp_path: Path, vectoriser: Vectoriser) -> Home:
    return Home(tmp_path, vectoriser)


def test_a_store_that_is_not_there_is_unavailable_and_not_made(home: Home) -> None:
    assert home.recall() == (False, None)
    assert home.recall() == (False, None)


def test_it_is_asked_as_of_what_its_writer_vouched_for(home: Home) -> None:
    home.label(1)
    assert home.recall() == (True, 1)
    home.label(2)
    assert home.recall() == (True, 2)


def test_an_older_copy_is_unavailable_however_often_it_is_opened_until_it_was_brought_up_to_date(home: Home) -> None:
    home.label(1)
    home.keep()
    home.label(2)
    assert home.recall() == (True, 2)
    home.put_back()
    for _ in range(3):  # each failure closes the store, and the next question opens it anew
        assert home.recall() == (False, None)
    assert "an older copy was put back" in home.observer.said[-1]
    home.label(2)
    assert home.recall() == (True, 2)


def test_one_that_nobody_vouches_for_any_more_is_unavailable(home: Home) -> None:
    home.label(1, at_s=lambda: time.time() - 61)
    assert home.recall() == (False, None)
    assert "the memory's watermark was last written 6" in home.observer.said[-1]
    home.label(1)
    assert home.recall() == (True, 1)


def test_it_says_when_it_has_reached_a_version(home: Home) -> None:
    assert not home.served.reaches(1, 0)
    home.label(1)
    assert home.served.reaches(1, 0)
    assert not home.served.reaches(2, 0.05)


def test_a_version_that_is_still_to_come_is_waited_for() -> None:
    class Filling:
        version = 0

        def watermark(self) -> Watermark:
            self.version += 1
            return Watermark(EPOCH, self.version, 0, "v", int(time.time() * 1000))

        def close(self) -> None: ...

    served = ServedMemory(lambda: cast(Any, (Filling(), None)), Troubles())
    assert served.reaches(3, 30)
