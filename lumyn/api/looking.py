"""Looking at decisions: a list, one, its explanation, its replay, its checks."""

from __future__ import annotations

from typing import Annotated

from fastapi import FastAPI, Query, Request, Response

from lumyn.api.answers import json_answer
from lumyn.api.checking import replayed, verified
from lumyn.api.filters import SAID
from lumyn.api.homes import config_of, home_of
from lumyn.api.listing import MOST, Expand, Order, Paging, page
from lumyn.api.spec import endpoint, parameter
from lumyn.api.traceability import with_traceability
from lumyn.lookup import sound_record
from lumyn.wiring import existing_home
from schemas.canonical import encode
from schemas.seal import OpenRecord
from streams.explain_facts import explain_facts

LIST_PARAMETERS = [parameter(name, says) for name, says in SAID.items()]
_ID = "/v1/decisions/{decision_id}"
Form = Annotated[
    str,
    Query(
        pattern="^(full|record)$",
        description="`record`: the stored bytes, which `record_digest` covers, and nothing beside them.",
    ),
]


def add_looking(app: FastAPI) -> None:
    """Add the endpoints."""

    @app.get("/v1/decisions", **endpoint("List decisions by filters", "read", "Page", parameters=LIST_PARAMETERS))
    def list_(
        request: Request,
        limit: Annotated[int, Query(ge=1, le=MOST)] = 50,
        order: Order = "newest",
        expand: Expand = "none",
        cursor: str | None = None,
    ) -> Response:
        return json_answer(page(request, Paging(limit, order, expand, cursor)))

    @app.get(_ID, **endpoint("One record", "read", "DecisionOrRecord"))
    def get(decision_id: str, request: Request, form: Form = "full") -> Response:
        raw, record = sound_record(home_of(request), decision_id)
        if form == "full":
            return json_answer(with_traceability(record))
        opened = isinstance(record, OpenRecord)
        return Response(encode(dict(record)) if opened else raw, media_type="application/json")

    @app.post(_ID + "/explain", **endpoint("Plain English from the record alone", "read", "Explanation"))
    def explain(decision_id: str, request: Request) -> Response:
        _, record = sound_record(home_of(request), decision_id)
        return json_answer(explain_facts(record))

    @app.post(_ID + "/replay", **endpoint("Decide the recorded inputs again", "read", "Replayed"))
    def replay(decision_id: str, request: Request) -> Response:
        return json_answer(replayed(home_of(request), existing_home(config_of(request)), decision_id))

    @app.get(_ID + "/verify", **endpoint("Check the whole record", "read", "Verified"))
    def verify(decision_id: str, request: Request) -> Response:
        return json_answer(verified(home_of(request), existing_home(config_of(request)), decision_id))
