"""The key store: keys are made once, wrapped, held, and destroyed so that no byte of them is left."""

from __future__ import annotations

import os
import sqlite3
import stat
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from schemas.errors import IntegrityError, KeysUnavailable, OnHold
from streams.sqlite_keys import SqliteSubjectKeys
from streams.subject_keys import NO_KEYS, Subject

MASTER, OTHER = b"m" * 32, b"n" * 32
ANN, BEN = Subject("acme", "user", "ann@mail.example"), Subject("acme", "user", "ben@mail.example")


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "keys" / "subjects.db"


def opened(path: Path, master: bytes = MASTER) -> SqliteSubjectKeys:
    return SqliteSubjectKeys(path, lambda fresh: master)


@pytest.fixture
def keys(path: Path) -> SqliteSubjectKeys:
    return opened(path)


def bytes_of(path: Path) -> bytes:
    return b"".join(file.read_bytes() for file in sorted(path.parent.iterdir()))


def test_a_subject_has_one_key_however_often_and_by_whom_it_is_asked_for(keys, path):
    (first,) = keys.made([ANN])
    again = keys.made([BEN, ANN, ANN])
    assert again[1] == again[2] == first != again[0]
    assert opened(path).made([ANN]) == [first]
    assert keys.key(first.kid) == first.key and len(first.key) == 32 and keys.state(first.kid) == "live"


def test_the_same_id_in_another_tenant_or_of_another_type_is_somebody_else(keys):
    made = keys.made([ANN, ANN._replace(tenant="globex"), ANN._replace(type="merchant"), ANN._replace(id="ann")])
    assert len({one.kid for one in made}) == len({one.key for one in made}) == 4
    assert keys.named("acme", ANN.id) == sorted([made[0].kid, made[2].kid])
    assert keys.named("globex", ANN.id) == [made[1].kid]


def test_the_file_is_its_owners_and_holds_neither_names_nor_keys_in_clear(keys, path):
    (one,) = keys.made([ANN])
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    data = bytes_of(path)
    assert one.kid.encode() in data
    assert one.key not in data and MASTER not in data and b"ann@" not in data


def test_nothing_is_made_by_looking(keys, path):
    assert keys.key("s-" + "0" * 32) is None and keys.state("s-" + "0" * 32) == "unknown"
    assert keys.find(ANN) is None and keys.named("acme", ANN.id) == []
    assert not path.exists()


def test_an_erased_key_is_gone_to_the_last_byte(keys, path):
    ann, ben = keys.made([ANN, BEN])
    wrapped = sqlite3.connect(path).execute("SELECT wrapped FROM subjects WHERE kid = ?", (ann.kid,)).fetchone()[0]
    assert wrapped in bytes_of(path)
    keys.erase(ann.kid)
    assert keys.key(ann.kid) is None and keys.state(ann.kid) == "erasing"
    assert wrapped not in bytes_of(path), "neither in the file nor beside it"
    assert keys.find(ANN).state == "erasing", "the same command finds it, to go on"
    with pytest.raises(KeysUnavailable, match="being forgotten"):
        keys.made([ANN])
    keys.erase(ann.kid)
    keys.finish(ann.kid)
    assert keys.find(ANN) is None and keys.state(ann.kid) == "erased" and keys.named("acme", ANN.id) == []
    assert keys.key(ben.kid) == ben.key
    new = keys.made([ANN])[0]
    assert new.kid != ann.kid and new.key != ann.key


def test_of_many_keys_the_erased_ones_are_gone_to_the_last_byte(keys, path):
    made = keys.made([Subject("acme", "user", f"u{n}") for n in range(300)])
    wrapped = dict(sqlite3.connect(path).execute("SELECT kid, wrapped FROM subjects"))
    gone = [one.kid for one in made[::7]]
    for kid in gone:
        keys.erase(kid)
        keys.finish(kid)
    data = bytes_of(path)
    assert [kid for kid in gone if wrapped[kid] in data] == []
    assert all(wrapped[one.kid] in data for one in made if one.kid not in gone)


def test_what_another_process_erased_does_not_live_on_here(keys, path):
    (ann,) = keys.made([ANN])
    assert keys.key(ann.kid) == ann.key
    script = (
        "import sys; from pathlib import Path; from streams.sqlite_keys import SqliteSubjectKeys\n"
        f"keys = SqliteSubjectKeys(Path({str(path)!r}), lambda fresh: {MASTER!r}); keys.erase({ann.kid!r})"
    )
    subprocess.run([sys.executable, "-c", script], check=True)
    assert keys.key(ann.kid) is None
    opened(path).finish(ann.kid)
    assert keys.made([ANN])[0].kid != ann.kid


def test_a_hold_stops_erasing_until_it_is_released(keys):
    held = keys.hold(ANN, "case 7")
    assert held.hold == "case 7" and keys.find(ANN) == held, "also before anything is stored of it"
    (ann,) = keys.made([ANN])
    with pytest.raises(OnHold, match="case 7"):
        keys.erase(ann.kid)
    assert keys.key(ann.kid) == ann.key
    keys.release(ANN)
    keys.erase(ann.kid)
    assert keys.key(ann.kid) is None


def test_what_the_log_says_is_forgotten_is_destroyed_whatever_a_backup_says(keys):
    (ann,) = keys.made([ANN])
    keys.hold(ANN, "as the backup has it")
    keys.finish(ann.kid)
    assert keys.key(ann.kid) is None and keys.state(ann.kid) == "erased" and keys.find(ANN) is None


def test_another_master_key_is_refused_and_changes_nothing(keys, path):
    (ann,) = keys.made([ANN])
    before = path.read_bytes()
    wrong = opened(path, OTHER)
    for ask in (lambda: wrong.key(ann.kid), lambda: wrong.made([BEN]), lambda: wrong.erase(ann.kid)):
        with pytest.raises(KeysUnavailable, match="master key"):
            ask()
    assert path.read_bytes() == before and opened(path).key(ann.kid) == ann.key


def test_a_key_that_was_changed_in_the_file_is_no_key(keys, path):
    (ann,) = keys.made([ANN])
    db = sqlite3.connect(path)
    db.execute("UPDATE subjects SET wrapped = zeroblob(length(wrapped))")
    db.commit()
    with pytest.raises(IntegrityError):
        opened(path).key(ann.kid)


def test_a_file_that_is_no_key_store_is_unavailable(path):
    path.parent.mkdir()
    path.write_bytes(b"not a database at all" * 100)
    with pytest.raises(KeysUnavailable):
        opened(path).key("s-" + "0" * 32)


def test_many_at_once_make_one_key_each(path):
    subjects = [Subject("acme", "user", f"u{n}") for n in range(40)]
    found: list[list[str]] = []

    def make() -> None:
        found.append([one.kid for one in opened(path).made(subjects)])

    threads = [threading.Thread(target=make) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 6 and all(one == found[0] for one in found) and len(set(found[0])) == 40


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
def test_a_forked_process_reads_by_itself(keys):
    (ann,) = keys.made([ANN])
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        os.write(writing, b"y" if keys.key(ann.kid) == ann.key else b"n")
        os._exit(0)
    os.waitpid(child, 0)
    assert os.read(reading, 1) == b"y"
    keys.erase(ann.kid)
    assert keys.key(ann.kid) is None


def test_without_a_key_store_nothing_is_sealed():
    with pytest.raises(KeysUnavailable):
        NO_KEYS.made([ANN])
    assert NO_KEYS.state("s-" + "0" * 32) == "unknown"
