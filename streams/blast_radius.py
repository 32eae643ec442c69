"""The blast radius of a change of the memory: every past decision that would have come out otherwise with it.

Each decision is asked again as of its own memory version, in a memory in which the changed decisions stood, from the
first label on, for what they are to stand for; an undo is asked as if what it undoes had never been said. All of the
same tenant and action types are asked, not a sample: a change reaches decisions that recalled a memory, and decisions
that would newly recall it. What is decided on the other recall is decided by the policy that the record names, by the
one evaluator.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import Any

from memory_service.profile import amount_of, has_comparable_amount
from memory_service.recall import Asked, Recall
from memory_service.recaller import Recaller
from memory_service.record_index import amount_in, currency_in
from memory_service.store import Watermark
from memory_service.supposed import SupposedMemory
from memory_service.timeline import Stand
from memory_service.vectoriser import Vectoriser
from schemas.errors import LumynError
from schemas.label import LabelEvent, speaks_of_labeller
from schemas.seal import is_sealed
from schemas.verdict import SEVERITY, Verdict
from streams.as_of import asked_by, changes, was_recalled
from streams.diff import MISSHAPEN, outcome_of
from streams.erasures import FORGOTTEN, MET_FORGOTTEN, NOTHING_ERASED, Erasures
from streams.policy import CompiledPolicy
from streams.sealing import is_erased
from streams.subject_keys import NO_KEYS, SubjectKeys

UNSOUND = "not a sound record: `lumyn verify` says more"
_AT_ONCE = 1024
Record = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Flip:
    """One past decision that would have come out otherwise.

    `amount`: as the amount gate compares it; `value` and `currency`: as it was asked for.
    """

    decision_id: str
    old: Verdict
    new: Verdict
    old_reasons: tuple[str, ...]
    new_reasons: tuple[str, ...]
    amount: float | int | None
    comparable: bool = True
    """False: there is an amount, but one that can't be compared; it may be a large one."""
    value: float | int | None = None
    currency: str | None = None

    @property
    def badness(self) -> tuple[int, float, float, str]:
        """Sorts the worst first: what would have been let through before what would have been stopped; then money."""
        old, new = SEVERITY[self.old], SEVERITY[self.new]
        money = float(self.amount or 0) if self.comparable else math.inf
        return new if new < old else len(SEVERITY), -money, -float(self.value or 0), self.decision_id


@dataclass(slots=True)
class BlastRadius:
    """`compared` decisions were asked again, of which `recalled_otherwise` had another recall, and `flips` came out
    otherwise, the worst first. `not_comparable`: why some could not be asked, with how many."""

    compared: int = 0
    recalled_otherwise: int = 0
    table: Counter[tuple[str, str]] = field(default_factory=Counter)
    flips: list[Flip] = field(default_factory=list)
    not_comparable: Counter[str] = field(default_factory=Counter)

    def add(self, other: BlastRadius) -> None:
        """Take another part's in."""
        self.compared += other.compared
        self.recalled_otherwise += other.recalled_otherwise
        self.table += other.table
        self.flips += other.flips
        self.not_comparable += other.not_comparable


@dataclass(frozen=True, slots=True)
class Supposed:
    """A change of one tenant's memory: what decisions would have stood for instead, and since when."""

    tenant: str
    instead: Mapping[str, Sequence[Stand]]

    def among(self, events: Iterable[LabelEvent]) -> tuple[list[LabelEvent], dict[str, int]]:
        """The events of the touched action types and of labellers; from which version on each type can differ."""
        mine = [e for e in events if e["tenant"] == self.tenant and e["type"] != "note"]
        own, trusts = [e for e in mine if e["decision"] is not None], [e for e in mine if speaks_of_labeller(e)]
        since: dict[str, int] = {}
        for event in own:
            if event["decision_id"] in self.instead:
                kind = _action_type(event)
                since[kind] = min(since.get(kind, event["version"]), event["version"])
        return [*trusts, *(event for event in own if _action_type(event) in since)], since


def _action_type(event: LabelEvent) -> str:
    assert event["decision"] is not None
    return event["decision"]["action_type"]


