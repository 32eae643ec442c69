"""Kill switches of a home, for HTTP and the console: on, off, each with its actor and its reason.

A switch that a tenant's admin puts on is stored as `TENANT:ID`, so that no tenant can take a name that another one, or
the operator, wants, and is the tenant's to take off; every other one is the operator's, also where it stops that tenant
alone. No id that is asked for and no tenant has a `:` in it.
"""

from __future__ import annotations

import re
import uuid
from collections.abc import Iterable, Mapping
from typing import Any, Final

from lumyn.access.principal import Principal
from lumyn.home import Home
from schemas.canonical import encode
from schemas.errors import BadInput, Forbidden, NotFound, RequestConflict
from streams.control import KillSwitch
from streams.log import Append
from streams.topics import CONTROL

SCOPE: Final = ("tenant", "action_type", "policy")
_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}\Z", re.ASCII)


def switch_on(home: Home, scope: Mapping[str, str], why: str, *, owner: str | None = None) -> str:
    """Deny everything in a scope from now on; returns the switch's id, which is `owner`'s where one is given."""
    name = uuid.uuid4().hex[:12]
    return _put_on(home, name if owner is None else owned_id(owner, name), scope, why)


def put_switch(home: Home, who: Principal, switch_id: str, scope: Mapping[str, str], why: str) -> KillSwitch:
    """Put a switch on under an id of one's own; where it is on with this scope, that one. Raises `RequestConflict`."""
    bare = switch_id.removeprefix(owned_id(who.tenant, ""))
    on = {one.switch_id: one for one in home.agent.control().switches if sees(who, one)}
    for name in (owned_id(who.tenant, bare), switch_id):
        if name in on and may_end(who, on[name]) and dict(on[name].scope) == scope:
            return on[name]
    if not _ID.match(bare):
        raise BadInput("a switch's id has 1 to 64 letters, digits, `_`, `.` or `-`", where="switch_id")
    name = owned_id(who.tenant, bare)
    if who.operator and name != switch_id and not _is_of_another(who, on.get(bare)):
        name = bare
    if name not in on:
        _put_on(home, name, scope, why)
        on = {one.switch_id: one for one in home.agent.control().switches}
    if name in on and dict(on[name].scope) == scope:
        return on[name]
    raise RequestConflict(
        f"switch `{switch_id}` is on with another scope", help="take it off first, or use another id"
    )  # also where somebody else was faster with this id


def switch_off(home: Home, switch: KillSwitch, why: str) -> None:
    """Take a switch off."""
    _append(home, {"type": "kill_switch_off", "why": why, "switch_id": switch.switch_id})


def find_switch(home: Home, switch_id: str, who: Principal | None = None) -> KillSwitch:
    """A switch that is on and that `who` sees, by its whole id or as the home's tenant calls it. Raises `NotFound`."""
    on = {one.switch_id: one for one in home.agent.control().switches if who is None or sees(who, one)}
    for name in named(on, switch_id, home.settings.tenant):
        return on[name]
    raise NotFound(f"no kill switch `{switch_id[:64]}` is on", help="`lumyn kill-switch status` shows those that are")


def named(ids: Iterable[str], ref: str, tenant: str, *, prefix: bool = False) -> list[str]:
    """Which ids a name means: a tenant's own, else the very same; with `prefix`, else all that begin so."""
    there = dict.fromkeys(ids)
    for name in (owned_id(tenant, ref), ref):
        if name in there:
            return [name]
    return [one for one in there if one.startswith(ref)] if prefix and ref else []


def owned_id(tenant: str, switch_id: str) -> str:
    """The id under which a tenant's switch is stored."""
    return f"{tenant}:{switch_id}"


def owner_of(switch_id: str) -> str | None:
    """The tenant whose admin put a switch on; None: the operator."""
    tenant, colon, _ = switch_id.partition(":")
    return tenant if colon else None


def shown_id(who: Principal, switch_id: str) -> str:
    """A switch's id as one calls it: a tenant's own without the tenant; the operator sees them whole."""
    return switch_id if who.operator else switch_id.removeprefix(owned_id(who.tenant, ""))


def sees(who: Principal, switch: KillSwitch) -> bool:
    """Whether a switch reaches whom one may see: one's own tenant, or, for the operator, anybody."""
    return who.operator or not _is_of_another(who, switch)


def may_end(who: Principal, switch: KillSwitch) -> bool:
    """Whether an admin may take a switch off: one of his own tenant's, or, for the operator, any."""
    return who.operator or owner_of(switch.switch_id) == who.tenant


def require_may_end(who: Principal, switch: KillSwitch) -> None:
    """Raises `Forbidden` for a switch that is not `who`'s to take off."""
    if not may_end(who, switch):
        raise Forbidden(
            "who runs this installation put this switch on, and takes it off",
            help="use an admin key of the tenant that LUMYN_TENANT names where `lumyn serve` runs",
        )


def _is_of_another(who: Principal, switch: KillSwitch | None) -> bool:
    return switch is not None and switch.scope.get("tenant", who.tenant) != who.tenant


def _put_on(home: Home, name: str, scope: Mapping[str, str], why: str) -> str:
    """Sent twice under one id, the first holds."""
    _append(home, {"type": "kill_switch_on", "why": why, "switch_id": name, "scope": dict(scope)})
    return name


def _append(home: Home, event: dict[str, Any]) -> None:
    """Over Kafka by the shortest way there is: what a switch stops goes on until it stands there."""
    item = Append(CONTROL, encode({"actor": home.settings.actor, **event}), partition=0)
    at_once = getattr(home.log, "append_at_once", None)
    if at_once is not None:
        at_once(item)
    else:
        home.log.append([item])
