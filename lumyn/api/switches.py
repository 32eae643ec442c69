"""`/v1/kill-switches`: a tenant's admin stops his own tenant, the operator's admins anything."""

from __future__ import annotations

from typing import Any

from fastapi import FastAPI, Request, Response
from fastapi.concurrency import run_in_threadpool

from lumyn import switches
from lumyn.access.principal import Principal
from lumyn.api.answers import json_answer
from lumyn.api.bodies import json_object, text_of
from lumyn.api.homes import config_of, deciding_home, home_of, sender
from lumyn.api.spec import endpoint
from schemas.errors import BadInput, Forbidden
from streams.control import KillSwitch

_ONE = "/v1/kill-switches/{switch_id}"


def add_switches(app: FastAPI) -> None:
    """Add the endpoints."""

    @app.get("/v1/kill-switches", **endpoint("The switches that are on", "read", "Switches"))
    def list_(request: Request) -> Response:
        who = sender(request)
        found = [_told(who, one) for one in home_of(request).agent.control().switches if switches.sees(who, one)]
        return json_answer({"kill_switches": found})

    @app.get(_ONE, **endpoint("A switch that is on", "read", "Switch"))
    def get(switch_id: str, request: Request) -> Response:
        who = sender(request)
        return json_answer(_told(who, switches.find_switch(home_of(request), switch_id, who)))

    @app.post(
        "/v1/kill-switches",
        **endpoint("Stop a scope at once", "admin", "Switch", status=201, body="SwitchBody"),
    )
    async def post(request: Request) -> Response:
        return json_answer(await _on(request, None), 201)

    @app.put(_ONE, **endpoint("Stop a scope at once, under an id of one's own", "admin", "Switch", body="SwitchBody"))
    async def put(switch_id: str, request: Request) -> Response:
        return json_answer(await _on(request, switch_id))

    @app.delete(_ONE, **endpoint("Take a switch off", "admin", "SwitchedOff"))
    def delete(switch_id: str, request: Request, why: str = "") -> Response:
        who, home = sender(request), home_of(request)
        switch = switches.find_switch(home, switch_id, who)
        switches.require_may_end(who, switch)
        switches.switch_off(home, switch, why)
        return json_answer({"switch_id": switches.shown_id(who, switch.switch_id), "on": False})


async def _on(request: Request, switch_id: str | None) -> dict[str, Any]:
    body = json_object(await request.body(), ("scope", "why"))
    who = sender(request)
    if "scope" not in body:
        help = "`{}` stops all that the key may stop"
        raise BadInput("`scope` is missing: it says what is to be stopped", where="body", help=help)
    scope, why = _scope(body["scope"], who), text_of(body, "why")
    if not why:
        raise BadInput("`why` is missing: the reason goes into every record that is denied", where="body")

    def put() -> dict[str, Any]:
        home = deciding_home(config_of(request), who)
        if switch_id is not None:
            return _told(who, switches.put_switch(home, who, switch_id, scope, why))
        name = switches.switch_on(home, scope, why, owner=None if who.operator else who.tenant)
        return _told(who, switches.find_switch(home, name))

    return await run_in_threadpool(put)


def _scope(given: Any, who: Principal) -> dict[str, str]:
    """What to stop: of a tenant's admin always within his tenant. Raises `BadInput`, `Forbidden`."""
    if not isinstance(given, dict) or not all(isinstance(value, str) and value for value in given.values()):
        raise BadInput(f"`scope` is an object of {', '.join(switches.SCOPE)}, each a text", where="body")
    unknown = sorted(set(given) - set(switches.SCOPE))
    if unknown:
        raise BadInput(f"unknown key `scope.{unknown[0]}`", where="body", help=f"known: {', '.join(switches.SCOPE)}")
    if who.operator:
        return dict(given)
    if given.get("tenant", who.tenant) != who.tenant:
        raise Forbidden(f"the key is tenant `{who.tenant}`'s, and stops no other", where="scope.tenant")
    return {**given, "tenant": who.tenant}


def _told(who: Principal, switch: KillSwitch) -> dict[str, Any]:
    return {**switch.as_record(), "switch_id": switches.shown_id(who, switch.switch_id)}
