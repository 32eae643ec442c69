"""Backfills: past decisions held against a new policy or a new agent, and what differs written into the ledger.

A job is settled before the first decision is read, and its findings are kept in the home: what is written is what was
shown, and a job that was broken off goes on where it was.
"""

from __future__ import annotations

import json
import re
import uuid
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import IO, Any

import orjson

from lumyn import __version__
from lumyn.agent_outputs import Agent, NoOutput, OutputsFile, agent_of, shown_name
from lumyn.backtest_plan import Plan, outcomes_of, source_of
from lumyn.backtesting import check_found, make_evaluator, parts, report_of
from lumyn.collector import collector_paused
from lumyn.exporting import write_whole
from lumyn.home import Home
from lumyn.label_jobs import FOLDER
from schemas.canonical import decode_trusted
from schemas.errors import IntegrityError, NotFound, StorageUnavailable, UsageError
from schemas.ids import iso_time
from schemas.ledger import Contender, Contested, LedgerEvent
from streams.backfill.actions import contested_action
from streams.backfill.figures import SCHEMA, Reversibility, figures_of
from streams.backtest.case import Case
from streams.backtest.run import Run
from streams.backtest.tally import Tally
from streams.ledger import read_ledger, write_contested
from streams.statistics.proportions import wilson_interval

_NAME = re.compile(r"backfill-[0-9a-f]{12}")
GIVEN = "(given)"
"""Stands for a query, which may name a person."""
Tick = Callable[[int], None]


@dataclass(slots=True)
class Backfill:
    """A job: what was asked (`how`: against what, and how it is asked), and its summary once all was compared."""

    plan: Plan
    how: dict[str, Any]
    epoch: str
    name: str = field(default_factory=lambda: f"backfill-{uuid.uuid4().hex[:12]}")
    summary: dict[str, Any] | None = None

    @property
    def is_policy(self) -> bool:
        """Whether it is our decisions that are contested, not the agent's."""
        return bool(self.how["kind"] == "policy")

    def against(self) -> Contender:
        """What the ledger says of it."""
        if self.is_policy:
            (policy,) = self.plan.candidates()
            return {"kind": "policy", "name": f"{policy.name}@{policy.version}", "digest": policy.policy_hash}
        return {"kind": self.how["kind"], "name": shown_name(self.how), "digest": self.how["digest"]}

    def save(self, home: Home) -> None:
        """Raises `StorageUnavailable`."""
        path = _file(home, self.name, "json")
        with suppress(OSError):  # writing tells
            path.parent.mkdir(parents=True, exist_ok=True)
        kept = {"lumyn": __version__, "epoch": self.epoch, "how": self.how, "plan": self.plan.as_dict()}
        write_whole(path, orjson.dumps(kept | {"summary": self.summary}, option=orjson.OPT_NON_STR_KEYS))

    def found(self, home: Home) -> Iterator[Contested]:
        """What differs, in the order in which it was found. Raises `StorageUnavailable`, `IntegrityError`."""
        for line in _lines(_file(home, self.name, "jsonl")).values():
            if line["contested"] is not None:
                yield line["contested"]


def load(home: Home, name: str) -> Backfill:
    """A job of this home and tenant. Raises `NotFound`, `UsageError`, `StorageUnavailable`."""
    if not _NAME.fullmatch(name):
        raise UsageError(f"`{name}` is no backfill", help="such as backfill-0123456789ab")
    path = _file(home, name, "json")
    try:
        kept = decode_trusted(path.read_bytes())
        plan = Plan.from_dict(kept["plan"], None)
    except FileNotFoundError:
        raise NotFound(f"no backfill `{name}` was begun in this home", where=str(path)) from None
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise StorageUnavailable(f"the job can't be read: {error}", where=str(path)) from None
    if plan.fixed.tenant != home.settings.tenant:
        raise NotFound(f"no backfill `{name}` was begun for this tenant")
    if kept["epoch"] != home.log.epoch:
        raise UsageError("it was begun on another log: begin anew", where=str(path))
    if kept["lumyn"] != __version__:
        raise UsageError(f"it was begun by Lumyn {kept['lumyn']}, and this is {__version__}: begin anew")
    return Backfill(plan, kept["how"], kept["epoch"], name, kept["summary"])


def _file(home: Home, name: str, kind: str) -> Path:
    return home.path / FOLDER / f"{name}.{kind}"


