"""Turn recorded actions of an airline agent into decision requests, and what became of them into outcomes.

    python examples/airline/build.py agent_actions.jsonl

The input is one JSON object a line: an action a language model took in a tau-bench conversation, with the
reservation and the profile it had looked up, what the user had said, and the reply (README.md: origin).
"""

from __future__ import annotations

import argparse
import hashlib
import json
from collections.abc import Mapping, Sequence
from itertools import groupby
from pathlib import Path
from typing import Any

from evidence import amount, evidence
from recordings import Airline, Conversation, Row, failed, user_of
from scrub import known_names, last_words, scrub

TASKS = frozenset({5, 6, 8, 14, 16, 20, 22, 26, 28, 29, 34, 37, 40, 41, 45, 46})
INTENT_LIMIT = 600
_ARGUMENTS = (
    "reservation_id", "cabin", "origin", "destination", "flight_type", "insurance", "total_baggages",
    "nonfree_baggages",
)  # fmt: skip
_REPLIES = (
    ("payment_total_wrong", "does not add up"),
    ("payment_method_unknown", "payment method"),
    ("certificate_refused", "certificate cannot"),
    ("balance_too_low", "not enough balance"),
    ("flight_unavailable", "not available"),
    ("no_seats", "not enough seats"),
)  # fmt: skip


def requests_and_outcomes(rows: Sequence[Row]) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """The chosen tasks' actions in order of task, trial and step, and beside each what became of it."""
    airline, names = Airline.seen_in(rows), known_names(rows)
    chosen = sorted((row for row in rows if row["task"] in TASKS), key=_position)
    requests, outcomes = [], []
    for _, actions in groupby(chosen, key=lambda row: (row["task"], row["trial"])):
        talk = Conversation(airline)
        for row in actions:
            talk.hear(row["user_said"])
            requests.append(_request(row, talk, names))
            outcomes.append(_outcome(row))
            talk.record(row)
    return requests, outcomes


def _position(row: Row) -> tuple[int, int, int]:
    return row["task"], row["trial"], row["step"]


def _request_id(row: Row) -> str:
    return f"airline-{row['task']}-{row['trial']}-{row['step']}"


def _request(row: Row, talk: Conversation, names: frozenset[str]) -> dict[str, Any]:
    facts = evidence(row, talk)
    return {
        "request_id": _request_id(row),
        "subject": {"type": "user", "id": user_of(row)},
        "action": _action(row, talk, facts, names),
        "evidence": facts,
        "context": {
            "mode": "inline",
            "inline": {
                "channel": "chat",
                "user_turns": len(talk.said),
                "earlier_actions": talk.writes,
                "earlier_refusals": talk.refusals,
            },
        },
        "provenance": {
            "model": row["model"],
            "batch": row["run"],
            "task": row["task"],
            "trial": row["trial"],
            "tool_schema_hash": _schema_hash(row["arguments"]),
        },
    }


def _action(row: Row, talk: Conversation, facts: Mapping[str, Any], names: frozenset[str]) -> dict[str, Any]:
    arguments = row["arguments"]
    action: dict[str, Any] = {
        "type": row["tool"],
        "intent": last_words([scrub(message, names) for message in talk.said], INTENT_LIMIT),
    }
    at_stake = amount(row, talk, facts)
    if at_stake is not None:
        action["amount"] = {"value": at_stake, "currency": "USD"}
    action |= {name: arguments[name] for name in _ARGUMENTS if name in arguments}
    if "flights" in arguments:
        action["flights"] = [f"{flight['flight_number']} {flight['date']}" for flight in arguments["flights"]]
    return action


def _schema_hash(arguments: Mapping[str, Any]) -> str:
    names = json.dumps(sorted(arguments), separators=(",", ":"))
    return f"sha256:{hashlib.sha256(names.encode()).hexdigest()}"


def _outcome(row: Row) -> dict[str, Any]:
    refused = next((kind for kind, words in _REPLIES if words in row["tool_reply"]), "refused")
    return {
        "request_id": _request_id(row),
        "expected": row["action_expected"],
        "run_reward": row["run_reward"],
        "task": row["task"],
        "trial": row["trial"],
        "tool_reply": refused if failed(row) else "done",
    }


def write_lines(path: Path, values: Sequence[Mapping[str, Any]]) -> None:
    """One JSON object a line, keys sorted, the same bytes on every machine."""
    lines = (json.dumps(value, sort_keys=True, ensure_ascii=False) + "\n" for value in values)
    path.write_bytes("".join(lines).encode())


def main() -> None:
    """Read the recordings, write `requests.jsonl` and `outcomes.jsonl`."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("recordings", type=Path, help="agent_actions.jsonl")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent, help="folder (default: this one)")
    given = parser.parse_args()
    rows = [json.loads(line) for line in given.recordings.read_text("utf-8").split("\n") if line]
    requests, outcomes = requests_and_outcomes(rows)
    write_lines(given.out / "requests.jsonl", requests)
    write_lines(given.out / "outcomes.jsonl", outcomes)
    print(f"{len(requests)} requests of {len(TASKS)} tasks")


if __name__ == "__main__":
    main()
