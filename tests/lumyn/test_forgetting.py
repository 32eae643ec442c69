"""Forgetting a subject: nothing of it is left to read, everything else stands, and nothing decides wrongly for it."""

from __future__ import annotations

import json
import os
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from conftest_e2e import POLICY, refund
from inside import Inside

from lumyn import sdk, wiring
from schemas.canonical import decode_trusted, encode
from schemas.digests import digest
from schemas.errors import BadInput, Erased, LumynError, NotFound, RequestConflict
from schemas.record import record_digest

pytest_plugins = ("inside_plugin",)

ANN, BEN = "ann.zander@mail.example", "ben.yards@mail.example"
PERSONAL = (ANN, "Philomena", "DE89370400440532013000", "forty-three", "chargeback_risk", "kettle", "Maplewood")


@pytest.fixture
def private(inside: Inside, monkeypatch: pytest.MonkeyPatch) -> Inside:
    """A user's folder whose subjects are encrypted."""
    monkeypatch.setenv("LUMYN_ENCRYPT_SUBJECTS", "true")
    return inside


def asked(user: str = ANN, amount: float = 100, **more: Any) -> dict[str, Any]:
    """A refund with more that is personal."""
    body = refund(amount, 0.1, user, **more)
    body["subject"]["address"] = "12 Maplewood Road"
    body["action"]["intent"] = "my grandmother Philomena broke the kettle"
    body["evidence"]["iban"] = "DE89370400440532013000"
    body["context"]["inline"]["shoe_size"] = "forty-three"
    return body


def holding(folder: Path, *words: str) -> list[str]:
    """The files in which any of the words stands."""
    wanted = [word.encode() for word in words]
    return [
        f"{path.relative_to(folder)}: {word.decode()}"
        for path in sorted(folder.rglob("*"))
        if path.is_file()
        for word in wanted
        if word in path.read_bytes()
    ]


def forget(private: Inside, user: str = ANN, *more: object, code: int | None = 0) -> Any:
    return private.json(
        "memory", "forget", "--subject", f"user:{user}", "--why", "asked", "--apply", "--json", *more, code=code
    )


def stored(decision_id: str) -> dict[str, Any]:
    """A record as the log holds it."""
    found = wiring.operator_home().log.latest("records", decision_id.encode())
    assert found is not None
    return dict(decode_trusted(found.value))


def messages(topic: str) -> Iterator[bytes]:
    log = wiring.operator_home().log
    for partition in range(log.partitions(topic)):
        yield from (message.value for message in log.read(topic, partition, 0, 1000))


# encrypted, and otherwise as ever


def test_a_decision_is_the_same_and_nothing_personal_is_in_the_log(private: Inside) -> None:
    record = sdk.decide(asked(request_id="r1"))
    assert record["request"]["subject"]["id"] == ANN and record["request"]["evidence"]["iban"]
    sdk.label(record["decision_id"], "failure", summary="Philomena was not amused")
    shown = sdk.show(record["decision_id"])
    assert shown["record"] == record and shown["events"][0]["summary"] == "Philomena was not amused"
    assert "Maplewood" in json.dumps(shown) and ANN in sdk.explain(record["decision_id"])
    wiring.close_homes()
    left = [one for one in holding(private.home, *PERSONAL) if not one.startswith("memory.db")]
    assert left == ["lumyn.db: chargeback_risk"], "the policy names that fact; nothing else does"


def test_what_is_stored_is_what_its_digest_covers(private: Inside) -> None:
    record = sdk.decide(asked(request_id="r1"))
    inside_log = stored(record["decision_id"])
    assert inside_log["record_digest"] == record["record_digest"] == record_digest(inside_log)
    assert inside_log["request"]["subject"]["id"].startswith("s-") and inside_log["sealed"]
    assert digest(encode(inside_log["request"])) in {json.loads(m)["body_digest"] for m in messages("receipts")}
    checks = private.json("verify", record["decision_id"], "--json")["checks"]
    assert {"inputs_digest", "reproduction", "receipt", "request"} <= {c["name"] for c in checks if c["ok"]}


def test_a_retry_finds_its_first_and_another_body_conflicts(private: Inside) -> None:
    first = sdk.decide(asked(request_id="r1"))
    assert sdk.decide(asked(request_id="r1")) == first
    with pytest.raises(RequestConflict):
        sdk.decide(asked(request_id="r1", amount=101))


def test_a_retry_over_the_day_of_turning_it_on_finds_its_first(inside: Inside, monkeypatch: pytest.MonkeyPatch) -> None:
    first = sdk.decide(asked(request_id="r1"))
    monkeypatch.setenv("LUMYN_ENCRYPT_SUBJECTS", "1")
    assert sdk.decide(asked(request_id="r1"))["decision_id"] == first["decision_id"]
    with pytest.raises(RequestConflict):
        sdk.decide(asked(request_id="r1", amount=101))


