"""Tamper evidence: every edit of every value in a pack or a stored record is found, exit 3, and named."""

from __future__ import annotations

import base64
import copy
import json
import sqlite3
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from conftest_e2e import refund
from inside import Inside

from lumyn import LumynConfig, sdk, wiring
from lumyn.replaying import check_pack
from schemas.canonical import encode
from schemas.digests import digest, digest_of
from schemas.errors import IntegrityError
from schemas.record import record_digest
from schemas.request import inputs_digest
from streams.packs import read_pack
from streams.signing import SigningKey

pytest_plugins = ("inside_plugin",)

RICH_POLICY = """\
policy: refunds
version: 4.1.0
rules:
  - id: R_FRAUD_BLOCK
    stage: HARD_BLOCKS
    if: {chargeback_risk: {gte: 0.8}}
    then:
      verdict: DENY
      reason_codes: [CHARGEBACK_RISK_BLOCK]
      obligations: [{notify: {team: fraud, within_hours: 4}}]
      queries: [{ask: the bank}]
  - id: R_KYC
    stage: ESCALATIONS
    if: {kyc_level: {lt: 2}}
    then: {verdict: ESCALATE, reason_codes: [KYC_LOW]}
  - id: R_SMALL
    if: {amount_usd: {lte: 500}}
    then: {verdict: ALLOW, reason_codes: [REFUND_SMALL_LOW_RISK]}
memory: {}
"""
DECIDED = frozenset(
    ("decision_id", "created_at", "log", "tenant", "request_id", "inputs_digest", "policy", "ir_hash", "verdict",
     "reason_codes", "matched_rules", "obligations", "queries", "schema")
)  # fmt: skip
"""What deciding again gives, so that even a trusted signature can't cover an edit of it."""

Place = tuple[str | int, ...]


def rich_decision() -> dict[str, Any]:
    """A decision whose record has something in every part: rules, obligations, neighbours, provenance."""
    known = [sdk.decide(rich_request(amount))["decision_id"] for amount in (301, 310, 405)]
    for name, label in zip(known, ("success", "retracted", "failure"), strict=True):
        sdk.label(name, label, summary="known since")
    return dict(sdk.decide(rich_request(301, request_id="order-7")))


def rich_request(amount: float, **more: Any) -> dict[str, Any]:
    request = refund(amount, 0.91, provenance={"model": "gpt-4o", "freshness_lag_s": 12}, policy="refunds", **more)
    request["action"]["intent"] = "the parcel never came"
    request["context"]["digest"] = digest_of(request["context"]["inline"])
    return request


def leaves(value: Any, path: Place = ()) -> Iterator[Place]:
    """Every place in a document that holds a plain value or an empty container."""
    if isinstance(value, dict | list) and value:
        for key, item in value.items() if isinstance(value, dict) else enumerate(value):
            yield from leaves(item, (*path, key))
    else:
        yield path


def branches(value: Any, path: Place = ()) -> Iterator[Place]:
    """Every place in a document but the document itself."""
    if path:
        yield path
    if isinstance(value, dict | list):
        for key, item in value.items() if isinstance(value, dict) else enumerate(value):
            yield from branches(item, (*path, key))


def other(value: Any) -> Any:
    """Another value of the same kind."""
    match value:
        case bool():
            return not value
        case int() | float():
            return value + 1
        case str():
            verdicts = {"DENY": "ALLOW", "ALLOW": "DENY"}
            return verdicts.get(value) or value[:-1] + ("x" if value[-1:] != "x" else "y")
        case None:
            return "x"
        case dict():
            return {"more": 1}
    return ["more"]


def at(document: Any, path: Place) -> Any:
    for key in path:
        document = document[key]
    return document


def put(document: Any, path: Place, value: Any) -> Any:
    """A copy with another value at a place."""
    result = copy.deepcopy(document)
    at(result, path[:-1])[path[-1]] = value
    return result


def without(document: Any, path: Place) -> Any:
    result = copy.deepcopy(document)
    del at(result, path[:-1])[path[-1]]
    return result


