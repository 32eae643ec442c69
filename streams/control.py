"""The control state: a fold over the `control` topic. Policies by hash, which are active, kill switches, the memory."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from functools import lru_cache
from typing import Any

from memory_service.profile import MemoryProfile
from memory_service.recall import MemoryChoice
from schemas.canonical import decode_trusted, encode
from schemas.control import ControlEvent, SwitchedMemory
from schemas.digests import digest
from schemas.errors import IntegrityError, NotFound, PolicyConflict, PolicyInvalid
from schemas.ids import iso_time
from streams.log import Append, Log, Message
from streams.policy import CompiledPolicy, load_policy
from streams.topics import CONTROL

_ORIGINS = ("shadow", "file", "publish")
"""How a document came into the topic: as a candidate, by being decided by, or published. A later one counts over it."""


@dataclass(frozen=True, slots=True)
class PublishedPolicy:
    """A policy document as it was published."""

    name: str
    version: str
    hash: str
    source: str
    origin: str
    at: str


@dataclass(frozen=True, slots=True)
class KillSwitch:
    """A switch that is on. Its scope's fields must all hold for a request to be denied."""

    switch_id: str
    scope: Mapping[str, str]
    why: str
    actor: str
    at: str

    def covers(self, tenant: str, action_type: str, policy: str) -> bool:
        """Whether a request falls under this switch."""
        facts = {"tenant": tenant, "action_type": action_type, "policy": policy}
        return all(facts[name] == value for name, value in self.scope.items())

    def as_record(self) -> dict[str, Any]:
        """The record's form."""
        return {
            "switch_id": self.switch_id,
            "scope": dict(self.scope),
            "why": self.why,
            "actor": self.actor,
            "at": self.at,
        }


@dataclass(frozen=True, slots=True)
class ShadowedPolicy:
    """A candidate that is evaluated beside the decisions of the policy `instead_of`, from `since_ms` on (log time)."""

    name: str
    version: str
    hash: str
    instead_of: str
    why: str
    actor: str
    since_ms: int


@dataclass(frozen=True, slots=True)
class ControlState:
    """Control as of a dense version: the number of events taken in. `stale` means that it may have moved on unseen.

    `position` is the offset of the next event; on Kafka, where offsets may have gaps, it is not the version.
    """

    version: int = 0
    position: int = 0
    policies: Mapping[str, PublishedPolicy] = field(default_factory=dict)
    active: Mapping[str, str] = field(default_factory=dict)
    history: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    latest_active: str | None = None
    switches: tuple[KillSwitch, ...] = ()
    stale: bool = False
    shadows: Mapping[str, ShadowedPolicy] = field(default_factory=dict)
    """Candidates under trial, by hash."""
    memory: MemoryChoice | None = None
    """Which memory is asked; None: the configured embedder's, for nothing was chosen yet."""
    memories: Mapping[str, MemoryChoice] = field(default_factory=dict)
    """Every memory that was ever chosen or left, by its vectoriser's id."""

    def switches_for(self, tenant: str, action_type: str, policy: str) -> tuple[KillSwitch, ...]:
        """The switches that deny this request."""
        return tuple(s for s in self.switches if s.covers(tenant, action_type, policy))

    def active_policy(self, name: str | None) -> PublishedPolicy | None:
        """The active policy of a name; without a name, the one activated last."""
        chosen = self.latest_active if name is None else name
        hash_ = self.active.get(chosen) if chosen else None
        return self.policies.get(hash_) if hash_ else None

    def memory_of(self, vectoriser_id: str | None) -> MemoryChoice | None:
        """The memory that holds a vectoriser's vectors; None: it can only be the configured embedder's."""
        return self.memories.get(vectoriser_id) if vectoriser_id else None

    def find(self, name: str, version: str | None) -> PublishedPolicy:
        """A published policy by name and version (default: the latest). Raises `NotFound`."""
        named = [p for p in self.policies.values() if p.name == name and version in (None, p.version)]
        found = [p for p in named if p.origin != "shadow" or version is not None]  # a candidate is not the latest
        if not found:
            wanted = name if version is None else f"{name}@{version}"
            raise NotFound(f"no published policy `{wanted}`", help="`lumyn policy list` shows what there is")
        return found[-1]

    def compiled(self, hash_: str) -> CompiledPolicy:
        """The compiled policy of a hash. Raises `NotFound`."""
        published = self.policies.get(hash_)
        if published is None:
            raise NotFound(f"policy document `{hash_}` is not in the control topic")
        return compile_policy(published.source.encode("utf-8"), f"{published.name}.yml", published.hash)


@lru_cache(maxsize=256)
def compile_policy(source: bytes, name: str, hash_: str) -> CompiledPolicy:
    """Compile once a document. Raises `IntegrityError` when its bytes don't have the hash they were stored under."""
    if digest(source) != hash_:
        raise IntegrityError(f"policy_hash: the stored document `{name}` is not the one that has `{hash_}`")
    return load_policy(source, name=name)


