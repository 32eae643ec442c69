"""Ledger events: past decisions that a new policy or a new model contests, and what people made of each."""

from __future__ import annotations

from typing import Annotated, Literal, NotRequired, get_args

from pydantic import Field, TypeAdapter, with_config
from typing_extensions import TypedDict

from schemas.verdict import Verdict

LedgerType = Literal["backfill_begun", "contested", "backfill_written", "state", "redriven"]
State = Literal["open", "upheld", "corrected", "disclosed"]
Amount = Annotated[int | float | None, Field(description="as in the action")]
"""Annotated: a bare union would be drawn in whatever order another module first wrote it in."""
STATES: tuple[State, ...] = get_args(State)
Against = Literal["policy", "outputs", "command", "url"]


@with_config({"extra": "forbid", "strict": True})
class Contender(TypedDict):
    """What past decisions were held against: a policy, or an agent's new outputs. `digest` is the document's."""

    kind: Against
    name: str
    digest: str


@with_config({"extra": "forbid", "strict": True})
class LedgerRange(TypedDict):
    """Which decisions were looked at; `root` is the Merkle root over their digests, as in a backtest."""

    asked: dict[str, str | int | None]
    first: str | None
    last: str | None
    decisions: int
    root: str


@with_config({"extra": "forbid", "strict": True})
class Outcome(TypedDict):
    """What came out: of a policy a verdict, of an agent an action. Free text is never in it."""

    verdict: NotRequired[Verdict]
    reason_codes: NotRequired[list[str]]
    policy: NotRequired[str]
    action_type: NotRequired[str | None]
    amount: NotRequired[Amount]
    currency: NotRequired[str | None]


@with_config({"extra": "forbid", "strict": True})
class Contested(TypedDict):
    """One past decision that would come out otherwise now. `subject` is a pseudonym.

    `cause` is a policy's (as in a backtest); `fields` are the names of an agent's arguments that differ.
    """

    decision_id: str
    record_digest: str
    decided_at: str
    subject: str
    action_type: str
    amount: Amount
    currency: str | None
    recorded: Outcome
    would_be: Outcome
    direction: str
    cause: NotRequired[str]
    fields: NotRequired[list[str]]
    meaning: str | None


@with_config({"extra": "forbid", "strict": True, "title": "LedgerEvent"})
class LedgerEvent(TypedDict):
    """One ledger event. `event_id` makes it count once, however often it stands in the log."""

    type: LedgerType
    event_id: str
    tenant: str
    actor: str
    job: str
    why: NotRequired[str]
    range: NotRequired[LedgerRange]
    against: NotRequired[Contender]
    contested: NotRequired[Contested]
    count: NotRequired[int]
    decision_id: NotRequired[str]
    state: NotRequired[State]
    owner: NotRequired[str]
    new_decision_id: NotRequired[str]
    verdict: NotRequired[Verdict]


ADAPTER: TypeAdapter[LedgerEvent] = TypeAdapter(LedgerEvent)
