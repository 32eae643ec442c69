"""Configuration: arguments, else environment, else lumyn.toml, else defaults. Secrets never print."""

from __future__ import annotations

import os
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from functools import lru_cache
from pathlib import Path
from typing import Any

from schemas.errors import BadConfig, NotFound
from schemas.request import DEFAULT_TENANT, TENANT

CONFIG_FILE = "lumyn.toml"
_ENVIRONMENT = {
    "home": "LUMYN_HOME",
    "policy_path": "LUMYN_POLICY",
    "kafka": "LUMYN_KAFKA",
    "qdrant": "LUMYN_QDRANT",
    "prefix": "LUMYN_PREFIX",
    "embedder": "LUMYN_EMBEDDER",
    "api_key": "LUMYN_API_KEY",
    "tenant": "LUMYN_TENANT",
    "actor": "LUMYN_ACTOR",
}
_IN_FILE = {"policy_path": "policy"}
# What `os.environ` keeps behind its encoding: looked at before every decision, only to see whether it has changed.
_raw_environment: Mapping[Any, Any] = getattr(os.environ, "_data", os.environ)
_encoded = getattr(os.environ, "encodekey", str) if _raw_environment is not os.environ else str
_raw_names = tuple(map(_encoded, _ENVIRONMENT.values()))


@dataclass(frozen=True)
class LumynConfig:
    """Settings; None means: not given here, look further.

    `policy_path`: the policy file. Given here it decides; from the environment or lumyn.toml it decides where no
    policy is active. `durable=False` trades the fsync of each commit for speed: a power cut may lose the last ones.
    """

    policy_path: str | os.PathLike[str] | None = None
    home: str | os.PathLike[str] | None = None
    tenant: str | None = None
    actor: str | None = None
    prefix: str | None = None
    embedder: str | None = None
    kafka: str | None = None
    qdrant: str | None = None
    api_key: str | None = field(default=None, repr=False)
    durable: bool = True


_NOTHING_GIVEN = LumynConfig()


@dataclass(frozen=True)
class Settings:
    """The configuration as it came out; every field has a value or is off."""

    home: Path
    policy_path: Path | None
    policy_given: bool
    tenant: str
    actor: str
    prefix: str
    embedder: str
    durable: bool
    api_key: str | None = field(default=None, repr=False)


def resolve(config: LumynConfig | None = None) -> Settings:
    """Settle where every setting comes from. Raises `BadConfig`."""
    config = config or _NOTHING_GIVEN
    file_status = file_stamp(CONFIG_FILE)
    surroundings = tuple(map(_raw_environment.get, _raw_names))
    return _resolve(config, surroundings, file_status, os.getcwd() if file_status else "")


def file_stamp(path: str) -> tuple[int, int] | None:
    """(mtime in ns, size) of a file, None where there is none: whether it is still the one that was read."""
    try:
        status = os.stat(path)  # noqa: PTH116 - on the path of every decision, and three times faster
    except OSError:
        return None
    return status.st_mtime_ns, status.st_size


@lru_cache(maxsize=64)
def _resolve(config: LumynConfig, *_surroundings: object) -> Settings:
    """Kept until the configuration, the environment or lumyn.toml is another."""
    file = _read_file(Path(CONFIG_FILE))
    found = {
        f.name: getattr(config, f.name)
        or os.environ.get(_ENVIRONMENT[f.name])
        or file.get(_IN_FILE.get(f.name, f.name))
        for f in fields(config)
        if f.name != "durable"
    }
    for name, value in found.items():
        if value is not None and not isinstance(value, str | os.PathLike):
            raise BadConfig(f"`{_IN_FILE.get(name, name)}` must be text", where=CONFIG_FILE)
    for name in ("kafka", "qdrant"):
        if found[name]:
            raise BadConfig(
                f"{_ENVIRONMENT[name]} is set, but this version runs embedded only",
                help=f"unset {_ENVIRONMENT[name]}: log and memory are then kept in LUMYN_HOME",
            )
    tenant = str(found["tenant"] or DEFAULT_TENANT)
    if not TENANT.match(tenant):
        raise BadConfig(f"tenant `{tenant}` must be 1 to 64 letters, digits, `_`, `.` or `-`")
    return Settings(
        home=Path(found["home"] or ".lumyn"),
        policy_path=Path(found["policy_path"]) if found["policy_path"] else None,
        policy_given=config.policy_path is not None,
        tenant=tenant,
        actor=str(found["actor"] or _user()),
        prefix=str(found["prefix"] or "lumyn"),
        embedder=str(found["embedder"] or "static"),
        durable=config.durable,
        api_key=found["api_key"],
    )


def _read_file(path: Path) -> dict[str, Any]:
    try:
        text = path.read_text(encoding="utf-8")
        value = tomllib.loads(text)
    except FileNotFoundError:
        return {}
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise BadConfig(f"can't be read: {error}", where=str(path)) from None
    known = {_IN_FILE.get(name, name) for name in _ENVIRONMENT}
    unknown = sorted(set(value) - known)
    if unknown:
        raise BadConfig(f"unknown setting `{unknown[0]}`", where=str(path), help=f"known: {', '.join(sorted(known))}")
    return value


def read_policy_file(path: Path) -> bytes:
    """A policy file's bytes. Raises `NotFound`, `BadConfig`."""
    try:
        return path.read_bytes()
    except FileNotFoundError:
        raise NotFound("no such policy file", where=str(path)) from None
    except OSError as error:
        raise BadConfig(f"the policy can't be read: {error.strerror or error}", where=str(path)) from None


def _user() -> str:
    import getpass

    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return f"uid-{os.getuid()}"
