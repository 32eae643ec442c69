"""Golden histories: packs and homes of every version that ever wrote them are read, and corrupted ones are not."""

from __future__ import annotations

import json
import shutil
import zipfile
from pathlib import Path
from typing import Any

import pytest
from conftest_e2e import refund
from inside import Inside, one_line

from lumyn import wiring
from schemas.record import ENGINE, SCHEMA
from streams.lumyn1.pack import SCHEMAS as LUMYN1_SCHEMAS
from streams.packs import read_any_pack, read_pack

pytest_plugins = ("inside_plugin",)

GOLDEN = Path(__file__).parents[1] / "golden"
OURS = ("record-1", "record-1-checkpointed")
STORY = {
    "allow": ("ALLOW", ["REFUND_SMALL_LOW_RISK"]),
    "memory": ("DENY", ["FAILURE_MEMORY_SIMILAR_BLOCK"]),
    "missing-evidence": ("ABSTAIN", ["MISSING_EVIDENCE"]),
    "kill-switch": ("DENY", ["KILL_SWITCH"]),
}
DIGESTS = {
    "record-1/allow": "sha256:c10451a9f208f460f3ae732287c4390d4d121a35cc19c7af92b464ac0c74abcb", "record-1/kill-switch": "sha256:53838b9c7c3a5c33339f38e7d877fbdccdd8cda2819a444772ffa3f286eebaaf",
    "record-1/memory": "sha256:bc37d2184b5bf9897e716a443f47b3b5e964d1f0e7b27f57d0f9878305aab298", "record-1/missing-evidence": "sha256:5a05d5f2de23e1fa2cb7c52f28ac3a1bcbd662ac60acb0242d40b8409607429f",
    "record-1-checkpointed/allow": "sha256:c2744d9e260a9e51d6267ba780192323c5c8a4ce429ba2890066acb5a402836e", "record-1-checkpointed/kill-switch": "sha256:d3b28a2079a0564976c03ac6904bc9c1dc1ffe3850384986dd3874aeb95c04d2",
    "record-1-checkpointed/memory": "sha256:da2fa65b8251e2bf1fb8dc5bd8f6be32bf12534eca13b02336bc934234737398", "record-1-checkpointed/missing-evidence": "sha256:fdf75f084e9ad95b8625e12aa58674db193dd4fe65ebbd5edab71fb791b6735e",
}  # fmt: skip
LUMYN1 = {
    "v0": ("TRUST", ["REFUND_SMALL_LOW_RISK"]),
    "v0-query": ("QUERY", ["MISSING_EVIDENCE_REFUND", "REFUND_SMALL_LOW_RISK"]),
    "v0-converted": ("ALLOW", ["REFUND_SMALL_LOW_RISK"]),
    "v1": ("ALLOW", ["REFUND_SMALL_LOW_RISK"]),
    "v1-memory": ("ABSTAIN", ["REFUND_SMALL_LOW_RISK", "FAILURE_MEMORY_SIMILAR_BLOCK"]),
}


def golden_home(inside: Inside, folder: str) -> None:
    """Put a golden home in the place of the user's."""
    with zipfile.ZipFile(GOLDEN / folder / "home.zip") as archive:
        archive.extractall(inside.home)
    wiring.close_homes()


def test_every_schema_that_is_read_has_a_golden_history() -> None:
    written = {read_pack(path).record["schema"] for folder in OURS for path in packs(folder)}
    assert written == {SCHEMA}, "a new record schema: add a folder of packs that the version before wrote"
    engines = {read_pack(path).record["engine"] for folder in OURS for path in packs(folder)}
    assert engines >= {ENGINE}, "a new engine: keep packs of the one before"
    assert {read_any_pack(path).record["schema_version"] for path in packs("lumyn-1.3.6")} == set(LUMYN1_SCHEMAS)


def packs(folder: str) -> list[Path]:
    return sorted(path for path in (GOLDEN / folder).glob("*.zip") if path.name != "home.zip")


