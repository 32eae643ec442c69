"""Async twins of the SDK: the same calls, run in a thread so that an event loop never waits on the disk."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from lumyn import sdk
from lumyn.config import LumynConfig
from schemas.errors import LumynError
from schemas.label import LabelEvent
from schemas.record import DecisionRecord


async def decide(request: sdk.RequestLike, config: LumynConfig | None = None) -> DecisionRecord:
    """As `lumyn.decide`; concurrent calls share a transaction (group commit)."""
    return await asyncio.to_thread(sdk.decide, request, config)


async def decide_many(
    requests: Iterable[sdk.RequestLike], config: LumynConfig | None = None
) -> list[DecisionRecord | LumynError]:
    """As `lumyn.decide_many`."""
    return await asyncio.to_thread(sdk.decide_many, list(requests), config)


async def submit(request: sdk.RequestLike, config: LumynConfig | None = None) -> dict[str, Any]:
    """As `lumyn.submit`."""
    return await asyncio.to_thread(sdk.submit, request, config)


async def label(decision_id: str, label: str, **options: Any) -> LabelEvent:
    """As `lumyn.label`."""
    return await asyncio.to_thread(sdk.label, decision_id, label, **options)


async def show(decision_id: str, config: LumynConfig | None = None) -> dict[str, Any]:
    """As `lumyn.show`."""
    return await asyncio.to_thread(sdk.show, decision_id, config)


async def counterfactuals(decision_id: str, **options: Any) -> dict[str, Any]:
    """As `lumyn.counterfactuals`."""
    return await asyncio.to_thread(sdk.counterfactuals, decision_id, **options)


async def export(decision_id: str, out: str | Path, **options: Any) -> Path:
    """As `lumyn.export`."""
    return await asyncio.to_thread(sdk.export, decision_id, out, **options)


async def replay(pack: str | Path, **options: Any) -> dict[str, Any]:
    """As `lumyn.replay`."""
    return await asyncio.to_thread(sdk.replay, pack, **options)


async def backtest(policies: Any = (), **options: Any) -> dict[str, Any]:
    """As `lumyn.backtest`."""
    return await asyncio.to_thread(sdk.backtest, policies, **options)
