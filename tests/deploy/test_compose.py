"""docker-compose.yml: pinned, closed to the outside, and made of commands, names and settings that exist.

Containers are not started here. What stands in for them: the services' own commands, environments and health checks,
run as processes against a real broker, which is set up by the file's own broker settings. `docker compose config` is
run where Docker has Compose. Never run by these tests: building the image, and pulling and starting the others.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import time
import tomllib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.error import HTTPError
from urllib.request import Request, urlopen

import pytest
import yaml
from inside import Inside
from servers.kafka import JavaBroker, free_port, java_broker
from servers.qdrant import IMAGE as QDRANT_IMAGE
from servers.qdrant import find_server

from lumyn import __version__
from lumyn.config import _ENVIRONMENT, _OPTION_PREFIXES

pytest_plugins = ("inside_plugin",)

ROOT = Path(__file__).parents[2]
COMPOSE: dict[str, Any] = yaml.safe_load((ROOT / "docker-compose.yml").read_text())
SERVICES: dict[str, dict[str, Any]] = COMPOSE["services"]
OURS = sorted(name for name, service in SERVICES.items() if "build" in service)
WORKERS = ["decide", "index", "labels", "shadow"]
SCRAPED = [*WORKERS, "watch"]
SERVED = "8700"
ONE_SHOT = {"topics", "cli"}
PORT = "9464"


def own_environment(name: str) -> dict[str, str]:
    """A service's environment with the file's own defaults filled in."""
    return {
        key: re.sub(r"\$\{\w+:-([^}]*)\}", r"\1", str(value)) for key, value in SERVICES[name]["environment"].items()
    }


def test_the_parts_are_there() -> None:
    assert set(SERVICES) == {"kafka", "qdrant", "topics", *SCRAPED, "serve", "cli", "prometheus", "grafana"}
    assert set(OURS) == {"topics", *SCRAPED, "serve", "cli"}
    assert [n for n in OURS if SERVICES[n]["command"][0] == "worker"] == WORKERS


@pytest.mark.parametrize("name", SERVICES)
def test_images_are_pinned_to_a_version(name: str) -> None:
    image, _, tag = SERVICES[name]["image"].partition(":")
    assert re.fullmatch(r"v?\d+\.\d+\.\d+", tag), SERVICES[name]["image"]
    if image == "lumyn-streams":
        assert tag == __version__


def test_the_servers_are_those_that_the_tests_run_against() -> None:
    assert SERVICES["qdrant"]["image"] == QDRANT_IMAGE
    pom = (ROOT / "tests/servers/kafka-pom.xml").read_text()
    assert f"<version>{SERVICES['kafka']['image'].partition(':')[2]}</version>" in pom


@pytest.mark.parametrize("name", SERVICES)
def test_no_port_is_open_beyond_the_loopback(name: str) -> None:
    for port in SERVICES[name].get("ports", []):
        assert re.fullmatch(r"127\.0\.0\.1:\d+:\d+", port), port
    assert "network_mode" not in SERVICES[name]


@pytest.mark.parametrize("name", SERVICES)
def test_every_service_has_limits_a_restart_policy_and_bounded_logs(name: str) -> None:
    service = SERVICES[name]
    assert set(service["deploy"]["resources"]["limits"]) == {"cpus", "memory"}
    assert service["restart"] == {"topics": "on-failure", "cli": "no"}.get(name, "unless-stopped")
    assert service["logging"]["options"]["max-size"]


@pytest.mark.parametrize("name", sorted(set(SERVICES) - ONE_SHOT))
def test_every_service_that_stays_has_a_health_check(name: str) -> None:
    check = SERVICES[name]["healthcheck"]
    assert check["test"][0] in ("CMD", "CMD-SHELL")
    assert {"interval", "timeout", "retries", "start_period"} <= set(check)


@pytest.mark.parametrize("name", OURS)
def test_our_containers_may_do_little(name: str) -> None:
    service = SERVICES[name]
    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"]
    assert "no-new-privileges:true" in service["security_opt"]
    assert "privileged" not in service
    assert "container_name" not in service  # else it could not be scaled


def test_what_is_kept_is_in_declared_volumes_and_what_is_mounted_exists() -> None:
    kept = set()
    for service in SERVICES.values():
        for volume in service.get("volumes", []):
            source = re.sub(r"\$\{\w+:-([^}]*)\}", r"\1", volume).partition(":")[0]
            if source.startswith("."):
                assert (ROOT / source).is_file(), source
                assert volume.endswith(":ro")
            else:
                kept.add(source)
    assert kept == set(COMPOSE["volumes"])


def test_each_waits_for_what_it_needs() -> None:
    for name, service in SERVICES.items():
        for needed, how in service.get("depends_on", {}).items():
            one_shot = SERVICES[needed]["restart"] == "on-failure"
            wanted = "service_completed_successfully" if one_shot else "service_healthy"
            assert how["condition"] == wanted, f"{name} on {needed}"


@pytest.mark.parametrize("name", OURS)
def test_each_command_is_one_of_the_command_line_with_its_options(name: str, inside: Inside) -> None:
    words = [str(word) for word in SERVICES[name]["command"]]
    command = [word for word in words[:2] if not word.startswith("-")]
    text = inside.run(*command, "--help").stdout
    for option in (word for word in words if word.startswith("--")):
        assert re.search(rf"{option}\b", text), option


def known_setting(name: str) -> bool:
    return name in _ENVIRONMENT.values() or name.startswith(_OPTION_PREFIXES)


@pytest.mark.parametrize("name", OURS)
def test_each_setting_is_known(name: str) -> None:
    assert all(known_setting(key) for key in SERVICES[name]["environment"])


def test_addresses_are_other_services_and_their_ports() -> None:
    broker = SERVICES["kafka"]["environment"]["KAFKA_ADVERTISED_LISTENERS"].split(",")
    for name in OURS:
        environment = own_environment(name)
        assert f"INTERNAL://{environment['LUMYN_KAFKA']}" in broker
        assert environment["LUMYN_QDRANT"] == "http://qdrant:6333"
    assert "EXTERNAL://127.0.0.1:9092" in broker
    assert SERVICES["kafka"]["ports"] == ["127.0.0.1:9092:9092"]


def test_prometheus_scrapes_the_workers_where_they_serve() -> None:
    config = yaml.safe_load((ROOT / "deploy/prometheus.yml").read_text())
    jobs = {job["job_name"]: job for job in config["scrape_configs"]}
    for name in SCRAPED:
        (found,) = jobs[name]["dns_sd_configs"]
        command = SERVICES[name]["command"]
        assert found["names"] == [name]
        assert str(found["port"]) == command[command.index("--metrics-port") + 1] == PORT
        assert command[command.index("--metrics-host") + 1] == "0.0.0.0"
    assert [Path(name).name for name in config["rule_files"]] == ["alerts.yml"]


# the image


def test_the_image_is_slim_without_root_and_of_two_stages() -> None:
    text = (ROOT / "deploy/Dockerfile").read_text()
    stages = re.findall(r"^FROM (\S+)", text, re.M)
    assert len(stages) == 2
    assert all(re.fullmatch(r"python:3\.\d+\.\d+-slim-\w+", image) for image in stages)
    last = text.rpartition("\nFROM ")[2]
    assert re.search(r"^USER (?!0|root)\S+$", last, re.M)
    assert "lumyn-streams[kafka,qdrant,stats]" in last
    assert not re.search(r"\b(ADD|curl|wget)\b", text)


def test_the_images_packages_are_pinned_and_torch_is_none_of_them() -> None:
    """Every requirement of what the image installs, followed through what is installed here, has a pin."""
    from importlib import metadata

    from packaging.requirements import Requirement

    pins = dict(
        line.split("==") for line in (ROOT / "deploy/constraints.txt").read_text().splitlines() if line[:1] != "#"
    )
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"]
    wanted_extras = [text for name in ("kafka", "qdrant", "stats") for text in extras[name]]
    todo = [Requirement(text) for text in [*project["dependencies"], *wanted_extras]]
    followed: set[tuple[str, frozenset[str]]] = set()
    while todo:
        wanted = todo.pop()
        name = re.sub(r"[-_.]+", "-", wanted.name).lower()
        assert name in pins, f"{name} has no pin"
        assert wanted.specifier.contains(pins[name], prereleases=True), f"{name} {pins[name]} is not {wanted}"
        if (name, frozenset(wanted.extras)) in followed:
            continue
        followed.add((name, frozenset(wanted.extras)))
        for text in metadata.requires(name) or []:
            inner = Requirement(text)
            if inner.marker is None or any(inner.marker.evaluate({"extra": e}) for e in (wanted.extras or {""})):
                todo.append(inner)
    assert {name for name, _ in followed} == set(pins)
    assert not {name for name in pins if "torch" in name}


def copied() -> list[str]:
    """What the build stage is given of the repository."""
    lines = re.findall(r"^COPY (.+)$", (ROOT / "deploy/Dockerfile").read_text(), re.M)
    return [source for line in lines for source in line.split()[:-1]]


def test_what_the_image_is_built_from_makes_a_whole_wheel(tmp_path: Path) -> None:
    """The Dockerfile's own sources alone, built here as there; the wheel must hold every package and its data."""
    allowed = (ROOT / "deploy/Dockerfile.dockerignore").read_text()
    for source in copied():
        assert f"!{source}\n" in allowed, f"{source} is kept from the build"
        target = tmp_path / "src" / source
        target.parent.mkdir(parents=True, exist_ok=True)
        if (ROOT / source).is_dir():
            shutil.copytree(ROOT / source, target, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(ROOT / source, target)
    done = subprocess.run(
        [sys.executable, "-m", "pip", "wheel", "--no-deps", "--quiet", "-w", str(tmp_path / "wheels"), "."],
        cwd=tmp_path / "src", capture_output=True, text=True,
    )  # fmt: skip
    if done.returncode and "setuptools" in done.stderr and "No matching distribution" in done.stderr:
        pytest.skip("no package index to take the build's setuptools from")
    assert done.returncode == 0, done.stderr
    (wheel,) = (tmp_path / "wheels").iterdir()
    import zipfile

    names = set(zipfile.ZipFile(wheel).namelist())
    for package in ("lumyn", "streams", "memory_service", "schemas"):
        here = {path.relative_to(ROOT).as_posix() for path in (ROOT / package).rglob("*.py")}
        assert here <= names, sorted(here - names)
    assert any(name.endswith(".safetensors") for name in names)
    assert "lumyn/demo_data/policy.yml" in names


def test_the_example_environment_names_settings_that_exist_and_no_secret() -> None:
    lines = [line for line in (ROOT / "deploy/example.env").read_text().splitlines() if line and line[0] != "#"]
    values = dict(line.split("=", 1) for line in lines)
    assert all(known_setting(name) for name in values)
    assert all(not value for name, value in values.items() if name.endswith(("_PASSWORD", "_KEY")))


# with Docker


def test_docker_compose_takes_the_file() -> None:
    if shutil.which("docker") is None or subprocess.run(["docker", "compose", "version"], capture_output=True).returncode:
        pytest.skip("NOT RUN: `docker compose config`, for want of Docker Compose")
    done = subprocess.run(
        ["docker", "compose", "--profile", "tools", "config", "--quiet"], cwd=ROOT, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr


# the services, as processes


@pytest.fixture(scope="module")
def compose_broker() -> Iterator[JavaBroker]:
    """A real broker with the settings of the `kafka` service, but for where it listens and where its data is."""
    given = SERVICES["kafka"]["environment"]
    apart = {"KAFKA_LISTENERS", "KAFKA_ADVERTISED_LISTENERS", "KAFKA_LISTENER_SECURITY_PROTOCOL_MAP", "KAFKA_LOG_DIRS",
             "KAFKA_INTER_BROKER_LISTENER_NAME", "KAFKA_CONTROLLER_QUORUM_VOTERS", "KAFKA_HEAP_OPTS"}  # fmt: skip
    assert apart <= set(given)
    settings = {
        name.removeprefix("KAFKA_").lower().replace("_", "."): str(value)
        for name, value in given.items()
        if name.startswith("KAFKA_") and name not in apart
    }
    broker = java_broker(heap=given["KAFKA_HEAP_OPTS"].rpartition("-Xmx")[2], overrides=settings)
    yield broker
    broker.close()


@pytest.fixture(scope="module")
def compose_qdrant() -> Iterator[str]:
    server = find_server()
    yield server.url
    server.close()


class Stack:
    """The file's services as processes of this machine: addresses and ports are other ones, the rest is the file's."""

    def __init__(self, kafka: str, qdrant: str, folder: Path) -> None:
        self.addresses = {"kafka:19092": kafka, "http://qdrant:6333": qdrant, "/var/lib/lumyn": str(folder / "home")}
        self.addresses["/etc/lumyn/policy.yml"] = str(ROOT / "examples/refunds/policy.yml")
        self.folder = folder
        self.ports: dict[str, int] = {}

    def environment(self, name: str) -> dict[str, str]:
        own = {key: self.addresses.get(value, value) for key, value in own_environment(name).items()}
        return {"PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT), **own}

    def command(self, name: str, container: str) -> list[str]:
        words = [str(word) for word in SERVICES[name]["command"]]
        for port in {PORT, SERVED} & set(words):
            self.ports[container] = free_port()
            words[words.index(port)] = str(self.ports[container])
            words[words.index("0.0.0.0")] = "127.0.0.1"
        return [sys.executable, "-m", "lumyn", *words]

    def run(self, name: str, *words: str, stdin: str = "") -> subprocess.CompletedProcess[str]:
        """`docker compose run NAME [WORDS]`."""
        command = [sys.executable, "-m", "lumyn", *words] if words else self.command(name, name)
        return subprocess.run(
            command,
            cwd=self.folder,
            env=self.environment(name),
            input=stdin,
            capture_output=True,
            text=True,
            timeout=120,
        )

    @contextmanager
    def up(self, name: str, container: str | None = None) -> Iterator[None]:
        """A service's process; ended as Compose ends it, which must not take longer than it is given."""
        container = container or name
        with (self.folder / f"{container}.log").open("w") as log:
            process = subprocess.Popen(
                self.command(name, container), cwd=self.folder, env=self.environment(name), stdout=log, stderr=log
            )
        try:
            yield
            process.terminate()
            assert process.wait(timeout=float(SERVICES[name]["stop_grace_period"].removesuffix("s"))) == 0
        finally:
            process.kill()
            process.wait()

    def healthy(self, name: str, container: str | None = None) -> bool:
        """The service's own health check."""
        kind, *words = SERVICES[name]["healthcheck"]["test"]
        assert kind == "CMD"
        words = [re.sub(f"{PORT}|{SERVED}", str(self.ports[container or name]), word) for word in words]
        words = [sys.executable if word == "python" else word for word in words]
        return subprocess.run(words, capture_output=True, timeout=10).returncode == 0

    def wait_healthy(self, name: str, container: str | None = None) -> None:
        deadline = time.monotonic() + 60
        while not self.healthy(name, container):
            assert time.monotonic() < deadline, (self.folder / f"{container or name}.log").read_text()[-2000:]
            time.sleep(0.3)


def test_the_services_own_commands_make_a_deployment_that_decides(
    compose_broker: JavaBroker, compose_qdrant: str, tmp_path: Path
) -> None:
    stack = Stack(compose_broker.address, compose_qdrant, tmp_path)
    request = (ROOT / "examples/refunds/request.json").read_text()
    for _ in range(2):  # Compose runs it again with every `up`
        done = stack.run("topics")
        assert done.returncode == 0, done.stderr
    with stack.up("index"), stack.up("labels"):
        stack.wait_healthy("index")
        stack.wait_healthy("labels")
        with stack.up("decide"), stack.up("decide", "decide-2"):
            stack.wait_healthy("decide")
            stack.wait_healthy("decide", "decide-2")
            done = stack.run("cli", "decide", "-", stdin=request)
            assert done.returncode == 0, done.stderr
            record = json.loads(done.stdout)
            assert record["verdict"] == "DENY"
            assert record["memory"]["available"]
            done = stack.run("cli", "label", record["decision_id"], "--label", "failure", "--summary", "no fraud")
            assert done.returncode == 0, done.stderr
            again = json.loads(stack.run("cli", "decide", "-", stdin=request).stdout)
            assert again["memory"]["version"] == 1
            done = stack.run("cli")  # the doctor
            assert done.returncode == 0, done.stdout
            assert "2 workers" in done.stdout
            done = stack.run("cli", "watch", "add", "denied", "-q", "verdict=DENY", "--alert", "rate > 1%", "--least", "1")
            assert done.returncode == 0, done.stderr
            with stack.up("watch"):
                stack.wait_healthy("watch")
                metrics = urlopen(f"http://127.0.0.1:{stack.ports['watch']}/metrics", timeout=5).read().decode()
                assert 'lumyn_watch_count{tenant="default",watch="denied",window="long"} 2.0' in metrics


def test_the_api_the_console_and_a_shadow_worker_stand_beside_them(compose_broker: JavaBroker, tmp_path: Path) -> None:
    stack = Stack(compose_broker.address, f"http://127.0.0.1:{free_port()}", tmp_path)
    assert stack.run("topics").returncode == 0
    with stack.up("decide"), stack.up("shadow"), stack.up("serve"):
        for name in ("decide", "shadow", "serve"):
            stack.wait_healthy(name)
        made = stack.run("cli", "keys", "create", "--role", "admin", "--json")
        assert made.returncode == 0, made.stderr
        address = f"http://127.0.0.1:{stack.ports['serve']}"
        body = (ROOT / "examples/refunds/request.json").read_bytes()
        with pytest.raises(HTTPError, match="401"):
            urlopen(Request(f"{address}/v1/decisions", body), timeout=30)
        ask = Request(f"{address}/v1/decisions", body, {"X-API-Key": json.loads(made.stdout)["key"]})
        record = json.load(urlopen(ask, timeout=30))
        assert record["schema"] == "lumyn.record/1" and not record["memory"]["available"]
        assert b"API key" in urlopen(f"{address}/console", timeout=30).read()


def test_without_qdrant_both_workers_stand_and_the_label_worker_says_that_it_waits(
    compose_broker: JavaBroker, tmp_path: Path
) -> None:
    stack = Stack(compose_broker.address, f"http://127.0.0.1:{free_port()}", tmp_path)
    assert stack.run("topics").returncode == 0
    with stack.up("labels"), stack.up("decide"):
        stack.wait_healthy("decide")
        deadline = time.monotonic() + 30
        while "qdrant can't be reached" not in (tmp_path / "labels.log").read_text():
            assert time.monotonic() < deadline, (tmp_path / "labels.log").read_text()[-2000:]
            time.sleep(0.2)
        assert not stack.healthy("labels")
    assert not stack.healthy("decide")


def test_qdrants_health_check_tells_an_answer_from_none(compose_qdrant: str) -> None:
    """The check's script, with the port of a real server in place of the container's."""
    _, *words = SERVICES["qdrant"]["healthcheck"]["test"]
    port = compose_qdrant.rpartition(":")[2]

    def check(number: str) -> int:
        script = [word.replace("$$", "$").replace("6333", number) for word in words]
        return subprocess.run(script, capture_output=True, timeout=10).returncode

    assert check(port) == 0
    assert check(str(free_port())) != 0