def test_what_was_stored_before_stays_as_it_is_and_verifies(inside: Inside, monkeypatch: pytest.MonkeyPatch) -> None:
    clear = sdk.decide(asked())
    sdk.label(clear["decision_id"], "failure", summary="before")
    before = stored(clear["decision_id"])
    monkeypatch.setenv("LUMYN_ENCRYPT_SUBJECTS", "1")
    sealed = sdk.decide(asked(BEN))
    assert sealed["verdict"] == "DENY", "what was learnt in clear counts on"
    assert stored(clear["decision_id"]) == before and "sealed" not in before
    assert inside.json("verify", "--json")["verified"]
    told = forget(inside, BEN)
    assert (told["records"], told["in_clear"]) == (1, 0)
    left = inside.run("memory", "forget", "--subject", f"user:{ANN}", "--why", "asked", "--json")
    assert json.loads(left.stdout)["in_clear"] == 1
    sdk.decide(asked(ANN))
    assert forget(inside, ANN, code=1)["in_clear"] == 1, "one can't be forgotten, and the exit code says so"


def test_turned_off_again_new_ones_are_in_clear_and_old_ones_open(private: Inside, monkeypatch: pytest.MonkeyPatch) -> None:
    record = sdk.decide(asked())
    monkeypatch.setenv("LUMYN_ENCRYPT_SUBJECTS", "0")
    assert sdk.show(record["decision_id"])["record"] == record
    assert "sealed" not in stored(sdk.decide(asked(BEN))["decision_id"])
    assert private.json("verify", "--json")["decisions"] == 2


def test_memory_search_list_and_the_index_work_on_it(private: Inside) -> None:
    first = sdk.decide(asked())
    sdk.label(first["decision_id"], "failure", summary="Philomena again")
    assert sdk.decide(asked(BEN))["risk_signals"]["failure_similarity"]["top_k"][0]["summary"] == "Philomena again"
    private.write("request.json", json.dumps(asked(BEN)))
    assert "Philomena again" in private.run("memory", "search", "request.json").stdout
    for query in (f"subject_id='{ANN}'", "evidence.iban='DE89370400440532013000' AND label=failure", "amount=100"):
        found = private.json("list", "--query", query, "--json")
        assert first["decision_id"] in [one["decision_id"] for one in found], query
    assert len(private.json("list", "--query", f"subject_id='{ANN}'", "--json")) == 1
    assert private.json("memory", "verify", "--json")["differ"] == []
    assert private.json("memory", "explain", first["decision_id"][:26], "--json")["decision_id"] == first["decision_id"]


def test_a_text_that_looks_sealed_is_a_text(private: Inside) -> None:
    kid = stored(sdk.decide(asked(BEN))["decision_id"])["request"]["subject"]["id"]
    false = f"sealed:1:{kid}:AAAA"
    record = sdk.decide({**asked(), "evidence": {"note": false, "chargeback_risk": 0.1}})
    sdk.label(record["decision_id"], "failure", summary="first")
    with pytest.raises(BadInput, match="not this decision's"):
        sdk.label(record["decision_id"], "failure", summary=false)
    shown = sdk.show(record["decision_id"])
    assert shown["record"]["request"]["evidence"]["note"] == false and len(shown["events"]) == 1
    assert private.json("memory", "verify", "--json")["differ"] == []


def test_bulk_changes_keep_the_words_sealed(private: Inside) -> None:
    first = sdk.decide(asked())
    sdk.label(first["decision_id"], "failure", summary="Philomena again")
    job = private.json("relabel", "--query", "verdict=ALLOW", "--label", "success", "--why", "Philomena's bulk",
                       "--apply", "--json")["job"]  # fmt: skip
    private.run("relabel", "--undo", job)
    events = sdk.show(first["decision_id"])["events"]
    assert [e["type"] for e in events] == ["label", "settle", "restore"]
    assert events[2]["restored"]["said"][0]["summary"] == "Philomena again"
    assert not any(b"Philomena" in m for topic in ("labels", "label-requests") for m in messages(topic))


# forgotten


def told_of(private: Inside) -> tuple[dict[str, Any], dict[str, Any]]:
    """Ann's decision, which failed, and Ben's, which was decided by that."""
    first = sdk.decide(asked(ANN, request_id="ann-1"))
    sdk.label(first["decision_id"], "failure", summary="Philomena was not amused")
    sdk.label(first["decision_id"], "note", summary="Philomena wrote again")
    second = sdk.decide(refund(100, 0.1, BEN))
    assert second["reason_codes"] == ["FAILURE_MEMORY_SIMILAR_ESCALATE"]
    return dict(first), dict(second)