def _lines(path: Path) -> dict[str, dict[str, Any]]:
    """The findings by decision; the last of each counts, and a line that was cut by a kill is none."""
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        return {}
    except OSError as error:
        raise StorageUnavailable(f"can't be read: {error.strerror or error}", where=str(path)) from None
    whole, _, _ = data.rpartition(b"\n")
    found = {}
    for line in whole.splitlines():
        with suppress(ValueError):  # a cut line that a later run began its own line after
            one = decode_trusted(line)
            found[one["decision_id"]] = one
    return found


def size(job: Backfill) -> int:
    """How much there is to read: record offsets."""
    return sum(stretch.end - stretch.start for stretch in job.plan.fixed.stretches)


def evaluate(home: Home, job: Backfill, tick: Tick) -> None:
    """Compare all that is left, and keep the findings. Raises `LumynError`; what was found until then is kept."""
    if job.summary is None:
        job.summary = _by_policy(home, job, tick) if job.is_policy else _by_agent(home, job, tick)
        if job.plan.asked.query is not None:  # it is not needed any more, and may name a person
            job.plan = replace(job.plan, asked=replace(job.plan.asked, query=GIVEN))
        job.save(home)


def _by_policy(home: Home, job: Backfill, tick: Tick) -> dict[str, Any]:
    """One pass as in a backtest; nothing is asked of anybody, so one that was broken off begins again."""
    plan, run = job.plan, Run([Tally()])
    source = source_of(plan.asked, plan.fixed.stretches, home)
    path = _file(home, job.name, "jsonl")
    with _opened(path, "wb") as file, collector_paused():
        for stretch, part in parts(plan, source, plan.fixed.stretches, home):
            run.add(stretch, part)
            for note in part.notes:
                _write(file, {"decision_id": note["decision_id"], "result": "differs", "contested": note})
            tick(stretch.end - stretch.start)
    report = report_of(plan, run, source, home)
    candidate = report["candidates"][0]
    errors = dict(candidate["coverage"]["errors"])
    unexplained = errors.pop("unexplained", 0)
    not_compared = dict(Counter(report["range"]["refused"]) + Counter(errors))
    if candidate["coverage"]["out_of_policy"]:
        not_compared["asks for another policy"] = candidate["coverage"]["out_of_policy"]
    return {
        "range": _range(run),
        "compared": candidate["compared"],
        "rate": {name: candidate["flips"][name] for name in ("rate", "lower", "upper")},
        "other_reasons": candidate["other_reasons"],
        "causes": candidate["causes"],
        "not_compared": not_compared,
        "named": [*report["range"]["named"], *candidate["coverage"]["named"]][:10],
        "unsound": bool(unexplained or report["range"]["refused"].get("integrity")),
    }


def _range(run: Run) -> dict[str, Any]:
    seen = run.seen
    return {
        "first": None if seen.first_ms is None else iso_time(seen.first_ms),
        "last": None if seen.last_ms is None else iso_time(seen.last_ms),
        "decisions": seen.taken,
        "root": run.root.text(),
    }


def _by_agent(home: Home, job: Backfill, tick: Tick) -> dict[str, Any]:
    """Ask the agent about each decision, several at once. What it answered is not asked again when it is resumed."""
    plan, run = job.plan, Run([])
    agent, digest = agent_of(job.how)
    if digest != job.how["digest"]:
        raise UsageError("the outputs are not what they were when this was begun", where=job.how["name"])
    source = source_of(plan.asked, plan.fixed.stretches, home)
    evaluator = make_evaluator(plan, outcomes_of(plan, home), home)
    path = _file(home, job.name, "jsonl")
    known = {name for name, one in _lines(path).items() if one["result"] in ("same", "differs")}
    met = 0
    with _opened(path, "ab") as file, _Asking(job, agent) as pool:
        if file.tell():
            file.write(b"\n")  # after a line that a kill cut
        for stretch in plan.fixed.stretches:
            cases, part = evaluator.cases(source.read(stretch))
            run.add(stretch, part)
            met += sum(1 for case in cases if _has_output(agent, case))
            left = [case for case in cases if case.seen.decision_id not in known]
            for line in pool(left):
                _write(file, line)
                file.flush()
            tick(stretch.end - stretch.start)
    check_found(run)
    results = Counter(one["result"] for one in _lines(path).values())
    compared = results["same"] + results["differs"]
    told: dict[str, Any] = {
        "range": _range(run),
        "compared": compared,
        "rate": _rate(results["differs"], compared),
        "not_compared": dict(Counter(run.seen.refused))
        | {kind: n for kind, n in sorted(results.items()) if kind not in ("same", "differs")},
        "named": [{"kind": kind, "place": place, "message": why} for kind, place, why in run.seen.named[:10]],
        "unsound": bool(run.seen.refused["integrity"]),
    }
    if isinstance(agent, OutputsFile):
        told["outputs_of_no_decision"] = len(agent) - met
    return told


