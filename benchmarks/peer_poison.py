"""The peer, `lumyn==1.3.6`, on the poisoned stream, run by the peer's own interpreter.

    PEER_PYTHON peer_poison.py texts  < {"requests": [...]}                         > {"texts": [...]}
    PEER_PYTHON peer_poison.py decide < {"vectors", "labelled", "outcomes", "asked"} > {"verdicts": [[...], ...]}

Its embedder fetches its model from a hub, which no benchmark here does. The vectors come from this project's static
embedder instead, of the very texts that the peer makes of requests; all else is the peer's own code and settings.
"""

from __future__ import annotations

import hashlib
import json
import sys
import tempfile
from pathlib import Path
from typing import Any

import workload

# isort: off

_POLICY = """
schema_version: policy.v1
policy_id: lending
policy_version: "1.0.0"
defaults: {mode: enforce, default_verdict: ALLOW, default_reason_code: NO_MATCH_DEFAULT_ESCALATE}
rules:
  - id: R_CREDIT
    stage: ALLOW_PATHS
    if: {action_type: support.refund}
    then: {verdict: ALLOW, reason_codes: [REFUND_SMALL_LOW_RISK]}
"""


def main() -> None:
    given = json.load(sys.stdin)
    json.dump(texts(given) if sys.argv[1] == "texts" else decide(given), sys.stdout)


def _to_peer(request: dict[str, Any]) -> dict[str, Any]:
    """It knows few types of subjects and actions; all here are of one."""
    subject = {**request["subject"], "type": "user"}
    action = {"intent": "a loan", **request["action"], "type": "support.refund"}
    context = {"mode": "digest_only", "digest": "sha256:" + hashlib.sha256(b"{}").hexdigest()}
    return workload.to_peer({**request, "subject": subject, "action": action, "context": context})


def texts(given: dict[str, Any]) -> dict[str, Any]:
    """What the peer embeds of each request."""
    from lumyn.engine.normalize_v1 import normalize_request_v1
    from lumyn.memory.embed import ProjectionLayer

    projection = ProjectionLayer.__new__(ProjectionLayer)  # its constructor loads the model
    return {"texts": [projection._to_text(normalize_request_v1(_to_peer(r))) for r in given["requests"]]}


def decide(given: dict[str, Any]) -> dict[str, Any]:
    """The verdicts on the asked requests, with each set of outcomes in its memory in turn."""
    import lumyn
    import numpy as np
    from lumyn.memory import embed
    from lumyn.memory.client import MemoryStore
    from lumyn.memory.types import Experience

    vectors = given["vectors"]

    class Known:
        def __init__(self, model_name: str) -> None:
            self.model_name = model_name

        def embed(self, asked: list[str]) -> Any:
            return (np.array(vectors[text], dtype=np.float32) for text in asked)

    embed.TextEmbedding = Known
    out = []
    for outcomes in given["outcomes"]:
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            (folder / "policy.yml").write_text(given.get("policy", _POLICY))
            MemoryStore(db_path=folder / "memory").add_experiences([
                Experience(decision_id=f"past-{n:08d}", vector=vectors[text], outcome=outcome, original_verdict="ALLOW",
                           timestamp="2024-12-19T14:00:00Z")
                for n, (text, outcome) in enumerate(zip(given["labelled"], outcomes, strict=True))
                if outcome
            ])  # fmt: skip
            config = lumyn.LumynConfig(
                policy_path=folder / "policy.yml", store_path=folder / "lumyn.db", memory_path=folder / "memory"
            )
            decided = [lumyn.decide(_to_peer(r), config=config) for r in given["asked"]]
            out.append([record["verdict"] for record in decided])
    return {"verdicts": out}


if __name__ == "__main__":
    main()
