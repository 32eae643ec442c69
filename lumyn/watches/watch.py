"""A watch: which decisions are counted, of which, over which windows, and when that is too often."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from datetime import UTC, date, datetime, timedelta
from typing import Any, Literal

from lumyn.durations import parse_duration
from schemas.errors import BadInput, UsageError
from schemas.query import leaves, parse_query

HOUR_S = 3600.0
LEAST = 10
"""So many decisions the long window must hold before anything is said of its rate."""
_NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,63}\Z")
_CONDITION = re.compile(
    r"\s*(?P<what>rate|burn)\s*(?P<op><=|>=|<|>)\s*(?P<number>\d{1,9}(?:\.\d{1,9})?|\.\d{1,9})\s*(?P<percent>%?)\s*\Z"
)


@dataclass(frozen=True, slots=True)
class Condition:
    """`rate > 0.1%` or `burn > 14.4`; `than` is a share (0.001) or a factor of the budget."""

    what: Literal["rate", "burn"]
    above: bool
    than: float

    @property
    def text(self) -> str:
        """As it is written."""
        than = f"{self.than * 100:.10g}%" if self.what == "rate" else f"{self.than:g}"
        return f"{self.what} {'>' if self.above else '<'} {than}"


@dataclass(frozen=True, slots=True)
class Watch:
    """A saved query as a rate: `query` among `of` (every decision, where that is None), over moving windows.

    `alert`, `target`: conditions as text (`rate > 0.1%`, `burn > 14.4`); `budget` is the rate that may be, which burn
    is measured against. `by` (YYYY-MM-DD, UTC) is when the target must be met. Windows are seconds. `incident` is whom
    the watch belongs to, `why` what it is for. Make one with `make_watch`, which checks it.
    """

    name: str
    query: str
    of: str | None = None
    alert: str | None = None
    target: str | None = None
    by: str | None = None
    budget: float | None = None
    window_s: float = HOUR_S
    long_window_s: float = 6 * HOUR_S
    target_window_s: float = 7 * 24 * HOUR_S
    least: int = LEAST
    incident: str | None = None
    why: str | None = None

    def as_dict(self) -> dict[str, Any]:
        """The JSON form, which `watch_of` reads."""
        return asdict(self)

    @property
    def alert_condition(self) -> Condition | None:
        """When it alerts, as a condition on the rate."""
        return None if self.alert is None else in_rates(parse_condition(self.alert, "--alert"), self.budget)

    @property
    def target_condition(self) -> Condition | None:
        """What is to be reached, as a condition on the rate."""
        return None if self.target is None else in_rates(parse_condition(self.target, "--target"), self.budget)

    @property
    def allowed(self) -> float | None:
        """The rate that a burn of 1 is: the budget, else the threshold above which it alerts.

        A target is no budget: a rate that is still to be brought down would burn it from its first day on.
        """
        if self.budget is not None:
            return self.budget
        condition = self.alert_condition
        return condition.than if condition is not None and condition.above and condition.than > 0 else None

    @property
    def due_ms(self) -> int | None:
        """The first moment after the target's day."""
        if self.by is None:
            return None
        day = datetime.combine(date.fromisoformat(self.by), datetime.min.time(), UTC)
        return int((day + timedelta(days=1)).timestamp() * 1000)


def make_watch(
    name: str,
    query: str,
    *,
    of: str | None = None,
    alert: str | None = None,
    target: str | None = None,
    by: str | None = None,
    budget: str | float | None = None,
    window: str = "1h",
    long_window: str | None = None,
    target_window: str = "7d",
    least: int = LEAST,
    incident: str | None = None,
    why: str | None = None,
    now_ms: int = 0,
) -> Watch:
    """A watch from what people write, checked. Raises `UsageError`, `BadQuery`.

    `now_ms` is only for parsing. The long window is six times the short one where it is not given.
    """
    short = parse_duration(window, "--window")
    made = Watch(
        name=name, query=query, of=of, alert=alert, target=target, by=by,
        budget=parse_share(budget, "--budget") if isinstance(budget, str) else budget,
        window_s=short,
        long_window_s=parse_duration(long_window, "--long-window") if long_window is not None else 6 * short,
        target_window_s=parse_duration(target_window, "--target-window"),
        least=least, incident=incident, why=why,
    )  # fmt: skip
    return checked(made, now_ms)


