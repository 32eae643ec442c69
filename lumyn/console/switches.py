"""Kill switches: those that are on, how fast each took hold, putting one on, taking one off."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Final

from starlette.responses import RedirectResponse, Response

from lumyn import switches
from lumyn.cli.stop_now import scope_text
from lumyn.console import render
from lumyn.console.app import Page
from lumyn.console.policies import confirmed
from lumyn.console.visit import Visit
from schemas.ids import time_ms_of
from streams.containment import WITHIN_S, Containment, containment
from streams.control import KillSwitch

_DONE: Final = {"on": "It is on.", "off": "It is off."}


@dataclass(frozen=True, slots=True)
class On:
    """A switch that is on; `figure` is of the visitor's tenant alone, unless he runs the installation."""

    switch: KillSwitch
    scope: str
    since_ms: int
    figure: Containment
    may_end: bool


def list_(visit: Visit) -> Response:
    """The switches that reach the tenant."""
    home, principal = visit.home, visit.principal
    within_s = max(WITHIN_S, 3 * home.settings.runtime_setting("control_max_staleness_s", 10.0))
    found = []
    for switch in home.agent.control().switches:
        if switch.scope.get("tenant", principal.tenant) != principal.tenant and not principal.operator:
            continue
        seen = switch if principal.operator else replace(switch, scope={**switch.scope, "tenant": principal.tenant})
        figure = containment(home.log, seen, within_s=within_s)
        found.append(On(switch, scope_text(switch.scope), time_ms_of(switch.at), figure, _may(visit, switch.scope)))
    return render.html(
        "switches", visit=visit, here="switches", found=found, within_s=within_s,
        done=_DONE.get(visit.query.get("done", "")),
    )  # fmt: skip


def _may(visit: Visit, scope: object) -> bool:
    tenant = scope.get("tenant") if hasattr(scope, "get") else None
    return visit.has("admin") and (visit.principal.operator or tenant == visit.principal.tenant)


def on(visit: Visit) -> Response:
    """Stop what is in a scope. Who does not run the installation stops his own tenant's."""
    given = {name: visit.form.get(name, "").strip() for name in switches.SCOPE}
    scope = {name: value for name, value in given.items() if value}
    if scope.get("tenant") != visit.principal.tenant:
        visit.principal.require_operator("a switch for more than one tenant")
    switches.switch_on(visit.home, scope, confirmed(visit))
    return _back("on")


def off(visit: Visit) -> Response:
    """Let it go on."""
    home = visit.home
    switch = switches.find_switch(home, visit.request.path_params["switch_id"])
    if switch.scope.get("tenant") != visit.principal.tenant:
        visit.principal.require_operator("this switch")
    switches.switch_off(home, switch, confirmed(visit))
    return _back("off")


def _back(done: str) -> Response:
    return RedirectResponse(render.url("switches", done=done), 303, headers=dict(render.HEADERS))


PAGES: Final = (
    Page("/switches", "read", list_),
    Page("/switches/on", "admin", on, "POST"),
    Page("/switches/{switch_id}/off", "admin", off, "POST"),
)
