"""`/v1/policies`: what is published and active. All tenants share it, so only the operator's admins change it."""

from __future__ import annotations

from typing import Any

from fastapi import FastAPI, Request, Response
from fastapi.concurrency import run_in_threadpool

from lumyn import policies
from lumyn.api.answers import json_answer
from lumyn.api.bodies import json_object, text_of
from lumyn.api.homes import config_of, deciding_home, home_of, sender
from lumyn.api.limits import POLICY_BYTES
from lumyn.api.spec import endpoint
from schemas.errors import BadInput
from streams.control import ControlState, PublishedPolicy
from streams.policy import CompiledPolicy, check_policy, load_policy

_SHARED = "a policy"


def add_policies(app: FastAPI) -> None:
    """Add the endpoints."""

    @app.get("/v1/policies", **endpoint("Published policies", "read", "Policies"))
    def list_(request: Request) -> Response:
        control = home_of(request).agent.control()
        return json_answer({"policies": [_told(control, one) for one in control.policies.values()]})

    @app.get("/v1/policies/{name}", **endpoint("A policy with its source", "read", "PolicyWhole"))
    def get(name: str, request: Request, version: str | None = None) -> Response:
        control = home_of(request).agent.control()
        chosen = control.find(name, version)
        compiled = control.compiled(chosen.hash)
        more = {"ir_hash": compiled.ir_hash, "rules": [rule.id for rule in compiled.rules], "source": chosen.source}
        return json_answer({**_told(control, chosen), **more})

    @app.post(
        "/v1/policies",
        **endpoint(
            "Publish a policy document", "admin", "Published",
            status=201, also={200: "Published"}, body="PolicyBody", yaml=True,
        ),
    )
    async def publish(request: Request) -> Response:
        who = sender(request).require_operator(_SHARED)
        policy = _policy(await request.body(), request)

        def add() -> bool:
            return policies.publish(deciding_home(config_of(request), who), policy)

        made = await run_in_threadpool(add)
        return json_answer({**_hashes(policy), "published": made}, 201 if made else 200)

    @app.post(
        "/v1/policies:check",
        **endpoint("Check a policy document", "read", "Checked", body="PolicyBody", yaml=True),
    )
    async def check(request: Request) -> Response:
        source, name = _source(await request.body(), request)
        report = await run_in_threadpool(lambda: check_policy(source, name=name))
        found = {"valid": report.policy is not None, "errors": list(report.errors), "warnings": list(report.warnings)}
        return json_answer({**found, **(_hashes(report.policy) if report.policy else {})})

    @app.post(
        "/v1/policies/{name}/activate",
        **endpoint("Make a published policy decide", "admin", "PolicyNamed", body="Activation", optional=True),
    )
    async def activate(name: str, request: Request) -> Response:
        sender(request).require_operator(_SHARED)
        body = json_object(await request.body(), ("version", "why"), empty=True)
        version, why = text_of(body, "version"), text_of(body, "why") or ""
        chosen = await run_in_threadpool(lambda: policies.activate(home_of(request), name, version, why))
        return json_answer(_named(chosen))

    @app.post(
        "/v1/policies/{name}/rollback",
        **endpoint("Go back to the policy before", "admin", "PolicyNamed", body="Reason", optional=True),
    )
    async def rollback(name: str, request: Request) -> Response:
        sender(request).require_operator(_SHARED)
        why = text_of(json_object(await request.body(), ("why",), empty=True), "why") or ""
        return json_answer(_named(await run_in_threadpool(lambda: policies.roll_back(home_of(request), name, why))))


def _policy(body: bytes, request: Request) -> CompiledPolicy:
    source, name = _source(body, request)
    return load_policy(source, name=name)


def _source(body: bytes, request: Request) -> tuple[bytes, str]:
    """The document's bytes and a name for one that has none: the body itself, or `{"source": ..., "name": ...}`."""
    name = request.query_params.get("name")
    if request.headers.get("content-type", "").partition(";")[0].strip() == "application/json":
        given = json_object(body, ("source", "name"), limit=POLICY_BYTES)
        source, name = text_of(given, "source"), text_of(given, "name") or name
        if source is None:
            raise BadInput("`source` is missing: the policy's YAML as text", where="body")
        body = source.encode()
    return body, f"{name or 'policy'}.yml"


def _told(control: ControlState, one: PublishedPolicy) -> dict[str, Any]:
    return {**_named(one), "origin": one.origin, "at": one.at, "active": control.active.get(one.name) == one.hash}


def _named(one: PublishedPolicy) -> dict[str, Any]:
    return {"name": one.name, "version": one.version, "hash": one.hash}


def _hashes(policy: CompiledPolicy) -> dict[str, Any]:
    return {"name": policy.name, "version": policy.version, "hash": policy.policy_hash, "ir_hash": policy.ir_hash}
