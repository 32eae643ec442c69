"""What the API's answers look like: the types that OpenAPI shows. The record's own are in `schemas/`."""

from __future__ import annotations

from typing import Any, Literal, NotRequired

from pydantic import TypeAdapter, with_config
from typing_extensions import TypedDict

from schemas.label import LabelEvent
from schemas.record import DecisionRecord
from schemas.request import DecisionRequest
from schemas.verdict import Verdict

_OPEN: Any = {"extra": "allow"}
Outcome = Literal["triggered", "not_triggered"]


class Value(TypedDict):
    """What the deciding comparison saw."""

    value: Any
    type: Literal["integer", "float", "string", "boolean", "list", "null"]


class SignalError(TypedDict):
    """A fact that a rule asked for and could not compare."""

    primitive_id: str
    error: Literal["missing", "wrong_type"]
    rule_id: str


@with_config({"title": "Decision"})
class Decision(DecisionRecord):
    """A decision record, with the fields of decision traceability beside it."""

    condition_id: str
    condition_version: str
    entity_id: str | None
    evaluated_at: str
    outcome: Outcome
    rule_id: str | None
    concept_result: Value | None
    input_primitives: dict[str, Any]
    signal_errors: list[SignalError]
    threshold_applied: Any
    strategy: str | None
    direction: str | None
    action_id: str | None


class Failure(TypedDict):
    """An error in the place of an answer."""

    code: str
    message: str
    where: NotRequired[str]
    help: NotRequired[str]
    problems: NotRequired[list[str]]


class Failed(TypedDict):
    """One of many that went wrong."""

    decision_id: NotRequired[str]
    error: Failure


class PolicyOf(TypedDict):
    """Which policy decided."""

    name: str
    version: str


class Listed(TypedDict):
    """A decision as lists show it."""

    decision_id: str
    tenant: str
    created_at: str
    verdict: Verdict
    reason_codes: list[str]
    action_type: str
    subject_id: str | None
    policy: PolicyOf
    amount: float | None
    currency: str | None
    amount_usd: float | None
    label: str | None
    condition_id: str
    condition_version: str
    entity_id: str | None
    evaluated_at: str
    outcome: Outcome
    rules: list[str]


class Page(TypedDict):
    """One page of a list; without `next_cursor` it is the last one. `query` is how the filters were understood."""

    decisions: list[Listed | Decision | Failed]
    next_cursor: str | None
    query: str | None


@with_config(_OPEN)
class Contribution(TypedDict):
    """One fact and what it contributed."""

    primitive_id: str
    value: Any
    contribution: str


@with_config(_OPEN)
class Explanation(TypedDict):
    """A decision in plain English, from its record alone."""

    decision_id: str
    explanation: str
    primitive_contributions: list[Contribution]


class Difference(TypedDict):
    """One field that came out otherwise."""

    field: str
    old: Any
    new: Any


class Face(TypedDict):
    """What was decided."""

    verdict: Verdict
    reason_codes: list[str]


class Replayed(TypedDict):
    """The recorded inputs decided again, by the recorded policy and memory."""

    decision_id: str
    result: Literal["same", "different"]
    matches: bool
    verdict: Verdict
    reason_codes: list[str]
    original: Face
    differences: list[Difference]
    causes: list[str]
    engine_changed: bool
    memory: str
    ir_hash: str
    condition_id: str
    condition_version: str


class Check(TypedDict):
    """One check: its name, whether it held, what was found."""

    name: str
    ok: bool
    detail: str


class Verified(TypedDict):
    """Every check of a record. `checkpoint`: the proof that it stands under a signed Merkle root; null: none yet."""

    decision_id: str | None
    ir_hash: str | None
    verified: bool
    condition_id: str | None
    condition_version: str | None
    record_digest: str | None
    checks: list[Check]
    checkpoint: dict[str, Any] | None


class LabelBody(TypedDict):
    """A label. `actor`: for whom the key's holder speaks; kept behind the holder's own name."""

    label: Literal["failure", "success", "retracted", "note"]
    summary: NotRequired[str | None]
    should: NotRequired[Literal["ALLOW", "DENY", "ESCALATE"] | None]
    event_id: NotRequired[str | None]
    actor: NotRequired[str | None]
    settle: NotRequired[bool]


class Changed(TypedDict):
    """One change of what was asked, or of what was known; of a number the `range` that does the same."""

    field: str
    kind: Literal["number", "value", "supplied", "removed", "time", "memory", "kill_switch", "control"]
    was: Any
    now: Any
    unnamed: bool
    facts: list[str]
    range: dict[str, Any] | None


class Led(TypedDict):
    """A verdict that was decided."""

    verdict: Verdict
    reason_codes: list[str]


class Altered(Led):
    """The changes that together lead to another verdict, nearest first."""

    changes: list[Changed]
    distance: float
    alike: list[Any]
    asked_again: Led | None
    text: str


