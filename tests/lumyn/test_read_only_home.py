"""A home that may not be written is read all the same: that is how an auditor gets a log."""

from __future__ import annotations

import ctypes
import gc
import json
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest
from inside import Done, Inside

from lumyn import wiring
from lumyn.inbox import escalations

pytest_plugins = ("inside_plugin",)


def _give_up_privileges() -> None:
    """From here on permissions bind root, too (capset(2), with no capability left)."""
    header, none = (ctypes.c_uint32 * 2)(0x20080522, 0), (ctypes.c_uint32 * 6)()
    assert ctypes.CDLL(None).capset(header, none) == 0



def _as_reader(home: Path, commands: Callable[[], list[Done]]) -> list[Done]:
    """Run commands in a process of its own that may read the home and not write to it, also where root tests."""
    wiring.close_homes()
    for path in (home, *home.rglob("*")):
        path.chmod(0o555 if path.is_dir() else 0o444)
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        told: object = "died"
        try:
            _give_up_privileges()
            told = [(done.code, done.stdout, done.stderr) for done in commands()]
        except BaseException as error:
            told = repr(error)
        finally:
            with suppress(BaseException):
                wiring.close_homes()
                os.write(write, json.dumps(told).encode())
            os._exit(0)
    os.close(write)
    with os.fdopen(read, "rb") as pipe:
        data = pipe.read()
    os.waitpid(child, 0)
    for path in (home, *home.rglob("*")):
        path.chmod(0o755 if path.is_dir() else 0o644)
    found = json.loads(data)
    assert isinstance(found, list), found
    return [Done(*one) for one in found]


@pytest.fixture
def audited(inside: Inside, monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[Inside, Path, str]]:
    """A home with a sealed, checkpointed decision, where anybody may look; and the decision's id."""
    folder = Path(tempfile.mkdtemp(prefix="lumyn-audited-"))
    folder.chmod(0o755)
    home = folder / "home"
    (folder / "out").mkdir()
    (folder / "out").chmod(0o777)
    monkeypatch.setenv("LUMYN_HOME", str(home))
    inside.write("policy.yml", (Path(__file__).parents[2] / "examples/refunds/policy.yml").read_bytes())
    inside.write("lumyn.toml", "[privacy]\nencrypt_subjects = true\n")
    request = Path(__file__).parents[2] / "examples/refunds/request.json"
    name = inside.decide(json.loads(request.read_bytes()))["decision_id"]
    inside.run("label", name, "--label", "failure")
    inside.run("checkpoint")
    monkeypatch.chdir(folder / "out")
    yield inside, home, name
    wiring.close_homes()
    shutil.rmtree(folder, ignore_errors=True)


def _contents(home: Path) -> dict[str, bytes]:
    return {str(path.relative_to(home)): path.read_bytes() for path in home.rglob("*") if path.is_file()}


def test_a_home_that_may_not_be_written_is_listed_shown_explained_verified_and_exported(
    audited: tuple[Inside, Path, str],
) -> None:
    inside, home, name = audited
    wiring.close_homes()
    before = _contents(home)
    reading = (
        ("list", "-q", "verdict=DENY"), ("show", name[:14]), ("explain", name), ("verify",), ("verify", name),
        ("export", name, "--pack", "--out", "x.zip"), ("verify", "x.zip"), ("replay", "x.zip", "--memory", "recorded"),
        ("memory", "verify"),
    )  # fmt: skip
    for arguments, done in zip(
        reading, _as_reader(home, lambda: [inside.run(*one, code=None) for one in reading]), strict=True
    ):
        assert done.code == 0, f"{arguments}: {done.stderr}"
        told = done.stdout
        assert {"verify": "verified", "memory": "1 the same", "export": "x.zip"}.get(arguments[0], name) in told
    assert _contents(home) == before


def test_what_would_change_such_a_home_says_that_it_may_only_be_read(audited: tuple[Inside, Path, str]) -> None:
    inside, home, name = audited
    changing = (("label", name, "--label", "success"), ("index", "rebuild"), ("memory", "rebuild"))
    done = _as_reader(home, lambda: [inside.run(*one, code=None) for one in changing])
    for arguments, one in zip(changing, done, strict=True):
        assert one.code == 4, f"{arguments}: {one}"
        assert "only read" in one.stderr


def test_what_is_left_in_a_write_ahead_log_is_not_passed_over(audited: tuple[Inside, Path, str]) -> None:
    inside, home, name = audited
    wiring.close_homes()
    (home / "lumyn.db-wal").write_bytes(b"")
    (done,) = _as_reader(home, lambda: [inside.run("show", name, code=None)])
    assert done.code == 4
    assert "something is left in `lumyn.db-wal`: copy the whole folder to one that may be written" in done.stderr


