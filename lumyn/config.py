"""Configuration: arguments, else environment, else lumyn.toml, else defaults. Secrets never print."""

from __future__ import annotations

import os
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, fields
from functools import lru_cache
from pathlib import Path
from stat import S_ISDIR
from typing import Any, NoReturn

from schemas.errors import BadConfig, NotFound
from schemas.tenant import DEFAULT_TENANT, TENANT

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
    "encrypt_subjects": "LUMYN_ENCRYPT_SUBJECTS",
    "subject_keys": "LUMYN_SUBJECT_KEYS",
    "master_key": "LUMYN_MASTER_KEY",
    "master_key_file": "LUMYN_MASTER_KEY_FILE",
    "callback_secret": "LUMYN_CALLBACK_SECRET",
}
_IN_FILE = {"policy_path": "policy"}
_TABLES = ("kafka", "qdrant", "memory", "runtime", "privacy", "serve")
_PRIVACY = ("encrypt_subjects", "subject_keys", "master_key_file", "redact")
"""Settings of the `[privacy]` table. The master key itself comes from the environment or a file, never from here."""
_NOT_IN_FILE = ("master_key", "callback_secret", *_PRIVACY)
_SERVE = ("callback_hosts",)
_SWITCH = {"1": True, "true": True, "yes": True, "on": True, "0": False, "false": False, "no": False, "off": False}
_RECALLS = ("server", "local")
_OPTION_PREFIXES = ("LUMYN_KAFKA_", "LUMYN_QDRANT_", "LUMYN_MEMORY_")
Options = tuple[tuple[str, str | int | float | bool], ...]
"""Settings of a client library, sorted; they may hold secrets."""
# What `os.environ` keeps behind its encoding: looked at before every decision, only to see whether it has changed.
_raw_environment: Mapping[Any, Any] = getattr(os.environ, "_data", os.environ)
_encoded = getattr(os.environ, "encodekey", str) if _raw_environment is not os.environ else str
_raw_names = tuple(map(_encoded, _ENVIRONMENT.values()))


