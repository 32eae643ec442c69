"""Inclusion proofs: that a decision's record stood in the log when a checkpoint was signed."""

from __future__ import annotations

from collections.abc import Container, Mapping
from typing import Any

from schemas.checkpoint import PROOF_SCHEMA, InclusionProof
from schemas.errors import IntegrityError
from streams import merkle
from streams.checkpoints import Chain, root_text, signature_fault
from streams.integrity import Check
from streams.leaves import record_leaf, request_entry, split

_HASH_TEXT = len("sha256:") + 64


def prove(chain: Chain, record: Mapping[str, Any]) -> InclusionProof | None:
    """The proof of a sound record; None when no checkpoint covers it.

    Raises `IntegrityError` when the covering checkpoint was made for another record.
    """
    place = record["log"]
    stretch = chain.covering(place["topic"], place["partition"], place["offset"])
    if stretch is None:
        return None
    checkpoint = chain.load(stretch)
    leaf, leaves = record_leaf(record), split(checkpoint.leaves)
    index = place["offset"] - stretch.start
    if leaves[index] != request_entry(leaf):
        raise IntegrityError(
            f"checkpoint failed (checkpoint {stretch.number} was signed for another record than this)",
            where=f"decision {record['decision_id']}",
            help="the record is not what was decided; `lumyn verify` says what else differs",
        )
    return {
        "schema": PROOF_SCHEMA,
        "statement": checkpoint.statement,
        "public_key": checkpoint.public_key,
        "signature": checkpoint.signature,
        "leaf": leaf,
        "path": [root_text(beside) for beside in merkle.inclusion_path(leaves, index)],
    }


def check_proof(record: Mapping[str, Any], proof: InclusionProof, keys: Container[str] | None) -> Check:
    """Whether a proof is of this very record and leads to a root that a believed key has signed.

    `keys` None: any key's valid signature will do.
    """
    statement = proof["statement"]
    keys = {statement["key_id"]} if keys is None else keys
    wrong = (
        _leaf_fault(record, proof)
        or _path_fault(proof)
        or signature_fault(statement, proof["public_key"], proof["signature"], keys)
    )
    told = f"checkpoint {statement['number']} of {statement['up_to']}, signed by key {statement['key_id']}"
    return Check("checkpoint", wrong is None, told if wrong is None else wrong)


def _leaf_fault(record: Mapping[str, Any], proof: InclusionProof) -> str | None:
    expected, leaf, statement = record_leaf(record), proof["leaf"], proof["statement"]
    different = [name for name, value in expected.items() if leaf[name] != value]  # type: ignore[literal-required]
    if different:
        return f"the proof is of another record: its leaf has another {', '.join(different)}"
    if (statement["topic"], statement["partition"]) != (leaf["topic"], leaf["partition"]):
        return "the checkpoint covers another partition than the record's"
    if not statement["start"] <= leaf["offset"] < statement["end"]:
        return "the checkpoint does not cover the record's offset"
    return None


def _path_fault(proof: InclusionProof) -> str | None:
    statement, leaf = proof["statement"], proof["leaf"]
    path = [_hash(text) for text in proof["path"]]
    known = [beside for beside in path if beside is not None]
    size, index = statement["end"] - statement["start"], leaf["offset"] - statement["start"]
    root = merkle.root_from_path(request_entry(leaf), index, size, known) if len(known) == len(path) else None
    if root is None or root_text(root) != statement["root"]:
        return "the path from the record's leaf does not lead to the signed root"
    return None


def _hash(text: str) -> bytes | None:
    try:
        return bytes.fromhex(text.removeprefix("sha256:")) if len(text) == _HASH_TEXT else None
    except ValueError:
        return None
