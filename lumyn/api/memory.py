"""`/v1/memory`: looking into the memory. Everything is of the key's tenant."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import FastAPI, Query, Request, Response
from fastapi.concurrency import run_in_threadpool

from lumyn import memory_views, suspecting
from lumyn.api.answers import json_answer
from lumyn.api.deciding import parse_own
from lumyn.api.homes import home_of, sender
from lumyn.api.spec import endpoint
from memory_service.recall import Recall

_Limit = Annotated[int, Query(ge=1, le=50)]
_Many = Annotated[int, Query(ge=1, le=1000)]


def add_memory(app: FastAPI) -> None:
    """Add the endpoints."""

    @app.get("/v1/memory", **endpoint("What the memory holds", "read", "Memory"))
    def stats(request: Request) -> Response:
        return json_answer(memory_views.stats(home_of(request)))

    @app.get("/v1/memory/search", **endpoint("The memories nearest to a past decision", "read", "Memory"))
    def near_decision(request: Request, decision_id: str, limit: _Limit = 10) -> Response:
        return json_answer(_recalled(memory_views.near_decision(home_of(request), decision_id, limit)))

    @app.post(
        "/v1/memory/search",
        **endpoint("The memories nearest to a request", "read", "Memory", body="DecisionRequest"),
    )
    async def near(request: Request, limit: _Limit = 10) -> Response:
        body = await request.body()

        def search() -> Recall:
            return memory_views.near(home_of(request), parse_own(body, sender(request), where="body"), limit)

        return json_answer(_recalled(await run_in_threadpool(search)))

    @app.get(
        "/v1/memory/points/{memory_id}",
        **endpoint("What a labelled decision stands for, and stood for", "read", "Memory"),
    )
    def point(request: Request, memory_id: str) -> Response:
        return json_answer(memory_views.remembered(home_of(request), memory_id))

    @app.get("/v1/memory/explain/{decision_id}", **endpoint("The whole sum behind a decision", "read", "Memory"))
    def explain(request: Request, decision_id: str) -> Response:
        return json_answer(memory_views.explained(home_of(request), decision_id).as_dict())

    @app.get("/v1/memory/suspects", **endpoint("Labels that are probably wrong", "read", "Memory"))
    def suspects(request: Request, limit: _Many = 20, labeller: str | None = None) -> Response:
        return json_answer(suspecting.as_dict(suspecting.kept(home_of(request)), limit, labeller))

    @app.get("/v1/memory/trust", **endpoint("Labellers who are not trusted in full", "read", "Memory"))
    def trust(request: Request) -> Response:
        return json_answer({"trust": memory_views.trusts(home_of(request))})

    @app.get("/v1/memory/contested", **endpoint("Labels over which labellers disagree", "read", "Memory"))
    def contested(request: Request) -> Response:
        return json_answer({"contested": memory_views.contested(home_of(request))})


def _recalled(recall: Recall) -> dict[str, Any]:
    return {"risk_signals": recall.signals, "memory": recall.as_record()}
