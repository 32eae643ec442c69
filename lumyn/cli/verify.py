"""`lumyn verify`: is what is stored still what was decided?"""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from lumyn.cli.output import one_line, out, out_json, say

if TYPE_CHECKING:
    from schemas.errors import LumynError
    from streams.checkpoints import Chain
    from streams.integrity import Check
    from streams.lumyn1.pack import Lumyn1Pack
    from streams.packs import Pack
    from streams.sweep import Summary


def verify(
    what: str | None = typer.Argument(
        None, metavar="[ID | PACK.zip | ATTESTATION.json]", help="One decision, pack or attestation; default: all."
    ),
    start: str | None = typer.Option(None, "--from", metavar="T", help="From a time (UTC), or a position like 3:1000."),
    end: str | None = typer.Option(None, "--to", metavar="T", help="Up to a time, or before a position."),
    head: str | None = typer.Option(None, "--head", metavar="DIGEST", help="A checkpoint's digest that must be there."),
    trust_signer: bool = typer.Option(False, "--trust-signer", help="Accept a signature by a key not known here."),
    logic_unchanged: bool = typer.Option(False, "--logic-unchanged", help="Attest what the logic of a period was."),
    to_file: Path | None = typer.Option(None, "--out", help="Write the signed attestation (JSON)."),
    html: Path | None = typer.Option(None, "--html", help="Write the attestation as a page for an auditor."),
    compare: Path | None = typer.Option(
        None, "--compare", metavar="OTHER.json", help="Compare the logic with another attestation's, by ir_hash."
    ),
    environment: str | None = typer.Option(None, "--environment", help="What to call this environment."),
    with_policies: bool = typer.Option(False, "--with-policies", help="Enclose the policy documents."),
    json_: bool = typer.Option(False, "--json", help="Print as JSON."),
) -> int:
    """Check digests, policy, receipt, place in the log and checkpoints, and decide again from the recorded inputs.

    \b
    Examples: lumyn verify 01JBQX8P2M...
              lumyn verify incident.zip
              lumyn verify
              lumyn verify --from '2024-12-19 14:00' --to '2024-12-19 15:00'
              lumyn verify --from 3:1000 --to 3:2000
              lumyn verify --logic-unchanged --from 2026-01-01 --to 2026-06-30 --out attestation.json --html page.html
              lumyn verify attestation.json --compare staging.json
    3:1000 is partition 3, offset 1000 of the requests; 14:25, two digits on both sides, is a time of today.
    Exit 0: all hold. 1: the logic changed, or is another one elsewhere. 2: there is no decision to verify. 3: what is
    stored was changed; the check that failed is named.
    """
    from lumyn.attesting import is_attestation
    from lumyn.cli.attest import attest_period, check_file
    from schemas.errors import UsageError

    if logic_unchanged:
        if what is not None or head is not None:
            raise UsageError("`--logic-unchanged` is about all decisions of a period: give `--from` and `--to`")
        return attest_period(
            start,
            end,
            to_file=to_file,
            html=html,
            compare_with=compare,
            environment=environment,
            with_policies=with_policies,
            trust_signer=trust_signer,
            json_=json_,
        )
    if to_file is not None or environment is not None or with_policies:
        raise UsageError("`--out`, `--environment` and `--with-policies` belong to `--logic-unchanged`")
    if what is not None and is_attestation(Path(what)):
        if start is not None or end is not None or head is not None:
            raise UsageError("`--from`, `--to` and `--head` are for the whole log, not for an attestation")
        return check_file(Path(what), html=html, compare_with=compare, trust_signer=trust_signer, json_=json_)
    if html is not None or compare is not None:
        raise UsageError("`--html` and `--compare` belong to an attestation or to `--logic-unchanged`")
    if what is None:
        return _all(start, end, head, json_)
    if start is not None or end is not None or head is not None:
        raise UsageError("`--from`, `--to` and `--head` are for the whole log, not for one decision or pack")
    return _one(what, trust_signer, json_)


def _one(what: str, trust_signer: bool, json_: bool) -> int:
    from lumyn.checkpointing import home_chain
    from lumyn.config import resolve
    from lumyn.lookup import find_record
    from lumyn.replaying import check_pack
    from lumyn.wiring import existing_home
    from streams.lumyn1.pack import Lumyn1Pack
    from streams.packs import read_any_pack
    from streams.verify import verify_record

    unproven: list[str] = []
    if what.endswith(".zip") or os.path.isfile(what):  # noqa: PTH113 - no error for what can't be a name
        pack = read_any_pack(Path(what))
        name = pack.record["decision_id"]
        if isinstance(pack, Lumyn1Pack):
            checks, unproven = _of_lumyn1(pack)
        else:
            checks = check_pack(pack, trust_signer=trust_signer, settings_home=resolve().home)
            checks += _in_chain(pack) if all(check.ok for check in checks) else []
    else:
        home = existing_home()
        raw, record = find_record(home, what)
        name = record["decision_id"]
        checks = verify_record(home.log, home.agent.control(), raw, record, chain=home_chain(home, check_leaves=False))
    good = all(check.ok for check in checks)
    if json_:
        out_json(
            {
                "decision_id": name,
                "verified": good,
                "checks": [{"name": c.name, "ok": c.ok, "detail": c.detail} for c in checks],
                **({"not_provable": unproven} if unproven else {}),
            }
        )
        return 0 if good else 3
    out(f"decision {name}: {'verified' if good else 'NOT VERIFIED'}")
    for check in checks:
        told = f"{check.name}: {check.detail}" if check.detail else check.name
        out(f"  {'ok    ' if check.ok else 'FAILED'} {one_line(told)}")
    for text in unproven:
        out(f"  can't be proven: {one_line(text)}")
    return 0 if good else 3


