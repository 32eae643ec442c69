"""Makes lumyn/api/examples.json from a real run: `python tests/lumyn/make_api_examples.py`, when answers change."""

from __future__ import annotations

import json
import os
import tempfile
from pathlib import Path

from served import dev_client

from lumyn import LumynConfig

TARGET = Path(__file__).resolve().parents[2] / "lumyn/api/examples.json"
POLICY = """policy: churn
version: v1
rules:
  - id: LOW_ACTIVITY
    stage: ESCALATIONS
    if: {active_user_rate_30d: {lt: 0.35}}
    then: {verdict: ESCALATE, reason_codes: [LOW_ACTIVITY], obligations: [{type: slack_customer_success}]}
  - id: ACTIVE
    stage: ALLOW_PATHS
    if: {active_user_rate_30d: {gte: 0.35}}
    then: {verdict: ALLOW, reason_codes: [ACTIVE]}
"""
REQUEST = {
    "request_id": "review-2025-11-14-001",
    "subject": {"type": "account", "id": "ent_pseudonymised_001"},
    "action": {"type": "review_account", "intent": "review an account that may churn"},
    "evidence": {"active_user_rate_30d": 0.29, "days_to_renewal": 47},
    "provenance": {"model": "gpt-4o-2024-08-06"},
}
ABOUT = (
    "Decide, look at, explain, replay, verify and label what agents want to do. Every request needs an API key "
    "(`X-API-Key`, or `Authorization: Bearer`), whose tenant and roles say what it may; `lumyn keys create` makes one. "
    "Errors are RFC 9457 problems with a stable `code`."
)


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        Path("policy.yml").write_text(POLICY)
        with dev_client(LumynConfig(policy_path="policy.yml")) as api:
            decision = api.post("/v1/decisions", json=REQUEST).json()
            place = f"/v1/decisions/{decision['decision_id']}"
            label = {"label": "failure", "summary": "the account was active on another domain", "should": "ALLOW"}
            event = api.post(f"{place}/labels", json=label).json()
            switch = {"why": "double refunds", "scope": {"action_type": "refund"}}
            found = {
                "DecisionRequest": REQUEST,
                "Requests": [REQUEST],
                "Decision": decision,
                "DecisionOrRecord": decision,
                "Decisions": [decision],
                "Page": api.get("/v1/decisions?condition_id=churn&outcome=triggered&limit=1").json(),
                "Explanation": api.post(f"{place}/explain").json(),
                "Counterfactuals": api.get(f"{place}/counterfactuals").json(),
                "Replayed": api.post(f"{place}/replay").json(),
                "Verified": api.get(f"{place}/verify").json(),
                "LabelBody": label,
                "LabelEvent": event,
                "LabelEvents": [event],
                "RequestState": {"status": "pending", "location": "/v1/requests/3/1041"},
                "PolicyBody": {"source": POLICY},
                "Published": api.post("/v1/policies", json={"source": POLICY}).json(),
                "Policies": api.get("/v1/policies").json(),
                "PolicyWhole": api.get("/v1/policies/churn").json(),
                "Checked": api.post("/v1/policies:check", json={"source": POLICY}).json(),
                "Activation": {"version": "v1", "why": "reviewed"},
                "PolicyNamed": api.post("/v1/policies/churn/activate", json={"version": "v1"}).json(),
                "Reason": {"why": "blocks too much"},
                "SwitchBody": switch,
                "Switch": api.put("/v1/kill-switches/refunds", json=switch).json(),
                "Switches": api.get("/v1/kill-switches").json(),
                "AuditPage": api.get("/v1/audit?limit=2").json(),
                "SwitchedOff": api.delete("/v1/kill-switches/refunds").json(),
                "Alive": api.get("/healthz").json(),
                "Ready": api.get("/readyz").json(),
                "Memory": api.get("/v1/memory").json(),
            }
    places = {
        "decision_id": decision["decision_id"], "memory_id": decision["decision_id"], "name": "churn",
        "switch_id": "refunds", "partition": "3", "offset": "1041",
    }  # fmt: skip
    texts = {"about": ABOUT, "policy": POLICY, "places": places}
    TARGET.write_text(json.dumps({"_texts": texts, **found}, indent=1, ensure_ascii=False) + "\n")


if __name__ == "__main__":
    main()
