"""An incident's labelled decisions as an eval set: JSON lines in the form that Inspect AI's `json_dataset` reads.

A line is a sample: `input`, what the agent was given (text, or chat messages where it was given such), `target`, the
verdict that would have been right, `id` and `metadata`. Source: inspect.aisi.org.uk/datasets.html.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from lumyn.home import Home
from lumyn.incidents.evidence import decisions_of
from lumyn.incidents.model import Incident
from lumyn.label_jobs import known
from lumyn.lookup import sound_record
from lumyn.rating import agent_input
from schemas.errors import LumynError
from schemas.seal import is_sealed, stored_of

_ROLES = ("system", "user", "assistant")


@dataclass(slots=True)
class Left:
    """How many decisions are no sample, and how many samples hold what was stored under a key."""

    unlabelled: int = 0
    unsaid: int = 0
    """Labelled as wrong, where nobody said what would have been right."""
    closed: int = 0
    opened: int = 0


def samples(home: Home, incident: Incident, left: Left) -> Iterator[dict[str, Any]]:
    """A sample each decision whose right verdict somebody said. Raises `StorageUnavailable`."""
    histories = known(home)
    for row in decisions_of(home, incident).rows:
        history = histories.get(row.decision_id)
        words = history.words() if history is not None else []
        if not words or words[-1].label not in ("failure", "success"):
            left.unlabelled += 1
            continue
        try:
            record = sound_record(home, row.decision_id)[1]
        except LumynError:
            left.closed += 1
            continue
        if is_sealed(record):
            left.closed += 1
            continue
        said = words[-1]
        target = said.should or _right(record["verdict"], said.label)
        if target is None:
            left.unsaid += 1
            continue
        left.opened += is_sealed(stored_of(record))
        yield {
            "id": record["decision_id"],
            "input": given(record),
            "target": target,
            "metadata": {
                "incident": incident.id,
                "title": incident.title,
                "severity": incident.severity,
                "decided": record["verdict"],
                "reason_codes": list(record["reason_codes"]),
                "policy": f"{record['policy']['name']}@{record['policy']['version']}",
                "action": record["request"]["action"],
                "label": said.label,
                "target_from": "should" if said.should else "label",
                "contested": len({(word.label, word.should) for word in words}) > 1,
                "provenance": record["provenance"],
                "created_at": record["created_at"],
                "record_digest": stored_of(record)["record_digest"],
            },
        }


def given(record: Mapping[str, Any]) -> str | list[dict[str, str]]:
    """What the agent saw: the messages of its context where these are a chat, else what `lumyn rate` gives it."""
    inline = (record["request"].get("context") or {}).get("inline") or {}
    messages = inline.get("messages")
    if isinstance(messages, list) and messages and all(_is_message(one) for one in messages):
        return [{"role": one["role"], "content": one["content"]} for one in messages]
    return agent_input(record).decode()


def _is_message(one: Any) -> bool:
    return isinstance(one, Mapping) and one.get("role") in _ROLES and isinstance(one.get("content"), str)


def _right(verdict: str, label: str) -> str | None:
    """The verdict that a bare label says was right: what was decided, or the other of ALLOW and DENY.

    None: an ESCALATE or ABSTAIN that was wrong, of which a bare label says neither that allowing would have been right
    nor that it would have been wrong.
    """
    if label == "success":
        return verdict
    return {"DENY": "ALLOW", "ALLOW": "DENY"}.get(verdict)
