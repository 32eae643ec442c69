"""`lumyn watch`: saved queries as rates: both windows, enough data, and what is not known is never called fine."""

from __future__ import annotations

import json
import os
import signal
import sqlite3
import subprocess
import sys
import time
import urllib.request
from typing import Any

import pytest
from conftest_e2e import refund
from hypothesis import given, settings
from hypothesis import strategies as st
from inside import Inside
from prometheus_client.parser import text_string_to_metric_families
from servers.kafka import free_port

from lumyn import sdk, wiring
from lumyn.config import LumynConfig
from lumyn.metrics import WATCH_METRICS, WatchMetrics
from lumyn.watches import check, check_all, history, list_watches, make_watch, remove_watch, save_watch
from lumyn.watches.check import alert_state, beyond, reached, window
from lumyn.wiring import close_homes, existing_home
from schemas.errors import LumynError
from streams.local_log import wall_clock_ms

pytest_plugins = ("inside_plugin",)

HOUR = 3_600_000
NOW = wall_clock_ms() + 48 * HOUR
"""When the tests look; what they decide lies before."""


def decided(inside: Inside, amounts: list[float], ago_ms: int) -> None:
    """Decisions of these amounts, so long before NOW. Above 250 they are escalated."""
    inside.decide(refund(1, user="first"))
    for home in wiring._homes.values():
        home.log._clock = lambda: NOW - ago_ms  # type: ignore[attr-defined]
    sdk.decide_many([refund(amount, user=f"usr_{n}") for n, amount in enumerate(amounts)])


def watched(**more: Any) -> dict[str, Any]:
    """One round of a watch on escalations."""
    home = existing_home()
    save_watch(home, make_watch("escalated", "verdict=ESCALATE", of="amount > 1", **more))
    return check(home, "escalated", now_ms=NOW)


