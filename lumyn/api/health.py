"""`/healthz` and `/readyz`, which say nothing of what was decided and so are open."""

from __future__ import annotations

from typing import Any

from fastapi import FastAPI

from lumyn.access.http import OPEN, needs
from lumyn.config import LumynConfig
from lumyn.wiring import open_home


def add_health(app: FastAPI, config: LumynConfig) -> None:
    """Add the endpoints."""

    @app.get("/healthz", summary="The process lives", dependencies=[needs(OPEN)])
    def healthz() -> dict[str, str]:
        return {"status": "ok"}

    @app.get("/readyz", summary="The log can be used", dependencies=[needs(OPEN)])
    def readyz() -> dict[str, Any]:
        return {"status": "ready", "control_version": open_home(config).agent.control().version}
