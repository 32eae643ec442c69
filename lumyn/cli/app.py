"""The command table. A command's module is imported when it is called, so that `--help` is quick."""

from __future__ import annotations

import sys

import click
import typer

from lumyn.cli import (
    decide,
    demo,
    dev,
    diff,
    export,
    index,
    keys,
    label,
    list_,
    memory,
    policy,
    replay,
    show,
    verify,
)

app = typer.Typer(
    name="lumyn",
    help="Gate what AI agents want to do: decide, record, replay, label, and decide differently next time.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.command("decide")(decide.decide)
app.command("show")(show.show)
app.command("list")(list_.list_)
app.command("explain")(show.explain)
app.command("export")(export.export)
app.command("replay")(replay.replay)
app.command("label")(label.label)
app.command("diff")(diff.diff)
app.command("verify")(verify.verify)
app.command("demo")(demo.demo)
app.command("dev")(dev.dev)
app.add_typer(policy.app, name="policy")
app.add_typer(policy.switch_app, name="kill-switch")
app.add_typer(memory.app, name="memory")
app.add_typer(index.app, name="index")
app.add_typer(keys.app, name="keys")


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


def run() -> int:
    """Run the command line; returns the exit code. Usage errors are exit 2."""
    try:
        result = app(standalone_mode=False)
    except click.exceptions.Exit as stop:
        return stop.exit_code
    except click.exceptions.Abort:
        raise KeyboardInterrupt from None
    except click.UsageError as error:
        command = error.ctx.command_path if error.ctx else "lumyn"
        message = error.format_message()
        sys.stderr.write(f"{command}: {message[:1].lower()}{message[1:].rstrip('.')}\n  help: `{command} --help`\n")
        return 2
    except click.ClickException as error:
        sys.stderr.write(f"lumyn: {error.format_message()}\n")
        return 2
    return result if isinstance(result, int) else 0
