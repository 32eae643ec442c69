"""Reading a runbook's file: all that is wrong with it is said at once, each with its line and column."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from importlib import resources
from pathlib import Path

from lumyn.documents import Reader, read_document
from lumyn.durations import parse_duration
from lumyn.runbooks.book import ALLOWED, GIVEN, NAME, PLACEHOLDER, Runbook, Step, Wait, effect_of
from schemas.errors import NotFound, RunbookInvalid, UsageError
from streams.policy.findings import Findings
from streams.policy.read import Fields, Unreadable, choice, each, fields_of, flag, items_of, word
from streams.policy.source import Entries, Node
from streams.policy.suggest import did_you_mean, listed, quoted

FOLDER = "runbooks"
_TOP = ("runbook", "title", "steps")
_STEP = (
    "id", "say", "ask", "choices", "default", "confirm", "command", "wait_until", "expect", "keep", "link", "when",
    "unless", "with_incident",
)  # fmt: skip
_ACTS = ("ask", "confirm", "command", "wait_until")
_LINKS = ("kill-switch", "policy", "job", "rate", "watch", "decision", "pack", "backtest")


def runbooks(home: Path | None) -> Iterator[tuple[str, Path]]:
    """(name, file) of the shipped runbooks, and of those in the home's `runbooks` folder, which come before.

    `home` None: the shipped ones alone.
    """
    found: dict[str, Path] = {}
    shipped = resources.files("lumyn.runbooks") / "books"
    for folder in (Path(str(shipped)), *([home / FOLDER] if home is not None else [])):
        found |= {path.stem: path for path in sorted(folder.glob("*.yml"))}
    yield from sorted(found.items())


def runbook_named(name: str, home: Path) -> Runbook:
    """A runbook by its name, or by its file's path. Raises `NotFound`, `RunbookInvalid`."""
    known = dict(runbooks(home))
    path = known.get(name)
    if path is None and not name.endswith((".yml", ".yaml")):
        near = did_you_mean(name[:64], known)
        raise NotFound(f"no runbook {quoted(name[:64])}{near}", help="`lumyn runbook list` shows them; or give a file")
    return read_runbook(path or Path(name))


def read_runbook(path: Path) -> Runbook:
    """A runbook from its file. Raises `RunbookInvalid` with every problem, `NotFound`, `StorageUnavailable`."""
    return read_document(
        path, "runbook", lambda root, out, _: _Reading(out).book(root, str(path)), invalid=RunbookInvalid
    )


