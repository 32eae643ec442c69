"""Candidates beside the policy in force: put there, taken away, and what they said."""

from __future__ import annotations

from typing import Any

from lumyn.home import Home
from schemas.errors import NotFound, UsageError
from streams.control import ControlState, ShadowedPolicy, control_append, publish_event
from streams.observe import Observer
from streams.policy import CompiledPolicy
from streams.reading import is_embedded
from streams.shadow import ShadowAgent
from streams.shadow_results import ShadowResult, shadow_results


def start(home: Home, policy: CompiledPolicy, instead_of: str | None, why: str) -> ShadowedPolicy:
    """Have a candidate evaluated beside the decisions of the policy of its name, or of `instead_of`.

    Raises `UsageError` when no such policy decides here.
    """
    control = home.agent.control()
    name = instead_of or policy.name
    if not _decides(control, name):
        known = ", ".join(f"`{one}`" for one in sorted({p.name for p in control.policies.values()})) or "none"
        raise UsageError(
            f"no policy `{name}` decides here, so there is nothing to stand beside",
            help=f"`--instead-of NAME` says beside whose decisions it is tried; published or used here: {known}",
        )
    there = control.shadows.get(policy.policy_hash)
    if there is not None:
        raise UsageError(f"`{there.name}@{there.version}` is in the shadow of `{there.instead_of}` already")
    if policy.policy_hash not in control.policies:
        home.log.append([publish_event(policy, home.settings.actor, "shadow")])
    event = {
        "type": "policy_shadowed",
        "actor": home.settings.actor,
        "why": why,
        "name": policy.name,
        "policy_version": policy.version,
        "hash": policy.policy_hash,
        "instead_of": name,
    }
    home.log.append([control_append(event)])
    return home.agent.control().shadows[policy.policy_hash]


def _decides(control: ControlState, name: str) -> bool:
    return any(policy.name == name and policy.origin != "shadow" for policy in control.policies.values())


def stop(home: Home, which: str) -> ShadowedPolicy:
    """Take a candidate away: `NAME`, `NAME@VERSION` or the start of its hash. Its verdicts stay. Raises `NotFound`."""
    found = [s for s in home.agent.control().shadows.values() if _is(s, which)]
    if not found:
        raise NotFound(f"no candidate `{which}` is in the shadow", help="`lumyn policy shadow` lists them")
    if len(found) > 1:
        raise UsageError(f"`{which}` is not one candidate but {len(found)}", help="say NAME@VERSION, or the hash")
    event = {"type": "policy_unshadowed", "actor": home.settings.actor, "hash": found[0].hash}
    home.log.append([control_append(event)])
    return found[0]


def _is(shadow: ShadowedPolicy, which: str) -> bool:
    return which in (shadow.name, f"{shadow.name}@{shadow.version}") or (
        len(which) > len("sha256:") and shadow.hash.startswith(which)
    )


def catch_up(home: Home) -> None:
    """Where no worker runs, what was decided meanwhile is evaluated now."""
    if is_embedded(home.log):
        agent = ShadowAgent(home.log, home.memories, Observer())
        try:
            while agent.step():
                pass
        finally:
            agent.close()


def results(home: Home) -> list[dict[str, Any]]:
    """Every candidate under trial, with what it said so far of the home's tenant."""
    catch_up(home)
    said = shadow_results(home.log, home.settings.tenant)
    return [
        {
            "policy": f"{shadow.name}@{shadow.version}",
            "hash": shadow.hash,
            "instead_of": shadow.instead_of,
            "since_ms": shadow.since_ms,
            "actor": shadow.actor,
            "why": shadow.why,
            **said.get(shadow.hash, ShadowResult(shadow.hash)).as_dict(),
        }
        for shadow in home.agent.control().shadows.values()
    ]
