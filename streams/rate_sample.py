"""The stored sample of a behaviour rate: JSON lines, a header, a line a run, an end, and a signature over all of them.

The lines are canonical JSON. What is concluded is not stored: it is worked out again from the runs, so it can't differ
from them. Agents' answers are not stored either, only what they counted as.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from schemas.canonical import decode, encode
from schemas.digests import digest
from schemas.errors import IntegrityError, LumynError
from schemas.limits import MAX_PACK_BYTES
from streams.behaviour import Tally, tally_of
from streams.signing import PublicKey, SigningKey

SCHEMA = "lumyn.rate/1"
SIGNATURE = "lumyn.rate-signature/1"
_HEADER = {
    "rate_id", "kind", "tenant", "created_at", "decision_id", "record_digest", "input_digest", "recorded", "asked",
}  # fmt: skip
_RUN = {"run", "outcome", "failed", "exit_code", "seconds", "metadata"}


@dataclass(frozen=True, slots=True)
class RateSample:
    """A sample: what was asked, each run, and why it ended before all were made (None: all were)."""

    header: Mapping[str, Any]
    runs: Sequence[Mapping[str, Any]]
    stopped: str | None
    key_id: str | None = None

    @property
    def tally(self) -> Tally:
        """The outcomes."""
        return tally_of((run["outcome"], run["failed"]) for run in self.runs)


def write_sample(sample: RateSample, key: SigningKey) -> bytes:
    """The bytes of the file; the same arguments give the same bytes."""
    end = {"end": {"runs": len(sample.runs), "stopped": sample.stopped}}
    body = b"".join(
        encode(line) + b"\n" for line in ({"schema": SCHEMA, **sample.header}, *sample.runs, end)
    )
    statement = {"digest": digest(body), "key_id": key.public.key_id, "public_key": key.public.text}
    signed = {"schema": SIGNATURE, **statement, "signature": key.sign(encode(statement))}
    return body + encode(signed) + b"\n"


def read_sample(data: bytes, where: str, believed: Mapping[str, str] | None) -> RateSample:
    """Read a file back. `believed` are the ids of keys that count. Raises `IntegrityError` for what was changed."""
    if len(data) > MAX_PACK_BYTES:
        raise IntegrityError("too large to be a sample", where=where)
    lines = data.split(b"\n")
    if len(lines) < 4 or lines[-1]:
        raise IntegrityError("this is not a whole sample", where=where)
    *body, last = lines[:-1]
    try:
        signed = decode(last, where=f"{where}:{len(body) + 1}")
        statement = {name: signed[name] for name in ("digest", "key_id", "public_key")}
        key = PublicKey.from_text(signed["public_key"])
        if signed["schema"] != SIGNATURE or key.key_id != signed["key_id"]:
            raise IntegrityError("the signature does not name its own key", where=where)
        if not key.verify(signed["signature"], encode(statement)):
            raise IntegrityError(f"the signature is not key {key.key_id}'s", where=where)
        if digest(b"".join(line + b"\n" for line in body)) != signed["digest"]:
            raise IntegrityError("it was changed after it was signed", where=where)
        values = [decode(line, where=f"{where}:{number}") for number, line in enumerate(body, start=1)]
        return _sample(values, key.key_id, believed, where)
    except IntegrityError:
        raise
    except (LumynError, KeyError, TypeError, ValueError, AttributeError):
        raise IntegrityError("this is not a sample of a behaviour rate", where=where) from None


def _sample(values: list[dict[str, Any]], key_id: str, believed: Mapping[str, str] | None, where: str) -> RateSample:
    if believed is None or key_id not in believed:
        raise IntegrityError(f"it is signed by key {key_id}, which this home does not trust", where=where)
    first, *runs, last = values
    if first.get("schema") != SCHEMA or set(first) != {"schema", *_HEADER}:
        raise IntegrityError(f"its schema is not `{SCHEMA}`", where=where)
    if any(set(run) != _RUN for run in runs) or last["end"]["runs"] != len(runs):
        raise IntegrityError("its runs are not whole", where=where)
    header = {name: value for name, value in first.items() if name != "schema"}
    return RateSample(header, runs, last["end"]["stopped"], key_id)
