"""The incident guide, step by step: record, replay, label, re-run, and its three scenarios, commands as written."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import zipfile

from conftest_e2e import Shell, refund

GUIDE_SDK = """
from lumyn import decide, LumynConfig

record = decide(
    request={
        "subject": {"type": "user", "id": "usr_abc123"},
        "action": {
            "type": "refund",
            "amount": {"value": 500, "currency": "USD"}
        },
        "evidence": {"chargeback_risk": 0.91},
        "context": {"mode": "inline", "inline": {"channel": "chat"}},
    },
    config=LumynConfig(policy_path="policy.yml")
)

print(record["decision_id"])
print(record["verdict"])
print(record["reason_codes"])
"""


def sdk(shell: Shell) -> list[str]:
    done = subprocess.run(
        [sys.executable, "-c", GUIDE_SDK], cwd=shell.folder, env=shell.env, capture_output=True, text=True, check=True
    )
    return done.stdout.splitlines()


def test_record_replay_label_and_rerun_as_the_guide_shows(shell: Shell) -> None:
    decision_id, verdict, codes = sdk(shell)
    assert (verdict, codes) == ("DENY", "['CHARGEBACK_RISK_BLOCK', 'REFUND_OVER_ESCALATION_LIMIT']")
    assert (shell.folder / ".lumyn/lumyn.db").exists()
    short = decision_id[:20] + "..."

    shell.run(f"lumyn export {short} --pack --out decision_incident_123.zip")
    with zipfile.ZipFile(shell.folder / "decision_incident_123.zip") as pack:
        assert {"decision_record.json", "request.json", "policy.yml", "README.txt"} <= set(pack.namelist())
        assert pack.read("policy.yml") == (shell.folder / "policy.yml").read_bytes()

    shown = shell.run("lumyn replay decision_incident_123.zip").stdout
    assert "verdict: DENY\nreason_codes: CHARGEBACK_RISK_BLOCK, REFUND_OVER_ESCALATION_LIMIT\n" in shown
    assert "  - HARD_BLOCKS:R_FRAUD_BLOCK effect=DENY reasons=['CHARGEBACK_RISK_BLOCK']\n" in shown
    assert "  - ESCALATIONS:R_REFUND_LIMIT effect=ESCALATE reasons=['REFUND_OVER_ESCALATION_LIMIT']\n" in shown
    assert "Replay successful: verdict matches original." in shown
    assert len(re.findall("^verdict:", shown, re.M)) == len(re.findall("^reason_codes:", shown, re.M)) == 1

    shell.run(f'lumyn label {short} --label failure --summary "False positive: legitimate customer"')
    shell.run(f'lumyn label {short} --label note --summary "Customer escalation #5432"')
    history = shell.run(f"lumyn show {short}").stdout
    assert re.search(r'^  - \S+Z \| type: label \| data: \{label: "failure"', history, re.M)
    assert re.search(r'^  - \S+Z \| type: note  \| data: \{text: "Customer escalation #5432"', history, re.M)

    again_id, again, codes = sdk(shell)
    assert again == "ESCALATE"
    assert "FAILURE_MEMORY_SIMILAR_ESCALATE" in codes
    record = shell.json(f"lumyn show {again_id} --json")["record"]
    nearest = record["risk_signals"]["failure_similarity"]["top_k"][0]
    assert (nearest["memory_id"], nearest["label"]) == (decision_id, "failure")
    assert nearest["summary"] == "False positive: legitimate customer"

    changed = shell.run("lumyn replay decision_incident_123.zip", code=1)
    assert "verdict: ESCALATE (was DENY)" in changed.stdout
    assert "Changed by: memory." in changed.stdout
    assert "this decision's own label is in the current memory" in changed.stderr


def test_a_denial_by_one_rule_alone_becomes_an_escalation_by_memory_alone(shell: Shell) -> None:
    first = shell.decide(refund(200, 0.95))
    shell.run(f"lumyn label {first['decision_id']} --label failure --summary wrong")
    second = shell.decide(refund(200, 0.95))
    assert (second["verdict"], second["reason_codes"]) == ("ESCALATE", ["FAILURE_MEMORY_SIMILAR_ESCALATE"])


def test_scenario_1_a_policy_too_strict(shell: Shell) -> None:
    strict = shell.folder.joinpath("policy.yml").read_text().replace("verdict: ESCALATE", "verdict: DENY")
    shell.write("policy.yml", strict)
    shell.write(
        "new_policy.yml",
        strict.replace("gt: 250", "gt: 500").replace("DENY, reason_codes: [REFUND", "ESCALATE, reason_codes: [REFUND"),
    )
    requests = [refund(300 + n, user=f"usr_{n}") for n in range(48)] + [refund(900), refund(901)]
    shell.write("requests.jsonl", "\n".join(json.dumps(r) for r in [*requests, refund(100), refund(50)]))
    assert len(shell.run("lumyn decide requests.jsonl").stdout.splitlines()) == 52

    done = shell.run(
        """lumyn export --query "verdict=DENY AND action_type=refund AND created_at > '2024-12-19 14:00'" """
    )
    assert len(list(shell.folder.glob("decision_*.zip"))) == 50
    assert "created_at > '2024-12-19 14:00:00" in done.stderr.replace("T", " ")

    # every 7th pack: the loop is the guide's, fifty interpreter starts are not what is tested
    loop = "for pack in $(ls decision_*.zip | awk 'NR % 7 == 0'); do lumyn replay $pack | grep reason_codes; done"
    reasons = shell.run(loop).stdout.splitlines()
    assert len(reasons) == 7
    assert set(reasons) == {"reason_codes: REFUND_OVER_ESCALATION_LIMIT"}

    everything = shell.json("lumyn replay decision_*.zip --policy new_policy.yml --json", code=1)
    verdicts = sorted(r["verdict"] for r in everything)
    assert (verdicts.count("ALLOW"), verdicts.count("ESCALATE")) == (48, 2)
    assert {tuple(r["causes"]) for r in everything} == {("policy",)}


def test_scenario_2_a_memory_false_positive(shell: Shell) -> None:
    source = shell.decide(refund(400, 0.1))
    shell.write("policy.yml", shell.folder.joinpath("policy.yml").read_text().replace("gt: 250", "gt: 500"))
    source = shell.decide(refund(400, 0.1))
    assert source["verdict"] == "ALLOW"
    shell.run(f"lumyn label {source['decision_id']} --label failure --summary mislabelled")
    blocked = shell.decide(refund(400, 0.1, user="usr_vip"))
    assert (blocked["verdict"], blocked["reason_codes"]) == ("DENY", ["FAILURE_MEMORY_SIMILAR_BLOCK"])
    shell.run(f"lumyn export {blocked['decision_id']} --pack --out decision_01JBQX.zip")

    shown = shell.run(f"lumyn show {blocked['decision_id'][:18]}...").stdout
    assert "verdict: DENY\nreason_codes: FAILURE_MEMORY_SIMILAR_BLOCK" in shown
    memory_id = re.search(r"top_k: \[memory_id: (\w+)", shown)
    assert memory_id is not None
    shell.run(f'lumyn label {memory_id[1]} --label success --summary "Actually legitimate transaction"')

    replayed = shell.run("lumyn replay decision_01JBQX.zip", code=1).stdout
    assert "verdict: ALLOW (was DENY)" in replayed
    assert float(re.search(r"success_similarity: ([\d.]+)", replayed)[1]) > 0.9  # type: ignore[index]


def test_scenario_3_abstentions_in_a_storage_outage(shell: Shell) -> None:
    shell.write("policy.yml", shell.folder.joinpath("policy.yml").read_text().replace("gt: 250", "gt: 500"))
    sound = shell.decide(refund(100, 0.1))
    shell.run(f"lumyn label {sound['decision_id']} --label success --summary right")
    memory = shell.folder / ".lumyn/memory.db"
    healthy = {path: path.read_bytes() for path in shell.folder.glob(".lumyn/memory.db*")}
    for path in healthy:
        path.unlink()
    memory.write_bytes(b"the disk under the memory has died" * 100)

    stored = shell.decide(refund(120, 0.1))
    assert (stored["verdict"], stored["reason_codes"]) == ("ABSTAIN", ["STORAGE_UNAVAILABLE"])
    assert stored["memory"]["available"] is False
    start, end = stored["created_at"][11:16], stored["created_at"][11:16]
    shell.run(f"""lumyn export --query "verdict=ABSTAIN AND created_at BETWEEN '{start}' AND '{end}'" """)
    packs = list(shell.folder.glob("decision_*.zip"))
    assert len(packs) == 1
    during = shell.run(f"lumyn replay {packs[0].name} --memory recorded").stdout
    assert "verdict: ABSTAIN\nreason_codes: STORAGE_UNAVAILABLE" in during

    for path, data in healthy.items():
        path.write_bytes(data)
    after = shell.run(f"lumyn replay {packs[0].name}", code=1).stdout
    assert "verdict: ALLOW (was ABSTAIN)\nreason_codes: REFUND_SMALL_LOW_RISK" in after


def test_a_broken_memory_is_made_again_from_the_labels(shell: Shell) -> None:
    first = shell.decide(refund(200, 0.95))
    shell.run(f"lumyn label {first['decision_id']} --label failure --summary wrong")
    assert shell.decide(refund(200, 0.95))["verdict"] == "ESCALATE"
    for path in shell.folder.glob(".lumyn/memory.db*"):
        path.unlink()
    (shell.folder / ".lumyn/memory.db").write_bytes(b"garbage" * 1000)
    assert shell.decide(refund(200, 0.95))["reason_codes"] == ["CHARGEBACK_RISK_BLOCK"]
    shell.run("lumyn memory rebuild")
    assert shell.decide(refund(200, 0.95))["verdict"] == "ESCALATE"


def test_diff_shows_what_a_candidate_changes(shell: Shell) -> None:
    shell.write("requests.jsonl", "\n".join(json.dumps(refund(200 + 20 * n)) for n in range(20)))
    shell.run("lumyn decide requests.jsonl")
    shell.run("lumyn export --limit 100 --out decisions.jsonl")
    policy = shell.folder.joinpath("policy.yml").read_text()
    shell.write("candidate_policy.yml", policy.replace("gt: 250", "gt: 500"))
    text = shell.run("lumyn diff decisions.jsonl --policy candidate_policy.yml", code=1).stdout
    assert text.startswith("Changes: 13\ndecision_id")
    assert "| ESCALATE | ALLOW | [REFUND_OVER_ESCALATION_LIMIT] → [REFUND_SMALL_LOW_RISK]" in text
    assert shell.run("lumyn diff decisions.jsonl --policy policy.yml").stdout.startswith("Changes: 0")
    two = shell.json("lumyn diff decisions.jsonl --policy candidate_policy.yml --policy policy.yml --json", code=1)
    assert {(c["old"], c["new"]) for c in two["changes"]} == {("ALLOW", "ESCALATE")}


def test_markdown_and_other_options_of_the_reference(shell: Shell) -> None:
    record = shell.decide(refund(900))
    shell.run(f"lumyn export {record['decision_id']} --pack --out decision.zip")
    assert "| verdict | ESCALATE | ESCALATE |" in shell.run("lumyn replay decision.zip --markdown").stdout
    shell.write("candidate_policy.yml", shell.folder.joinpath("policy.yml").read_text().replace("gt: 250", "gt: 950"))
    assert "Changed by: policy." in shell.run("lumyn replay decision.zip --policy candidate_policy.yml", code=1).stdout
    shell.run(f'lumyn label {record["decision_id"]} --label success --summary "Correctly allowed"')
