"""JSON Schema files made from the models; a test fails when they drift."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter
from pydantic.json_schema import DEFAULT_REF_TEMPLATE

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


def schema_of(adapter: TypeAdapter[Any], ref_template: str = DEFAULT_REF_TEMPLATE) -> dict[str, Any]:
    """A type's JSON Schema, the same whatever was imported before.

    Python keeps one object for `int | float` and `float | int` inside another type, and likewise for literals: which of
    the two is found depends on who came first. So what has no order of its own is put into one here.
    """
    schema: dict[str, Any] = _ordered(adapter.json_schema(ref_template=ref_template))
    return schema


def _ordered(node: Any) -> Any:
    if isinstance(node, list):
        return [_ordered(item) for item in node]
    if not isinstance(node, dict):
        return node
    out = {name: _ordered(value) for name, value in node.items()}
    for name in ("anyOf", "enum"):
        if isinstance(out.get(name), list):  # else a property of this name
            out[name].sort(key=lambda item: (item in (None, {"type": "null"}), json.dumps(item, sort_keys=True)))
    return out


def render(name: str) -> str:
    """The schema file's text for one contract."""
    schema = schema_of(SCHEMAS[name])
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
