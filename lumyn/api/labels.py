"""Labels over HTTP: what became of a decision, said by the key's holder."""

from __future__ import annotations

from typing import Any

from fastapi import FastAPI, Request, Response
from fastapi.concurrency import run_in_threadpool

from lumyn import sdk
from lumyn.api.answers import json_answer
from lumyn.api.homes import home_of, sender
from lumyn.api.spec import endpoint
from lumyn.lookup import find_record
from schemas.canonical import decode
from schemas.errors import BadInput

_TEXTS = ("label", "summary", "should", "event_id", "actor")
_ACTOR_CHARS = 128


def add_labels(app: FastAPI) -> None:
    """Add the endpoints."""

    @app.post(
        "/v1/decisions/{decision_id}/labels",
        **endpoint("Label a decision", "label", "LabelEvent", status=201, body="LabelBody"),
    )
    async def label(decision_id: str, request: Request) -> Response:
        body = label_in(decode(await request.body(), where="body"))
        event = await run_in_threadpool(_label, request, decision_id, body)
        return json_answer(event, 201)

    @app.get("/v1/decisions/{decision_id}/events", **endpoint("Its labels and notes", "read", "LabelEvents"))
    def events(decision_id: str, request: Request) -> Response:
        home = home_of(request)
        _, record = find_record(home, decision_id)
        return json_answer(home.events(record["decision_id"]))


def _label(request: Request, decision_id: str, body: dict[str, Any]) -> Any:
    home = home_of(request)
    find_record(home, decision_id)  # another tenant's is not there, whatever the label is
    return sdk.label_in(
        home,
        decision_id,
        body["label"],
        summary=body.get("summary") or "",
        should=body.get("should"),
        event_id=body.get("event_id"),
        actor=actor_of(request, body.get("actor")),
        settle=body["settle"],
    )


def actor_of(request: Request, on_behalf: str | None) -> str:
    """Who is kept as the labeller: the key's holder; whom he speaks for stands behind that, never in its place."""
    own = sender(request).actor
    return own if not on_behalf else f"{own} for {on_behalf}"


def label_in(body: Any) -> dict[str, Any]:
    """A label's body, checked. Raises `BadInput`."""
    if not isinstance(body, dict) or not isinstance(body.get("label"), str):
        raise BadInput("`label` is missing: failure, success, note or retracted", where="body")
    settle = body.get("settle", False)
    if not isinstance(settle, bool):
        raise BadInput("`settle` must be true or false", where="body")
    unknown = sorted(set(body) - {*_TEXTS, "settle"})
    if unknown:
        raise BadInput(f"unknown key `{unknown[0]}`", where="body")
    wrong = [name for name in _TEXTS if body.get(name) is not None and not isinstance(body[name], str)]
    if wrong:
        raise BadInput(f"`{wrong[0]}` must be text", where="body")
    if len(body.get("actor") or "") > _ACTOR_CHARS or not (body.get("actor") or "").isprintable():
        raise BadInput(f"`actor` has at most {_ACTOR_CHARS} printable characters", where="body")
    return {**body, "settle": settle}
