"""`POST /v1/decisions`: requests in, records out, from the same log as every other way in."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any

from fastapi import FastAPI, Request, Response
from fastapi.concurrency import run_in_threadpool

from lumyn.access.http import guard_of
from lumyn.access.principal import Principal
from lumyn.api.answers import json_answer
from lumyn.api.callbacks import HEADER, Callbacks, checked_url
from lumyn.api.gather import Gatherer
from lumyn.api.homes import config_of, deciding_home, sender
from lumyn.api.limits import BATCH_BYTES
from lumyn.api.spec import endpoint, header
from lumyn.api.traceability import with_traceability
from lumyn.api.waiting import accepted, state_of
from lumyn.config import LumynConfig, resolve
from lumyn.home import Home
from lumyn.wiring import open_home
from schemas.canonical import decode, decode_trusted
from schemas.errors import BadInput, Forbidden, LumynError
from schemas.request import Request as DecisionRequest
from schemas.request import parse_request
from streams.deciding import Answer

_FLIGHTS_OVER_KAFKA = 16
_HEADERS = [
    header("Idempotency-Key", "Makes a retry safe: the same as `request_id` in the body."),
    header("Prefer", "`respond-async`: 202 with a `Location` to ask at, as soon as the request is durable."),
    header("Callback-URL", "With `respond-async`: where the decision is sent, signed; its host must be listed."),
]


def add_deciding(app: FastAPI, config: LumynConfig) -> None:
    """Add the endpoints."""

    def decides(requests: Sequence[DecisionRequest]) -> list[Answer | LumynError]:
        home = open_home(config)
        return home.agent.decide(requests, home.given_policy)

    gatherer = Gatherer(decides, 1 if resolve(config).kafka is None else _FLIGHTS_OVER_KAFKA)
    callbacks = Callbacks()
    app.state.closing += [gatherer.close, callbacks.close]

    @app.post(
        "/v1/decisions",
        **endpoint(
            "Decide one request", "decide", "Decision", also={202: "RequestState"}, body="DecisionRequest",
            parameters=_HEADERS,
        ),
    )
    async def decide(request: Request) -> Response:
        body = _keyed(await request.body(), request.headers.get("idempotency-key"))
        parsed = parse_own(body, sender(request))
        if _is_async(request):
            return await _submitted(request, parsed, callbacks)
        if HEADER in request.headers:
            raise BadInput("a callback needs `Prefer: respond-async`: else the answer is the decision", where=HEADER)
        start = time.perf_counter()
        answer = await gatherer.decide(parsed)
        record = record_of(answer)
        app.state.metrics.decided(answer.outcome, record["verdict"], time.perf_counter() - start, None)
        return json_answer(with_traceability(record))

    app.state.decide = decide

    @app.post(
        "/v1/decisions:batch",
        **endpoint("Decide many; a bad one yields its error in its place", "decide", "Decisions", body="Requests"),
    )
    async def batch(request: Request) -> Response:
        bodies = decode(await request.body(), where="body", limit=BATCH_BYTES)
        if not isinstance(bodies, list):
            raise BadInput("the body is a JSON array of requests", where="body")
        who = sender(request)
        guard_of(request).charge(who, len(bodies))
        return json_answer(await run_in_threadpool(_decide_many, config_of(request), who, bodies))


def _is_async(request: Request) -> bool:
    """Whether the sender would rather not wait (RFC 7240)."""
    wishes = ",".join(request.headers.getlist("prefer")).split(",")
    return any(wish.partition(";")[0].strip().lower() == "respond-async" for wish in wishes)


async def _submitted(request: Request, parsed: DecisionRequest, callbacks: Callbacks) -> Response:
    """The request is durable in the log when this is answered; deciding it is under way, or the workers' business."""
    config, who, url = config_of(request), sender(request), request.headers.get(HEADER)
    settings = resolve(config)
    to = checked_url(url, settings) if url is not None else None
    home = deciding_home(config, who)
    message = (await run_in_threadpool(home.agent.submit, [parsed]))[0]
    if isinstance(message, LumynError):
        raise message
    place = (message.partition, message.offset)
    asyncio.get_running_loop().run_in_executor(None, _drain, home)
    if to is not None and settings.callback_secret:
        callbacks.send(to, settings.callback_secret, lambda: state_of(home, *place))
    return accepted(message)


def _drain(home: Home) -> None:
    with suppress(LumynError):  # whoever decides next takes it along
        home.agent.drain()


def _decide_many(config: LumynConfig, who: Principal, bodies: Sequence[Any]) -> list[dict[str, Any]]:
    told: list[DecisionRequest | LumynError] = []
    for number, body in enumerate(bodies):
        try:
            told.append(parse_own(body, who, where=f"request {number + 1}"))
        except LumynError as error:
            told.append(error)
    home = deciding_home(config, who)
    good = [one for one in told if not isinstance(one, LumynError)]
    answers = iter(home.agent.decide(good, home.given_policy))
    placed = [one if isinstance(one, LumynError) else next(answers) for one in told]
    return [
        {"error": one.as_dict()} if isinstance(one, LumynError) else with_traceability(record_of(one)) for one in placed
    ]


def parse_own(body: Any, who: Principal, where: str = "request") -> DecisionRequest:
    """A request of its sender's own tenant, which an absent one means. Raises `Forbidden` for another, `BadRequest`."""
    parsed = parse_request(body, tenant=who.tenant, where=where)
    if parsed.tenant != who.tenant:
        raise Forbidden(
            f"the request names tenant `{parsed.tenant}`, and the key is tenant `{who.tenant}`'s", where=where,
            help="leave `tenant` out: the key says it",
        )  # fmt: skip
    return parsed


def record_of(answer: Answer) -> Mapping[str, Any]:
    """An answer's record, as its sender asked for it."""
    return answer.record if answer.record is not None else decode_trusted(answer.canonical)


def _keyed(body: bytes, key: str | None) -> Any:
    """The body with the `Idempotency-Key` header as its `request_id`. Raises `BadInput` when it has another one."""
    if key is None:
        return body
    value = decode(body, where="request")
    if not isinstance(value, dict):
        return value
    given = value.get("request_id")
    if given not in (None, key):
        raise BadInput(
            f"the body's request_id is `{given}`, the Idempotency-Key `{key}`", where="request_id",
            help="send one of the two, or the same in both",
        )  # fmt: skip
    return {**value, "request_id": key}
