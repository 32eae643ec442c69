"""The fold of label events into what each labelled decision means now. Pure: the memory is a fold over `labels`.

What a labeller said can stop counting, and count again, long after he said it. So what a settlement covers is kept
beneath it, and who took a decision out of recall stands beside that it is out.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple, cast

from schemas.label import FULL_TRUST, LabelEvent, LabelledDecision, Meaning, Restored, Word, meaning_of, trust_of


class Said(NamedTuple):
    """What a labeller said of a decision, and when; `settles`: over those before him whom we trust no more than him."""

    actor: str
    label: str
    should: str | None
    summary: str
    at: str
    settles: bool

    def as_word(self) -> Word:
        """As a `restore` holds it."""
        named = zip(("actor", "label", "should", "summary", "at"), self, strict=False)
        word = {name: value for name, value in named if name != "at" or value}
        return cast(Word, {**word, "settles": True} if self.settles else word)


@dataclass(slots=True)
class DecisionLabels:
    """All that was said of one decision, in order, the decision itself, and the trust in who spoke.

    Of each labeller `said` holds his last word, and his last settlement where he said something else since. `outs`
    holds each one's last quarantine (True) or release, in order. `trust`: of those not trusted in full, in hundredths.
    """

    tenant: str
    decision: LabelledDecision
    said: list[Said] = field(default_factory=list)
    outs: dict[str, bool] = field(default_factory=dict)
    trust: dict[str, int] = field(default_factory=dict)

    def as_dict(self) -> dict[str, Any]:
        """JSON form, kept beside the points so that a fold can go on after a restart."""
        return {
            "tenant": self.tenant,
            "decision": self.decision,
            "said": [list(word) for word in self.said],
            "outs": [list(out) for out in self.outs.items()],
            "trust": self.trust,
        }

    @classmethod
    def from_dict(cls, value: Mapping[str, Any]) -> DecisionLabels:
        said = [Said(*word) for word in value["said"]]
        return cls(value["tenant"], value["decision"], said, dict(value["outs"]), dict(value["trust"]))

    def trust_in(self, labeller: str) -> int:
        """In hundredths; 0: held."""
        return self.trust.get(labeller, FULL_TRUST)

    def words(self) -> list[Said]:
        """Each labeller's last word, in order, of those that count: not held, and not settled by others."""
        last = {word.actor: number for number, word in enumerate(self.said)}
        return [
            word
            for number, word in enumerate(self.said)
            if last[word.actor] == number and self.trust_in(word.actor) and not self._is_settled(number)
        ]

    def _is_settled(self, number: int) -> bool:
        least = self.trust_in(self.said[number].actor)
        return any(after.settles and self.trust_in(after.actor) >= least for after in self.said[number + 1 :])

    @property
    def quarantined(self) -> bool:
        """Whether the last who took it out or let it in took it out; who is held has no say in it."""
        return next((out for actor, out in reversed(self.outs.items()) if self.trust_in(actor)), False)

    def restored(self) -> Restored:
        """All of it as a `restore` holds it."""
        state: Restored = {"said": [word.as_word() for word in self.said], "quarantined": self.quarantined}
        if self.outs:
            state["quarantines"] = [{"actor": actor, "out": out} for actor, out in self.outs.items()]
        return state


@dataclass(frozen=True, slots=True)
class Standing:
    """What a labelled decision counts as, from all that was said of it; `trust` in hundredths, `at` as in the event.

    `trust` and `at` are of the most trusted one who says what it counts as, of equals the newest: what he says is worth
    no less because others repeat it.
    """

    label: str
    meaning: Meaning
    contested: bool
    labeller: str
    summary: str
    trust: int = FULL_TRUST
    at: str = ""


def apply_event(labels: DecisionLabels, event: LabelEvent) -> None:
    """Take one event in, of the decision, or of the trust in one of its labellers; a restore is all there is now."""
    kind = event["type"]
    if kind in ("quarantine", "release"):
        labels.outs.pop(event["actor"], None)
        labels.outs[event["actor"]] = kind == "quarantine"
    elif kind in ("label", "settle") and event["label"]:
        settles, actor = kind == "settle", event["actor"]
        word = Said(actor, event["label"], event["should"], event["summary"], event["at"], settles)
        labels.said = [*_without(labels.said, actor, keep_settlement=not settles), word]
    elif kind == "restore" and (restored := event.get("restored")):
        labels.said = [
            Said(w["actor"], w["label"], w["should"], w["summary"], w.get("at", event["at"]), w.get("settles", False))
            for w in restored["said"]
        ]
        outs = restored.get("quarantines")
        if outs is None:  # of a time when nobody was asked who
            labels.outs = {"": True} if restored["quarantined"] else {}
        else:
            labels.outs = {one["actor"]: one["out"] for one in outs}
    elif kind == "trust" and (labeller := event.get("labeller")) is not None:
        set_trust(labels, labeller, trust_of(event))


def _without(said: Iterable[Said], actor: str, *, keep_settlement: bool) -> Iterable[Said]:
    """What was said, without what the actor's next word takes the place of."""
    return (word for word in said if word.actor != actor or (keep_settlement and word.settles))


def set_trust(labels: DecisionLabels, labeller: str, trust: int) -> None:
    """Trust a labeller so much, in hundredths."""
    if trust == FULL_TRUST:
        labels.trust.pop(labeller, None)
    else:
        labels.trust[labeller] = trust


def standing(labels: DecisionLabels) -> Standing | None:
    """What counts now; None when nothing does (all retracted or held, or quarantined).

    The last label counts. Labellers who disagree make it contested: then a harmful meaning keeps full force, whoever
    spoke last, and a fine one neither supports nor softens. A retraction beside another's label is a disagreement.
    """
    if labels.quarantined or not labels.said:
        return None
    verdict = labels.decision["verdict"]
    words = [
        (word, meaning_of(verdict, word.label, word.should) if word.label != "retracted" else None)  # type: ignore[arg-type]
        for word in labels.words()
    ]
    standing_words = [(word, meaning) for word, meaning in words if meaning is not None]
    if not standing_words:
        return None
    contested = len({(word.label, meaning) for word, meaning in words}) > 1
    last, meaning = standing_words[-1]
    if contested and any(said == "harmful" for _, said in standing_words):
        meaning = "harmful"
    trust, at = max((labels.trust_in(word.actor), word.at) for word, said in standing_words if said == meaning)
    return Standing(last.label, meaning, contested, last.actor, last.summary, trust, at)
