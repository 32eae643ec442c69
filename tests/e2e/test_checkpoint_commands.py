"""Checkpoints by the commands: what a rewritten log looks like to `lumyn verify`, and what a pack proves elsewhere."""

from __future__ import annotations

import json
import shutil
import sqlite3
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from inside import Inside
from test_tampering import (
    RICH_POLICY,
    Stored,
    members_of,
    rehashed,
    rich_decision,
    rich_request,
    signed,
    write_pack,
)

from lumyn import wiring
from schemas.canonical import encode
from schemas.digests import digest
from streams.signing import SigningKey

pytest_plugins = ("inside_plugin",)


@pytest.fixture
def stored(inside: Inside) -> Iterator[Stored]:
    """A home with labelled decisions, one with neighbours among them, and its log file to be edited."""
    inside.write("policy.yml", RICH_POLICY)
    rich_decision()
    for number in range(4):
        inside.decide(rich_request(305 + number))
    store = Stored(inside)
    yield store
    store.close()


@pytest.fixture
def covered(stored: Stored, inside: Inside) -> Stored:
    inside.run("checkpoint")
    assert stored.verify(0) == ""
    return stored


@pytest.fixture
def stranger(tmp_path: Path) -> SigningKey:
    return SigningKey.load_or_create(tmp_path / "stranger.pem")


def place_of(stored: Stored, topic: str = "records") -> int:
    return next(p for p in stored.places(topic) if stored.value(topic, p).get("request_id") == "order-7")


def neighbours(stored: Stored) -> list[int]:
    """The records of the partition that holds the most."""
    partitions: dict[int, list[int]] = {}
    for place in stored.places("records"):
        partitions.setdefault(place >> 48, []).append(place)
    return max(partitions.values(), key=len)


def rewrite(stored: Stored, change: Callable[[dict[str, Any]], None], place: int | None = None) -> str:
    """Edit a decision (the one with neighbours), and make record, receipt and request agree again in every digest."""
    place = place_of(stored) if place is None else place
    record = stored.value("records", place)
    change(record)
    record = rehashed(record)
    receipt = stored.value("receipts", place)
    receipt |= {"record_digest": record["record_digest"], "body_digest": digest(encode(record["request"]))}
    stored.set("records", place, value=encode(record))
    stored.set("receipts", place, value=encode(receipt))
    stored.set("requests", place, value=encode(record["request"]))
    return str(record["decision_id"])


# The commands


def test_a_checkpoint_covers_what_there_is_and_prints_the_head_of_the_chain(stored: Stored, inside: Inside) -> None:
    assert "no checkpoints" in inside.run("verify").stdout
    done = inside.run("checkpoint")
    number, head = done.stdout.split()
    assert "made" in done.stderr
    again = inside.run("checkpoint")
    assert again.stdout == done.stdout
    assert "0 checkpoints made" in again.stderr
    found = inside.json("checkpoint", "--json")
    assert (found["made"], found["head"], found["last"]["number"]) == ([], head, int(number))
    told = inside.run("verify").stdout
    assert "8 decisions, 8 verified, 0 not" in told
    assert f"checkpoints hold, numbered from 0: the last is number {number}, up to " in told
    assert "8 decisions are covered, 0 after the last checkpoint are not" in told
    inside.decide(rich_request(50))
    told = inside.run("verify").stdout
    assert "8 decisions are covered, 1 after the last checkpoint are not" in told
    found = inside.json("verify", "--json")["checkpoints"]
    assert (found["covered"], found["after_last"], found["never_covered"], found["head"]) == (8, 1, 0, head)


@pytest.mark.parametrize("given", [("--from", "2090-01-01"), ("--to", "2001-01-01"), ("--from", "1:999999")])
def test_a_range_with_no_decision_in_it_is_refused_not_called_verified(
    given: tuple[str, str], stored: Stored, inside: Inside
) -> None:
    said = "no decision of tenant `default` lies in this range, so there is nothing to verify"
    assert said in inside.refused("verify", *given, code=2)
    told = inside.run("verify", *given, "--json", code=2)
    assert said in told.stderr
    assert told.stdout == ""


def test_a_partition_that_is_not_there_is_refused(stored: Stored, inside: Inside) -> None:
    assert "there is no partition 99" in inside.refused("verify", "--from", "99:1", code=2)


