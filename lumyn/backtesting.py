"""Running a backtest: stretch by stretch, in as many processes as there are cores; broken off, it can be taken up."""

from __future__ import annotations

import gc
import os
import re
import signal
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import suppress
from importlib import import_module
from pathlib import Path
from typing import Any, Literal

import orjson

from lumyn import __version__
from lumyn.backtest_plan import Plan, home_of, outcomes_of, policies_of, source_of
from lumyn.collector import collector_paused
from lumyn.config import LumynConfig, resolve
from lumyn.exporting import write_whole
from lumyn.home import Home
from lumyn.label_jobs import FOLDER
from lumyn.processes import in_order
from schemas.canonical import decode_trusted
from schemas.errors import LumynError, NotFound, StorageUnavailable, UsageError
from streams.backfill.contested import contested_of
from streams.backtest.case import reading
from streams.backtest.evaluate import Evaluator
from streams.backtest.gaps import find_gaps
from streams.backtest.memory import Answering, Asking, Recaller
from streams.backtest.outcomes import Outcomes
from streams.backtest.part import Part
from streams.backtest.run import Run
from streams.backtest.sources import Source, Stretch
from streams.backtest.tally import Tally
from streams.integrity import recorded_policy
from streams.subject_keys import NO_KEYS

_WORTH_PROCESSES = 12_000
_WORTH_ASKING = 2_000
"""Records from which on several processes are faster than one; where a memory is asked about each, fewer."""
_BYTES_A_RECORD = 2500
_SAVE_EACH_S = 60.0
_NAME = re.compile(r"backtest-[0-9a-f]{12}")

Tick = Callable[[int, Run], None]
"""Hears how much was read since the last time, and of the run so far."""


class Job:
    """A plan and how far it was carried out, kept in the home's `jobs` folder while it is broken off."""

    def __init__(self, plan: Plan, run: Run | None = None, name: str | None = None) -> None:
        self.plan = plan
        self.run = run or Run([Tally() for _ in plan.asked.policies])
        self.name = name or f"backtest-{uuid.uuid4().hex[:12]}"

    def size(self) -> int:
        """How much there is to read: record offsets, or bytes."""
        return sum(map(_size, self.plan.fixed.stretches))

    def size_done(self) -> int:
        """How much of it was read."""
        return sum(map(_size, self.plan.fixed.stretches[: self.run.done]))

    def save(self) -> None:
        """Raises `StorageUnavailable`."""
        path = _file(self.plan.config, self.name)
        with suppress(OSError):  # writing tells
            path.parent.mkdir(parents=True, exist_ok=True)
        kept = {"lumyn": __version__, "plan": self.plan.as_dict(), "run": self.run.as_dict()}
        write_whole(path, orjson.dumps(kept))

    def remove(self) -> None:
        """It is done: there is nothing to take up."""
        with suppress(OSError):
            _file(self.plan.config, self.name).unlink(missing_ok=True)


def load_job(name: str, config: LumynConfig | None) -> Job:
    """A job that was broken off here. Raises `NotFound`, `StorageUnavailable`, `UsageError`."""
    if not _NAME.fullmatch(name):
        raise UsageError(f"`{name}` is no backtest", help="such as backtest-0123456789ab")
    path = _file(config, name)
    try:
        kept = decode_trusted(path.read_bytes())
        if kept["lumyn"] != __version__:
            raise UsageError(f"it was begun by Lumyn {kept['lumyn']}, and this is {__version__}: begin anew")
        return Job(Plan.from_dict(kept["plan"], config), Run.from_dict(kept["run"]), name)
    except FileNotFoundError:
        raise NotFound(f"no backtest `{name}` was broken off here", where=str(path)) from None
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise StorageUnavailable(f"the job can't be read: {error}", where=str(path)) from None


def _size(stretch: Stretch) -> int:
    return stretch.end - stretch.start


def _file(config: LumynConfig | None, name: str) -> Path:
    return resolve(config).home / FOLDER / f"{name}.json"


def carry_out(job: Job, tick: Tick) -> dict[str, Any]:
    """Run what is left of a job, and report. Raises `LumynError`.

    When it is broken off, by Ctrl-C or by trouble, the job is kept; it is kept once a minute, too.
    """
    plan, run = job.plan, job.run
    home = home_of(plan.config)
    source = source_of(plan.asked, plan.fixed.stretches, home)
    left = plan.fixed.stretches[run.done :]
    saved = time.monotonic()
    try:
        with collector_paused():
            for stretch, part in parts(plan, source, left, home):
                run.add(stretch, part)
                tick(_size(stretch), run)
                if time.monotonic() - saved > _SAVE_EACH_S:
                    job.save()
                    saved = time.monotonic()
        report = report_of(plan, run, source, home)
    except UsageError:
        raise
    except (KeyboardInterrupt, LumynError):
        if run.done:
            job.save()
        raise
    job.remove()
    return report


def report_of(plan: Plan, run: Run, source: Source, home: Home | None) -> dict[str, Any]:
    """The report of a run that went through. Raises `UsageError` for an empty range, or bars that can't be judged."""
    check_found(run)
    asked, fixed, gaps = plan.asked, plan.fixed, None
    if not asked.files and home is not None and fixed.ids is None and fixed.since is None:
        gaps = find_gaps(home.log, plan.span, fixed.request_ends, run.runs).as_dict()
    told = {
        "from": asked.start,
        "to": asked.end,
        "query": asked.query,
        "limit": asked.limit,
        "sample": asked.sample,
        "seed": asked.seed if asked.sample else None,
        "by": list(asked.by),
        "cluster": asked.cluster,
        "outcomes": asked.outcomes,
        "outcomes_digest": fixed.outcomes_digest,
    }
    from streams.backtest.report import Setting, make_report

    setting = Setting(source.name, asked.memory, told, fixed.weights, fixed.strata, plan.bars)
    report = make_report(run, plan.candidates(), setting, gaps)
    check_judged(report)
    return report


