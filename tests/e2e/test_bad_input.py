"""Bad input of every kind: one line that says what and where, the right exit code, nothing half written."""

from __future__ import annotations

import io
import json
import os
import re
import resource
import signal
import sqlite3
import struct
import subprocess
import time
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from conftest_e2e import Shell, refund
from inside import Inside, one_line

from lumyn import LumynConfig, sdk, wiring
from schemas.canonical import encode
from schemas.errors import BadInput, StorageUnavailable
from schemas.label_check import check_label_form
from schemas.record import record_digest
from streams.local_log import LocalLog
from streams.log import Append
from streams.packs import write_pack

pytest_plugins = ("inside_plugin",)

HOSTILE = "\x1b[2J\x1b]0;owned\x07\x9b31m\nverdict: ALLOW\n| a | <script>alert(1)</script> | \u202egnp.exe\r\x00\u2028"


# Requests


@pytest.mark.parametrize(
    ("body", "told"),
    [
        ('{\n "subject": }', "stdin:2:13: malformed JSON"),
        ('{"a": 1,}', "stdin:1:"),
        ("", "no request"),
        ("   \n\n", "no request"),
        ("null", "a request is a JSON object, not null"),
        ("[]", "a request is a JSON object, not an array"),
        ("7", "a request is a JSON object, not a number"),
        ('"text"', "a request is a JSON object, not a string"),
        ("{}", "`subject` is missing"),
        ('{"subject":{"type":"u","id":"x"},"action":{"type":"a"},\n"evidence":{"r":NaN}}', "stdin:2:17: `NaN`"),
        ('{"subject":{"type":"u","id":"x"},\n"subject":{}}', "stdin:2:1: duplicate key `subject`"),
        ('{"subject":{"type":"u","id":"x"},"action":{"type":"a","n":12345678901234567890}}', "beyond 2^53-1"),
        ('{"subject":{"type":"u","id":"x"},"action":{"type":"a"},"evidance":{}}', "did you mean `evidence`"),
        ('{"subject":{"type":"u","id":"\\ud800"},"action":{"type":"a"}}', "lone surrogate"),
        ('{"subject":{"type":"u","id":"\\u0000"},"action":{"type":"a"}}', "`subject.id` must be"),
        ('{"subject":{"type":"u","id":7},"action":{"type":"a"}}', "`subject.id`"),
        ('{"subject":{"type":"u","id":"x"},"action":{"type":"a","amount":-1}}', "must not be negative"),
        ('{"tenant":"../x","subject":{"type":"u","id":"x"},"action":{"type":"a"}}', "`tenant` must be"),
        ('{"subject":{"type":"u","id":"x"},"action":{"type":"a"},"context":{"inline":{},"digest":"sha256:0"}}', "digest"),
        ("{'subject': 1}", "stdin:1:2: malformed JSON"),
        ("\ufeff{}", "stdin"),
    ],
)
def test_a_bad_request_is_told_with_its_place(inside: Inside, body: str, told: str) -> None:
    assert told in inside.refused("decide", "-", stdin=body, code=2)
    assert inside.records() == 0


@pytest.mark.parametrize("body", [b"\xff\xfe{}", b"\x00\x00", b"\x1f\x8b\x08", b"PK\x03\x04", b'{"a":"\xc3\x28"}'])
def test_bytes_that_are_no_text_are_refused(inside: Inside, body: bytes) -> None:
    inside.refused("decide", "-", stdin=body, code=2)
    assert inside.records() == 0


def test_huge_and_deep_bodies_are_refused(inside: Inside) -> None:
    huge = json.dumps(refund(1, note="x" * 300_000))
    assert "more than the 262144 accepted" in inside.refused("decide", "-", stdin=huge, code=2)
    for opening, closing in (("[", "]"), ('{"a":', "}")):
        for depth in (65, 5_000):
            deep = json.dumps(refund(1, evidence={"a": "@"})).replace('"@"', opening * depth + "1" + closing * depth)
            assert "nested" in inside.refused("decide", "-", stdin=deep, code=2)
    many = json.dumps(refund(1, evidence={f"k{n}": n for n in range(40_000)}))
    inside.refused("decide", "-", stdin=many, code=2)
    assert inside.records() == 0


def test_the_largest_and_deepest_accepted_bodies_go_all_the_way(inside: Inside) -> None:
    deep: Any = 1
    for _ in range(60):
        deep = {"a": deep}
    full = refund(100, evidence={"chargeback_risk": 0.1, "deep": deep, "note": "y" * 255_000})
    record = inside.decide(full)
    inside.run("export", record["decision_id"], "--pack", "--out", "large.zip")
    assert "Replay successful" in inside.run("replay", "large.zip").stdout
    inside.run("verify")
    inside.run("show", record["decision_id"])
    inside.run("explain", record["decision_id"])


def test_python_values_that_are_no_json_are_refused(inside: Inside) -> None:
    loop: dict[str, Any] = {}
    loop["self"] = loop
    for value in (loop, object(), {1: 2}, {"a", "b"}, b"bytes", Path("/"), "\ud800"):
        with pytest.raises(BadInput):
            sdk.decide(refund(1, evidence={"x": value}))
    assert inside.records() == 0


def test_bad_lines_among_good_ones_are_told_by_line_and_the_good_ones_are_decided(inside: Inside) -> None:
    lines = [json.dumps(refund(1)), '{"no": 1}', json.dumps(refund(2)), "not json", json.dumps(refund(3))]
    inside.write("some.jsonl", "\n".join(lines))
    done = inside.run("decide", "some.jsonl", code=2)
    amounts = [json.loads(line)["request"]["action"]["amount"]["value"] for line in done.stdout.splitlines()]
    assert amounts == [1, 2, 3]
    assert "some.jsonl:2" in done.stderr
    assert "some.jsonl:4:1" in done.stderr
    assert len([line for line in done.stderr.splitlines() if line.startswith("lumyn:")]) == 2