@pytest.mark.parametrize("name", STORY)
@pytest.mark.parametrize("folder", OURS)
def test_a_golden_pack_replays_as_it_was_decided(inside: Inside, folder: str, name: str) -> None:
    path = GOLDEN / folder / f"{name}.zip"
    found = inside.json("replay", path, "--json")
    assert (found["verdict"], found["reason_codes"]) == STORY[name]
    assert found["matches"] and not found["differences"] and not found["engine_changed"]
    assert read_pack(path).record["record_digest"] == DIGESTS[f"{folder}/{name}"]
    verified = inside.json("verify", path, "--json")
    assert verified["verified"]
    names = [check["name"] for check in verified["checks"]]
    assert "reproduction" in names and ("checkpoint" in names) == (folder == "record-1-checkpointed")


@pytest.mark.parametrize("folder", OURS)
def test_a_golden_home_verifies_lists_replays_and_goes_on(inside: Inside, folder: str) -> None:
    golden_home(inside, folder)
    found = inside.json("verify", "--json")
    assert found["verified"] and found["decisions"] == 5
    assert found["checkpoints"]["count"] == (0 if folder == "record-1" else 8)
    listed = inside.json("list", "--json")
    assert [record["verdict"] for record in listed] == ["DENY", "ABSTAIN", "DENY", "DENY", "ALLOW"]
    replayed = inside.json("replay", GOLDEN / folder / "memory.zip", "--memory", "as-of", "--json")
    assert replayed["matches"] and replayed["memory"] == "as-of"

    inside.run("kill-switch", "off", inside.json("kill-switch", "status", "--json")[0]["switch_id"])
    record = inside.decide(refund(120.5, 0.1))
    assert record["verdict"] == "DENY"  # as memory says since order-1
    inside.run("label", replayed["decision_id"], "--label", "success")
    inside.run("memory", "rebuild")
    inside.run("checkpoint")
    assert inside.json("verify", "--json")["decisions"] == 6


def test_corrupted_packs_are_refused_and_the_check_that_failed_is_named(inside: Inside) -> None:
    inside.refused("replay", GOLDEN / "corrupted" / "damaged-byte.zip", code=3)
    told = inside.refused("replay", GOLDEN / "corrupted" / "verdict-signed-again.zip", code=3)
    assert "reproduction failed" in told and "another `verdict`" in told
    done = inside.run("verify", GOLDEN / "corrupted" / "verdict-signed-again.zip", code=3)
    assert "FAILED reproduction" in done.stdout


def test_a_corrupted_home_is_found_by_its_checkpoint_and_by_deciding_again(inside: Inside) -> None:
    golden_home(inside, "corrupted")
    done = inside.run("verify", code=3)
    assert "checkpoint failed" in done.stderr and "is not what was decided" in done.stderr
    assert "5 decisions, 4 verified, 1 not" in done.stdout


# Many packs


def test_folders_patterns_and_files_are_replayed_together(inside: Inside) -> None:
    shutil.copytree(GOLDEN / "record-1", inside.folder / "incidents" / "old", ignore=shutil.ignore_patterns("home.zip"))
    shutil.copytree(GOLDEN / "lumyn-1.3.6", inside.folder / "peer")
    shutil.copy(GOLDEN / "corrupted" / "damaged-byte.zip", inside.folder / "incidents" / "bad.zip")
    found = inside.json("replay", "incidents", "peer/v1*.zip", "incidents/**/allow.zip", "--json", code=3)
    names = [Path(result["pack"]).name for result in found]
    assert names == [
        "bad.zip", "allow.zip", "kill-switch.zip", "memory.zip", "missing-evidence.zip", "v1-memory.zip", "v1.zip",
    ]  # fmt: skip
    assert found[0]["error"]["code"] == "bad_pack"
    assert all(result["matches"] for result in found[1:])

    told = inside.run("replay", "incidents/old", "peer", "--markdown")
    assert told.stdout.count("## Replay of decision") == 9
    assert "## 9 packs: 9 as recorded, 0 otherwise, 0 not replayed" in told.stdout
    assert "| peer/v0.zip | TRUST | TRUST | same |" in told.stdout
    assert "9 packs: 9 as recorded" in told.stderr


def test_a_folder_or_pattern_without_packs_is_exit_2(inside: Inside) -> None:
    (inside.folder / "empty").mkdir()
    assert "no packs in this folder" in inside.refused("replay", "empty", code=2)
    assert "no file fits" in inside.refused("replay", "empty/*.zip", code=2)