class _Reading(Reader):
    def __init__(self, out: Findings) -> None:
        super().__init__(out)
        self._known: set[str] = set(GIVEN)
        self._ids: set[str] = set()

    def book(self, root: Node, where: str) -> Runbook:
        top = fields_of(root, "a runbook", _TOP, self._out)
        for needed in _TOP:
            if top.get(needed) is None:
                self._out.error(top.mark, f"`{needed}` is missing")
        name = each(top, "runbook", lambda node: self.name(node, "`runbook`"))
        title = each(top, "title", lambda node: self.text(node, "`title`"))
        steps = each(top, "steps", lambda node: self.listed(node, "`steps`", self.step)) or ()
        if not steps and top.get("steps") is not None and not self._out.failed:
            self._out.error(top.mark_of("steps"), "a runbook has at least one step")
        return Runbook(name or "", title or "", steps, where)

    def step(self, node: Node) -> Step:
        fields = fields_of(node, "a step", _STEP, self._out)
        acts = [name for name in _ACTS if fields.get(name) is not None]
        if len(acts) > 1:
            self._out.error(fields.mark_of(acts[1]), f"a step does one thing: `{acts[0]}` or `{acts[1]}`")
        if not acts and fields.get("say") is None:
            self._out.error(fields.mark, f"a step has `say` or one of {listed(_ACTS)}")
        step = Step(
            id=self.id(fields),
            say=each(fields, "say", lambda n: self.filled(n, "`say`")) or "",
            ask=each(fields, "ask", lambda n: self.filled(n, "`ask`")),
            choices=each(fields, "choices", lambda n: self.words(n, "`choices`")) or (),
            default=each(fields, "default", lambda n: self.filled(n, "`default`")),
            confirm=each(fields, "confirm", lambda n: self.filled(n, "`confirm`")),
            command=each(fields, "command", self.command) or (),
            wait=each(fields, "wait_until", self.wait),
            expect=each(fields, "expect", self.codes) or (0,),
            keep=each(fields, "keep", lambda n: self.pairs(n, "`keep`")) or {},
            link=each(fields, "link", self.links) or {},
            when=each(fields, "when", lambda n: self.condition(n, "`when`")) or {},
            unless=each(fields, "unless", lambda n: self.condition(n, "`unless`")) or {},
            with_incident=bool(each(fields, "with_incident", lambda n: flag(n, "`with_incident`", self._out))),
        )
        for name, needs in (("choices", "ask"), ("default", "ask"), ("expect", "command"), ("keep", "command")):
            if fields.get(name) is not None and fields.get(needs) is None:
                self._out.error(fields.mark_of(name), f"`{name}` goes with `{needs}`")
        if step.keep and "--json" not in step.command:
            self._out.error(fields.mark_of("keep"), "`keep` reads the command's JSON: give the command `--json`")
        if step.choices and step.default is not None and step.default not in step.choices:
            self._out.error(fields.mark_of("default"), f"{quoted(step.default)} is none of the choices")
        self._known |= {step.id} if step.ask is not None else set()
        self._known |= set(step.keep)
        return step

    def id(self, fields: Fields) -> str:
        if fields.get("id") is None:
            self._out.error(fields.mark, "a step has an `id`")
            return ""
        name = each(fields, "id", lambda n: self.name(n, "`id`")) or ""
        if name in self._ids or name in GIVEN:
            self._out.error(fields.mark_of("id"), f"`{name}` is taken already")
        self._ids.add(name)
        return name

    def filled(self, node: Node, what: str) -> str:
        text = self.text(node, what)
        for found in PLACEHOLDER.finditer(text):
            if found[1] not in self._known:
                near = did_you_mean(found[1], self._known)
                self._out.error(node.mark, f"{what}: nothing before this step gives `{{{found[1]}}}`{near}")
        return text

    def words(self, node: Node, what: str) -> tuple[str, ...]:
        return tuple(self.filled(item, what) for item in items_of(node, what, self._out))

    def command(self, node: Node) -> tuple[str, ...]:
        words = self.words(node, "`command`")
        if words[:1] == ("lumyn",):
            self._out.error(node.mark, "`command` is a command of lumyn: leave `lumyn` out")
            raise Unreadable
        if effect_of(words) is None:
            asked = " ".join(words[:2])
            names = [" ".join(name) for name in ALLOWED]
            near = did_you_mean(asked, names) or f"; allowed: {listed(names)}"
            self._out.error(node.mark, f"a runbook can't run `lumyn {asked}`{near}")
            raise Unreadable
        return words

    def wait(self, node: Node) -> Wait:
        fields = fields_of(node, "`wait_until`", ("measure", "of", "query", "at_most", "within"), self._out)
        given = [name for name in ("measure", "query") if fields.get(name) is not None]
        if len(given) != 1:
            self._out.error(fields.mark, "`wait_until` has a `measure`, or a `query` with `at_most`")
            raise Unreadable
        within_s = each(fields, "within", self.duration) or 60.0
        if given == ["query"]:
            query = each(fields, "query", lambda n: self.filled(n, "`query`")) or ""
            most = each(fields, "at_most", lambda n: self.whole(n, "`at_most`")) or 0
            return Wait("query", query, most, within_s)
        measure = each(fields, "measure", lambda n: choice(n, "`measure`", ("kill-switch", "policy"), self._out))
        of = each(fields, "of", lambda n: self.filled(n, "`of`"))
        if of is None:
            self._out.error(fields.mark, "`of` is missing: which switch or policy")
        return Wait("kill-switch" if measure == "kill-switch" else "policy", of or "", 0, within_s)

    def duration(self, node: Node) -> float:
        try:
            return parse_duration(self.text(node, "`within`"), "within")
        except UsageError as error:
            self._out.error(node.mark, error.message)
            raise Unreadable from None

    def codes(self, node: Node) -> tuple[int, ...]:
        return tuple(self.whole(item, "`expect`") for item in items_of(node, "`expect`", self._out))

    def pairs(self, node: Node, what: str) -> Mapping[str, str]:
        if not isinstance(node, Entries):
            self._out.error(node.mark, f"{what} takes a mapping")
            raise Unreadable
        return {self.name(key): self.filled(value, what) for key, value in node.entries}

    def name(self, node: Node, what: str = "a name") -> str:
        return word(node, what, NAME, "small letters, digits and `-`", self._out)

    def links(self, node: Node) -> Mapping[str, str]:
        fields = fields_of(node, "`link`", _LINKS, self._out)
        keeps = {name: pair[1] for name, pair in fields.found.items()}
        return {kind: self.text(value, "`link`") for kind, value in keeps.items()}

    def condition(self, node: Node, what: str) -> Mapping[str, str]:
        found = self.pairs(node, what)
        for name in found:
            if name not in self._known:
                near = did_you_mean(name, self._known)
                self._out.error(node.mark, f"{what}: nothing before this step gives `{name}`{near}")
        return found