def check_found(run: Run) -> None:
    """An empty range is no pass. Raises `UsageError`."""
    if not run.seen.taken and not run.seen.refused:
        what = f"none of the {run.seen.read} records read is wanted" if run.seen.read else "there is no decision in it"
        raise UsageError(f"nothing to compare: {what}", help="widen `--from`, `--to` or `--query`")
    for tally in run.tallies:
        if tally.out_of_policy and not tally.matrix and not tally.errors:
            raise UsageError(
                f"nothing to compare: all {tally.out_of_policy} requests ask for another policy by name",
                help="give the candidate that name: `policy: NAME`",
            )


def check_judged(report: dict[str, Any]) -> None:
    """A bar on outcomes says nothing where nothing is labelled. Raises `UsageError`."""
    for candidate in report["candidates"]:
        for bar in candidate["bars"]:
            if bar["holds"] is None and candidate["coverage"]["compared"]:
                raise _unjudged(bar["bar"])


def _unjudged(bar: str) -> UsageError:
    return UsageError(
        f"`{bar}` can't be judged: no decision in the range has an outcome that it could go by",
        help="`lumyn label ID --label failure|success`, `--outcomes FILE`, or a range that has labels",
    )


def parts(plan: Plan, source: Source, left: tuple[Stretch, ...], home: Home | None) -> Iterator[tuple[Stretch, Part]]:
    """The part of each stretch, in order."""
    records = sum(map(_size, left)) // (_BYTES_A_RECORD if plan.asked.files else 1)
    outcomes = outcomes_of(plan, home)
    if not outcomes:
        for bar in plan.bars:
            if bar.measure.of_labels:
                raise _unjudged(bar.text)
    worth = _WORTH_ASKING if plan.mode in ("as-of", "current") else _WORTH_PROCESSES
    if records < worth or len(left) < 2 or (os.cpu_count() or 1) < 2:
        evaluator = make_evaluator(plan, outcomes, home)
        for stretch in left:
            yield stretch, evaluator.evaluate(source.read(stretch))
        return
    yield from _in_processes(plan, outcomes, left)


def make_evaluator(plan: Plan, outcomes: Outcomes, home: Home | None) -> Evaluator:
    """The evaluator of a plan, with parts of this process. Raises `LumynError`."""
    sources = policies_of(plan.asked, home)
    asking = None
    if plan.mode in ("as-of", "current"):
        assert home is not None
        asking = _asking(plan, home)
    return Evaluator(
        plan.candidates(),
        Recaller(plan.mode, asking, outcomes),
        outcomes,
        lambda record: (
            recorded_policy(record, sources[record["policy"]["hash"]])
            if record["policy"]["hash"] in sources
            else None
        ),
        plan.chosen(),
        reading(plan.asked.by, plan.asked.cluster),
        NO_KEYS if home is None else home.log.keys,
        contested_of(plan.candidates()[0]) if plan.asked.kept == "flips" else None,
    )


def _asking(plan: Plan, home: Home) -> Asking:
    """The home's memories: the present one at the version of the start, those that were left as they were left."""
    control, now = home.agent.control(), home.memory.store().watermark().vectoriser_id

    def memory_of(vectoriser_id: str) -> Answering | None:
        if vectoriser_id == now:
            return Answering(home.memory.recaller().recall, plan.fixed.memory_version)
        source = home.memories.of(control.memory_of(vectoriser_id))  # None: the configured embedder's
        mark = source.store().watermark()
        return Answering(source.recaller().recall, mark.version) if mark.vectoriser_id == vectoriser_id else None

    return Asking(home.log.epoch, now, memory_of)


_mine: list[Any] = []
"""What a process evaluates with: its own source and evaluator, made at its first stretch."""


def _in_processes(plan: Plan, outcomes: Outcomes, left: tuple[Stretch, ...]) -> Iterator[tuple[Stretch, Part]]:
    """Each process opens the log for itself and reads its own stretches; only counts come back."""
    # Clients of brokers, and a model's threads, do not survive a fork.
    settings = resolve(plan.config)
    forks = hasattr(os, "fork") and settings.kafka is None and settings.embedder == "static"
    lost = "a process of the backtest was killed"
    method: Literal["fork", "spawn"] = "fork" if forks else "spawn"
    yield from in_order(
        _work, left, _start, (plan, outcomes), method=method, lost=lost, meanwhile=_load_statistics
    )


def _load_statistics() -> None:
    """Only the report needs scipy, which takes as long to load as some thousand decisions. Raises `BadConfig`."""
    import_module("streams.backtest.report")


def _start(plan: Plan, outcomes: Outcomes) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole group; the parent alone speaks and stops
    gc.disable()
    _mine[:] = [plan, outcomes]


def _work(stretch: Stretch) -> Part:
    if len(_mine) == 2:
        plan, outcomes = _mine
        home = home_of(plan.config)
        _mine[:] = [
            source_of(plan.asked, plan.fixed.stretches, home), make_evaluator(plan, outcomes, home), plan, outcomes
        ]  # fmt: skip
    source, evaluator = _mine[:2]
    part: Part = evaluator.evaluate(source.read(stretch))
    return part