def test_both_windows_must_be_beyond_and_not_by_chance(inside: Inside) -> None:
    decided(inside, [900] * 6 + [20] * 14, 5 * HOUR)
    found = watched(alert="rate > 5%")
    assert (found["state"], found["windows"]["long"]["events"], found["windows"]["long"]["count"]) == ("no_data", 6, 20)
    assert "nothing was decided in the short one" in found["says"]
    decided(inside, [20] * 5, HOUR // 2)
    found = check(existing_home(), "escalated", now_ms=NOW)
    assert found["state"] == "ok" and "no more in the short one" in found["says"]
    decided(inside, [900], HOUR // 4)
    found = check(existing_home(), "escalated", now_ms=NOW)
    assert found["state"] == "alert" and found["alert"] is True
    seen = found["windows"]["long"]
    assert (seen["events"], seen["count"]) == (7, 26) and seen["lower"] < 7 / 26 < seen["upper"]
    assert abs(seen["burn"] - 7 / 26 / 0.05) < 1e-9 and found["windows"]["short"]["count"] == 6
    decided(inside, [20] * 100, HOUR // 5)
    assert check(existing_home(), "escalated", now_ms=NOW)["state"] == "unclear"
    assert [one["state"] for one in history(existing_home(), "escalated")] == ["no_data", "ok", "alert", "unclear"]


def test_a_window_is_from_its_start_to_now(inside: Inside) -> None:
    for ago in (6 * HOUR, 6 * HOUR - 1, HOUR, HOUR - 1, 0, -1):
        decided(inside, [900], ago)
    found = watched(alert="rate > 5%")
    assert found["windows"]["short"]["count"] == 2, "of now and of 59:59.999 ago; the future is not known"
    assert found["windows"]["long"]["count"] == 4


def test_no_data_and_too_little_are_said_to_be_so(inside: Inside) -> None:
    decided(inside, [900] * 9, 30 * HOUR)
    found = watched(alert="rate > 5%", target="rate < 1%")
    assert (found["state"], found["windows"]["long"]["rate"], found["target_state"]) == ("no_data", None, "not_met")
    decided(inside, [900] * 9, HOUR // 2)
    found = check(existing_home(), "escalated", now_ms=NOW)
    assert found["state"] == "unclear" and "it takes 10" in found["says"]


COUNTS = st.integers(0, 2000).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n)))


@settings(max_examples=100, deadline=None)
@given(COUNTS, COUNTS, st.sampled_from([0.0, 0.001, 0.05, 0.5, 1.0]), st.booleans(), st.integers(1, 30))
def test_a_state_says_no_more_than_the_data(short, long, than, above, least) -> None:
    watch = make_watch("w", "verdict=DENY", alert=f"rate {'>' if above else '<'} {than}", least=least)
    condition = watch.alert_condition
    seen, near = window(21600, *long, None), window(3600, *short, None)
    state, _ = alert_state(watch, near, seen)
    assert state in ("alert", "ok", "unclear", "no_data")
    assert (state == "no_data") >= (long[1] == 0) and (state != "ok" or long[1] >= least)
    if state == "alert":
        assert all(beyond(condition, seen[end]) for end in ("rate", "lower", "upper")) and beyond(condition, near["rate"])
    if state == "ok":  # all of the interval is on the right side, or the short window is over it
        assert not any(beyond(condition, seen[end]) for end in ("lower", "upper")) or not beyond(condition, near["rate"])
    if state == "alert" and above and short[0] < short[1] and long[0] < long[1]:
        worse = alert_state(watch, window(3600, short[0] + 1, short[1], None), window(21600, long[0] + 1, long[1], None))
        assert worse[0] == "alert", "more of it is never better"


@settings(max_examples=100, deadline=None)
@given(COUNTS, st.sampled_from([0.001, 0.05, 0.5]), st.booleans())
def test_a_target_is_met_by_its_whole_interval_or_not_at_all(counts, than, late) -> None:
    watch = make_watch("w", "verdict=DENY", target=f"rate < {than}", by="2025-03-31")
    at = (watch.due_ms or 0) - (0 if late else 1)
    seen = window(3600, *counts, None)
    state, _ = reached(watch, seen, at)
    assert (state == "met") == (counts[1] >= watch.least and seen["upper"] < than)
    if state != "met":
        assert (state == "missed") == late
        assert late or (state == "no_data") == (counts[1] == 0)


def test_a_watch_without_an_alert_has_no_state_of_one() -> None:
    """A quiet night is nothing to be woken for where nothing alerts: `LumynWatchNoData` leaves `none` out."""
    nothing = window(60, 0, 0, None)
    assert alert_state(make_watch("w", "verdict=DENY", target="rate < 1%"), nothing, nothing)[0] == "none"
    assert alert_state(make_watch("w", "verdict=DENY", alert="rate > 1%"), nothing, nothing)[0] == "no_data"


def test_burn_is_a_multiple_of_the_budget() -> None:
    watch = make_watch("w", "verdict=DENY", alert="burn > 14.4", budget="0.1%", window="5m", long_window="1h")
    condition = watch.alert_condition
    assert condition is not None and abs(condition.than - 0.0144) < 1e-12 and watch.allowed == 0.001
    assert window(60, 3, 100, watch.allowed)["burn"] == pytest.approx(30)
    assert window(60, 0, 0, watch.allowed)["burn"] is None
    assert make_watch("w", "verdict=DENY", alert="rate > 5%").allowed == 0.05
    assert make_watch("w", "verdict=DENY", target="rate < 1%").allowed is None, "what is to be reached is no budget"
    assert make_watch("w", "verdict=ALLOW", alert="rate < 1%").allowed is None, "much of what should be often burns nothing"
    assert make_watch("w", "verdict=DENY", target="rate < 1%", budget="2%").allowed == 0.02


def test_watches_are_kept_as_they_were_and_of_their_tenant_alone(inside: Inside) -> None:
    decided(inside, [900] * 12, HOUR // 2)
    watched(alert="rate > 5%")
    home = existing_home()
    with pytest.raises(LumynError, match="is another one"):
        save_watch(home, make_watch("escalated", "verdict=DENY"))
    save_watch(home, make_watch("escalated", "verdict=ESCALATE", of="amount > 1", alert="rate > 5%"))
    other = existing_home(LumynConfig(tenant="other"))
    assert list_watches(other) == [] and history(other, "escalated") == [] and check_all(other) == []
    save_watch(other, make_watch("escalated", "verdict=ESCALATE", alert="rate > 5%", incident="inc-9"))
    assert check(other, "escalated", now_ms=NOW)["windows"]["long"]["count"] == 0, "another tenant's are not counted"
    remove_watch(home, "escalated")
    with pytest.raises(LumynError, match="no watch"):
        remove_watch(home, "escalated")
    assert [one.incident for one in list_watches(other, incident="inc-9")] == ["inc-9"]
    assert len(history(home, "escalated")) == 1, "what was measured stays"
    save_watch(home, make_watch("escalated", "verdict=DENY"))
    check(home, "escalated", now_ms=NOW)
    first, second = history(home, "escalated")
    assert first["definition"] != second["definition"]
    with sqlite3.connect(inside.home / "watches.db") as db:
        for statement in ("DELETE FROM rounds", "UPDATE rounds SET state = 'ok'", "DELETE FROM definitions"):
            with pytest.raises(sqlite3.IntegrityError):
                db.execute(statement)


@pytest.mark.parametrize("removed", [False, True])
def test_what_a_watch_asked_can_be_taken_out_and_what_was_measured_stays(inside: Inside, removed: bool) -> None:
    decided(inside, [900] * 12, HOUR // 2)
    asked = "subject_id = 'ann.zander@mail.example'"
    inside.run("watch", "add", "zander-1", "-q", asked, "--why", "ann.zander@mail.example wrote")
    inside.run("watch", "add", "other", "-q", "verdict=DENY")
    inside.run("watch", "check", "zander-1", code=None)
    before = inside.json("watch", "show", "zander-1", "--json", code=None)
    if removed:
        inside.run("watch", "remove", "zander-1")
    close_homes()
    assert b"ann.zander" in b"".join(path.read_bytes() for path in inside.home.glob("watches.db*"))
    told = inside.json("watch", "remove", "zander-1", "--redact", "--json")
    assert told == {"removed": "zander-1", "kept_as": "redacted-1"}
    close_homes()
    assert b"zander" not in b"".join(path.read_bytes() for path in inside.home.glob("watches.db*"))
    home = existing_home()
    (kept,) = history(home, "redacted-1")
    assert kept["windows"] == before["rounds"][0]["windows"] and kept["query"] == "[redacted]"
    assert [one.name for one in list_watches(home)] == ["other"]
    assert "no watch" in inside.refused("watch", "remove", "zander-1", "--redact", code=2)
    with sqlite3.connect(inside.home / "watches.db") as db, pytest.raises(sqlite3.IntegrityError, match="kept"):
        db.execute("UPDATE rounds SET state = 'ok'")


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("Bad Name", "-q", "verdict=DENY"), "is no name for a watch"),
        (("w", "-q", "verdict=WHAT"), "verdict"),
        (("w", "-q", "created_at > '2024-01-01'"), "its windows say when"),
        (("w", "-q", "verdict=DENY", "--of", "tenant=other"), "its own tenant's"),
        (("w", "-q", "verdict=DENY", "--alert", "rate over 1"), "is no condition"),
        (("w", "-q", "verdict=DENY", "--alert", "rate > 101%"), "can never be"),
        (("w", "-q", "verdict=DENY", "--alert", "burn > 14.4"), "needs a `--budget`"),
        (("w", "-q", "verdict=DENY", "--budget", "0"), "above 0"),
        (("w", "-q", "verdict=DENY", "--by", "2025-03-31"), "there is none"),
        (("w", "-q", "verdict=DENY", "--target", "rate < 1%", "--by", "2025-02-30"), "is no day"),
        (("w", "-q", "verdict=DENY", "--window", "1h", "--long-window", "5m"), "or longer"),
        (("w", "-q", "verdict=DENY", "--window", "soon"), "is no time"),
    ],
)
def test_what_makes_no_sense_is_refused(inside: Inside, arguments: tuple[str, ...], says: str) -> None:
    inside.decide(refund(1))
    assert says in inside.refused("watch", "add", *arguments, code=2)
    assert not (inside.home / "watches.db").exists() or list_watches(existing_home()) == []


