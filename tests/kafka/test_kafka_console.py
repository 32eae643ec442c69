"""The console over a real broker: lists, a label, an escalation and the live feed, with workers that decide."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from conftest_e2e import refund
from starlette.testclient import TestClient

from lumyn import LumynConfig, sdk, wiring
from lumyn.api.app import make_app
from lumyn.api.homes import guard_for
from lumyn.console import live as console_live
from lumyn.wiring import existing_home


@pytest.fixture
def browser(config: LumynConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[TestClient]:
    monkeypatch.chdir(tmp_path)
    app = make_app(config, guard_for(config, dev=True))
    yield TestClient(app, base_url="http://127.0.0.1:8700", follow_redirects=False)
    wiring.close_homes()


def test_the_console_over_a_broker(browser: TestClient, config: LumynConfig, tenant: str) -> None:
    allowed = sdk.decide(refund(100), config)["decision_id"]
    feed = console_live.feed_of(existing_home(config).log)
    feed.frame(tenant)
    asked = sdk.decide(refund(300), config)
    assert asked["verdict"] == "ESCALATE"
    for path in ("/decisions", "/inbox", "/policies", "/switches", "/memory", "/live", f"/decisions/{allowed}"):
        answer = browser.get(f"/console{path}")
        assert answer.status_code == 200, (path, answer.text)
    listed = browser.get("/console/decisions").text
    assert allowed in listed and asked["decision_id"] in listed
    token = re.search(r'name="csrf" value="([^"]+)"', browser.get(f"/console/decisions/{allowed}").text)
    assert token
    form = {"csrf": token[1], "label": "failure", "summary": "wrong"}
    assert browser.post(f"/console/decisions/{allowed}/label", data=form).status_code == 303
    assert sdk.decide(refund(100), config)["verdict"] == "DENY"
    to = f"/console/inbox/{asked['decision_id']}/resolve"
    form = {"csrf": token[1], "verdict": "DENY", "reason": "no", "seen": "0"}
    assert [browser.post(to, data=form).status_code for _ in range(2)] == [303, 409]
    assert asked["decision_id"] not in browser.get("/console/inbox").text
    replayed = browser.post(f"/console/decisions/{allowed}/replay", data={"csrf": token[1], "memory": "recorded"})
    assert "The same again" in replayed.text
    until = time.monotonic() + 20
    while sum((told := json.loads(feed.frame(tenant).data.split(b"data: ")[1]))["counts"].values()) < 2:
        assert time.monotonic() < until, told
        time.sleep(0.1)
    assert told["counts"] == {"ALLOW": 0, "ESCALATE": 1, "ABSTAIN": 0, "DENY": 1}
