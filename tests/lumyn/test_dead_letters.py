"""`lumyn dead-letters` on an embedded home: looking at what could not be decided, and sending it again."""

from __future__ import annotations

import base64
import json
from typing import Any

import pytest
from conftest_e2e import refund
from inside import Inside

from lumyn import wiring
from schemas.canonical import decode_trusted
from streams.log import Append

pytest_plugins = ("inside_plugin",)

BROKEN = b'{"subject": {"type": "user", "id": "usr_1"},\n "action": {"type": "refund"},}\n'
BINARY = bytes(range(256))


def put(payload: bytes, key: bytes | None = None, partition: int = 0) -> None:
    """A message that somebody else wrote to the requests, and the home's own attempt to decide it."""
    home = wiring.open_home()
    home.log.append([Append("requests", payload, key, partition)])
    home.agent.drain()


def letters(inside: Inside) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = inside.json("dead-letters", "list", "--json")
    return found


def records() -> list[dict[str, Any]]:
    log = wiring.open_home().log
    found = [m for p in range(log.partitions("records")) for m in log.read("records", p, 0)]
    return [decode_trusted(m.value) for m in found]


def test_there_are_none_and_that_is_said(inside: Inside) -> None:
    inside.decide(refund())
    done = inside.run("dead-letters", "list")
    assert (done.stdout, done.stderr) == ("", "no dead letters\n")
    assert inside.json("dead-letters", "list", "--json") == []
    assert "there is no dead letter 0" in inside.refused("dead-letters", "show", 0, code=2)
    assert "there is no dead letter 7" in inside.refused("dead-letters", "resend", 7, code=2)


def test_without_a_home_nothing_is_made(inside: Inside) -> None:
    for arguments in (("list",), ("show", 0), ("resend", 0)):
        inside.refused("dead-letters", *arguments, code=2)
    assert not inside.home.exists()


def test_the_list_is_newest_first_and_says_what_where_and_why(inside: Inside) -> None:
    put(BROKEN, b"k")
    put(json.dumps({"subject": 1}).encode(), partition=3)
    put(BINARY)
    found = letters(inside)
    assert [one["number"] for one in found] == [2, 1, 0]
    assert [one["reason"] for one in found] == ["bad_json", "bad_request", "bad_json"]
    assert found[1]["source"] == {"topic": "lumyn.requests", "partition": 3, "offset": 0}
    assert found[2]["key"] == "k" and found[2]["bytes"] == len(BROKEN)
    assert [one["number"] for one in inside.json("dead-letters", "list", "--limit", 2, "--json")] == [2, 1]
    lines = inside.run("dead-letters", "list").stdout.splitlines()
    assert len(lines) == 4 and lines[0].split(" | ")[0].strip() == "number"
    assert "lumyn.requests/3/0" in lines[2] and "bad_request" in lines[2] and "`subject`" in lines[2]


def test_more_letters_than_a_page_are_listed_back_to_the_first(inside: Inside) -> None:
    home = wiring.open_home()
    home.log.append([Append("requests", b"%d" % number, None, 0) for number in range(150)])
    home.agent.drain()
    found = inside.json("dead-letters", "list", "--limit", 1000, "--json")
    assert [one["number"] for one in found] == list(range(149, -1, -1))


def test_show_writes_text_as_text_and_the_rest_as_a_dump(inside: Inside) -> None:
    put(BROKEN, b"k")
    put(BINARY)
    shown = inside.run("dead-letters", "show", 0).stdout
    assert "reason: bad_json" in shown and "key: k\n" in shown
    assert shown.endswith("\n\n" + BROKEN.decode() + "\n"), "as it came, the comma too much in its place"
    dump = inside.run("dead-letters", "show", 1).stdout
    assert "key: none" in dump
    assert "00000040  40 41 42 43 44 45 46 47 48 49 4a 4b 4c 4d 4e 4f  @ABCDEFGHIJKLMNO\n" in dump
    told = inside.json("dead-letters", "show", 1, "--json")
    assert base64.b64decode(told["payload_base64"]) == BINARY


