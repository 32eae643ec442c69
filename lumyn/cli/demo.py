"""`lumyn demo`: from an incident to what was learnt, on real agent actions, told with the real commands."""

from __future__ import annotations

import json
import os
import shlex
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from contextlib import chdir
from pathlib import Path
from typing import Any

import typer

from lumyn.cli.output import table
from lumyn.cli.telling import command, recorded, tell, title


def demo(
    keep: Path | None = typer.Option(None, "--keep", help="Keep the demo's home in this folder, to look around."),
) -> int:
    """Tell the whole story in seconds: an incident, its rate, labels, a better policy, a game day, a postmortem.

    The requests are write actions that a gpt-4o airline agent took in recorded conversations (tau-bench, MIT).

    \b
    Example: lumyn demo --keep my-demo
    """
    from schemas.errors import UsageError

    data = _data_folder()
    if keep is not None and (keep / ".lumyn").exists():
        raise UsageError("there is a home in it already", where=str(keep), help="`--keep` takes a new folder")
    with tempfile.TemporaryDirectory(prefix="lumyn-demo-") as temporary:
        folder = (keep or Path(temporary)).absolute()
        folder.mkdir(parents=True, exist_ok=True)
        os.environ.update(LUMYN_HOME=str(folder / ".lumyn"), LUMYN_POLICY=str(data / "policy.yml"), LUMYN_ACTOR="demo")
        started = time.monotonic()
        with chdir(folder):
            _Story(data).tell()
        tell(f"\nThat took {time.monotonic() - started:.1f} s.")
        if keep is not None:
            tell(f"Look around: cd {keep}; export LUMYN_HOME={folder / '.lumyn'}; lumyn serve --dev")
            tell("and in a browser: http://127.0.0.1:8700/console/incidents/INC-1")
        else:
            tell("To look at it in the console: `lumyn demo --keep my-demo`, and `lumyn serve --dev` as it then says.")
    return 0


_CANDIDATE = "candidate_policy.yml"
_SCENARIO = "gamedays/inc-1.yml"
_REPORT = "airline-1.1"


