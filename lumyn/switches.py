"""Kill switches of a home, for HTTP and the console: on, off, each with its actor and its reason."""

from __future__ import annotations

import re
import uuid
from collections.abc import Mapping
from typing import Any, Final

from lumyn.wiring import Home
from schemas.canonical import encode
from schemas.errors import BadInput, NotFound
from streams.control import KillSwitch
from streams.log import Append
from streams.topics import CONTROL

SCOPE: Final = ("tenant", "action_type", "policy")
_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}\Z", re.ASCII)


def switch_on(home: Home, scope: Mapping[str, str], why: str, switch_id: str | None = None) -> str:
    """Deny everything in a scope from now on; returns the switch's id. Sent twice under one id, the first holds."""
    name = switch_id or uuid.uuid4().hex[:12]
    if not _ID.match(name):
        raise BadInput("a switch's id has 1 to 64 letters, digits, `_`, `.` or `-`", where="switch_id")
    _append(home, {"type": "kill_switch_on", "why": why, "switch_id": name, "scope": dict(scope)})
    return name


def switch_off(home: Home, switch: KillSwitch, why: str) -> None:
    """Take a switch off."""
    _append(home, {"type": "kill_switch_off", "why": why, "switch_id": switch.switch_id})


def find_switch(home: Home, switch_id: str) -> KillSwitch:
    """A switch that is on, by its whole id. Raises `NotFound`."""
    for switch in home.agent.control().switches:
        if switch.switch_id == switch_id:
            return switch
    raise NotFound(f"no kill switch `{switch_id[:64]}` is on", help="`lumyn kill-switch status` shows those that are")


def _append(home: Home, event: dict[str, Any]) -> None:
    """Over Kafka by the shortest way there is: what a switch stops goes on until it stands there."""
    item = Append(CONTROL, encode({"actor": home.settings.actor, **event}), partition=0)
    at_once = getattr(home.log, "append_at_once", None)
    if at_once is not None:
        at_once(item)
    else:
        home.log.append([item])
