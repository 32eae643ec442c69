"""Messages are delivered to the stream without a task each, and can still be broken off where they wait."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

pytest.importorskip("faust")

from streams.kafka.faust_transport import _Delivering


class Consumer(_Delivering):
    """A service of its own, with no broker behind it."""


async def never() -> None:
    await asyncio.Event().wait()


def run(scenario: Any) -> tuple[Any, int]:
    """The scenario's result, and how many tasks it made."""

    async def counted() -> tuple[Any, int]:
        made = 0
        loop = asyncio.get_running_loop()

        def factory(loop: Any, coro: Any, **more: Any) -> asyncio.Task[Any]:
            nonlocal made
            made += 1
            return asyncio.Task(coro, loop=loop, **more)

        loop.set_task_factory(factory)
        return await scenario(Consumer(loop=loop)), made

    return asyncio.run(asyncio.wait_for(counted(), 10))


def test_a_delivery_that_does_not_wait_makes_no_task() -> None:
    async def at_once() -> str:
        return "delivered"

    async def scenario(consumer: Consumer) -> Any:
        return await consumer.wait_first(at_once(), never())

    result, tasks = run(scenario)
    assert (result.results, result.stopped, tasks) == (["delivered"], False, 0)


def test_a_delivery_that_waits_goes_on_to_its_end() -> None:
    steps: list[str] = []

    async def slow(event: asyncio.Event) -> str:
        steps.append("begun")
        await event.wait()
        steps.append("woken")
        await asyncio.sleep(0)
        await asyncio.sleep(0.001)
        return "delivered"

    async def scenario(consumer: Consumer) -> Any:
        event = asyncio.Event()
        asyncio.get_running_loop().call_later(0.01, event.set)
        return await consumer.wait_first(slow(event), never())

    result, _ = run(scenario)
    assert (result.results, result.stopped, steps) == (["delivered"], False, ["begun", "woken"])


def test_a_delivery_that_waits_is_broken_off_when_the_flow_is_suspended() -> None:
    steps: list[str] = []

    async def stuck() -> None:
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            steps.append("broken off")
            raise

    async def scenario(consumer: Consumer) -> Any:
        result = await consumer.wait_first(stuck(), asyncio.sleep(0.01, "suspended"))
        await asyncio.sleep(0.01)
        return result

    result, _ = run(scenario)
    assert (result.results, steps) == (["suspended"], ["broken off"])


@pytest.mark.parametrize("waits", [False, True])
def test_what_a_delivery_raises_is_raised(waits: bool) -> None:
    async def failing() -> None:
        if waits:
            await asyncio.sleep(0.001)
        raise ValueError("no such channel")

    async def scenario(consumer: Consumer) -> None:
        with pytest.raises(ValueError, match="no such channel"):
            await consumer.wait_first(failing(), never())

    run(scenario)


def test_a_stopped_consumer_breaks_a_waiting_delivery_off() -> None:
    async def scenario(consumer: Consumer) -> Any:
        asyncio.get_running_loop().call_later(0.01, consumer._stopped.set)
        return await consumer.wait_first(never(), never())

    result, _ = run(scenario)
    assert result.stopped
