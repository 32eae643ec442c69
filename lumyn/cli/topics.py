"""`lumyn topics`: the Kafka topics of a prefix."""

from __future__ import annotations

import typer

from lumyn.cli.output import out, out_json

app = typer.Typer(help="The Kafka topics.", no_args_is_help=True, rich_markup_mode=None)


@app.command("create")
def create(
    partitions: int = typer.Option(8, "--partitions", help="Of requests, records, receipts and shadow. Never changes."),
    replication: int = typer.Option(1, "--replication", min=1, help="Copies of each; 3 in production."),
    fix: bool = typer.Option(False, "--fix", help="Also set what settings of existing topics differ."),
    json_: bool = typer.Option(False, "--json", help="Print as JSON."),
) -> None:
    """Create the topics that are missing; `lumyn doctor` says what differs in those that exist.

    \b
    Example: LUMYN_KAFKA=localhost:9092 lumyn topics create --partitions 8 --replication 3
    """
    from lumyn.kafka_log import kafka_log
    from lumyn.workers import worker_settings
    from streams.kafka.topics import create_topics, fix_topics

    settings = worker_settings()
    log = kafka_log(settings)
    made = create_topics(log.client, settings.prefix, partitions, replication)
    changed = fix_topics(log.client, settings.prefix) if fix else []
    log.close()
    if json_:
        out_json({"created": made, "changed": changed})
        return
    for name in made:
        out(f"created {name}")
    for change in changed:
        out(f"set {change}")
    if not made and not changed:
        out("all topics are there")
