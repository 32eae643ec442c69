"""Merkle trees as in RFC 9162, section 2.1 (the trees of certificate transparency): root, inclusion path, its check."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from typing import Any


def leaf_hash(data: bytes) -> bytes:
    """SHA-256 of a leaf's data; the prefix keeps a leaf from being taken for a node."""
    return hashlib.sha256(b"\x00" + data).digest()


def node_hash(left: bytes, right: bytes) -> bytes:
    """SHA-256 of two hashes below a node."""
    return hashlib.sha256(b"\x01" + left + right).digest()


def root(leaves: Sequence[bytes]) -> bytes:
    """The tree's root over the leaves' data, in order; of no leaves, the hash of nothing."""
    level = [leaf_hash(data) for data in leaves]
    if not level:
        return hashlib.sha256().digest()
    while len(level) > 1:
        level = _above(level)
    return level[0]


class Growing:
    """A tree that leaves are added to in order, with memory for one hash a level; its root is `root`'s of the same."""

    def __init__(self) -> None:
        self._whole: list[tuple[int, bytes]] = []
        self.size = 0

    def add(self, hashed: bytes) -> None:
        """Add a leaf by its `leaf_hash`."""
        height = 0
        while self._whole and self._whole[-1][0] == height:
            hashed = node_hash(self._whole.pop()[1], hashed)
            height += 1
        self._whole.append((height, hashed))
        self.size += 1

    def root(self) -> bytes:
        """The root over all leaves so far."""
        if not self._whole:
            return hashlib.sha256().digest()
        found = self._whole[-1][1]
        for _, left in reversed(self._whole[:-1]):
            found = node_hash(left, found)
        return found

    def as_dict(self) -> dict[str, Any]:
        """JSON form, from which `from_dict` goes on."""
        return {"size": self.size, "whole": [[height, hashed.hex()] for height, hashed in self._whole]}

    @classmethod
    def from_dict(cls, value: Mapping[str, Any]) -> Growing:
        made = cls()
        made.size = value["size"]
        made._whole = [(height, bytes.fromhex(hashed)) for height, hashed in value["whole"]]
        return made


def inclusion_path(leaves: Sequence[bytes], index: int) -> list[bytes]:
    """The hashes beside the way from a leaf up to the root, the lowest first. Raises `IndexError`."""
    if not 0 <= index < len(leaves):
        raise IndexError(f"leaf {index} of {len(leaves)}")
    path = []
    level = [leaf_hash(data) for data in leaves]
    while len(level) > 1:
        if index ^ 1 < len(level):
            path.append(level[index ^ 1])
        level, index = _above(level), index >> 1
    return path


def root_from_path(data: bytes, index: int, size: int, path: Sequence[bytes]) -> bytes | None:
    """The root that a leaf at `index` of `size` and its path lead to; None when there is no such path (2.1.3.2)."""
    if not 0 <= index < size:
        return None
    left, last, found = index, size - 1, leaf_hash(data)
    for beside in path:
        if last == 0:
            return None
        if left & 1 or left == last:
            found = node_hash(beside, found)
            while not left & 1 and left:
                left, last = left >> 1, last >> 1
        else:
            found = node_hash(found, beside)
        left, last = left >> 1, last >> 1
    return found if last == 0 else None


def _above(level: Sequence[bytes]) -> list[bytes]:
    """The next level: pairs are joined, an odd one goes up as it is, which gives the RFC's left-filled tree."""
    joined = [node_hash(level[i], level[i + 1]) for i in range(0, len(level) - 1, 2)]
    return [*joined, level[-1]] if len(level) % 2 else joined