@pytest.mark.parametrize("name", ["nothing.json", ".", "a\x1b[31mb.json"])
def test_a_request_file_that_is_not_there_is_exit_2(inside: Inside, name: str) -> None:
    assert "\x1b" not in inside.refused("decide", name, code=2)


# Policies


@pytest.mark.parametrize(
    ("text", "place"),
    [
        ("rules: [", ":2:1: "),
        ("rules:\n  - id: A\n    iff: {a: 1}\n    then: {verdict: DENY}\n", ":3:5: "),
        ("rules:\n  - id: A\n    if: {a: {gt: .nan}}\n    then: {verdict: DENY}\n", ":3:"),
        ("rules:\n  - id: A\n    id: B\n    then: {verdict: DENY}\n", ":3:5: "),
        ("\x00", ":1:"),
        ("rules: &a [*a]\n", ":1:"),
        ("rules: " + "[" * 5000, ":1:"),
        ("7", ":1:"),
        ("", ""),
        ("rules: []\nrules: []\n", ":2:1"),
    ],
)
def test_a_bad_policy_is_told_with_line_and_column_by_every_command(inside: Inside, text: str, place: str) -> None:
    inside.write("bad.yml", text)
    checked = inside.run("policy", "check", "bad.yml", code=2)
    assert f"bad.yml{place}" in checked.stdout
    inside.write("request.json", json.dumps(refund(1)))
    inside.decide(refund(1))
    inside.run("export", "--limit", 1, "--out", "data.jsonl")
    for arguments in (("decide", "request.json", "--policy", "bad.yml"), ("diff", "data.jsonl", "--policy", "bad.yml"),
                      ("policy", "publish", "bad.yml"), ("policy", "show", "bad.yml")):  # fmt: skip
        done = inside.run(*arguments, code=2)
        assert done.stdout == ""
        assert f"bad.yml{place}" in done.stderr
    assert inside.records() == 1


def test_a_policy_that_is_not_there_or_no_file_is_exit_2(inside: Inside) -> None:
    inside.write("request.json", json.dumps(refund(1)))
    (inside.folder / "folder").mkdir()
    for name in ("nothing.yml", "folder"):
        assert name in inside.refused("decide", "request.json", "--policy", name, code=2)
        assert name in inside.refused("policy", "check", name, code=2)
    assert inside.records() == 0


def test_an_alias_bomb_is_refused_before_it_unfolds(inside: Inside) -> None:
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]" for n in range(1, 12)]
    inside.write("bomb.yml", "\n".join([*lines, "rules: []"]))
    inside.run("policy", "check", "bomb.yml", code=2)


# Packs


@pytest.fixture
def pack(inside: Inside) -> bytes:
    """A sound pack's bytes."""
    record = inside.decide(refund(100))
    inside.run("export", record["decision_id"], "--pack", "--out", "sound.zip")
    return (inside.folder / "sound.zip").read_bytes()


def members(pack: bytes) -> dict[str, bytes]:
    with zipfile.ZipFile(io.BytesIO(pack)) as archive:
        return {info.filename: archive.read(info) for info in archive.infolist()}


def zipped(entries: list[tuple[str | zipfile.ZipInfo, bytes]]) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in entries:
            archive.writestr(name, data)
    return buffer.getvalue()


def refuse_pack(inside: Inside, data: bytes, told: str = "") -> None:
    inside.write("bad.zip", data)
    before = inside.files()
    for arguments in (("replay", "bad.zip"), ("verify", "bad.zip")):
        line = inside.refused(*arguments, code=3)
        assert "bad.zip" in line
        assert told in line
    assert inside.files() == before


def test_a_pack_cut_at_any_100th_byte_is_refused(inside: Inside, pack: bytes) -> None:
    for size in range(0, len(pack), 100):
        refuse_pack(inside, pack[:size], "not a whole ZIP file")


def test_a_pack_with_any_damaged_byte_is_refused_or_unharmed(inside: Inside, pack: bytes) -> None:
    """Bytes that carry nothing (times, versions) may differ; then all members are still the signed ones."""
    sound = members(pack)
    unharmed = 0
    for position in range(0, len(pack), 23):
        damaged = pack[:position] + bytes([pack[position] ^ 0xFF]) + pack[position + 1 :]
        inside.write("bad.zip", damaged)
        done = inside.run("verify", "bad.zip", code=None)
        assert done.code in (0, 3), done
        if done.code == 0:
            assert members(damaged) == sound
            unharmed += 1
        else:
            assert done.stdout == "" or "FAILED" in done.stdout
    assert unharmed < len(pack) / 23 / 4


@pytest.mark.parametrize(
    "name",
    ["../x", "../../etc/passwd", "/etc/passwd", "C:\\x", "..\\x", "policy.yml/", "./policy.yml", "a/policy.yml",
     "POLICY.YML", "notes.txt", "\x1b[2Jx", "x" * 300, "a\nb"],
)  # fmt: skip
def test_members_that_do_not_belong_are_refused_and_nothing_is_unpacked(
    inside: Inside, pack: bytes, name: str
) -> None:
    outside = inside.folder.parent / "x"
    refuse_pack(inside, zipped([*members(pack).items(), (name, b"owned")]))
    assert not outside.exists()
    only = {key: data for key, data in members(pack).items() if key != "policy.yml"}
    refuse_pack(inside, zipped([*only.items(), (name, members(pack)["policy.yml"])]))