def test_the_commands_tell_what_they_do(inside: Inside) -> None:
    for amount in [900] * 3 + [20] * 12:
        inside.decide(refund(amount, user=f"usr_{amount}"))
    assert "no watches yet" in inside.run("watch", "check").stderr
    inside.run("watch", "add", "esc", "-q", "verdict=ESCALATE", "--alert", "rate > 1%", "--incident", "inc-7", "--why", "\x1b[2Jwhy")
    done = inside.run("watch", "check", code=1)
    assert "alert" in done.stdout and "3, 20.00%" in done.stdout and "in both windows" in done.stderr
    assert inside.json("watch", "check", "esc", "--json", code=1)[0]["windows"]["short"]["events"] == 3
    (listed,) = inside.json("watch", "list", "--json")
    assert listed["incident"] == "inc-7" and listed["last"]["state"] == "alert"
    assert "esc" in inside.run("watch", "list").stdout and inside.json("watch", "list", "--incident", "x", "--json") == []
    shown = inside.run("watch", "show", "esc").stdout
    assert shown.count("alert") >= 3 and "█" in shown and "\x1b" not in shown
    assert len(inside.json("watch", "show", "esc", "--json")["rounds"]) == 2
    lines = inside.run("watch", "run", "--every", "0.1s", "--times", "2", "--json", code=1).stdout.splitlines()
    assert [json.loads(line)["state"] for line in lines] == ["alert", "alert"]
    inside.run("watch", "add", "late", "-q", "verdict=ESCALATE", "--target", "rate < 1%", "--by", "2020-01-01")
    assert inside.json("watch", "check", "late", "--json", code=1)[0]["target_state"] == "missed"
    inside.run("watch", "remove", "esc")
    assert "not watched any more" in inside.run("watch", "show", "esc").stderr
    assert "no watch `esc`" in inside.refused("watch", "check", "esc", code=2)
    assert "no watch `other`" in inside.refused("watch", "show", "other", code=2)


