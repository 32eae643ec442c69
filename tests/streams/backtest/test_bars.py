"""Pass bars: what they mean, and where they are wrong."""

from __future__ import annotations

import pytest

from schemas.errors import UsageError
from streams.backtest.bars import bars_hash, parse_bar


@pytest.mark.parametrize(
    ("text", "value", "baseline", "holds"),
    [
        ("flips.ALLOW_to_DENY <= 0.5%", 0.005, 0, True),
        ("flips.ALLOW_to_DENY <= 0.5%", 0.0051, 0, False),
        ("flips <= 12", 12, 0, True),
        ("flips<12", 12, 0, False),
        ("flips == 0", 0, 0, True),
        ("flips != 0", 0, 0, False),
        ("failures_caught >= baseline", 0.3, 0.3, True),
        ("failures_caught >= baseline", 0.29, 0.3, False),
        ("failures_caught >= baseline - 2%", 0.28, 0.3, True),
        ("failures_caught >= baseline + 2%", 0.31, 0.3, False),
        ("upper(flips) < 1%", 0.011, 0, False),
        (" lower( precision ) > 90% ", 0.91, 0, True),
    ],
)
def test_a_bar_holds_or_not(text: str, value: float, baseline: float, holds: bool) -> None:
    assert parse_bar(text).holds(value, baseline) is holds


def test_quotients_meet_the_share_that_they_are() -> None:
    for whole in range(1, 400):
        assert parse_bar("flips <= 33.3%").holds(333 * whole / (1000 * whole), 0)
        assert parse_bar("flips >= 0.7%").holds(7 * whole / (1000 * whole), 0)


@pytest.mark.parametrize(
    ("text", "column", "said"),
    [
        ("", 1, "expected a figure"),
        ("flips", 6, "found the end"),
        ("flip <= 1%", 1, "did you mean `flips`"),
        ("flips.ALOW_to_DENY <= 1%", 1, "did you mean `flips.ALLOW_to_DENY`"),
        ("flips 1%", 7, "found `1`"),
        ("flips <= 0.5", 10, "no count"),
        ("precision >= 1", 14, "no count"),
        ("upper(flips) <= 3", 17, "no count"),
        ("flips <= baseline + 2", 22, "percentage points"),
        ("flips <= 1% x", 13, "expected the end"),
        ("upper flips <= 1%", 1, "no figure `upper`"),
        ("flips <= $1", 10, "unexpected character"),
        ("flips ( <= 1%", 7, "expected one of"),
    ],
)
def test_what_is_wrong_is_told_with_its_column(text: str, column: int, said: str) -> None:
    with pytest.raises(UsageError) as told:
        parse_bar(text)
    assert said in told.value.message
    assert told.value.where == f"--require '{text}':{column}"
    assert told.value.help


def test_the_hash_is_of_what_bars_mean() -> None:
    one = bars_hash([parse_bar("flips <= 0.5%"), parse_bar("failures_caught >= baseline")])
    assert one == bars_hash([parse_bar("flips<=0.50 %"), parse_bar("failures_caught>=baseline")])
    assert one != bars_hash([parse_bar("flips <= 0.6%"), parse_bar("failures_caught >= baseline")])
    assert one != bars_hash([parse_bar("flips <= 0.5%")])
