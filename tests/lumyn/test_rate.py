"""`lumyn rate --pack`: a real agent is run again and again, whatever it does, and the sample can't be edited unseen."""

from __future__ import annotations

import http.server
import json
import shlex
import sys
import threading
import time
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import pytest
from conftest_e2e import refund
from inside import Inside

from lumyn.agent_runs import command_agent, runs
from schemas.canonical import decode_trusted

pytest_plugins = ("inside_plugin",)

COUNTER = """\
import fcntl, json, random, sys
asked = json.load(sys.stdin)
with open("turn", "a+") as file:  # each run its own number, whoever comes first
    fcntl.flock(file, fcntl.LOCK_EX)
    file.seek(0)
    turn = len(file.read())
    file.write("x")
"""


@pytest.fixture
def pack(inside: Inside) -> Path:
    """The pack of a refund that was paid at once."""
    made = inside.decide(refund(30, provenance={"model": "m-1", "system_fingerprint": "fp_then"}))
    inside.run("export", made["decision_id"], "--pack", "--out", "incident.zip")
    return inside.folder / "incident.zip"


def agent(inside: Inside, body: str, name: str = "agent.py") -> str:
    """A small program as the agent."""
    path = inside.write(name, body)
    return f"{shlex.quote(sys.executable)} {shlex.quote(str(path))}"


def seeded(inside: Inside, share: float, seed: int = 7) -> str:
    """An agent that refunds with a chance of `share`, the same ones each time."""
    return agent(inside, COUNTER + f"""
wanted = "refund" if random.Random({seed} * 100003 + turn).random() < {share} else "wait"
print(json.dumps({{"action": {{"type": wanted}}, "provenance": {{"system_fingerprint": "fp_now"}}}}))
""")  # fmt: skip


def rate(inside: Inside, command: str, *more: object, code: int | None = 0) -> Any:
    return inside.json("rate", "--pack", "incident.zip", "--command", command, *more, "--json", code=code)


def test_the_histogram_has_every_outcome_and_the_recorded_one_is_the_event(inside: Inside, pack: Path) -> None:
    told = rate(inside, seeded(inside, 0.3), "--runs", 60)
    counts = {row["outcome"]: row["runs"] for row in told["outcomes"]}
    assert told["answered"] == sum(counts.values()) == 60 and set(counts) == {"refund", "wait"}
    assert told["event"]["outcome"] == "refund" and told["event"]["runs"] == counts["refund"]
    assert told["event"]["lower"] < counts["refund"] / 60 < told["event"]["upper"]
    assert told["event"]["method"].startswith("wilson") and told["stopped"] is None
    assert told["metadata"]["system_fingerprint"]["recorded"] == "fp_then"
    assert told["changed_since_recorded"] == ["system_fingerprint"]
    text = inside.run("rate", "show", told["rate_id"])
    assert "* `refund`" in text.stdout and "`system_fingerprint` is another one" in text.stderr


def test_the_agent_gets_what_was_recorded_and_not_its_answer(inside: Inside, pack: Path) -> None:
    command = agent(inside, "import sys; open('given', 'w').write(sys.stdin.read()); print('{}')")
    rate(inside, command, "--runs", 1, code=4)
    given = json.loads((inside.folder / "given").read_text())
    assert set(given) == {"subject", "evidence", "context"} and given["context"]["inline"] == {"channel": "chat"}
    rate(inside, command, "--runs", 1, "--with-action", code=4)
    assert json.loads((inside.folder / "given").read_text())["action"]["type"] == "refund"