def test_a_candidate_policy_is_tried_on_all(inside: Inside) -> None:
    inside.write("strict.yml", "policy: strict\nrules: []\ndefault: {verdict: DENY, reason_codes: [NO]}\n")
    shutil.copytree(GOLDEN / "record-1", inside.folder / "old", ignore=shutil.ignore_patterns("home.zip"))
    found = inside.json("replay", "old", GOLDEN / "lumyn-1.3.6" / "v0-query.zip", "--policy", "strict.yml", "--json", code=1)
    assert [result["verdict"] for result in found] == ["DENY"] * 5
    assert [result["matches"] for result in found] == [False, True, False, False, True]  # QUERY is v1's DENY


@pytest.mark.parametrize("change", ["weights: {text: 0.5, categories: 0.3, numbers: 0.2}", "top_k: 9"])
def test_recorded_memory_that_was_asked_otherwise_is_refused_and_as_of_suggested(inside: Inside, change: str) -> None:
    policy = zipfile.ZipFile(GOLDEN / "record-1" / "memory.zip").read("policy.yml").decode()
    assert "memory: {}" in policy
    inside.write("other.yml", policy.replace("memory: {}", f"memory: {{{change}}}").replace("4.1.0", "4.2.0"))
    pack = GOLDEN / "record-1" / "memory.zip"
    done = inside.run("replay", pack, "--policy", "other.yml", "--memory", "recorded", code=2)
    assert change.partition(":")[0] in done.stderr and "use `--memory as-of`" in done.stderr
    golden_home(inside, "record-1")
    found = inside.json("replay", pack, "--policy", "other.yml", "--memory", "as-of", "--json", code=None)
    assert found["memory"] == "as-of"


# Packs of lumyn 1.x


@pytest.mark.parametrize("name", LUMYN1)
def test_a_pack_of_lumyn_1_is_read_and_what_it_cannot_prove_is_said(inside: Inside, name: str) -> None:
    path = GOLDEN / "lumyn-1.3.6" / f"{name}.zip"
    found = inside.json("replay", path, "--json")
    assert (found["verdict"], found["reason_codes"]) == LUMYN1[name]
    assert found["made_by"] == "lumyn 1.3.6"
    assert [check["name"] for check in found["checks"]][-1] == "verdict"
    unproven = " ".join(found["not_provable"])
    assert "not signed" in unproven and "no log, no receipt" in unproven
    assert ("vectors" in unproven) == (name == "v1-memory")
    done = inside.run("replay", path)
    assert done.stdout.count("\nverdict: ") == done.stdout.count("\nreason_codes: ") == 1
    assert "can't prove" in done.stdout
    verified = inside.run("verify", path, code=3)
    assert "NOT VERIFIED" in verified.stdout and "FAILED signature" in verified.stdout
    inside.refused("keys", "trust", path, code=3)


def edited(inside: Inside, name: str, change: Any, *, request: Any = None, policy: bytes | None = None) -> Path:
    """A pack of 1.x whose record was changed."""
    with zipfile.ZipFile(GOLDEN / "lumyn-1.3.6" / f"{name}.zip") as archive:
        parts = {member: archive.read(member) for member in archive.namelist()}
    record = json.loads(parts["decision_record.json"])
    change(record)
    parts["decision_record.json"] = json.dumps(record).encode()
    if request is not None:
        asked = json.loads(parts["request.json"])
        request(asked)
        parts["request.json"] = json.dumps(asked).encode()
    if policy is not None:
        parts["policy.yml"] = policy
    path = inside.folder / "edited.zip"
    with zipfile.ZipFile(path, "w") as archive:
        for member, data in parts.items():
            archive.writestr(member, data)
    return path


@pytest.mark.parametrize("name", LUMYN1)
def test_an_edited_verdict_that_its_own_replay_calls_ok_is_found(inside: Inside, name: str) -> None:
    other = "ESCALATE"
    path = edited(inside, name, lambda record: record.update(verdict=other))
    told = inside.refused("replay", path, code=3)
    assert "verdict failed" in told and "another `verdict`" in told


