"""The caller's side where a transaction's markers reach one partition later than another: Kafka promises no order."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from conftest_e2e import refund
from live_deployment import TIMEOUT_S, Live

from schemas.errors import BadRequest
from schemas.label import LabelRequest
from schemas.request import parse_request
from streams.deciding import Answer
from streams.kafka.gateway import KafkaGateway, KafkaLabels
from streams.kafka.log import KafkaLog
from streams.log import Message


class LateLog(KafkaLog):
    """The real log, in which some topics show nothing to the first few who look."""

    hidden: dict[str, int]

    def read(self, topic: str, *place: Any, **more: Any) -> list[Message]:
        if self.hidden.get(topic, 0) > 0:
            self.hidden[topic] -= 1
            return []
        return super().read(topic, *place, **more)


@pytest.fixture
def late(live: Live) -> Iterator[LateLog]:
    log = LateLog(live.log.client.settings, prefix=live.prefix)
    log.hidden = {"records": 5, "labels": 5, "dead-letters": 5}
    yield log
    log.close()


def test_a_record_that_is_seen_later_than_its_receipt_is_waited_for(late: LateLog, tenant: str) -> None:
    gateway = KafkaGateway(late, timeout_s=TIMEOUT_S)
    answers = gateway.decide([parse_request(refund(amount), tenant=tenant) for amount in (1, 2, 3)])
    gateway.close()
    assert [isinstance(answer, Answer) and answer.outcome for answer in answers] == ["decided"] * 3
    assert late.hidden["records"] == 0


def test_the_reason_of_a_rejection_is_waited_for(late: LateLog, tenant: str) -> None:
    gateway = KafkaGateway(late, timeout_s=TIMEOUT_S)
    (answer,) = gateway.decide([parse_request(refund(1, policy="nobody-s"), tenant=tenant)])
    gateway.close()
    assert isinstance(answer, BadRequest) and "nobody-s" in str(answer)
    assert late.hidden["dead-letters"] == 0


def test_a_label_that_is_seen_later_than_its_receipt_is_waited_for(late: LateLog, tenant: str) -> None:
    gateway = KafkaGateway(late, timeout_s=TIMEOUT_S)
    (answer,) = gateway.decide([parse_request(refund(1), tenant=tenant)])
    gateway.close()
    assert isinstance(answer, Answer)
    asked: LabelRequest = {
        "event_id": answer.decision_id, "decision_id": answer.decision_id, "tenant": tenant, "type": "label",
        "label": "failure", "summary": "fraud", "actor": "ann",
    }  # fmt: skip
    late.hidden["labels"] = 5
    (event,) = KafkaLabels(late, timeout_s=TIMEOUT_S).label([asked])
    assert isinstance(event, dict) and event["decision_id"] == answer.decision_id