def watch_of(value: Mapping[str, Any]) -> Watch:
    """The inverse of `Watch.as_dict`. Raises `BadInput` for what a newer version wrote."""
    try:
        return Watch(**value)
    except TypeError:
        raise BadInput("this watch is not one that this version knows", help="was it saved by a newer one?") from None


def checked(watch: Watch, now_ms: int = 0) -> Watch:
    """The watch, if all of it makes sense. Raises `UsageError`, `BadQuery`."""
    if not _NAME.match(watch.name):
        raise UsageError(
            f"`{watch.name[:80]}` is no name for a watch", help="at most 64 small letters, digits, `.`, `-` and `_`"
        )
    for option, query in (("--query", watch.query), ("--of", watch.of)):
        if query is None:
            continue
        for leaf in leaves(parse_query(query, now_ms=now_ms).expression):
            if leaf.field.name in ("created_at", "tenant"):
                said = "its windows say when" if leaf.field.name == "created_at" else "a watch is its own tenant's"
                raise UsageError(f"`{option}` can't name `{leaf.field.name}`: {said}", help="leave it out")
    if watch.by is not None:
        _day(watch)
    if not 0 < watch.window_s <= watch.long_window_s:
        raise UsageError("`--long-window` must be as long as `--window`, or longer")
    if watch.budget is not None and not 0 < watch.budget < 1:
        raise UsageError("`--budget` is the rate that may be: above 0 and below 100%")
    if not 1 <= watch.least <= 1_000_000_000:
        raise UsageError("`--least` is a number of decisions, at least 1")
    for condition in (watch.alert_condition, watch.target_condition):
        if condition is not None and not 0 <= condition.than <= 1:
            raise UsageError(f"`{condition.text}` can never be: a rate is between 0% and 100%")
    return watch


def _day(watch: Watch) -> None:
    if watch.target is None:
        raise UsageError("`--by` says when a `--target` must be met, and there is none")
    assert watch.by is not None
    try:
        if date.fromisoformat(watch.by).isoformat() != watch.by:
            raise ValueError
    except ValueError:
        raise UsageError(f"`--by`: `{watch.by[:32]}` is no day", help="such as 2025-03-31") from None


def parse_condition(text: str, option: str) -> Condition:
    """`rate > 0.1%`, `rate < 0.001`, `burn > 14.4`. Raises `UsageError`."""
    found = _CONDITION.match(text)
    if found is None or (found["what"] == "burn" and found["percent"]):
        raise UsageError(
            f"`{option}`: `{text[:80]}` is no condition", help="such as 'rate > 0.1%' or, with a budget, 'burn > 14.4'"
        )
    what: Literal["rate", "burn"] = "rate" if found["what"] == "rate" else "burn"
    than = float(found["number"])
    return Condition(what, found["op"].startswith(">"), than / 100 if found["percent"] else than)


def in_rates(condition: Condition, budget: float | None) -> Condition:
    """The same as a condition on the rate: a burn is a multiple of the budget. Raises `UsageError`."""
    if condition.what == "rate":
        return condition
    if budget is None:
        raise UsageError(f"`{condition.text}` needs a `--budget`: the rate that may be", help="such as --budget 0.1%")
    return Condition("rate", condition.above, condition.than * budget)


def parse_share(text: str, option: str) -> float:
    """`0.1%` or `0.001`. Raises `UsageError`."""
    found = re.fullmatch(r"\s*(\d{1,9}(?:\.\d{1,9})?|\.\d{1,9})\s*(%?)\s*", text, re.ASCII)
    if found is None:
        raise UsageError(f"`{option}`: `{text[:32]}` is no rate", help="such as 0.1% or 0.001")
    return float(found[1]) / (100 if found[2] else 1)
