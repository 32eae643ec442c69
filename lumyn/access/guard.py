"""Checking keys: a key's text in, its `Principal` out. What `lumyn serve` and the console ask."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from lumyn.access.keys import ApiKey, id_in, is_same
from lumyn.access.principal import DEV, ROLES, Principal
from lumyn.access.rates import Buckets
from lumyn.access.store import KeyStore
from schemas.errors import Unauthorized
from streams.local_log import wall_clock_ms

_HELP: Final = "send it as `X-API-Key`; `lumyn keys create --tenant T --role read` makes one"


class Guard:
    """Who may come in. With `dev`, and only there, whoever sends no key of ours is the installation's own admin."""

    def __init__(self, home: Path, tenant: str, actor: str, *, dev: bool = False) -> None:
        """`tenant` runs the installation: its admins may change what all tenants share."""
        self.store = KeyStore(home)
        self.tenant = tenant
        self.dev = dev
        self._anyone = Principal(tenant, frozenset(ROLES), DEV, actor, operator=True)
        self._buckets = Buckets()

    def check(self, key: str | None) -> Principal:
        """The holder of a key, as of this moment; nothing is taken of its rate. Raises `Unauthorized`.

        An unknown key, a revoked and an expired one are told apart only to who holds them.
        """
        return self._checked(key)[1]

    def let_in(self, key: str | None) -> Principal:
        """Like `check`, for one request: takes one of what the key may make. Raises `Unauthorized`, `RateLimited`."""
        kept, principal = self._checked(key)
        if kept is not None and kept.rate is not None:
            self._buckets.take(kept.key_id, kept.rate)
        return principal

    def charge(self, principal: Principal, cost: int) -> None:
        """A request that holds many (a batch) costs as many; the first was taken when it was let in."""
        kept = self.store.find(principal.key_id)
        if kept is not None:
            self._buckets.charge(kept.key_id, kept.rate, cost - 1)

    def _checked(self, key: str | None) -> tuple[ApiKey | None, Principal]:
        key_id = id_in(key) if key is not None else None
        if self.dev and key_id is None:
            return None, self._anyone
        if not key:
            raise Unauthorized("this needs an API key", help=_HELP)
        kept = self.store.find(key_id) if key_id is not None else None
        if not is_same(key, kept) or kept is None:
            raise Unauthorized("the API key is not known here", help=_HELP)
        state = kept.state(wall_clock_ms())
        if state != "active":
            raise Unauthorized(f"the API key is {state}", help=_HELP)
        return kept, Principal(kept.tenant, kept.roles, kept.key_id, kept.name, kept.tenant == self.tenant)
