"""Forgetting a subject: its key is destroyed, the log says so, and its memories are taken out; and what stops that.

The key goes first. From then on nothing of the subject opens, whatever dies in between; the same call again goes on
with the rest.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from typing import Any, cast

from lumyn.home import Home
from lumyn.mentions import Mention, mentions_of
from schemas.canonical import decode_trusted
from schemas.errors import LumynError, MemoryUnavailable, NotFound, UsageError
from schemas.label import LabelEvent, LabelRequest
from schemas.query import And, Field, OneOf, Query
from streams.label_history import histories
from streams.reading import messages
from streams.subject_keys import Held, Subject
from streams.topics import LABELS

_MEMORY_WITHIN_S = 30.0


@dataclass(frozen=True, slots=True)
class Forgetting:
    """What forgetting a subject takes away, or took away.

    `records` and `labels` stay, with what is not personal; `memories` go. `in_clear` are decisions that were stored
    without encryption: they can't be forgotten. `version` is the memory's that is without them, when it was done.
    `mentions` is where else the home names the subject; forgetting takes none of it away.
    """

    tenant: str
    type: str
    id: str
    pseudonym: str | None
    hold: str | None
    begun: bool
    records: int
    labels: int
    memories: int
    in_clear: int
    mentions: tuple[Mention, ...] = ()
    applied: bool = False
    version: int | None = None

    def as_dict(self) -> dict[str, Any]:
        """The JSON form."""
        return asdict(self)

    @property
    def is_named(self) -> bool:
        """Whether a text in this home still names the subject."""
        return any(one.by == "text" for one in self.mentions)


def subject_named(text: str, tenant: str) -> Subject:
    """`TYPE:ID` as a subject. Raises `UsageError`."""
    kind, colon, name = text.partition(":")
    if not colon or not kind or not name:
        raise UsageError("a subject is named TYPE:ID, as requests name it", help="such as `customer:cust-42`")
    return Subject(tenant, kind, name)


def plan(home: Home, subject: Subject) -> Forgetting:
    """What forgetting would take away. Raises `KeysUnavailable`, `StorageUnavailable`."""
    found = home.log.keys.find(subject)
    records = _count(home, subject, found.kid) if found is not None else 0
    labels, remembered = _labels(home, subject.tenant, found.kid) if found is not None else (0, 0)
    return Forgetting(
        tenant=subject.tenant,
        type=subject.type,
        id=subject.id,
        pseudonym=found.kid if found is not None else None,
        hold=found.hold if found is not None else None,
        begun=found is not None and found.state == "erasing",
        records=records,
        labels=labels,
        memories=remembered,
        in_clear=_count(home, subject, subject.id),
        mentions=tuple(mentions_of(home, subject, found.kid if found is not None else None)),
    )


def forget(home: Home, subject: Subject, why: str, say: Callable[[str], None] = lambda text: None) -> Forgetting:
    """Forget a subject for good.

    Raises `OnHold` where that is forbidden, `NotFound` for a subject that nothing is stored of under a key, and what
    goes wrong after the key is destroyed: then the same call goes on.
    """
    _check_why(why)
    before = plan(home, subject)
    if before.pseudonym is None:
        raise NotFound(f"nothing is stored under a key of {subject.type}:{subject.id} in tenant `{subject.tenant}`")
    kid = before.pseudonym
    home.log.keys.erase(kid)
    say("the key is destroyed: nothing of this subject opens any more")
    version = _told(home, kid) or _tell(home, "forget", kid, why, subject.tenant, f"forget/{kid}")
    _take_out(home, version)
    home.log.keys.finish(kid)
    return replace(before, applied=True, version=version)


def hold(home: Home, subject: Subject, why: str) -> Held:
    """Forbid forgetting a subject, also one that nothing is stored of yet. Raises `UsageError`, `KeysUnavailable`."""
    _check_why(why)
    held = home.log.keys.hold(subject, why)
    _tell(home, "hold", held.kid, why, subject.tenant)
    return held


def release(home: Home, subject: Subject, why: str) -> Held:
    """Allow it again. Raises `NotFound` where there is no hold."""
    _check_why(why)
    held = home.log.keys.find(subject)
    if held is None or held.hold is None:
        raise NotFound(f"there is no hold on {subject.type}:{subject.id} in tenant `{subject.tenant}`")
    _tell(home, "unhold", held.kid, why, subject.tenant)  # first: a hold never ends without a trace
    home.log.keys.release(subject)
    return held


def _check_why(why: str) -> None:
    if not why.strip():
        raise UsageError("`--why` is empty", help="a sentence: it stands in the log, in clear; name nobody in it")


def _count(home: Home, subject: Subject, name: str) -> int:
    """How many decisions are indexed under a name: a pseudonym, or an id in clear."""
    kind, whose = OneOf(Field("subject_type", "text"), (subject.type,)), OneOf(Field("subject_id", "text"), (name,))
    return home.index().count(Query("", And((kind, whose))), tenant=subject.tenant)


def _labels(home: Home, tenant: str, kid: str) -> tuple[int, int]:
    """How many label events speak of a subject's decisions, and how many of these are in the memory now."""
    count, decisions = 0, set()
    for message in messages(home.log, LABELS, 0):
        event: LabelEvent = decode_trusted(message.value)
        decision = event["decision"]
        if decision is not None and decision.get("subject") == kid:
            count += 1
            decisions.add(event["decision_id"])
    known = histories(home.log, tenant)
    return count, sum(name in known and known[name].standing() is not None for name in decisions)


def _told(home: Home, kid: str) -> int | None:
    """The version at which the log says that a subject was forgotten: a call before was broken off after that."""
    for message in messages(home.log, LABELS, 0):
        event: LabelEvent = decode_trusted(message.value)
        if event["type"] == "forget" and event.get("subject") == kid:
            return event["version"]
    return None


def _tell(home: Home, kind: str, kid: str, why: str, tenant: str, event_id: str | None = None) -> int:
    request = {
        "event_id": event_id or f"{kind}/{uuid.uuid4().hex}", "decision_id": "", "tenant": tenant, "type": kind,
        "summary": why, "actor": home.settings.actor, "subject": kid,
    }  # fmt: skip
    result = home.labels.label([cast(LabelRequest, request)])[0]
    if isinstance(result, LumynError):
        raise result
    return result["version"]


def _take_out(home: Home, version: int) -> None:
    """This home's own memory is without the subject when this returns; others take it out before they answer again."""
    home.forget_memories()
    if not home.remembers(version, _MEMORY_WITHIN_S):
        raise MemoryUnavailable(
            "the key is destroyed, and the memory is not without the subject yet: the label worker takes it out",
            help="is `lumyn worker labels` running? then run the same command again",
        )
