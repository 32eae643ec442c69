"""JSON Schema files made from the models; a test fails when they drift."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter

from schemas import attestation, checkpoint, control, label, label_receipt, ledger, receipt, record, request, shadow

SCHEMAS: dict[str, TypeAdapter[Any]] = {
    "decision_request": request.ADAPTER,
    "sealed_request": request.SEALED,
    "decision_record": record.ADAPTER,
    "receipt": receipt.ADAPTER,
    "dead_letter": receipt.DEAD_LETTER,
    "label_request": label.REQUEST,
    "label_event": label.EVENT,
    "label_receipt": label_receipt.ADAPTER,
    "control_event": control.ADAPTER,
    "shadow_verdict": shadow.ADAPTER,
    "ledger_event": ledger.ADAPTER,
    "checkpoint": checkpoint.EVENT,
    "inclusion_proof": checkpoint.PROOF,
    "attestation": attestation.ADAPTER,
}
FOLDER = Path(__file__).parent / "json"


def render(name: str) -> str:
    """The schema file's text for one contract."""
    schema = SCHEMAS[name].json_schema()
    schema["$schema"] = "https://json-schema.org/draft/2020-12/schema"
    return json.dumps(schema, indent=2, sort_keys=True) + "\n"


def write() -> None:
    """Write every schema file."""
    FOLDER.mkdir(exist_ok=True)
    for name in SCHEMAS:
        (FOLDER / f"{name}.json").write_text(render(name), encoding="utf-8")


if __name__ == "__main__":
    write()
    sys.stdout.write(f"wrote {len(SCHEMAS)} schemas\n")