def samples(metrics: WatchMetrics) -> dict[tuple[str, str], float]:
    text = metrics.exposition("")[0].decode()
    return {
        (one.name, one.labels.get("window") or one.labels.get("state") or ""): one.value
        for family in text_string_to_metric_families(text)
        for one in family.samples
        if one.name.startswith("lumyn_watch")
    }


def test_every_metric_is_told_and_what_is_not_known_is_not_there(inside: Inside) -> None:
    decided(inside, [900] * 12, 2 * HOUR)
    result = watched(alert="rate > 5%", target="rate < 1%")
    metrics = WatchMetrics("default")
    metrics.checked([result])
    metrics.failed("storage_unavailable")
    told = samples(metrics)
    assert told["lumyn_watch_rate", "long"] == 1 and told["lumyn_watch_count", "short"] == 0
    assert ("lumyn_watch_rate", "short") not in told and ("lumyn_watch_lower", "short") not in told
    assert told["lumyn_watch_state", "no_data"] == 1 and told["lumyn_watch_alert", ""] == 0
    assert {name for name, _ in told} | {"lumyn_build_info"} == set(WATCH_METRICS)
    decided(inside, [900] * 3, HOUR // 2)
    metrics.checked(check_all(existing_home(), now_ms=NOW))
    told = samples(metrics)
    assert told["lumyn_watch_alert", ""] == 1 and ("lumyn_watch_state", "no_data") not in told
    remove_watch(existing_home(), "escalated")
    metrics.checked(check_all(existing_home(), now_ms=NOW))
    assert not any(name == "lumyn_watch_rate" for name, _ in samples(metrics)), "it is not watched any more"


def test_it_watches_until_it_is_stopped_and_serves_what_it_sees(inside: Inside) -> None:
    for _ in range(12):
        inside.decide(refund(900))
    save_watch(existing_home(), make_watch("esc", "verdict=ESCALATE", alert="rate > 1%"))
    port = free_port()
    process = subprocess.Popen(
        [sys.executable, "-m", "lumyn", "watch", "run", "--every", "1h", "--metrics-port", str(port)],
        cwd=inside.folder, env={**os.environ, "LUMYN_HOME": str(inside.home)}, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    try:
        text = ""
        for _ in range(200):
            try:
                ready = urllib.request.urlopen(f"http://127.0.0.1:{port}/readyz", timeout=5).status  # once a round was made
                text = urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=5).read().decode()
                break
            except OSError:
                time.sleep(0.1)
        assert 'lumyn_watch_alert{tenant="default",watch="esc"} 1.0' in text and ready == 200
        process.send_signal(signal.SIGTERM)
        assert process.wait(timeout=20) == 0
    finally:
        process.kill()
        process.communicate()


def test_a_round_that_fails_is_told_and_the_next_one_is_made(inside: Inside, monkeypatch: pytest.MonkeyPatch) -> None:
    from lumyn.watches import running
    from schemas.errors import StorageUnavailable

    inside.decide(refund(900))
    save_watch(existing_home(), make_watch("esc", "verdict=ESCALATE"))
    calls: list[int] = []

    def sometimes(home: Any) -> Any:
        calls.append(1)
        if len(calls) == 2:
            raise StorageUnavailable("the index is gone")
        return check_all(home)

    monkeypatch.setattr(running, "check_all", sometimes)
    said: list[str] = []
    rounds: list[Any] = []
    running.watch_on(existing_home(), 0.01, times=3, say=said.append, tell=rounds.append)
    assert len(rounds) == 2 and said == ["this round failed: the index is gone"]
