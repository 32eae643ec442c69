"""The command line as a whole: every command has an example and `--json`, and refuses what it does not know."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import typer
from inside import Inside, one_line

from lumyn.cli.app import app

pytest_plugins = ("inside_plugin",)

PROMISED = {
    "decide", "show", "list", "explain", "export", "replay", "label", "diff", "backtest", "verify", "demo", "dev",
    "policy check", "policy show", "policy publish", "policy activate", "policy rollback", "policy list",
    "kill-switch on", "kill-switch off", "kill-switch status", "memory search", "memory stats", "memory rebuild",
    "memory verify", "memory forget", "memory hold", "memory quarantine", "memory release", "memory rollback", "relabel",
    "keys show", "keys list", "keys trust", "keys create", "keys revoke", "serve", "index rebuild", "doctor", "topics create", "worker decide",
    "worker labels", "worker index",
}  # fmt: skip
NO_DATA = {"worker decide", "worker labels", "worker index", "worker shadow", "demo", "dev", "serve"}
"""A story, a server and workers: what they print is talk."""


def commands(command: Any = None, path: tuple[str, ...] = ()) -> Iterator[tuple[str, Any]]:
    """Every command that does something, by its words."""
    command = command or typer.main.get_command(app)
    inner = getattr(command, "commands", None)
    if inner is None:
        yield " ".join(path), command
        return
    for name, below in inner.items():
        yield from commands(below, (*path, name))


COMMANDS = dict(commands())
GROUPS = sorted({name.split()[0] for name in COMMANDS if " " in name})


def test_the_promised_commands_are_there() -> None:
    assert set(COMMANDS) >= PROMISED


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_has_help_with_an_example_of_itself(inside: Inside, name: str) -> None:
    for option in ("--help", "-h"):
        text = inside.run(*name.split(), option).stdout
        assert "Example" in text
        assert f"lumyn {name}" in text.partition("Example")[2]
    assert not inside.home.exists()


@pytest.mark.parametrize(
    "words",
    ["", "memory", "memory -h", "incident --help", "lst", "memory sats", "kill-switch of", "policy show", "list --nope",
     "keys create --role", "rate changes -h", "--version", "memory explain -h", "worker"],
)  # fmt: skip
def test_made_alone_a_command_says_what_it_says_among_all(
    inside: Inside, words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    alone = inside.run(*words.split(), code=None)
    monkeypatch.setattr("lumyn.cli.app._only", lambda whole, words: whole)
    among = inside.run(*words.split(), code=None)
    assert (alone.code, alone.stdout, alone.stderr) == (among.code, among.stdout, among.stderr)
    assert alone.stdout + alone.stderr


@pytest.mark.parametrize("name", COMMANDS)
def test_examples_stand_on_lines_of_their_own(inside: Inside, name: str) -> None:
    """A user copies a line: help must not flow examples into one another."""
    text = inside.run(*name.split(), "--help").stdout
    for line in text.splitlines():
        assert line.count("lumyn ") <= 1, line
        assert "Exit 0" not in line or "lumyn" not in line, line


@pytest.mark.parametrize("name", COMMANDS)
def test_every_option_and_argument_is_explained(name: str) -> None:
    for parameter in COMMANDS[name].params:
        assert getattr(parameter, "help", None), parameter.name


@pytest.mark.parametrize("name", sorted(set(COMMANDS) - NO_DATA))
def test_every_command_that_gives_data_has_json(name: str) -> None:
    assert any("--json" in parameter.opts for parameter in COMMANDS[name].params)


@pytest.mark.parametrize("name", [*COMMANDS, *GROUPS, ""])
def test_an_unknown_option_is_exit_2_and_one_line(inside: Inside, name: str) -> None:
    done = inside.run(*name.split(), "--no-such-option", code=2)
    assert done.stdout == ""
    line = one_line(done.stderr)
    assert "--no-such-option" in line
    assert "--help`" in done.stderr
    assert not inside.home.exists()


@pytest.mark.parametrize("arguments", [("nonsense",), ("polcy", "check"), ("policy", "nonsense"), ("show",), ("replay",),
                                       ("label", "01"), ("list", "--limit", "0"), ("list", "--limit", "x"),
                                       ("export", "a", "b"), ("list", "--query"), ("diff", "x.jsonl")])  # fmt: skip
def test_misuse_is_exit_2_and_one_line(inside: Inside, arguments: tuple[str, ...]) -> None:
    done = inside.run(*arguments, code=2)
    assert done.stdout == ""
    one_line(done.stderr)


def test_a_bare_command_shows_its_help(inside: Inside) -> None:
    assert "Usage: lumyn" in inside.run().stdout
    for group in GROUPS:
        done = inside.run(group, code=None)
        assert f"Usage: lumyn {group}" in done.stdout + done.stderr
        assert done.code in (0, 2)


def test_the_version_is_told(inside: Inside) -> None:
    assert inside.run("--version").stdout.startswith("lumyn-streams ")


def test_errors_are_json_too_when_json_is_asked_for(inside: Inside) -> None:
    import json

    done = inside.run("show", "01", "--json", code=2)
    assert done.stdout == ""
    assert json.loads(done.stderr)["error"]["code"] == "not_found"
