"""Packs: one decision as a portable, signed ZIP, written the same way every time and read as hostile."""

from __future__ import annotations

import errno
import io
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from schemas.canonical import decode, decode_trusted, encode
from schemas.checkpoint import PROOF, InclusionProof
from schemas.digests import digest
from schemas.errors import BadPack, IntegrityError, LumynError, NotFound, StorageUnavailable, WrongKind
from schemas.label import EVENT
from schemas.limits import MAX_PACK_BYTES, MAX_POLICY_BYTES, MAX_RECORD_BYTES, MAX_RECORD_DEPTH
from schemas.record import ADAPTER, SCHEMA
from schemas.seal import Opening, is_sealed, opening_from, opening_text
from streams.lumyn1.pack import Lumyn1Pack, is_lumyn1, read_lumyn1
from streams.signing import PublicKey, SigningKey

RECORD = "decision_record.json"
REQUEST = "request.json"
POLICY = "policy.yml"
README = "README.txt"
SIGNATURE = "signature.json"
LABELS = "labels.jsonl"
CHECKPOINT = "checkpoint.json"
OPENING = "opening.json"
SCHEMA_OF_OPENING = "lumyn.opening/1"
_LIMITS = {
    RECORD: MAX_RECORD_BYTES,
    REQUEST: MAX_RECORD_BYTES,
    POLICY: MAX_POLICY_BYTES,
    README: 65536,
    SIGNATURE: 65536,
    LABELS: MAX_PACK_BYTES,
    CHECKPOINT: 65536,
    OPENING: 65536,
}
_REQUIRED = (RECORD, REQUEST, POLICY)
_SIGNATURE_SCHEMA = "lumyn.signature/1"
_ALGORITHM = "ed25519"
_SIGNATURE_KEYS = {"schema", "algorithm", "key_id", "public_key", "members", "signature"}
_EPOCH = (1980, 1, 1, 0, 0, 0)


@dataclass(frozen=True, slots=True)
class Pack:
    """A pack's parts, read but not yet believed: `streams.integrity` checks them."""

    path: str
    record: dict[str, Any]
    record_bytes: bytes
    request: dict[str, Any]
    policy_source: bytes
    signer: PublicKey | None
    labels: list[dict[str, Any]] | None
    proof: InclusionProof | None = None
    opening: Opening | None = None
    """What opens a sealed record; a redacted pack is without it, and so is one of a forgotten subject's decision."""


def write_pack(
    record_bytes: bytes,
    policy_source: bytes,
    key: SigningKey,
    *,
    labels: list[Mapping[str, Any]] | None = None,
    proof: InclusionProof | None = None,
    opening: Opening | None = None,
) -> bytes:
    """The bytes of a signed pack of one decision; the same arguments give the same bytes.

    `opening` opens this decision alone; without it the pack of a sealed record is a redacted one.
    """
    record = decode_trusted(record_bytes)
    members = {
        RECORD: record_bytes,
        REQUEST: encode(record["request"], finite=True),
        POLICY: policy_source,
        README: _readme(record, key, proof, redacted=is_sealed(record) and opening is None).encode("utf-8"),
    }
    if opening is not None:
        members[OPENING] = encode({"schema": SCHEMA_OF_OPENING, "key": opening_text(opening)})
    if proof is not None:
        members[CHECKPOINT] = encode(proof)
    if labels is not None:
        members[LABELS] = b"".join(encode(event, finite=True) + b"\n" for event in labels)
    members[SIGNATURE] = encode(_sign({name: digest(data) for name, data in members.items()}, key))
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in members.items():
            info = zipfile.ZipInfo(name, _EPOCH)
            info.compress_type = zipfile.ZIP_DEFLATED
            info.external_attr = 0o644 << 16
            archive.writestr(info, data)
    return buffer.getvalue()


def _sign(digests: dict[str, str], key: SigningKey) -> dict[str, Any]:
    return {
        "schema": _SIGNATURE_SCHEMA,
        "algorithm": _ALGORITHM,
        "key_id": key.public.key_id,
        "public_key": key.public.text,
        "members": digests,
        "signature": key.sign(encode(digests)),
    }


_REPLAY = (
    "Replay it:\n    lumyn replay THIS.zip\n"
    "Try another policy on it:\n    lumyn replay THIS.zip --policy candidate.yml\n"
)
_REDACTED = (
    "This pack is redacted: the personal part of the request, and what rules quoted of it, is encrypted, and its\n"
    "key is not here. Digests, signature and place in the log can be checked; it can't be decided again.\n"
)


def _readme(record: Mapping[str, Any], key: SigningKey, proof: InclusionProof | None, *, redacted: bool) -> str:
    return (
        f"Decision {record['decision_id']}: {record['verdict']}\n"
        f"Made {record['created_at']} by policy {record['policy']['name']}@{record['policy']['version']}.\n\n"
        f"{_REDACTED if redacted else _REPLAY}"
        "Check it:\n    lumyn verify THIS.zip\n\n"
        f"{RECORD}  the whole decision record\n{REQUEST}          the request, as it was decided\n"
        f"{POLICY}            the policy, byte for byte, at decision time\n"
        f"{SIGNATURE}        digests of these files, signed by key {key.public.key_id}\n"
        f"{_about_proof(proof)}"
    )


