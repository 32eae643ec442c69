"""The keys of subjects: what every key store does. Whoever forgets a subject takes its key away, for good."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple, Protocol

from schemas.errors import KeysUnavailable

State = Literal["live", "erasing", "erased", "unknown"]
"""`erasing`: the key is gone, and the log may not say so yet. `unknown`: never in this store."""


class Subject(NamedTuple):
    """Whom decisions are about. The same id under another type, or in another tenant, is somebody else."""

    tenant: str
    type: str
    id: str


@dataclass(frozen=True, slots=True)
class SubjectKey:
    """A subject's key (32 random bytes) under its pseudonym."""

    kid: str
    key: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class Held:
    """What a store says of a subject; `hold`: why it must not be forgotten now, if so."""

    kid: str
    state: State
    hold: str | None


class SubjectKeys(Protocol):
    """A key store, safe for threads and processes. Every method raises `KeysUnavailable` when it can't answer."""

    def made(self, subjects: Sequence[Subject]) -> list[SubjectKey]:
        """Each subject's key, in order; made where there is none, durable when it returns."""
        ...

    def key(self, kid: str) -> bytes | None:
        """A live key; None for any other state."""
        ...

    def state(self, kid: str) -> State:
        """What has become of a key."""
        ...

    def find(self, subject: Subject) -> Held | None:
        """What is known of a subject; None: it has no key."""
        ...

    def held(self, kid: str) -> str | None:
        """Why a key must not be destroyed now; None: nothing stops that."""
        ...

    def named(self, tenant: str, subject_id: str) -> list[str]:
        """The pseudonyms of the subjects with an id, of whatever type; of living keys only."""
        ...

    def hold(self, subject: Subject, why: str) -> Held:
        """Stop forgetting of a subject, also of one that has no key yet."""
        ...

    def release(self, subject: Subject) -> None:
        """Allow forgetting again."""
        ...

    def erase(self, kid: str) -> None:
        """Destroy a key: nothing opens any more when this returns. Again, it does nothing. Raises `OnHold`."""
        ...

    def finish(self, kid: str) -> None:
        """The log says that it was forgotten: the key is destroyed, and nothing leads from its subject to it."""
        ...

    def close(self) -> None:
        """Let go of files and connections; the next question opens them anew."""
        ...


class NoKeys:
    """No key store: nothing is sealed here, and what is sealed can't be opened."""

    def made(self, subjects: Sequence[Subject]) -> list[SubjectKey]:  # noqa: ARG002
        raise KeysUnavailable("there is no key store", help="`[privacy] encrypt_subjects = true` makes one")

    def key(self, kid: str) -> bytes | None:  # noqa: ARG002
        return None

    def state(self, kid: str) -> State:  # noqa: ARG002
        return "unknown"

    def find(self, subject: Subject) -> Held | None:  # noqa: ARG002
        return None

    def held(self, kid: str) -> str | None:  # noqa: ARG002
        return None

    def named(self, tenant: str, subject_id: str) -> list[str]:  # noqa: ARG002
        return []

    def hold(self, subject: Subject, why: str) -> Held:  # noqa: ARG002
        raise KeysUnavailable("there is no key store", help="`[privacy] encrypt_subjects = true` makes one")

    def release(self, subject: Subject) -> None: ...

    def erase(self, kid: str) -> None: ...

    def finish(self, kid: str) -> None: ...

    def close(self) -> None: ...


NO_KEYS: SubjectKeys = NoKeys()


def keys_of(log: Any) -> SubjectKeys:
    """The key store that belongs to a log: what opens the sealed messages in it."""
    keys: SubjectKeys = getattr(log, "keys", NO_KEYS)
    return keys