def test_no_byte_of_what_is_personal_is_left_in_any_file(private: Inside) -> None:
    told_of(private)
    assert holding(private.home, "Philomena", "kettle"), "the memory holds it before"
    wrapped = sqlite3.connect(private.home / "keys/subjects.db").execute("SELECT wrapped FROM subjects").fetchall()
    done = forget(private)
    assert (done["records"], done["labels"], done["memories"], done["applied"]) == (1, 1, 1, True)
    words = [word for word in PERSONAL if word != "chargeback_risk"]
    assert holding(private.home, *words) == []
    key_file = b"".join(path.read_bytes() for path in (private.home / "keys").iterdir())
    assert sum(one[0] in key_file for one in wrapped) == 1, "Ben's is left"
    wiring.close_homes()
    assert holding(private.home, *words) == []
    sdk.decide(refund(100, 0.1, BEN))
    private.run("memory", "rebuild")
    private.run("index", "rebuild")
    assert holding(private.home, *words) == []


def test_the_chain_still_verifies_and_what_remains_is_told(private: Inside) -> None:
    first, second = told_of(private)
    private.run("checkpoint")
    before = [m for topic in ("requests", "records", "receipts") for m in messages(topic)]
    forget(private)
    assert [m for topic in ("requests", "records", "receipts") for m in messages(topic)] == before
    found = private.json("verify", "--json")
    assert (found["verified"], found["decisions"], found["erased"], found["sealed"]) == (True, 2, 1, 0)
    assert "1 decisions are erased" in private.run("verify").stdout
    one = private.json("verify", first["decision_id"], "--json")
    assert one["verified"] and any(c["detail"].startswith("erased") for c in one["checks"])
    shown = private.json("show", first["decision_id"], "--json")
    assert shown["record"]["erased"] is True and shown["record"]["verdict"] == "ALLOW"
    assert shown["record"]["reason_codes"] == ["REFUND_SMALL_LOW_RISK"]
    assert [e["summary"] for e in shown["events"]] == ["[erased]", "[erased]"]
    assert "erased" in private.run("show", first["decision_id"]).stdout
    assert "The personal part is erased" in private.run("explain", first["decision_id"]).stdout
    assert "[erased]" in private.run("show", second["decision_id"]).stdout, "what Ben's record quoted of Ann"


def test_as_of_answers_say_erased_and_never_differ(private: Inside) -> None:
    told_of(private)
    forget(private)
    after = sdk.decide(refund(100, 0.1, BEN))
    assert after["verdict"] == "ALLOW", "the memory is without it"
    for _ in range(2):
        found = private.json("memory", "verify", "--json")
        assert (found["same"], found["erased"], found["differ"]) == (1, 2, [])
        private.run("memory", "rebuild")


def test_a_pack_asked_as_of_then_says_erased(private: Inside) -> None:
    _, second = told_of(private)
    private.run("export", second["decision_id"], "--pack", "--out", "second.zip")
    private.run("replay", "second.zip", "--memory", "as-of")
    forget(private)
    line = private.refused("replay", "second.zip", "--memory", "as-of", code=2)
    assert "forgotten" in line
    assert private.json("replay", "second.zip", "--memory", "recorded", "--json")["matches"]


def test_what_a_change_reached_is_not_told_of_what_met_the_forgotten(private: Inside) -> None:
    told_of(private)
    other = sdk.decide(refund(90, 0.1, BEN))
    sdk.label(other["decision_id"], "success", should=None)
    sdk.decide(refund(91, 0.1, BEN))
    forget(private)
    told = private.json("relabel", "--query", f"decision_id='{other['decision_id']}'", "--label", "failure",
                        "--should", "ALLOW", "--why", "w", "--json", code=None)  # fmt: skip
    radius = told["blast_radius"]
    assert radius["compared"] == 0 and "erased: memories that it could meet were forgotten" in json.dumps(radius)


def test_a_decision_that_can_not_have_met_the_forgotten_is_compared_as_ever(private: Inside) -> None:
    told_of(private)
    other = refund(100, 0.1, BEN)
    other["action"]["type"] = "credit"
    sdk.decide(other)
    forget(private)
    path = private.home / "memory.db"
    found = private.json("memory", "verify", "--json")
    assert (found["same"], found["erased"]) == (1, 2)
    wiring.close_homes()
    path.unlink()
    assert private.json("memory", "verify", "--json")["same"] == 1


def test_damage_after_the_forgetting_is_told_as_damage(private: Inside) -> None:
    told_of(private)
    forget(private)
    good = sdk.decide(refund(100, 0.1, BEN))
    sdk.label(good["decision_id"], "success")
    sdk.decide(refund(100, 0.1, BEN))
    wiring.close_homes()
    db = sqlite3.connect(private.home / "memory.db")
    db.execute("DELETE FROM points")
    db.commit()
    db.close()
    found = private.json("memory", "verify", "--json", code=3)
    assert (len(found["differ"]), found["same"], found["erased"]) == (1, 1, 2)


