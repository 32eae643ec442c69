"""Publishing, activating and rolling back policies, for the command line and HTTP alike: the home's actor did it."""

from __future__ import annotations

from lumyn.home import Home
from streams.control import PublishedPolicy, check_publishable, control_append, previous_policy, publish_event
from streams.policy import CompiledPolicy


def publish(home: Home, policy: CompiledPolicy) -> bool:
    """Publish a document; False where it was published before. Raises `PolicyConflict`."""
    control = home.agent.control()
    check_publishable(control, policy)
    known = control.policies.get(policy.policy_hash)
    if known is not None and known.origin == "publish":
        return False
    home.log.append([publish_event(policy, home.settings.actor, "publish")])
    return True


def activate(home: Home, name: str, version: str | None, why: str) -> PublishedPolicy:
    """Make a published policy (default: its latest version) the one that decides. Raises `NotFound`."""
    return _activated(home, home.agent.control().find(name, version), why)


def roll_back(home: Home, name: str, why: str) -> PublishedPolicy:
    """Go back to the policy that was active before. Raises `NotFound`."""
    return _activated(home, previous_policy(home.agent.control(), name), why or "rollback")


def _activated(home: Home, chosen: PublishedPolicy, why: str) -> PublishedPolicy:
    event = {
        "type": "policy_activated",
        "actor": home.settings.actor,
        "why": why,
        "name": chosen.name,
        "policy_version": chosen.version,
        "hash": chosen.hash,
    }
    home.log.append([control_append(event)])
    return chosen
