"""Kill switches: those that are on, how fast each took hold, putting one on, taking one off.

How fast is measured apart from the list: it reads half a minute of records, and the list must be there at once.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Final

from starlette.responses import PlainTextResponse, RedirectResponse, Response

from lumyn import switches
from lumyn.cli.stop_now import scope_text
from lumyn.console import render
from lumyn.console.page import Page
from lumyn.console.policies import confirmed
from lumyn.console.visit import Visit
from lumyn.figures import number
from schemas.errors import BadInput
from schemas.ids import time_ms_of
from streams.containment import WITHIN_S, Containment, containment
from streams.control import KillSwitch
from streams.local_log import wall_clock_ms

_LATE_MS: Final = 10_000
_MOST: Final = 1000
_measured: dict[tuple[str, str, str, float], Containment] = {}
_DONE: Final = {"on": "It is on.", "off": "It is off."}


@dataclass(frozen=True, slots=True)
class On:
    """A switch that is on."""

    switch: KillSwitch
    shown_id: str
    scope: str
    since_ms: int
    may_end: bool


def list_(visit: Visit) -> Response:
    """The switches that reach the tenant."""
    found = [
        On(
            one, switches.shown_id(visit.principal, one.switch_id), scope_text(one.scope), time_ms_of(one.at),
            _may_end(visit, one),
        )
        for one in visit.home.agent.control().switches
        if switches.sees(visit.principal, one)
    ]
    return render.html(
        "switches", visit=visit, here="switches", found=found, done=_DONE.get(visit.query.get("done", ""))
    )


def contained(visit: Visit) -> Response:
    """How fast one took hold, in a line: of the visitor's tenant alone, unless he runs the installation."""
    home, principal = visit.home, visit.principal
    switch = _found(visit)
    seen = switch if principal.operator else replace(switch, scope={**switch.scope, "tenant": principal.tenant})
    within_s = max(WITHIN_S, 3 * home.settings.runtime_setting("control_max_staleness_s", 10.0))
    name = (home.log.epoch, switch.switch_id, "" if principal.operator else principal.tenant, within_s)
    figure = _measured.get(name)
    if figure is None:
        over = wall_clock_ms() > time_ms_of(switch.at) + within_s * 1000 + _LATE_MS
        figure = containment(home.log, seen, within_s=within_s)
        if over and len(_measured) < _MOST:
            _measured[name] = figure  # the log is only added to, and its time never goes back: it stays so
    return PlainTextResponse(containment_text(figure, within_s), headers=dict(render.HEADERS))


def containment_text(figure: Containment, within_s: float) -> str:
    """A measured containment in a sentence."""
    if figure.seconds is None:
        how = "Contained at once: no decision without it after it was on"
    else:
        many = f"{number(figure.without)} decision{'' if figure.without == 1 else 's'}"
        how = f"Contained in {figure.seconds:.3f} s: {many} without it after it was on"
    return f"{how}; {number(figure.with_it)} denied in its first {within_s:g} s."


def _found(visit: Visit) -> KillSwitch:
    """The switch of the address; another tenant's is not there."""
    return switches.find_switch(visit.home, visit.request.path_params["switch_id"], visit.principal)


def _may_end(visit: Visit, switch: KillSwitch) -> bool:
    return visit.has("admin") and switches.may_end(visit.principal, switch)


def on(visit: Visit) -> Response:
    """Stop what is in a scope. Who does not run the installation stops his own tenant's."""
    given = {name: visit.form.get(name, "").strip() for name in switches.SCOPE}
    scope = {name: value for name, value in given.items() if value}
    _said(scope, visit)
    if scope.get("tenant") != visit.principal.tenant:
        visit.principal.require_operator("a switch for more than one tenant")
    who = visit.principal
    switches.switch_on(visit.home, scope, confirmed(visit), owner=None if who.operator else who.tenant)
    return _back("on")


def _said(scope: dict[str, str], visit: Visit) -> None:
    """All of it is stopped where that was said, and only there. Raises `BadInput`."""
    narrowed = bool(scope.keys() - (set() if visit.principal.operator else {"tenant"}))
    everything = visit.form.get("everything") == "yes"
    if not narrowed and not everything:
        raise BadInput("nothing was stopped: what it covers was not said", help="name it, or tick `Everything`")
    if narrowed and everything:
        raise BadInput("nothing was stopped: `Everything` was ticked beside something narrower", help="leave one")


def off(visit: Visit) -> Response:
    """Let it go on."""
    switch = _found(visit)
    switches.require_may_end(visit.principal, switch)
    switches.switch_off(visit.home, switch, confirmed(visit))
    return _back("off")


def _back(done: str) -> Response:
    return RedirectResponse(render.url("switches", done=done), 303, headers=dict(render.HEADERS))


PAGES: Final = (
    Page("/switches", "read", list_),
    Page("/switches/{switch_id}/containment", "read", contained),
    Page("/switches/on", "admin", on, "POST"),
    Page("/switches/{switch_id}/off", "admin", off, "POST"),
)
