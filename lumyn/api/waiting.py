"""Requests that are not waited for: what `Prefer: respond-async` answers, and where to ask what became of one."""

from __future__ import annotations

from typing import Any

from fastapi import FastAPI, Request, Response

from lumyn.api.answers import json_answer
from lumyn.api.homes import home_of
from lumyn.api.spec import endpoint
from lumyn.api.traceability import with_traceability
from lumyn.home import Home
from lumyn.lookup import sound_record
from schemas.errors import LumynError, NotFound
from schemas.request import parse_request
from streams.log import Message
from streams.reading import at_offset, object_in, of_request
from streams.topics import RECEIPTS, REQUESTS

_RETRY_S = "1"


def add_waiting(app: FastAPI) -> None:
    """Add the endpoint."""

    @app.get(
        "/v1/requests/{partition}/{offset}",
        **endpoint("What became of a request in the log", "decide", "RequestState", also={202: "RequestState"}),
    )
    def state(partition: int, offset: int, request: Request) -> Response:
        found = state_of(home_of(request), partition, offset)
        answer = json_answer(found, 202 if found["status"] == "pending" else 200)
        if found["status"] == "pending":
            answer.headers["retry-after"] = _RETRY_S
        return answer


def accepted(message: Message) -> Response:
    """The answer to a request that stands in the log and is not decided yet."""
    place = f"/v1/requests/{message.partition}/{message.offset}"
    answer = json_answer({"status": "pending", "location": place}, 202)
    answer.headers["location"] = place
    answer.headers["preference-applied"] = "respond-async"
    answer.headers["retry-after"] = _RETRY_S
    return answer


def state_of(home: Home, partition: int, offset: int) -> dict[str, Any]:
    """What became of a request of the home's tenant. Raises `NotFound`."""
    log = home.log
    there = 0 <= partition < log.partitions(REQUESTS) and 0 <= offset < log.end(REQUESTS, partition)
    message = at_offset(log, REQUESTS, partition, offset) if there else None
    if message is None or _tenant(message) != home.settings.tenant:
        raise NotFound(f"no request {partition}/{offset}", help="the `Location` of the first answer says where it is")
    receipt = of_request(log, RECEIPTS, partition, offset)
    told = object_in(receipt) if receipt is not None else {}
    if not told:
        return {"status": "pending", "location": f"/v1/requests/{partition}/{offset}"}
    decision_id = told.get("decision_id")
    found: dict[str, Any] = {"status": told["outcome"], "decision_id": decision_id}
    if told["outcome"] in ("decided", "duplicate") and isinstance(decision_id, str):
        found |= {
            "location": f"/v1/decisions/{decision_id}",
            "decision": with_traceability(sound_record(home, decision_id)[1]),
        }
    return found


def _tenant(message: Message) -> str | None:
    value = object_in(message).get("tenant")
    if isinstance(value, str):
        return value
    try:
        return parse_request(message.value).tenant
    except LumynError:
        return None
