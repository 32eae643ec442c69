"""`lumyn demo`: the incident story on real agent actions, told with the real commands."""

from __future__ import annotations

import json
import os
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from contextlib import chdir
from pathlib import Path
from typing import Any

import typer

from lumyn.cli.output import clean, table


def demo(
    keep: Path | None = typer.Option(None, "--keep", help="Keep the demo's home in this folder, to look around."),
) -> int:
    """Tell the incident story in under a minute: decide, an incident, replay, label, decide otherwise.

    The requests are write actions that a gpt-4o airline agent took in recorded conversations (tau-bench, MIT).

    \b
    Example: lumyn demo --keep my-demo
    """
    data = _data_folder()
    with tempfile.TemporaryDirectory(prefix="lumyn-demo-") as temporary:
        folder = (keep or Path(temporary)).absolute()
        folder.mkdir(parents=True, exist_ok=True)
        os.environ.update(LUMYN_HOME=str(folder / ".lumyn"), LUMYN_POLICY=str(data / "policy.yml"), LUMYN_ACTOR="demo")
        started = time.monotonic()
        with chdir(folder):
            _Story(data).tell()
        _print(f"\nThat took {time.monotonic() - started:.1f} s.")
        if keep is not None:
            _print(f"Look around: export LUMYN_HOME={folder / '.lumyn'}; lumyn list")
    return 0


_CANDIDATE = "candidate_policy.yml"


class _Story:
    """The story, chapter by chapter; every line that starts with `$` was run."""

    def __init__(self, data: Path) -> None:
        self._data = data
        self._requests = {r["request_id"]: r for r in map(json.loads, _lines(data / "requests.jsonl"))}
        self._outcomes = {o["request_id"]: o for o in map(json.loads, _lines(data / "outcomes.jsonl"))}
        self._plot = json.loads((data / "story.json").read_text(encoding="utf-8"))
        self._records: dict[str, Any] = {}

    def tell(self) -> None:
        """All chapters."""
        self._record()
        self._incident()
        self._learn(
            self._plot["incident"], "3. Label it: memory learns, and the agent's later tries are decided otherwise"
        )
        self._false_positive()
        self._candidate()
        self._proof()

    def _record(self) -> None:
        from lumyn import decide_many
        from schemas.errors import LumynError

        _title(
            f"1. Record: {len(self._requests)} actions that an airline's agent wants to do, each decided by policy.yml"
        )
        records = decide_many(list(self._requests.values()))
        for record in records:
            if isinstance(record, LumynError):
                raise record
            self._records[record["request_id"] or ""] = record
        _command("export", "--limit", "100", "--out", "decisions.jsonl", show=False)
        counts = Counter((r["request"]["action"]["type"], r["verdict"]) for r in self._records.values())
        verdicts = ("ALLOW", "ESCALATE", "ABSTAIN", "DENY")
        actions = sorted({action for action, _ in counts})
        _print(table(("action", *verdicts), [(a, *(str(counts[a, v] or ".") for v in verdicts)) for a in actions]))

    def _incident(self) -> None:
        plot = self._plot["incident"]
        record = self._records[plot["request_id"]]
        _title("2. An incident: this was allowed, and should not have been")
        _print(clean(plot["why"]))
        short = record["decision_id"][:20] + "..."
        _command("explain", short)
        _command("export", short, "--pack", "--out", "incident.zip")
        _command("replay", "incident.zip")

    def _learn(self, plot: dict[str, Any], title: str) -> None:
        _title(title)
        record = self._records[plot["request_id"]]
        _command("label", record["decision_id"][:20] + "...", "--label", plot["label"], "--summary", plot["summary"])
        names = [*plot["repeats"], *plot["unharmed"]]
        again = self._again(names)
        _print("The same requests once more, as new decisions:")
        _print(
            table(
                ("request", "before", "now", "because"),
                [
                    (name, self._records[name]["verdict"], now["verdict"], ", ".join(now["reason_codes"]))
                    for name, now in zip(names, again, strict=True)
                ],
            )
        )
        _print(clean("Unharmed: " + plot["unharmed_why"]))

    def _again(self, names: Sequence[str]) -> list[Any]:
        """Without its request_id a request is a new decision, not a retry."""
        from lumyn import decide_many

        return decide_many([{k: v for k, v in self._requests[n].items() if k != "request_id"} for n in names])

    def _false_positive(self) -> None:
        plot = self._plot["false_positive"]
        self._learn(plot, "4. The other way: a customer was denied wrongly")

    def _candidate(self) -> None:
        _title("5. A better policy, tried on what was decided before it ships")
        candidate = str(self._data / _CANDIDATE)
        _command(
            "diff",
            "decisions.jsonl",
            "--policy",
            candidate,
            expect=(0, 1),
            head=4,
            tail=6,
            shown=_CANDIDATE,
        )
        _command(
            "replay",
            "incident.zip",
            "--policy",
            candidate,
            "--memory",
            "recorded",
            expect=(0, 1),
            only=("verdict", "reason_codes", "Changed by"),
            shown=_CANDIDATE,
        )

    def _proof(self) -> None:
        _title("6. Proof: every record is checked and decided again from its recorded inputs")
        _command("verify")


def _command(
    *arguments: str,
    expect: Sequence[int] = (0,),
    head: int | None = None,
    tail: int = 0,
    show: bool = True,
    only: Sequence[str] = (),
    shown: str | None = None,
) -> None:
    """Run a `lumyn` command in this process and print what it prints, shortened if asked."""
    import contextlib
    import io

    from lumyn.cli.app import app
    from schemas.errors import IntegrityError

    words = [shown if shown and Path(a).name == shown else a for a in arguments]
    if show:
        _print("\n$ lumyn " + " ".join(f"'{w}'" if " " in w else w for w in words))
    buffer = io.TextIOWrapper(io.BytesIO(), encoding="utf-8", write_through=True)
    talk = contextlib.nullcontext() if show else contextlib.redirect_stderr(io.StringIO())
    with contextlib.redirect_stdout(buffer), talk:
        code = app(list(arguments), standalone_mode=False) or 0
    buffer.seek(0)
    text = [line for line in buffer.read().splitlines() if not only or line.startswith(tuple(only))]
    if head is not None and len(text) > head + tail:
        text = [*text[:head], f"... {len(text) - head - tail} more lines ...", *text[len(text) - tail :]]
    if show:
        _print("\n".join(text))
    if code not in expect:
        raise IntegrityError(f"the demo's `lumyn {arguments[0]}` ended with exit code {code}")


def _title(text: str) -> None:
    if sys.stdout.isatty():
        text = f"\033[1m{text}\033[0m"
    _print("\n" + text)


def _print(text: str) -> None:
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


def _lines(path: Path) -> list[str]:
    return path.read_text(encoding="utf-8").splitlines()


def _data_folder() -> Path:
    """`examples/airline` of the checkout, or the copy that the installed package carries."""
    import lumyn
    from schemas.errors import NotFound

    package = Path(lumyn.__file__).parent
    for folder in (package.parent / "examples" / "airline", package / "demo_data"):
        if (folder / "story.json").exists():
            return folder
    raise NotFound("the demo's data is not installed", help="run it from a checkout: `make demo`")