def test_an_agent_sees_no_setting_of_lumyn(
    inside: Inside, pack: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LUMYN_MASTER_KEY_FILE", "nowhere")
    command = agent(inside, """import json, os
print(json.dumps({"action": {"type": str([name for name in os.environ if name.startswith("LUMYN_")])}}))""")
    assert [row["outcome"] for row in rate(inside, command, "--runs", 2)["outcomes"]] == ["[]"]


def test_a_report_that_does_not_fit_is_exit_1_and_stops_early(inside: Inside, pack: Path) -> None:
    told = rate(inside, seeded(inside, 0.5), "--runs", 200, "--reported", "1 of 1000", code=1)
    assert told["runs"] < 60 and "more often" in told["stopped"]
    assert told["event"]["reported"]["consistent"] is False and "any time" in told["event"]["method"]
    assert told["event"]["needed"] == {"runs": 2995, "rate": 0.001, "basis": "reported"}
    inside.run("rate", "show", told["rate_id"], code=1)
    (inside.folder / "turn").unlink()
    whole = rate(inside, seeded(inside, 0.5), "--runs", 70, "--reported", "1 of 1000", "--all-runs", code=1)
    assert whole["runs"] == 70 and whole["stopped"] is None and whole["event"]["method"].startswith("wilson")


def test_a_report_that_fits_is_exit_0(inside: Inside, pack: Path) -> None:
    told = rate(inside, seeded(inside, 0.2), "--runs", 60, "--reported", "20%")
    assert told["event"]["reported"]["consistent"] is True and told["stopped"] is None
    assert "consistent with the report (20%)" in inside.run("rate", "show", told["rate_id"]).stdout


def test_what_never_comes_has_an_upper_bound_and_a_least_number_of_runs(inside: Inside, pack: Path) -> None:
    told = rate(inside, seeded(inside, 0.0), "--runs", 40)
    assert told["event"]["runs"] == 0 and told["event"]["rate"] == 0
    assert told["event"]["needed"]["basis"] == "upper bound" and told["event"]["needed"]["runs"] > 10
    stopped = rate(inside, seeded(inside, 0.0), "--runs", 300, "--margin", "0.1")
    assert 10 < stopped["runs"] < 60 and "to within 0.1" in stopped["stopped"]


@pytest.mark.parametrize(("body", "why"), [
    ("import time; time.sleep(600)", "no answer in time"),
    ("import sys; sys.exit(3)", "exit 3"),
    ("import sys\nwhile True: sys.stdout.write('x' * 65536)", "too much output"),
    ("import sys\nwhile True: sys.stderr.write('x' * 65536)", "too much output"),
    ("import os; os.write(1, bytes(range(256)))", "the answer is not JSON"),
    ("print('{\"action\": {\"type\": [1]}}')", "`action.type` is not text"),
    ("print('[' * 5000 + ']' * 5000)", "the answer is not JSON"),
    ("print('{\"a\": \"' + 'x' * 500000 + '\"}')", "no `action.type` in the answer"),
    ("import os; os.kill(os.getpid(), 9)", "exit -9"),
])  # fmt: skip
def test_runs_without_an_answer_are_counted_as_what_they_were(inside: Inside, pack: Path, body: str, why: str) -> None:
    told = rate(inside, agent(inside, body), "--runs", 2, "--timeout", 1.5, code=4)
    (named,) = told["failures"]
    assert named.startswith(why) and told["failures"][named] == 2 and told["answered"] == 0
    assert told["event"]["rate"] is None and (told["event"]["lower"], told["event"]["upper"]) == (0, 1)


def test_runs_that_failed_widen_the_bounds(inside: Inside, pack: Path) -> None:
    command = agent(inside, COUNTER + """
if turn % 4 == 0: sys.exit("rate limited")
print(json.dumps({"action": {"type": "refund"}}))""")
    done = inside.run("rate", "--pack", "incident.zip", "--command", command, "--runs", 20)
    assert "no outcome: 5 x exit 1" in done.stdout and "75.0% to 100.0%" in done.stdout
    assert "rate limited" in done.stderr


def test_nothing_that_a_run_started_outlives_it(inside: Inside, pack: Path) -> None:
    """A child that keeps the pipes open neither delays the answer nor stays."""
    command = agent(inside, """import json, subprocess
child = subprocess.Popen(["sleep", "300"])
open(f"child-{child.pid}", "w")
print(json.dumps({"action": {"type": "wait"}}))""")
    rate(inside, command, "--runs", 3)
    children = [int(path.name[6:]) for path in inside.folder.glob("child-*")]
    assert len(children) == 3 and not [pid for pid in children if is_running(pid)]


def test_nor_does_what_left_its_session_for_the_background(inside: Inside, pack: Path) -> None:
    """A daemon has a session of its own, and process 1 for a parent."""
    command = agent(inside, """import json, os, time
for _ in range(2):
    if os.fork() == 0:
        os.setsid()
        if os.fork() == 0:
            open(f"child-{os.getpid()}", "w")
            time.sleep(300)
        os._exit(0)
while len([name for name in os.listdir() if name.startswith("child-")]) < 2:
    time.sleep(0.01)
print(json.dumps({"action": {"type": "wait"}}))""")
    rate(inside, command, "--runs", 3, "--parallel", 1)
    children = [int(path.name[6:]) for path in inside.folder.glob("child-*")]
    assert len(children) >= 4 and not [pid for pid in children if is_running(pid)]


def is_running(pid: int) -> bool:
    """Whether a process is there and is more than an exit code that nobody has fetched."""
    for _ in range(100):
        try:
            state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
        except OSError:
            return False
        if state == "Z":
            return False
        time.sleep(0.05)
    return True


def test_a_sample_that_is_left_kills_what_still_runs(inside: Inside) -> None:
    command = agent(inside, "import os, time; open(f'run-{os.getpid()}', 'w'); time.sleep(300)")
    quick = command_agent(f"{shlex.quote(sys.executable)} -c pass")
    slow = command_agent(command)
    mixed = runs(lambda given, stop: (slow if given else quick)(given, stop), [b"", b"x", b"x"], parallel=3)
    assert next(mixed).status == "ended"
    deadline = time.monotonic() + 20
    while len(list(inside.folder.glob("run-*"))) < 2 and time.monotonic() < deadline:
        time.sleep(0.05)
    mixed.close()  # type: ignore[attr-defined]
    left = [int(path.name[4:]) for path in inside.folder.glob("run-*")]
    assert len(left) == 2 and not [pid for pid in left if is_running(pid)]


def test_what_was_measured_until_ctrl_c_is_kept_and_read_as_a_sample_that_was_watched(
    inside: Inside, pack: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Runs cost money and time; that somebody stopped when he had seen enough is what sequences are for."""
    def until(most: int) -> Any:
        def some(agent: Any, inputs: Any, *, parallel: int) -> Iterator[Any]:
            yield from islice(runs(agent, inputs, parallel=parallel), most)
            raise KeyboardInterrupt

        return some

    command = seeded(inside, 0.5)
    monkeypatch.setattr("lumyn.rating.runs", until(4))
    done = inside.run("rate", "--pack", "incident.zip", "--command", command, "--runs", 50, code=130)
    assert "runs: 4 of 50, 4 with an outcome; stopped early: it was interrupted" in done.stdout
    (kept,) = inside.json("rate", "list", "--json")
    assert (kept["runs"], kept["method"]) == (4, "beta-binomial mixture, any time")
    inside.run("rate", "show", kept["rate_id"])
    monkeypatch.setattr("lumyn.rating.runs", until(0))
    done = inside.run("rate", "--pack", "incident.zip", "--command", command, "--runs", 50, code=130)
    assert done.stdout == "" and len(inside.json("rate", "list", "--json")) == 1


def test_answers_count_in_the_order_of_their_runs(inside: Inside) -> None:
    """Else a sample that is stopped early would prefer what comes quickly."""
    command = command_agent(agent(inside, "import sys, time; n = float(sys.stdin.read()); time.sleep(n); print(n)"))
    found = [run.output for run in runs(command, [b"0.6", b"0.0", b"0.1"], parallel=3)]
    assert found == [b"0.6\n", b"0.0\n", b"0.1\n"]


def test_outcomes_by_regular_expression_and_exit_code(inside: Inside, pack: Path) -> None:
    command = agent(inside, COUNTER + "print(f'in {7 if turn else 5} days'); sys.exit(turn % 2)")
    told = rate(inside, command, "--runs", 4, "--outcome", "exit")
    assert {row["outcome"]: row["runs"] for row in told["outcomes"]} == {"exit 0": 2, "exit 1": 2}
    assert told["event"] is None
    (inside.folder / "turn").unlink()
    quiet = agent(inside, COUNTER + "print(f'in {7 if turn else 5} days')")
    more = ("--outcome", r"/in (\d+) days/", "--event", "5")
    told = rate(inside, quiet, "--runs", 4, *more)
    assert {row["outcome"]: row["runs"] for row in told["outcomes"]} == {"7": 3, "5": 1}
    assert told["event"]["runs"] == 1


@pytest.mark.parametrize(("more", "says"), [
    (("--command", "no-such-program"), "there is no program"),
    (("--command", "'"), "can't be read"),
    (("--command", ""), "there is no program"),
    ((), "give `--command` or `--url`"),
    (("--command", "true", "--url", "http://x"), "give `--command` or `--url`"),
    (("--url", "file:///etc/passwd"), "is not a URL"),
    (("--url", "http://x:99999/"), "is no port"),
    (("--command", "true", "--outcome", "/(/"), "not a regular expression"),
    (("--command", "true", "--outcome", "a..b"), "is not a path"),
    (("--command", "true", "--reported", "5 of 2"), "is no rate"),
    (("--command", "true", "--reported", "many"), "is no rate"),
    (("--command", "true", "--outcome", "exit", "--margin", "0.1"), "which outcome was reported"),
    (("--command", "true", "--decision", "01"), "not both"),
    (("--command", "true", "--query", "verdict=DENY"), "not both"),
    (("--command", "true", "--bad", "verdict=DENY"), "recorded traffic"),
])  # fmt: skip
def test_misuse_is_exit_2(inside: Inside, pack: Path, more: tuple[str, ...], says: str) -> None:
    assert says in inside.refused("rate", "--pack", "incident.zip", *more, code=2)
    assert not (inside.home / "rates").exists()


def test_an_edited_sample_is_exit_3(inside: Inside, pack: Path) -> None:
    told = rate(inside, seeded(inside, 0.3), "--runs", 10)
    path = inside.home / "rates" / f"{told['rate_id']}.jsonl"
    whole = path.read_bytes()
    for changed in (whole.replace(b'"wait"', b'"well"', 1), whole.replace(b'"runs":10', b'"runs":11', 1), whole[:-40],
                    b"".join(whole.splitlines(keepends=True)[:3] + whole.splitlines(keepends=True)[4:]), b"", b"{}\n" * 5):
        assert changed != whole
        path.write_bytes(changed)
        inside.refused("rate", "show", told["rate_id"], code=3)
        assert "not shown" in inside.run("rate", "list", code=3).stderr
    path.write_bytes(whole)
    inside.run("rate", "show", told["rate_id"])


def test_a_sample_signed_by_another_key_does_not_count(inside: Inside, pack: Path) -> None:
    told = rate(inside, seeded(inside, 0.3), "--runs", 5)
    (inside.home / "keys" / "rates.pem").unlink()
    assert "does not trust" in inside.refused("rate", "show", told["rate_id"], code=3)


def test_where_there_is_no_home_a_pack_is_sampled_again_and_again(
    inside: Inside, pack: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Keeping the first sample must not make the home one that does not trust the pack any more."""
    monkeypatch.setenv("LUMYN_HOME", "elsewhere")
    names = [rate(inside, seeded(inside, 0.3), "--runs", 2)["rate_id"] for _ in range(2)]
    assert [row["rate_id"] for row in inside.json("rate", "list", "--json")] == names


def test_the_list_has_each_rate_with_its_range_however_long_the_agent_s_path_is(inside: Inside, pack: Path) -> None:
    folder = inside.folder / "/".join(["a-folder-with-a-long-name"] * 7)
    folder.mkdir(parents=True)
    program = folder / "agent"
    program.write_text('#!/bin/sh\necho \'{"action": {"type": "refund"}}\'\n')
    program.chmod(0o755)
    told = rate(inside, str(program), "--runs", 5)
    rate(inside, str(program), "--runs", 3, "--event", "never")
    rate(inside, "false", "--runs", 2, code=None)
    (row, never, nothing) = inside.json("rate", "list", "--json")
    assert row["agent"].startswith(str(program)) and (row["seen"], row["answered"]) == (5, 5)
    shown = ("rate", "lower", "upper", "method")
    assert [row[name] for name in shown] == [told["event"][name] for name in shown] and row["rate"] == 1
    assert (never["seen"], never["rate"], never["lower"]) == (0, 0, 0) and 0.5 < never["upper"] < 0.6
    assert (nothing["answered"], nothing["rate"]) == (0, None)
    lines = inside.run("rate", "list").stdout.splitlines()
    assert lines[0].split(" | ")[-2:] == ["rate, 95%               ", "agent"]
    assert lines[1].index("5 of 5 | 100.0% (56.6% to 100.0%)") < 100 and lines[1].endswith(row["agent"])


def test_tenants_never_meet(inside: Inside, pack: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    told = rate(inside, seeded(inside, 0.3), "--runs", 5)
    assert [row["rate_id"] for row in inside.json("rate", "list", "--json")] == [told["rate_id"]]
    monkeypatch.setenv("LUMYN_TENANT", "other")
    assert inside.json("rate", "list", "--json") == []
    assert "no sample" in inside.refused("rate", "show", told["rate_id"], code=2)
    assert "tenant default's" in inside.refused("rate", "--pack", "incident.zip", "--command", "true", code=2)
    assert "no decision" in inside.refused("rate", "--decision", told["decision_id"], "--command", "true", code=2)


def test_a_decision_of_this_home_is_sampled_too(inside: Inside, pack: Path) -> None:
    name = inside.json("list", "--json")[0]["decision_id"]
    told = inside.json("rate", "--decision", name[:14], "--command", seeded(inside, 1.0), "--runs", 3, "--json")
    assert told["decision_id"] == name and told["event"]["runs"] == 3


def test_of_a_sealed_decision_nothing_personal_is_kept_and_of_a_forgotten_one_nothing_is_run(
    inside: Inside, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LUMYN_ENCRYPT_SUBJECTS", "true")
    body = refund(30, user="ann.zander@mail.example")
    body["context"]["inline"]["said"] = "Philomena"
    made = inside.decide(body)
    inside.run("export", made["decision_id"], "--pack", "--out", "whole.zip")
    inside.run("export", made["decision_id"], "--pack", "--redact", "--out", "redacted.zip")
    echo = agent(inside, "import sys; print(sys.stdin.read())")
    told = inside.json("rate", "--pack", "whole.zip", "--command", echo, "--outcome", "context.inline.said",
                       "--runs", 2, "--json")  # fmt: skip
    assert told["outcomes"][0]["outcome"] == "Philomena"
    kept = (inside.home / "rates" / f"{told['rate_id']}.jsonl").read_bytes()
    assert b"Philomena" not in kept and b"ann.zander" not in kept
    shown = inside.json("rate", "show", told["rate_id"], "--json")
    assert shown["outcomes"][0]["outcome"] == "outcome 1 (the event)" and shown["event"]["runs"] == 2
    assert "redacted" in inside.refused("rate", "--pack", "redacted.zip", "--command", echo, code=2)
    inside.run("memory", "forget", "--subject", "user:ann.zander@mail.example", "--why", "asked", "--apply")
    for which in (("--pack", "whole.zip"), ("--decision", made["decision_id"])):
        assert "erased" in inside.refused("rate", *which, "--command", echo, code=2)


class Server(http.server.BaseHTTPRequestHandler):
    """An agent behind HTTP that does what its path says."""

    def do_POST(self) -> None:
        given = self.rfile.read(int(self.headers["Content-Length"]))
        if self.path == "/drip":
            self.send_response(200)
            self.end_headers()
            for _ in range(200):
                try:
                    self.wfile.write(b" ")
                    self.wfile.flush()
                except OSError:
                    return
                time.sleep(0.1)
            return
        asked = json.loads(given)
        answer = b"x" * (3 << 20) if self.path == "/flood" else json.dumps(
            {"action": {"type": asked["context"]["inline"]["channel"]}}
        ).encode()  # fmt: skip
        self.send_response(503 if self.path == "/busy" else 200)
        self.send_header("Content-Length", str(len(answer)))
        self.end_headers()
        try:
            self.wfile.write(answer)
        except OSError:
            return

    def log_message(self, *_: object) -> None:
        """Quiet."""


@pytest.fixture
def server() -> Iterator[str]:
    made = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Server)
    made.daemon_threads = True
    thread = threading.Thread(target=made.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{made.server_address[1]}"
    made.shutdown()
    made.server_close()
    thread.join()


def test_an_agent_behind_http(inside: Inside, pack: Path, server: str) -> None:
    def ask(path: str, code: int) -> Any:
        return inside.json("rate", "--pack", "incident.zip", "--url", server + path, "--runs", 2, "--timeout", 1,
                           "--json", code=code)  # fmt: skip

    assert [(row["outcome"], row["runs"]) for row in ask("/ok", 0)["outcomes"]] == [("chat", 2)]
    assert ask("/busy", 4)["failures"] == {"exit 503": 2}
    assert ask("/flood", 4)["failures"] == {"too much output": 2}
    assert ask("/drip", 4)["failures"] == {"no answer in time": 2}
    told = inside.json("rate", "--pack", "incident.zip", "--url", "http://127.0.0.1:1/", "--runs", 1, "--json", code=4)
    assert told["failures"] == {"could not be run": 1}


def test_arguments_of_the_command_are_not_stored(inside: Inside, pack: Path) -> None:
    command = agent(inside, "print('{\"action\": {\"type\": \"wait\"}}')") + " --key hunter2"
    told = rate(inside, command, "--runs", 1)
    lines = (inside.home / "rates" / f"{told['rate_id']}.jsonl").read_bytes().splitlines()
    assert b"hunter2" not in b"".join(lines) and len(lines) == 4
    assert decode_trusted(lines[1])["outcome"] == "wait"


def test_one_run_is_one_and_what_was_not_reported_is_asked_for(inside: Inside, pack: Path) -> None:
    command = seeded(inside, 1.0)
    done = inside.run("rate", "--pack", "incident.zip", "--command", command, "--runs", 3)
    assert "100.00%, 1 run shows it with" in done.stdout and "--reported" in done.stderr
    done = inside.run("rate", "--pack", "incident.zip", "--command", command, "--runs", 3, "--reported", "1 of 2")
    assert "50.00%, 5 runs show it with" in done.stdout and "--reported" not in done.stderr
