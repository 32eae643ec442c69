"""Running a game day: traffic, a stage of its own, play, judgement, report; and the stage is taken down again."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from lumyn.backtest_plan import home_of
from lumyn.config import LumynConfig, resolve
from lumyn.gamedays.judge import Judge, check_judgeable, decisions, invariants
from lumyn.gamedays.play import Play
from lumyn.gamedays.report import make_report
from lumyn.gamedays.scenario import Scenario
from lumyn.gamedays.setting import set_up
from lumyn.gamedays.stage import EmbeddedStage, Stage
from lumyn.gamedays.traffic import Traffic, load_traffic
from lumyn.home import Home
from schemas.errors import StorageUnavailable, UsageError
from streams.subject_keys import NO_KEYS

Tick = Callable[[int], None]


def run(
    scenario: Scenario,
    config: LumynConfig | None = None,
    *,
    say: Callable[[str], None],
    begin: Callable[[str, int], Tick] = lambda what, size: lambda count: None,
    keep: Path | None = None,
    on: str = "embedded",
) -> dict[str, Any]:
    """Play a scenario and report. The live home is only read.

    `begin` starts a progress bar. `keep`: a new folder for the game day's home, to look around. `on`: `embedded`, or
    `kafka`, topics and workers of its own on the configured brokers. Raises `LumynError`.
    """
    if on == "kafka":
        _check_kafka(scenario, config, keep)
    settings, live = resolve(config), home_of(config)
    traffic = load_traffic(scenario, config, say)
    with _stage(config, live, traffic, keep, on) as stage:
        was_set = set_up(stage, scenario, live, settings.policy_path, traffic)
        check_judgeable(scenario, traffic, was_set)
        stage.begin()
        played = Play(stage, scenario, traffic, begin("playing", len(traffic.requests))).run()
        judge = Judge(scenario, traffic, played)
        for seen in decisions(stage, traffic, played, was_set):
            judge.take(seen)
        return make_report(scenario, stage, traffic, was_set, played, judge, invariants(stage, played))


def _check_kafka(scenario: Scenario, config: LumynConfig | None, keep: Path | None) -> None:
    """What can't be on brokers. Raises `UsageError`."""
    if resolve(config).kafka is None:
        raise UsageError("`--on kafka` plays on the configured brokers, and LUMYN_KAFKA is not set")
    if keep is not None:
        raise UsageError("`--keep` is for an embedded game day: topics of a game day are deleted")
    for fault in scenario.faults:
        why = None
        if fault.kind == "clock_jump":
            why = "the brokers' clock is theirs"
        elif fault.kind == "memory_poisoned" and fault.options.get("of") != "decided":
            why = "the label worker alone writes labels; `of: decided` can be"
        if why is not None:
            raise UsageError(
                f"`{fault.kind}` can't be played over Kafka: {why}",
                where=f"{scenario.path}:{fault.mark.line}:{fault.mark.column}",
                help="play it embedded",
            )


@contextmanager
def _stage(
    config: LumynConfig | None, live: Home | None, traffic: Traffic, keep: Path | None, on: str
) -> Iterator[Stage]:
    """An isolated home in a temporary folder, which is gone afterwards, or in `keep`."""
    settings = resolve(config)
    seal = settings.encrypt_subjects or any(one.sealed for one in traffic.requests)
    if keep is not None and seal:
        raise UsageError(
            "these decisions are sealed: a home that is kept would hold their subjects where forgetting can't reach",
            help="run it without `--keep`",
        )
    if keep is not None and keep.exists() and any(keep.iterdir() if keep.is_dir() else [keep]):
        raise UsageError("there is something in it already", where=str(keep), help="`--keep` takes a new folder")
    try:
        if keep is not None:
            keep.mkdir(parents=True, exist_ok=True)
        folder = keep if keep is not None else Path(tempfile.mkdtemp(prefix="lumyn-gameday-"))
    except OSError as error:
        raise StorageUnavailable(f"no folder for the game day: {error.strerror or error}", where=str(keep)) from None
    try:
        keys = NO_KEYS if live is None else live.log.keys
        stage: Stage
        if on == "kafka":
            from lumyn.gamedays.kafka_stage import KafkaStage

            stage = KafkaStage(folder, settings, keys, seal=seal)
        else:
            stage = EmbeddedStage(folder, settings, keys, seal=seal)
        try:
            yield stage
        finally:
            stage.close()
    finally:
        if keep is None:
            shutil.rmtree(folder, ignore_errors=True)