def _about_proof(proof: InclusionProof | None) -> str:
    if proof is None:
        return "\nNo checkpoint covered this decision when it was exported.\n"
    statement, leaf = proof["statement"], proof["leaf"]
    number, place = statement["number"], f"{leaf['topic']}/{leaf['partition']}/{leaf['offset']}"
    return (
        f"{CHECKPOINT}       this decision's place under checkpoint {number}\n\n"
        f"What {CHECKPOINT} shows: this very record stood in the log as the decision on request\n"
        f"{place} when checkpoint {number} was signed by key {statement['key_id']}, with all requests\n"
        f"of its range up to {statement['up_to']}. A record that was edited since does not fit it, even with\n"
        "every digest made right again. Keep the pack elsewhere: should the log be rewritten together\n"
        "with its checkpoints, `lumyn verify THIS.zip` at that log finds that this one is missing.\n"
        "It does not show that the decision was right, nor who held the key.\n"
    )


def read_pack(path: Path) -> Pack:
    """Open a pack and check that its signature, if it has one, covers its members.

    Raises `NotFound`; `WrongKind` for a file that neither is called `.zip` nor has anything of a ZIP file; `BadPack`
    (exit 3) for anything else that is not a whole, untouched pack.
    """
    return _read(_whole(path), str(path))


def read_any_pack(path: Path) -> Pack | Lumyn1Pack:
    """As `read_pack`; also packs that `lumyn` 1.x wrote, which are never signed."""
    members, where = _whole(path), str(path)
    if SIGNATURE not in members and b"decision_record.v" in members[RECORD]:
        try:
            record = decode(members[RECORD], where=f"{where}:{RECORD}", limit=MAX_RECORD_BYTES, depth=MAX_RECORD_DEPTH)
        except LumynError as error:
            raise BadPack(error.message, where=error.where) from None
        if is_lumyn1(record):
            return read_lumyn1(record, members[REQUEST], members[POLICY], where)
    return _read(members, where)


def _whole(path: Path) -> dict[str, bytes]:
    members = _members(path)
    missing = [name for name in _REQUIRED if name not in members]
    if missing:
        raise BadPack(f"`{missing[0]}` is missing from the pack", where=str(path))
    return members


def _read(members: Mapping[str, bytes], where: str) -> Pack:
    signer = _signer(members, where)
    try:
        record = decode(members[RECORD], where=f"{where}:{RECORD}", limit=MAX_RECORD_BYTES, depth=MAX_RECORD_DEPTH)
        request = decode(members[REQUEST], where=f"{where}:{REQUEST}", limit=MAX_RECORD_BYTES)
        lines = io.BytesIO(members.get(LABELS, b""))
        labels = [_event(line, f"{where}:{LABELS}:{number}") for number, line in enumerate(lines, start=1)]
        proof = _proof(members[CHECKPOINT], f"{where}:{CHECKPOINT}") if CHECKPOINT in members else None
    except LumynError as error:
        raise BadPack(error.message, where=error.where) from None
    _check_shape(record, f"{where}:{RECORD}")
    labelled = labels if LABELS in members else None
    opening = _opening(members[OPENING], record, f"{where}:{OPENING}") if OPENING in members else None
    return Pack(where, record, members[RECORD], request, members[POLICY], signer, labelled, proof, opening)


def _opening(data: bytes, record: Mapping[str, Any], where: str) -> Opening:
    value = decode(data, where=where)
    if not isinstance(value, dict) or value.get("schema") != SCHEMA_OF_OPENING or not is_sealed(record):
        raise BadPack("nothing in this pack is opened by it", where=where)
    try:
        return opening_from(value.get("key"), record)
    except IntegrityError as error:
        raise BadPack(error.message, where=where) from None


def _proof(data: bytes, where: str) -> InclusionProof:
    value = decode(data, where=where)
    try:
        PROOF.validate_python(value)
    except ValidationError:
        raise BadPack("not an inclusion proof", where=where) from None
    return value  # type: ignore[no-any-return]


def _event(line: bytes, where: str) -> dict[str, Any]:
    """A label event. Each is checked as it comes, so that a bomb of empty lines or values ends at its first."""
    event = decode(line, where=where, limit=MAX_RECORD_BYTES, depth=MAX_RECORD_DEPTH)
    try:
        EVENT.validate_python(event)
    except ValidationError:
        raise BadPack("not a label event", where=where) from None
    return event  # type: ignore[no-any-return]


