"""An error that is kept as a result keeps nothing else: its batch is freed when its reader is done with it."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from embedded import policy

from streams.control import ControlState
from streams.deciding import Deciding
from streams.label_worker import LabelWorker
from streams.log import Message


class Batch(list[Any]):
    """A list that can be watched."""


@pytest.fixture
def no_collector() -> Iterator[None]:
    gc.collect()
    gc.disable()
    yield
    gc.enable()


def freed(parse: Callable[[Message], Any], value: bytes) -> tuple[bool, Any]:
    """Whether a batch is freed when the function that held it returns, though one of it could not be parsed."""

    def work() -> tuple[weakref.ref[Batch], Any]:
        batch = Batch()
        batch.append(parse(Message("requests", 0, 0, 1, None, value)))
        return weakref.ref(batch), batch[0]

    watched, kept = work()
    return watched() is None, kept


@pytest.mark.parametrize("value", [b"{", b"{}", b'{"action":1,"subject":{}}', b'{"a":1,"a":2}', b"\xff"])
def test_a_request_that_is_none(no_collector: None, value: bytes) -> None:
    deciding = Deciding("p.requests", Any, policy())  # type: ignore[arg-type]
    is_freed, pending = freed(lambda message: deciding.parse(message, ControlState()), value)
    assert pending.problem is not None and is_freed


@pytest.mark.parametrize("value", [b"{", b"{}"])
def test_a_label_that_is_none(no_collector: None, value: bytes) -> None:
    worker: Any = LabelWorker.__new__(LabelWorker)
    worker._topic = "p.label-requests"
    is_freed, problem = freed(worker._parse, value)
    assert isinstance(problem, Exception) and is_freed