def test_nothing_can_be_said_of_an_erased_decision(private: Inside) -> None:
    first, second = told_of(private)
    forget(private)
    with pytest.raises(Erased, match="can't be labelled"):
        sdk.label(first["decision_id"], "success")
    line = private.refused("label", first["decision_id"], "--label", "note", "--summary", "x", code=2)
    assert "erased" in line
    sdk.label(second["decision_id"], "failure", should="ALLOW", summary="Ben's own")
    done = private.json("relabel", "--query", "action_type=refund", "--label", "success", "--why", "w", "--apply",
                        "--json")  # fmt: skip
    assert (done["accepted"], done["refused"]) == (1, [])
    assert private.json("redrive", "--query", f"decision_id='{first['decision_id']}'", "--apply", "--json", code=None)
    assert private.run("memory", "explain", first["decision_id"], code=2).stderr.startswith("lumyn: ")
    assert private.json("list", "--query", f"subject_id='{ANN}'", "--json") == []


def test_the_same_person_is_somebody_new_afterwards(private: Inside) -> None:
    first, _ = told_of(private)
    forget(private)
    again = sdk.decide(asked(ANN, request_id="ann-2"))
    assert again["verdict"] == "ALLOW" and sdk.show(again["decision_id"])["record"] == again
    new, old = stored(again["decision_id"])["request"], stored(first["decision_id"])["request"]
    assert new["subject"]["id"] != old["subject"]["id"]
    assert sdk.show(first["decision_id"])["record"]["erased"]
    with pytest.raises(RequestConflict):
        sdk.decide(asked(ANN, request_id="ann-1"))
    assert forget(private)["records"] == 1, "and can be forgotten again"
    assert private.json("verify", "--json")["erased"] == 2


def test_forgetting_one_takes_nothing_from_anybody_else(private: Inside, monkeypatch: pytest.MonkeyPatch) -> None:
    _, second = told_of(private)
    monkeypatch.setenv("LUMYN_TENANT", "globex")
    theirs = sdk.decide({**asked(ANN)})
    sdk.label(theirs["decision_id"], "failure", summary="Philomena of globex")
    monkeypatch.setenv("LUMYN_TENANT", "default")
    forget(private)
    assert sdk.show(second["decision_id"])["record"]["request"]["subject"]["id"] == BEN
    monkeypatch.setenv("LUMYN_TENANT", "globex")
    assert sdk.show(theirs["decision_id"])["record"] == theirs
    assert private.json("memory", "stats", "--json")["points"] == 1
    merchant = asked(ANN)
    merchant["subject"]["type"] = "merchant"
    kept = sdk.decide(merchant)
    forget(private)
    assert sdk.show(kept["decision_id"])["record"]["request"] == merchant | {"tenant": "globex"}, "another type"


def test_a_dry_run_changes_nothing_and_says_what_would_go(private: Inside) -> None:
    first, _ = told_of(private)
    before = sorted(messages("labels"))
    found = private.json("memory", "forget", "--subject", f"user:{ANN}", "--why", "asked", "--json")
    assert (found["records"], found["labels"], found["memories"], found["applied"]) == (1, 1, 1, False)
    assert sorted(messages("labels")) == before and sdk.show(first["decision_id"])["record"] == first


def test_again_or_for_nobody_it_says_so(private: Inside) -> None:
    told_of(private)
    forget(private)
    again = private.run("memory", "forget", "--subject", f"user:{ANN}", "--why", "asked", "--apply")
    assert "nothing is stored" in again.stderr
    for wrong in ("ann", ":ann", "user:"):
        private.refused("memory", "forget", "--subject", wrong, "--why", "x", code=2)
    sdk.decide(asked(ANN))
    private.refused("memory", "forget", "--subject", f"user:{ANN}", "--why", " ", "--apply", code=2)


def test_a_legal_hold_stops_it_with_its_reason(private: Inside) -> None:
    first, _ = told_of(private)
    private.run("memory", "hold", "--subject", f"user:{ANN}", "--why", "case 2024-117")
    line = private.refused("memory", "forget", "--subject", f"user:{ANN}", "--why", "asked", "--apply", code=2)
    assert "case 2024-117" in line
    assert sdk.show(first["decision_id"])["record"] == first
    assert private.json("memory", "forget", "--subject", f"user:{ANN}", "--why", "asked", "--json")["hold"]
    private.run("memory", "hold", "--subject", f"user:{ANN}", "--why", "closed", "--release")
    assert forget(private)["applied"]
    told = [json.loads(m) for m in messages("labels")]
    assert [e["type"] for e in told if e.get("subject")] == ["hold", "unhold", "forget"]
    assert [e["version"] for e in told] == list(range(1, len(told) + 1))
    assert "no hold" in private.refused("memory", "hold", "--subject", f"user:{ANN}", "--why", "x", "--release", code=2)