def _members(path: Path) -> dict[str, bytes]:
    where = str(path)
    try:
        size = path.stat().st_size
        if size > MAX_PACK_BYTES:
            raise BadPack(f"{size} bytes, more than the {MAX_PACK_BYTES} of a pack", where=where)
        if not _may_be_pack(path):
            raise WrongKind("not a pack: it is no ZIP file", where=where, help="`lumyn export ID --pack` writes packs")
        with zipfile.ZipFile(path) as archive:
            return {info.filename: _member(archive, info, where) for info in _checked(archive, where)}
    except LumynError:
        raise
    except FileNotFoundError:
        raise NotFound("no such file", where=where) from None
    except IsADirectoryError:
        raise NotFound("this is a folder, not a pack", where=where) from None
    except OSError as error:
        if error.errno == errno.EINVAL:  # a directory that points to before the file's beginning
            raise BadPack("not a whole ZIP file: an offset in it is no place in the file", where=where) from None
        raise StorageUnavailable(f"can't be read: {error.strerror or error}", where=where) from None
    except (zipfile.BadZipFile, NotImplementedError, RuntimeError, EOFError, ValueError) as error:
        raise BadPack(f"not a whole ZIP file: {str(error)[:120].lower()}", where=where) from None
    except Exception as error:  # zlib and struct raise their own kinds on corrupt data
        raise BadPack(f"not a whole ZIP file: {str(error)[:120].lower()}", where=where) from None


def _may_be_pack(path: Path) -> bool:
    """Whether it is one by its name, or has the beginning or the end of a ZIP file: what is left of a damaged pack."""
    if path.suffix.lower() == ".zip":
        return True
    data = path.read_bytes()
    return data.startswith(b"PK") or b"PK\x05\x06" in data or b"PK\x01\x02" in data


def _checked(archive: zipfile.ZipFile, where: str) -> list[zipfile.ZipInfo]:
    """The members, if each is one that a pack may have, once, and not too large."""
    infos = archive.infolist()
    seen: set[str] = set()
    for info in infos:
        name = info.filename
        if name not in _LIMITS:
            raise BadPack(f"`{name[:80]}` does not belong in a pack", where=where)
        if name in seen:
            raise BadPack(f"`{name}` stands in the pack twice", where=where)
        seen.add(name)
        if info.flag_bits & 1:
            raise BadPack(f"`{name}` is encrypted", where=where)
        if info.file_size > _LIMITS[name]:
            raise BadPack(f"`{name}` unpacks to {info.file_size} bytes, more than {_LIMITS[name]}", where=where)
    return infos


def _member(archive: zipfile.ZipFile, info: zipfile.ZipInfo, where: str) -> bytes:
    """Read no more than the limit, whatever the header claims."""
    with archive.open(info) as file:
        data = file.read(_LIMITS[info.filename] + 1)
    if len(data) > _LIMITS[info.filename]:
        raise BadPack(f"`{info.filename}` unpacks to more than it says", where=where)
    return data


def _signer(members: Mapping[str, bytes], where: str) -> PublicKey | None:
    """The key that signed these very members. Raises `BadPack` when the signature does not hold."""
    if SIGNATURE not in members:
        return None
    try:
        value = decode(members[SIGNATURE], where=f"{where}:{SIGNATURE}")
        key = PublicKey.from_text(value["public_key"])
        digests, signature = value["members"], value["signature"]
        signed = encode(digests)
        if set(value) != _SIGNATURE_KEYS or not isinstance(digests, dict) or not isinstance(signature, str):
            raise BadPack("signature: it can't be read", where=f"{where}:{SIGNATURE}")
        if (value["schema"], value["algorithm"]) != (_SIGNATURE_SCHEMA, _ALGORITHM):
            raise BadPack(f"signature: it is not of schema `{_SIGNATURE_SCHEMA}` and `{_ALGORITHM}`", where=where)
        if value["key_id"] != key.key_id:
            raise BadPack("signature: it does not name its own key", where=where)
    except (KeyError, TypeError, LumynError) as error:
        if isinstance(error, IntegrityError):
            raise
        raise BadPack("signature: it can't be read", where=f"{where}:{SIGNATURE}") from None
    for name in sorted((set(members) | set(digests)) - {SIGNATURE}):
        if digests.get(name) != (digest(members[name]) if name in members else None):
            raise BadPack(f"signature: `{name}` is not what was signed", where=where)
    if not key.verify(signature, signed):
        raise BadPack(f"signature: it is not key {key.key_id}'s", where=where)
    return key


def _check_shape(record: Any, where: str) -> None:
    schema = record.get("schema") if isinstance(record, dict) else None
    if is_lumyn1(record):
        raise BadPack(f"a pack of lumyn 1.x (`{record['schema_version']}`), which is not signed", where=where)
    if schema != SCHEMA:
        newer = isinstance(schema, str) and schema.startswith(SCHEMA.rpartition("/")[0] + "/")
        raise BadPack(
            f"the record's schema is `{str(schema)[:80]}`, not `{SCHEMA}`",
            where=where,
            help="a newer lumyn wrote it: read it with that one" if newer else None,
        )
    try:
        ADAPTER.validate_python(record)
    except ValidationError as error:
        problem = error.errors(include_url=False, include_input=False)[0]
        path = ".".join(str(part) for part in problem["loc"])
        raise BadPack(f"the record's `{path}`: {problem['msg'].lower()}", where=where) from None
