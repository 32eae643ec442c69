"""The label receipt: what became of one label request. Exactly one for each; who asked waits on it."""

from __future__ import annotations

from typing import Literal

from pydantic import TypeAdapter, with_config
from typing_extensions import TypedDict

from schemas.record import LogRef

LabelOutcome = Literal["accepted", "duplicate", "refused"]


@with_config({"extra": "forbid", "strict": True, "title": "LabelReceipt"})
class LabelReceipt(TypedDict):
    """`version` is the accepted event's (of a duplicate: the first one's); `reason` and `detail` say why refused."""

    source: LogRef
    tenant: str | None
    event_id: str | None
    outcome: LabelOutcome
    version: int | None
    reason: str | None
    detail: str | None


ADAPTER: TypeAdapter[LabelReceipt] = TypeAdapter(LabelReceipt)
