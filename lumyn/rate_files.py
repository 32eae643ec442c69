"""Samples of behaviour rates in a home: a file each in `rates/`, seen by their own tenant only."""

from __future__ import annotations

import re
import uuid
from contextlib import suppress
from pathlib import Path

from lumyn.config import Settings
from lumyn.exporting import write_whole
from schemas.errors import LumynError, NotFound, StorageUnavailable
from schemas.limits import MAX_PACK_BYTES
from streams.rate_sample import RateSample, read_sample, write_sample
from streams.signing import SigningKey

FOLDER = "rates"
KEY_FILE = "keys/rates.pem"
"""Not the key of packs: a home that had none would believe no pack of others any more once it had one."""
_NAME = re.compile(r"rate-[0-9a-f]{12}")


def new_id() -> str:
    """The name of a new sample."""
    return f"rate-{uuid.uuid4().hex[:12]}"


def save(settings: Settings, sample: RateSample) -> Path:
    """Sign a sample with the home's key for samples and keep it, whole or not at all. Raises `StorageUnavailable`."""
    path = _file(settings, sample.header["rate_id"])
    with suppress(OSError):  # writing tells
        path.parent.mkdir(parents=True, exist_ok=True)
    write_whole(path, write_sample(sample, SigningKey.load_or_create(settings.home / KEY_FILE)))
    return path


def load(settings: Settings, name: str) -> RateSample:
    """A sample of this tenant. Raises `NotFound`; `IntegrityError` when it was changed."""
    none = NotFound(f"no sample `{name[:64]}`", help="`lumyn rate list` shows them")
    if not _NAME.fullmatch(name):
        raise none
    path = _file(settings, name)
    try:
        if path.stat().st_size > MAX_PACK_BYTES:
            raise StorageUnavailable("too large to be a sample", where=str(path))
        data = path.read_bytes()
    except FileNotFoundError:
        raise none from None
    except OSError as error:
        raise StorageUnavailable(f"can't be read: {error.strerror or error}", where=str(path)) from None
    sample = read_sample(data, str(path), _own_key(settings))
    if sample.header["tenant"] != settings.tenant or sample.header["rate_id"] != name:
        raise none
    return sample


def load_all(settings: Settings, kind: str | None = None) -> tuple[list[RateSample], list[LumynError]]:
    """All samples of this tenant, of a kind, oldest first, and what is wrong with those that can't be read."""
    found: list[RateSample] = []
    wrong: list[LumynError] = []
    for path in sorted((settings.home / FOLDER).glob("rate-*.jsonl")):
        try:
            found.append(load(settings, path.stem))
        except NotFound:
            continue
        except LumynError as error:
            wrong.append(error)
    chosen = [sample for sample in found if kind in (None, sample.header["kind"])]
    return sorted(chosen, key=lambda s: (s.header["created_at"], s.header["rate_id"])), wrong


def _own_key(settings: Settings) -> dict[str, str] | None:
    path = settings.home / KEY_FILE
    return {SigningKey.load_or_create(path).public.key_id: "own"} if path.exists() else None


def _file(settings: Settings, name: str) -> Path:
    return settings.home / FOLDER / f"{name}.jsonl"