def edits(document: Any, *, every: bool = True) -> Iterator[tuple[str, Any]]:
    """One edit at a time: another value, another kind of value, nothing at all, and something added."""
    for path in leaves(document):
        yield f"{path}: other value", put(document, path, other(at(document, path)))
    for path in branches(document):
        kind = "x" if not isinstance(at(document, path), str) else 7
        yield f"{path}: other kind", put(document, path, kind)
        if not every:
            continue
        yield f"{path}: null", put(document, path, None)
        yield f"{path}: removed", without(document, path)
        if isinstance(at(document, path), dict):
            yield f"{path}: added to", put(document, (*path, "extra"), 1)
    yield "added", {**document, "extra": 1}


def rehashed(record: dict[str, Any]) -> dict[str, Any]:
    """A record with all its digests made right again, as far as its shape allows."""
    result = copy.deepcopy(record)
    request = result.get("request")
    if isinstance(request, dict):
        context = request.get("context")
        if isinstance(context, dict) and "inline" in context and "digest" in context:
            context["digest"] = digest_of(context["inline"])
        result["inputs_digest"] = inputs_digest(request)
    result["record_digest"] = record_digest(result)
    return result


def members_of(pack: Path) -> dict[str, bytes]:
    with zipfile.ZipFile(pack) as archive:
        return {info.filename: archive.read(info) for info in archive.infolist()}


def write_pack(path: Path, members: dict[str, bytes]) -> None:
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in members.items():
            archive.writestr(name, data)


def signed(members: dict[str, bytes], key: SigningKey) -> dict[str, bytes]:
    """The members with a valid signature by a key."""
    rest = {name: data for name, data in members.items() if name != "signature.json"}
    digests = {name: digest(data) for name, data in rest.items()}
    signature = {
        "schema": "lumyn.signature/1",
        "algorithm": "ed25519",
        "key_id": key.public.key_id,
        "public_key": key.public.text,
        "members": digests,
        "signature": key.sign(encode(digests)),
    }
    return {**rest, "signature.json": encode(signature)}


@pytest.fixture
def pack(inside: Inside) -> dict[str, bytes]:
    """The members of a sound pack, which replays and verifies as it is."""
    inside.write("policy.yml", RICH_POLICY)
    record = rich_decision()
    assert record["memory"]["counted"]
    assert record["obligations"]
    assert record["queries"]
    inside.run("export", record["decision_id"], "--pack", "--with-memory", "--out", "sound.zip")
    inside.run("verify", "sound.zip")
    inside.run("replay", "sound.zip", "--memory", "as-of")
    return members_of(inside.folder / "sound.zip")


@pytest.fixture
def stranger(tmp_path: Path) -> SigningKey:
    return SigningKey.load_or_create(tmp_path / "stranger.pem")


class Finder:
    """Asks of a pack what failed; every 20th time by the commands too, which must agree."""

    def __init__(self, inside: Inside) -> None:
        self._inside = inside
        self._asked = 0

    def __call__(self, members: dict[str, bytes], *options: str) -> str | None:
        """What failed, in one line; None when the pack is called sound."""
        path = self._inside.folder / "edited.zip"
        write_pack(path, members)
        try:
            checks = check_pack(read_pack(path), trust_signer=bool(options), settings_home=self._inside.home)
            failed = [f"{check.name}: {check.detail}" for check in checks if not check.ok]
        except IntegrityError as error:
            failed = [error.message]
        if self._asked % 20 == 0:
            self._by_command(failed, options)
        self._asked += 1
        return "; ".join(failed) or None

    def _by_command(self, failed: list[str], options: tuple[str, ...]) -> None:
        code = 3 if failed else 0
        verified = self._inside.run("verify", "edited.zip", *options, code=code)
        replayed = self._inside.run("replay", "edited.zip", "--memory", "recorded", *options, code=code)
        assert not failed or replayed.stdout == ""
        for line in failed:
            assert line in verified.stdout + verified.stderr
            assert line.split(": ")[0] in replayed.stderr


