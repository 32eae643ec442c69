"""`lumyn worker`: the processes that work over Kafka, each until it is told to stop."""

from __future__ import annotations

import signal
from collections.abc import Callable
from pathlib import Path
from typing import Protocol

import typer

app = typer.Typer(
    help="Run a worker over Kafka until SIGTERM or Ctrl-C.", no_args_is_help=True, rich_markup_mode=None
)
_METRICS = typer.Option(0, "--metrics-port", min=0, max=65535, help="Serve Prometheus metrics there; 0: don't.")
_HOST = typer.Option("127.0.0.1", "--metrics-host", help="The address that metrics are served on.")
_LOG = typer.Option("info", "--log", help="What goes to stderr as JSON lines: debug (every decision), info, quiet.")


class _Runs(Protocol):
    def run(self) -> None: ...

    def stop(self) -> None: ...


@app.command("decide")
def decide(
    policy: Path | None = typer.Option(None, "--policy", help="Decides while no policy is active."),
    metrics_port: int = _METRICS,
    metrics_host: str = _HOST,
    log: str = _LOG,
) -> None:
    """Decide requests; run as many as there are partitions, at most.

    \b
    Example: LUMYN_KAFKA=localhost:9092 lumyn worker decide --metrics-port 9464
    """
    from lumyn.collector import collect_seldom
    from lumyn.config import LumynConfig
    from lumyn.observing import make_observer
    from lumyn.workers import decide_worker, worker_settings

    settings = worker_settings(LumynConfig(policy_path=policy))
    observer = make_observer("decide", log, metrics_host, metrics_port)
    worker = decide_worker(settings, observer)
    collect_seldom()
    _run(worker)


@app.command("labels")
def labels(metrics_port: int = _METRICS, metrics_host: str = _HOST, log: str = _LOG) -> None:
    """Sequence labels and keep the memory; one is enough, a second takes over.

    \b
    Example: LUMYN_KAFKA=localhost:9092 LUMYN_QDRANT=http://localhost:6333 lumyn worker labels
    """
    from lumyn.observing import make_observer
    from lumyn.workers import label_worker, worker_settings

    settings = worker_settings()
    observer = make_observer("labels", log, metrics_host, metrics_port)
    _until_stopped(lambda: label_worker(settings, observer))


@app.command("index")
def index(metrics_port: int = _METRICS, metrics_host: str = _HOST, log: str = _LOG) -> None:
    """Keep the record index, and sign checkpoints over what was decided; one is enough.

    \b
    Example: LUMYN_KAFKA=localhost:9092 LUMYN_QDRANT=http://localhost:6333 lumyn worker index
    """
    from lumyn.observing import make_observer
    from lumyn.workers import index_worker, worker_settings

    settings = worker_settings()
    observer = make_observer("index", log, metrics_host, metrics_port)
    _until_stopped(lambda: index_worker(settings, observer))


@app.command("shadow")
def shadow(
    partitions: str | None = typer.Option(None, "--partitions", help="Only these, such as `0,1,2`; default: all."),
    metrics_port: int = _METRICS,
    metrics_host: str = _HOST,
    log: str = _LOG,
) -> None:
    """Evaluate candidates of `lumyn policy shadow` on live decisions; one is enough, a second takes over.

    \b
    Example: LUMYN_KAFKA=localhost:9092 lumyn worker shadow
    """
    from lumyn.observing import make_observer
    from lumyn.workers import shadow_worker, worker_settings
    from schemas.errors import UsageError

    chosen = None
    if partitions is not None:
        try:
            chosen = [int(part) for part in partitions.split(",")]
        except ValueError:
            raise UsageError("`--partitions` takes numbers such as `0,1,2`") from None
    settings = worker_settings()
    observer = make_observer("shadow", log, metrics_host, metrics_port)
    _until_stopped(lambda: shadow_worker(settings, observer, chosen))


def _until_stopped(make: Callable[[], _Runs]) -> None:
    from lumyn.collector import collect_seldom

    worker = make()
    collect_seldom()
    for name in (signal.SIGTERM, signal.SIGINT):
        signal.signal(name, lambda *_: worker.stop())
    _run(worker)


def _run(worker: _Runs) -> None:
    try:
        worker.run()
    finally:
        for name in (signal.SIGTERM, signal.SIGINT):  # it is ending: one more must not make another end of it
            signal.signal(name, signal.SIG_IGN)