def test_a_home_without_decisions_has_nothing_to_verify(inside: Inside, monkeypatch: pytest.MonkeyPatch) -> None:
    assert "there are no decisions here yet" in inside.refused("verify", code=2)
    inside.write("policy.yml", RICH_POLICY)
    inside.run("policy", "publish", "policy.yml")
    said = "there are no decisions of tenant `default` here yet, so there is nothing to verify"
    assert said in inside.refused("verify", code=2)
    head = inside.run("checkpoint").stdout.split()[1]
    assert "1 checkpoint holds, numbered from 0: the last is number 0" in inside.run("verify", "--head", head).stdout
    assert "head failed" in inside.run("verify", "--head", "0" * 64, code=3).stderr
    monkeypatch.setenv("LUMYN_TENANT", "acme")
    assert "decisions of tenant `acme`" in inside.refused("verify", code=2)


def test_one_decision_is_verified_against_its_checkpoint(stored: Stored, inside: Inside) -> None:
    name = stored.value("records", place_of(stored))["decision_id"]
    assert "checkpoint: no checkpoint covers it yet" in inside.run("verify", name).stdout
    inside.run("checkpoint")
    checks = {check["name"]: check for check in inside.json("verify", name, "--json")["checks"]}
    assert checks["checkpoint"]["ok"]
    rewrite(stored, lambda record: record.update(engine="lumyn-engine/0", verdict="ALLOW"))
    checks = {check["name"]: check for check in inside.json("verify", name, "--json", code=3)["checks"]}
    assert [name for name, check in checks.items() if not check["ok"]] == ["checkpoint"]
    assert "signed for another record" in checks["checkpoint"]["detail"]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--from", "yesterday"), "not a time"),
        (("--to", "'; x"), "not a time"),
        (("--from", "3:10", "--to", "2024-12-19"), "both be times or both be positions"),
        (("--from", "3:10", "--to", "4:20"), "the same partition"),
        (("--from", "3:10", "--to", "3:10"), "before"),
        (("--from", "2024-12-19", "--to", "2024-12-18"), "before"),
        (("01ABC", "--from", "3:10"), "for the whole log"),
        (("01ABC", "--head", "sha256:0"), "for the whole log"),
    ],
)
def test_a_span_that_makes_no_sense_is_exit_2(covered: Stored, inside: Inside, arguments: tuple[str, ...], said: str) -> None:
    assert said in inside.refused("verify", *arguments, code=2)


def test_a_span_of_times_or_positions_checks_that_part(covered: Stored, inside: Inside) -> None:
    everything = inside.json("verify", "--json")["decisions"]
    name = rewrite(covered, lambda record: record.update(engine="lumyn-engine/0"))
    place = covered.value("records", place_of(covered))["log"]
    partition, offset = place["partition"], place["offset"]
    found = inside.json("verify", "--from", f"{partition}:{offset}", "--to", f"{partition}:{offset + 1}", "--json", code=3)
    assert [entry["decision_id"] for entry in found["failed"]] == [name]
    assert found["decisions"] == 1
    after = inside.run("verify", "--from", f"{partition}:{offset + 1}", code=None)
    assert after.code == (0 if after.stdout else 2), "where it is the last, there is nothing to verify"
    assert name not in after.stdout + after.stderr
    assert inside.json("verify", "--from", "2020-01-01", "--json", code=3)["decisions"] == everything
    assert inside.json("verify", "--from", "00:00", "--json", code=3)["decisions"] == everything, "a time of today"
    assert inside.json("verify", "--from", f"{partition:02}:{offset:03}", "--json", code=3)["decisions"] <= everything


def test_the_head_that_was_noted_down_finds_a_cut_or_remade_chain(covered: Stored, inside: Inside) -> None:
    inside.decide(rich_request(50))
    head = inside.run("checkpoint").stdout.split()[1]
    inside.run("verify", "--head", head)
    last = covered.places("checkpoints")[-1]
    rows = covered.rows("checkpoints")
    covered.delete("checkpoints", last)
    assert "after the last checkpoint are not" in inside.run("verify").stdout
    assert "cut or made anew" in inside.run("verify", "--head", head, code=3).stderr
    covered.restore("checkpoints", rows)
    rewrite(covered, lambda record: record.update(engine="lumyn-engine/0"))
    covered.restore("checkpoints", [])
    wiring.close_homes()
    inside.run("checkpoint")  # by the home's own key: nothing within the home disagrees
    inside.run("verify")
    inside.run("verify", "--head", head, code=3)


