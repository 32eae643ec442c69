"""Looking at decisions: one, a list, its explanation, its checks."""

from __future__ import annotations

from typing import Literal

from fastapi import FastAPI, Request, Response

from lumyn.access.http import needs
from lumyn.api.answers import json_answer
from lumyn.api.deciding import with_traceability
from lumyn.api.homes import home_of
from lumyn.lookup import find_record, sound_record
from schemas.canonical import encode
from schemas.seal import OpenRecord


def add_looking(app: FastAPI) -> None:
    """Add the endpoints."""

    @app.get("/v1/decisions", summary="List decisions, newest first, by a query", dependencies=[needs("read")])
    def list_(request: Request, query: str | None = None, limit: int = 50) -> Response:
        from dataclasses import asdict

        from lumyn.searching import search

        rows = search(
            home_of(request), query, limit=max(1, min(limit, 1000)), newest_first=True, say=lambda text: None
        )
        return json_answer({"decisions": [asdict(row) for row in rows]})

    @app.get("/v1/decisions/{decision_id}", summary="One record", dependencies=[needs("read")])
    def get(decision_id: str, request: Request, form: Literal["full", "record"] = "full") -> Response:
        raw, record = sound_record(home_of(request), decision_id)
        if form == "full":
            return json_answer(with_traceability(record))
        opened = isinstance(record, OpenRecord)
        return Response(encode(dict(record)) if opened else raw, media_type="application/json")

    @app.post(
        "/v1/decisions/{decision_id}/explain",
        summary="Plain English from the record alone",
        dependencies=[needs("read")],
    )
    def explain(decision_id: str, request: Request) -> Response:
        from streams.explain import explain_record

        _, record = sound_record(home_of(request), decision_id)
        return json_answer({"decision_id": record["decision_id"], "explanation": explain_record(record)})

    @app.get("/v1/decisions/{decision_id}/verify", summary="Check the whole record", dependencies=[needs("read")])
    def verify(decision_id: str, request: Request) -> Response:
        from lumyn.checkpointing import home_chain
        from streams.verify import verify_record

        home = home_of(request)
        raw, record = find_record(home, decision_id)
        chain = home_chain(home, check_leaves=False)
        checks = verify_record(home.log, home.agent.control(), raw, record, chain=chain)
        return json_answer(
            {
                "decision_id": record["decision_id"],
                "ir_hash": record["ir_hash"],
                "verified": all(c.ok for c in checks),
                "checks": [{"name": c.name, "ok": c.ok, "detail": c.detail} for c in checks],
            }
        )