def test_a_symlink_as_a_member_is_not_followed(inside: Inside, pack: bytes) -> None:
    link = zipfile.ZipInfo("policy.yml")
    link.external_attr = 0o120777 << 16
    inside.write("target", members(pack)["policy.yml"])
    rest = [(name, data) for name, data in members(pack).items() if name != "policy.yml"]
    refuse_pack(inside, zipped([*rest, (link, str(inside.folder / "target").encode())]), "policy.yml")


@pytest.mark.parametrize("missing", ["decision_record.json", "request.json", "policy.yml"])
def test_a_missing_member_is_named(inside: Inside, pack: bytes, missing: str) -> None:
    rest = [(name, data) for name, data in members(pack).items() if name != missing]
    refuse_pack(inside, zipped(rest), f"`{missing}` is missing")


@pytest.mark.filterwarnings("ignore:Duplicate name")
@pytest.mark.parametrize("twice", ["decision_record.json", "policy.yml", "signature.json", "README.txt"])
def test_a_member_that_stands_there_twice_is_refused(inside: Inside, pack: bytes, twice: str) -> None:
    sound = members(pack)
    refuse_pack(inside, zipped([*sound.items(), (twice, sound[twice])]), f"`{twice}` stands in the pack twice")


def test_an_encrypted_member_is_refused(inside: Inside, pack: bytes) -> None:
    data = bytearray(pack)
    for signature, offset in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        data[data.index(signature) + offset] |= 1
    refuse_pack(inside, bytes(data), "is encrypted")


def test_an_unknown_compression_is_refused(inside: Inside, pack: bytes) -> None:
    data = bytearray(pack)
    for signature, offset in ((b"PK\x03\x04", 8), (b"PK\x01\x02", 10)):
        struct.pack_into("<H", data, data.index(signature) + offset, 99)
    refuse_pack(inside, bytes(data))


def test_a_bomb_that_tells_its_size_is_not_unpacked(inside: Inside, pack: bytes) -> None:
    for name, size in (("decision_record.json", 5 << 20), ("policy.yml", 5 << 20), ("README.txt", 1 << 20),
                       ("labels.jsonl", 65 << 20)):  # fmt: skip
        rest = [(key, data) for key, data in members(pack).items() if key != name]
        bomb = zipped([*rest, (name, b"0" * size)])
        assert size / len(bomb) > 100
        refuse_pack(inside, bomb, f"`{name}` unpacks to {size} bytes")


@pytest.mark.parametrize("claimed", [10, 4 << 20, 0xFFFFFFFE])
def test_a_bomb_that_lies_about_its_size_is_not_unpacked(inside: Inside, pack: bytes, claimed: int) -> None:
    rest = [(key, data) for key, data in members(pack).items() if key != "policy.yml"]
    data = bytearray(zipped([*rest, ("policy.yml", b"#" * (40 << 20))]))
    for signature, offset in ((b"PK\x03\x04", 22), (b"PK\x01\x02", 24)):
        struct.pack_into("<I", data, data.rindex(signature) + offset, claimed)
    refuse_pack(inside, bytes(data))


