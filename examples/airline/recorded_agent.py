"""The agent of the recordings, as far as it is here: each run answers what it did in the next recorded conversation.

    python recorded_agent.py TASK RESERVATION

A task was played several times over. Whether the reservation was cancelled is read from `requests.jsonl`; what runs
were answered is noted in the folder it is run in. When all conversations were told, it fails: there is no other.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

TRIALS = 4


def main(task: str, reservation: str) -> None:
    """Answer for the next trial of a task."""
    json.load(sys.stdin)  # the recorded input, the same every time
    for trial in range(TRIALS):
        told = Path(f".told-{task}-{trial}")
        try:
            told.touch(exist_ok=False)
        except FileExistsError:
            continue
        print(json.dumps(answer(task, trial, reservation)))
        return
    sys.exit("all recorded conversations were told")


def answer(task: str, trial: int, reservation: str) -> dict[str, object]:
    """What the agent did with the reservation in a conversation, with its provenance."""
    lines = (Path(__file__).parent / "requests.jsonl").read_text(encoding="utf-8").splitlines()
    asked = [r for r in map(json.loads, lines) if r["request_id"].startswith(f"airline-{task}-{trial}-")]
    done = any(r["action"].get("reservation_id") == reservation for r in asked)
    kind = "cancel_reservation" if done else "leave_it"
    provenance = {"model": "gpt-4o", "batch": f"airline-{task}-{trial}"}
    return {"action": {"type": kind, "reservation_id": reservation}, "provenance": provenance}


if __name__ == "__main__":
    main(*sys.argv[1:])