@pytest.mark.parametrize(
    ("change", "check"),
    [
        (lambda r: r.update(reason_codes=["OTHER"]), "another `reason_codes`"),
        (lambda r: r["matched_rules"][0].update(rule_id="R_X"), "another `matched_rules`"),
        (lambda r: r["determinism"].update(inputs_digest="sha256:" + "1" * 64), "inputs_digest failed"),
        (lambda r: r["policy"].update(policy_hash="sha256:" + "1" * 64), "policy_hash failed"),
        (lambda r: r["policy"].update(policy_version="9"), "policy failed"),
        (lambda r: r["request"]["evidence"].update(chargeback_risk=0.9), "request failed"),
        (lambda r: r["determinism"]["memory"]["hits"][0].update(score=0.1), "memory snapshot failed"),
        (lambda r: r["risk_signals"]["failure_similarity"].update(score=0.1), "memory scores failed"),
    ],
)
def test_every_digest_that_a_pack_of_lumyn_1_has_is_checked(inside: Inside, change: Any, check: str) -> None:
    assert check in one_line(inside.refused("replay", edited(inside, "v1-memory", change), code=3))


def test_a_request_edited_on_both_sides_is_found_by_its_digest(inside: Inside) -> None:
    def change(value: Any) -> None:
        value.get("request", value)["action"]["amount"]["value"] = 9000

    assert "inputs_digest failed" in inside.refused("replay", edited(inside, "v1", change, request=change), code=3)


def test_a_bomb_of_aliases_in_a_pack_of_lumyn_1_is_refused_before_it_unfolds(inside: Inside) -> None:
    bomb = "a0: &a0 [x]\n" + "".join(f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]\n" for n in range(1, 30))
    path = edited(inside, "v1", lambda record: None, policy=bomb.encode())
    assert "an alias in the policy is not accepted" in inside.refused("replay", path, code=3)


@pytest.mark.parametrize(
    "policy", [b"rules: [", b"- 1", b"\xff\xfe\x00", b"rules: [{stage: HARD_BLOCKS, if: 3}]"]
)
def test_a_hostile_policy_in_a_pack_of_lumyn_1_is_refused(inside: Inside, policy: bytes) -> None:
    inside.refused("replay", edited(inside, "v1", lambda record: None, policy=policy), code=3)


@pytest.mark.parametrize(
    "change",
    [
        lambda r: r.pop("verdict"),
        lambda r: r.update(created_at="soon"),
        lambda r: r.update(reason_codes="x"),
        lambda r: r.update(schema_version="decision_record.v7"),
        lambda r: r.update(schema="lumyn.record/2"),
        lambda r: r["determinism"].update(memory={"hits": 3}),
        lambda r: r["determinism"].update(memory={"hits": [{"outcome": -1, "score": "x"}], "consensus": {}}),
        lambda r: r["request"]["action"].update(amount={"value": {}}),
    ],
)
def test_a_misshapen_record_of_lumyn_1_is_refused(inside: Inside, change: Any) -> None:
    inside.refused("replay", edited(inside, "v1-memory", change), code=3)


def test_a_newer_schema_says_that_a_newer_lumyn_wrote_it(inside: Inside) -> None:
    def change(record: dict[str, Any]) -> None:
        record.clear()
        record.update(schema="lumyn.record/2")

    done = inside.run("replay", edited(inside, "v1", change), code=3)
    assert "newer lumyn" in done.stderr


def test_a_candidate_that_asks_memory_cannot_be_tried_on_a_pack_of_lumyn_1(inside: Inside) -> None:
    path = GOLDEN / "lumyn-1.3.6" / "v1.zip"
    assert "asks a memory" in inside.refused("replay", path, "--policy", "policy.yml", code=2)
    assert "another memory" in inside.refused("replay", path, "--memory", "as-of", code=2)
    assert "can't be asked here" in inside.refused(
        "replay", negative_amount(inside), "--policy", plain(inside), code=2
    )


def plain(inside: Inside) -> Path:
    return inside.write("plain.yml", "policy: plain\nrules: []\n")


def negative_amount(inside: Inside) -> Path:
    """A request that 1.x takes and we do not, with its digest made right."""
    from streams.lumyn1.pack import _digest
    from streams.lumyn1.rules import derived_facts

    with zipfile.ZipFile(GOLDEN / "lumyn-1.3.6" / "v1.zip") as archive:
        asked = json.loads(archive.read("request.json"))
    asked["action"]["amount"]["value"] = -5
    found = _digest({"request": asked, "derived": derived_facts(asked)})

    def change(record: dict[str, Any]) -> None:
        record["request"] = asked
        record["determinism"]["inputs_digest"] = found

    return edited(inside, "v1", change, request=lambda value: value["action"]["amount"].update(value=-5))
