"""What a runbook waits for: a kill switch or an activation that every worker has, or decisions that come no more."""

from __future__ import annotations

from lumyn.home import Home
from lumyn.runbooks.book import Wait
from lumyn.searching import understood
from lumyn.switches import find_switch
from schemas.errors import NotFound
from schemas.ids import iso_time, time_ms_of
from streams.containment import WITHIN_S, containment
from streams.control_history import control_history
from streams.index_sync import fetcher
from streams.local_log import wall_clock_ms
from streams.taking_hold import took_hold


def measured(home: Home, wait: Wait, of: str) -> tuple[bool, str]:
    """Whether it holds now, and the figure. Raises `NotFound`, `BadQuery`, `StorageUnavailable`."""
    if wait.measure == "query":
        parsed = understood(home, of, lambda text: None)
        count = home.index().count(parsed, tenant=home.settings.tenant, fetch=fetcher(home.log))
        return count <= wait.at_most, f"{count} decisions, at most {wait.at_most} wanted: {of}"
    return _switch(home, of) if wait.measure == "kill-switch" else _policy(home, of)


def last_s(home: Home) -> float:
    """How long the slowest worker may go on by what it knew: one that hears nothing longer lets nothing through."""
    if home.settings.kafka is None:
        return 0.0  # control is read to its end within each decision's transaction
    return home.settings.runtime_setting("control_max_staleness_s", 10.0)


def _switch(home: Home, name: str) -> tuple[bool, str]:
    found = find_switch(home, name)
    figure = containment(home.log, found, within_s=max(WITHIN_S, 3 * last_s(home)))
    passed = (wall_clock_ms() - time_ms_of(found.at)) / 1000
    many = "no decision without it" if figure.seconds is None else f"the last of {figure.without} decisions without it"
    when = "" if figure.seconds is None else f" {figure.seconds:.3f} s after it was on"
    return passed >= last_s(home), f"kill switch {name}, on for {passed:.1f} s: {many}{when}, {figure.with_it} denied"


def _policy(home: Home, name: str) -> tuple[bool, str]:
    name = name.partition("@")[0]
    activated = [
        one
        for one in control_history(home.log, home.settings.tenant)
        if one.kind == "policy_activated" and one.said.get("name") == name
    ]
    if not activated:
        raise NotFound(f"policy `{name}` was never activated")
    last = activated[-1]
    figure = took_hold(home.log, name, str(last.said["hash"]), last.at_ms, within_s=max(WITHIN_S, 3 * last_s(home)))
    passed = (wall_clock_ms() - last.at_ms) / 1000
    version = f"{name}@{last.said.get('policy_version')}"
    many = "no decision by another" if figure.seconds is None else f"the last of {figure.by_other} decisions by another"
    when = "" if figure.seconds is None else f" {figure.seconds:.3f} s after it"
    told = f"{version}, active since {iso_time(last.at_ms)}: {many}{when}, {figure.by_it} by it"
    return passed >= last_s(home), told