@pytest.mark.parametrize("dies", ["after the key", "after the event", "after the memory"])
def test_broken_off_it_is_gone_all_the_same_and_goes_on(
    private: Inside, monkeypatch: pytest.MonkeyPatch, dies: str
) -> None:
    from lumyn import forgetting

    first, _ = told_of(private)
    step = {"after the key": "_tell", "after the event": "_take_out"}.get(dies)

    def killed(*_: Any, **__: Any) -> Any:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        if step:
            patched.setattr(forgetting, step, killed)
        else:
            keys = type(wiring.operator_home().log.keys)
            patched.setattr(keys, "finish", lambda self, kid: killed() if sys._getframe(1).f_code.co_name == "forget"
                            else None)  # fmt: skip
        done = private.run("memory", "forget", "--subject", f"user:{ANN}", "--why", "asked", "--apply", code=None)
        assert done.code != 0
    wiring.close_homes()
    assert sdk.show(first["decision_id"])["record"]["erased"], "the key goes first"
    with pytest.raises(Erased):
        sdk.label(first["decision_id"], "success")
    if dies == "after the key":
        good, bad, last = sdk.decide_many([refund(1, 0.1, BEN), asked(ANN), refund(2, 0.1, BEN)])
        assert isinstance(bad, Erased) and "being forgotten" in str(bad)
        assert [r["request"]["action"]["amount"]["value"] for r in (good, last)] == [1, 2]  # type: ignore[index]
        with pytest.raises(Erased):
            sdk.submit(asked(ANN))
        assert private.json("memory", "verify", "--json")["differ"] == [], "erased, before the log says so"
    private.run("memory", "forget", "--subject", f"user:{ANN}", "--why", "asked", "--apply")
    assert holding(private.home, "Philomena", ANN) == []
    assert [json.loads(m)["type"] for m in messages("labels")].count("forget") == 1
    assert sdk.decide(asked(ANN))["verdict"] == "ALLOW"
    assert private.json("verify", "--json")["verified"]


def test_deciding_labelling_and_forgetting_at_once_leaves_a_sound_log(private: Inside) -> None:
    from lumyn import forgetting
    from streams.subject_keys import Subject

    stop, wrong = threading.Event(), []

    def work(user: str) -> None:
        while not stop.is_set():
            try:
                record = sdk.decide(asked(user))
                sdk.label(record["decision_id"], "failure", summary="Philomena")
            except Erased:
                continue  # forgotten in between, or while it is being done: nothing was let through for it
            except Exception as error:
                wrong.append(error)

    threads = [threading.Thread(target=work, args=(user,)) for user in (ANN, ANN, BEN)]
    sdk.decide(asked(ANN))
    for thread in threads:
        thread.start()
    home = wiring.open_home()
    done = 0
    for _ in range(8):
        with suppress(NotFound):
            done += forgetting.forget(home, Subject("default", "user", ANN), "asked").applied
    stop.set()
    for thread in threads:
        thread.join()
    assert wrong == [] and done
    with suppress(NotFound):
        forgetting.forget(home, Subject("default", "user", ANN), "asked")
    wiring.close_homes()
    assert holding(private.home, ANN) == []
    assert private.json("verify", "--json")["verified"]
    assert private.json("memory", "verify", "--json")["differ"] == []
    private.run("memory", "rebuild")
    assert private.json("memory", "verify", "--json")["differ"] == []


def test_a_process_that_held_the_memory_open_forgets_before_its_next_decision(private: Inside) -> None:
    told_of(private)
    home = wiring.open_home()
    assert sdk.decide(refund(100, 0.1, BEN))["verdict"] == "ESCALATE"
    script = (
        "from lumyn.__main__ import main; import sys; "
        f"sys.argv = ['lumyn', 'memory', 'forget', '--subject', 'user:{ANN}', '--why', 'asked', '--apply']; main()"
    )
    subprocess.run([sys.executable, "-c", script], check=True, cwd=private.folder, env=os.environ, capture_output=True)
    assert wiring.open_home() is home
    assert sdk.decide(refund(100, 0.1, BEN))["verdict"] == "ALLOW"
    with pytest.raises(Erased):
        sdk.label(next(iter(home.records("0", 1))).key.decode(), "success")


def test_a_key_store_from_a_backup_forgets_again_when_the_memory_is_made_anew(private: Inside) -> None:
    first, _ = told_of(private)
    wiring.close_homes()
    backup = (private.home / "keys/subjects.db").read_bytes()
    forget(private)
    wiring.close_homes()
    (private.home / "keys/subjects.db").write_bytes(backup)
    private.run("memory", "rebuild")
    assert sdk.show(first["decision_id"])["record"]["erased"] is True