@dataclass(frozen=True)
class LumynConfig:
    """Settings; None means: not given here, look further.

    `policy_path`: the policy file. Given here it decides; from the environment or lumyn.toml it decides where no
    policy is active, and with `policy_until_active`, too (not over Kafka, where workers choose). `durable=False` trades
    the fsync of each commit for speed: a power cut may lose the last ones.
    `timeout_s`: how long a call waits for its decision over Kafka. `encrypt_subjects`: the personal part of requests,
    records and labels is stored under a key of its subject's own (docs/forgetting.md); `subject_keys` is the file of
    those keys, which `master_key` (32 bytes in base64 or hex; or a file that holds it) wraps.
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
    timeout_s: float = 30.0
    encrypt_subjects: bool | None = None
    subject_keys: str | os.PathLike[str] | None = None
    master_key: str | None = field(default=None, repr=False)
    master_key_file: str | os.PathLike[str] | None = None
    callback_secret: str | None = field(default=None, repr=False)
    policy_until_active: bool = False


_NOTHING_GIVEN = LumynConfig()
DEFAULT_EMBEDDER = "static"


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
    kafka: str | None = None
    qdrant: str | None = None
    kafka_options: Options = field(default=(), repr=False)
    qdrant_options: Options = field(default=(), repr=False)
    runtime: Options = ()
    recall: str = "server"
    """Where decide workers ask their memory: the Qdrant server, or an exact index of their own."""
    timeout_s: float = 30.0
    encrypt_subjects: bool = False
    subject_keys: Path | None = None
    master_key: str | None = field(default=None, repr=False)
    master_key_file: Path | None = None
    redact: tuple[str, ...] = ()
    """Fields that the record index and the memory must not hold: `evidence.email`."""
    callback_hosts: tuple[str, ...] = ()
    """Where `lumyn serve` may send a decision that was not waited for: `hooks.example.com`, `http://10.0.0.5:8080`."""
    callback_secret: str | None = field(default=None, repr=False)
    """What those callbacks are signed with."""

    def runtime_setting(self, name: str, default: float) -> float:
        """A number of the `[runtime]` table."""
        value = dict(self.runtime).get(name, default)
        if isinstance(value, bool) or not isinstance(value, int | float) or value <= 0:
            raise BadConfig(f"[runtime] `{name}` must be a number above 0", where=CONFIG_FILE)
        return float(value)


def resolve(config: LumynConfig | None = None) -> Settings:
    """Settle where every setting comes from. Raises `BadConfig`, also for a home that is a file."""
    config = config or _NOTHING_GIVEN
    file_status = file_stamp(CONFIG_FILE)
    surroundings: tuple[object, ...] = tuple(map(_raw_environment.get, _raw_names))
    if config.kafka or config.qdrant or os.environ.get("LUMYN_KAFKA") or os.environ.get("LUMYN_QDRANT") or file_status:
        surroundings += tuple(sorted(item for item in os.environ.items() if item[0].startswith(_OPTION_PREFIXES)))
    settings = _resolve(config, surroundings, file_status, os.getcwd() if file_status else "")
    if _is_no_folder(settings.home):
        _refuse(settings.home)
    return settings


def _is_no_folder(home: Path) -> bool:
    """Whether something else stands there, or on the way there."""
    try:
        return not S_ISDIR(os.stat(home).st_mode)  # noqa: PTH116 - on the path of every decision
    except NotADirectoryError:
        return True
    except OSError:  # not there yet, or whoever opens it says why it can't
        return False


def _refuse(home: Path) -> NoReturn:
    file = next((one for one in reversed((home, *home.parents)) if one.exists() and not one.is_dir()), home)
    raise BadConfig(
        "the home of decisions must be a folder, and a file stands there", where=str(home),
        help=f"move the file `{file}` away, or name another folder: LUMYN_HOME",
    )  # fmt: skip


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
        or (None if f.name in _NOT_IN_FILE else _from_file(file, _IN_FILE.get(f.name, f.name)))
        for f in fields(config)
        if f.name not in ("durable", "timeout_s", "encrypt_subjects", "policy_until_active")
    }
    privacy = _privacy(file)
    for name, value in found.items():
        if value is not None and not isinstance(value, str | os.PathLike):
            raise BadConfig(f"`{_IN_FILE.get(name, name)}` must be text", where=CONFIG_FILE)
    qdrant = str(found["qdrant"]) if found["qdrant"] else None
    if qdrant and not qdrant.startswith(("http://", "https://", "edge:")):
        forms = "`http://HOST:PORT`, `https://HOST:PORT` or `edge:FOLDER`"
        raise BadConfig(f"LUMYN_QDRANT is `{qdrant}`", help=f"it is {forms}")
    tenant = str(found["tenant"] or DEFAULT_TENANT)
    if not TENANT.match(tenant):
        raise BadConfig(f"tenant `{tenant}` must be 1 to 64 letters, digits, `_`, `.` or `-`")
    return Settings(
        home=Path(found["home"] or ".lumyn"),
        policy_path=Path(found["policy_path"]) if found["policy_path"] else None,
        policy_given=config.policy_path is not None and not (config.policy_until_active and not found["kafka"]),
        tenant=tenant,
        actor=str(found["actor"] or _user()),
        prefix=str(found["prefix"] or "lumyn"),
        embedder=str(found["embedder"] or DEFAULT_EMBEDDER),
        durable=config.durable,
        api_key=found["api_key"],
        kafka=str(found["kafka"]) if found["kafka"] else None,
        qdrant=qdrant,
        kafka_options=_options(file, "kafka", "."),
        qdrant_options=_options(file, "qdrant", "_"),
        runtime=_options(file, "runtime", "."),
        recall=_recall(file),
        timeout_s=config.timeout_s,
        encrypt_subjects=_encrypts(config, privacy),
        subject_keys=_path(found["subject_keys"] or privacy.get("subject_keys")),
        master_key=found["master_key"],
        master_key_file=_path(found["master_key_file"] or privacy.get("master_key_file")),
        redact=_redacted(privacy),
        callback_hosts=_texts(_table(file, "serve", _SERVE), "serve", "callback_hosts"),
        callback_secret=found["callback_secret"],
    )


def _privacy(file: Mapping[str, Any]) -> dict[str, Any]:
    """The `[privacy]` table. A word that is misspelt must not leave in clear what was to be encrypted."""
    table = _table(file, "privacy", _PRIVACY)
    for name in ("subject_keys", "master_key_file"):
        if not isinstance(table.get(name, ""), str):
            raise BadConfig(f"[privacy] `{name}` must be a path", where=CONFIG_FILE)
    return table


def _table(file: Mapping[str, Any], name: str, known: tuple[str, ...]) -> dict[str, Any]:
    """A table of known settings. Raises `BadConfig`."""
    table = file.get(name, {})
    unknown = sorted(set(table) - set(known)) if isinstance(table, dict) else [name]
    if unknown:
        raise BadConfig(f"[{name}] unknown option `{unknown[0]}`", where=CONFIG_FILE, help=f"known: {', '.join(known)}")
    return dict(table)


def _texts(table: Mapping[str, Any], name: str, option: str) -> tuple[str, ...]:
    """A list of texts. Raises `BadConfig`."""
    given = table.get(option, [])
    if not isinstance(given, list) or not all(isinstance(one, str) and one for one in given):
        raise BadConfig(f"[{name}] `{option}` must be a list of texts", where=CONFIG_FILE)
    return tuple(given)


def _redacted(privacy: Mapping[str, Any]) -> tuple[str, ...]:
    """The paths of `[privacy] redact`. Raises `BadConfig` for one that can't be kept out."""
    paths = tuple(sorted(set(_texts(privacy, "privacy", "redact"))))
    if paths:
        from memory_service.redaction import refused_path

        for path in paths:
            if why := refused_path(path):
                raise BadConfig(f"[privacy] `redact`: `{path}` can't be kept out", where=CONFIG_FILE, help=why)
    return paths


