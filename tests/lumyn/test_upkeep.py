"""What a server does beside its requests: lists are complete without it, and quick with it."""

from __future__ import annotations

import sqlite3
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager

import pytest
from conftest_e2e import refund
from inside import Inside

from lumyn import LumynConfig, sdk
from lumyn.api import upkeep
from lumyn.api.upkeep import Pace, Stopped, _Index, keep_checkpoints, keep_index
from lumyn.home import Home
from lumyn.searching import search
from lumyn.wiring import existing_home
from schemas.errors import StorageUnavailable

pytest_plugins = ("inside_plugin",)

CONFIG = LumynConfig(policy_path="policy.yml")
PATIENCE_S = 60


class Unhurried(Pace):
    """A pace without rests."""

    def __init__(self) -> None:
        super().__init__(threading.Event(), 1)

    def __call__(self, _count: int = 0) -> None:
        return


def decide(many: int) -> list[str]:
    """Ids of new decisions."""
    return [one["decision_id"] for one in sdk.decide_many([refund(10)] * many, CONFIG)]  # type: ignore[index]


def indexed(home: Home) -> int:
    """How many records the index file holds now, as somebody sees it who catches nothing up."""
    path = home.path / "index.db"
    try:
        with closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as db:
            return int(db.execute("SELECT count(*) FROM rows").fetchone()[0])
    except sqlite3.OperationalError:  # it is about to be made
        return 0


def listed(home: Home) -> set[str]:
    found = search(home, None, limit=None, newest_first=True, say=lambda text: None)
    return {row.decision_id for row in found}


@contextmanager
def kept_up(keep: Callable[..., None] = keep_index, said: list[str] | None = None) -> Iterator[Home]:
    """Upkeep in a thread of its own, as `lumyn serve` starts it."""
    stop, home = threading.Event(), existing_home(CONFIG)
    say = said.append if said is not None else lambda text: None
    thread = threading.Thread(target=keep, args=(home, stop, say), daemon=True)
    thread.start()
    try:
        yield home
    finally:
        stop.set()
        thread.join(PATIENCE_S)
        assert not thread.is_alive()


def until(holds: Callable[[], bool]) -> None:
    end = time.monotonic() + PATIENCE_S
    while not holds():
        assert time.monotonic() < end, "it never came"
        time.sleep(0.02)


def test_the_index_is_brought_on_where_nobody_asks_for_a_list(inside: Inside) -> None:
    decide(30)
    with kept_up() as home:
        until(lambda: indexed(home) == 30)
        decide(12)
        until(lambda: indexed(home) == 42)


def test_a_list_holds_all_that_was_decided_before_it_was_asked_for(
    inside: Inside, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(upkeep, "BEHIND", 1)
    monkeypatch.setattr(upkeep, "ROUND_S", 0.001)
    made = set(decide(1))
    with kept_up() as home:
        for _ in range(40):
            made |= set(decide(7))
            assert listed(home) == made


def test_while_decisions_keep_coming_the_index_waits_until_it_lacks_many(
    inside: Inside, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(upkeep, "BEHIND", 20)
    decide(3)
    home = existing_home(CONFIG)
    index = _Index(home)
    seen = []
    for many in (0, 0, 5, 5, 5, 5, 0):
        decide(many)
        index.bring_on(Unhurried())
        seen.append(indexed(home))
    assert seen == [0, 3, 3, 3, 3, 23, 23]


def test_stopping_in_the_middle_loses_nothing(inside: Inside) -> None:
    made = set(decide(250))
    home = existing_home(CONFIG)

    class OneBatch(Unhurried):
        def __call__(self, _count: int = 0) -> None:
            raise Stopped

    with pytest.raises(Stopped):
        _Index(home).bring_on(OneBatch())
        home.bring_index_on(OneBatch())
    assert 0 < indexed(home) < 250
    assert listed(home) == made


def test_checkpoints_are_signed_meanwhile(inside: Inside, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(upkeep, "CHECKPOINT_S", 0.05)
    decide(5)
    with kept_up(keep_checkpoints) as home:
        until(lambda: home.log.end("checkpoints", 0) > 0)
    told = inside.run("verify").stdout
    assert "5 decisions" in told and "not covered" not in told, told


@pytest.mark.parametrize(
    ("error", "told"),
    [
        (StorageUnavailable("the disk sulks"), "lumyn: the disk sulks"),
        (KeyError("x"), "lumyn: internal error: KeyError: 'x'"),
    ],
)
def test_what_goes_wrong_is_said_and_tried_again(
    inside: Inside, monkeypatch: pytest.MonkeyPatch, error: Exception, told: str
) -> None:
    decide(5)
    home = existing_home(CONFIG)
    real, failures = type(home).bring_index_on, iter(["once", "again"])

    def once(self: Home, progress: Callable[[int], None]) -> None:
        if next(failures, None):
            raise error
        real(self, progress)

    monkeypatch.setattr(type(home), "bring_index_on", once)
    said: list[str] = []
    with kept_up(said=said):
        until(lambda: indexed(home) == 5)
    assert said == [told]


def test_a_pace_rests_longer_than_it_works_and_ends_with_the_server(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0.0]
    monkeypatch.setattr(upkeep.time, "thread_time", lambda: now[0])

    took: list[float | None] = []

    class Rests(threading.Event):
        def wait(self, timeout: float | None = None) -> bool:
            took.append(timeout)
            return self.is_set()

    stop = Rests()
    pace = Pace(stop, share=1 / 4)
    pace()
    assert took == []
    now[0] = 0.010
    pace()
    assert took == [pytest.approx(0.030)]
    stop.set()
    now[0] = 0.020
    with pytest.raises(Stopped):
        pace()