def test_raw_is_byte_for_byte(inside: Inside, capfdbinary: pytest.CaptureFixture[bytes]) -> None:
    from lumyn.cli import dead_letters

    put(BINARY)
    capfdbinary.readouterr()
    dead_letters.show(0, raw=True, json_=False)
    assert capfdbinary.readouterr().out == BINARY


def test_a_large_letter_is_cut_and_that_is_said(inside: Inside) -> None:
    put(b'{"text": "' + "é".encode() * 20_000 + b'"')
    done = inside.run("dead-letters", "show", 0)
    assert len(done.stdout) < 20_000 and "é" in done.stdout
    assert "the first 16384 of 40011 bytes" in done.stderr


def test_hostile_bytes_do_not_reach_the_terminal(inside: Inside) -> None:
    put(b"\x1b[31mred\x1b[0m\nnumber: 99", b"\x1b]0;title\x07")
    put(b'{"subject": "\x1b[2J"}')
    for arguments in (("list",), ("show", 0), ("show", 1)):
        assert "\x1b" not in inside.run("dead-letters", *arguments).stdout


def test_what_would_be_rejected_again_is_refused_and_forced_it_is_rejected_again(inside: Inside) -> None:
    put(BROKEN)
    said = inside.refused("dead-letters", "resend", 0, code=2)
    assert "letter 0 would be rejected again" in said
    assert len(letters(inside)) == 1 and letters(inside)[0]["resent"] == []
    done = inside.run("dead-letters", "resend", 0, "--force", code=2)
    assert done.stdout == "0 -> lumyn.requests/0/1 rejected\n"
    assert "letter 0 was rejected again, as letter 2" in done.stderr
    first, second = reversed(letters(inside))
    assert first["resent"][0].endswith("sent to lumyn.requests/0/1 by oncall")
    assert base64.b64decode(inside.json("dead-letters", "show", second["number"], "--json")["payload_base64"]) == BROKEN


def test_a_corrected_body_is_decided_where_its_request_id_belongs(inside: Inside) -> None:
    put(BROKEN)
    inside.write("fixed.json", json.dumps(refund(100, request_id="r-1")))
    (told,) = inside.json("dead-letters", "resend", 0, "--from-file", "fixed.json", "--json")
    (record,) = records()
    assert (told["outcome"], told["decision_id"], told["verdict"]) == ("decided", record["decision_id"], "ALLOW")
    assert told["place"] == "lumyn.requests/{partition}/{offset}".format(**record["log"])
    assert inside.decide(refund(100, request_id="r-1"))["decision_id"] == record["decision_id"], "a retry finds it"
    assert letters(inside)[0]["resent"][0].endswith(", corrected")
    assert inside.json("verify", "--json")["verified"] is True


def test_a_body_that_is_not_correct_either_is_refused(inside: Inside) -> None:
    put(BROKEN)
    inside.write("fixed.json", json.dumps({"subject": 1}))
    assert "the corrected body" in inside.refused("dead-letters", "resend", 0, "--from-file", "fixed.json", code=2)
    assert len(letters(inside)) == 1


def test_a_letter_sent_again_is_not_sent_twice_unawares(inside: Inside) -> None:
    put(json.dumps(refund(100, policy="later")).encode())
    inside.write("policy.yml", (inside.folder / "policy.yml").read_text().replace("policy: refunds", "policy: later"))
    assert "decided" in inside.run("dead-letters", "resend", 0).stdout
    assert "letter 0 was sent again" in inside.refused("dead-letters", "resend", 0, code=2)
    assert len(records()) == 1
    assert "decided" in inside.run("dead-letters", "resend", 0, "--force").stdout
    assert len(records()) == 2, "without a request_id that is another decision, as the help says"
    assert len(letters(inside)[0]["resent"]) == 2
    assert " | yes " in inside.run("dead-letters", "list").stdout
    assert inside.run("dead-letters", "show", 0).stdout.count("resent: ") == 2


