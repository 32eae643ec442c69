"""Looking at decisions: a list, one, its explanation, what would have altered it, its replay, its checks."""

from __future__ import annotations

import asyncio
from typing import Annotated, Any, Final, Literal

from fastapi import FastAPI, Query, Request, Response
from fastapi.concurrency import run_in_threadpool

from lumyn.api.answers import json_answer
from lumyn.api.checking import replayed, verified
from lumyn.api.filters import SAID
from lumyn.api.homes import config_of, home_of
from lumyn.api.listing import MOST, Expand, Order, Paging, page
from lumyn.api.spec import endpoint, parameter
from lumyn.api.traceability import with_traceability
from lumyn.explaining import counterfactual, in_home
from lumyn.lookup import sound_record
from lumyn.wiring import existing_home
from schemas.canonical import encode
from schemas.seal import OpenRecord
from schemas.verdict import Verdict
from streams.explain_facts import explain_facts

LIST_PARAMETERS = [parameter(name, says) for name, says in SAID.items()]
MOST_CHANGES: Final = 20
MOST_SINGLES: Final = 4000
MOST_PAIRS: Final = 8000
"""How many changes, and pairs of them, are tried for one request; the answer says where that ended the search."""
ALTERING: Final = 2
"""How many such searches go on at once."""
_ID: Final = "/v1/decisions/{decision_id}"
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

    @app.get(_ID + "/explain", **endpoint("Plain English from the record alone", "read", "Explanation"))
    def explained(decision_id: str, request: Request) -> Response:
        _, record = sound_record(home_of(request), decision_id)
        return json_answer(explain_facts(record))

    @app.post(_ID + "/explain", **endpoint("The same, as decision traceability asks it", "read", "Explanation"))
    def explain(decision_id: str, request: Request) -> Response:
        return explained(decision_id, request)

    altering = asyncio.Semaphore(ALTERING)

    @app.get(_ID + "/counterfactuals", **endpoint("What would have altered the verdict", "read", "Counterfactuals"))
    async def counterfactuals(
        decision_id: str,
        request: Request,
        to: Annotated[Verdict | None, Query(description="Only changes that lead to this verdict.")] = None,
        limit: Annotated[int, Query(ge=1, le=MOST_CHANGES, description="How many changes to show.")] = 5,
        memory: Annotated[
            Literal["as-of", "recorded"],
            Query(description="`as-of`: memory is asked again, as of then; `recorded`: what it answered is held."),
        ] = "as-of",
    ) -> Response:
        def search() -> dict[str, Any]:
            return counterfactual(
                in_home(home_of(request), decision_id), wanted=to, limit=limit, memory=memory,
                most_singles=MOST_SINGLES, most_pairs=MOST_PAIRS,
            )  # fmt: skip

        async with altering:  # who waits here holds no thread that others need
            return json_answer(await run_in_threadpool(search))

    @app.post(_ID + "/replay", **endpoint("Decide the recorded inputs again", "read", "Replayed"))
    def replay(decision_id: str, request: Request) -> Response:
        return json_answer(replayed(home_of(request), existing_home(config_of(request)), decision_id))

    @app.get(_ID + "/verify", **endpoint("Check the whole record", "read", "Verified"))
    def verify(decision_id: str, request: Request) -> Response:
        return json_answer(verified(home_of(request), existing_home(config_of(request)), decision_id))
