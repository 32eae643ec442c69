"""`lumyn explain`: why a decision came out as it did, and what would have altered it."""

from __future__ import annotations

import typer

from lumyn.cli.output import out, out_json, say


def explain(
    decision: str = typer.Argument(
        ..., metavar="ID", help="A decision id, a unique prefix, `01JBQX8P2M...`, or a pack (PACK.zip)."
    ),
    counterfactual: bool = typer.Option(
        False, "--counterfactual", help="The nearest changes that would have altered the verdict."
    ),
    to: str | None = typer.Option(None, "--to", metavar="VERDICT", help="Only changes that lead to this verdict."),
    limit: int = typer.Option(5, "--limit", min=1, max=100, help="How many changes to show."),
    memory: str | None = typer.Option(
        None, "--memory", help="as-of (default where the decision is of this home): ask it again; recorded: do not."
    ),
    trust_signer: bool = typer.Option(False, "--trust-signer", help="Accept a pack by a key not known here."),
    json_: bool = typer.Option(False, "--json", help="Print as JSON."),
) -> None:
    """Explain a decision in plain English, from its record alone; or find what would have altered it.

    \b
    Examples: lumyn explain 01JBQX8P2M...
              lumyn explain incident.zip --json
              lumyn explain 01JBQX8P2M... --counterfactual --to ALLOW
    Every change that is shown was decided again in full.
    """
    from lumyn.explaining import counterfactual as altered
    from lumyn.explaining import to_explain
    from schemas.errors import UsageError
    from streams.explain import explain_record
    from streams.explain_facts import explain_facts

    if not counterfactual and (to is not None or memory is not None):
        raise UsageError("`--to` and `--memory` go with `--counterfactual`")
    what = to_explain(decision, trust_signer=trust_signer)
    if not counterfactual:
        if json_:
            out_json(explain_facts(what.record))
        else:
            out(explain_record(what.record))
        return
    told = altered(what, wanted=to, limit=limit, memory=memory)
    if json_:
        out_json(told)
        return
    for line in told["text"]:
        if line.startswith(("note: ", "tried: ")):
            say(line)
        else:
            out(line)
