"""The Merkle root of a range: which records, exactly, a report speaks of."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from streams import merkle
from streams.checkpoints import root_text

HASH_BYTES = 32


class RangeRoot:
    """A tree (RFC 9162) a partition over the digests of its records in order, and one over the partitions' roots.

    A record's leaf is its `record_digest`; one whose digest doesn't hold has the sha256 of its bytes. A partition's
    leaf is its number and size (8 bytes each, big-endian) and its root. How the range was cut makes no difference.
    """

    def __init__(self) -> None:
        self._trees: dict[int, merkle.Growing] = {}

    def add(self, partition: int, leaves: bytes) -> None:
        """Add leaves, each by its 32 bytes of `leaf_hash`, in the partition's order."""
        tree = self._trees.setdefault(partition, merkle.Growing())
        for at in range(0, len(leaves), HASH_BYTES):
            tree.add(leaves[at : at + HASH_BYTES])

    def text(self) -> str:
        """The root so far, as `sha256:<hex>`."""
        leaves = [
            partition.to_bytes(8, "big") + tree.size.to_bytes(8, "big") + tree.root()
            for partition, tree in sorted(self._trees.items())
            if tree.size
        ]
        return root_text(merkle.root(leaves))

    def as_dict(self) -> dict[str, Any]:
        """JSON form."""
        return {str(partition): tree.as_dict() for partition, tree in self._trees.items()}

    @classmethod
    def from_dict(cls, value: Mapping[str, Any]) -> RangeRoot:
        made = cls()
        made._trees = {int(partition): merkle.Growing.from_dict(tree) for partition, tree in value.items()}
        return made