def test_the_original_bytes_go_back_not_what_they_mean(inside: Inside) -> None:
    payload = b' {"policy": "later",' + json.dumps(refund(100, request_id="r-1")).encode()[1:] + b"\n"
    put(payload)
    inside.write("policy.yml", (inside.folder / "policy.yml").read_text().replace("policy: refunds", "policy: later"))
    (told,) = inside.json("dead-letters", "resend", 0, "--json")
    _, partition, offset = told["place"].split("/")
    log = wiring.open_home().log
    assert log.read("requests", int(partition), int(offset))[0].value == payload
    assert told["outcome"] == "decided"


def test_a_request_for_a_policy_that_nobody_has_is_refused(inside: Inside) -> None:
    put(json.dumps(refund(100, policy="later")).encode())
    assert "it asks for policy `later`, which is not active" in inside.refused("dead-letters", "resend", 0, code=2)


def test_what_was_decided_meanwhile_is_a_duplicate_or_a_conflict(inside: Inside) -> None:
    put(b"{1")
    put(b"{2")
    inside.write("fixed.json", json.dumps(refund(100, request_id="r-1")))
    inside.write("other.json", json.dumps(refund(300, request_id="r-1")))
    first = inside.decide(refund(100, request_id="r-1"))
    (told,) = inside.json("dead-letters", "resend", 0, "--from-file", "fixed.json", "--json")
    assert (told["outcome"], told["decision_id"]) == ("duplicate", first["decision_id"])
    done = inside.run("dead-letters", "resend", 1, "--from-file", "other.json", "--json", code=2)
    (told,) = json.loads(done.stdout)
    assert told["outcome"] == "conflict" and first["decision_id"] in told["error"]["message"]
    assert len(records()) == 1


def test_one_of_several_that_is_refused_does_not_stop_the_others(inside: Inside) -> None:
    put(json.dumps(refund(100, policy="later")).encode())
    put(BROKEN)
    put(json.dumps(refund(300, policy="later")).encode(), partition=2)
    inside.write("policy.yml", (inside.folder / "policy.yml").read_text().replace("policy: refunds", "policy: later"))
    done = inside.run("dead-letters", "resend", 0, 1, 2, 0, code=2)
    assert [line.split()[0] for line in done.stdout.splitlines()] == ["0", "2"]
    assert "letter 1 would be rejected again" in done.stderr
    assert sorted(r["request"]["action"]["amount"]["value"] for r in records()) == [100, 300]


def test_no_wait_says_the_place_alone(inside: Inside) -> None:
    put(b"{1")
    inside.write("fixed.json", json.dumps(refund(100)))
    done = inside.run("dead-letters", "resend", 0, "--from-file", "fixed.json", "--no-wait")
    assert done.stdout == "0 -> lumyn.requests/0/1 sent\n"
    assert records() == []
    wiring.open_home().agent.drain()
    assert len(records()) == 1


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("0", "1", "--from-file", "fixed.json"), "a corrected body is for one letter"),
        (("0", "--from-file", "nothing.json"), "no such file"),
        (("0", "--from-file", "."), "this is a folder"),
        (("-1",), "no such option"),
        (("x",), "should be a valid integer"),
    ],
)
def test_misuse_is_said(inside: Inside, arguments: tuple[str, ...], said: str) -> None:
    put(b"{1")
    put(b"{2")
    inside.write("fixed.json", json.dumps(refund(100)))
    assert said in inside.refused("dead-letters", "resend", *arguments, code=2)
    assert records() == []


def test_a_note_is_no_letter_and_a_stranger_s_message_is_told_as_such(inside: Inside) -> None:
    put(b"{1")
    inside.write("fixed.json", json.dumps(refund(100)))
    inside.run("dead-letters", "resend", 0, "--from-file", "fixed.json")
    assert "1 notes that letter 0 was sent again" in inside.refused("dead-letters", "show", 1, code=2)
    wiring.open_home().log.append([Append("dead-letters", b"what is this")])
    assert letters(inside)[0]["reason"] == "unreadable"
    assert "what is this" in inside.run("dead-letters", "show", 2).stdout
    assert "takes nothing back" in inside.refused("dead-letters", "resend", 2, code=2)
