"""A game day's report: a dictionary that two runs of one scenario make alike, but for `measured`; text and Markdown."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Any

from lumyn import __version__
from lumyn.gamedays.judge import Judge, Judged
from lumyn.gamedays.play import Played
from lumyn.gamedays.scenario import Scenario
from lumyn.gamedays.setting import Set
from lumyn.gamedays.stage import Stage
from lumyn.gamedays.traffic import Traffic
from schemas.verdict import VERDICTS

SCHEMA = "lumyn.gameday/1"


def make_report(
    scenario: Scenario, stage: Stage, traffic: Traffic, set_up: Set, played: Played, judge: Judge, always: list[Judged]
) -> dict[str, Any]:
    """The report as JSON holds it. `sound`: what always must hold did; `passed`: all of it, and what was expected.

    `verdicts`: `now` and `changed` count the decisions of the game day, so each copy that traffic made; `recorded` the
    recorded decisions, each once.
    """
    judged = judge.judged()
    sound = all(one.holds for one in always)
    was = Counter(one.verdict for one in traffic.requests if one.verdict is not None)
    return {
        "schema": SCHEMA,
        "lumyn": __version__,
        "name": scenario.name,
        "why": scenario.why,
        "incident": scenario.incident,
        "scenario": {"file": scenario.path.name, "digest": scenario.digest},
        "stage": stage.name,
        "passed": sound and all(one.holds for one in judged),
        "sound": sound,
        "replayed": {
            "source": traffic.source,
            "requests": len(traffic.requests),
            "delivered": played.delivered,
            "left_out": dict(sorted(traffic.left_out.items())),
        },
        "policies": [{"name": p.name, "version": p.version, "hash": p.policy_hash} for p in set_up.policies],
        "memory": {"of": set_up.memory, "labels": set_up.labels},
        "timeline": [{"at": event.at, "what": event.what, "name": event.name} for event in played.events],
        "verdicts": {
            "now": {verdict: judge.now[verdict] for verdict in VERDICTS},
            "recorded": {verdict: was[verdict] for verdict in VERDICTS} if was else None,
            "changed": {f"{old}_to_{new}": count for (old, new), count in sorted(judge.changed.items())},
        },
        "refused": [{"request": number, "why": why} for number, why in played.refused[:10]],
        "expectations": [_as_dict(one) for one in judged],
        "invariants": [_as_dict(one) for one in always],
        "measured": {
            "seconds": round(played.seconds, 3),
            "decisions_per_s": round(played.delivered / played.seconds) if played.seconds else None,
            "switches": {
                name: None if thrown.seconds is None else round(thrown.seconds, 4)
                for name, thrown in played.switches.items()
            },
        },
    }


def _as_dict(one: Judged) -> dict[str, Any]:
    return {
        "text": one.text, "holds": one.holds, "observed": one.observed, "line": one.line, "why": one.why,
        "during": one.during, "evidence": one.evidence,
    }  # fmt: skip


def headline(report: Mapping[str, Any]) -> str:
    """One line: whether it held."""
    all_ = [*report["expectations"], *report["invariants"]]
    held = sum(1 for one in all_ if one["holds"])
    how = "holds" if report["passed"] else "FAILS"
    return f"game day {report['name']}: {how} ({held} of {len(all_)} hold)"


def as_text(report: Mapping[str, Any]) -> str:
    """For a terminal."""
    replayed, verdicts = report["replayed"], report["verdicts"]
    lines = [headline(report), "", *facts(report), ""]
    if report["timeline"]:
        lines += [f"  before request {one['at']}: {one['what']}" for one in report["timeline"]] + [""]
    decided = sum(verdicts["now"].values())
    copies = f", in {decided} decisions: each copy of a request counts" if decided > replayed["requests"] else ""
    for what, counts, of in (("verdicts now", verdicts["now"], copies), ("recorded", verdicts["recorded"], "")):
        if counts is not None:
            lines.append(f"{what}: " + ", ".join(f"{count} {name}" for name, count in counts.items() if count) + of)
    for one in report["refused"]:
        lines.append(f"  request {one['request']} was answered by an error: {one['why']}")
    lines.append("")
    for one in [*report["expectations"], *report["invariants"]]:
        where = f" [{one['during']}]" if one["during"] else ""
        lines.append(f"  {'ok    ' if one['holds'] else 'FAILED'} {one['text']}{where}")
        lines.append(f"         {one['observed']}")
        if not one["holds"]:
            lines += [f"         {_evidence(item)}" for item in one["evidence"]]
            if one["why"]:
                lines.append(f"         why: {one['why']}")
    left = ", ".join(f"{count} {why}" for why, count in replayed["left_out"].items())
    if left:
        lines += ["", f"left out: {left}"]
    return "\n".join(lines)


def facts(report: Mapping[str, Any]) -> list[str]:
    """What was played, by which policy and memory, and how fast: a line each."""
    replayed, memory, measured = report["replayed"], report["memory"], report["measured"]
    policies = ", ".join(f"{p['name']}@{p['version']}" for p in report["policies"])
    speed = f", {measured['decisions_per_s']}/s" if measured["decisions_per_s"] else ""
    lines = [
        f"requests: {replayed['requests']} of {replayed['source']}, {replayed['delivered']} delivered in "
        f"{measured['seconds']} s{speed} ({report['stage']})",
        f"policy: {policies}   memory: {memory['of']}, {memory['labels']} label events",
    ]
    for name, seconds in measured["switches"].items():
        lines.append(f"{name}: " + ("never seen to deny" if seconds is None else f"denied after {seconds} s"))
    if report["incident"]:
        lines.append(f"incident: {report['incident']}")
    return lines


def _evidence(item: Mapping[str, Any]) -> str:
    name = item["request_id"] or item["recorded"] or ""
    was = f", was {item['was']}" if item["was"] else ""
    reasons = ", ".join(item["reason_codes"]) or "no reason"
    return f"request {item['request']} {name}: {item['verdict']} ({reasons}){was}"


def as_markdown(report: Mapping[str, Any], escape: Any) -> str:
    """For a pull request or a postmortem; `escape` makes recorded text harmless."""
    lines = [f"## {escape(headline(report))}", ""]
    if report["why"]:
        lines += [escape(report["why"]), ""]
    lines += [f"- {escape(fact)}" for fact in facts(report)]
    lines += [f"- before request {one['at']}: {escape(one['what'])}" for one in report["timeline"]]
    lines += ["", "| | expected | observed | evidence |", "|---|---|---|---|"]
    for one in [*report["expectations"], *report["invariants"]]:
        where = f" ({one['during']})" if one["during"] else ""
        evidence = "" if one["holds"] else "; ".join(_evidence(item) for item in one["evidence"])
        cells = (one["text"] + where, one["observed"], evidence)
        lines.append(f"| {'ok' if one['holds'] else '**FAILED**'} | " + " | ".join(map(escape, cells)) + " |")
    return "\n".join(lines)