def _has_output(agent: Agent, case: Case) -> bool:
    return isinstance(agent, OutputsFile) and case.seen.decision_id in agent


def _rate(part: int, whole: int) -> dict[str, Any]:
    if not whole:
        return {"rate": None, "lower": 0.0, "upper": 1.0}
    found = wilson_interval(part, whole)
    return {"rate": part / whole, "lower": found.lower, "upper": found.upper}


class _Asking:
    """Threads that ask the agent; at the end of the block, however it comes, nothing of the agent runs any more."""

    def __init__(self, job: Backfill, agent: Agent) -> None:
        self._agent, self._compare = agent, tuple(job.how["compare"])
        self._parallel = job.how["parallel"]
        self._pool = ThreadPoolExecutor(self._parallel)

    def __enter__(self) -> Callable[[Iterable[Case]], Iterator[dict[str, Any]]]:
        return self._lines

    def __exit__(self, *_: object) -> None:
        self._agent.stop()
        self._pool.shutdown(cancel_futures=True)

    def _lines(self, cases: Iterable[Case]) -> Iterator[dict[str, Any]]:
        """A line a decision, as the answers come."""
        waiting: set[Future[dict[str, Any]]] = set()
        for case in cases:
            waiting.add(self._pool.submit(self._line, case))
            if len(waiting) >= 2 * self._parallel:
                done, waiting = wait(waiting, return_when=FIRST_COMPLETED)
                yield from (one.result() for one in done)
        while waiting:
            done, waiting = wait(waiting, return_when=FIRST_COMPLETED)
            yield from (one.result() for one in done)

    def _line(self, case: Case) -> dict[str, Any]:
        name = case.seen.decision_id
        try:
            now = self._agent.ask(name, case.seen.request)
            contested = contested_action(case, now, self._compare)
        except NoOutput as error:
            return {"decision_id": name, "result": error.kind, "contested": None}
        return {"decision_id": name, "result": "same" if contested is None else "differs", "contested": contested}


def _opened(path: Path, mode: str) -> IO[bytes]:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        return path.open(mode)
    except OSError as error:
        raise StorageUnavailable(f"can't be written: {error.strerror or error}", where=str(path)) from None


def _write(file: IO[bytes], line: dict[str, Any]) -> None:
    try:
        file.write(json.dumps(line).encode() + b"\n")
    except OSError as error:
        raise StorageUnavailable(f"the findings can't be kept: {error.strerror or error}") from None


def report(home: Home, job: Backfill, reversibility: Reversibility) -> dict[str, Any]:
    """What differs, which way, how much money, who is affected, what can be taken back; and what is settled."""
    assert job.summary is not None
    ledger, asked = read_ledger(home.log, home.settings.tenant), job.plan.asked
    written = ledger.backfills.get(job.name)
    told = {"from": asked.start, "to": asked.end, "query": asked.query, "limit": asked.limit}
    summary = {name: value for name, value in job.summary.items() if name != "range"}
    return {
        "schema": SCHEMA,
        "job": job.name,
        "written": written is not None and written.whole,
        "range": {**job.summary["range"], "asked": told},
        "against": job.against(),
        **summary,
        **figures_of(job.found(home), reversibility),
        "states": dict(sorted(ledger.states(job.name).items())),
    }


def write(home: Home, job: Backfill, why: str, tick: Tick) -> int:
    """Write what differs into the ledger, or what is missing of it; returns how many entries were added."""
    assert job.summary is not None
    asked, found = job.plan.asked, job.summary["range"]
    begun: LedgerEvent = {
        "type": "backfill_begun",
        "event_id": job.name,
        "tenant": home.settings.tenant,
        "actor": home.settings.actor,
        "job": job.name,
        "why": why,
        "range": {
            "asked": {"from": asked.start, "to": asked.end, "query": asked.query, "limit": asked.limit},
            "first": found["first"],
            "last": found["last"],
            "decisions": found["decisions"],
            "root": found["root"],
        },
        "against": job.against(),
    }
    _check_same(home, job, begun)
    return write_contested(home.log, begun, job.found(home), tick)


def _check_same(home: Home, job: Backfill, begun: LedgerEvent) -> None:
    """What stands in the ledger under the job's name must be this job. Raises `IntegrityError`."""
    there = read_ledger(home.log, home.settings.tenant).backfills.get(job.name)
    if there is not None and any(there.begun.get(name) != begun.get(name) for name in ("range", "against")):
        raise IntegrityError(f"the ledger holds another backfill `{job.name}`", help="begin anew")