def apply_control(state: ControlState, message: Message) -> ControlState:
    """Take one control message in. One that is no event counts and changes nothing."""
    state = replace(state, version=state.version + 1, position=message.offset + 1)
    try:
        event: ControlEvent = decode_trusted(message.value)
        return _applied(state, event, message)
    except (ValueError, KeyError, TypeError, AttributeError):
        return state


def _applied(state: ControlState, event: ControlEvent, message: Message) -> ControlState:
    at = iso_time(message.time_ms)
    match event["type"]:
        case "policy_published":
            known = state.policies.get(event["hash"])
            if known is not None and _ORIGINS.index(known.origin) >= _ORIGINS.index(event.get("origin", "publish")):
                return state  # a document first tried, or used from a file, may be published later; never the other way
            policy = PublishedPolicy(
                event["name"],
                event["policy_version"],
                event["hash"],
                event["source"],
                event.get("origin", "publish"),
                at,
            )
            return replace(state, policies={**state.policies, policy.hash: policy})
        case "policy_activated":
            name, hash_ = event["name"], event["hash"]
            past = (*state.history.get(name, ()), hash_)
            return replace(
                state, active={**state.active, name: hash_}, history={**state.history, name: past}, latest_active=name
            )
        case "kill_switch_on":
            if any(switch.switch_id == event["switch_id"] for switch in state.switches):
                return state  # sent twice: the first holds
            switch = KillSwitch(
                event["switch_id"],
                {k: str(v) for k, v in event.get("scope", {}).items()},
                event.get("why", ""),
                event["actor"],
                at,
            )
            return replace(state, switches=(*state.switches, switch))
        case "kill_switch_off":
            left = tuple(s for s in state.switches if s.switch_id != event["switch_id"])
            return replace(state, switches=left)
        case "policy_shadowed":
            shadow = ShadowedPolicy(
                event["name"],
                event["policy_version"],
                event["hash"],
                event["instead_of"],
                event.get("why", ""),
                event["actor"],
                message.time_ms,
            )
            return replace(state, shadows={shadow.hash: shadow, **state.shadows})
        case "policy_unshadowed":
            return replace(state, shadows={h: s for h, s in state.shadows.items() if h != event["hash"]})
        case "memory_switched":
            chosen, was = _choice(event["memory"]), _choice(event["was"])
            memories = {was.vectoriser_id: was, **state.memories, chosen.vectoriser_id: chosen}
            return replace(state, memory=chosen, memories=memories)
        case _:
            return state


def _choice(said: SwitchedMemory) -> MemoryChoice:
    profile = MemoryProfile.from_dict(said["profile"]) if "profile" in said else None
    canonical = None if profile is None else encode(profile.as_dict()).decode()
    choice = MemoryChoice(said["embedder"], said["vectoriser_id"], canonical)
    if not (isinstance(choice.embedder, str) and isinstance(choice.vectoriser_id, str)):
        raise TypeError("a memory is named by two strings")
    return choice


def read_control(log: Log, state: ControlState | None = None) -> ControlState:
    """Read control to its end, from a state on."""
    state = state or ControlState()
    while True:
        messages = log.read(CONTROL, 0, state.position)
        if not messages:
            return state
        for message in messages:
            state = apply_control(state, message)


def publish_event(policy: CompiledPolicy, actor: str, origin: str) -> Append:
    """The control event that publishes a policy document by its hash."""
    event = {
        "type": "policy_published",
        "actor": actor,
        "name": policy.name,
        "policy_version": policy.version,
        "hash": policy.policy_hash,
        "source": policy.source.decode("utf-8"),
        "origin": origin,
    }
    return Append(CONTROL, encode(event))


def control_append(event: Mapping[str, Any]) -> Append:
    """Any other control event."""
    return Append(CONTROL, encode(event))


def check_publishable(state: ControlState, policy: CompiledPolicy) -> None:
    """Refuse the same name@version with another content. Raises `PolicyConflict`."""
    for other in state.policies.values():
        same = (other.name, other.version) == (policy.name, policy.version)
        if same and other.hash != policy.policy_hash and other.origin == "publish":
            raise PolicyConflict(
                f"`{policy.name}@{policy.version}` is published with another content (`{other.hash}`)",
                help="give the changed policy a new version",
            )


def previous_policy(state: ControlState, name: str) -> PublishedPolicy:
    """The policy that was active before the present one. Raises `NotFound`."""
    past = state.history.get(name, ())
    current = state.active.get(name)
    for hash_ in reversed(past):
        if hash_ != current:
            return state.policies[hash_]
    raise NotFound(f"policy `{name}` has no earlier activation to roll back to")


def all_valid(sources: Iterable[tuple[bytes, str]]) -> list[CompiledPolicy]:
    """Load several candidates, reporting the problems of all. Raises `PolicyInvalid`."""
    policies, problems = [], []
    for source, name in sources:
        try:
            policies.append(load_policy(source, name=name))
        except PolicyInvalid as error:
            problems.extend(error.problems)
    if problems:
        raise PolicyInvalid(problems)
    return policies
