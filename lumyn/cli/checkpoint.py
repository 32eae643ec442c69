"""`lumyn checkpoint`: sign what the log holds, so that rewriting it shows."""

from __future__ import annotations

import typer

from lumyn.cli.output import out, out_json, say


def checkpoint(json_: bool = typer.Option(False, "--json", help="Print as JSON.")) -> None:
    """Sign what the log holds and no checkpoint covers yet: requests with what became of them, control, labels, ledger.

    \b
    Example: lumyn checkpoint
    Prints the head of the chain. Note it down elsewhere: `lumyn verify --head DIGEST` later finds a log that was
    rewritten or cut together with its checkpoints. On Kafka the index worker makes checkpoints.
    """
    from lumyn.checkpointing import home_chain, home_checkpointer
    from lumyn.cli.new_key import telling_new_key
    from lumyn.wiring import existing_home
    from schemas.errors import UsageError
    from streams.reading import is_embedded

    home = existing_home()
    if not is_embedded(home.log):
        raise UsageError("on Kafka the index worker makes the checkpoints", help="`lumyn worker index` runs one")
    with telling_new_key(home):
        made = home_checkpointer(home).run()
    chain = home_chain(home, check_leaves=False)
    covered = sum(one.statement["count"] for one in made)
    if json_:
        out_json({"made": [one.statement for one in made], "head": chain.last_digest, "last": chain.last})
        return
    say(f"{len(made)} checkpoint{'' if len(made) == 1 else 's'} made, covering {covered} more messages")
    if chain.last is not None:
        out(f"{chain.last['number']} {chain.last_digest}")