# faults and forgeries


@pytest.mark.parametrize("kind", ["forget", "hold", "unhold"])
def test_who_may_label_can_not_forget_or_hold_anybody(private: Inside, kind: str) -> None:
    first, _ = told_of(private)
    home = wiring.operator_home()
    kid = stored(first["decision_id"])["request"]["subject"]["id"]
    request = {"event_id": "e9", "decision_id": "", "tenant": "default", "type": kind, "summary": "x", "actor": "eve",
               "subject": kid}  # fmt: skip
    (refused,) = home.labels.label([request])  # type: ignore[list-item]
    assert isinstance(refused, BadInput)
    for broken in ({"decision_id": first["decision_id"]}, {"subject": "ann"}, {"subject": None}, {"label": "failure"}):
        (refused,) = home.labels.label([{**request, **broken}])  # type: ignore[list-item]
        assert isinstance(refused, BadInput), broken
    assert sdk.show(first["decision_id"])["record"] == first


def test_what_waited_in_clear_when_it_was_turned_on_is_recorded_sealed(
    inside: Inside, monkeypatch: pytest.MonkeyPatch
) -> None:
    for _ in range(2):
        sdk.submit(asked(request_id="r1"))
    monkeypatch.setenv("LUMYN_ENCRYPT_SUBJECTS", "1")
    sdk.drain()
    assert [json.loads(m)["outcome"] for m in messages("receipts")] == ["decided", "duplicate"]
    assert not any(b"Philomena" in m for m in messages("records"))
    assert inside.json("verify", "--json")["verified"]
    forget(inside)
    assert inside.json("verify", "--json")["verified"]


def tampered(decision_id: str, change: Any) -> None:
    """Change a stored record, its digest made right again, as only the log's owner could."""
    home = wiring.operator_home()
    record = stored(decision_id)
    change(record)
    record["record_digest"] = record_digest(record)
    db = sqlite3.connect(home.path / "lumyn.db")
    db.execute("UPDATE log_records SET value = ? WHERE key = ?", (encode(record), decision_id.encode()))
    db.commit()
    db.close()


def flipped(text: str) -> str:
    return ("A" if text[5] != "A" else "B").join((text[:5], text[6:]))


@pytest.mark.parametrize("part", ["request", "tag", "record", "amount", "subject"])
def test_a_changed_box_is_an_integrity_error(private: Inside, part: str) -> None:
    record = sdk.decide(asked())

    def change(value: dict[str, Any]) -> None:
        if part == "request":
            value["request"]["sealed"]["box"] = flipped(value["request"]["sealed"]["box"])
        elif part == "tag":
            value["request"]["sealed"]["tag"] = flipped(value["request"]["sealed"]["tag"])
        elif part == "record":
            value["sealed"] = flipped(value["sealed"])
        elif part == "amount":
            value["request"]["action"]["amount"]["value"] = 1
        else:
            value["request"]["subject"]["type"] = "admin"

    tampered(record["decision_id"], change)
    assert not private.json("verify", record["decision_id"], "--json", code=3)["verified"]
    assert not private.json("verify", "--json", code=3)["verified"]
    private.refused("show", record["decision_id"], code=3)
    private.refused("label", record["decision_id"], "--label", "failure", code=3)
    private.refused("export", record["decision_id"], "--pack", "--out", "one.zip", code=3)


def test_another_subjects_box_in_its_place_is_an_integrity_error(private: Inside) -> None:
    first, second = sdk.decide(asked(ANN)), sdk.decide(asked(BEN))
    theirs = stored(second["decision_id"])
    tampered(first["decision_id"], lambda value: value.update(request=theirs["request"], sealed=theirs["sealed"]))
    assert not private.json("verify", "--json", code=3)["verified"]


def test_the_wrong_master_key_decides_nothing(private: Inside, monkeypatch: pytest.MonkeyPatch) -> None:
    first = sdk.decide(asked())
    sdk.label(first["decision_id"], "failure", summary="x")
    count = private.records()
    wiring.close_homes()
    monkeypatch.setenv("LUMYN_MASTER_KEY", "00" * 32)
    private.write("request.json", json.dumps(asked()))
    for command in (("decide", "request.json"), ("show", first["decision_id"]), ("verify",),
                    ("label", first["decision_id"], "--label", "success"),
                    ("memory", "forget", "--subject", f"user:{ANN}", "--why", "x", "--apply")):  # fmt: skip
        line = private.refused(*command, code=4)
        assert "master key" in line and "00000" not in line
    monkeypatch.setenv("LUMYN_MASTER_KEY", "short")
    assert "no master key" in private.refused("decide", "request.json", code=2)
    monkeypatch.delenv("LUMYN_MASTER_KEY")
    wiring.close_homes()
    assert private.records() == count and sdk.show(first["decision_id"])["record"] == first