@pytest.mark.parametrize("line", [b"\n", b"1\n", b"{}\n", b"[]\n", b"\r"])
def test_a_bomb_of_tiny_lines_ends_at_the_first(inside: Inside, pack: bytes, line: bytes) -> None:
    """A thousand to one, within every limit of size: it must not become millions of objects."""
    rest = [(key, data) for key, data in members(pack).items() if key != "signature.json"]
    refuse_pack(inside, zipped([*rest, ("labels.jsonl", line * ((20 << 20) // len(line)))]), "labels.jsonl")


@pytest.mark.parametrize("kind", ["empty file", "empty zip", "another zip", "jar", "tar", "text", "nested", "binary"])
def test_files_of_another_kind_are_refused(inside: Inside, pack: bytes, kind: str) -> None:
    data = {
        "empty file": b"",
        "empty zip": zipped([]),
        "another zip": zipped([("word/document.xml", b"<w/>"), ("[Content_Types].xml", b"<t/>")]),
        "jar": zipped([("META-INF/MANIFEST.MF", b"Manifest-Version: 1.0\n")]),
        "tar": b"ustar" * 200,
        "text": b"decision 01JBQX8P2M was denied\n",
        "nested": zipped([("decision.zip", pack)]),
        "binary": bytes(range(256)) * 64,
    }[kind]
    refuse_pack(inside, data)


@pytest.mark.parametrize("body", [b"", b"a line\n", b'{"a": 1}\n{"a": 2}\n', b"[]", b"{", bytes(range(256)) * 64])
@pytest.mark.parametrize("arguments", [("verify",), ("replay",), ("rate", "--command", "true", "--pack"), ("keys", "trust")])
def test_a_file_that_never_was_a_pack_is_bad_input_not_a_broken_one(
    inside: Inside, body: bytes, arguments: tuple[str, ...]
) -> None:
    inside.write("r.jsonl", body)
    line = inside.refused(*arguments, "r.jsonl", code=2)
    assert "r.jsonl: " in line and "a pack" in line
    assert json.loads(inside.run(*arguments, "r.jsonl", "--json", code=2).stderr)["error"]["code"] == "wrong_kind"


@pytest.mark.parametrize("damage", ["cut", "without its beginning", "edited"])
def test_a_pack_of_another_name_that_was_damaged_is_exit_3(inside: Inside, pack: bytes, damage: str) -> None:
    place = pack.index(b"policy.yml") + 60
    edited = pack[:place] + bytes([pack[place] ^ 0xFF]) + pack[place + 1 :]
    inside.write("evidence", {"cut": pack[:-200], "without its beginning": pack[40:], "edited": edited}[damage])
    inside.refused("verify", "evidence", code=3)
    inside.refused("rate", "--pack", "evidence", "--command", "true", code=3)


@pytest.mark.parametrize(
    "body",
    [b"", b"null", b"[]", b"{}", b"7", b"{", b'{"schema":"lumyn.record/1"}', b'{"schema":"lumyn.record/2"}', b"\xff",
     b"[" * 3000, b'{"schema":"lumyn.record/1","schema":"x"}', b'{"schema":NaN}'],
)  # fmt: skip
def test_a_record_that_is_no_record_is_refused(inside: Inside, pack: bytes, body: bytes) -> None:
    for unsigned in (True, False):
        parts = {**members(pack), "decision_record.json": body}
        if unsigned:
            del parts["signature.json"]
        refuse_pack(inside, zipped(list(parts.items())), "decision_record.json")


@pytest.mark.parametrize("body", [b"", b"\xff\xfe", b"{", b"rules: [", b"a: &a [*a]", b"x" * 100_000])
def test_a_policy_that_is_no_policy_is_refused(inside: Inside, pack: bytes, body: bytes) -> None:
    parts = {**members(pack), "policy.yml": body}
    refuse_pack(inside, zipped(list(parts.items())), "policy.yml")


def test_a_pack_that_is_not_there_or_no_file_is_exit_2(inside: Inside) -> None:
    for name in ("nothing.zip", "."):
        inside.refused("replay", name, code=2)
    inside.refused("verify", "nothing.zip", code=2)


def test_one_bad_pack_among_good_ones_does_not_hide_them(inside: Inside, pack: bytes) -> None:
    inside.write("bad.zip", pack[:300])
    done = inside.run("replay", "sound.zip", "bad.zip", "sound.zip", code=3)
    assert done.stdout.count("Replay successful") == 2
    told, _, summary = done.stderr.rstrip().rpartition("\n")
    assert "bad.zip" in one_line(told)
    assert summary == "3 packs: 2 as recorded, 0 otherwise, 1 not replayed"
    found = inside.json("replay", "bad.zip", "sound.zip", "bad.zip", "--json", code=3)
    assert ["error" in result for result in found] == [True, False, True]


# Ids


def test_unknown_short_and_odd_ids_are_exit_2(inside: Inside) -> None:
    known = [inside.decide(refund(n + 1))["decision_id"] for n in range(3)]
    for command in ("show", "explain", "verify", "export"):
        assert "no decision" in inside.refused(command, "7ZZZZZZZZZZZZZZZZZZZZZZZZZ", code=2)
        assert "fits 3 decisions" in inside.refused(command, known[0][:6], code=2)
        for odd in ("not-an-id", "", "...", "%", "*", "' OR 1=1 --", "../x", "\x1b[31m", "a\nverdict: ALLOW", "é" * 30,
                    "0" * 10_000, known[0] + "X", known[0] + "\x1b[0m", "\u202e" + known[0]):  # fmt: skip
            done = inside.run(command, odd, code=None)
            assert done.code == 2, (command, odd, done)
            line = one_line(done.stderr)
            assert line.isprintable(), repr(line)
            assert len(line) < 300
    assert "no decision" in inside.refused("label", "7ZZZZZZZZZZZZZZZZZZZZZZZZZ", "--label", "note", code=2)
    for form in (known[1], known[1].lower(), known[1] + "...", known[1][:25] + "…", f" {known[1]} "):
        assert inside.json("show", form, "--json")["record"]["decision_id"] == known[1]


def test_a_prefix_that_fits_too_many_decisions_of_others_is_never_taken_for_unique(inside: Inside) -> None:
    """Whoever is alone among the first thousand keys may not be alone among all."""
    theirs, mine = LumynConfig(tenant="theirs"), LumynConfig()
    first = sdk.decide(refund(1), mine)["decision_id"]
    sdk.decide_many([refund(n + 1) for n in range(1100)], theirs)
    sdk.decide(refund(2), mine)
    done = inside.run("label", first[:4], "--label", "failure", code=2)
    assert "too short" in done.stderr or "fits" in done.stderr


@pytest.mark.parametrize("query", ["verdict=", "verdit=DENY", "verdict=DENY AND (", "created_at > 'yesterday'", "\x1b[31m=1",
                                   "(" * 500, "verdict='", "amount_usd > x", "a=1;DROP TABLE records", "\n\n verdict ="])  # fmt: skip
def test_a_bad_query_is_told_with_its_column(inside: Inside, query: str) -> None:
    inside.decide(refund(1))
    for arguments in (("list", "--query", query), ("export", "--query", query)):
        line = inside.refused(*arguments, code=2)
        assert re.search(r"query:\d+:\d+: ", line)
        assert line.isprintable()
    assert inside.files() == {"policy.yml"}


# Homes, disks, locks


def test_a_home_that_can_not_be_a_folder_is_exit_2(inside: Inside, monkeypatch: pytest.MonkeyPatch) -> None:
    inside.write("file", "not a folder")
    inside.write("request.json", json.dumps(refund(1)))
    for home in ("file", "file/below"):
        monkeypatch.setenv("LUMYN_HOME", home)
        line = inside.refused("decide", "request.json", code=2)
        assert home in line
        for arguments in (("show", "01"), ("list",), ("verify",), ("export", "--limit", 1)):
            inside.refused(*arguments, code=2)


def test_a_home_that_is_not_there_is_not_made_by_looking(inside: Inside) -> None:
    for arguments in (("show", "01"), ("list",), ("verify",), ("explain", "01"), ("export", "01"), ("memory", "stats"),
                      ("label", "01", "--label", "note"), ("policy", "list"), ("kill-switch", "status")):  # fmt: skip
        assert "no decisions here yet" in inside.refused(*arguments, code=2)
    assert not inside.home.exists()


@pytest.mark.parametrize("data", [b"", b"this is no database" * 500, b"SQLite format 3\x00" + b"\xff" * 4080])
def test_a_log_that_is_no_log_is_exit_4_and_left_as_it_is(inside: Inside, data: bytes) -> None:
    inside.home.mkdir()
    log = inside.home / "lumyn.db"
    log.write_bytes(data)
    inside.write("request.json", json.dumps(refund(1)))
    if data:
        assert "lumyn.db" in inside.refused("decide", "request.json", code=4)
        assert "lumyn.db" in inside.refused("list", code=4)
        assert log.read_bytes() == data
    else:
        inside.run("decide", "request.json")


def test_another_program_s_database_is_not_taken_for_a_log(inside: Inside) -> None:
    inside.home.mkdir()
    with sqlite3.connect(inside.home / "lumyn.db") as other:
        other.execute("CREATE TABLE log_meta (key TEXT, value TEXT)")
    inside.write("request.json", json.dumps(refund(1)))
    assert "lumyn.db" in inside.refused("decide", "request.json", code=4)


def test_a_log_opened_read_only_reads_and_refuses_to_write(inside: Inside) -> None:
    record = inside.decide(refund(1))
    log = LocalLog(inside.home / "lumyn.db", read_only=True)
    assert log.latest("records", record["decision_id"].encode()) is not None
    with pytest.raises(StorageUnavailable, match="readonly") as caught:
        log.append([Append("labels", b"{}")])
    assert caught.value.exit_code == 4
    log.close()


@pytest.fixture
def locked(inside: Inside) -> Iterator[Inside]:
    """Another program holds the write lock, and this one's patience is short."""
    name = inside.decide(refund(1))["decision_id"]
    inside.run("label", name, "--label", "note")
    for home in wiring._homes.values():
        home.log._db.execute("PRAGMA busy_timeout = 50")
    holder = sqlite3.connect(inside.home / "lumyn.db", isolation_level=None)
    holder.execute("BEGIN IMMEDIATE")
    yield inside
    holder.execute("ROLLBACK")
    holder.close()


def test_a_locked_log_is_exit_4_and_reading_goes_on(locked: Inside) -> None:
    locked.write("request.json", json.dumps(refund(2)))
    line = locked.refused("decide", "request.json", code=4)
    assert "locked" in line
    assert "lumyn.db" in line
    known = json.loads(locked.run("list", "--json").stdout)
    assert len(known) == 1
    name = known[0]["decision_id"]
    assert "locked" in locked.refused("label", name, "--label", "failure", code=4)
    assert "locked" in locked.refused("kill-switch", "on", "--everything", "--why", "x", code=4)
    locked.run("show", name)
    locked.run("verify")
    assert locked.records() == 1


def test_a_log_says_how_long_it_waits_for_a_lock(tmp_path: Path) -> None:
    first = LocalLog(tmp_path / "log.db")
    second = LocalLog(tmp_path / "log.db", busy_timeout_s=0.05)
    with first.transaction(), pytest.raises(StorageUnavailable, match="locked"):
        second.append([Append("labels", b"{}")])
    assert second.append([Append("labels", b"{}")])[0].offset == 0
    first.close()
    second.close()


def limited(size: int) -> Callable[[], None]:
    """No file of the process may grow beyond `size` bytes: a full disk."""
    return lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))


def run_limited(shell: Shell, arguments: list[str], size: int) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(
        ["lumyn", *arguments], cwd=shell.folder, env=shell.env, capture_output=True, text=True, timeout=120,
        preexec_fn=limited(size), check=False,
    )  # fmt: skip
    assert "Traceback" not in done.stderr, done.stderr
    assert "internal error" not in done.stderr, done.stderr
    return done


def test_a_full_disk_gives_no_verdict_and_leaves_a_sound_log(shell: Shell) -> None:
    shell.write("many.jsonl", "\n".join(json.dumps(refund(n + 1)) for n in range(2000)))
    shell.write("one.json", json.dumps(refund(7, request_id="after")))
    shell.run("lumyn decide one.json")
    done = run_limited(shell, ["decide", "many.jsonl"], 1 << 20)
    assert done.returncode == 4
    assert "lumyn.db" in one_line(done.stderr) and "  help: the disk " in done.stderr
    told = [json.loads(line)["decision_id"] for line in done.stdout.splitlines()]
    stored = {row["decision_id"] for row in shell.json("lumyn list --limit 5000 --json")}
    assert set(told) <= stored, "a verdict that was told is stored"
    assert shell.json("lumyn verify --json").items() >= {"verified": True, "decisions": len(stored), "failed": []}.items()


def test_a_full_disk_leaves_no_part_of_an_export_and_keeps_the_file_before(shell: Shell) -> None:
    record = shell.decide(refund(7, evidence={"chargeback_risk": 0.1, "noise": os.urandom(20_000).hex()}))
    shell.run("lumyn list")  # the index is made
    before = shell.write("pack.zip", "the file before").read_bytes()
    listing = {path.name for path in shell.folder.iterdir()}
    for arguments in (["export", record["decision_id"], "--pack", "--out", "pack.zip"],
                      ["export", "--limit", "1", "--out", "data.jsonl"]):  # fmt: skip
        done = run_limited(shell, arguments, 8192)
        assert done.returncode == 4, done
        one_line(done.stderr)
    assert (shell.folder / "pack.zip").read_bytes() == before
    assert {path.name for path in shell.folder.iterdir()} == listing


def test_output_to_a_full_device_is_an_error_not_silence(shell: Shell) -> None:
    shell.decide(refund(1))
    done = shell.run("lumyn list > /dev/full", code=4)
    assert "no space left" in one_line(done.stderr)


@pytest.mark.parametrize("target", ["", ".", "..", "nowhere/pack.zip", "policy.yml/pack.zip", "x" * 300 + ".zip"])
def test_an_out_that_can_not_be_written_is_one_line(inside: Inside, target: str) -> None:
    name = inside.decide(refund(1))["decision_id"]
    before = inside.files()
    done = inside.run("export", name, "--pack", "--out", target, code=None)
    assert done.code in (2, 4), done
    one_line(done.stderr)
    assert inside.files() == before


# Breaking off


def interruptible() -> None:
    """As in a terminal, whatever started the tests: a shell lets its background jobs ignore Ctrl-C."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def test_an_interrupt_in_the_middle_leaves_whole_transactions_only(shell: Shell) -> None:
    shell.write("big.jsonl", "\n".join(json.dumps(refund(n + 1)) for n in range(30_000)))
    process = subprocess.Popen(
        ["lumyn", "decide", "big.jsonl"], cwd=shell.folder, env=shell.env, stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE, text=True, preexec_fn=interruptible,
    )  # fmt: skip
    log = shell.folder / ".lumyn/lumyn.db"
    while process.poll() is None and _records_in(log) < 512:
        time.sleep(0.02)
    process.send_signal(signal.SIGINT)
    _, stderr = process.communicate(timeout=60)
    assert process.returncode == 130, stderr
    assert "interrupted" in one_line(stderr)
    assert len(stderr.splitlines()) == 1
    count = _records_in(log)
    assert 512 <= count < 30_000
    assert count % 256 == 0, "a batch is there whole or not at all"
    with sqlite3.connect(log) as db:
        counts = {t: db.execute(f"SELECT count(*) FROM log_{t}").fetchone()[0] for t in ("requests", "receipts")}
    assert counts == {"requests": count, "receipts": count}
    assert shell.json("lumyn verify --json").items() >= {"verified": True, "decisions": count, "failed": []}.items()


def _records_in(log: Path) -> int:
    if not log.exists():
        return 0
    try:
        with sqlite3.connect(f"file:{log}?mode=ro", uri=True) as db:
            return int(db.execute("SELECT count(*) FROM log_records").fetchone()[0])
    except sqlite3.OperationalError:
        return 0


def test_an_interrupted_diff_in_several_processes_is_one_line(shell: Shell) -> None:
    shell.write("some.jsonl", "\n".join(json.dumps(refund(n + 1)) for n in range(500)))
    shell.run("lumyn decide some.jsonl > /dev/null && lumyn export --limit 500 --out data.jsonl")
    data = (shell.folder / "data.jsonl").read_bytes()
    shell.write("large.jsonl", data * 160)
    process = subprocess.Popen(
        ["lumyn", "diff", "large.jsonl", "--policy", "policy.yml"], cwd=shell.folder, env=shell.env,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True, preexec_fn=interruptible,
    )  # fmt: skip
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children")
    while process.poll() is None and not children.read_text().split():
        time.sleep(0.01)
    time.sleep(0.3)
    os.killpg(process.pid, signal.SIGINT)  # as Ctrl-C does: the whole foreground group
    stdout, stderr = process.communicate(timeout=60)
    assert process.returncode == 130, stderr
    assert len(stderr.splitlines()) == 1, stderr
    assert stdout == ""


@pytest.mark.parametrize("command", ["lumyn decide big.jsonl", "lumyn list --limit 5000 --json", "lumyn list --limit 5000",
                                     "lumyn verify --json | cat; lumyn export --query 'amount > 0' --json"])  # fmt: skip
def test_a_reader_that_goes_away_is_no_error(shell: Shell, command: str) -> None:
    shell.write("big.jsonl", "\n".join([*(json.dumps(refund(n + 1)) for n in range(600)), "not json"]))
    if "decide" not in command:
        shell.run("lumyn decide big.jsonl > /dev/null", code=2)
    done = shell.run(f"set -o pipefail; {{ {command}; }} | head -1", code=None)
    assert len(done.stdout.splitlines()) == 1
    for noise in ("Exception ignored", "Broken pipe", "BrokenPipe", "internal"):
        assert noise not in done.stderr
    assert done.returncode in (0, 2, 141), done


# Hostile text that was recorded


def hostile_request() -> dict[str, Any]:
    request = refund(100, 0.95)
    request["action"] |= {"intent": HOSTILE, "amount": {"value": 100, "currency": f"USD{HOSTILE}"}, "note": HOSTILE}
    request["evidence"] |= {"note": HOSTILE, "tags": [HOSTILE], HOSTILE: HOSTILE}
    request["provenance"] = {"model": HOSTILE}
    return request


HOSTILE_POLICY = """\
rules:
  - id: R_NOTE
    stage: HARD_BLOCKS
    if: {note: {starts_with: "\\e[2J"}}
    then: {verdict: DENY, reason_codes: [NOTE]}
  - id: R_TAGS
    stage: ESCALATIONS
    if: {all: [{chargeback_risk: {gt: 0.5}}, {tags: {exists: true}}, {action.note: {ne: "x\\nverdict: ALLOW"}}]}
    then: {verdict: ESCALATE, reason_codes: [TAGS]}
memory: {}
"""


def assert_safe(text: str, commands: str, verdicts: int = 0) -> None:
    """No character that a terminal acts on, and no line that the recorded text made up."""
    for char in text:
        assert char.isprintable() or char == "\n", f"{commands}: {char!r}"
    assert len(re.findall(r"^\s*verdict: ALLOW", text, re.MULTILINE)) == verdicts, text
    assert not re.search(r"^\| a \|", text, re.MULTILINE), text


def test_hostile_recorded_text_is_shown_safely_everywhere(inside: Inside) -> None:
    inside.write("policy.yml", HOSTILE_POLICY)
    first = inside.decide(hostile_request())["decision_id"]
    sdk.label(first, "success", summary=HOSTILE, actor=HOSTILE)
    sdk.label(first, "note", summary=HOSTILE)
    second = inside.decide(hostile_request())["decision_id"]
    inside.run("export", second, "--pack", "--out", "pack.zip")
    inside.run("export", "--limit", 5, "--out", "data.jsonl")
    inside.write("request.json", json.dumps(hostile_request()))
    inside.run("kill-switch", "on", "--action-type", "other", "--why", HOSTILE.replace("\x00", ""))
    for arguments, code in (
        (("show", first), 0),
        (("show", second), 0),
        (("explain", second), 0),
        (("list",), 0),
        (("replay", "pack.zip", "--memory", "recorded"), 0),
        (("replay", "pack.zip", "--memory", "recorded", "--markdown"), 0),
        (("diff", "data.jsonl", "--policy", "policy.yml"), 0),
        (("decide", "request.json", "--human"), 0),
        (("memory", "search", "request.json"), 0),
        (("memory", "stats"), 0),
        (("kill-switch", "status"), 0),
        (("verify", second), 0),
    ):
        done = inside.run(*arguments, code=code)
        assert_safe(done.stdout + done.stderr, " ".join(arguments))
        if "--markdown" in arguments:
            assert "<script" not in done.stdout
    for arguments in (("show", first, "--json"), ("list", "--json"), ("decide", "request.json")):
        text = inside.run(*arguments).stdout
        assert_safe(text, " ".join(arguments))
        json.loads(text)


def test_a_record_of_another_engine_is_shown_safely_whatever_it_holds(inside: Inside, pack: bytes) -> None:
    """What another engine decided is not decided again here, so nothing but its signature vouches for it."""
    record = json.loads(members(pack)["decision_record.json"])
    record["engine"] = "another/9"
    record["reason_codes"] = [HOSTILE, "A|B"]
    record["matched_rules"][0] |= {"id": HOSTILE, "stage": HOSTILE, "reason_codes": [HOSTILE]}
    record["matched_rules"][0]["facts"][0] |= {"fact": HOSTILE, "op": HOSTILE, "value": HOSTILE, "want": HOSTILE}
    record["record_digest"] = record_digest(record)
    key = wiring.open_home().signing_key()
    inside.write("other.zip", write_pack(encode(record), members(pack)["policy.yml"], key))
    for arguments in (("replay", "other.zip"), ("replay", "other.zip", "--markdown"), ("verify", "other.zip")):
        done = inside.run(*arguments, code=None)
        assert done.code in (0, 1)
        told = arguments == ("replay", "other.zip")
        assert_safe(done.stdout + done.stderr, " ".join(arguments), verdicts=int(told))
        assert not told or "Changed by: engine.\n" in done.stdout
        if "--markdown" in arguments:
            assert "<script" not in done.stdout
            rows = [re.sub(r"\\\|", "", line) for line in done.stdout.splitlines() if line.startswith("|")]
            assert {row.count("|") for row in rows} == {4}


def test_hostile_text_in_what_is_refused_is_told_safely(inside: Inside) -> None:
    key = json.dumps({HOSTILE: 1})
    for body in (f'{{"subject": {{"type": "u", "id": "x"}}, {key[1:]}', f"{{{key[1:-1]}, {key[1:-1]}}}"):
        assert inside.refused("decide", "-", stdin=body, code=2).isprintable()
    bodies = [json.dumps({**refund(1), "policy": HOSTILE}), json.dumps({**refund(1), "context": {"mode": HOSTILE}})]
    for body in bodies:
        assert inside.refused("decide", "-", stdin=body, code=2).isprintable()
    done = inside.run("decide", "-", stdin="\n".join(bodies), code=2)
    assert_safe(done.stderr, "decide")
    for arguments in (("replay", "\x1b[31m.zip"), ("policy", "show", "\x1b[31m"), ("--\x1b[31m",), ("show", "--\x1b[31m"),
                      ("\x1b[31m",), ("label", "01", "--label", "\x1b[31m"), ("keys", "trust", "\x1b[31m")):  # fmt: skip
        done = inside.run(*arguments, code=None)
        assert done.code in (2, 3)
        assert_safe(done.stderr, repr(arguments))


# Numbers too big to mean anything


BEYOND = 10**20


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (("list", "--limit", BEYOND), 0), (("list", "--limit", 2**63 - 1), 0), (("inbox", "list", "--limit", BEYOND), 0),
        (("export", "--limit", BEYOND, "--out", "all.jsonl"), 0), (("dead-letters", "show", BEYOND), 2),
        (("dead-letters", "resend", BEYOND), 2), (("backfill", "--policy", "policy.yml", "--limit", BEYOND), 2),
        (("backtest", "--policy", "policy.yml", "--limit", BEYOND), 2),
        (("backtest", "--policy", "policy.yml", "--sample", BEYOND), 2),
        (("backtest", "--policy", "policy.yml", "--sample", 2, "--seed", -BEYOND), 2),
    ],
)  # fmt: skip
def test_a_number_that_no_store_can_hold_is_no_internal_error(
    inside: Inside, arguments: tuple[object, ...], code: int
) -> None:
    inside.decide(refund(300))
    done = inside.run(*arguments, code=code)
    assert code == 0 or str(BEYOND) in one_line(done.stderr)


# What is told in the tool's own words


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (("list", "--limit", "-1"), "lumyn list: invalid value for '--limit' / '-n': input should be greater than or"),
        (("decide", "x", "--timeout", "abc"), "lumyn decide: invalid value for '--timeout': input should be a valid"),
    ],
)
def test_what_a_library_says_of_an_option_is_lower_case_too(
    inside: Inside, arguments: tuple[str, ...], told: str
) -> None:
    assert inside.refused(*arguments, code=2).startswith(told)


@pytest.mark.parametrize("mark", [b"\xef\xbb\xbf", b"\xff\xfe", b"\xfe\xff"])
def test_a_byte_order_mark_is_called_by_its_name(inside: Inside, mark: bytes) -> None:
    inside.write("marked.json", mark + encode(refund(10)))
    done = inside.run("decide", "marked.json", code=2)
    assert one_line(done.stderr) and "  help: it begins with a byte order mark" in done.stderr


def test_a_time_of_an_incident_s_note_is_named_by_its_own_option(inside: Inside) -> None:
    inside.run("incident", "open", "--title", "x")
    said = inside.run("incident", "note", "INC-1", "later", "--at", "25:00", code=2).stderr
    assert "`--at`: `25:00` is not a time" in said and "--from" not in said and "position" not in said


@pytest.mark.parametrize("text", ["x = [", "a = 1\na = 2\n", "\xff", "=", '[kafka]\naddress = "x', "x = 2024-99-99"])
def test_a_configuration_that_can_t_be_read_is_told_in_lower_case(inside: Inside, text: str) -> None:
    inside.write("lumyn.toml", text.encode("latin-1"))
    told = inside.refused("list", code=2)
    assert told.startswith("lumyn: lumyn.toml: can't be read: ") and told == told[:1] + told[1:].lower()
    assert "codec" not in told


def test_keys_of_a_file_that_is_not_there(inside: Inside) -> None:
    for name in ("nowhere.zip", "nothing"):
        assert name in inside.refused("keys", "trust", name, code=2)


def test_a_file_that_was_decided_before_is_told_in_a_few_lines(inside: Inside) -> None:
    lines = [encode({**refund(10), "request_id": f"r{number}"}) for number in range(30)]
    inside.write("all.jsonl", b"\n".join(lines))
    inside.run("decide", "all.jsonl")
    done = inside.run("decide", "all.jsonl")
    assert done.stdout.count("\n") == 30
    told = done.stderr.splitlines()
    assert [line.split("`")[1] for line in told[:-1]] == ["r0", "r1", "r2", "r3", "r4"]
    assert told[-1] == "duplicates: 30 in all; each is answered by its first record"
    inside.write("one.jsonl", lines[3])
    assert inside.run("decide", "one.jsonl").stderr.count("\n") == 1


def test_a_backtest_that_could_read_nothing_has_no_range(inside: Inside) -> None:
    inside.write("requests.jsonl", encode(refund(10)) + b"\n" + encode(refund(20)))
    done = inside.run("backtest", "requests.jsonl", "--policy", "policy.yml", code=2)
    assert "range: requests.jsonl, nothing that could be read\n" in done.stdout and "None" not in done.stdout


@pytest.mark.parametrize("query", ["created_at BETWEEN '23:59' AND '00:01'", "created_at BETWEEN '2024-12-02' AND '2024-12-01'"])
def test_a_range_over_midnight_is_told_how_to_be_written(inside: Inside, query: str) -> None:
    inside.decide(refund(10))
    said = inside.run("list", "--query", query, code=2).stderr
    assert "this range ends before it begins" in said
    assert ("a time without a day is today's (UTC)" in said) is (":" in query)


def test_a_label_s_choices_are_told_as_they_are_written(inside: Inside) -> None:
    made = inside.decide(refund(10))
    form = {"decision_id": made["decision_id"], "event_id": "e", "tenant": "default", "type": "label",
            "label": "failure", "actor": "a"}  # fmt: skip
    with pytest.raises(BadInput, match="'ALLOW', 'DENY' or 'ESCALATE'"):
        check_label_form({**form, "should": "MAYBE"})


def test_a_pack_by_an_unknown_key_is_not_called_changed(inside: Inside, monkeypatch: pytest.MonkeyPatch) -> None:
    inside.run("export", inside.decide(refund(10))["decision_id"], "--pack", "--out", "one.zip")
    monkeypatch.setenv("LUMYN_HOME", "other")
    inside.run("keys", "show")
    said = inside.run("replay", "one.zip", code=3).stderr
    assert "does not trust" in said and "find out whose key it is" in said and "not what was decided" not in said
    with zipfile.ZipFile("one.zip") as whole, zipfile.ZipFile("touched.zip", "w") as touched:
        for name in whole.namelist():
            touched.writestr(name, whole.read(name).replace(b'"ALLOW"', b'"DENY" '))
    assert "find out whose" not in inside.run("replay", "touched.zip", code=3).stderr
    inside.run("replay", "one.zip", "--trust-signer")