def test_a_log_that_changed_since_is_opened_anew(
    audited: tuple[Inside, Path, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A log read without locks does not see what others append, so it is not kept beyond that."""
    inside, home, _ = audited
    wiring.close_homes()
    real = wiring.may_be_written
    monkeypatch.setattr(wiring, "may_be_written", lambda _: False)
    monkeypatch.setattr(wiring, "wal_of", lambda path: path.with_name("none"))
    first = wiring.existing_home()
    assert wiring.existing_home() is first
    (home / "lumyn.db").touch()
    os.utime(home / "lumyn.db", ns=(1, 1))
    assert wiring.existing_home() is not first
    monkeypatch.setattr(wiring, "may_be_written", real)
    wiring.existing_home().log.end("records", 0)
    assert inside.run("verify").code == 0


@pytest.fixture
def kept(audited: tuple[Inside, Path, str], monkeypatch: pytest.MonkeyPatch) -> tuple[Inside, Path, str]:
    """The same with an incident, a watch that was checked, an escalation that somebody has, and an API key."""
    inside, home, name = audited
    monkeypatch.setenv("LUMYN_POLICY", str(inside.folder / "policy.yml"))
    inside.run("incident", "open", "--title", "A refund was paid twice", "--decision", name)
    inside.run("watch", "add", "denials", "--query", "verdict=DENY")
    inside.run("watch", "check", code=None)
    request = json.loads((Path(__file__).parents[2] / "examples/refunds/request.json").read_bytes())
    escalated = next(
        record for amount in (400, 300, 2000, 20000)
        if (record := inside.decide(
            {**request, "evidence": {**request.get("evidence", {}), "chargeback_risk": 0.1},
             "action": {**request["action"], "amount": {"value": amount, "currency": "USD"}}}
        ))["verdict"] == "ESCALATE"
    )  # fmt: skip
    inside.run("inbox", "assign", escalated["decision_id"], "--to", "ann")
    inside.run("keys", "create", "--tenant", "t", "--role", "read")
    wiring.close_homes()
    for store in escalations._stores.values():
        store.close()
    gc.collect()  # what still holds a file open empties its write-ahead log as it goes
    assert not [*home.rglob("*-wal")]
    return audited


LOOKS = [
    (("incident", "list"), "A refund was paid twice"), (("incident", "show", "INC-1"), "A refund was paid twice"),
    (("incident", "search", "refund"), "INC-1"), (("incident", "postmortem", "INC-1"), "A refund was paid twice"),
    (("watch", "list"), "denials"), (("watch", "show", "denials"), "verdict=DENY"),
    (("inbox", "list"), "ann"), (("keys", "list"), " api t read active"),
]  # fmt: skip


def test_what_people_keep_in_such_a_home_is_shown_as_it_is(kept: tuple[Inside, Path, str]) -> None:
    inside, home, _ = kept
    before = _contents(home)
    done = _as_reader(home, lambda: [inside.run(*one, code=None) for one, _ in LOOKS])
    for (arguments, told), one in zip(LOOKS, done, strict=True):
        assert one.code == 0, f"{arguments}: {one.stderr}"
        assert told in one.stdout, arguments
    assert _contents(home) == before


def test_what_would_change_what_people_keep_there_is_refused_plainly(kept: tuple[Inside, Path, str]) -> None:
    inside, home, _ = kept
    before = _contents(home)
    changing = (
        ("incident", "note", "INC-1", "x"), ("incident", "open", "--title", "x"), ("watch", "remove", "denials"),
        ("watch", "add", "more", "--query", "verdict=ALLOW"), ("keys", "create", "--tenant", "t", "--role", "read"),
    )  # fmt: skip
    done = _as_reader(home, lambda: [inside.run(*one, code=None) for one in changing])
    for arguments, one in zip(changing, done, strict=True):
        assert one.code == 4, f"{arguments}: {one}"
        assert ".db: " in one.stderr and "may only be read" in one.stderr and "help: " in one.stderr, one.stderr
    assert _contents(home) == before


def test_what_is_left_in_the_write_ahead_log_of_such_a_file_is_not_passed_over(kept: tuple[Inside, Path, str]) -> None:
    inside, home, _ = kept
    (home / "keys" / "api.db-wal").write_bytes(b"")
    (done,) = _as_reader(home, lambda: [inside.run("keys", "list", code=None)])
    assert done.code == 4 and "something is left in `api.db-wal`" in done.stderr