@pytest.fixture
def found(inside: Inside) -> Finder:
    return Finder(inside)


def test_any_edit_of_the_record_is_found_by_the_signature(found: Finder, inside: Inside, pack: dict[str, bytes]) -> None:
    record = json.loads(pack["decision_record.json"])
    missed, unnamed = [], []
    for what, edited in edits(record):
        said = found({**pack, "decision_record.json": encode(edited)})
        if said is None:
            missed.append(what)
        elif "`decision_record.json` is not what was signed" not in said:
            unnamed.append((what, said))
    assert not missed
    assert not unnamed


def test_any_edit_of_the_record_is_found_without_the_signature_too(found: Finder, inside: Inside, pack: dict[str, bytes]) -> None:
    """Each digest stands for itself: the record's own is named, not just the missing signature."""
    del pack["signature.json"]
    record = json.loads(pack["decision_record.json"])
    wrong = []
    for what, edited in edits(record):
        said = found({**pack, "decision_record.json": encode(edited)})
        if said is None or not ("record_digest" in said or "the record's" in said):
            wrong.append((what, said))
    assert not wrong


def test_edited_and_rehashed_without_a_signature_is_found(found: Finder, inside: Inside, pack: dict[str, bytes]) -> None:
    del pack["signature.json"]
    record = json.loads(pack["decision_record.json"])
    for what, edited in edits(record):
        edited = rehashed(edited)
        request = encode(edited["request"]) if isinstance(edited.get("request"), dict) else pack["request.json"]
        said = found({**pack, "decision_record.json": encode(edited), "request.json": request})
        assert said is not None, what
        assert "signature" in said or "the record's" in said, (what, said)


def test_edited_rehashed_and_signed_by_another_key_is_found(
    found: Finder, inside: Inside, pack: dict[str, bytes], stranger: SigningKey
) -> None:
    record = json.loads(pack["decision_record.json"])
    for what, edited in edits(record):
        edited = rehashed(edited)
        request = encode(edited["request"]) if isinstance(edited.get("request"), dict) else pack["request.json"]
        members = signed({**pack, "decision_record.json": encode(edited), "request.json": request}, stranger)
        said = found(members)
        assert said is not None, what
        assert stranger.public.key_id in said or "the record's" in said, (what, said)


def test_not_even_a_trusted_key_can_sign_another_outcome(
    found: Finder, inside: Inside, pack: dict[str, bytes], stranger: SigningKey
) -> None:
    """Whatever deciding again gives is checked by deciding again."""
    record = json.loads(pack["decision_record.json"])
    missed = []
    for what, edited in edits({key: record[key] for key in sorted(DECIDED)}):
        full = {key: value for key, value in record.items() if key not in DECIDED} | edited
        full["record_digest"] = record_digest(full)
        members = signed({**pack, "decision_record.json": encode(full)}, stranger)
        if found(members, "--trust-signer") is None:
            missed.append(what)
    assert not missed


def test_any_edit_of_the_request_is_found(found: Finder, inside: Inside, pack: dict[str, bytes], stranger: SigningKey) -> None:
    request = json.loads(pack["request.json"])
    for what, edited in edits(request):
        members = {**pack, "request.json": encode(edited)}
        said = found(members)
        assert said is not None and "`request.json` is not what was signed" in said, (what, said)
        said = found(signed(members, stranger), "--trust-signer")
        assert said is not None and "request" in said, (what, said)


def test_the_same_request_in_other_bytes_is_not_what_was_signed(found: Finder, inside: Inside, pack: dict[str, bytes]) -> None:
    pretty = json.dumps(json.loads(pack["request.json"]), indent=1).encode()
    assert "`request.json` is not what was signed" in (found({**pack, "request.json": pretty}) or "")


