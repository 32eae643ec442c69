"""Control events: policies by hash, activations, kill switches, which memory is asked."""

from __future__ import annotations

from typing import Any, Literal, NotRequired

from pydantic import TypeAdapter, with_config
from typing_extensions import TypedDict

ControlType = Literal[
    "policy_published", "policy_activated", "kill_switch_on", "kill_switch_off", "signing_key", "memory_switched",
    "policy_shadowed", "policy_unshadowed",
]


@with_config({"extra": "forbid", "strict": True})
class SwitchScope(TypedDict):
    """What a kill switch covers; an empty scope is everything."""

    tenant: NotRequired[str]
    action_type: NotRequired[str]
    policy: NotRequired[str]


@with_config({"extra": "forbid", "strict": True})
class SwitchedMemory(TypedDict):
    """A memory by its embedder, as configuration names it, its profile, and the vectoriser that its vectors are of."""

    embedder: str
    vectoriser_id: str
    profile: NotRequired[dict[str, Any]]


@with_config({"extra": "forbid", "strict": True, "title": "ControlEvent"})
class ControlEvent(TypedDict):
    """One control event; its dense version is its number on the single control partition, counted from 1."""

    type: ControlType
    actor: str
    why: NotRequired[str]
    name: NotRequired[str]
    policy_version: NotRequired[str]
    hash: NotRequired[str]
    source: NotRequired[str]
    origin: NotRequired[Literal["shadow", "file", "publish"]]
    switch_id: NotRequired[str]
    scope: NotRequired[SwitchScope]
    instead_of: NotRequired[str]
    memory: NotRequired[SwitchedMemory]
    was: NotRequired[SwitchedMemory]


ADAPTER: TypeAdapter[ControlEvent] = TypeAdapter(ControlEvent)
