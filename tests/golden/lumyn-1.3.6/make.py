"""How the packs of this folder were made: by `lumyn==1.3.6` itself, in an environment of its own.

    PEER_PYTHON tests/golden/lumyn-1.3.6/make.py FOLDER

Its embedder would fetch a model from a hub; a stand-in gives each text a fixed vector, so that the memory's scores are
those of its own search over such vectors. Policies and requests are this project's own.
"""

from __future__ import annotations

import os
import subprocess
import sys
import zlib
from pathlib import Path

# isort: off
# The peer's package has the project's name.

os.environ["HF_HUB_OFFLINE"] = "1"

import lumyn  # the peer's
import numpy as np
from lumyn.memory import embed
from lumyn.memory.client import MemoryStore
from lumyn.memory.types import Experience

POLICY_V1 = """\
schema_version: policy.v1
policy_id: golden-refunds
policy_version: "1.0.0"
defaults: {mode: enforce, default_verdict: ESCALATE, default_reason_code: NO_MATCH_DEFAULT_ESCALATE}
rules:
  - id: R_TICKET
    stage: REQUIREMENTS
    when: {action_type: support.refund}
    if: {evidence.ticket_id_is: null}
    then: {verdict: DENY, reason_codes: [MISSING_EVIDENCE_REFUND]}
  - id: R_LIMIT
    stage: ESCALATIONS
    when: {action_type: support.refund}
    if: {amount_usd_gt: 250}
    then: {verdict: ESCALATE, reason_codes: [REFUND_OVER_ESCALATION_LIMIT]}
  - id: R_LOW
    stage: ALLOW_PATHS
    when: {action_type: support.refund}
    if_all: [{evidence.chargeback_risk_lt: 0.35}, {evidence.payment_instrument_risk_in: [low, medium]}]
    then: {verdict: ALLOW, reason_codes: [REFUND_SMALL_LOW_RISK]}
"""
POLICY_V0 = """\
schema_version: policy.v0
policy_id: golden-refunds
policy_version: "0.1.0"
defaults: {mode: enforce, default_verdict: ESCALATE, default_reason_code: NO_MATCH_DEFAULT_ESCALATE}
required_evidence: {support.refund: [ticket_id]}
rules:
  - id: R_TICKET
    stage: REQUIREMENTS
    when: {action_type: support.refund}
    then:
      verdict: QUERY
      reason_codes: [MISSING_EVIDENCE_REFUND]
      queries: [{field: evidence.ticket_id, question: "Which ticket is this refund for?"}]
  - id: R_LOW
    stage: TRUST_PATHS
    when: {action_type: support.refund}
    if_all: [{amount_usd_lte: 250}, {evidence.chargeback_risk_lt: 0.35}]
    then: {verdict: TRUST, reason_codes: [REFUND_SMALL_LOW_RISK]}
"""


class StandIn:
    """A fixed unit vector a text."""

    def __init__(self, model_name: str) -> None:
        self.model_name = model_name

    def embed(self, texts):
        for text in texts:
            vector = np.random.Generator(np.random.SFC64(zlib.crc32(text.encode()))).standard_normal(384, np.float32)
            yield vector / np.linalg.norm(vector)


embed.TextEmbedding = StandIn


def request(version: str, name: str, amount: float, **evidence: object) -> dict:
    """A refund request."""
    return {
        "schema_version": f"decision_request.{version}",
        "request_id": name,
        "subject": {"type": "service", "id": "support-agent", "tenant_id": "acme"},
        "action": {"type": "support.refund", "intent": "refund a parcel", "amount": {"value": amount, "currency": "USD"}},
        "evidence": {"ticket_id": "T-1", "chargeback_risk": 0.05, "payment_instrument_risk": "low", **evidence},
        "context": {"mode": "digest_only", "digest": "sha256:" + "0" * 64},
    }


def main(out: Path) -> None:
    """Decide four requests and export their packs."""
    for name, policy, version, amount, memory in (
        ("v0", POLICY_V0, "v0", 120.0, False),
        ("v0-query", POLICY_V0, "v0", 90, False),
        ("v1", POLICY_V1, "v1", 120.5, False),
        ("v1-memory", POLICY_V1, "v1", 120.5, True),
    ):
        workspace = out / f".{name}"
        workspace.mkdir()
        (workspace / "policy.yml").write_text(policy)
        config = lumyn.LumynConfig(
            policy_path=workspace / "policy.yml",
            store_path=workspace / "lumyn.db",
            memory_enabled=memory,
            memory_path=workspace / "memory",
        )
        asked = request(version, f"golden-{name}", amount)
        if name == "v0-query":
            del asked["evidence"]["ticket_id"]
        if memory:
            from lumyn.engine.normalize_v1 import normalize_request_v1

            vector = embed.ProjectionLayer().embed_request(normalize_request_v1(asked))
            failed = Experience(
                decision_id="past-1", vector=vector, outcome=-1, original_verdict="ALLOW", timestamp="2024-12-19T14:00:00Z"
            )
            MemoryStore(db_path=workspace / "memory").add_experiences([failed])
        record = lumyn.decide(asked, config=config)
        cli = [str(Path(sys.executable).with_name("lumyn"))]
        options = ["--pack", "--workspace", str(workspace), "--out", str(out / f"{name}.zip")]
        subprocess.run([*cli, "export", record["decision_id"], *options], check=True)
    subprocess.run([*cli, "convert", str(out / "v0.zip"), "--out", str(out / "v0-converted.zip")], check=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]).resolve())