# A log that was rewritten with every digest made right again


def no_memory(record: dict[str, Any]) -> None:
    record["engine"] = "lumyn-engine/0"
    record["memory"]["counted"] = []
    record["risk_signals"]["failure_similarity"] = {"score": 0, "top_k": []}


REWRITES: dict[str, Callable[[dict[str, Any]], Any]] = {
    "the recorded memory": no_memory,
    "the engine": lambda record: record.update(engine="lumyn-engine/2"),
    "the control version": lambda record: record["control"].update(version=record["control"]["version"] - 1),
    "the verdict, by another engine": lambda record: record.update(engine="lumyn-engine/0", verdict="ALLOW"),
    "the provenance": lambda record: (
        record.update(engine="lumyn-engine/0", provenance={"model": "x"}), record["request"].update(provenance={"model": "x"}),
    ),
    "the request": lambda record: (
        record.update(engine="lumyn-engine/0"), record["request"]["evidence"].update(chargeback_risk=0.1),
    ),
}  # fmt: skip


@pytest.mark.parametrize("what", REWRITES)
def test_a_consistent_rewrite_is_found_by_the_checkpoint_alone(stored: Stored, inside: Inside, what: str) -> None:
    rows = {topic: stored.rows(topic) for topic in ("records", "receipts", "requests")}
    rewrite(stored, REWRITES[what])
    assert stored.verify(0) == "", "nothing in the log disagrees"
    for topic, values in rows.items():
        stored.restore(topic, values)
    inside.run("checkpoint")
    name = rewrite(stored, REWRITES[what])
    said = stored.verify()
    assert f"{name}: checkpoint failed (checkpoint" in said
    for arguments in (("export", name, "--pack", "--out", "x.zip"), ("verify", name)):
        done = inside.run(*arguments, code=3)
        assert "signed for another record" in done.stdout + done.stderr
    assert not (inside.folder / "x.zip").exists()


def test_the_first_decisions_of_a_partition_are_missed_with_all_their_traces(covered: Stored, inside: Inside) -> None:
    places = covered.places("records")
    first = [place for place in places if place & ((1 << 48) - 1) == 0]
    assert first
    for place in first:
        before = {topic: covered.rows(topic) for topic in ("records", "receipts", "requests")}
        for topic in before:
            covered.delete(topic, place)
        assert f"requests/{place >> 48}/0: record failed (the decision that checkpoint" in covered.verify()
        for topic, rows in before.items():
            covered.restore(topic, rows)
    assert covered.verify(0) == ""


def test_two_records_that_changed_places_are_found(covered: Stored) -> None:
    one, two, *_ = neighbours(covered)
    values = [encode(covered.value("records", place)) for place in (one, two)]
    names = [covered.value("records", place)["decision_id"] for place in (one, two)]
    for place, value, name in ((one, values[1], names[1]), (two, values[0], names[0])):
        covered.set("records", place, value=value, key=name.encode())
    assert f"{names[0]}: record failed" in covered.verify()


def test_a_record_put_in_is_found(covered: Stored) -> None:
    place = place_of(covered)
    record = covered.value("records", place)
    last = max(p for p in covered.places("records") if p >> 48 == place >> 48)
    covered.restore("records", [*covered.rows("records"), (last + 1, 1, b"01ABC", encode(record))])
    assert record["decision_id"] in covered.verify()


def test_a_rewritten_policy_and_a_rewritten_label_are_found_and_named(covered: Stored) -> None:
    rows = {topic: covered.rows(topic) for topic in ("control", "labels")}
    place = covered.places("control")[0]
    event = covered.value("control", place)
    covered.set("control", place, value=encode({**event, "actor": "somebody else"}))
    assert f"control/0/{place}: checkpoint failed (the event `policy_published` of `refunds`" in covered.verify()
    covered.restore("control", rows["control"])
    place = covered.places("labels")[1]
    label = covered.value("labels", place)
    covered.set("labels", place, value=encode({**label, "summary": "something else"}))
    assert f"labels/0/{place}: checkpoint failed (the label of decision {label['decision_id']}" in covered.verify()


