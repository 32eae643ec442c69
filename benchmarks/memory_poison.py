"""Poison: one source labels wrongly. How many decisions flip, how many wrong labels are found, what hygiene mends."""

from __future__ import annotations

import json
import os
import random
import subprocess
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from labelled_data import Case, load
from memory_signal import events_of

from lumyn.stores import make_vectoriser
from memory_service.embedders.static import StaticEmbedder
from memory_service.recall import Asked
from memory_service.recaller import Recaller
from memory_service.supposed import SupposedMemory
from streams.arbitration import arbitrate
from streams.label_history import histories_of
from streams.policy import load_policy
from streams.suspects import find_suspects

_POLICY = b"""
policy: lending
version: 1.0.0
rules:
  - id: R_CREDIT
    if: {action_type: credit}
    then: {verdict: ALLOW, reason_codes: [CREDIT_OK]}
memory: {}
"""
_HONEST = 10
_SEED = 7
_TIME_MS = 1_767_225_600_000


def poisoned(cases: Sequence[Case], share: float) -> tuple[list[Any], set[str]]:
    """The labels with a share of them turned round by one source; the others are of ten labellers. With their ids."""
    pick = random.Random(_SEED)
    events = events_of(cases)
    wrong = set(pick.sample(range(len(events)), round(share * len(events))))
    for number, event in enumerate(events):
        event["actor"] = "poisoner" if number in wrong else f"labeller-{pick.randrange(_HONEST)}"
        if number in wrong:
            event["label"] = "success" if event["label"] == "failure" else "failure"
    return events, {events[number]["decision_id"] for number in wrong}


def verdicts(events: Sequence[Any], asked: Sequence[Case], vectoriser: Any) -> list[str]:
    """What is decided with a memory of these labels."""
    policy = load_policy(_POLICY, name="lending.yml")
    assert policy.memory is not None
    memory = SupposedMemory(events, vectoriser, "bench", len(events), {})
    recaller = Recaller(memory, vectoriser, "bench")
    out = []
    for case, recall in zip(
        asked, recaller.recall([Asked(c.request, policy.memory, 10**9) for c in asked]), strict=True
    ):
        evaluation = policy.evaluate(case.request, time_ms=_TIME_MS, memory=recall.memory_facts())
        out.append(arbitrate(policy, evaluation, recall).verdict)
    return out


def measure(name: str, share: float, settings_of: Callable[[], Any], tests: int = 800) -> dict[str, Any]:
    """One dataset, one share of poison."""
    vectoriser = make_vectoriser(settings_of())
    cases = load(name)
    train = [case for case in cases if case.fold]
    asked = [case for case in cases if not case.fold][:tests]
    clean, _ = poisoned(train, 0)
    bad, wrong = poisoned(train, share)
    found = find_suspects(histories_of(bad, "bench"), vectoriser, {})
    first = [suspect.decision_id for suspect in found.points[:100]]
    hits = len(wrong & set(first))
    doubted = {one.name for one in found.labellers if one.error_rate > 0.5}
    before = verdicts(clean, asked, vectoriser)
    dirty = verdicts(bad, asked, vectoriser)
    kept = [event for event in bad if event["decision_id"] not in set(first)]
    without = [event for event in bad if event["actor"] not in doubted]
    return {
        "dataset": name, "share": share, "labels": len(train), "poisoned": len(wrong), "asked": len(asked),
        "precision_100": hits / 100, "recall_100": hits / len(wrong),
        "first_labeller": found.labellers[0].name, "first_error_rate": found.labellers[0].error_rate,
        "next_error_rate": found.labellers[1].error_rate,
        "flips": _differ(before, dirty), "flips_first_100_out": _differ(before, verdicts(kept, asked, vectoriser)),
        "flips_doubted_labellers_out": _differ(before, verdicts(without, asked, vectoriser)),
        "doubted": sorted(doubted),
    }  # fmt: skip


def peer(name: str, shares: Sequence[float], tests: int = 800) -> dict[str, Any] | None:
    """Flips of the peer on the same streams, by share of poison; None without its interpreter (PEER_PYTHON)."""
    python = os.environ.get("PEER_PYTHON")
    if not python:
        return None
    cases = load(name)
    train = [case for case in cases if case.fold]
    asked = [case for case in cases if not case.fold][:tests]
    told = _peer(python, "texts", {"requests": [case.request for case in [*train, *asked]]})["texts"]
    embedder = StaticEmbedder()
    every = sorted(set(told))
    rows = [row for start in range(0, len(every), 512) for row in embedder.embed(every[start : start + 512]).tolist()]
    outcomes = []
    for share in (0.0, *shares):
        by_id = {event["decision_id"]: event["label"] for event in poisoned(train, share)[0]}
        outcomes.append([-1 if label == "failure" else 1 for label in by_id.values()])
    given = {"vectors": dict(zip(every, rows, strict=True)), "labelled": told[: len(train)], "outcomes": outcomes,
             "asked": [case.request for case in asked]}  # fmt: skip
    clean, *dirty = _peer(python, "decide", given)["verdicts"]
    return {"dataset": name, "asked": len(asked), "stopped_clean": sum(verdict != "ALLOW" for verdict in clean),
            "flips": {str(share): _differ(clean, some) for share, some in zip(shares, dirty, strict=True)}}  # fmt: skip


def _peer(python: str, task: str, given: dict[str, Any]) -> Any:
    script = Path(__file__).with_name("peer_poison.py")
    own = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}  # both are called lumyn
    done = subprocess.run(
        [python, str(script), task], input=json.dumps(given), env=own, capture_output=True, text=True, timeout=1800,
    )  # fmt: skip
    if done.returncode:
        raise SystemExit(f"the peer, {task}: {done.stderr[-2000:]}")
    return json.loads(done.stdout)


def _differ(one: Sequence[str], other: Sequence[str]) -> int:
    return sum(a != b for a, b in zip(one, other, strict=True))
