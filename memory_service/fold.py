"""The fold of label events into what each labelled decision means now. Pure: the memory is a fold over `labels`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from schemas.label import LabelEvent, LabelledDecision, Meaning, meaning_of


@dataclass(slots=True)
class DecisionLabels:
    """All that was said of one decision: each labeller's last word, in order, and the decision itself."""

    tenant: str
    decision: LabelledDecision
    said: dict[str, tuple[str, str | None, str]] = field(default_factory=dict)
    quarantined: bool = False

    def as_dict(self) -> dict[str, Any]:
        """JSON form, kept beside the points so that a fold can go on after a restart."""
        return {
            "tenant": self.tenant,
            "decision": self.decision,
            "said": [[actor, *word] for actor, word in self.said.items()],
            "quarantined": self.quarantined,
        }

    @classmethod
    def from_dict(cls, value: Mapping[str, Any]) -> DecisionLabels:
        said = {actor: (label, should, summary) for actor, label, should, summary in value["said"]}
        return cls(value["tenant"], value["decision"], said, value["quarantined"])


@dataclass(frozen=True, slots=True)
class Standing:
    """What a labelled decision counts as, from all that was said of it."""

    label: str
    meaning: Meaning
    contested: bool
    labeller: str
    summary: str


def apply_event(labels: DecisionLabels, event: LabelEvent) -> None:
    """Take one event in. A settlement is the last word over all labellers, a restore is all there is now."""
    kind = event["type"]
    if kind == "quarantine":
        labels.quarantined = True
    elif kind == "release":
        labels.quarantined = False
    elif kind in ("label", "settle") and event["label"]:
        if kind == "settle":
            labels.said.clear()
        labels.said.pop(event["actor"], None)
        labels.said[event["actor"]] = (event["label"], event["should"], event["summary"])
    elif kind == "restore" and (restored := event.get("restored")):
        labels.said = {w["actor"]: (w["label"], w["should"], w["summary"]) for w in restored["said"]}
        labels.quarantined = restored["quarantined"]


def standing(labels: DecisionLabels) -> Standing | None:
    """What counts now; None when nothing does (all retracted, or quarantined).

    The last label counts. Labellers who disagree make it contested: then a harmful meaning keeps full force, whoever
    spoke last, and a fine one neither supports nor softens. A retraction beside another's label is a disagreement.
    """
    if labels.quarantined or not labels.said:
        return None
    verdict = labels.decision["verdict"]
    words = [
        (actor, label, meaning_of(verdict, label, should) if label != "retracted" else None, summary)  # type: ignore[arg-type]
        for actor, (label, should, summary) in labels.said.items()
    ]
    standing_words = [word for word in words if word[2] is not None]
    if not standing_words:
        return None
    contested = len({(label, meaning) for _, label, meaning, _ in words}) > 1
    actor, label, meaning, summary = standing_words[-1]
    if contested and any(word[2] == "harmful" for word in standing_words):
        meaning = "harmful"
    assert meaning is not None
    return Standing(label, meaning, contested, actor, summary)
