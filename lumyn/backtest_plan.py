"""What a backtest was asked, and what was fixed before its first record was read: so that it can be taken up again."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from functools import lru_cache
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal

from lumyn.collector import collector_paused
from lumyn.config import LumynConfig, Settings, read_policy_file, resolve
from lumyn.home import LOG_FILE, Home
from lumyn.replaying import check_pack
from lumyn.searching import readable
from lumyn.wiring import operator_home
from schemas.digests import digest
from schemas.errors import NotFound, StorageUnavailable, UsageError
from schemas.limits import MAX_SAFE_INTEGER
from schemas.query import parse_query
from streams.backtest.bars import Bar, parse_bar
from streams.backtest.case import reading
from streams.backtest.chosen import Chosen
from streams.backtest.memory import Mode, mode_named
from streams.backtest.outcomes import Outcomes, given_outcomes, read_outcomes
from streams.backtest.raw import Raw
from streams.backtest.select import Latest, Stratified, found_in
from streams.backtest.sources import FileSource, ListSource, LogSource, Source, Stretch, plan
from streams.control import all_valid
from streams.integrity import require
from streams.local_log import wall_clock_ms
from streams.packs import read_pack
from streams.policy import CompiledPolicy
from streams.reading import is_embedded
from streams.span import Span, check_partition, parse_span
from streams.topics import LABELS, REQUESTS

_EACH, _EACH_ASKED, _EACH_KAFKA = 4096, 1024, 20_000
"""Record offsets a stretch: where memory is asked fewer, so that figures come soon; over a network more."""


@dataclass(frozen=True, slots=True)
class Asked:
    """What the user asked for."""

    files: tuple[str, ...] = ()
    start: str | None = None
    end: str | None = None
    query: str | None = None
    limit: int | None = None
    sample: int | None = None
    seed: int = 0
    memory: str = "recorded"
    by: tuple[str, ...] = ()
    cluster: str = "subject_id"
    require: tuple[str, ...] = ()
    outcomes: str | None = None
    """A file of outcomes that go before the home's labels."""
    policies: tuple[tuple[str, str], ...] = ()
    """(name of the file, text) of each candidate."""
    kept: Literal["counts", "flips", "cases"] = "counts"
    """`flips`: each flip is noted, too, for a backfill. `cases`: no candidate is asked, only the range is settled."""

    def __post_init__(self) -> None:
        for name in ("limit", "sample", "seed"):
            if abs(getattr(self, name) or 0) > MAX_SAFE_INTEGER:
                raise UsageError(f"`--{name}` is at most 2^53-1, not {getattr(self, name)}")


@dataclass(frozen=True, slots=True)
class Fixed:
    """What was settled at the start."""

    now_ms: int
    tenant: str | None
    stretches: tuple[Stretch, ...]
    request_ends: dict[int, int]
    labels_end: int
    memory_version: int = 0
    ids: tuple[str, ...] | None = None
    since: str | None = None
    weights: dict[str, float] | None = None
    strata: dict[str, int] | None = None
    outcomes_digest: str | None = None


@dataclass(frozen=True, slots=True)
class Plan:
    """Both, and what follows from them."""

    asked: Asked
    fixed: Fixed
    config: LumynConfig | None

    @property
    def mode(self) -> Mode:
        """Which memory answers."""
        return mode_named(self.asked.memory)

    @property
    def bars(self) -> tuple[Bar, ...]:
        """What every candidate must meet."""
        return tuple(map(parse_bar, self.asked.require))

    @property
    def span(self) -> Span:
        """The part of the log."""
        return parse_span(self.asked.start, self.asked.end, now_ms=self.fixed.now_ms)

    def candidates(self) -> list[CompiledPolicy]:
        """The compiled candidates. Raises `PolicyInvalid` with the problems of all."""
        return list(_compiled(self.asked.policies))

    def chosen(self) -> Chosen:
        """Which records are taken."""
        query = parse_query(self.asked.query, now_ms=self.fixed.now_ms) if self.asked.query else None
        ids = None if self.fixed.ids is None else frozenset(self.fixed.ids)
        return Chosen(self.fixed.tenant, query, ids, self.fixed.since)

    def as_dict(self) -> dict[str, Any]:
        """JSON form."""
        fixed = asdict(self.fixed) | {
            "stretches": [list(stretch) for stretch in self.fixed.stretches],
            "request_ends": list(self.fixed.request_ends.items()),
        }
        return {"asked": asdict(self.asked), "fixed": fixed}

    @classmethod
    def from_dict(cls, value: dict[str, Any], config: LumynConfig | None) -> Plan:
        """Raises `KeyError`, `TypeError` for what `as_dict` did not make."""
        asked, fixed = dict(value["asked"]), dict(value["fixed"])
        for name in ("files", "by", "require"):
            asked[name] = tuple(asked[name])
        asked["policies"] = tuple((name, text) for name, text in asked["policies"])
        fixed["stretches"] = tuple(Stretch(*one) for one in fixed["stretches"])
        fixed["request_ends"] = dict(fixed["request_ends"])
        fixed["ids"] = None if fixed["ids"] is None else tuple(fixed["ids"])
        return cls(Asked(**asked), Fixed(**fixed), config)