def test_a_request_that_waits_while_its_subject_is_forgotten_is_never_decided(private: Inside) -> None:
    sdk.submit(asked(ANN, request_id="waits"))
    forget(private)
    sdk.drain()
    (receipt,) = [json.loads(m) for m in messages("receipts")]
    (letter,) = [json.loads(m) for m in messages("dead-letters")]
    assert (receipt["outcome"], letter["reason"]) == ("rejected", "erased")
    assert holding(private.home, ANN, "Philomena") == []
    told = json.loads(private.run("verify", "--json", code=2).stderr)["error"]  # 3: what was rejected does not fit
    assert told["code"] == "not_found" and "nothing to verify" in told["message"]


def test_a_log_without_its_keys_can_still_be_checked(private: Inside, tmp_path: Path) -> None:
    record = sdk.decide(asked())
    wiring.close_homes()
    (private.home / "keys/subjects.db").rename(tmp_path / "elsewhere.db")
    found = private.json("verify", "--json")
    assert (found["verified"], found["sealed"], found["erased"]) == (True, 1, 0)
    assert "is not here" in private.run("explain", record["decision_id"]).stdout
    assert "key_missing" in private.run("label", record["decision_id"], "--label", "failure", "--json", code=4).stderr


def test_a_memory_whose_labels_can_not_be_opened_is_unavailable_never_empty(private: Inside, tmp_path: Path) -> None:
    told_of(private)
    wiring.close_homes()
    (private.home / "memory.db").unlink()
    (private.home / "keys/subjects.db").rename(tmp_path / "elsewhere.db")
    record = sdk.decide(refund(100, 0.1, BEN))
    assert (record["verdict"], record["reason_codes"]) == ("ABSTAIN", ["STORAGE_UNAVAILABLE"])
    assert "not in this key store" in private.refused("memory", "rebuild", code=4)


def test_a_misspelt_setting_is_refused(inside: Inside, monkeypatch: pytest.MonkeyPatch) -> None:
    inside.write("request.json", json.dumps(asked()))
    inside.write("lumyn.toml", "[privacy]\nencrypt_subject = true\n")
    assert "encrypt_subject" in inside.refused("decide", "request.json", code=2)
    inside.write("lumyn.toml", "[privacy]\nencrypt_subjects = 'yes'\n")
    inside.refused("decide", "request.json", code=2)
    inside.write("lumyn.toml", "[privacy]\nencrypt_subjects = true\n")
    assert "sealed" in stored(inside.json("decide", "request.json")["decision_id"])
    monkeypatch.setenv("LUMYN_ENCRYPT_SUBJECTS", "maybe")
    inside.refused("decide", "request.json", code=2)


def test_what_was_sealed_is_never_sent_again_in_clear(private: Inside, monkeypatch: pytest.MonkeyPatch) -> None:
    private.write("policy.yml", POLICY + "# another\n")
    first = sdk.decide(asked())
    monkeypatch.setenv("LUMYN_ENCRYPT_SUBJECTS", "0")
    private.run("redrive", "--query", f"decision_id='{first['decision_id']}'", "--apply")
    assert len(list(messages("requests"))) == 2 and not any(b"Philomena" in m for m in messages("requests"))
    assert not any(b"Philomena" in m for m in messages("records"))
    monkeypatch.setenv("LUMYN_ENCRYPT_SUBJECTS", "1")
    sdk.submit({**asked(request_id="r9"), "policy": "nowhere"})
    sdk.drain()
    assert "nowhere" in private.run("dead-letters", "list").stdout
    private.write("body.json", json.dumps(asked(request_id="r9")))
    private.run("dead-letters", "resend", "0", "--from-file", "body.json")
    assert not any(b"Philomena" in m for topic in ("requests", "records", "dead-letters") for m in messages(topic))
    assert private.json("verify", "--json")["decisions"] == 3


def test_the_doctor_says_how_the_keys_are(private: Inside, monkeypatch: pytest.MonkeyPatch) -> None:
    def said() -> dict[str, Any]:
        found = private.json("doctor", "--json", code=None)["findings"]
        return next(one for one in found if one["part"] == "subject keys")

    sdk.decide(asked())
    sdk.decide(asked(BEN))
    forget(private)
    assert said()["status"] == "ok" and "1 keys, 0 on hold, 1 destroyed" in json.dumps(said())
    wiring.operator_home().log.keys.erase(stored(sdk.decide(asked())["decision_id"])["request"]["subject"]["id"])
    assert said()["status"] == "warn"
    monkeypatch.setenv("LUMYN_MASTER_KEY", "11" * 32)
    assert said()["status"] == "fail"


# packs and data sets