def test_a_chain_by_a_key_that_is_not_the_homes_is_not_believed(covered: Stored, inside: Inside) -> None:
    shutil.rmtree(inside.home / "keys")
    said = covered.verify()
    assert "not trusted here" in said
    inside.run("keys", "show")  # a new key, and still not the one that signed
    assert "not trusted here" in covered.verify()


def test_a_new_key_continues_the_chain_of_an_old_one_that_is_trusted(covered: Stored, inside: Inside) -> None:
    old = inside.run("keys", "show").stdout.split()[1]
    (inside.home / "keys" / "signing.pem").unlink()
    inside.run("keys", "trust", old)
    wiring.close_homes()
    inside.decide(rich_request(50))
    number = int(inside.run("checkpoint").stdout.split()[0])
    assert number == len(covered.places("checkpoints")) - 1
    assert covered.verify(0) == ""


# Packs


@pytest.fixture
def pack(stored: Stored, inside: Inside) -> dict[str, bytes]:
    name = stored.value("records", neighbours(stored)[1])["decision_id"]
    inside.run("export", name, "--pack", "--out", "sound.zip")
    return members_of(inside.folder / "sound.zip")


def resealed(inside: Inside, members: dict[str, bytes], name: str = "edited.zip") -> str:
    """A pack signed again by the home's own key, so that only the proof can tell."""
    key = SigningKey.load_or_create(inside.home / "keys" / "signing.pem")
    write_pack(inside.folder / name, signed(members, key))
    return name


def test_a_pack_carries_the_proof_and_exporting_makes_the_checkpoint_that_it_needs(
    stored: Stored, inside: Inside, pack: dict[str, bytes]
) -> None:
    proof = json.loads(pack["checkpoint.json"])
    record = json.loads(pack["decision_record.json"])
    assert proof["leaf"]["decision_id"] == record["decision_id"]
    assert proof["leaf"]["record_digest"] == record["record_digest"]
    readme = pack["README.txt"].decode()
    assert f"checkpoint {proof['statement']['number']}" in readme
    assert "does not show that the decision was right" in readme
    assert "checkpoint" in inside.run("verify", "sound.zip").stdout
    inside.run("replay", "sound.zip", "--memory", "recorded")
    count = len(stored.places("checkpoints"))
    inside.run("export", record["decision_id"], "--pack", "--out", "again.zip")
    assert (inside.folder / "again.zip").read_bytes() == (inside.folder / "sound.zip").read_bytes()
    assert len(stored.places("checkpoints")) == count


def test_a_pack_without_a_proof_stays_valid(inside: Inside, pack: dict[str, bytes]) -> None:
    del pack["checkpoint.json"]
    name = resealed(inside, pack)
    assert "  ok     checkpoint" not in inside.run("verify", name).stdout
    inside.run("replay", name, "--memory", "recorded")


def change_path(proof: dict[str, Any]) -> None:
    proof["path"][0] = "sha256:" + "0" * 64


def change_root(proof: dict[str, Any]) -> None:
    proof["statement"]["root"] = "sha256:" + "0" * 64


def shorten(proof: dict[str, Any]) -> None:
    proof["path"].pop()


def change_statement(proof: dict[str, Any]) -> None:
    proof["statement"]["up_to"] = "2020-01-01T00:00:00.000Z"


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (change_path, "does not lead to the signed root"),
        (change_root, "does not lead to the signed root"),
        (shorten, "does not lead to the signed root"),
        (change_statement, "the signature is not key"),
        (lambda proof: proof["leaf"].update(record_digest="sha256:" + "0" * 64), "the proof is of another record"),
        (lambda proof: proof["statement"].update(partition=99), "another partition"),
        (lambda proof: proof["statement"].update(start=10**6), "does not cover"),
        (lambda proof: proof.update(signature="AAAA"), "the signature is not key"),
        (lambda proof: proof.update(public_key="AAAA"), "not an Ed25519 key"),
        (lambda proof: proof.pop("path"), "not an inclusion proof"),
        (lambda proof: proof.update(extra=1), "not an inclusion proof"),
    ],
)
def test_a_proof_that_does_not_hold_is_exit_3_whoever_sealed_the_pack(
    inside: Inside, pack: dict[str, bytes], change: Callable[[dict[str, Any]], Any], said: str
) -> None:
    proof = json.loads(pack["checkpoint.json"])
    change(proof)
    name = resealed(inside, {**pack, "checkpoint.json": encode(proof)})
    for command in ("verify", "replay"):
        done = inside.run(command, name, code=3)
        assert said in done.stdout + done.stderr
        assert "Replay successful" not in done.stdout


