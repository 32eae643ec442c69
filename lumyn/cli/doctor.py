"""`lumyn doctor`: is everything there that deciding needs, and how is it mended?"""

from __future__ import annotations

import typer

from lumyn.cli.output import one_line, out, out_json


def doctor(
    json_: bool = typer.Option(False, "--json", help="Print as JSON."),
    timeout: float = typer.Option(10.0, "--timeout", min=0.1, help="Seconds that a service may take for an answer."),
) -> int:
    """Look at settings, packages, the home, and the log with all that is derived from it; over Kafka at brokers,
    topics, permissions, workers and Qdrant. Says how to mend what is wrong, and changes nothing itself.

    \b
    Examples: lumyn doctor
              lumyn doctor --json
    Exit 0: nothing fails (there may be warnings). 4: a service is unreachable. 1: something else fails.
    """
    from lumyn.doctor import examine, exit_code

    findings = []
    for finding in examine(timeout_s=timeout):
        findings.append(finding)
        if not json_:
            out(f"{finding.status:<4}  {finding.part}: {one_line(finding.what)}")
            if finding.mend:
                out(f"      mend: {one_line(finding.mend)}")
    if json_:
        out_json({"ok": exit_code(findings) == 0, "findings": [finding.as_dict() for finding in findings]})
    return exit_code(findings)
