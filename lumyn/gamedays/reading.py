"""Reading a scenario: all that is wrong with it is said at once, each with its line and column."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from lumyn.documents import ANY, read_document
from lumyn.gamedays.expectations import expected_of
from lumyn.gamedays.scenario import FAULTS, STEPS, During, Expected, Fault, Replayed, Scenario, Step
from lumyn.gamedays.values import Values
from schemas.digests import digest
from schemas.errors import ScenarioInvalid
from streams.policy.findings import Mark
from streams.policy.read import Fields, Unreadable, choice, each, fields_of
from streams.policy.source import Entries, Node, Scalar
from streams.policy.suggest import did_you_mean, listed, quoted

VERSION: Final = 1
_TOP = (
    "gameday", "name", "why", "incident", "replay", "policy", "memory", "clock", "faults", "steps", "expect",
)  # fmt: skip
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9 _.:-]{0,99}")
_INCIDENT = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,63}")
_TIME = re.compile(r"[0-9:. TZ+-]{1,40}", re.ASCII)
_RANGED = ("from", "to", "name")
_OPTIONS: Mapping[str, tuple[str, ...]] = {
    "qdrant_down": _RANGED,
    "slow_memory": (*_RANGED, "by"),
    "stale_control": _RANGED,
    "traffic": (*_RANGED, "times"),
    "duplicate_delivery": _RANGED,
    "clock_jump": ("at", "name", "by"),
    "memory_poisoned": ("at", "name", "share", "labeller", "of"),
}
_NEEDED: Mapping[str, tuple[str, ...]] = {
    "slow_memory": ("by",),
    "traffic": ("times",),
    "clock_jump": ("at", "by"),
    "memory_poisoned": ("at", "labeller"),
}
_LABELS = ("failure", "success", "retracted")
_SHOULD = ("ALLOW", "DENY", "ESCALATE")


def read_scenario(path: Path) -> Scenario:
    """A scenario from its file. Raises `ScenarioInvalid` with every problem, `NotFound`, `StorageUnavailable`."""
    return read_document(
        path,
        "scenario",
        lambda root, out, source: _Reading(out).scenario(root, path, digest(source)),
        invalid=ScenarioInvalid,
        help="`lumyn gameday from-incident` writes one",
    )


class _Reading(Values):
    def scenario(self, root: Node, path: Path, named: str) -> Scenario:
        out = self._out
        fields = fields_of(root, "a scenario", _TOP, out)
        version = each(fields, "gameday", lambda node: self.whole(node, "`gameday`"))
        if version != VERSION:
            out.error(fields.mark_of("gameday"), f"a scenario says `gameday: {VERSION}`, the version of its form")
        replay = fields.get("replay")
        if replay is None:
            out.error(fields.mark, "`replay` is missing: which requests are decided again")
        replayed = each(fields, "replay", self._replay) or Replayed()
        faults = each(fields, "faults", lambda node: self.listed(node, "`faults`", self._fault)) or ()
        steps = each(fields, "steps", lambda node: self.listed(node, "`steps`", self._step)) or ()
        self._unlike(faults, "fault")
        self._unlike(steps, "step")
        self._one_way(faults)
        expected = each(fields, "expect", lambda node: self._expected(node, faults, steps)) or ()
        if not expected and not out.failed:
            out.error(fields.mark_of("expect"), "`expect` is missing or empty: a game day proves what must hold")
        return Scenario(
            path=path,
            digest=named,
            name=each(fields, "name", lambda node: self.text(node, "`name`", _NAME, "a short name")) or path.stem,
            why=each(fields, "why", lambda node: self.text(node, "`why`", ANY, "text")) or "",
            incident=each(fields, "incident", lambda node: self.text(node, "`incident`", _INCIDENT, "an incident")),
            replay=replayed,
            policy=each(fields, "policy", lambda node: self.text(node, "`policy`", ANY, "`active`, or a file")),
            memory=each(fields, "memory", lambda node: self.text(node, "`memory`", ANY, "a file")) or "now",
            clock=each(fields, "clock", lambda node: self.text(node, "`clock`", _TIME, "a time")),
            faults=faults,
            steps=steps,
            expected=expected,
        )

    def _replay(self, node: Node) -> Replayed:
        out = self._out
        fields = fields_of(node, "`replay`", ("from", "to", "query", "limit", "packs", "file"), out)
        packs = each(fields, "packs", self.words) or ()
        found = Replayed(
            start=each(fields, "from", lambda one: self.text(one, "`from`", ANY, "a time or a position")),
            end=each(fields, "to", lambda one: self.text(one, "`to`", ANY, "a time or a position")),
            query=each(fields, "query", lambda one: self.text(one, "`query`", ANY, "a query")),
            limit=each(fields, "limit", lambda one: self.whole(one, "`limit`")),
            packs=packs,
            file=each(fields, "file", lambda one: self.text(one, "`file`", ANY, "a file")),
            mark=node.mark,
        )
        if not fields.found:
            out.error(node.mark, "`replay` is empty: name `packs`, a `file`, or `from`, `to` or `query` of the log")
        if packs and found.file is not None:
            out.error(fields.mark_of("file"), "`packs` and `file` exclude each other")
        if (packs or found.file is not None) and (found.start is not None or found.end is not None):
            out.error(node.mark, "`from` and `to` are for the log; a file or packs take `query` and `limit`")
        if found.limit is not None and found.limit < 1:
            out.error(fields.mark_of("limit"), "`limit` is 1 at the least")
        return found

    def _only(
        self, node: Node, what: str, known: tuple[str, ...], beside: tuple[str, ...] = ()
    ) -> tuple[Scalar, Node, Fields]:
        """The one key of an item that says its kind, its value, and what stands beside it."""
        if not isinstance(node, Entries):
            self._out.error(node.mark, f"{what} is a mapping such as `{known[0]}: ...`; there are {listed(known)}")
            raise Unreadable
        kinds = [(key, value) for key, value in node.entries if key.text in known]
        rest = tuple((key, value) for key, value in node.entries if key.text not in known)
        for key, _ in rest:
            if key.text not in beside:
                hint = did_you_mean(key.text, (*known, *beside)) or f"; {what} has {listed((*known, *beside))}"
                self._out.error(key.mark, f"unknown key {quoted(key.text)}{hint}")
        if len(kinds) != 1:
            if kinds or not rest or all(key.text in beside for key, _ in rest):
                self._out.error(node.mark, f"{what} names one of {listed(known)}")
            raise Unreadable
        below = Fields({key.text: (key, value) for key, value in rest if key.text in beside}, node.mark)
        return *kinds[0], below

    def _fault(self, node: Node) -> Fault:
        out = self._out
        key, value, _ = self._only(node, "a fault", FAULTS)
        kind = key.text
        if kind == "traffic" and isinstance(value, Scalar):
            return Fault(kind, kind, During(), {"times": self.times(value)}, key.mark)
        if isinstance(value, Scalar) and value.plain and value.text == "always" and "from" in _OPTIONS[kind]:
            return Fault(kind, kind, During(), {}, key.mark)
        fields = fields_of(value, f"`{kind}`", _OPTIONS[kind], out)
        options: dict[str, Any] = {}
        for name in _OPTIONS[kind]:
            if name in fields.found and name not in (*_RANGED, "at"):
                options[name] = each(fields, name, lambda one, n=name: self._option(one, n))  # type: ignore[misc]
        for name in _NEEDED.get(kind, ()):
            if name not in fields.found:
                out.error(key.mark, f"`{kind}` needs `{name}`")
        at = each(fields, "at", lambda one: self.at(one)) if "at" in _OPTIONS[kind] else None
        during = During(at) if at is not None else self._during(fields)
        return Fault(kind, self._name(fields) or kind, during, options, key.mark)

    def _option(self, node: Node, name: str) -> Any:
        if name == "times":
            return self.times(node)
        if name == "by":
            return self.span(node)
        if name == "of":
            return choice(node, "`of`", ("remembered", "decided"), self._out)
        if name == "share":
            return self.share(node, "`share`")
        return self.text(node, f"`{name}`", _NAME, "a labeller's name")

    def _step(self, node: Node) -> Step:
        out = self._out
        key, value, beside = self._only(node, "a step", STEPS, ("at", "name"))
        at = each(beside, "at", self.at)
        if "at" not in beside.found:
            out.error(key.mark, "a step needs `at`, the number of the request before which it is taken")
        options: dict[str, Any] = {}
        match key.text:
            case "kill_switch_on":
                known = ("action_type", "policy", "tenant", "why")
                fields = fields_of(value, "`kill_switch_on`", known, out)
                for name in known:
                    text = each(fields, name, lambda one, n=name: self.text(one, f"`{n}`", ANY, "text"))  # type: ignore[misc]
                    if text is not None:
                        options[name] = text
            case "kill_switch_off":
                options["of"] = self.text(value, "`kill_switch_off`", _NAME, "the name of a switch's step")
            case "policy":
                options["file"] = self.text(value, "`policy`", ANY, "a file")
            case "label":
                fields = fields_of(value, "`label`", ("request", "label", "should", "summary", "by"), out)
                options["request"] = each(fields, "request", self.request)
                options["label"] = each(fields, "label", lambda one: choice(one, "`label`", _LABELS, out))
                options["should"] = each(fields, "should", lambda one: choice(one, "`should`", _SHOULD, out))
                summary = each(fields, "summary", lambda one: self.text(one, "`summary`", ANY, "text"))
                options["summary"] = summary or ""
                options["by"] = each(fields, "by", lambda one: self.text(one, "`by`", _NAME, "a labeller's name"))
                for name in ("request", "label"):
                    if name not in fields.found:
                        out.error(key.mark, f"`label` needs `{name}`")
        return Step(key.text, self._name(beside) or key.text, at or 1, options, key.mark)

    def _expected(self, node: Node, faults: tuple[Fault, ...], steps: tuple[Step, ...]) -> tuple[Expected, ...]:
        named = {fault.name: fault.during for fault in faults}
        switches = tuple(step.name for step in steps if step.kind == "kill_switch_on")

        def read(item: Node) -> Expected:
            return expected_of(item, named, switches, self._during, self.request, self._out)

        return self.listed(node, "`expect`", read)

    def _during(self, fields: Fields) -> During:
        first = each(fields, "from", self.at) or 1
        last = each(fields, "to", self.at)
        if last is not None and last < first:
            self._out.error(fields.mark_of("to"), f"`to` is before `from`, request {first}")
        return During(first, last)

    def _name(self, fields: Fields) -> str | None:
        return each(fields, "name", lambda one: self.text(one, "`name`", _NAME, "a short name"))

    def _unlike(self, items: tuple[Any, ...], what: str) -> None:
        seen: dict[str, Mark] = {}
        for one in items:
            if one.name in seen:
                self._out.error(one.mark, f"two {what}s are called `{one.name}`; give one another `name`")
            seen[one.name] = one.mark

    def _one_way(self, faults: tuple[Fault, ...]) -> None:
        """Two of a kind at the same time would be one."""
        for at, one in enumerate(faults):
            for other in faults[:at]:
                meet = one.during.holds(other.during.first) or other.during.holds(one.during.first)
                if one.kind == other.kind and "from" in _OPTIONS[one.kind] and meet:
                    self._out.error(one.mark, f"`{one.kind}` overlaps with that on line {other.mark.line}")
