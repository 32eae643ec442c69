"""The command table. A command's module is imported when it is called, so that `--help` is quick."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from copy import copy
from typing import Any

import typer

from lumyn.cli import (
    backfill,
    backtest,
    checkpoint,
    dead_letters,
    decide,
    demo,
    diff,
    doctor,
    explain,
    export,
    gameday,
    inbox,
    incident,
    incident_export,
    incident_redact,
    incident_report,
    incident_show,
    incident_write,
    index,
    keys,
    kill_switch,
    label,
    ledger,
    list_,
    memory,
    memory_explain,
    memory_forget,
    memory_jobs,
    memory_suspects,
    memory_switch,
    memory_trust,
    policy,
    policy_shadow,
    rate,
    rate_changes,
    redrive,
    relabel,
    replay,
    runbook,
    serve,
    show,
    topics,
    verify,
    watch,
    watch_queries,
    worker,
)
from lumyn.cli.output import one_line, say

app = typer.Typer(
    name="lumyn",
    help="Gate what AI agents want to do: decide, record, replay, label, and decide differently next time.",
    add_completion=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.command("decide")(decide.decide)
app.command("show")(show.show)
app.command("list")(list_.list_)
app.command("explain")(explain.explain)
app.command("export")(export.export)
app.command("replay")(replay.replay)
app.command("label")(label.label)
app.command("diff")(diff.diff)
app.command("backtest")(backtest.backtest)
app.command("backfill")(backfill.backfill)
app.command("verify")(verify.verify)
app.command("relabel")(relabel.relabel)
app.command("redrive")(redrive.redrive)
app.command("checkpoint")(checkpoint.checkpoint)
app.command("demo")(demo.demo)
app.command("serve")(serve.serve)
app.command("dev")(serve.dev)
app.command("doctor")(doctor.doctor)
policy.app.command("shadow")(policy_shadow.shadow)
app.add_typer(policy.app, name="policy")
app.add_typer(kill_switch.app, name="kill-switch")
for _job in (memory_jobs.quarantine, memory_jobs.release, memory_jobs.rollback):
    memory.app.command(_job.__name__)(_job)
memory.app.command("explain")(memory_explain.explain)
memory.app.command("switch")(memory_switch.switch)
memory.app.command("trust")(memory_trust.trust)
for _of_subjects in (memory_forget.forget, memory_forget.hold):
    memory.app.command(_of_subjects.__name__)(_of_subjects)
memory.app.command("suspects")(memory_suspects.suspects)
app.add_typer(gameday.app, name="gameday")
app.add_typer(ledger.app, name="ledger")
app.add_typer(memory.app, name="memory")
rate.app.command("changes")(rate_changes.changes)
app.add_typer(rate.app, name="rate")
for _name, _of_watches in (
    ("add", watch_queries.add), ("list", watch_queries.list_), ("show", watch_queries.show),
    ("remove", watch_queries.remove), ("check", watch_queries.check), ("run", watch_queries.run),
):  # fmt: skip
    watch.app.command(_name)(_of_watches)
app.add_typer(watch.app, name="watch")
app.add_typer(inbox.app, name="inbox")
app.add_typer(index.app, name="index")
for _of_incidents in (
    incident_show.show, incident_show.search, incident_write.write, incident_write.action, incident_report.monitor,
    incident_report.postmortem, incident_export.export, incident_redact.redact,
):  # fmt: skip
    incident.app.command(_of_incidents.__name__)(_of_incidents)
app.add_typer(incident.app, name="incident")
app.add_typer(runbook.app, name="runbook")
app.add_typer(keys.app, name="keys")
app.add_typer(dead_letters.app, name="dead-letters")
app.add_typer(topics.app, name="topics")
app.add_typer(worker.app, name="worker")


@app.callback(invoke_without_command=True)
def root(
    context: typer.Context,
    version: bool = typer.Option(False, "--version", help="Print the version."),
) -> None:
    """Say the version, or go on to the command."""
    if version:
        from lumyn import __version__

        typer.echo(f"lumyn-streams {__version__}")
        raise typer.Exit
    if context.invoked_subcommand is None:
        typer.echo(context.get_help())


def run(arguments: Sequence[str] | None = None) -> int:
    """Run the command line, or these arguments; returns the exit code. Usage errors are exit 2.

    The command is invoked without click's own `main`, which turns Ctrl-C into a silent exit and a broken pipe into
    exit 1. Its errors are known by what they do: newer versions of typer bring classes of their own.
    """
    words = list(sys.argv[1:] if arguments is None else arguments)
    command = typer.main.get_command(_only(app, words))
    try:
        with command.make_context("lumyn", words) as context:
            result = command.invoke(context)
    except typer.Exit as stop:
        return stop.exit_code
    except typer.Abort:
        raise KeyboardInterrupt from None
    except Exception as error:
        if not hasattr(error, "format_message"):
            raise
        return _misused(error)
    return result if isinstance(result, int) else 0


def _only(whole: typer.Typer, words: Sequence[str]) -> typer.Typer:
    """The command line without the commands that the words do not call, where they begin with a command's name.

    To make all hundred of them takes longer than most commands do.
    """
    commands = [one for one in whole.registered_commands if words and one.name == words[0]]
    groups = [one for one in whole.registered_groups if words and one.name == words[0]]
    if not commands and not groups:
        return whole
    less = copy(whole)
    less.registered_commands, less.registered_groups = commands, [copy(one) for one in groups]
    for group in less.registered_groups:
        assert group.typer_instance is not None
        group.typer_instance = _only(group.typer_instance, words[1:])
    return less


def _misused(error: Any) -> int:
    context, message = getattr(error, "ctx", None), error.format_message()
    name = context.command_path if context else "lumyn"
    if context is not None and type(error).__name__ == "NoArgsIsHelpError":
        say(context.get_help())
        return 2
    parts = message.rstrip(".").split("': ", 1)  # what is wrong, and what the library that checks values says of it
    said = "': ".join(part[:1].lower() + part[1:] for part in parts)
    say(f"{name}: {one_line(said)}\n  help: `{name} --help`")
    return 2