def home_of(config: LumynConfig | None) -> Home | None:
    """The home, if there is one."""
    settings = resolve(config)
    there = settings.kafka is not None or (settings.home / LOG_FILE).exists()
    return operator_home(config) if there else None


def source_of(asked: Asked, stretches: Sequence[Stretch], home: Home | None) -> Source:
    """Where the decisions are read from. Raises `NotFound`, `BadPack`, `IntegrityError`."""
    if not asked.files:
        assert home is not None
        return LogSource(home.log, list(stretches))
    if _are_packs(asked):
        return ListSource([_of_pack(Path(name), home) for name in asked.files], "packs")
    return FileSource(Path(asked.files[0]))


def _are_packs(asked: Asked) -> bool:
    return all(name.endswith(".zip") for name in asked.files)


def _of_pack(path: Path, home: Home | None) -> Raw:
    """A pack's record. Raises `IntegrityError` for one that is not what it was."""
    pack = read_pack(path)
    require(check_pack(pack, settings_home=None if home is None else home.path), where=str(path))
    return Raw(str(path), None, None, 0, pack.record_bytes)


@lru_cache(maxsize=2)
def _compiled(policies: tuple[tuple[str, str], ...]) -> tuple[CompiledPolicy, ...]:
    """Kept, as every step of a backtest asks: one of very many rules takes seconds to compile."""
    with collector_paused():
        return tuple(all_valid((text.encode("utf-8", "surrogateescape"), name) for name, text in policies))


def policies_of(asked: Asked, home: Home | None) -> dict[str, bytes]:
    """The policy documents of then, by hash, from the control topic and from packs."""
    found: dict[str, bytes] = {}
    if home is not None:
        found = {hash_: one.source.encode() for hash_, one in home.agent.control().policies.items()}
    if _are_packs(asked):
        for name in asked.files:
            pack = read_pack(Path(name))
            found[pack.record["policy"]["hash"]] = pack.policy_source
    return found


def make_plan(
    asked: Asked,
    config: LumynConfig | None,
    say: Callable[[str], None],
    watch: Callable[[str, int], Callable[[int], None]],
) -> Plan:
    """Check all that was asked, and settle the range, before a record is read. Raises `LumynError`.

    `watch` begins a progress bar of a name and size, and gives what moves it.
    """
    if find_spec("scipy") is None:
        import_module("streams.statistics")  # says so now, not when the range was read
    settings, now_ms = resolve(config), wall_clock_ms()
    home = home_of(config)
    if asked.kept != "cases":
        asked = replace(asked, policies=asked.policies or _default_policy(home, settings))
    draft = Plan(asked, Fixed(now_ms, None, (), {}, 0), config)
    _ = draft.mode, draft.bars, draft.span, reading(asked.by, asked.cluster), draft.candidates()
    chosen = draft.chosen()
    if chosen.query is not None:
        say(f"query: {readable(chosen.query)}")
    if asked.files:
        fixed = _of_files(asked, home, now_ms)
    else:
        fixed = _of_log(draft, _there(home, settings), now_ms)
    if draft.mode in ("as-of", "current"):
        there = _there(home, settings)
        version = there.memory.version()  # before the labels' end, which then holds all that this memory does
        fixed = replace(fixed, memory_version=version, labels_end=there.log.end(LABELS, 0))
    if asked.outcomes is not None:
        fixed = replace(fixed, outcomes_digest=digest(_file(asked.outcomes)))
    return _narrowed(Plan(asked, fixed, config), home, watch)


def _there(home: Home | None, settings: Settings) -> Home:
    if home is None:
        raise NotFound(
            "there are no decisions here yet",
            where=str(settings.home / LOG_FILE),
            help="LUMYN_HOME names another home; or give a data set or packs",
        )
    return home


