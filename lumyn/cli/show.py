"""`lumyn show`: one decision, with what was said of it since."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import typer

from lumyn.cli.output import one_line, out, out_json


def show(
    decision: str = typer.Argument(..., metavar="ID", help="A decision id, a unique prefix, or `01JBQX8P2M...`."),
    json_: bool = typer.Option(False, "--json", help="Print record and events as JSON."),
) -> None:
    """Show a decision and its events.

    \b
    Example: lumyn show 01JBQX8P2M...
    """
    from lumyn.lookup import sound_record
    from lumyn.wiring import existing_home
    from streams.sealing import shown_record

    home = existing_home()
    record = shown_record(home.log.keys, sound_record(home, decision)[1])
    events = home.events(record["decision_id"])
    if json_:
        out_json({"record": record, "events": events})
        return
    out(summary(record))
    out(event_lines(events))


def summary(record: Mapping[str, Any]) -> str:
    """The few lines that tell a decision."""
    from streams.sealing import is_erased

    lines = [
        f"decision_id: {record['decision_id']}",
        *(["erased: its subject was forgotten; what was asked, and what rules quoted, is gone"] * is_erased(record)),
        f"created_at: {record['created_at']}",
        f"action: {action_text(record['request'])}",
        one_line(f"policy: {record['policy']['name']}@{record['policy']['version']}"),
        *([f"redrive_of: {record['links']['redrive_of']}"] if "redrive_of" in record["links"] else []),
        "",
        f"verdict: {record['verdict']}",
        one_line(f"reason_codes: {', '.join(record['reason_codes'])}"),
        *rule_lines(record["matched_rules"]),
        *signal_lines(record),
    ]
    return "\n".join(lines)


def action_text(request: Mapping[str, Any]) -> str:
    """The action with its amount and subject, on one line."""
    from lumyn.figures import money

    amount = request["action"].get("amount")
    of = money(amount.get("value"), amount.get("currency")) if isinstance(amount, dict) else ""
    action = f"{request['action']['type']} {of}".rstrip()
    return one_line(f"{action} for {request['subject']['type']} {request['subject']['id']}")


def rule_lines(rules: Sequence[Mapping[str, Any]]) -> list[str]:
    """The trace, as in the incident guide."""
    if not rules:
        return ["matched_rules: none"]
    lines = ["matched_rules:"]
    for rule in rules:
        missing = [f["fact"] for f in rule["facts"] if f.get("missing") or f.get("wrong_type")]
        note = f" indeterminate ({', '.join(missing)})" if rule["outcome"] == "indeterminate" else ""
        effect = "" if rule["effect"] is None else f" effect={rule['effect']}"
        lines.append(f"  - {rule['stage']}:{rule['id']}{effect} reasons={rule['reason_codes']}{note}")
    return [one_line(line) for line in lines]


def signal_lines(record: Mapping[str, Any]) -> list[str]:
    """What memory said: scores to two digits, the neighbours behind them."""
    if record["memory"]["mode"] == "off":
        return []
    if not record["memory"]["available"]:
        return ["risk_signals: memory was unavailable"]
    signals = record["risk_signals"]
    lines = ["risk_signals:"]
    for name in ("failure_similarity", "success_similarity"):
        lines.append(f"  {name}: {signals[name]['score']:.2f}")
        hits = signals[name]["top_k"]
        if hits:
            shown = ", ".join(
                f"memory_id: {h['memory_id']} ({h['score']:.2f} {h['label']} {h['summary']!r})" for h in hits
            )
            lines.append(f"  top_k: [{shown}]")
    nearby = signals["nearby"]
    if nearby["failure_rate"] is not None:
        lines.append(
            f"  nearby_failure_rate: {nearby['failure_rate']:.2f} "
            f"({nearby['lower']:.2f} to {nearby['upper']:.2f}, n={nearby['n_effective']:.1f})"
        )
    lines.append(f"  uncertainty_score: {signals['uncertainty_score']:.2f}")
    return lines


def event_lines(events: Sequence[Mapping[str, Any]]) -> str:
    """The append-only history of labels and notes."""
    if not events:
        return "\nevents: none"
    return "\nevents:\n" + "\n".join(f"  - {e['at'][:19]}Z | type: {e['type']:<5} | data: {_data(e)}" for e in events)


def _data(event: Mapping[str, Any]) -> str:
    import orjson

    parts = {"label": event["label"], "should": event["should"], "summary": event["summary"], "actor": event["actor"]}
    if event["type"] == "note":
        parts = {"text": event["summary"], "actor": event["actor"]}
    shown = [f"{k}: {orjson.dumps(v).decode()}" for k, v in parts.items() if v]
    return "{" + ", ".join(shown) + "}"
