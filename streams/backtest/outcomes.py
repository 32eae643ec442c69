"""What people said became of the decisions: a fold over `labels`, once, up to where the topic stood at the start.

Takes about 150 bytes a labelled decision, and about 1 kB each while the topic is read.
"""

from __future__ import annotations

from array import array
from bisect import bisect_left
from collections.abc import Iterable, Mapping
from typing import Any, Final, NamedTuple, get_args

from memory_service.fold import DecisionLabels, apply_event, standing
from schemas.canonical import decode, decode_trusted
from schemas.errors import BadInput, BadJson
from schemas.label import LabelEvent, LabelName, Meaning, is_last_word, meaning_of, speaks_of_labeller, trust_of
from schemas.verdict import VERDICTS, Verdict
from streams.label_history import bare
from streams.log import Log
from streams.reading import messages
from streams.topics import LABELS

LABEL_NAMES: Final[tuple[LabelName, ...]] = get_args(LabelName)


class Outcome(NamedTuple):
    """What stands of a decision: whether allowing was wrong (`harmful`), right (`fine`) or unknown, and its label."""

    meaning: Meaning | None
    label: str | None


UNLABELLED = Outcome(None, None)

Said = tuple[LabelName, str | None]
"""(label, what would have been right)"""


class Outcomes:
    """Labelled decisions by id, and which memory version was in force when."""

    def __init__(
        self,
        known: Mapping[str, Outcome] | None = None,
        times: Iterable[int] = (),
        given: Mapping[str, Said] | None = None,
    ) -> None:
        """`times`: the log's times of the label events, in version order. `given` outcomes go before the known."""
        self._known = dict(known or {})
        self._times = array("q", times)
        self._given = dict(given or {})

    def of(self, decision_id: str, verdict: Verdict) -> Outcome:
        """The outcome of a decision with this verdict; `UNLABELLED` when nobody said anything."""
        said = self._given.get(decision_id)
        if said is None:
            return self._known.get(decision_id, UNLABELLED)
        label, should = said
        return Outcome(meaning_of(verdict, label, should) if label != "retracted" else None, label)

    def __len__(self) -> int:
        return len(self._known) + len(self._given)

    def is_labelled(self, decision_id: str) -> bool:
        """Whether the log holds any label event of a decision."""
        return decision_id in self._known

    def version_at(self, time_ms: int) -> int:
        """The memory version that a decision of this time would have been made at.

        A label of the same millisecond is left out: which of the two was first is not known.
        """
        return bisect_left(self._times, time_ms)


def read_outcomes(log: Log, tenant: str | None, end: int, given: Mapping[str, Said] | None = None) -> Outcomes:
    """The outcomes of a tenant's decisions (None: of all), by the events before an offset, and those given.

    Raises `StorageUnavailable`.
    """
    said: dict[str, DecisionLabels] = {}
    trusts: dict[str, dict[str, int]] = {}
    last: dict[str, str | None] = {}
    times = array("q")
    for message in messages(log, LABELS, 0):
        if message.offset >= end:
            break
        event: LabelEvent = decode_trusted(message.value)
        times.append(message.time_ms)
        if speaks_of_labeller(event):
            trusts.setdefault(event["tenant"], {})[str(event.get("labeller"))] = trust_of(event)
        decision = event["decision"]
        if decision is None or (tenant is not None and event["tenant"] != tenant):
            continue
        name = event["decision_id"]
        labels = said.get(name)
        if labels is None:
            labels = said[name] = bare(decision["verdict"], event["tenant"])
        apply_event(labels, event)
        if is_last_word(event):
            last[name] = _last_word(event)
    known: dict[str, Outcome] = {}
    alike: dict[Outcome, Outcome] = {}
    while said:
        name, labels = said.popitem()
        labels.trust = trusts.get(labels.tenant, {})  # what stands now: by the trust that there is now
        stands = standing(labels)
        outcome = Outcome(stands.meaning if stands is not None else None, last.get(name))
        known[name] = alike.setdefault(outcome, outcome)
    return Outcomes(known, times, given)


def _last_word(event: LabelEvent) -> str | None:
    if event["type"] != "restore":
        return event["label"]
    restored = event.get("restored")
    return restored["said"][-1]["label"] if restored and restored["said"] else None


def given_outcomes(data: bytes, where: str) -> dict[str, Said]:
    """Outcomes from a file: objects with `decision_id`, `label` and perhaps `should`, a line each or in one list.

    `lumyn list --query "label IN (failure, success)" --json` writes one. Raises `BadInput` that names the place.
    """
    if data.lstrip()[:1] == b"[":
        found = decode(data, where=where, limit=len(data))
        return dict(_said(one, f"{where}: item {number}") for number, one in enumerate(found, start=1))
    lines = ((number, line) for number, line in enumerate(data.splitlines(), start=1) if line.strip())
    return dict(_said(decode(line, where=f"{where}:{number}"), f"{where}:{number}") for number, line in lines)


def _said(one: Any, where: str) -> tuple[str, Said]:
    if not isinstance(one, dict) or not isinstance(one.get("decision_id"), str):
        raise BadJson("an outcome is an object with `decision_id` and `label`", where=where)
    label, should = one.get("label"), one.get("should")
    known = next((name for name in LABEL_NAMES if name == label), None)
    if known is None:
        raise BadInput(f"`label` is `{label}`", where=where, help=f"one of {', '.join(LABEL_NAMES)}")
    if should is not None and should not in VERDICTS:
        raise BadInput(f"`should` is `{should}`", where=where, help=f"one of {', '.join(VERDICTS)}")
    return one["decision_id"], (known, should)
