"""`/healthz` and `/readyz`, which say nothing of what was decided and so are open."""

from __future__ import annotations

from typing import Any

from fastapi import FastAPI

from lumyn.access.http import OPEN
from lumyn.api.spec import endpoint
from lumyn.config import LumynConfig
from lumyn.wiring import open_home


def add_health(app: FastAPI, config: LumynConfig) -> None:
    """Add the endpoints."""

    @app.get("/healthz", **endpoint("The process lives", OPEN, "Alive"))
    async def healthz() -> dict[str, str]:
        return {"status": "ok"}

    @app.get("/readyz", **endpoint("The log can be used", OPEN, "Ready"))
    def readyz() -> dict[str, Any]:
        return {"status": "ready", "control_version": open_home(config).agent.control().version}
