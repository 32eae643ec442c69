"""The HTTP API over a real broker: the workers decide, and the same endpoints answer."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor

from conftest_e2e import refund
from served import dev_client

from lumyn import LumynConfig


def test_requests_over_http_are_decided_by_the_workers_and_looked_at(config: LumynConfig) -> None:
    with dev_client(config) as api:
        with ThreadPoolExecutor(8) as pool:
            answers = list(pool.map(lambda n: api.post("/v1/decisions", json=refund(10 + n)), range(24)))
        assert [answer.status_code for answer in answers] == [200] * 24, answers[0].text
        records = [answer.json() for answer in answers]
        assert len({record["decision_id"] for record in records}) == 24
        first = records[0]
        place = f"/v1/decisions/{first['decision_id']}"
        assert api.get(place).json() == first
        assert len(api.get("/v1/decisions?outcome=triggered&limit=100").json()["decisions"]) == 24
        assert api.post(f"{place}/replay").json()["result"] == "same"
        assert api.get(f"{place}/verify").json()["verified"] is True
        assert api.post(f"{place}/labels", json={"label": "failure", "summary": "x"}).status_code == 201
        later = api.post("/v1/decisions", json=refund(5, request_id="r"), headers={"prefer": "respond-async"})
        assert later.status_code == 202
        for _ in range(100):
            found = api.get(later.headers["location"])
            if found.status_code == 200:
                break
            time.sleep(0.1)
        assert found.json()["status"] == "decided"
        batch = api.post("/v1/decisions:batch", json=[refund(5, request_id="r"), {"no": 1}]).json()
        assert batch[0]["decision_id"] == found.json()["decision_id"] and batch[1]["error"]["code"] == "bad_request"
