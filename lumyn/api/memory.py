"""`/v1/memory`: looking into the memory. Everything is of the tenant whose app this is."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import FastAPI, Query, Request, Response
from fastapi.concurrency import run_in_threadpool

from lumyn import memory_views, suspecting
from lumyn.api.answers import json_answer
from lumyn.config import LumynConfig
from lumyn.wiring import existing_home
from memory_service.recall import Recall
from schemas.request import parse_request

_Limit = Annotated[int, Query(ge=1, le=50)]
_Many = Annotated[int, Query(ge=1, le=1000)]


def add_memory(app: FastAPI, config: LumynConfig) -> None:
    """Add the endpoints."""

    @app.get("/v1/memory", summary="What the memory holds")
    def stats() -> Response:
        return json_answer(memory_views.stats(existing_home(config)))

    @app.get("/v1/memory/search", summary="The memories nearest to a past decision")
    def near_decision(decision_id: str, limit: _Limit = 10) -> Response:
        return json_answer(_recalled(memory_views.near_decision(existing_home(config), decision_id, limit)))

    @app.post("/v1/memory/search", summary="The memories nearest to a request")
    async def near(request: Request, limit: _Limit = 10) -> Response:
        body = await request.body()

        def search() -> Recall:
            home = existing_home(config)
            return memory_views.near(home, parse_request(body, tenant=home.settings.tenant, where="body"), limit)

        return json_answer(_recalled(await run_in_threadpool(search)))

    @app.get("/v1/memory/points/{memory_id}", summary="What a labelled decision stands for, and stood for")
    def point(memory_id: str) -> Response:
        return json_answer(memory_views.remembered(existing_home(config), memory_id))

    @app.get("/v1/memory/explain/{decision_id}", summary="The whole sum behind a decision")
    def explain(decision_id: str) -> Response:
        return json_answer(memory_views.explained(existing_home(config), decision_id).as_dict())

    @app.get("/v1/memory/suspects", summary="Labels that are probably wrong")
    def suspects(limit: _Many = 20, labeller: str | None = None) -> Response:
        return json_answer(suspecting.as_dict(suspecting.find(existing_home(config)), limit, labeller))

    @app.get("/v1/memory/trust", summary="Labellers who are not trusted in full")
    def trust() -> Response:
        return json_answer({"trust": memory_views.trusts(existing_home(config))})

    @app.get("/v1/memory/contested", summary="Labels over which labellers disagree")
    def contested() -> Response:
        return json_answer({"contested": memory_views.contested(existing_home(config))})


def _recalled(recall: Recall) -> dict[str, Any]:
    return {"risk_signals": recall.signals, "memory": recall.as_record()}