def _default_policy(home: Home | None, settings: Settings) -> tuple[tuple[str, str], ...]:
    """Without `--policy`: the active policy, else the configured file's."""
    active = home.agent.control().active_policy(None) if home is not None else None
    if active is not None:
        return ((f"{active.name}.yml", active.source),)
    if settings.policy_path is not None:
        return (candidate_file(settings.policy_path),)
    raise UsageError("which policy? none is active here", help="give the candidates: `--policy FILE`, several times")


def candidate_file(path: Path) -> tuple[str, str]:
    """A candidate's name and text. Raises `NotFound`, `BadConfig`."""
    return str(path), read_policy_file(path).decode("utf-8", "surrogateescape")


def _of_files(asked: Asked, home: Home | None, now_ms: int) -> Fixed:
    if asked.start is not None or asked.end is not None:
        raise UsageError("`--from` and `--to` are for the log", help="`--query \"created_at >= '2024-12-19'\"`")
    if len(asked.files) > 1 and not _are_packs(asked):
        raise UsageError("give one data set, or packs", help="`lumyn export --limit 1000 --out decisions.jsonl`")
    stretches = source_of(asked, (), home).stretches()
    if not stretches:
        raise UsageError("there is no record in it", where=asked.files[0])
    labels = home.log.end(LABELS, 0) if home is not None else 0
    return Fixed(now_ms, None, tuple(stretches), {}, labels)


def _of_log(draft: Plan, home: Home, now_ms: int) -> Fixed:
    log, span = home.log, draft.span
    check_partition(log, span)
    each = _EACH_ASKED if draft.mode in ("as-of", "current") else _EACH if is_embedded(log) else _EACH_KAFKA
    ends = {partition: log.end(REQUESTS, partition) for partition in range(log.partitions(REQUESTS))}
    stretches = plan(log, span, each)
    if not stretches:
        raise UsageError("no decision lies in this range", help="`lumyn list --limit 5` shows the latest")
    return Fixed(now_ms, home.settings.tenant, tuple(stretches), ends, log.end(LABELS, 0))


def outcomes_of(plan: Plan, home: Home | None) -> Outcomes:
    """What became of the decisions, as it stood at the start. Raises `BadInput`, `UsageError`, `NotFound`."""
    given = {}
    if plan.asked.outcomes is not None:
        data = _file(plan.asked.outcomes)
        if digest(data) != plan.fixed.outcomes_digest:
            raise UsageError("the outcomes are not what they were when this was begun", where=plan.asked.outcomes)
        given = given_outcomes(data, plan.asked.outcomes)
    if home is None or not plan.fixed.labels_end:
        return Outcomes(given=given)
    return read_outcomes(home.log, plan.fixed.tenant, plan.fixed.labels_end, given)


def _file(name: str) -> bytes:
    try:
        return Path(name).read_bytes()
    except FileNotFoundError:
        raise NotFound("no such file of outcomes", where=name) from None
    except OSError as error:
        raise StorageUnavailable(f"can't be read: {error.strerror or error}", where=name) from None


def _narrowed(plan: Plan, home: Home | None, watch: Callable[[str, int], Callable[[int], None]]) -> Plan:
    """With `--limit` or `--sample` the ids that are taken: one more reading of the range, without evaluating."""
    asked = plan.asked
    if asked.limit is None and asked.sample is None:
        return plan
    if asked.limit is not None and asked.sample is not None:
        raise UsageError("give `--limit` or `--sample`, not both")
    source = source_of(asked, plan.fixed.stretches, home)
    chosen, outcomes = plan.chosen(), outcomes_of(plan, home)
    tick = watch("choosing", sum(stretch.end - stretch.start for stretch in plan.fixed.stretches))
    latest, sample = Latest(asked.limit or 0), Stratified(asked.sample or 0, asked.seed)
    for name, verdict in found_in(_raws(source, plan.fixed.stretches, tick), chosen, outcomes):
        if asked.limit is not None:
            latest.add(name)
        else:
            sample.add(name, verdict)
    if asked.limit is not None:
        return replace(plan, fixed=replace(plan.fixed, since=latest.of(chosen).since))
    narrowed, weights = sample.of(chosen)
    ids = tuple(sorted(narrowed.ids or ()))
    return replace(plan, fixed=replace(plan.fixed, ids=ids, weights=weights, strata=dict(sample.sizes)))


def _raws(source: Source, stretches: Sequence[Stretch], tick: Callable[[int], None]) -> Iterator[Raw]:
    for stretch in stretches:
        yield from source.read(stretch)
        tick(stretch.end - stretch.start)