def test_the_proof_of_another_decision_is_refused(stored: Stored, inside: Inside, pack: dict[str, bytes]) -> None:
    other = stored.value("records", neighbours(stored)[2])["decision_id"]
    inside.run("export", other, "--pack", "--out", "other.zip")
    foreign = members_of(inside.folder / "other.zip")["checkpoint.json"]
    name = resealed(inside, {**pack, "checkpoint.json": foreign})
    assert "the proof is of another record" in inside.run("verify", name, code=3).stdout


def test_an_edited_record_can_not_keep_its_proof(inside: Inside, pack: dict[str, bytes]) -> None:
    record = json.loads(pack["decision_record.json"])
    record = rehashed({**record, "engine": "lumyn-engine/0", "verdict": "ALLOW"})
    name = resealed(inside, {**pack, "decision_record.json": encode(record)})
    done = inside.run("verify", name, code=3)
    assert "the proof is of another record: its leaf has another record_digest" in done.stdout


def test_a_proof_signed_by_a_key_that_is_not_trusted_is_refused_until_it_is(
    inside: Inside, pack: dict[str, bytes], stranger: SigningKey
) -> None:
    proof = json.loads(pack["checkpoint.json"])
    proof["statement"]["key_id"] = stranger.public.key_id
    proof |= {"public_key": stranger.public.text, "signature": stranger.sign(encode(proof["statement"]))}
    name = resealed(inside, {**pack, "checkpoint.json": encode(proof)})
    assert stranger.public.text in inside.run("verify", name, code=3).stdout
    inside.run("verify", name, "--trust-signer")
    inside.run("keys", "trust", stranger.public.text)
    inside.run("verify", name)


def test_a_pack_kept_elsewhere_finds_that_the_log_was_made_anew(
    stored: Stored, inside: Inside, pack: dict[str, bytes]
) -> None:
    assert "chain" in inside.run("verify", "sound.zip").stdout
    stored.restore("checkpoints", [])
    rewrite(stored, lambda record: record.update(engine="lumyn-engine/0"), neighbours(stored)[0])
    wiring.close_homes()
    inside.run("checkpoint")
    inside.run("verify")
    done = inside.run("verify", "sound.zip", code=3)
    assert "chain: checkpoint" in done.stdout
    assert "not in this home's log any more" in done.stdout


def test_a_pack_is_verified_where_there_is_no_home(inside: Inside, pack: dict[str, bytes], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LUMYN_HOME", str(inside.folder / "nowhere"))
    assert "ok     checkpoint: checkpoint" in inside.run("verify", "sound.zip").stdout


def test_a_log_that_can_not_be_written_is_exported_without_a_proof(stored: Stored, inside: Inside) -> None:
    name = stored.value("records", place_of(stored))["decision_id"]
    inside.run("keys", "show")
    for home in wiring._homes.values():
        home.log._db.execute("PRAGMA busy_timeout = 50")
    holder = sqlite3.connect(inside.home / "lumyn.db", isolation_level=None)
    holder.execute("BEGIN IMMEDIATE")
    inside.run("export", name, "--pack", "--out", "locked.zip")
    holder.execute("ROLLBACK")
    holder.close()
    members = members_of(inside.folder / "locked.zip")
    assert "checkpoint.json" not in members
    assert "No checkpoint covered this decision" in members["README.txt"].decode()
    inside.run("verify", "locked.zip")


def test_many_packs_share_one_checkpoint(stored: Stored, inside: Inside) -> None:
    inside.run("export", "--query", "action_type=refund")
    packs = sorted(inside.folder.glob("decision_*.zip"))
    assert len(packs) == 8
    assert len({members_of(path)["checkpoint.json"] for path in packs}) == 8
    assert len(stored.places("checkpoints")) <= 2 + len({place >> 48 for place in stored.places("records")})
    for path in packs:
        inside.run("verify", path.name)
