"""The OpenAPI description, from what each route says of itself with `endpoint(...)`; and the page made of it."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from fastapi import FastAPI, Response
from fastapi.openapi.utils import get_openapi
from jinja2 import Environment, FileSystemLoader, StrictUndefined

from lumyn.access.http import ANY, OPEN, declared, needs, routes_of
from lumyn.api.answers import json_answer
from lumyn.api.examples import EXAMPLES, TEXTS
from lumyn.api.problems import PROBLEM
from lumyn.api.shapes import SHAPES
from schemas.jsonschema import schema_of

_REF: Final = "#/components/schemas/{model}"
_KEY: Final = "X-API-Key"
_JSON: Final = "/openapi.json"
_SAYS: Final = {
    400: "A cursor, a prefix or an option that can't be used",
    401: "No API key, or one that is unknown, revoked or expired",
    403: "The key's roles don't cover this, or it is about another tenant",
    404: "There is no such thing for this tenant",
    405: "This path has no such method",
    409: "It conflicts with what is there",
    410: "Its subject was forgotten",
    413: "The body is too large or nested too deep",
    422: "The body or a parameter is not what is asked for",
    429: "More requests than the key may make; `Retry-After` says when",
    500: "A stored record is not sound, or an internal error",
    503: "A store can't be used",
    504: "It is in the log, and was not decided in time",
}
_CSP: Final = "default-src 'none'; style-src 'unsafe-inline'; frame-ancestors 'none'; base-uri 'none'"


def endpoint(
    summary: str,
    role: str,
    answer: str | None,
    *,
    status: int = 200,
    also: Mapping[int, str] | None = None,
    body: str | None = None,
    yaml: bool = False,
    optional: bool = False,
    parameters: Sequence[Mapping[str, Any]] = (),
) -> dict[str, Any]:
    """What a route declares: who may ask, what goes in, what comes out; names are of `SHAPES`.

    `also`: further statuses with an answer of their own. `yaml`: the body may be a policy document itself.
    """
    extra: dict[str, Any] = {"x-role": role, "parameters": list(parameters)}
    if body is not None:
        content: dict[str, Any] = {"application/json": {"schema": _ref(body), "example": EXAMPLES[body]}}
        if yaml:
            content["application/yaml"] = {"schema": {"type": "string"}, "example": TEXTS["policy"]}
        extra["requestBody"] = {"required": not optional, "content": content}
    if role != OPEN:
        extra["security"] = [{"key": []}, {"bearer": []}]
    good = {status: answer, **(also or {})}
    answers: dict[int | str, dict[str, Any]] = {
        code: {"description": "Done" if code < 202 else "Under way", **_content(name)} for code, name in good.items()
    }
    for code, says in _SAYS.items():
        answers[code] = {"description": says, "content": {PROBLEM: {"schema": _ref("Problem")}}}
    return {
        "summary": summary, "dependencies": [needs(role)], "status_code": status, "responses": answers,
        "openapi_extra": extra, "response_model": None,
    }  # fmt: skip


def header(name: str, says: str) -> dict[str, Any]:
    """An optional request header."""
    return {"name": name, "in": "header", "required": False, "description": says, "schema": {"type": "string"}}


def parameter(name: str, says: str) -> dict[str, Any]:
    """An optional parameter of the address, that may be given several times."""
    return {"name": name, "in": "query", "required": False, "description": says, "schema": {"type": "string"}}


def _content(name: str | None) -> dict[str, Any]:
    if name is None:
        return {"content": {"text/plain": {"schema": {"type": "string"}}}}
    return {"content": {"application/json": {"schema": _ref(name), "example": EXAMPLES[name]}}}


def _ref(name: str) -> dict[str, str]:
    return {"$ref": _REF.format(model=name)}


def description(app: FastAPI) -> dict[str, Any]:
    """The OpenAPI document of an app."""
    if app.openapi_schema is None:
        routes = [route for route in routes_of(app.routes) if declared(route) is not None]
        found = get_openapi(
            title=app.title, version=app.version, description=TEXTS["about"], routes=routes, openapi_version="3.1.0"
        )
        parts = found.setdefault("components", {})
        parts["schemas"] = _components()
        parts["securitySchemes"] = {
            "key": {"type": "apiKey", "in": "header", "name": _KEY},
            "bearer": {"type": "http", "scheme": "bearer"},
        }
        app.openapi_schema = found
    return app.openapi_schema


def _components() -> dict[str, Any]:
    out: dict[str, Any] = {}
    for name, adapter in SHAPES.items():
        schema = schema_of(adapter, _REF)
        out |= schema.pop("$defs", {})
        out[name] = schema
    return out


def add_description(app: FastAPI) -> None:
    """Add `/openapi.json`, and `/docs`: every endpoint with an example, without a script or a foreign host."""

    @app.get(_JSON, summary="This description", dependencies=[needs(ANY)], include_in_schema=False)
    def openapi() -> Response:
        return json_answer(description(app))

    @app.get("/docs", summary="This description, to be read", dependencies=[needs(ANY)], include_in_schema=False)
    def docs() -> Response:
        headers = {"content-security-policy": _CSP, "x-content-type-options": "nosniff"}
        return Response(page(description(app)), media_type="text/html", headers=headers)


def page(document: Mapping[str, Any], part: str = "docs", json_at: str = _JSON) -> str:
    """The document as one HTML page; `docs_body` is what stands in its `main`. `json_at`: where the document is."""
    loader = FileSystemLoader(Path(__file__).parent)
    environment = Environment(loader=loader, autoescape=True, undefined=StrictUndefined, trim_blocks=True)
    environment.filters["pretty"] = lambda value: json.dumps(value, indent=2, ensure_ascii=False)
    environment.filters["shell"] = _shell
    return environment.get_template(f"{part}.html.j2").render(document=document, json_at=json_at)


def _shell(operation: Mapping[str, Any], method: str, path: str) -> str:
    """An operation as a curl command."""
    words = ["curl -s"] if method == "get" else [f"curl -s -X {method.upper()}"]
    for name, value in TEXTS["places"].items():
        path = path.replace(f"{{{name}}}", value)
    words.append(f'"http://127.0.0.1:8700{path}"')
    if operation.get("security"):
        words.append(f'-H "{_KEY}: your-api-key"')
    body = operation.get("requestBody", {}).get("content", {}).get("application/json")
    if body:
        text = json.dumps(body["example"]).replace("'", "'\\''")
        words.append(f"-H 'Content-Type: application/json' -d '{text}'")
    return " \\\n  ".join(words)