class Blast:
    """A change, ready to be held against any number of records, part by part."""

    def __init__(
        self,
        supposed: Supposed,
        events: Iterable[LabelEvent],
        vectoriser: Vectoriser,
        epoch: str,
        policy_of: Callable[[str], CompiledPolicy],
        until: int,
        keys: SubjectKeys = NO_KEYS,
        erasures: Erasures = NOTHING_ERASED,
    ) -> None:
        """`events` are all label events up to the version `until`, each decision's in version order.

        `policy_of` gives the policy of a hash and raises `LumynError` for one that is not there.
        """
        kept, self._since = supposed.among(events)
        memory = SupposedMemory(kept, vectoriser, epoch, until, supposed.instead)
        self._tenant, self._policy_of = supposed.tenant, policy_of
        self.keys, self._erasures = keys, erasures
        self._own, self._recaller = memory.watermark(), Recaller(memory, vectoriser, epoch)

    @property
    def reaches_any(self) -> bool:
        """Whether it can have reached any decision at all."""
        return bool(self._since)

    def among(self, records: Iterable[Record]) -> BlastRadius:
        """Its radius among some sound decision records, of any tenant. Raises `LumynError`."""
        radius = BlastRadius()
        touched = _touched(self._tenant, self._since, records, self._own, radius, self._erasures)
        while some := list(islice(touched, _AT_ONCE)):
            some.sort(key=lambda one: one[1].version or 0)
            for (record, _), recall in zip(some, self._recalled([asked for _, asked in some]), strict=True):
                if recall is None or not _compare(record, recall, self._policy_of, radius):
                    radius.not_comparable[UNSOUND] += 1
        return radius

    def _recalled(self, asked: Sequence[Asked]) -> Sequence[Recall | None]:
        """One recall a request; None for a request that none can be made from."""
        try:
            return self._recaller.recall(asked)
        except MISSHAPEN:
            return [self._alone(one) for one in asked]

    def _alone(self, asked: Asked) -> Recall | None:
        try:
            return self._recaller.recall([asked])[0]
        except MISSHAPEN:
            return None


def _touched(
    tenant: str,
    since: Mapping[str, int],
    records: Iterable[Record],
    own: Watermark,
    radius: BlastRadius,
    erasures: Erasures,
) -> Iterator[tuple[Record, Asked]]:
    """The decisions that the change can have reached, and how each recalled."""
    for record in records:
        try:
            found = _asked(tenant, since, record, own)
            if isinstance(found, Asked) and erasures.touched(record):
                found = MET_FORGOTTEN
        except MISSHAPEN:
            found = UNSOUND
        if isinstance(found, str):
            radius.not_comparable[found] += 1
        elif found is not None:
            yield record, found


def _asked(tenant: str, since: Mapping[str, int], record: Record, own: Watermark) -> Asked | str | None:
    """How a decision recalled; why that can't be asked again; None: the change can't have reached it."""
    request = record["request"]
    first = since.get(request["action"]["type"])
    if first is None or request["tenant"] != tenant or not was_recalled(record):
        return None
    memory = record["memory"]
    if memory["epoch"] != own.epoch:
        return "recalled from another memory"
    if memory["vectoriser_id"] != own.vectoriser_id:
        return "recalled with another vectoriser"
    if memory["version"] > own.version:
        return "decided since this was begun"
    if memory["version"] < first:
        return None
    if is_sealed(record):
        return FORGOTTEN if is_erased(record) else "sealed: its subject's key is not here"
    return asked_by(record)


def _compare(record: Record, recall: Recall, policy_of: Callable[[str], CompiledPolicy], radius: BlastRadius) -> bool:
    """Take one decision in; False: its record does not hold what a record does."""
    try:
        was, codes, same = record["verdict"], tuple(record["reason_codes"]), next(changes(record, recall), None) is None
        verdict, reasons = (was, codes) if same else outcome_of(record, policy_of(record["policy"]["hash"]), recall)
    except LumynError as error:
        radius.not_comparable[error.message] += 1
        return True
    except MISSHAPEN:
        return False
    radius.compared += 1
    radius.recalled_otherwise += not same
    radius.table[was, verdict] += 1
    if (verdict, reasons) != (was, codes):
        request = record["request"]
        amount, comparable = amount_of(request), has_comparable_amount(request)
        value, currency = amount_in(request["action"]), currency_in(request["action"])
        name = record["decision_id"]
        radius.flips.append(Flip(name, was, verdict, codes, reasons, amount, comparable, value, currency))
    return True