def test_a_pack_opens_one_decision_and_a_redacted_one_none(private: Inside, tmp_path: Path) -> None:
    first, second = told_of(private)
    whole, red = tmp_path / "whole.zip", tmp_path / "red.zip"
    private.run("export", first["decision_id"], "--pack", "--out", whole)
    private.run("export", first["decision_id"], "--pack", "--redact", "--out", red)
    wiring.close_homes()
    elsewhere = {k: v for k, v in os.environ.items() if not k.startswith("LUMYN_")}
    elsewhere["LUMYN_HOME"] = str(tmp_path / "other")

    def run(*arguments: object) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "lumyn", *map(str, arguments)]
        return subprocess.run(command, env=elsewhere, cwd=tmp_path, capture_output=True, text=True, check=False)

    assert run("replay", whole).returncode == 0 and run("verify", whole).returncode == 0
    (tmp_path / "strict.yml").write_text(POLICY.replace("lte: 500", "lte: 5").replace("gt: 250", "gt: 50"))
    assert "verdict: ESCALATE" in run("replay", whole, "--policy", "strict.yml").stdout
    assert run("verify", red).returncode == 0
    refused = run("replay", red)
    assert refused.returncode == 2 and "redacted" in refused.stderr and refused.stdout == ""
    assert not any(word.encode() in red.read_bytes() for word in PERSONAL if word != "chargeback_risk")
    import zipfile

    with zipfile.ZipFile(red) as archive:
        data = b"".join(archive.read(name) for name in archive.namelist())
        assert "opening.json" not in archive.namelist()
    assert not any(word.encode() in data for word in PERSONAL if word != "chargeback_risk")
    assert second["decision_id"] != first["decision_id"]


def test_what_opens_another_decision_does_not_open_this_one(private: Inside, tmp_path: Path) -> None:
    import zipfile

    first, second = told_of(private)
    for name, record in (("a", first), ("b", second)):
        private.run("export", record["decision_id"], "--pack", "--out", tmp_path / f"{name}.zip")
    with zipfile.ZipFile(tmp_path / "a.zip") as a, zipfile.ZipFile(tmp_path / "b.zip") as b:
        members = {name: a.read(name) for name in a.namelist()} | {"opening.json": b.read("opening.json")}
    del members["signature.json"]
    with zipfile.ZipFile(tmp_path / "forged.zip", "w") as forged:
        for name, data in members.items():
            forged.writestr(name, data)
    private.run("verify", tmp_path / "forged.zip", code=3)
    private.refused("replay", tmp_path / "forged.zip", code=3)


def test_a_clear_decision_can_not_be_redacted_and_an_erased_one_is(inside: Inside, monkeypatch: pytest.MonkeyPatch) -> None:
    clear = sdk.decide(asked(BEN))
    assert "in clear" in inside.refused("export", clear["decision_id"], "--pack", "--redact", "--out", "x.zip", code=2)
    monkeypatch.setenv("LUMYN_ENCRYPT_SUBJECTS", "1")
    first = sdk.decide(asked(ANN))
    forget(inside)
    inside.run("export", first["decision_id"], "--pack", "--out", "erased.zip")
    assert inside.json("verify", "erased.zip", "--json")["verified"]
    assert "redacted" in inside.refused("replay", "erased.zip", code=2)
    with pytest.raises(LumynError):
        sdk.replay("erased.zip")


def test_a_data_set_holds_what_opens_it_unless_redacted(private: Inside) -> None:
    told_of(private)
    private.run("export", "--limit", 10, "--out", "all.jsonl")
    private.run("export", "--limit", 10, "--redact", "--out", "red.jsonl")
    assert private.json("diff", "all.jsonl", "--policy", "policy.yml", "--json")["compared"] == 2
    assert private.json("diff", "red.jsonl", "--policy", "policy.yml", "--json", code=2)["compared"] == 0
    lines = [json.loads(line) for line in (private.folder / "all.jsonl").read_text().splitlines()]
    lines[0]["opening"], lines[1]["opening"] = lines[1]["opening"], lines[0]["opening"]
    private.write("mixed.jsonl", "".join(json.dumps(line) + "\n" for line in lines))
    assert private.json("diff", "mixed.jsonl", "--policy", "policy.yml", "--json", code=None)["compared"] == 0


def test_the_api_answers_in_kind(private: Inside) -> None:
    from served import dev_client

    from lumyn import LumynConfig

    with dev_client(LumynConfig()) as client:
        answers_in_kind(private, client)


def answers_in_kind(private: Inside, client: Any) -> None:
    record = client.post("/v1/decisions", json=asked()).json()
    place = f"/v1/decisions/{record['decision_id']}"
    assert client.get(place).json() == record and record["request"]["subject"]["id"] == ANN
    forget(private)
    assert ANN not in client.get(place).text
    refused = client.post(f"{place}/labels", json={"label": "failure"})
    assert (refused.status_code, refused.json()["code"]) == (410, "erased")
