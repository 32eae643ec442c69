"""The home of a request: the served one, as the tenant and the actor that its key says."""

from __future__ import annotations

from fastapi import FastAPI, Request

from lumyn.access.guard import Guard
from lumyn.access.principal import Principal
from lumyn.config import LumynConfig, resolve
from lumyn.home import Home
from lumyn.wiring import existing_home, home_as, open_home


def guard_for(config: LumynConfig, *, dev: bool) -> Guard:
    """The guard of a configuration's home. Opens nothing yet."""
    settings = resolve(config)
    return Guard(settings.home.absolute(), settings.tenant, settings.actor, dev=dev)


def config_of(request: Request) -> LumynConfig:
    """The configuration that an app serves."""
    app: FastAPI = request.app
    config: LumynConfig = app.state.config
    return config


def sender(request: Request) -> Principal:
    """Who sent a request, as its route's `needs(ROLE)` has found."""
    principal: Principal = request.state.principal
    return principal


def home_of(request: Request) -> Home:
    """The home as its sender's, for looking and labelling. Raises `NotFound` before the first decision."""
    return home_for(config_of(request), sender(request))


def home_for(config: LumynConfig, principal: Principal) -> Home:
    """The home as a principal's: what it asks is of his tenant, and what it changes carries his name."""
    return home_as(existing_home(config), principal.tenant, principal.actor)


def deciding_home(config: LumynConfig, principal: Principal) -> Home:
    """The same for requests that come in: made where there is none."""
    return home_as(open_home(config), principal.tenant, principal.actor)
