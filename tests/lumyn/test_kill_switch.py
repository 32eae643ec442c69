"""`lumyn kill-switch` on an embedded home: on, off, and how fast it took hold."""

from __future__ import annotations

import subprocess
import sys
from types import SimpleNamespace
from typing import Any
from uuid import uuid1

import pytest
from conftest_e2e import refund
from inside import Inside

from lumyn import LumynConfig, sdk

pytest_plugins = ("inside_plugin",)

PAYOUT = {**refund(100), "action": {"type": "payout", "amount": {"value": 100, "currency": "USD"}}}


def turn_on(inside: Inside, *scope: str) -> dict[str, Any]:
    on: dict[str, Any] = inside.json("kill-switch", "on", *(scope or ["--everything"]), "--why", "double refunds", "--json")
    return on


@pytest.mark.parametrize(
    ("scope", "stopped"),
    [
        ((), {"refund", "payout", "other tenant"}),
        (("--action-type", "refund"), {"refund", "other tenant"}),
        (("--tenant", "default"), {"refund", "payout"}),
        (("--policy", "refunds"), {"refund", "payout", "other tenant"}),
        (("--policy", "strange"), set()),
        (("--action-type", "refund", "--tenant", "default"), {"refund"}),
    ],
)
def test_it_stops_its_scope_and_nothing_else(inside: Inside, scope: tuple[str, ...], stopped: set[str]) -> None:
    turn_on(inside, *scope)
    asked = {
        "refund": (refund(100), None),
        "payout": (PAYOUT, None),
        "other tenant": (refund(100), LumynConfig(tenant="b")),
    }
    denied = {
        name for name, (body, config) in asked.items() if sdk.decide(body, config)["reason_codes"] == ["KILL_SWITCH"]
    }
    assert denied == stopped


def test_status_tells_that_it_was_contained_at_once(inside: Inside) -> None:
    inside.decide(refund(100))
    on = turn_on(inside, "--action-type", "refund")
    inside.decide(refund(100))
    inside.decide(refund(100))
    (status,) = inside.json("kill-switch", "status", "--json")
    assert (status["switch_id"], status["scope"]) == (on["switch_id"], {"action_type": "refund"})
    assert status["containment"] == {"seconds": None, "without": 0, "with_it": 2, "last": None}
    told = inside.run("kill-switch", "status").stdout
    assert told.splitlines()[0].startswith(f"{on['switch_id']} action_type=refund since ")
    assert told.splitlines()[1] == (
        "  contained at once: no decision without it after it was on, 2 denied in its first 30 s"
    )


def test_off_lets_through_again_and_is_told(inside: Inside) -> None:
    on = turn_on(inside)
    assert inside.decide(refund(100))["verdict"] == "DENY"
    assert inside.run("kill-switch", "off", on["switch_id"], "--why", "fixed").stdout == f"off: {on['switch_id']}\n"
    assert inside.decide(refund(100))["verdict"] == "ALLOW"
    done = inside.run("kill-switch", "status")
    assert (done.stdout, done.stderr) == ("", "no kill switch is on\n")


def test_a_scope_of_empty_text_is_refused_and_turns_nothing_on(inside: Inside) -> None:
    assert "a scope must not be empty" in inside.refused("kill-switch", "on", "--tenant", "", "--why", "x", code=2)
    inside.refused("kill-switch", "on", code=2)
    unsaid = inside.run("kill-switch", "on", "--why", "x", code=2).stderr
    assert "what is to be stopped is not said" in unsaid and "or `--everything`" in unsaid
    both = inside.refused("kill-switch", "on", "--everything", "--tenant", "acme", "--why", "x", code=2)
    assert "`--everything` and tenant=acme say two things" in both
    assert inside.decide(refund(100))["verdict"] == "ALLOW"


def test_an_id_that_is_not_one_switch_turns_nothing_off(inside: Inside, monkeypatch: pytest.MonkeyPatch) -> None:
    turn_on(inside)
    for name in ("zzz", ""):
        assert f"no switch `{name}` is on" in inside.refused("kill-switch", "off", name, code=2)
    assert "fits" not in inside.refused("kill-switch", "off", "zzz", code=2)
    monkeypatch.setattr("uuid.uuid4", lambda: SimpleNamespace(hex="ab" + uuid1().hex))
    turn_on(inside)
    turn_on(inside)
    assert "`ab` fits 2 switches that are on" in inside.refused("kill-switch", "off", "ab", code=2)
    assert inside.decide(refund(100))["verdict"] == "DENY"


