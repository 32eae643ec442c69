"""The doctor: looks at everything that deciding needs, and says of each thing how it is and how to mend it.

It only looks. What it opens it closes, and nothing that it does can be seen in a topic, a store or a home afterwards.
"""

from __future__ import annotations

import os
import platform
import shutil
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from importlib import metadata
from pathlib import Path
from urllib.parse import urlsplit

from lumyn.config import CONFIG_FILE, LumynConfig, Settings, resolve
from lumyn.findings import Finding, Status, failed, guarded
from lumyn.home import KEY_FILE
from lumyn.policy_file import load_policy_file
from lumyn.stores import make_vectoriser, uses_server
from schemas.errors import (
    EXIT_DIFFERENT,
    EXIT_OK,
    EXIT_UNREACHABLE,
    LumynError,
)
from schemas.record import ENGINE

MIB = 1024 * 1024
_LITTLE_SPACE = 1024 * MIB
_NO_SPACE = 100 * MIB
_BASE = ("pydantic", "orjson", "google-re2", "numpy", "tokenizers")
_KAFKA = ("confluent-kafka", "faust-streaming", "cramjam")
RUNTIME = frozenset(
    {
        "batch",
        "linger_s",
        "control_max_staleness_s",
        "inbox_sla_s",
        "session_timeout_s",
        "heartbeat_s",
        "rebalance_timeout_s",
        "check_partitions_s",
        "memory_max_staleness_s",
        "breaker_failures",
        "breaker_rest_s",
        "index_wait_s",
        "checkpoint_s",
        "kafka_timeout_s",
    }
)
"""What `[runtime]` of lumyn.toml may hold; another name there is a slip that would have no effect."""


def examine(config: LumynConfig | None = None, *, timeout_s: float = 10.0) -> Iterator[Finding]:
    """All findings, each as soon as it is known. `timeout_s`: how long a service may take for one answer."""
    try:
        settings = resolve(config)
    except LumynError as error:
        yield failed("settings", error)
        return
    yield from guarded("settings", lambda: _settings(settings))
    packages = list(_packages(settings))
    yield from packages
    yield from guarded("home", lambda: _home(settings))
    yield from guarded("policy", lambda: _policy(settings))
    yield from guarded("subject keys", lambda: _subject_keys(settings))
    if settings.kafka is None:
        from lumyn.doctor_home import examine_home

        yield from examine_home(settings)
    elif not any(finding.status == "fail" for finding in packages):
        from lumyn.doctor_kafka import examine_kafka

        yield from examine_kafka(settings, timeout_s)


def _subject_keys(settings: Settings) -> Iterator[Finding]:
    """Whether what is encrypted can be opened; silent where nothing is."""
    from lumyn.subject_keys import subject_keys

    keys = subject_keys(settings)
    found = keys.counts()
    keys.close()
    if found is None:
        if settings.encrypt_subjects:
            yield Finding("subject keys", "ok", "they are made with the first decision")
        return
    said = f"{found.get('live', 0)} keys, {found['hold']} on hold, {found.get('erased', 0)} destroyed"
    begun = found.get("erasing", 0)
    if begun:
        mend = "run the same `lumyn memory forget` again"
        yield Finding("subject keys", "warn", f"{said}; {begun} forgettings were broken off", mend)
    elif not settings.encrypt_subjects:
        mend = "is `[privacy] encrypt_subjects` meant to be off?"
        yield Finding("subject keys", "warn", f"{said}; new decisions are stored in clear", mend)
    else:
        yield Finding("subject keys", "ok", said)


def exit_code(findings: Iterable[Finding]) -> int:
    """0: nothing fails; 4: a service is unreachable; 1: something else fails."""
    failures = [finding for finding in findings if finding.status == "fail"]
    if any(finding.unreachable for finding in failures):
        return EXIT_UNREACHABLE
    return EXIT_DIFFERENT if failures else EXIT_OK


def is_near(host: str) -> bool:
    """Whether an address is this machine's own, which traffic never leaves."""
    return host in ("localhost", "::1") or host.startswith("127.")


