"""What `lumyn verify` does for auditors: attest that the logic was unchanged, check an attestation, compare two."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lumyn.cli.output import one_line, out, out_json, say

if TYPE_CHECKING:
    from schemas.attestation import Attestation, Compared, Statement
    from streams.integrity import Check


def attest_period(
    start: str | None,
    end: str | None,
    *,
    to_file: Path | None,
    html: Path | None,
    compare_with: Path | None,
    environment: str | None,
    with_policies: bool,
    trust_signer: bool,
    json_: bool,
) -> int:
    """Sign what the logic of a period was."""
    from lumyn.attestation_page import page
    from lumyn.attesting import attest
    from lumyn.cli.new_key import telling_new_key
    from lumyn.exporting import write_whole
    from lumyn.wiring import existing_home
    from schemas.canonical import encode
    from schemas.errors import UsageError
    from streams.attestation import check_attestation
    from streams.local_log import wall_clock_ms

    if start is None or end is None:
        example = "for example `--from 2026-01-01 --to 2026-06-30`"
        raise UsageError("`--logic-unchanged` needs `--from` and `--to`", help=example)
    now_ms = wall_clock_ms()
    other = _other(compare_with, trust_signer, now_ms)
    home = existing_home()
    with telling_new_key(home):
        attested = attest(
            home,
            start,
            end,
            environment=environment,
            other=other,
            with_policies=with_policies,
            now_ms=now_ms,
        )
    if attested.attestation is None:
        for finding in attested.failed:
            told = "; ".join(f"{check.name} failed ({check.detail})" for check in finding.failed)
            say(one_line(f"{finding.name}: {told}"))
        say("nothing was attested: what is stored is not what was decided")
        if json_:
            out_json({"attested": False, "failed": [finding.name for finding in attested.failed]})
        return 3
    attestation = attested.attestation
    statement, checks = attestation["statement"], check_attestation(attestation)
    if to_file is not None:
        write_whole(to_file, encode(attestation) + b"\n")
        say(f"wrote {to_file}")
    if html is not None:
        write_whole(html, page(attestation, checks, statement["compared"]).encode("utf-8", "replace"))
        say(f"wrote {html}")
    if json_:
        out_json(attestation)
    else:
        _tell(statement)
        if statement["compared"] is not None:
            _tell_compared(statement["compared"])
    compared = statement["compared"]
    return 0 if statement["unchanged"] and (compared is None or compared["same"]) else 1


def check_file(path: Path, *, html: Path | None, compare_with: Path | None, trust_signer: bool, json_: bool) -> int:
    """Check an attestation that someone gave, and compare it with another."""
    from lumyn.attestation_page import page
    from lumyn.attesting import check_here, load_attestation, whose
    from lumyn.exporting import write_whole
    from streams.attestation import compare
    from streams.local_log import wall_clock_ms

    now_ms = wall_clock_ms()
    attestation = load_attestation(path)
    checks = check_here(attestation, trust_signer=trust_signer, now_ms=now_ms)
    good = all(check.ok for check in checks)
    statement = attestation["statement"]
    compared = None
    if good and compare_with is not None:
        other = _other(compare_with, trust_signer, now_ms)
        assert other is not None
        compared = compare(statement["logic"], other)
    if html is not None:
        write_whole(html, page(attestation, checks, compared or statement["compared"]).encode("utf-8", "replace"))
        say(f"wrote {html}")
    if json_:
        out_json(_as_dict(statement, checks, good, compared))
    else:
        out(f"attestation: {'verified' if good else 'NOT VERIFIED'}")
        for check in checks:
            told = f"{check.name}: {check.detail}" if check.detail else check.name
            out(f"  {'ok    ' if check.ok else 'FAILED'} {one_line(told)}")
        if good:
            _tell(statement)
        if compared is not None:
            _tell_compared(compared)
    note = whose(attestation) if good else None
    if note:
        say(f"note: {note}")
    if not good:
        return 3
    return 0 if statement["unchanged"] and (compared is None or compared["same"]) else 1


def _other(path: Path | None, trust_signer: bool, now_ms: int) -> Attestation | None:
    """The attestation to compare with, believed. Raises `IntegrityError`."""
    from lumyn.attesting import check_here, load_attestation
    from streams.integrity import require

    if path is None:
        return None
    other = load_attestation(path)
    require(check_here(other, trust_signer=trust_signer, now_ms=now_ms), where=str(path))
    return other


def _as_dict(statement: Statement, checks: Sequence[Check], good: bool, compared: Compared | None) -> dict[str, Any]:
    return {
        "verified": good,
        "checks": [{"name": check.name, "ok": check.ok, "detail": check.detail} for check in checks],
        "unchanged": statement["unchanged"] if good else None,
        "statement": statement if good else None,
        "compared": compared,
    }


def _tell(statement: Statement) -> None:
    from lumyn.attestation_page import limits

    word = "unchanged" if statement["unchanged"] else "CHANGED"
    out(one_line(f"logic {word} from {statement['start']} to {statement['end']} in {statement['environment']}"))
    out(f"{statement['decisions']} decisions, all verified; records {statement['records']}")
    for one in statement["logic"]:
        asked = f"asked for {one['asked']}" if one["asked"] is not None else "no policy asked for"
        versions = ", ".join(document["version"] for document in one["documents"])
        line = f"  {asked}: {one['policy']}@{versions} {one['ir_hash']} {one['engine']}, {one['decisions']} decisions"
        out(one_line(f"{line}, {one['first']['at']} to {one['last']['at']}"))
    out(f"signed {statement['made_at']} by key {statement['key_id']}")
    out("It does not show:")
    for text in limits(statement):
        out(one_line(f"  - {text}"))


def _tell_compared(compared: Compared) -> None:
    word = "the same logic" if compared["same"] else "ANOTHER LOGIC"
    out(one_line(f"compared with {compared['environment']} ({' to '.join(compared['period'])}): {word}"))
    for one in compared["logic"]:
        asked = one["asked"] if one["asked"] is not None else "no policy asked for"
        if one["same"]:
            out(one_line(f"  same      {asked}: {'; '.join(one['here'])}"))
        else:
            here, there = ("; ".join(one[side]) or "no decisions" for side in ("here", "there"))
            out(one_line(f"  different {asked}: {here} here, {there} there"))
