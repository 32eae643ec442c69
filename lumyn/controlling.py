"""Changing what decides, in the name of a home's actor: policies active and back, kill switches on and off."""

from __future__ import annotations

import uuid
from collections.abc import Mapping

from lumyn.wiring import Home
from schemas.errors import NotFound, UsageError
from streams.control import KillSwitch, PublishedPolicy, control_append, previous_policy

SCOPES = ("action_type", "tenant", "policy")


def activate(home: Home, chosen: PublishedPolicy, why: str) -> None:
    """Have a published policy decide from now on."""
    event = {
        "type": "policy_activated",
        "actor": home.settings.actor,
        "why": why,
        "name": chosen.name,
        "policy_version": chosen.version,
        "hash": chosen.hash,
    }
    home.log.append([control_append(event)])


def roll_back(home: Home, name: str, why: str) -> PublishedPolicy:
    """Go back to the policy that was active before. Raises `NotFound`."""
    chosen = previous_policy(home.agent.control(), name)
    activate(home, chosen, why or "rollback")
    return chosen


def switch_on(home: Home, scope: Mapping[str, str], why: str) -> str:
    """Deny everything in a scope from now on; returns the switch's id. Raises `UsageError`."""
    unknown = sorted(set(scope) - set(SCOPES))
    if unknown or not all(scope.values()):
        raise UsageError("a scope is of action_type, tenant and policy, and none of them empty")
    if not why.strip():
        raise UsageError("a reason is missing", help="it goes into every record that is denied")
    switch_id = uuid.uuid4().hex[:12]
    event = {"type": "kill_switch_on", "actor": home.settings.actor, "why": why.strip(), "switch_id": switch_id}
    home.log.append([control_append({**event, "scope": dict(scope)})])
    return switch_id


def switch_off(home: Home, switch: KillSwitch, why: str) -> None:
    """Take a kill switch off."""
    event = {"type": "kill_switch_off", "actor": home.settings.actor, "why": why, "switch_id": switch.switch_id}
    home.log.append([control_append(event)])


def found_switch(home: Home, switch_id: str) -> KillSwitch:
    """The one switch that is on whose id begins so. Raises `NotFound`."""
    found = [s for s in home.agent.control().switches if switch_id and s.switch_id.startswith(switch_id)]
    if len(found) != 1:
        raise NotFound(f"no one switch `{switch_id}` is on", help="`lumyn kill-switch status` shows those that are")
    return found[0]