def _encrypts(config: LumynConfig, privacy: Mapping[str, Any]) -> bool:
    """Whether subjects are encrypted. Raises `BadConfig` for what is neither yes nor no."""
    if config.encrypt_subjects is not None:
        return config.encrypt_subjects
    text = os.environ.get(_ENVIRONMENT["encrypt_subjects"])
    if text:
        if text.lower() not in _SWITCH:
            raise BadConfig(f"LUMYN_ENCRYPT_SUBJECTS is `{text}`", help="it is `true` or `false`")
        return _SWITCH[text.lower()]
    given = privacy.get("encrypt_subjects", False)
    if not isinstance(given, bool):
        raise BadConfig("[privacy] `encrypt_subjects` must be true or false", where=CONFIG_FILE)
    return given


def _path(given: Any) -> Path | None:
    return Path(given) if given else None


def _from_file(file: Mapping[str, Any], name: str) -> Any:
    """A setting of lumyn.toml; a table (`[kafka]`) holds the address as `address`, beside the client's options."""
    value = file.get(name)
    return value.get("address") if name in _TABLES and isinstance(value, dict) else value


def _options(file: Mapping[str, Any], table: str, joint: str) -> Options:
    """A client's options: the table's, and over them `LUMYN_KAFKA_SASL_PASSWORD` and the like of the environment."""
    given = file.get(table)
    options = dict(_flat(given, joint)) if isinstance(given, dict) else {}
    options.pop("address", None)
    prefix = f"LUMYN_{table.upper()}_"
    for name, text in os.environ.items():
        if name.startswith(prefix):
            options[name.removeprefix(prefix).lower().replace("_", joint)] = text
    return tuple(sorted(options.items()))


def _recall(file: Mapping[str, Any]) -> str:
    if not isinstance(file.get("memory", {}), dict):
        raise BadConfig("`memory` must be a table", where=CONFIG_FILE, help='[memory] recall = "local"')
    given = dict(_options(file, "memory", "."))
    recall = given.pop("recall", "server")
    if given:
        raise BadConfig(f"[memory] unknown option `{min(given)}`", where=CONFIG_FILE, help="known: recall")
    if recall not in _RECALLS:
        raise BadConfig(f"[memory] `recall` is `{recall}`", help="it is `server` or `local`")
    return str(recall)


def _flat(table: Mapping[str, Any], joint: str) -> Iterator[tuple[str, Any]]:
    for name, value in table.items():
        if isinstance(value, dict):
            yield from ((f"{name}{joint}{inner}", v) for inner, v in _flat(value, joint))
        elif isinstance(value, str | int | float):
            yield name, value
        else:
            raise BadConfig(f"`{name}` must be text, a number, true or false", where=CONFIG_FILE)


def _read_file(path: Path) -> dict[str, Any]:
    try:
        text = path.read_text(encoding="utf-8")
        value = tomllib.loads(text)
    except FileNotFoundError:
        return {}
    except UnicodeDecodeError as error:
        raise BadConfig(f"can't be read: not utf-8 at byte {error.start}", where=str(path)) from None
    except (OSError, tomllib.TOMLDecodeError) as error:
        why = (error.strerror if isinstance(error, OSError) else None) or str(error)
        raise BadConfig(f"can't be read: {why[:1].lower()}{why[1:]}", where=str(path)) from None
    known = {_IN_FILE.get(name, name) for name in _ENVIRONMENT if name not in _NOT_IN_FILE}
    known |= {"memory", "runtime", "privacy", "serve"}
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
