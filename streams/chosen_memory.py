"""Memory as control chooses it: one for each embedder that decisions were made with, opened when it is first asked."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from typing import Generic, Protocol, TypeVar

from memory_service.recall import Asked, MemoryChoice, Recall
from streams.memory_sync import Memory


class Closable(Memory, Protocol):
    """A memory that holds files or connections."""

    def close(self) -> None:
        """Let go of them."""
        ...


M = TypeVar("M", bound=Closable)


class ChosenMemory(Generic[M]):
    """Each question goes to the memory that it names: vectors of two vectorisers never meet.

    Those that were left behind stay as they are, to answer as of the versions that they were asked at.
    """

    def __init__(self, open_one: Callable[[MemoryChoice | None], M]) -> None:
        """`open_one` makes the memory of a choice; None: the configured embedder, used until one is chosen."""
        self._open = open_one
        self._memories: dict[MemoryChoice | None, M] = {}
        self._lock = threading.Lock()

    def of(self, choice: MemoryChoice | None) -> M:
        """The memory of a choice."""
        memory = self._memories.get(choice)
        if memory is None:
            with self._lock:
                memory = self._memories.get(choice) or self._open(choice)
                self._memories[choice] = memory
        return memory

    def recall(self, asked: Sequence[Asked]) -> list[Recall]:
        """One recall a request, in order. Never raises."""
        choices = {a.choice for a in asked}
        if len(choices) <= 1:
            return self.of(next(iter(choices), None)).recall(asked)
        answers: dict[int, Recall] = {}
        for choice in choices:
            numbers = [number for number, a in enumerate(asked) if a.choice == choice]
            recalls = self.of(choice).recall([asked[number] for number in numbers])
            answers.update(zip(numbers, recalls, strict=True))
        return [answers[number] for number in range(len(asked))]

    def close(self) -> None:
        """Let go of all of them; the next question opens one anew."""
        with self._lock:
            memories = list(self._memories.values())
        for memory in memories:
            memory.close()
