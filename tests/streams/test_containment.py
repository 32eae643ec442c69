"""How long decisions went on without a kill switch: read from a log in which some did."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from embedded import policy, request

from schemas.ids import iso_time
from streams.containment import Containment, containment
from streams.control import ControlState, KillSwitch, control_append, read_control
from streams.decide import Position, decide
from streams.local_log import LocalLog
from streams.log import Append
from streams.topics import full_name

START = 1_700_000_000_000


class Story:
    """A log whose clock the test sets, in milliseconds after the switch."""

    def __init__(self, folder: Path, scope: dict[str, str]) -> None:
        self.now = START
        self.log = LocalLog(folder / "lumyn.db", clock=lambda: self.now, partitions=2)
        on = {"type": "kill_switch_on", "actor": "ann", "why": "x", "switch_id": "s1", "scope": scope}
        self.before = ControlState()
        self.log.append([control_append(on)])
        self.after = read_control(self.log)

    @property
    def switch(self) -> KillSwitch:
        return self.after.switches[0]

    def record(self, at: int, control: ControlState, *, partition: int = 0, **more: Any) -> str:
        """A decision appended `at` milliseconds after the switch, made with a control state."""
        self.now = START + at
        asked = request(**more)
        message = self.log.append([Append("requests", asked.canonical, None, partition)])[0]
        place = Position(full_name(self.log.prefix, "requests"), partition, message.offset, message.time_ms)
        made = decide(asked, place, policy(), control)
        name = str(made.record["decision_id"])
        self.log.append([Append("records", made.canonical, name.encode(), partition)])
        return name

    def figure(self, **options: Any) -> Containment:
        return containment(self.log, self.switch, **options)


@pytest.fixture
def story(tmp_path: Path) -> Story:
    return Story(tmp_path, {"action_type": "refund"})


def test_nothing_decided_yet(story: Story) -> None:
    assert story.switch.at == iso_time(START)
    assert story.figure() == Containment(None, 0, 0, None)


def test_it_is_the_time_of_the_last_one_without_it_in_any_partition(story: Story) -> None:
    story.record(40, story.before)
    story.record(50, story.after)
    story.record(60, story.after)
    last = story.record(340, story.before, partition=1)
    story.record(350, story.after, partition=1)
    assert story.figure() == Containment(0.34, 2, 3, last)


def test_what_was_decided_with_it_from_the_first_is_contained_at_once(story: Story) -> None:
    story.record(1, story.after)
    assert story.figure() == Containment(None, 0, 1, None)


@pytest.mark.parametrize(
    ("scope", "counted"),
    [
        ({}, 4),
        ({"action_type": "refund"}, 3),
        ({"action_type": "refund", "tenant": "a"}, 1),
        ({"policy": "refunds"}, 4),
        ({"policy": "other"}, 0),
        ({"tenant": "b"}, 1),
    ],
)
def test_only_what_is_under_its_scope_counts(tmp_path: Path, scope: dict[str, str], counted: int) -> None:
    story = Story(tmp_path, scope)
    for at, more in enumerate(
        ({"tenant": "a"}, {"tenant": "b", "action": {"type": "payout"}}, {}, {"tenant": "default"}), start=1
    ):
        story.record(at, story.before, **more)
    assert story.figure().without == counted


def test_what_came_before_it_and_what_let_nothing_through_do_not_count(tmp_path: Path) -> None:
    story = Story(tmp_path, {})
    story.record(0, story.before)
    story.record(10, replace(story.before, stale=True))
    assert story.figure() == Containment(None, 0, 0, None)


def test_another_switch_is_not_this_one(story: Story) -> None:
    other = replace(story.switch, switch_id="s2")
    last = story.record(25, replace(story.after, switches=(other,)))
    story.record(30, replace(story.after, switches=(other, story.switch)))
    assert story.figure() == Containment(0.025, 1, 1, last)


def test_only_the_first_moments_are_read(story: Story) -> None:
    last = story.record(900, story.before)
    story.record(1100, story.before)
    assert story.figure(within_s=1.0) == Containment(0.9, 1, 0, last)


def test_a_message_that_is_no_record_is_passed_over(story: Story) -> None:
    story.now = START + 5
    story.log.append([Append("records", value, b"k", 0) for value in (b"{", b"[]", b"{}", b'{"tenant": 1}')])
    last = story.record(7, story.before)
    assert story.figure() == Containment(0.007, 1, 0, last)

