"""The HTTP app: the SDK's operations as endpoints, each for keys of a role and of one tenant (docs/http-api.md)."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from fastapi import FastAPI

from lumyn import __version__
from lumyn.access.guard import Guard
from lumyn.access.http import check_declared
from lumyn.api.audit import add_audit
from lumyn.api.deciding import add_deciding
from lumyn.api.health import add_health
from lumyn.api.homes import guard_for
from lumyn.api.labels import add_labels
from lumyn.api.lane import DecideLane
from lumyn.api.limits import BodyLimit
from lumyn.api.looking import add_looking
from lumyn.api.measured import add_metrics
from lumyn.api.memory import add_memory
from lumyn.api.policies import add_policies
from lumyn.api.problems import add_problems
from lumyn.api.spec import add_description
from lumyn.api.switches import add_switches
from lumyn.api.waiting import add_waiting
from lumyn.config import LumynConfig
from lumyn.console.app import add_console


def make_app(config: LumynConfig, access: Guard | None = None) -> FastAPI:
    """The app of one configuration. `access` says who may come in; without it, only holders of the home's API keys."""
    app = FastAPI(
        title="Lumyn Streams", version=__version__, docs_url=None, redoc_url=None, openapi_url=None, lifespan=_closing
    )
    app.state.config = config
    app.state.guard = access or guard_for(config, dev=False)
    app.state.closing = []
    app.add_middleware(DecideLane)
    app.add_middleware(BodyLimit)
    add_problems(app)
    add_metrics(app)
    add_deciding(app, config)
    add_waiting(app)
    add_labels(app)
    add_looking(app)
    add_memory(app)
    add_policies(app)
    add_switches(app)
    add_audit(app)
    add_health(app, config)
    add_console(app, config)
    add_description(app)
    check_declared(app)
    return app


@asynccontextmanager
async def _closing(app: FastAPI) -> AsyncIterator[None]:
    yield
    for close in app.state.closing:
        close()
    app.state.guard.store.close()
