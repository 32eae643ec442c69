"""Every command in the documents is run, in order, as a reader would; what needs nothing in test_pages_*.py.

A block marked `sh` needs nothing; `sh kafka` a broker, `sh kafka-tools` Kafka's own tools, too. `sh docker` is not run:
there are no containers here (tests/deploy/test_compose.py runs what they would run).
"""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import uuid
from contextlib import suppress
from pathlib import Path

import pytest
import yaml
from conftest_e2e import Shell
from doc_pages import PAGES, ROOT, blocks
from servers.kafka import free_port, kafka_jars
from servers.qdrant import find_server

KAFKA_TOOLS = {
    "kafka-console-consumer.sh": "org.apache.kafka.tools.consumer.ConsoleConsumer",
    "kafka-console-producer.sh": "org.apache.kafka.tools.ConsoleProducer",
}


@pytest.mark.parametrize("memory", ["of each process", "on a Qdrant server"])
@pytest.mark.parametrize("page", [page for page in PAGES if blocks(page, "kafka", "kafka-tools")])
def test_a_page_runs_against_a_broker_with_its_own_workers(page: str, memory: str, kafka: str, tmp_path: Path) -> None:
    server = find_server() if memory == "on a Qdrant server" else None
    shell = Shell(tmp_path)
    del shell.env["LUMYN_POLICY"]
    shell.env |= {"LUMYN_KAFKA": kafka, "LUMYN_PREFIX": f"docs-{uuid.uuid4().hex[:8]}"}
    shell.env |= {"LUMYN_QDRANT": server.url} if server else {}
    shell.env["PATH"] = f"{kafka_tools(tmp_path / 'bin')}{os.pathsep}{shell.env['PATH']}"
    script = "\n".join(blocks(page, "kafka", "kafka-tools"))
    for port in sorted(set(re.findall(r"--metrics-port (\d+)", script))):  # others of this machine may have these
        script = script.replace(port, str(free_port()))
    try:
        stdout, stderr, code = run_with_workers(shell, f"set -euo pipefail\n{script}")
    finally:
        if server is not None:
            server.close()
    logs = "".join(f"--- {path.name}\n{path.read_text()[-1500:]}" for path in sorted(tmp_path.glob("*.log")))
    assert code == 0, f"exit {code}\n{stdout[-3000:]}\n{stderr[-3000:]}\n{logs}"
    assert "Traceback" not in stderr + logs
    assert "lumyn_decisions_total{" in stdout
    assert "ESCALATE" in stdout  # what was DENY, once its failure was known
    assert "\nversion: 1\n" in stdout.rpartition("active: refunds")[2]  # the memory that was taken along


def kafka_tools(folder: Path) -> Path:
    """Kafka's own tools by the names that they have in its distribution."""
    jars = kafka_jars()
    if jars is None:
        pytest.skip("no Kafka tools: install Java and Maven")
    folder.mkdir()
    for name, main in KAFKA_TOOLS.items():
        (folder / name).write_text(f"#!/bin/sh\nexec java -cp '{jars}/*' {main} \"$@\"\n")
        (folder / name).chmod(0o755)
    return folder


def run_with_workers(shell: Shell, script: str) -> tuple[str, str, int]:
    """Run a script that starts workers; none of them outlives it, however it ends."""
    out, err = shell.folder / "script.out", shell.folder / "script.err"
    with out.open("w") as stdout, err.open("w") as stderr:  # files: a worker left over would hold a pipe open
        process = subprocess.Popen(
            ["bash", "-c", script], cwd=shell.folder, env=shell.env, stdin=subprocess.DEVNULL, stdout=stdout,
            stderr=stderr, start_new_session=True,
        )  # fmt: skip
    code = -1
    with suppress(subprocess.TimeoutExpired):
        code = process.wait(timeout=240)
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    return out.read_text(), err.read_text(), code


def test_what_the_docker_blocks_name_is_in_the_compose_file() -> None:
    services = yaml.safe_load((ROOT / "docker-compose.yml").read_text())["services"]
    lines = [line for page in PAGES for block in blocks(page, "docker") for line in block.splitlines()]
    assert lines
    for line in lines:
        named = re.findall(r"run --rm -T (\w+)|--scale (\w+)=", line)
        assert line.startswith(("docker compose up -d", "docker compose ps")) or named, line
        assert all((run or scaled) in services for run, scaled in named), line


def test_the_readmes_own_commands_run(tmp_path: Path) -> None:
    commands = [c for b in blocks("README.md") for c in b.splitlines() if c.startswith(".venv/bin/lumyn")]
    assert len(commands) == 2
    shutil.copytree(ROOT / "examples/refunds", tmp_path / "examples/refunds")
    shell = Shell(tmp_path)
    del shell.env["LUMYN_POLICY"]
    for command in commands:
        shell.run(command.replace(".venv/bin/", ""))


def test_links_between_documents_lead_somewhere() -> None:
    for page in ["README.md", *PAGES]:
        for target in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", (ROOT / page).read_text()):
            assert ((ROOT / page).parent / target).exists(), f"{page}: {target}"


def test_cleaning_the_memory_goes_as_its_page_tells(tmp_path: Path) -> None:
    """A bad import blocks, relabelled not, the relabelling undone it does, held not, also what it says next; less trusted
    it does."""
    shell = Shell(tmp_path)
    del shell.env["LUMYN_POLICY"]
    done = shell.run("set -euo pipefail\n" + "\n".join(blocks("docs/clean-the-memory.md")))
    assert re.findall(r"^verdict: (\w+)", done.stdout, re.M) == [
        "DENY", "ALLOW", "DENY", "ALLOW", "ALLOW", "DENY",
    ]  # fmt: skip
    assert "harmful -> fine: 6" in done.stdout and "harmful -> not in memory: 6" in done.stdout
    assert done.stdout.count(" 0 differ") == 2
