"""Ed25519 signatures: who vouches for a pack. The key's id is the first 16 hex digits of its public half's sha256."""

from __future__ import annotations

import base64
import binascii
import hashlib
import os
from dataclasses import dataclass
from pathlib import Path

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from schemas.errors import IntegrityError, StorageUnavailable


@dataclass(frozen=True, slots=True)
class PublicKey:
    """A public key, as 32 raw bytes."""

    raw: bytes

    @property
    def key_id(self) -> str:
        """The short name of the key."""
        return hashlib.sha256(self.raw).hexdigest()[:16]

    @property
    def text(self) -> str:
        """Base64 of the raw key."""
        return base64.b64encode(self.raw).decode("ascii")

    @classmethod
    def from_text(cls, text: str) -> PublicKey:
        """Raises `IntegrityError` when it is not a key."""
        try:
            raw = base64.b64decode(text, validate=True)
        except (binascii.Error, ValueError):
            raw = b""
        if len(raw) != 32:
            raise IntegrityError("signature: the public key is not an Ed25519 key")
        return cls(raw)

    def verify(self, signature: str, data: bytes) -> bool:
        """Whether a base64 signature over bytes is this key's; another spelling of the same bits is none."""
        try:
            raw = base64.b64decode(signature, validate=True)
            Ed25519PublicKey.from_public_bytes(self.raw).verify(raw, data)
        except (InvalidSignature, binascii.Error, ValueError):
            return False
        return base64.b64encode(raw).decode("ascii") == signature


class SigningKey:
    """A private key. Its repr shows the id alone."""

    def __init__(self, private: Ed25519PrivateKey) -> None:
        self._private = private
        self.public = PublicKey(
            private.public_key().public_bytes(serialization.Encoding.Raw, serialization.PublicFormat.Raw)
        )

    def __repr__(self) -> str:
        return f"SigningKey({self.public.key_id})"

    def sign(self, data: bytes) -> str:
        """Base64 signature over bytes."""
        return base64.b64encode(self._private.sign(data)).decode("ascii")

    @classmethod
    def load_or_create(cls, path: Path) -> SigningKey:
        """The key in a PEM file of mode 0600; made at first use. Raises `StorageUnavailable`."""
        try:
            if not path.exists():
                _create(path)
            private = serialization.load_pem_private_key(path.read_bytes(), password=None)
        except (OSError, ValueError) as error:
            raise StorageUnavailable(f"the signing key can't be used: {error}", where=str(path)) from None
        if not isinstance(private, Ed25519PrivateKey):
            raise StorageUnavailable("the signing key is not an Ed25519 key", where=str(path))
        return cls(private)


def _create(path: Path) -> None:
    """Write a new key whole or not at all; of two processes at once, the first one's key stays."""
    path.parent.mkdir(parents=True, exist_ok=True)
    pem = Ed25519PrivateKey.generate().private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    handle = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(handle, "wb") as file:
        file.write(pem)
        file.flush()
        os.fsync(file.fileno())
    try:
        os.link(temporary, path)
    except FileExistsError:
        pass
    finally:
        temporary.unlink(missing_ok=True)
