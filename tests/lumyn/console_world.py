"""A home with something on every page of the console, whose recorded texts are hostile, and a server over it."""

from __future__ import annotations

import json
import os
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import quote

import uvicorn
from conftest_e2e import alone

from lumyn import LumynConfig, sdk, shadowing
from lumyn.api.app import make_app
from lumyn.api.homes import guard_for
from lumyn.gamedays import past
from lumyn.home import Home
from lumyn.inbox import escalations
from lumyn.incidents.incidents import Incidents
from lumyn.switches import switch_on
from lumyn.watches.check import check
from lumyn.watches.store import save_watch
from lumyn.watches.watch import make_watch
from lumyn.wiring import existing_home, home_as
from streams.control import publish_event
from streams.policy import load_policy

PAYLOADS = (
    "<script>window.pwned=1</script>", "\"><img src=x onerror=\"window.pwned=1\">", "'><svg onload=window.pwned=1>",
    "javascript:window.pwned=1", "</textarea><script>window.pwned=1</script>", "</pre></td><h1>owned</h1>",
    "{{ 7*7 }}{% raw %}", "\u202egnp.exe\u202c", "\x1b[31mred\x1b[0m", "a\u0000b\u200bc", "]]><!--", "%3Cscript%3E",
    "</script><script>window.pwned=1</script>", "&lt;b&gt;", "' onfocus='window.pwned=1' autofocus='",
    "https://evil.example/x.png",
)  # fmt: skip
ALL = "|".join(PAYLOADS)
POLICY = """\
policy: refunds
version: 4.1.0
rules:
  - {id: R_FRAUD, stage: HARD_BLOCKS, if: {chargeback_risk: {gte: 0.8}}, then: {verdict: DENY, reason_codes: [CHARGEBACK]}}
  - {id: R_LIMIT, if: {amount_usd: {gt: 250}}, then: {verdict: ESCALATE, reason_codes: [OVER_LIMIT]}}
  - {id: R_SMALL, if: {amount_usd: {lte: 250}}, then: {verdict: ALLOW, reason_codes: [SMALL]}}
memory: {}
# <script>window.pwned=1</script> "><img src=x onerror="window.pwned=1">
"""
CANDIDATE = POLICY.replace("4.1.0", "4.2.0").replace("gt: 250", "gt: 400").replace("lte: 250", "lte: 400")
WHY = "why " + ALL[:250]


def refund(amount: float, risk: float = 0.1, user: str = "usr_1", **more: Any) -> dict[str, Any]:
    """A refund request."""
    return {
        "subject": {"type": "user", "id": user}, "evidence": {"chargeback_risk": risk},
        "action": {"type": "refund", "amount": {"value": amount, "currency": "USD"}}, **more,
    }  # fmt: skip


def hostile(amount: float) -> dict[str, Any]:
    """A request whose every text is hostile."""
    return {
        "request_id": f"r-{amount} {ALL}"[:200],
        "subject": {"type": PAYLOADS[1], "id": PAYLOADS[0]},
        "action": {"type": PAYLOADS[2], "intent": ALL, "amount": {"value": amount, "currency": PAYLOADS[4][:60]},
                   PAYLOADS[5]: {PAYLOADS[6]: PAYLOADS[7]}},
        "evidence": {"chargeback_risk": PAYLOADS[0], PAYLOADS[1]: PAYLOADS[2]},
        "context": {"mode": "inline", "inline": {PAYLOADS[8]: list(PAYLOADS)}},
        "provenance": {"model": ALL, PAYLOADS[0]: PAYLOADS[1], "nested": {PAYLOADS[2]: PAYLOADS[3]}},
    }  # fmt: skip


