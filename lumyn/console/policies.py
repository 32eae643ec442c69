"""Policies: what is published and active, one policy, two beside each other, and what candidates say in the shadow."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from starlette.responses import RedirectResponse, Response

from lumyn import policies, shadowing
from lumyn.console import render
from lumyn.console.conditions import condition_lines
from lumyn.console.page import Page
from lumyn.console.visit import Visit
from schemas.errors import BadInput, NotFound
from schemas.policy import MemorySettings
from streams.control import PublishedPolicy
from streams.policy import CompiledPolicy

_DONE: Final = {
    "active": "It decides from now on.", "back": "The policy before decides again.",
    "published": "It is published. It decides nothing until it is made active.",
    "known": "It was published before; nothing was changed.",
}  # fmt: skip
SHARED: Final = "what decides"


@dataclass(frozen=True, slots=True)
class RuleChange:
    """A rule that two versions don't have alike: `parts` are (what, before, after); a new or gone one is `rule`."""

    id: str
    how: str
    parts: tuple[tuple[str, Any, Any], ...] = ()
    rule: Mapping[str, Any] | None = None


def list_(visit: Visit) -> Response:
    """All policies, the newest first."""
    control = visit.home.agent.control()
    published = list(control.policies.values())[::-1]
    activated = {name: len(set(past)) > 1 for name, past in control.history.items()}
    return render.html(
        "policies", visit=visit, here="policies", policies=published, active=set(control.active.values()),
        shadows=control.shadows, can_go_back=activated, names=sorted(control.active),
        done=_DONE.get(visit.query.get("done", "")),
    )  # fmt: skip


def show(visit: Visit) -> Response:
    """One policy: its rules and its source."""
    control = visit.home.agent.control()
    found = published(visit, visit.request.path_params["hash"])
    others = [p for p in control.policies.values() if p.name == found.name and p.hash != found.hash][::-1]
    return render.html(
        "policy", visit=visit, here="policies", policy=found, compiled=control.compiled(found.hash), others=others,
        active=control.active.get(found.name) == found.hash, current=control.active.get(found.name),
        condition=condition_lines, done=_DONE.get(visit.query.get("done", "")),
    )  # fmt: skip


def compare(visit: Visit) -> Response:
    """Two policies beside each other."""
    old, new = published(visit, visit.query.get("old", "")), published(visit, visit.query.get("new", ""))
    control = visit.home.agent.control()
    told = difference(control.compiled(old.hash), control.compiled(new.hash))
    return render.html("policy_diff", visit=visit, here="policies", old=old, new=new, **told)


def difference(old: CompiledPolicy, new: CompiledPolicy) -> dict[str, Any]:
    """What differs, for `policy_changes.html.j2`: rule by rule, and as text."""
    before, after = (policy.source.decode("utf-8").splitlines() for policy in (old, new))
    then, now = (f"{policy.name}@{policy.version}" for policy in (old, new))
    text = list(difflib.unified_diff(before, after, then, now, lineterm="", n=3))
    changes, same = rule_changes(old, new)
    return {"text": text, "changes": changes, "same": same, "condition": condition_lines}


def rule_changes(old: CompiledPolicy, new: CompiledPolicy) -> tuple[list[RuleChange], int]:
    """What differs rule by rule, in the new one's order, and how many rules are alike; default, memory and fx, too."""
    before, after = ({rule.id: rule.ir() for rule in policy.rules} for policy in (old, new))
    changes, same = [], 0
    for name, ir in after.items():
        was = before.get(name)
        parts = tuple((key, was[key], ir[key]) for key in ir if was is not None and was[key] != ir[key])
        if was is None:
            changes.append(RuleChange(name, "new", rule=ir))
        elif parts:
            changes.append(RuleChange(name, "changed", parts))
        else:
            same += 1
    changes += [RuleChange(name, "gone", rule=before[name]) for name in before if name not in after]
    kept = [[name for name in names if name in before and name in after] for names in (before, after)]
    if kept[0] != kept[1]:
        changes.append(RuleChange("order of rules", "changed", (("order", kept[0], kept[1]),)))
    settings: tuple[tuple[str, Any, Any], ...] = (
        ("default", [old.default_verdict, *old.default_reason_codes], [new.default_verdict, *new.default_reason_codes]),
        ("memory", _settings(old.memory), _settings(new.memory)),
        ("fx", dict(old.fx), dict(new.fx)),
    )
    for name, then, now in settings:
        if then != now:
            changes.append(RuleChange(name, "changed", ((name, then, now),)))
    return changes, same


def _settings(memory: MemorySettings | None) -> Any:
    return "off" if memory is None else memory.as_dict()


def shadow(visit: Visit) -> Response:
    """What candidates said beside the policy in force; what was decided meanwhile is evaluated now."""
    return render.html("shadow", visit=visit, here="policies", results=shadowing.results(visit.home))


def activate(visit: Visit) -> Response:
    """Have it decide from now on."""
    visit.principal.require_operator(SHARED)
    found = published(visit, visit.request.path_params["hash"])
    why, home = confirmed(visit), visit.home
    if home.agent.control().find(found.name, found.version).hash != found.hash:
        raise BadInput(
            f"`{found.name}@{found.version}` was published with another content since", help="make the later one active"
        )
    policies.activate(home, found.name, found.version, why)
    return _back("active")


def roll_back(visit: Visit) -> Response:
    """Go back to the one before."""
    visit.principal.require_operator(SHARED)
    policies.roll_back(visit.home, visit.form.get("name", ""), confirmed(visit))
    return _back("back")


def confirmed(visit: Visit) -> str:
    """The reason for a change that was confirmed. Raises `BadInput` for one that was not."""
    why = visit.form.get("why", "").strip()
    if visit.form.get("confirm") != "yes":
        raise BadInput("nothing was changed: the change was not confirmed", help="go back and tick the box")
    if not why:
        raise BadInput("nothing was changed: a reason is missing", help="go back and give one; it is kept")
    return why


def published(visit: Visit, hash_: str) -> PublishedPolicy:
    """A published policy by its hash. Raises `NotFound`."""
    found = visit.home.agent.control().policies.get(hash_)
    if found is None:
        raise NotFound("no such policy is published here", help="the list shows what there is")
    return found


def _back(done: str) -> Response:
    return RedirectResponse(render.url("policies", done=done), 303, headers=dict(render.HEADERS))


PAGES: Final = (
    Page("/policies", "read", list_),
    Page("/policies/compare", "read", compare),
    Page("/policies/shadow", "read", shadow),
    Page("/policies/rollback", "admin", roll_back, "POST"),
    Page("/policies/{hash}", "read", show),
    Page("/policies/{hash}/activate", "admin", activate, "POST"),
)