@pytest.mark.parametrize(
    ("arguments", "scope"),
    [
        (["--everything", "--why", "x"], {}),
        (["--action-type", "refund", "--why=a = b", "--json"], {"action_type": "refund"}),
        (["--json", "--tenant=acme", "--policy", "p", "--why", "x"], {"tenant": "acme", "policy": "p"}),
    ],
)
def test_the_plain_form_needs_no_machinery_and_does_the_same(
    inside: Inside, arguments: list[str], scope: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    inside.decide(refund(20))
    told = []
    for short in (True, False):
        if not short:
            monkeypatch.setattr("lumyn.cli.stop_now.stop_now", lambda arguments: False)
        told.append(inside.run("kill-switch", "on", *arguments).stdout)
    switches = inside.json("kill-switch", "status", "--json")
    assert [switch["scope"] for switch in switches] == [scope, scope]
    assert [text.replace(s["switch_id"], "ID") for text, s in zip(told, switches, strict=True)] == [
        told[0].replace(switches[0]["switch_id"], "ID")
    ] * 2


@pytest.mark.parametrize(
    "arguments",
    [
        [], ["--why"], ["--why", "x"], ["--everything"], ["--everything", "--why", "x", "--everything=1"],
        ["--everything", "--why", "x", "--policy", "p"], ["--why", "x", "all"], ["--why", "x", "--action_type", "y"],
        ["--tenant", "acme"], ["--why", "x", "--tenant", ""], ["--why", "x", "--json=1"], ["--help"], ["--why", "x", "-h"],
    ],
)  # fmt: skip
def test_any_other_form_is_the_machinery_s_and_turns_nothing_on(inside: Inside, arguments: list[str]) -> None:
    inside.decide(refund(20))
    code = 0 if {"--help", "-h"} & set(arguments) else 2
    inside.run("kill-switch", "on", *arguments, code=code)
    assert inside.json("kill-switch", "status", "--json") == []


def test_it_is_on_before_the_command_line_is_loaded(inside: Inside) -> None:
    inside.decide(refund(20))
    script = (
        "import sys; sys.argv = ['lumyn', 'kill-switch', 'on', '--everything', '--why', 'x']\n"
        "from lumyn.__main__ import main\n"
        "try: main()\n"
        "except SystemExit as stop: assert stop.code == 0\n"
        "print(sorted({'typer', 'faust', 'rich'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, cwd=inside.folder)
    assert done.stdout.endswith("[]\n") and done.stdout.startswith("on: "), done.stdout + done.stderr


@pytest.mark.parametrize("plain", [True, False])
def test_a_switch_that_is_the_first_thing_of_a_new_home_says_where_it_stands(
    inside: Inside, plain: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not plain:
        monkeypatch.setattr("lumyn.cli.stop_now.stop_now", lambda arguments: False)
    first = inside.run("kill-switch", "on", "--everything", "--why", "x")
    assert first.stderr == (
        f"note: `{inside.home}` is new, nothing was ever decided there: is it the home to be stopped? "
        "LUMYN_HOME names another\n"
    )
    assert inside.run("kill-switch", "on", "--everything", "--why", "x").stderr == ""


def test_a_home_that_decides_is_not_asked_about(inside: Inside) -> None:
    inside.decide(refund(20))
    assert inside.run("kill-switch", "on", "--everything", "--why", "x").stderr == ""


@pytest.mark.parametrize("why", ["", "  "])
def test_a_switch_needs_a_reason(inside: Inside, why: str) -> None:
    assert "`--why` is empty" in inside.refused("kill-switch", "on", "--everything", "--why", why, code=2)
    assert inside.decide(refund(100))["verdict"] == "ALLOW"


@pytest.mark.parametrize(
    ("option", "given", "near"),
    [
        ("action_type", "refnd", "refund"), ("policy", "refund", "refunds"), ("tenant", "defualt", "default"),
        ("action_type", "zzz", None), ("tenant", "refund", None), ("action_type", "\x1b[2J%'\"", None),
    ],
)  # fmt: skip
@pytest.mark.parametrize("plain", [True, False])
def test_what_was_never_decided_is_told_and_stays_on(
    inside: Inside, option: str, given: str, near: str | None, plain: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not plain:
        monkeypatch.setattr("lumyn.cli.stop_now.stop_now", lambda arguments: False)
    inside.decide(refund(100))
    name = f"--{option.replace('_', '-')}"
    first = inside.run("kill-switch", "on", name, given, "--why", "x")
    assert first.stdout.startswith("on: ")
    told = f"no decision in the index has {option.replace('_', ' ')} `"
    hint = f"; did you mean `{near}`?\n" if near else ": it may stop nothing\n"
    assert first.stderr.startswith(f"note: {told}") and first.stderr.endswith(hint) and "\x1b" not in first.stderr
    on = inside.json("kill-switch", "on", name, given, "--why", "x", "--json")
    assert on["never_decided"] == {option: near}
    assert [one["never_decided"] for one in inside.json("kill-switch", "status", "--json")] == [{option: near}] * 2
    status = inside.run("kill-switch", "status").stdout.splitlines()
    assert status[2].startswith(f"  {told}") and status[2].endswith(hint.strip("\n"))


@pytest.mark.parametrize("scope", [("--everything",), ("--action-type", "refund"), ("--tenant", "default", "--policy", "refunds")])
def test_what_was_decided_once_is_not_remarked_on(inside: Inside, scope: tuple[str, ...]) -> None:
    inside.decide(refund(100))
    assert inside.run("kill-switch", "on", *scope, "--why", "x").stderr == ""
    assert turn_on(inside, *scope)["never_decided"] == {}
    assert "no decision in the index" not in inside.run("kill-switch", "status").stdout


def test_a_switch_is_on_where_names_can_t_be_looked_up(inside: Inside) -> None:
    inside.decide(refund(100))
    for path in inside.home.glob("index.db*"):
        path.unlink()
    (inside.home / "index.db").mkdir()
    assert inside.run("kill-switch", "on", "--action-type", "refund", "--why", "x").stdout.startswith("on: ")
    assert inside.decide(refund(100))["reason_codes"] == ["KILL_SWITCH"]
    assert "contained at once" in inside.run("kill-switch", "status").stdout