class _Story:
    """The story, chapter by chapter; every line that starts with `$` was run."""

    def __init__(self, data: Path) -> None:
        self._data = data
        self._candidate = str(data / _CANDIDATE)
        self._requests = {r["request_id"]: r for r in map(json.loads, _lines(data / "requests.jsonl"))}
        self._plot = json.loads((data / "story.json").read_text(encoding="utf-8"))
        self._records: dict[str, Any] = {}

    def tell(self) -> None:
        """All chapters."""
        self._record()
        self._incident()
        self._rate()
        self._open()
        self._learn("incident", "5. Label it: memory learns, and the agent's later tries are decided otherwise")
        self._learn("false_positive", "6. The other way: a customer was denied wrongly")
        self._better()
        self._gameday()
        self._postmortem()
        title("10. Proof: every record is checked and decided again from its recorded inputs")
        command("verify")

    def _record(self) -> None:
        from lumyn import decide_many
        from schemas.errors import LumynError

        title(f"1. Record: {len(self._requests)} actions that an airline's agent wants to do, decided by policy.yml")
        records = decide_many(list(self._requests.values()))
        for record in records:
            if isinstance(record, LumynError):
                raise record
            self._records[record["request_id"] or ""] = record
        counts = Counter((r["request"]["action"]["type"], r["verdict"]) for r in self._records.values())
        verdicts = ("ALLOW", "ESCALATE", "ABSTAIN", "DENY")
        actions = sorted({action for action, _ in counts})
        tell(table(("action", *verdicts), [(a, *(str(counts[a, v] or ".") for v in verdicts)) for a in actions]))

    def _short(self, request_id: str) -> str:
        return str(self._records[request_id]["decision_id"])[:20] + "..."

    def _incident(self) -> None:
        plot = self._plot["incident"]
        title("2. An incident: this was allowed, and should not have been")
        recorded(plot["why"])
        short = self._short(plot["request_id"])
        command("explain", short)
        command("export", short, "--pack", "--out", "incident.zip")
        command("replay", "incident.zip", only=("verdict", "reason_codes", "Replay"))

    def _rate(self) -> None:
        plot = self._plot["rate"]
        title("3. The gate decides the same again. The agent does not: it is a rate")
        recorded(plot["why"])
        python = Path(sys.executable)
        os.environ["PATH"] = f"{python.parent}{os.pathsep}{os.environ['PATH']}"
        agent = f"{python.name} {shlex.quote(str(self._data / 'recorded_agent.py'))} {plot['agent']}"
        command(
            "rate", "--pack", "incident.zip", "--runs", str(plot["runs"]), "--parallel", "1", "--all-runs",
            "--command", agent, shown={agent: f"python recorded_agent.py {plot['agent']}"}, head=9,
        )  # fmt: skip
        tell("In all traffic, how often was such a refund let through?")
        command("rate", "--query", plot["query"], "--bad", plot["bad"], talk=False, only=("`",))

    def _open(self) -> None:
        plot, rate = self._plot["incident"], self._plot["rate"]
        title("4. The incident is kept, with what belongs to it")
        sample = json.loads(command("rate", "list", "--json", show=False))[0]["rate_id"]
        command(
            "incident", "open", "--title", plot["title"], "--severity", "2",
            "--decision", self._short(plot["request_id"]), "--query", f"{rate['query']} AND {rate['bad']}",
        )  # fmt: skip
        command("incident", "add", "INC-1", "--rate", sample, "--pack", "incident.zip")

    def _learn(self, name: str, heading: str) -> None:
        plot = self._plot[name]
        title(heading)
        short = self._short(plot["request_id"])
        command("label", short, "--label", plot["label"], "--summary", plot["summary"])
        names = [*plot["repeats"], *plot["unharmed"]]
        again = self._again(names)
        tell("The same requests once more, as new decisions:")
        tell(
            table(
                ("request", "before", "now", "because"),
                [
                    (name, self._records[name]["verdict"], now["verdict"], ", ".join(now["reason_codes"]))
                    for name, now in zip(names, again, strict=True)
                ],
            )
        )
        recorded("Unharmed: " + plot["unharmed_why"])

    def _again(self, names: Sequence[str]) -> list[Any]:
        """Without its request_id a request is a new decision, not a retry."""
        from lumyn import decide_many

        return decide_many([{k: v for k, v in self._requests[n].items() if k != "request_id"} for n in names])

    def _better(self) -> None:
        title("7. A better policy, held against what was decided before it ships")
        shown = {self._candidate: _CANDIDATE}
        command(
            "backtest", "--policy", self._candidate,
            "--require", "flips.to_ALLOW == 0", "--require", "failures_caught >= baseline", "--keep", _REPORT,
            shown=shown, head=24, talk=False,
        )  # fmt: skip
        command("incident", "add", "INC-1", "--backtest", f".lumyn/reports/default/{_REPORT}.html")
        command("policy", "publish", self._candidate, shown=shown)
        command("policy", "activate", "airline", "--why", "flown flights are not refunded, INC-1")

    def _gameday(self) -> None:
        title("8. A game day proves it: the incident again, under load, repeats and an outage, by the rules alone")
        command(
            "gameday", "from-incident", "INC-1", "--out", _SCENARIO, "--no-memory", "--faults",
            "--expect", self._plot["gameday"]["expect"],
        )  # fmt: skip
        command("gameday", "run", _SCENARIO, talk=False)

    def _postmortem(self) -> None:
        plot = self._plot["postmortem"]
        title("9. The postmortem, from evidence; what people know beside it is kept, too")
        command("incident", "write", "INC-1", "--section", "cause", "--text", plot["cause"])
        command("incident", "action", "INC-1", "--text", plot["action"], "--owner", "gate team", talk=False)
        command(
            "incident", "postmortem", "INC-1", "--out", "postmortem.md", "--html", "postmortem.html", talk=False
        )
        text = Path("postmortem.md").read_text(encoding="utf-8")
        part = text.partition("## What We Could Not Determine")[2].partition("\n## ")[0].strip().splitlines()
        recorded("postmortem.md says, among other things:\n  What We Could Not Determine\n" + _cells(part))
        command("incident", "close", "INC-1", "--why", plot["close"])


def _cells(lines: Sequence[str]) -> str:
    """The first two cells of a Markdown table's rows."""
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines if line.startswith("|")]
    return "\n".join(f"  - {row[0]}: {row[1]}" for row in rows[2:])


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
