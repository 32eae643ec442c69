"""Whom a request comes from: a tenant, roles, and the key's name."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from schemas.errors import Forbidden, UsageError

ROLES: Final = ("decide", "label", "read", "admin")
"""`decide`: requests in. `label`: labels and notes. `read`: look at anything of the tenant. `admin`: all of these,
and policies, switches and the audit."""
DEV: Final = "dev"
"""The key id of whoever comes without a key to a server that runs with `--dev`."""


@dataclass(frozen=True, slots=True)
class Principal:
    """A key's holder. `operator`: of the installation's own tenant, whose admins may change what all tenants share."""

    tenant: str
    roles: frozenset[str]
    key_id: str
    name: str
    operator: bool = False

    @property
    def actor(self) -> str:
        """Who did it, as labels, control events and the audit keep it: no client can say this of himself."""
        return self.name if self.key_id == DEV else f"key:{self.key_id} {self.name}".rstrip()

    def may(self, role: str) -> bool:
        """Whether a role is held; `admin` holds every other. `any` asks for a valid key alone."""
        return role == "any" or role in self.roles or "admin" in self.roles

    def require(self, role: str) -> Principal:
        """Raises `Forbidden`."""
        if not self.may(role):
            raise Forbidden(
                f"this key may {', '.join(sorted(self.roles))}, and this needs `{role}`",
                help=f"`lumyn keys create --tenant {self.tenant} --role {role}` makes one that may",
            )
        return self

    def require_operator(self, what: str) -> Principal:
        """Refuse whom the installation is not: what all tenants share. Raises `Forbidden`."""
        if not self.operator:
            raise Forbidden(
                f"{what} is shared by all tenants, and tenant `{self.tenant}` does not run this installation",
                help="use an admin key of the tenant that LUMYN_TENANT names where `lumyn serve` runs",
            )
        return self


def roles_of(names: Iterable[str]) -> frozenset[str]:
    """Roles as they are typed: `decide,read`, or several of them. Raises `UsageError`."""
    found = {part.strip() for name in names for part in name.split(",") if part.strip()}
    unknown = sorted(found - set(ROLES))
    if unknown or not found:
        raise UsageError(
            f"unknown role `{unknown[0]}`" if unknown else "a key needs a role", help=f"roles: {', '.join(ROLES)}"
        )
    return frozenset(found)
