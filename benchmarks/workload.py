"""The same refund and cancellation requests for both sides of the benchmark, from one seed.

Pure standard library, because two interpreters import it: the project's and the peer's. `requests` yields
decision requests in the project's own shape; `to_peer` says the same thing in the peer's. The policies beside
this file (`policies/ours.yml`, `policies/peer.yml`) give every request here the same verdict.

Each intent names its own order, so texts do not repeat and a cache of embeddings by text helps nobody. Inline
context holds strings and integers only: for those, sorted compact JSON is already RFC 8785.
"""

from __future__ import annotations

import hashlib
import json
import random
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

JsonObject = dict[str, Any]

SEED = 20241219
TENANT = "default"
POLICIES = Path(__file__).resolve().parent / "policies"

_CUSTOMERS = 2_000
_REASONS = (
    "parcel never arrived",
    "wrong size delivered",
    "item broken on arrival",
    "charged twice for one order",
    "subscription renewed after notice",
    "flight moved by more than three hours",
    "customer changed their mind",
    "duplicate booking made by mistake",
)
_CHANNELS = ("chat", "email", "phone", "web")
_REGIONS = ("eu-west", "us-east", "us-west", "ap-south")
_LOCALES = ("en-US", "en-GB", "de-DE", "fr-FR")
_RISKS = ("low", "medium", "high")


def requests(n: int, *, seed: int = SEED, request_ids: bool = False) -> Iterator[JsonObject]:
    """Yield `n` decision requests (CONTRACTS.md, "Decision request"), always the same ones for one seed.

    About 70% are refunds and 30% cancellations. With `request_ids` each carries its own idempotency key.
    """
    rng = random.Random(seed)
    for index in range(n):
        request = _request(rng, index)
        if request_ids:
            request["request_id"] = f"req-{seed}-{index}"
        yield request


def to_peer(request: JsonObject) -> JsonObject:
    """Return `request` as the peer's `decision_request.v1`, with nothing added but what it requires.

    It wants a schema version, and the tenant inside the subject.
    """
    converted: JsonObject = {
        "schema_version": "decision_request.v1",
        "subject": {**request["subject"], "tenant_id": request["tenant"]},
        "action": request["action"],
        "evidence": request["evidence"],
        "context": request["context"],
    }
    if "request_id" in request:
        converted["request_id"] = request["request_id"]
    return converted


def label_of(request: JsonObject) -> Literal["failure", "success"]:
    """Return the outcome that the benchmark labels a decision on `request` with: a failure for 3 in 10."""
    return "failure" if zlib.crc32(_compact(request["action"])) % 10 < 3 else "success"


def _request(rng: random.Random, index: int) -> JsonObject:
    verb = "refund" if rng.random() < 0.7 else "cancel"
    order = f"ord_{rng.randrange(10**8):08d}"
    amount = round(rng.lognormvariate(4.4, 1.0), 2)
    evidence: JsonObject = {
        "ticket_id": f"tkt_{index:07d}",
        "chargeback_risk": round(rng.betavariate(1.2, 3.5), 2),
        "account_takeover_risk": round(rng.betavariate(1.0, 5.0), 2),
        "account_age_days": int(rng.expovariate(1 / 400)),
        "previous_refund_count_90d": min(int(rng.expovariate(1.2)), 9),
        "payment_instrument_risk": rng.choices(_RISKS, weights=(70, 24, 6))[0],
    }
    if rng.random() < 0.03:
        del evidence["ticket_id"]
    inline: JsonObject = {
        "channel": rng.choice(_CHANNELS),
        "region": rng.choice(_REGIONS),
        "locale": rng.choice(_LOCALES),
        "agent_turns": rng.randrange(1, 30),
        "order_lines": rng.randrange(1, 8),
    }
    return {
        "tenant": TENANT,
        "subject": {"type": "user", "id": f"usr_{rng.randrange(_CUSTOMERS):05d}"},
        "action": {
            "type": f"support.{verb}",
            "intent": f"{verb} order {order}: {rng.choice(_REASONS)}",
            "amount": {"value": amount, "currency": "USD"},
            "target": {"system": "billing", "resource_type": "order", "resource_id": order},
        },
        "evidence": evidence,
        "context": {"mode": "inline", "inline": inline, "digest": _digest(inline)},
    }


def _compact(value: JsonObject) -> bytes:
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()


def _digest(value: JsonObject) -> str:
    return "sha256:" + hashlib.sha256(_compact(value)).hexdigest()
