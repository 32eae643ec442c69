"""Requests that are gathered are all answered, whenever they come."""

from __future__ import annotations

import asyncio
from typing import Any

from lumyn.api.gather import Gatherer


def test_a_request_that_comes_the_moment_a_group_ends_is_decided(monkeypatch: Any) -> None:
    async def run() -> list[Any]:
        gatherer = Gatherer(list)  # type: ignore[arg-type]
        real, late = gatherer._decide, []

        async def decide(group: Any) -> None:
            await real(group)
            if not late:  # runs after this task's last step, and before the loop says that it is done
                late.append(asyncio.ensure_future(gatherer.decide("late")))  # type: ignore[arg-type]

        monkeypatch.setattr(gatherer, "_decide", decide)
        answers = [await gatherer.decide("first"), await asyncio.wait_for(late[0], 20)]  # type: ignore[arg-type]
        gatherer.close()
        return answers

    assert asyncio.run(run()) == ["first", "late"]