def runbook() -> str:
    """A runbook whose every text is hostile."""
    said = json.dumps(ALL.replace("{", "(").replace("}", ")"))
    return f"""runbook: mine
title: {said}
steps:
  - {{id: told, say: {said}}}
  - {{id: which, ask: {said}, choices: [{said}, other], default: other}}
  - {{id: sure, confirm: {said}}}
  - {{id: look, command: [list, --query, {said}]}}
  - {{id: quiet, wait_until: {{query: {said}, at_most: 0}}}}
  - {{id: last, when: {{which: {said}}}, command: [kill-switch, "on", --everything, --why, "{{which}}"]}}
"""


def gameday() -> dict[str, Any]:
    """A game day's report whose every text is hostile."""
    one = {
        "text": ALL, "holds": False, "observed": PAYLOADS[0], "line": 1, "why": PAYLOADS[1], "during": PAYLOADS[2],
        "evidence": [{"request": 1, "request_id": PAYLOADS[0], "recorded": PAYLOADS[1], "was": PAYLOADS[2],
                      "decision": PAYLOADS[3], "verdict": PAYLOADS[4], "reason_codes": list(PAYLOADS)}],
    }  # fmt: skip
    counts = {"ALLOW": 1, "ESCALATE": 0, "ABSTAIN": 0, "DENY": 2}
    return {
        "schema": "lumyn.gameday/1", "lumyn": "0.1.0", "name": PAYLOADS[0], "why": ALL, "incident": PAYLOADS[1],
        "scenario": {"file": PAYLOADS[2], "digest": "sha256:" + "0" * 64}, "stage": "embedded", "passed": False,
        "sound": False, "policies": [{"name": PAYLOADS[5], "version": "1", "hash": "sha256:" + "1" * 64}],
        "replayed": {"source": PAYLOADS[6], "requests": 3, "delivered": 3, "left_out": {PAYLOADS[7]: 1}},
        "memory": {"of": PAYLOADS[8], "labels": 0}, "timeline": [{"at": 1, "what": ALL, "name": PAYLOADS[9]}],
        "verdicts": {"now": counts, "recorded": counts, "changed": {}}, "refused": [{"request": 1, "why": PAYLOADS[0]}],
        "expectations": [one], "invariants": [{**one, "holds": True}],
        "measured": {"seconds": 0.1, "decisions_per_s": 30, "switches": {PAYLOADS[0]: None}},
    }  # fmt: skip


@dataclass
class World:
    """The home, and the ids of what is in it."""

    folder: Path
    config: LumynConfig
    ids: dict[str, str] = field(default_factory=dict)

    def home(self, tenant: str = "default", actor: str = "oncall") -> Home:
        return home_as(existing_home(self.config), tenant, actor)

    def decide(self, request: dict[str, Any]) -> dict[str, Any]:
        return alone(lambda: sdk.decide(request, self.config))

    def pages(self) -> list[str]:
        """An address of every page, with something on it."""
        found, hashes = self.ids, list(self.home().agent.control().policies)
        return [
            "/decisions", "/decisions?q=verdict%3DDENY", "/decisions?q=verdit%3D%3Cscript%3E",
            f"/decisions/{found['hostile']}", f"/decisions/{found['near']}", f"/decisions/{found['allowed']}", "/live",
            "/inbox", "/inbox?of=mine", "/inbox?of=resolved", f"/inbox/{found['open']}", f"/inbox/{found['resolved']}",
            "/incidents", "/incidents?q=script", "/incidents/INC-1", "/policies", f"/policies/{hashes[0]}",
            f"/policies/compare?old={hashes[0]}&new={hashes[1]}", "/policies/shadow", "/switches", "/memory",
            f"/memory?near={found['allowed']}", "/memory/suspects", "/memory/relabel", "/backtests", "/watches",
            "/watches/denied", "/audit", "/decisions/nothing-here",
            f"/incidents/new?decision={found['hostile']}&query=verdict%3DDENY", "/runbooks", "/runbooks/mine",
            f"/runbooks/kill-switch?incident=INC-1&scope={quote(PAYLOADS[0])}", "/gamedays",
            f"/gamedays/{found['gameday']}", f"/policies/new?from={hashes[0]}", f"/policies/{hashes[1]}/publish", "/api",
        ]  # fmt: skip


