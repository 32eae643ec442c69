"""`lumyn verify`: is what is stored still what was decided?"""

from __future__ import annotations

import os
from pathlib import Path

import typer

from lumyn.cli.output import one_line, out, out_json, say


def verify(
    what: str | None = typer.Argument(
        None, metavar="[ID | PACK.zip]", help="One decision or pack; default: all decisions."
    ),
    trust_signer: bool = typer.Option(False, "--trust-signer", help="Accept a signature by a key not known here."),
    json_: bool = typer.Option(False, "--json", help="Print as JSON."),
) -> int:
    """Check digests, policy, receipt and place in the log, and decide again from the recorded inputs.

    \b
    Examples: lumyn verify 01JBQX8P2M...
              lumyn verify incident.zip
              lumyn verify
    Exit 0: all hold. 3: something was changed; the check that failed is named.
    """
    if what is None:
        return _all(json_)
    return _one(what, trust_signer, json_)


def _one(what: str, trust_signer: bool, json_: bool) -> int:
    from lumyn.config import resolve
    from lumyn.lookup import find_record
    from lumyn.replaying import check_pack
    from lumyn.wiring import existing_home
    from streams.packs import read_pack
    from streams.verify import verify_record

    if what.endswith(".zip") or os.path.isfile(what):  # noqa: PTH113 - no error for what can't be a name
        pack = read_pack(Path(what))
        name = pack.record["decision_id"]
        checks = check_pack(pack, trust_signer=trust_signer, settings_home=resolve().home)
    else:
        home = existing_home()
        raw, record = find_record(home, what)
        name = record["decision_id"]
        checks = verify_record(home.log, home.agent.control(), raw, record)
    good = all(check.ok for check in checks)
    if json_:
        out_json(
            {
                "decision_id": name,
                "verified": good,
                "checks": [{"name": c.name, "ok": c.ok, "detail": c.detail} for c in checks],
            }
        )
        return 0 if good else 3
    out(f"decision {name}: {'verified' if good else 'NOT VERIFIED'}")
    for check in checks:
        told = f"{check.name}: {check.detail}" if check.detail else check.name
        out(f"  {'ok    ' if check.ok else 'FAILED'} {one_line(told)}")
    return 0 if good else 3


def _all(json_: bool) -> int:
    from lumyn.wiring import existing_home
    from streams.verify import verify_all

    home = existing_home()
    count, bad = 0, []
    for name, checks in verify_all(home.log, home.agent.control(), home.settings.tenant):
        count += 1
        failed = [check for check in checks if not check.ok]
        if failed:
            bad.append({"decision_id": name, "failed": [{"name": c.name, "detail": c.detail} for c in failed]})
            say(one_line(f"{name}: " + "; ".join(f"{c.name} failed ({c.detail})" for c in failed)))
    if json_:
        out_json({"verified": not bad, "decisions": count, "failed": bad})
    else:
        out(f"{count} decisions, {count - len(bad)} verified, {len(bad)} not")
    return 3 if bad else 0