@pytest.mark.parametrize("name", ["policy.yml", "README.txt", "labels.jsonl", "decision_record.json", "request.json"])
def test_any_edited_byte_of_a_member_is_found_and_the_member_named(
    found: Finder, inside: Inside, pack: dict[str, bytes], name: str
) -> None:
    data = pack[name]
    for position in range(0, len(data), max(1, len(data) // 25)):
        flipped = data[:position] + bytes([data[position] ^ 1]) + data[position + 1 :]
        assert name in (found({**pack, name: flipped}) or ""), position
    for edited in (data + b"\n", b" " + data, data[:-1], b""):
        assert name in (found({**pack, name: edited}) or ""), edited[:20]


@pytest.mark.parametrize(
    "change",
    [
        lambda text: text.replace("gte: 0.8", "gte: 0.95"),
        lambda text: text + "# a remark\n",
        lambda text: text.replace("memory: {}", "memory: {failure_block: 1.1}"),
    ],
)
def test_an_edited_policy_is_found_whoever_signed(
    found: Finder, inside: Inside, pack: dict[str, bytes], stranger: SigningKey, change: Callable[[str], str]
) -> None:
    policy = change(pack["policy.yml"].decode()).encode()
    assert policy != pack["policy.yml"]
    said = found(signed({**pack, "policy.yml": policy}, stranger), "--trust-signer")
    assert said is not None and "policy_hash" in said

    record = json.loads(pack["decision_record.json"])
    record["policy"]["hash"] = digest(policy)
    members = {**pack, "policy.yml": policy, "decision_record.json": encode(rehashed(record))}
    said = found(signed(members, stranger))
    assert said is not None and stranger.public.key_id in said


def test_any_edit_of_the_signature_is_found(found: Finder, inside: Inside, pack: dict[str, bytes]) -> None:
    signature = json.loads(pack["signature.json"])
    for what, edited in edits(signature):
        said = found({**pack, "signature.json": encode(edited)})
        assert said is not None and ("signature" in said or "signed" in said), (what, said)


def test_signature_bytes_of_odd_forms_are_refused_not_believed(found: Finder, inside: Inside, pack: dict[str, bytes]) -> None:
    signature = json.loads(pack["signature.json"])
    for text in ("", "=", "A" * 88, base64.b64encode(b"\0" * 64).decode(), "\u00e9" * 88, signature["signature"] + "\n"):
        said = found({**pack, "signature.json": encode({**signature, "signature": text})})
        assert said is not None and "signature" in said, text
    for body in (b"", b"{}", b"[]", b"null", b"not json", b"\xff", b"[" * 100):
        said = found({**pack, "signature.json": body})
        assert said is not None and "signature" in said, body


def test_a_removed_signature_is_missed(found: Finder, inside: Inside, pack: dict[str, bytes]) -> None:
    del pack["signature.json"]
    assert "the pack is not signed" in (found(pack) or "")
    assert "the pack is not signed" in (found(pack, "--trust-signer") or "")


def test_members_added_under_the_signature_are_found(found: Finder, inside: Inside, pack: dict[str, bytes]) -> None:
    labels = pack.pop("labels.jsonl")
    assert "`labels.jsonl` is not what was signed" in (found(pack) or "")
    assert "does not belong" in (found({**pack, "labels.jsonl": labels, "extra.txt": b"x"}) or "")


def test_an_unknown_signer_is_believed_after_keys_trust_and_only_then(
    found: Finder, inside: Inside, pack: dict[str, bytes], stranger: SigningKey
) -> None:
    theirs = signed(pack, stranger)
    said = found(theirs)
    assert said is not None and stranger.public.key_id in said and "lumyn keys trust" in said
    assert found(theirs, "--trust-signer") is None
    assert found(theirs) is not None, "--trust-signer is for once"
    write_pack(inside.folder / "theirs.zip", theirs)
    assert stranger.public.key_id in inside.run("keys", "trust", "theirs.zip").stdout
    assert found(theirs) is None
    assert found(pack) is None, "the home's own key still counts"
    known = {entry["key_id"]: entry["is"] for entry in inside.json("keys", "list", "--json")}
    assert known[stranger.public.key_id] == "trusted"
    assert sorted(known.values()) == ["own", "trusted"]


def test_a_key_is_trusted_by_its_text_too_and_never_by_an_unsigned_or_broken_pack(
    found: Finder, inside: Inside, pack: dict[str, bytes], stranger: SigningKey
) -> None:
    unsigned = {name: data for name, data in pack.items() if name != "signature.json"}
    write_pack(inside.folder / "unsigned.zip", unsigned)
    assert "not signed" in inside.refused("keys", "trust", "unsigned.zip", code=2)
    broken = {**signed(pack, stranger), "README.txt": b"edited"}
    write_pack(inside.folder / "broken.zip", broken)
    assert "`README.txt` is not what was signed" in inside.refused("keys", "trust", "broken.zip", code=3)
    inside.refused("keys", "trust", "bm90IGEga2V5", code=3)
    inside.run("keys", "trust", stranger.public.text)
    assert found(signed(pack, stranger)) is None


def test_every_check_of_a_sound_pack_is_told(inside: Inside, pack: dict[str, bytes]) -> None:
    checks = check_pack(read_pack(inside.folder / "sound.zip"), settings_home=inside.home)
    assert all(check.ok for check in checks)
    assert {"signature", "request", "record_digest", "inputs_digest", "policy_hash", "ir_hash", "reproduction"} <= {
        check.name for check in checks
    }


class Stored:
    """A home's log file, edited behind its back."""

    def __init__(self, inside: Inside) -> None:
        self._inside = inside
        self._db = sqlite3.connect(inside.home / "lumyn.db", isolation_level=None)

    def value(self, topic: str, place: int) -> Any:
        return json.loads(self._db.execute(f"SELECT value FROM log_{topic} WHERE pos = ?", (place,)).fetchone()[0])

    def places(self, topic: str) -> list[int]:
        return [row[0] for row in self._db.execute(f"SELECT pos FROM log_{topic} ORDER BY pos")]

    def set(self, topic: str, place: int, **columns: Any) -> None:
        for name, value in columns.items():
            self._db.execute(f"UPDATE log_{topic} SET {name} = ? WHERE pos = ?", (value, place))

    def delete(self, topic: str, place: int) -> None:
        self._db.execute(f"DELETE FROM log_{topic} WHERE pos = ?", (place,))

    def rows(self, topic: str) -> list[Any]:
        return self._db.execute(f"SELECT * FROM log_{topic}").fetchall()

    def restore(self, topic: str, rows: list[Any]) -> None:
        self._db.execute("BEGIN")
        self._db.execute(f"DELETE FROM log_{topic}")
        self._db.executemany(f"INSERT INTO log_{topic} VALUES (?, ?, ?, ?)", rows)
        self._db.execute("COMMIT")

    def verify(self, code: int | None = 3) -> str:
        """What `lumyn verify` says."""
        done = self._inside.run("verify", code=code)
        return done.stdout + done.stderr if done.code else ""

    def close(self) -> None:
        self._db.close()


@pytest.fixture
def stored(inside: Inside) -> Iterator[Stored]:
    inside.write("policy.yml", RICH_POLICY)
    record = rich_decision()
    inside.decide(rich_request(305))
    inside.records_of = record  # type: ignore[attr-defined]
    store = Stored(inside)
    assert store.verify(0) == ""
    yield store
    store.close()


def place_of(stored: Stored, topic: str = "records") -> int:
    """Where the decision with a request_id and neighbours stands."""
    return next(
        place for place in stored.places(topic)
        if (stored.value(topic, place).get("request_id") == "order-7")
    )  # fmt: skip


def test_any_edit_of_a_stored_record_is_found(stored: Stored, inside: Inside) -> None:
    place = place_of(stored)
    rows = stored.rows("records")
    record = stored.value("records", place)
    missed, unnamed = [], []
    for what, edited in edits(record, every=False):
        stored.set("records", place, value=encode(edited))
        said = stored.verify(None)
        if not said:
            missed.append(what)
        elif "record_digest" not in said and "the record's" not in said:
            unnamed.append((what, said))
    assert not missed
    assert not unnamed
    stored.restore("records", rows)
    assert stored.verify(0) == ""


def test_any_edited_and_rehashed_stored_record_is_found(stored: Stored, inside: Inside) -> None:
    place = place_of(stored)
    record = stored.value("records", place)
    missed = []
    for what, edited in edits(record, every=False):
        edited = rehashed(edited)
        if edited == record:
            continue  # an edit of a digest, which hashing again undoes
        stored.set("records", place, value=encode(edited))
        if not stored.verify(None):
            missed.append(what)
    assert not missed


def test_an_outcome_edited_and_rehashed_in_record_and_receipt_is_found_by_deciding_again(
    stored: Stored, inside: Inside
) -> None:
    place = place_of(stored)
    record = stored.value("records", place)
    receipt = stored.value("receipts", place)
    missed = []
    for what, edited in edits({key: record[key] for key in sorted(DECIDED)}):
        full = {key: value for key, value in record.items() if key not in DECIDED} | edited
        full["record_digest"] = record_digest(full)
        stored.set("records", place, value=encode(full))
        stored.set("receipts", place, value=encode({**receipt, "record_digest": full["record_digest"]}))
        if not stored.verify(None):
            missed.append(what)
    assert not missed


def test_bytes_of_a_stored_record_that_mean_the_same_are_found_too(stored: Stored, inside: Inside) -> None:
    place = place_of(stored)
    record = stored.value("records", place)
    for data in (json.dumps(record).encode(), encode(record) + b"\n", b'{"verdict":"ALLOW",' + encode(record)[1:]):
        stored.set("records", place, value=data)
        assert stored.verify()
    for data in (b"", b"null", b"[]", b"{}", b"\xff\xfe", b"7", encode(record)[:-1]):
        stored.set("records", place, value=data)
        assert "record_digest" in stored.verify() or "record" in stored.verify(), data
        inside.run("verify", record["decision_id"], code=3 if data not in (b"[]", b"{}", b"null", b"7") else None)


def test_a_stored_record_that_fails_is_not_shown_explained_or_exported(stored: Stored, inside: Inside) -> None:
    place = place_of(stored)
    record = stored.value("records", place)
    stored.set("records", place, value=encode({**record, "verdict": "ALLOW"}))
    name = record["decision_id"]
    for arguments in (("show", name), ("explain", name), ("export", name), ("export", name, "--out", "x.json"),
                      ("export", "--query", "request_id='order-7'"),
                      ("export", "--limit", 10, "--out", "x.jsonl")):  # fmt: skip
        before = inside.files()
        done = inside.run(*arguments, code=3)
        assert "record_digest" in done.stderr, arguments
        assert "ALLOW" not in done.stdout
        assert inside.files() == before, "nothing is written"
    for call in (sdk.show, sdk.explain):
        with pytest.raises(Exception, match="record_digest"):
            call(name)
    assert inside.json("verify", name, "--json", code=3)["verified"] is False


def test_a_removed_record_is_missed(stored: Stored, inside: Inside) -> None:
    for place in stored.places("records"):
        rows = stored.rows("records")
        name = stored.value("records", place)["decision_id"]
        stored.delete("records", place)
        said = stored.verify()
        assert name in said and "record" in said
        stored.restore("records", rows)


@pytest.mark.parametrize("topics", [("records", "receipts"), ("records", "receipts", "requests")])
def test_a_decision_removed_with_all_its_traces_is_missed(stored: Stored, topics: tuple[str, ...]) -> None:
    """Offsets are dense and the reader's position is known: a hole tells that something stood there."""
    places = [place for place in stored.places("records") if place & ((1 << 48) - 1)]
    assert len(places) >= 3, "the first ones of a partition could as well have expired"
    for place in places:
        before = {topic: stored.rows(topic) for topic in topics}
        for topic in topics:
            stored.delete(topic, place)
        assert stored.verify(None), f"removed {topics} at {place}"
        for topic, rows in before.items():
            stored.restore(topic, rows)
    assert stored.verify(0) == ""


def test_any_edit_of_a_receipt_is_found(stored: Stored, inside: Inside) -> None:
    place = place_of(stored, "receipts")
    rows = stored.rows("receipts")
    for what, edited in edits(stored.value("receipts", place)):
        stored.set("receipts", place, value=encode(edited))
        assert "receipt" in stored.verify(), what
    for data in (b"", b"null", b"\xff"):
        stored.set("receipts", place, value=data)
        assert "receipt" in stored.verify(), data
    stored.restore("receipts", rows)
    stored.set("receipts", place, key=b"default/another")
    assert "receipt" in stored.verify(), "the key finds a retry's first decision"
    stored.restore("receipts", rows)
    stored.delete("receipts", place)
    assert "receipt" in stored.verify()


def test_any_edit_of_the_logged_request_is_found(stored: Stored, inside: Inside) -> None:
    place = place_of(stored, "requests")
    rows = stored.rows("requests")
    for what, edited in edits(stored.value("requests", place)):
        stored.set("requests", place, value=encode(edited))
        assert "request failed" in stored.verify(), what
    stored.restore("requests", rows)
    stored.set("requests", place, time_ms=1)
    assert "request failed" in stored.verify(), "the log's time is the decision's"
    stored.restore("requests", rows)
    stored.delete("requests", place)
    assert "request failed" in stored.verify()


def test_a_record_filed_under_another_id_is_found(stored: Stored, inside: Inside) -> None:
    first, second = stored.places("records")[:2]
    names = [stored.value("records", place)["decision_id"].encode() for place in (first, second)]
    stored.set("records", first, key=names[1])
    assert "record failed" in stored.verify()
    stored.set("records", first, key=names[0])
    assert stored.verify(0) == ""
    stored.set("records", second, value=encode(stored.value("records", first)))
    assert stored.verify(), "one record twice, another gone"


def test_an_edited_policy_document_in_control_is_found(stored: Stored, inside: Inside) -> None:
    place = stored.places("control")[0]
    event = stored.value("control", place)
    edited = {**event, "source": event["source"].replace("gte: 0.8", "gte: 0.95")}
    stored.set("control", place, value=encode(edited))
    wiring.close_homes()
    assert "policy_hash" in stored.verify()
    stored.set("control", place, value=encode({**edited, "hash": digest(edited["source"].encode())}))
    wiring.close_homes()
    assert "policy" in stored.verify()


def test_what_another_tenant_is_said_to_own_is_still_verified(stored: Stored, inside: Inside) -> None:
    """An edit of the tenant must not take a record out of sight."""
    place = place_of(stored)
    record = stored.value("records", place)
    record["tenant"] = record["request"]["tenant"] = "other"
    stored.set("records", place, value=encode(rehashed(record)))
    assert stored.verify()


def test_a_sound_decision_of_another_tenant_is_neither_counted_nor_named(stored: Stored, inside: Inside) -> None:
    theirs = sdk.decide(rich_request(100), LumynConfig(tenant="other"))
    mine = inside.json("verify", "--json")
    assert (mine["verified"], mine["decisions"]) == (True, 5)
    assert theirs["decision_id"] not in inside.run("verify").stdout


@pytest.mark.parametrize("topic", ["records", "receipts", "requests", "control"])
def test_a_value_of_another_kind_is_found_or_is_the_same_bytes(stored: Stored, topic: str) -> None:
    """SQLite keeps whatever kind of value an editor leaves: text of the same bytes is the same, a number is found."""
    if not stored.places(topic):
        pytest.skip(f"nothing stands in {topic} here")
    place = stored.places(topic)[0]
    rows = stored.rows(topic)
    stored._db.execute(f"UPDATE log_{topic} SET value = CAST(value AS TEXT) WHERE pos = ?", (place,))
    assert stored.verify(0) == ""
    stored.restore(topic, rows)
    stored.set(topic, place, value=7)
    said = stored.verify(None)
    assert said and "internal error" not in said