def build(folder: Path) -> World:
    """Make it."""
    policy = folder / "policy.yml"
    policy.write_text(POLICY)
    world = World(folder, LumynConfig(policy_path=policy, home=folder / ".lumyn", actor="oncall"))
    ids = world.ids
    ids["allowed"] = world.decide(refund(100))["decision_id"]
    ids["hostile"] = world.decide(hostile(300))["decision_id"]
    home = world.home(actor=f"labeller {PAYLOADS[0]}")
    sdk.label_in(home, ids["hostile"], "failure", summary=ALL)
    sdk.label_in(world.home(actor=PAYLOADS[1]), ids["hostile"], "success", summary=PAYLOADS[2])
    ids["near"] = world.decide(hostile(310))["decision_id"]
    for number in range(6):
        world.decide(refund(20 * number + 10, user=f"usr_{number}"))
    ids["denied"] = world.decide(refund(50, risk=0.9))["decision_id"]
    ids["open"] = world.decide(refund(300, user=PAYLOADS[0]))["decision_id"]
    ids["resolved"] = world.decide(refund(350))["decision_id"]
    escalations.assign(world.home(), ids["open"], "oncall")
    escalations.resolve(home, ids["resolved"], "ALLOW", ALL)
    home.log.append([publish_event(load_policy(CANDIDATE.encode(), name="candidate"), PAYLOADS[0], "publish")])
    shadowing.start(world.home(), load_policy(CANDIDATE.replace("4.2.0", "4.3.0").encode(), name="c"), None, WHY)
    world.decide(refund(300, user="usr_shadow"))
    incidents = Incidents(home)
    incidents.open(PAYLOADS[0], summary=ALL, query=f"subject_id = '{PAYLOADS[0]}'", decisions=[ids["hostile"]])
    incidents.note("INC-1", ALL)
    incidents.write("INC-1", "why1", ALL)
    incidents.action("INC-1", text=PAYLOADS[1], owner=PAYLOADS[2])
    save_watch(home, make_watch("denied", "verdict = DENY", alert="rate > 1%", why=ALL))
    check(home, "denied")
    switch_on(home, {"action_type": PAYLOADS[0]}, WHY)
    (folder / ".lumyn" / "runbooks").mkdir()
    (folder / ".lumyn" / "runbooks" / "mine.yml").write_text(runbook())
    ids["gameday"] = past.save(home.settings, gameday())
    reports = folder / ".lumyn" / "reports" / "default"
    reports.mkdir(parents=True)
    (reports / "may.html").write_text("<!doctype html><title>r</title><h1>report</h1><script>window.pwned=1</script>")
    sdk.decide(refund(60, user="other"), LumynConfig(policy_path=policy, home=folder / ".lumyn", tenant="other"))
    return world


@contextmanager
def served(world: World, *, dev: bool) -> Iterator[str]:
    """The app on a socket; its address."""
    listener = socket.socket()
    listener.bind(("127.0.0.1", 0))
    config = uvicorn.Config(
        make_app(world.config, guard_for(world.config, dev=dev)), log_level="error", access_log=False,
        timeout_graceful_shutdown=1,
    )  # fmt: skip
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]}, daemon=True)
    thread.start()
    until = time.monotonic() + 20
    while not server.started and time.monotonic() < until:
        time.sleep(0.01)
    try:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
    finally:
        server.should_exit = True
        thread.join(10)


if __name__ == "__main__":  # a console to look at: python tests/lumyn/console_world.py FOLDER [keys]
    import sys

    there = Path(sys.argv[1])
    there.mkdir(parents=True, exist_ok=True)
    os.chdir(there)
    with served(build(there), dev="keys" not in sys.argv) as address, suppress(KeyboardInterrupt):
        print(address, flush=True)
        while True:
            time.sleep(1)
