"""The key store of a home's subjects, from settings; and the master key, which is never printed."""

from __future__ import annotations

import base64
import binascii
import os
import secrets
from pathlib import Path

from lumyn.config import Settings
from memory_service.wal import may_be_written
from schemas.errors import BadConfig, KeysUnavailable
from schemas.seal import KEY_BYTES
from streams.sqlite_keys import SqliteSubjectKeys

KEYS_FILE = "keys/subjects.db"
MASTER_FILE = "keys/master.key"
_HELP = "32 random bytes in base64 or hex: `openssl rand -base64 32`"


def subject_keys(settings: Settings, *, read_only: bool = False) -> SqliteSubjectKeys:
    """The configured key store; opened when it is first used, and made when the first subject is encrypted.

    A `read_only` home's is opened for reading where it may not be written.
    """
    home = settings.home.absolute()
    path = settings.subject_keys.absolute() if settings.subject_keys else home / KEYS_FILE
    shut = read_only and not may_be_written(path)
    return SqliteSubjectKeys(path, lambda fresh: _master_key(settings, home, make=fresh), read_only=shut)


def _master_key(settings: Settings, home: Path, *, make: bool) -> bytes:
    """The master key. In an embedded home, and for a new key store, one is made where none is given.

    Raises `BadConfig`, `KeysUnavailable`.
    """
    if settings.master_key:
        return _decoded(settings.master_key, "LUMYN_MASTER_KEY")
    path = settings.master_key_file or home / MASTER_FILE
    try:
        return _decoded(path.read_text(encoding="ascii").strip(), str(path))
    except FileNotFoundError:
        pass
    except (OSError, UnicodeDecodeError) as error:
        raise KeysUnavailable(f"the master key can't be read: {error}", where=str(path)) from None
    if settings.kafka is not None or settings.master_key_file is not None or not make:
        raise KeysUnavailable(
            "there is no master key", where=str(path), help=f"set LUMYN_MASTER_KEY, or put the key there: {_HELP}"
        )
    return _made(path)


def _made(path: Path) -> bytes:
    """A new master key in its file, whole or not at all; another process may have been quicker."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle = os.open(temporary, os.O_CREAT | os.O_WRONLY | os.O_TRUNC, 0o600)
        with os.fdopen(handle, "wb") as file:
            file.write(base64.b64encode(secrets.token_bytes(KEY_BYTES)) + b"\n")
            file.flush()
            os.fsync(file.fileno())
        try:
            os.link(temporary, path)
        except FileExistsError:
            pass
        finally:
            temporary.unlink()
        return _decoded(path.read_text(encoding="ascii").strip(), str(path))
    except OSError as error:
        raise KeysUnavailable(f"the master key can't be made: {error.strerror or error}", where=str(path)) from None


def _decoded(text: str, where: str) -> bytes:
    for decode in (bytes.fromhex, _base64):
        try:
            key = decode(text)
        except ValueError:
            continue
        if len(key) == KEY_BYTES:
            return key
    raise BadConfig("this is no master key", where=where, help=f"it is {_HELP}")


def _base64(text: str) -> bytes:
    try:
        return base64.b64decode(text, validate=True)
    except binascii.Error as error:
        raise ValueError from error
