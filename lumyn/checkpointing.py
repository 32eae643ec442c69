"""Checkpoints of a home: making them, reading their chain with the keys that the home believes, proving a decision."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

from lumyn.home import Home
from lumyn.replaying import trusted_keys
from schemas.checkpoint import InclusionProof
from schemas.errors import IntegrityError, StorageUnavailable
from streams.checkpoints import Chain
from streams.proof import prove
from streams.reading import is_embedded

if TYPE_CHECKING:
    from streams.checkpointer import Checkpointer

_one_at_a_time = threading.Lock()
_checkpointers: WeakKeyDictionary[Home, Checkpointer] = WeakKeyDictionary()
_chains: WeakKeyDictionary[Home, tuple[frozenset[str], Chain]] = WeakKeyDictionary()


def home_chain(home: Home, *, wanted: str | None = None, check_leaves: bool = True) -> Chain:
    """The whole chain as the home's log holds it now, every signature, link and (unless they are not needed) root."""
    chain = Chain(home.log, _keys(home), wanted=wanted, check_leaves=check_leaves)
    chain.catch_up()
    return chain


def home_checkpointer(home: Home) -> Checkpointer:
    """The home's checkpointer, with its own key."""
    if home not in _checkpointers:
        _checkpointers[home] = own_checkpointer(home)
    return _checkpointers[home]


def own_checkpointer(home: Home) -> Checkpointer:
    """A checkpointer for one thread alone, with the home's key."""
    from streams.checkpointer import Checkpointer

    return Checkpointer(home.log, home.signing_key(), _keys(home))


def inclusion_proof(home: Home, record: Mapping[str, Any]) -> InclusionProof | None:
    """The proof that a sound record is under a checkpoint. The embedded log makes one first where none covers it.

    None where there is none: on Kafka the index worker makes them; here the log may not be writable, or another part
    of it not sound. Raises `IntegrityError` when the checkpoint was made for another record.
    """
    proof = prove(_light_chain(home), record)
    if proof is None and is_embedded(home.log):
        with suppress(IntegrityError, StorageUnavailable):
            home_checkpointer(home).run()
        proof = prove(_light_chain(home), record)
    return proof


@contextmanager
def kept_chain(home: Home) -> Iterator[Chain]:
    """The chain that a server keeps and reads on, for one thread at a time: roots are checked where they are used."""
    with _one_at_a_time:
        yield _light_chain(home)


def _light_chain(home: Home) -> Chain:
    """The chain with its roots left unchecked but where they are used; kept, and read on from where it was."""
    keys = _keys(home)
    known = _chains.get(home)
    if known is None or known[0] != keys:
        known = _chains[home] = (keys, Chain(home.log, keys, check_leaves=False))
    known[1].catch_up()
    return known[1]


def _keys(home: Home) -> frozenset[str]:
    return frozenset(trusted_keys(home.path) or ())
