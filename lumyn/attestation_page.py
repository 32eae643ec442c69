"""An attestation as a page for an auditor: one file without scripts or anything from elsewhere, all text escaped."""

from __future__ import annotations

import html
import json
from collections.abc import Iterable, Sequence

from schemas.attestation import Attestation, Compared, Logic, Statement
from streams.integrity import Check

_STYLE = """
:root{color-scheme:light dark;--line:#8886;--soft:#8881;--good:#0a7d38;--bad:#b3261e}
@media(prefers-color-scheme:dark){:root{--good:#5bd487;--bad:#ff8a80}}
*{box-sizing:border-box}
body{font:16px/1.5 system-ui,sans-serif;max-width:60rem;margin:0 auto;padding:1rem}
h1{font-size:1.5rem;line-height:1.25;margin:.5rem 0}h2{font-size:1.15rem;margin:2rem 0 .5rem}
.verdict{font-size:1.2rem;font-weight:600;padding:.75rem 1rem;border-left:.4rem solid;background:var(--soft)}
.good{color:var(--good)}.bad{color:var(--bad)}
dl{display:grid;grid-template-columns:minmax(8rem,14rem) 1fr;gap:.25rem 1rem;margin:0}
dt{opacity:.75}dd{margin:0}dd,li,p,summary{overflow-wrap:anywhere}
section.logic{border:1px solid var(--line);border-radius:.4rem;padding:.75rem 1rem;margin:.75rem 0}
section.logic h3{margin:0 0 .5rem;font-size:1rem;overflow-wrap:anywhere}
code,pre{font:0.85em/1.45 ui-monospace,monospace}code{overflow-wrap:anywhere}
pre{overflow-x:auto;background:var(--soft);padding:.75rem;margin:.5rem 0}
@media(max-width:34rem){dl{grid-template-columns:1fr;gap:0}dd{margin-bottom:.5rem}}
@media print{body{max-width:none}details{display:block}}
"""


def page(attestation: Attestation, checks: Sequence[Check], compared: Compared | None) -> str:
    """The page's HTML. `checks` are those made when it was written; `compared` with another attestation, if it was."""
    statement = attestation["statement"]
    parts = [
        f"<h1>Was the decision logic of {_text(statement['environment'])} unchanged?</h1>",
        _conclusion(statement, checks),
        "<h2>What was looked at</h2>",
        _facts(_about(statement)),
        f"<h2>The logic ({len(statement['logic'])})</h2>",
        *map(_logic, statement["logic"]),
        *(_comparison(statement, compared) if compared is not None else ()),
        "<h2>What this does not show</h2>",
        _list(limits(statement)),
        "<h2>Checks made when this page was written</h2>",
        _list(_told(check) for check in checks),
        "<h2>Check it yourself</h2>",
        "<p>The signed document is below; save it as <code>attestation.json</code>. The signature is Ed25519 over the "
        "canonical JSON (RFC 8785) of <code>statement</code>. Ask who attested for the key's id by another way.</p>",
        "<pre>lumyn verify attestation.json</pre>",
        *(_source(policy["name"], policy["hash"], policy["source"]) for policy in attestation.get("policies", [])),
        "<details><summary>The signed document</summary>",
        f"<pre>{_text(json.dumps(attestation, indent=2))}</pre></details>",
    ]
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width,initial-scale=1">'
        "<meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'\">"
        f"<title>Attestation: {_text(statement['environment'])}</title><style>{_STYLE}</style></head><body>"
        + "\n".join(parts)
        + "</body></html>\n"
    )


def limits(statement: Statement) -> list[str]:
    """What an attestation does not show, in sentences."""
    told = [
        "That the logic was right, or the evidence given to it true.",
        "Who held the signing key. It says what its holder found in the log; a copy of the log verifies it again.",
        "Requests that never reached the log.",
    ]
    others = _of_others(statement)
    if others:
        told.append(
            f"That {others} decisions of another engine follow from their inputs: {statement['verified_by']} does not "
            "decide as that one did. Their digests were checked."
        )
    for memory in statement["memory"]:
        told.append(
            f"That equal requests got equal verdicts: {memory['decisions']} decisions also asked a memory of labelled "
            f"outcomes, which went from version {memory['from_version']} to {memory['to_version']} and changed "
            f"{memory['changed_verdict']} verdicts. How the memory is used is part of the logic; what it holds is not."
        )
    if statement["kill_switch"]:
        count = statement["kill_switch"]
        told.append(f"What the rules would have said to {count} requests: a kill switch denied them.")
    if statement["internal_error"]:
        count = statement["internal_error"]
        told.append(f"Anything about {count} decisions in which the evaluation failed (ABSTAIN).")
    uncovered = statement["checkpoints"]["not_covered"]
    if uncovered:
        told.append(
            f"That {uncovered} decisions were not rewritten with all their traces before this was signed: no "
            "checkpoint covers them."
        )
    return told


