"""The policy of a file, compiled once for as long as the file stays as it is."""

from __future__ import annotations

from pathlib import Path

from lumyn.config import file_stamp, read_policy_file
from streams.policy import CompiledPolicy, load_policy

_policies: dict[Path, tuple[tuple[int, int] | None, CompiledPolicy]] = {}


def load_policy_file(path: Path) -> CompiledPolicy:
    """The compiled policy of a file, kept until the file changes. Raises `PolicyInvalid`, `NotFound`."""
    stamp = file_stamp(str(path))
    known = _policies.get(path)
    if known is None or known[0] != stamp:
        known = _policies[path] = (stamp, load_policy(read_policy_file(path), name=str(path)))
    return known[1]