def _of_lumyn1(pack: Lumyn1Pack) -> tuple[list[Check], list[str]]:
    """A pack of 1.x is never verified: nobody signed it."""
    from streams.integrity import Check
    from streams.lumyn1.pack import check_lumyn1, not_provable

    unsigned = Check("signature", False, f"packs of {pack.made_by} are not signed; `lumyn replay` reads them")
    return [unsigned, *check_lumyn1(pack)], not_provable(pack)


def _in_chain(pack: Pack) -> list[Check]:
    """A checkpoint of this home's own key must stand in this home's log: else the log was cut or made anew."""
    from lumyn.checkpointing import home_chain
    from lumyn.config import resolve
    from lumyn.home import LOG_FILE
    from lumyn.replaying import trusted_keys
    from lumyn.wiring import operator_home
    from schemas.digests import digest_of
    from streams.integrity import Check

    settings = resolve()
    if pack.proof is None or (settings.kafka is None and not (settings.home / LOG_FILE).exists()):
        return []
    statement = pack.proof["statement"]
    if (trusted_keys(settings.home) or {}).get(statement["key_id"]) != "own":
        return []
    chain = home_chain(operator_home(), wanted=digest_of(statement), check_leaves=False)
    there = chain.seen_wanted
    return [
        Check("chain", there, "" if there else f"checkpoint {statement['number']} is not in this home's log any more")
    ]


def _all(start: str | None, end: str | None, head: str | None, json_: bool) -> int:
    from lumyn.checkpointing import home_chain
    from lumyn.wiring import existing_home
    from streams.local_log import wall_clock_ms
    from streams.span import EVERYTHING, check_partition, parse_span
    from streams.sweep import Summary, verify_all

    now_ms = wall_clock_ms()
    span = parse_span(start, end, now_ms=now_ms)
    home = existing_home()
    check_partition(home.log, span)
    chain, summary, bad, sound = home_chain(home, wanted=head), Summary(), [], 0
    for finding in verify_all(home.log, chain, summary, now_ms=now_ms, tenant=home.settings.tenant, span=span):
        failed = finding.failed
        sound += not failed
        if failed:
            bad.append({"decision_id": finding.name, "failed": [{"name": c.name, "detail": c.detail} for c in failed]})
            say(one_line(f"{finding.name}: " + "; ".join(f"{c.name} failed ({c.detail})" for c in failed)))
    if head is not None and not chain.seen_wanted:
        detail = "no checkpoint of this log has this digest: its checkpoints were cut or made anew"
        bad.append({"decision_id": head, "failed": [{"name": "head", "detail": detail}]})
        say(one_line(f"{head}: head failed ({detail})"))
    if not (bad or summary.decisions) and (head is None or span != EVERYTHING):
        raise _nothing(home.settings.tenant, ranged=span != EVERYTHING)
    if json_:
        found = {"verified": not bad, "decisions": summary.decisions, "failed": bad}
        found |= {"erased": summary.erased, "sealed": summary.sealed}
        out_json({**found, "checkpoints": _checkpoints(chain, summary)})
    else:
        out(f"{summary.decisions} decisions, {sound} verified, {len(bad)} not")
        for line in _told(chain, summary):
            out(line)
    return 3 if bad else 0


def _nothing(tenant: str, *, ranged: bool) -> LumynError:
    """Of no decisions at all it must not be said that they hold."""
    from schemas.errors import NotFound, UsageError

    if ranged:
        return UsageError(
            f"no decision of tenant `{tenant}` lies in this range, so there is nothing to verify",
            help="`lumyn list --limit 5` shows the latest; without `--from` and `--to` the whole log is verified",
        )
    return NotFound(
        f"there are no decisions of tenant `{tenant}` here yet, so there is nothing to verify",
        help="LUMYN_HOME names another home, LUMYN_TENANT another tenant",
    )


def _checkpoints(chain: Chain, summary: Summary) -> dict[str, Any]:
    return {
        "count": chain.count,
        "head": chain.last_digest,
        "last": chain.last,
        "covered": summary.covered,
        "after_last": summary.after_last,
        "never_covered": summary.never_covered,
        "expired": summary.expired,
        "events_after_last": summary.events_after_last,
    }


def _unopened(summary: Summary) -> list[str]:
    lines = []
    if summary.erased:
        lines.append(f"{summary.erased} decisions are erased: digests and places hold, what was asked is gone")
    if summary.sealed:
        lines.append(f"{summary.sealed} decisions are sealed, and their keys are not here: digests and places hold")
    return lines


def _told(chain: Chain, summary: Summary) -> list[str]:
    if chain.last is None:
        return [
            *_unopened(summary), "no checkpoints: `lumyn checkpoint` makes one, and rewriting what it covers will show"]
    lines = [
        *_unopened(summary),
        f"{chain.count} checkpoint{' holds' if chain.count == 1 else 's hold'}, numbered from 0: the last is number "
        f"{chain.last['number']}, up to {chain.last['up_to']}",
        f"{summary.covered} decisions are covered, {summary.after_last} after the last checkpoint are not",
    ]
    if summary.never_covered:
        lines.append(f"{summary.never_covered} decisions before or between the checkpoints were never covered")
    if summary.events_after_last:
        lines.append(f"{summary.events_after_last} control and label events after the last checkpoint are not covered")
    if summary.expired:
        lines.append(f"{summary.expired} receipts of retries and dead letters have expired: they can't be compared")
    return lines