def _of_others(statement: Statement) -> int:
    """Decisions of another engine than the one that verified."""
    return sum(one["decisions"] for one in statement["logic"] if one["engine"] != statement["verified_by"])


def _decided_again(statement: Statement) -> int:
    """Where the evaluation had failed there was nothing to decide again."""
    return max(0, statement["decisions"] - _of_others(statement) - statement["internal_error"])


def _conclusion(statement: Statement, checks: Sequence[Check]) -> str:
    failed = [check for check in checks if not check.ok]
    if failed:
        return (
            '<p class="verdict bad">Not verified. Nothing below may be relied on: '
            f"{_text('; '.join(_told(check) for check in failed))}.</p>"
        )
    period = f"from {_time(statement['start'])} to {_time(statement['end'])} UTC"
    if statement["unchanged"]:
        return (
            f'<p class="verdict good">Unchanged. All {statement["decisions"]} decisions {_text(period)} were verified, '
            "and requests that asked for the same policy were decided by the same rules on the same engine.</p>"
        )
    return (
        f'<p class="verdict bad">Changed. All {statement["decisions"]} decisions {_text(period)} were verified, and '
        "requests that asked for the same policy were decided by more than one set of rules: see below.</p>"
    )


def _about(statement: Statement) -> list[tuple[str, str]]:
    checkpoints = statement["checkpoints"]
    return [
        ("Environment", statement["environment"]),
        ("Tenant", statement["tenant"]),
        ("Period (UTC)", f"{statement['start']} up to {statement['end']}"),
        ("Decisions", f"{statement['decisions']}; {_decided_again(statement)} decided again from recorded inputs"),
        ("Digest of their records", statement["records"]),
        ("Log", statement["log"]),
        ("Covered by checkpoints", f"{checkpoints['decisions']} of {statement['decisions']}"),
        ("Newest checkpoint", checkpoints["head"] or "none"),
        ("Signed", f"{statement['made_at']} by key {statement['key_id']}"),
    ]


def _logic(one: Logic) -> str:
    versions = ", ".join(f"{document['version']} ({document['hash']})" for document in one["documents"])
    verdicts = ", ".join(f"{name} {count}" for name, count in sorted(one["verdicts"].items()))
    asked = f"Asked for: {one['asked']}" if one["asked"] is not None else "No policy asked for"
    facts = [
        ("ir_hash", one["ir_hash"]),
        ("Engine", one["engine"]),
        ("Documents", versions),
        ("Decisions", f"{one['decisions']}: {verdicts}"),
        ("First", f"{one['first']['at']}, {one['first']['decision_id']}"),
        ("Last", f"{one['last']['at']}, {one['last']['decision_id']}"),
    ]
    return f'<section class="logic"><h3>{_text(asked)}: policy {_text(one["policy"])}</h3>{_facts(facts)}</section>'


def _comparison(statement: Statement, compared: Compared) -> list[str]:
    same = compared["same"]
    parts = [
        f"<h2>Compared with {_text(compared['environment'])}</h2>",
        f'<p class="verdict {"good" if same else "bad"}">{"The same logic." if same else "Another logic."}</p>',
        _facts(
            [
                ("Its period (UTC)", " up to ".join(compared["period"])),
                ("Its statement", compared["statement"]),
                ("Signed by key", compared["key_id"]),
            ]
        ),
    ]
    for one in compared["logic"]:
        asked = one["asked"] if one["asked"] is not None else "no policy asked for"
        facts = [
            (statement["environment"], "; ".join(one["here"]) or "no decisions"),
            (compared["environment"], "; ".join(one["there"]) or "no decisions"),
        ]
        word = "same" if one["same"] else "different"
        heading = f"<h3>{_text(asked)}: {word}</h3>"
        parts.append(f'<section class="logic">{heading}{_facts(facts)}</section>')
    return parts


def _source(name: str, hash_: str, source: str) -> str:
    heading = f"Policy {_text(name)}, <code>{_text(hash_)}</code>"
    return f"<details><summary>{heading}</summary><pre>{_text(source)}</pre></details>"


def _time(text: str) -> str:
    """A log time to the second, for a sentence."""
    return text[:19].replace("T", " ")


def _told(check: Check) -> str:
    return f"{check.name}: {'holds' if check.ok else 'FAILED'}{f' ({check.detail})' if check.detail else ''}"


def _facts(rows: Iterable[tuple[str, str]]) -> str:
    return f"<dl>{''.join(f'<dt>{_text(name)}</dt><dd>{_text(value)}</dd>' for name, value in rows)}</dl>"


def _list(items: Iterable[str]) -> str:
    return f"<ul>{''.join(f'<li>{_text(item)}</li>' for item in items)}</ul>"


def _text(text: str) -> str:
    """Escaped; controls and what turns the reading direction are shown by their number."""
    visible = "".join(c if c in "\n\t" or c.isprintable() else f"\\u{ord(c):04x}" for c in text)
    return html.escape(visible, quote=True)