class Tried(TypedDict):
    """How far was looked; not `complete`: a bound ended it."""

    fields: int
    singles: int
    pairs: int
    complete: bool


class Counterfactuals(Led):
    """What would have altered the verdict; each was decided again in full."""

    decision_id: str
    wanted: Verdict | None
    counterfactuals: list[Altered]
    searched: Tried
    memory: Literal["as of then", "recorded"]
    held: list[str]
    notes: list[str]
    text: list[str]


class RequestState(TypedDict):
    """What became of a request that was not waited for."""

    status: Literal["pending", "decided", "duplicate", "conflict", "rejected"]
    location: NotRequired[str]
    decision_id: NotRequired[str | None]
    decision: NotRequired[Decision]


class PolicyNamed(TypedDict):
    """A policy document by its hash."""

    name: str
    version: str
    hash: str


class Published(PolicyNamed):
    """A document that was published."""

    ir_hash: str
    published: bool


class PolicyRow(PolicyNamed):
    """A published policy."""

    origin: str
    at: str
    active: bool


class PolicyWhole(PolicyRow):
    """A policy with its source."""

    ir_hash: str
    rules: list[str]
    source: str


class Policies(TypedDict):
    """The published policies."""

    policies: list[PolicyRow]


class Checked(TypedDict):
    """A policy check: every error at once, `path:line:column: message`."""

    valid: bool
    errors: list[str]
    warnings: list[str]
    name: NotRequired[str]
    version: NotRequired[str]
    hash: NotRequired[str]
    ir_hash: NotRequired[str]


@with_config({"extra": "forbid"})
class PolicyBody(TypedDict):
    """A policy document within JSON; or send the YAML itself."""

    source: str
    name: NotRequired[str | None]


@with_config({"extra": "forbid"})
class Activation(TypedDict):
    """Which version, and why."""

    version: NotRequired[str | None]
    why: NotRequired[str | None]


@with_config({"extra": "forbid"})
class Reason(TypedDict):
    """Why."""

    why: NotRequired[str | None]


@with_config({"extra": "forbid"})
class Scope(TypedDict):
    """What a switch stops; all of it must hold. Empty: everything (for a tenant's admin: of his tenant)."""

    tenant: NotRequired[str]
    action_type: NotRequired[str]
    policy: NotRequired[str]


@with_config({"extra": "forbid"})
class SwitchBody(TypedDict):
    """A kill switch to be put on; an empty scope stops all that the key may stop."""

    why: str
    scope: Scope


class Switch(TypedDict):
    """A kill switch that is on."""

    switch_id: str
    scope: dict[str, str]
    why: str
    actor: str
    at: str


class Switches(TypedDict):
    """The switches that are on."""

    kill_switches: list[Switch]


class SwitchedOff(TypedDict):
    """A switch that was taken off."""

    switch_id: str
    on: Literal[False]


@with_config(_OPEN)
class AuditEntry(TypedDict):
    """One change, with its actor."""

    source: Literal["keys", "control", "labels"]
    number: int
    at: str
    type: str | None
    actor: str | None
    tenant: str | None


class AuditPage(TypedDict):
    """Changes, newest first; a page may be shorter than asked and still have a `next_cursor`."""

    entries: list[AuditEntry]
    next_cursor: str | None


class Alive(TypedDict):
    """The process lives."""

    status: Literal["ok"]


class Ready(TypedDict):
    """The log can be used."""

    status: Literal["ready"]
    control_version: int


class Problem(TypedDict):
    """RFC 9457: `title` is the same for each `type`, `detail` is of this time. `code` never changes once released."""

    type: str
    title: str
    status: int
    detail: str
    code: str
    where: NotRequired[str]
    help: NotRequired[str]
    problems: NotRequired[list[str]]


@with_config(_OPEN)
class Memory(TypedDict):
    """What the memory says; its fields are those of `lumyn memory ... --json`."""


_NAMED: tuple[Any, ...] = (
    Page, Explanation, Replayed, Verified, LabelBody, RequestState, PolicyNamed, Published, PolicyWhole, Policies,
    Checked, PolicyBody, Activation, Reason, SwitchBody, Switch, Switches, SwitchedOff, AuditPage, Alive, Ready,
    Problem, Memory, Counterfactuals,
)  # fmt: skip
SHAPES: dict[str, TypeAdapter[Any]] = {
    "DecisionRequest": TypeAdapter(DecisionRequest),
    "Requests": TypeAdapter(list[DecisionRequest]),
    "Decision": TypeAdapter(Decision),
    "DecisionOrRecord": TypeAdapter(Decision | DecisionRecord),
    "Decisions": TypeAdapter(list[Decision | Failed]),
    "LabelEvent": TypeAdapter(LabelEvent),
    "LabelEvents": TypeAdapter(list[LabelEvent]),
    **{shape.__name__: TypeAdapter(shape) for shape in _NAMED},
}
