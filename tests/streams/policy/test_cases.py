"""The hand-written cases in `cases/*.yml`: a policy, requests, and what must come out."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from schemas.ids import time_ms_of
from streams.policy import load_policy

FOLDER = Path(__file__).parent / "cases"


class _Dates(yaml.SafeLoader):
    """Dates stay text, as in a policy."""


_Dates.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in known if not tag.endswith(":timestamp")]
    for first, known in yaml.SafeLoader.yaml_implicit_resolvers.items()
}


def _cases():
    for path in sorted(FOLDER.glob("*.yml")):
        document = yaml.load(path.read_text("utf-8"), _Dates)
        for case in document["requests"]:
            yield pytest.param(document["policy"], case, id=f"{path.stem}: {case['about']}")


def _whole(request):
    return {"subject": {"type": "user", "id": "u"}, "action": {"type": "refund"}, **request}


@pytest.mark.parametrize(("policy", "case"), list(_cases()))
def test_case(policy, case):
    known = {"about", "request", "time", "memory", "verdict", "reason_codes", "hits", "effects", "missing", "facts"}
    assert set(case) <= known | {"obligations", "queries"}
    time_ms = time_ms_of(case.get("time", "2024-12-19T14:30:00.000Z"))
    compiled = load_policy(policy.encode(), name="case.yml")
    got = compiled.evaluate(_whole(case["request"]), time_ms=time_ms, memory=case.get("memory"))
    assert [hit.id + ("?" if hit.outcome == "indeterminate" else "") for hit in got.hits] == case["hits"].split()
    for key in ("verdict", "reason_codes", "obligations", "queries"):
        if key in case:
            value = getattr(got, key)
            assert (list(value) if isinstance(value, tuple) else value) == case[key]
    hits = {hit.id: hit for hit in got.hits}
    for rule, effect in case.get("effects", {}).items():
        assert hits[rule].effect == effect
    for rule, missing in case.get("missing", {}).items():
        assert list(hits[rule].missing) == missing
    for rule, facts in case.get("facts", {}).items():
        assert list(hits[rule].facts) == facts
