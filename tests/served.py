"""Clients of the HTTP app in this process: on loopback without keys, or with a key of some tenant and roles."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from starlette.testclient import TestClient

from lumyn import LumynConfig
from lumyn.access.principal import roles_of
from lumyn.access.store import KeyStore
from lumyn.api.app import make_app
from lumyn.api.homes import guard_for
from lumyn.config import resolve

HERE = "http://127.0.0.1:8700"


@contextmanager
def dev_client(config: LumynConfig) -> Iterator[TestClient]:
    """What `lumyn serve --dev` serves."""
    app = make_app(config, guard_for(config, dev=True))
    with TestClient(app, HERE, raise_server_exceptions=False) as client:
        yield client


@contextmanager
def keyed_client(config: LumynConfig) -> Iterator[TestClient]:
    """What `lumyn serve` serves: nothing without a key."""
    with TestClient(make_app(config), HERE, raise_server_exceptions=False) as client:
        yield client


def new_key(config: LumynConfig, tenant: str, *roles: str, **more: Any) -> str:
    """A key, made as `lumyn keys create` does."""
    store = KeyStore(resolve(config).home.absolute())
    try:
        return store.create(tenant, roles_of(roles), actor="ann", **more)[1]
    finally:
        store.close()
