"""`lumyn backtest --shadow`: the backtest's report of what a candidate said beside live decisions."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

from lumyn.backtesting import check_found, check_judged
from lumyn.home import Home
from lumyn.shadowing import catch_up
from schemas.errors import NotFound, UsageError
from schemas.query import parse_query
from streams.backtest.bars import parse_bar
from streams.backtest.case import reading
from streams.backtest.chosen import Chosen
from streams.backtest.evaluate import Evaluator
from streams.backtest.memory import Recaller
from streams.backtest.outcomes import read_outcomes
from streams.backtest.report import Setting, make_report
from streams.backtest.shadowed import bare, joined
from streams.local_log import wall_clock_ms
from streams.log import Log
from streams.policy import CompiledPolicy
from streams.shadow_results import shadow_verdicts
from streams.span import EVERYTHING, Span, check_partition, parse_span
from streams.topics import LABELS, REQUESTS

_UNASKED = ("limit", "sample", "seed", "outcomes", "outcomes_digest")
"""What a backtest may be asked, and this can't."""


def shadow_report(
    home: Home,
    which: str | None,
    by: Sequence[str],
    cluster: str,
    require: Sequence[str],
    *,
    start: str | None = None,
    end: str | None = None,
    query: str | None = None,
) -> dict[str, Any]:
    """The report of one candidate: `which` is NAME, NAME@VERSION or the start of its hash; None: the only one.

    `start`, `end` and `query` are those of a backtest. Raises `NotFound`, `UsageError`, `BadQuery`.
    """
    bars, read, now_ms = tuple(map(parse_bar, require)), reading(by, cluster), wall_clock_ms()
    wanted, span = parse_query(query, now_ms=now_ms) if query else None, parse_span(start, end, now_ms=now_ms)
    catch_up(home)
    log, tenant = home.log, home.settings.tenant
    check_partition(log, span)
    policy = _candidate(home, which, Counter(one["candidate_hash"] for one in shadow_verdicts(log, tenant)))
    outcomes = read_outcomes(log, tenant, log.end(LABELS, 0))
    recaller = Recaller("recorded", None, outcomes)
    chosen = Chosen(tenant, wanted, places=_places(log, span))
    evaluator = Evaluator([], recaller, outcomes, lambda _: None, chosen, read, log.keys)
    mine = (one for one in shadow_verdicts(log, tenant) if one["candidate_hash"] == policy.policy_hash)
    found = joined(log, mine, evaluator, policy)
    if not found.run.tallies[0].errors:
        check_found(found.run)
    asked: dict[str, Any] = dict.fromkeys(_UNASKED)
    asked |= {"from": start, "to": end, "query": query}
    asked |= {"by": list(by), "cluster": cluster, "shadow": f"{policy.name}@{policy.version}"}
    setting = Setting("the shadow topic", "as the shadow worker asked it", asked, None, None, bars)
    report = make_report(found.run, [policy], setting, None)
    check_judged(report)
    return report | {"candidates": [bare(candidate, found) for candidate in report["candidates"]]}


def _places(log: Log, span: Span) -> dict[int, tuple[int, int | None]] | None:
    if span == EVERYTHING:
        return None
    parts = {partition: span.offsets(log, partition) for partition in range(log.partitions(REQUESTS))}
    return {partition: part for partition, part in parts.items() if part is not None}


def _candidate(home: Home, which: str | None, said: Counter[str]) -> CompiledPolicy:
    """The candidate by its name, among those that said something of this tenant's decisions."""
    control = home.agent.control()
    names = {hash_: control.policies[hash_] for hash_ in said if hash_ in control.policies}
    found = [
        hash_
        for hash_, one in names.items()
        if which in (None, one.name, f"{one.name}@{one.version}") or (which and hash_.startswith(which))
    ]
    known = ", ".join(sorted(f"{one.name}@{one.version}" for one in names.values())) or "none"
    if not found:
        what = "no candidate has" if which is None else f"no candidate `{which}` has"
        raise NotFound(
            f"{what} said anything beside decisions here",
            help=f"`lumyn policy shadow CANDIDATE.yml` begins a trial; those that have: {known}",
        )
    if len(found) > 1:
        raise UsageError("several candidates were tried", help=f"say which: `--policy NAME@VERSION`, of {known}")
    return control.compiled(found[0])
