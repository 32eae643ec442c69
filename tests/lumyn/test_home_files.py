"""The SQLite files of a home: each is its owner's alone, refuses what it can't read, and says what to do."""

from __future__ import annotations

import json
import sqlite3
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from conftest_e2e import refund
from inside import Inside

from lumyn.access.store import KeyStore
from lumyn.config import LumynConfig
from lumyn.inbox.store import InboxStore
from lumyn.incidents.store import IncidentStore
from lumyn.watches import list_watches, make_watch, save_watch
from lumyn.wiring import close_homes, operator_home
from memory_service import sqlite_file
from schemas.errors import KeysUnavailable, StorageUnavailable
from streams.sqlite_keys import SqliteSubjectKeys
from streams.subject_keys import Subject

pytest_plugins = ("inside_plugin",)

ANN = Subject("default", "user", "ann")


def incident(folder: Path) -> Any:
    store, data = IncidentStore(folder), {"title": "Late", "severity": "sev3"}
    store.append("default", None, lambda _: [("opened", data)], actor="ann", at_ms=1)
    return store.numbers("default")


def inbox(folder: Path) -> Any:
    store = InboxStore(folder)
    with store.alone():
        store.add("default", "x", "assigned", "ann", assignee="ann")
    return len(store.of("default", "x"))


def watch(folder: Path) -> Any:
    home = operator_home(LumynConfig(home=folder))
    save_watch(home, make_watch("w", "verdict=DENY"))
    return len(list_watches(home))


def keys(folder: Path) -> Any:
    store = KeyStore(folder)
    store.create("default", frozenset({"read"}), actor="ann")
    return len(store.all_keys())


def subjects(folder: Path) -> Any:
    return len(SqliteSubjectKeys(folder / "keys/subjects.db", lambda fresh: b"m" * 32).made([ANN]))


FILES: dict[str, tuple[str, Callable[[Path], Any], str]] = {
    "the incidents": ("incidents.db", incident, "2"),
    "the escalations": ("inbox.db", inbox, "1"),
    "the watches": ("watches.db", watch, "1"),
    "the API keys": ("keys/api.db", keys, "1"),
    "the subjects' keys": ("keys/subjects.db", subjects, "1"),
}


@pytest.fixture(params=FILES)
def what(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def folder(tmp_path: Path) -> Any:
    yield tmp_path
    close_homes()


def expect(what: str, folder: Path, message: str, help: str) -> None:
    name, use, _ = FILES[what]
    with pytest.raises(StorageUnavailable) as caught:
        use(folder)
    error = caught.value
    assert error.message.startswith(what) and message in error.message
    assert help in (error.help or "") and error.where == str(folder / name) and error.exit_code == 4
    assert isinstance(error, KeysUnavailable) == (what == "the subjects' keys")


def test_it_is_its_owners_alone(folder: Path, what: str) -> None:
    name, use, _ = FILES[what]
    use(folder)
    assert {stat.S_IMODE(path.stat().st_mode) for path in (folder / name).parent.glob(f"{Path(name).name}*")} == {0o600}


def test_a_newer_layout_is_refused_and_left_alone(folder: Path, what: str) -> None:
    name, use, layout = FILES[what]
    use(folder)
    with sqlite3.connect(folder / name) as db:
        assert str(db.execute("PRAGMA user_version").fetchone()[0]) == layout
        db.execute("PRAGMA user_version=77")
    db.close()
    expect(what, folder, f"are of layout 77, and this version knows {layout}", "the version of lumyn-streams that wrote")
    with sqlite3.connect(folder / name) as db:
        db.execute(f"PRAGMA user_version={layout}")
    db.close()
    use(folder)


def test_a_file_that_is_none_of_ours_is_told(folder: Path, what: str) -> None:
    name = FILES[what][0]
    (folder / name).parent.mkdir(exist_ok=True)
    (folder / name).write_bytes(b"this is no database, whatever its name is" * 200)
    expect(what, folder, "can't be used: file is not a database", "restore it from a backup")
    assert (folder / name).read_bytes().startswith(b"this is no database")


def test_a_file_that_another_holds_is_told(folder: Path, what: str, monkeypatch: pytest.MonkeyPatch) -> None:
    name, use, _ = FILES[what]
    use(folder)
    monkeypatch.setattr(sqlite_file, "BUSY_S", 0.05)
    other = sqlite3.connect(folder / name, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    expect(what, folder, "database is locked", "another process holds the file")
    other.execute("ROLLBACK")
    other.close()
    use(folder)


def test_a_folder_in_its_place_is_told(folder: Path, what: str) -> None:
    name, _, _ = FILES[what]
    (folder / name).mkdir(parents=True)
    expect(what, folder, "can't be used: Is a directory", "")


def test_a_file_from_before_layouts_were_numbered_is_read(folder: Path, what: str) -> None:
    """`PRAGMA user_version` was 0 in all but the incidents'."""
    name, use, layout = FILES[what]
    use(folder)
    if what == "the incidents":
        pytest.skip("its layouts were numbered from the first one on")
    close_homes()
    with sqlite3.connect(folder / name) as db:
        db.execute("PRAGMA user_version=0")
        before = db.execute("SELECT sql FROM sqlite_master ORDER BY name").fetchall()
    db.close()
    assert use(folder) >= 1
    with sqlite3.connect(folder / name) as db:
        assert str(db.execute("PRAGMA user_version").fetchone()[0]) == layout
        assert db.execute("SELECT sql FROM sqlite_master ORDER BY name").fetchall() == before
    db.close()


@pytest.mark.parametrize("home", [".lumyn", ".lumyn/inner"])
@pytest.mark.parametrize("arguments", [
    "decide r.json", "decide r.json --no-wait", "show 01", "list", "explain 01", "export 01 --pack --out x.zip", "verify", "verify 01",
    "label 01 --label failure", "relabel --query amount=1 --label failure --why x", "redrive --query amount=1", "checkpoint",
    "policy list", "policy publish policy.yml", "policy activate refunds", "kill-switch on --everything --why x",
    "kill-switch status", "kill-switch off x", "memory search r.json", "memory stats", "memory rebuild", "memory suspects",
    "incident list", "incident open --title x", "watch list", "watch add x --query amount=1", "watch check", "inbox list",
    "keys list", "keys create --tenant t --role read", "keys show", "rate list", "rate --query amount=1", "gameday list",
    "ledger list", "backfill --policy policy.yml", "backtest --policy policy.yml", "dead-letters list", "index rebuild",
    "runbook list", "serve --port 0", "dev --port 0",
])  # fmt: skip
def test_a_home_that_is_a_file_is_refused_with_what_where_and_what_to_do(
    inside: Inside, monkeypatch: pytest.MonkeyPatch, arguments: str, home: str
) -> None:
    inside.write(".lumyn", "not a folder\n")
    inside.write("r.json", json.dumps(refund()))
    monkeypatch.setenv("LUMYN_HOME", home)
    done = inside.run(*arguments.split(), code=2)
    assert done.stderr == (
        f"lumyn: {home}: the home of decisions must be a folder, and a file stands there\n"
        "  help: move the file `.lumyn` away, or name another folder: LUMYN_HOME\n"
    )
    assert done.stdout == "" and (inside.folder / ".lumyn").read_text() == "not a folder\n"


def test_the_doctor_finds_a_home_that_is_a_file(inside: Inside) -> None:
    inside.write(".lumyn", "not a folder\n")
    assert "a file stands there" in inside.run("doctor", code=1).stdout