def _settings(settings: Settings) -> Iterator[Finding]:
    make_vectoriser(settings)
    where = "over Kafka" if settings.kafka else "embedded, no servers"
    yield Finding("settings", "ok", f"{where}; home `{settings.home}`, prefix `{settings.prefix}`")
    for name in sorted({name for name, _ in settings.runtime} - RUNTIME):
        yield Finding(
            "settings", "warn", f"[runtime] `{name}` is no setting, and has no effect", f"correct it in {CONFIG_FILE}"
        )
    protocol = str(dict(settings.kafka_options).get("security.protocol", "plaintext")).lower()
    far = [a for a in (settings.kafka or "").split(",") if a and not is_near(a.strip().rpartition(":")[0].strip("[]"))]
    if far and protocol in ("plaintext", "sasl_plaintext"):
        yield Finding(
            "settings",
            "warn",
            f"traffic to the brokers is not encrypted ({protocol})",
            "set `security.protocol` under [kafka]: docs/run-on-kafka.md",
        )
    if settings.qdrant and uses_server(settings):
        yield from _qdrant_safety(settings)


def _qdrant_safety(settings: Settings) -> Iterator[Finding]:
    parts = urlsplit(settings.qdrant or "")
    if is_near(parts.hostname or ""):
        return
    if "api_key" not in dict(settings.qdrant_options):
        why = "qdrant is asked without an API key: whoever reaches it could rewrite the memory"
        yield Finding("settings", "warn", why, "set a key on the server, and LUMYN_QDRANT_API_KEY")
    if parts.scheme == "http":
        yield Finding("settings", "warn", "traffic to qdrant is not encrypted", "LUMYN_QDRANT=https://...")


def _packages(settings: Settings) -> Iterator[Finding]:
    wanted = [(name, "") for name in _BASE]
    if settings.kafka is not None:
        wanted += [(name, "kafka") for name in _KAFKA]
    if settings.qdrant is not None:
        wanted.append(("qdrant-client", "qdrant") if uses_server(settings) else ("qdrant-edge-py", "edge"))
    found = [f"lumyn-streams {_version('lumyn-streams')}", f"engine {ENGINE}", f"python {platform.python_version()}"]
    for name, extra in wanted:
        version = _version(name)
        if version:
            found.append(f"{name} {version}")
        else:
            package = f"lumyn-streams[{extra}]" if extra else "lumyn-streams"
            yield Finding("packages", "fail", f"`{name}` is not installed", f"pip install '{package}'")
    yield Finding("packages", "ok", ", ".join(found))


def _version(name: str) -> str:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return ""


def _home(settings: Settings) -> Iterator[Finding]:
    home = settings.home.absolute()
    there = next(folder for folder in (home, *home.parents) if folder.exists())
    try:
        with tempfile.TemporaryFile(dir=there) as probe:  # it has no name, so nothing can be left
            probe.write(b"x")
            probe.flush()
            os.fsync(probe.fileno())
        free = shutil.disk_usage(there).free
    except OSError as error:
        why = (error.strerror or str(error)).lower()
        yield Finding("home", "fail", f"`{there}` can't be written: {why}", "make it writable, or set LUMYN_HOME")
        return
    said = f"`{home}`" + ("" if there == home else " is made at the first use")
    status: Status = "fail" if free < _NO_SPACE else "warn" if free < _LITTLE_SPACE else "ok"
    mend = "" if status == "ok" else "free some space, or move LUMYN_HOME"
    yield Finding("home", status, f"{said}: writable, {free // MIB} MiB free", mend)
    yield from _key(home / KEY_FILE)


def _key(path: Path) -> Iterator[Finding]:
    if not path.exists():
        return
    if path.stat().st_mode & 0o077:
        yield Finding("home", "fail", f"`{path}`: others can read the signing key", f"chmod 600 {path}")
    else:
        yield Finding("home", "ok", "the signing key is its owner's alone")


def _policy(settings: Settings) -> Sequence[Finding]:
    if settings.policy_path is None:
        return []
    policy = load_policy_file(settings.policy_path)
    return [Finding("policy", "ok", f"`{settings.policy_path}` is valid: {policy.name}@{policy.version}")]
