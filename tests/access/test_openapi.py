"""The description is true: each route is in it with an example, and generated requests never get what it does not say."""

from __future__ import annotations

import json
import re
from collections import Counter
from html.parser import HTMLParser

import pytest
import schemathesis
from conftest_e2e import refund
from fastapi import FastAPI
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from inside import Inside
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_schema_conformance,
    status_code_conformance,
)
from served import dev_client, keyed_client, new_key

from lumyn import LumynConfig
from lumyn.access.http import routes_of
from lumyn.api.app import make_app
from lumyn.api.examples import EXAMPLES
from lumyn.api.shapes import SHAPES
from lumyn.api.spec import description

pytest_plugins = ("inside_plugin",)
CONFIG = LumynConfig(policy_path="policy.yml")


@pytest.fixture(scope="module")
def app() -> FastAPI:
    return make_app(LumynConfig(home="/nonexistent/home"))


@pytest.mark.parametrize("name", EXAMPLES)
def test_each_example_has_the_shape_that_is_described(name: str) -> None:
    SHAPES[name].validate_python(EXAMPLES[name])


def test_every_route_is_described_with_its_role_and_an_example(app: FastAPI) -> None:
    document = description(app)
    described = {(path, method.upper()) for path, one in document["paths"].items() for method in one}
    assert described == {
        (route.path, method)  # type: ignore[attr-defined]
        for route in routes_of(app.routes)
        if getattr(route, "include_in_schema", False)
        for method in route.methods  # type: ignore[attr-defined]
    }
    for path, operations in document["paths"].items():
        for method, one in operations.items():
            assert ("security" in one) == (one["x-role"] != "open"), path
            contents = [c for answer in one["responses"].values() for c in answer.get("content", {}).values()]
            assert path == "/metrics" or any("example" in content for content in contents), (method, path)
            assert method == "get" or "requestBody" in one or path.endswith(("/explain", "/replay", "{switch_id}"))


def test_the_page_shows_all_of_it_and_asks_nobody_else(inside: Inside) -> None:
    with keyed_client(CONFIG) as client:
        assert client.get("/docs").status_code == client.get("/openapi.json").status_code == 401
        answer = client.get("/docs", headers={"x-api-key": new_key(CONFIG, "acme", "label")})
    assert answer.status_code == 200 and "default-src 'none'" in answer.headers["content-security-policy"]
    assert not re.search(r"<script|\bsrc=|https?://(?!127\.0\.0\.1:8700)", answer.text)
    sections = re.findall(r'<section id="([^"]+)"', answer.text)
    document = description(make_app(CONFIG))
    assert sections == [one["operationId"] for operations in document["paths"].values() for one in operations.values()]
    HTMLParser().feed(answer.text)


CHECKS = [not_a_server_error, status_code_conformance, content_type_conformance, response_schema_conformance]


def test_generated_requests_get_what_is_described_and_never_an_internal_error(inside: Inside) -> None:
    with dev_client(CONFIG) as client:
        first = client.post("/v1/decisions", json=refund(20)).json()
        client.post(f"/v1/decisions/{first['decision_id']}/labels", json={"label": "failure", "summary": "x"})
    key = {"x-api-key": new_key(CONFIG, "default", "admin")}
    schema = schemathesis.openapi.from_asgi("/openapi.json", make_app(CONFIG), headers=key)
    asked: Counter[str] = Counter()
    for result in schema.get_all_operations():
        operation = result.ok()

        @settings(max_examples=8, deadline=None, database=None, derandomize=True, suppress_health_check=list(HealthCheck))
        @given(case=operation.as_strategy(), known=st.booleans())
        def ask(case: schemathesis.Case, known: bool) -> None:
            if known and "decision_id" in (case.path_parameters or {}):
                case.path_parameters["decision_id"] = first["decision_id"]
            answer = case.call(headers=key)
            asked[f"{answer.status_code // 100}xx"] += 1
            case.validate_response(answer, checks=CHECKS)

        ask()
    assert asked["2xx"] > 30 and asked["4xx"] > 30, asked


HOSTILE = st.one_of(
    st.binary(max_size=60),
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
        lambda inner: st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["subject", "action", "type", "id", "label", "scope", "why", "source", ""]), inner),
        max_leaves=8,
    ).map(lambda value: json.dumps(value).encode()),
)


def test_no_body_whatever_brings_an_internal_error(inside: Inside) -> None:
    """Bytes and JSON of any shape, to every route that takes a body."""
    with dev_client(CONFIG) as client:
        name = client.post("/v1/decisions", json=refund(20)).json()["decision_id"]
        places = [
            (method, path.format(decision_id=name, name="refunds", switch_id="s"))
            for path, operations in description(make_app(CONFIG))["paths"].items()
            for method, one in operations.items()
            if "requestBody" in one
        ]
        assert len(places) >= 9

        @settings(max_examples=25, deadline=None, suppress_health_check=list(HealthCheck))
        @given(HOSTILE)
        def send(body: bytes) -> None:
            for method, place in places:
                answer = client.request(method, place, content=body, headers={"content-type": "application/json"})
                assert answer.status_code < 500, (method, place, body, answer.text)

        send()
