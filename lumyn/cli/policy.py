"""`lumyn policy`: what is published, what is active."""

from __future__ import annotations

from pathlib import Path

import typer

from lumyn.cli.output import out, out_json, say, table

app = typer.Typer(help="Check, publish, activate and roll back policies.", no_args_is_help=True, rich_markup_mode=None)


@app.command("check")
def check(
    file: Path = typer.Argument(..., metavar="FILE", help="The policy file."),
    json_: bool = typer.Option(False, "--json", help="Print as JSON."),
) -> int:
    """Check a policy file: all errors at once, with line and column, and warnings.

    \b
    Example: lumyn policy check policy.yml
    """
    from lumyn.collector import collector_paused
    from lumyn.config import read_policy_file
    from streams.policy import check_policy

    with collector_paused():
        report = check_policy(read_policy_file(file), name=str(file))
    if json_:
        out_json({"valid": report.policy is not None, "errors": list(report.errors), "warnings": list(report.warnings)})
        return 0 if report.policy is not None else 2
    for line in report.errors:
        out(line)
    for line in report.warnings:
        out(f"{line} (warning)")
    if report.policy is None:
        count = len(report.errors)
        say(f"{count} error{'' if count == 1 else 's'}")
        return 2
    policy = report.policy
    say(
        f"{policy.name}@{policy.version}: {len(policy.rules)} rules, valid\npolicy_hash: {policy.policy_hash}\n"
        f"ir_hash: {policy.ir_hash}"
    )
    return 0


@app.command("show")
def show(
    name: str = typer.Argument(..., metavar="FILE | NAME[@VERSION]", help="A file, or a published policy."),
    compiled: bool = typer.Option(False, "--compiled", help="Print the Python that it is compiled to."),
    json_: bool = typer.Option(False, "--json", help="Print hashes and rules as JSON."),
) -> None:
    """Show a policy: its source, or what it is compiled to.

    \b
    Example: lumyn policy show policy.yml --compiled
    """
    from lumyn.policy_file import load_policy_file
    from lumyn.wiring import existing_home

    if Path(name).is_file():
        policy = load_policy_file(Path(name))
    else:
        bare, _, version = name.partition("@")
        control = existing_home().agent.control()
        policy = control.compiled(control.find(bare, version or None).hash)
    if json_:
        out_json(
            {
                "name": policy.name,
                "version": policy.version,
                "policy_hash": policy.policy_hash,
                "ir_hash": policy.ir_hash,
                "rules": [r.id for r in policy.rules],
            }
        )
    elif compiled:
        out(policy.python_source.rstrip())
    else:
        out(policy.source.decode("utf-8").rstrip())


@app.command("publish")
def publish(
    file: Path = typer.Argument(..., metavar="FILE", help="The policy file."),
    json_: bool = typer.Option(False, "--json", help="Print as JSON."),
) -> None:
    """Publish a policy document, so that it can be activated. The same name@version never changes content.

    \b
    Example: lumyn policy publish policy.yml
    """
    from lumyn import policies
    from lumyn.policy_file import load_policy_file
    from lumyn.wiring import operator_home

    policy = load_policy_file(file)
    policies.publish(operator_home(), policy)
    _tell("published", policy.name, policy.version, policy.policy_hash, json_)


@app.command("activate")
def activate(
    name: str = typer.Argument(..., metavar="NAME[@VERSION]", help="A published policy; default: its latest version."),
    why: str = typer.Option("", "--why", help="The reason, for the audit trail."),
    json_: bool = typer.Option(False, "--json", help="Print as JSON."),
) -> None:
    """Make a published policy the one that decides.

    \b
    Example: lumyn policy activate refunds@4.1.0 --why "limit raised"
    """
    from lumyn import policies
    from lumyn.wiring import existing_home

    bare, _, version = name.partition("@")
    chosen = policies.activate(existing_home(), bare, version or None, why)
    _tell("active:", chosen.name, chosen.version, chosen.hash, json_)


@app.command("rollback")
def rollback(
    name: str = typer.Argument(..., metavar="NAME", help="The policy."),
    why: str = typer.Option("", "--why", help="The reason, for the audit trail."),
    json_: bool = typer.Option(False, "--json", help="Print as JSON."),
) -> None:
    """Go back to the policy that was active before.

    \b
    Example: lumyn policy rollback refunds --why "blocks too much"
    """
    from lumyn import policies
    from lumyn.wiring import existing_home

    chosen = policies.roll_back(existing_home(), name, why)
    _tell("active:", chosen.name, chosen.version, chosen.hash, json_)


def _tell(what: str, name: str, version: str, hash_: str, json_: bool) -> None:
    if json_:
        out_json({"name": name, "version": version, "hash": hash_})
    else:
        out(f"{what} {name}@{version} {hash_}")


@app.command("list")
def list_(json_: bool = typer.Option(False, "--json", help="Print as JSON.")) -> None:
    """List published policies; a star marks the active ones.

    \b
    Example: lumyn policy list
    """
    from lumyn.wiring import existing_home

    control = existing_home().agent.control()
    rows = [(p, control.active.get(p.name) == p.hash) for p in control.policies.values()]
    if json_:
        out_json(
            [
                {"name": p.name, "version": p.version, "hash": p.hash, "origin": p.origin, "at": p.at, "active": active}
                for p, active in rows
            ]
        )
        return
    out(
        table(
            ("", "policy", "hash", "published", "origin"),
            [
                ("*" if active else "", f"{p.name}@{p.version}", p.hash[:23], p.at[:19] + "Z", p.origin)
                for p, active in rows
            ],
        )
    )
