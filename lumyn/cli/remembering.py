"""After a label: the command returns when the next decision is made with it, or says that it is not yet."""

from __future__ import annotations

from typing import TYPE_CHECKING

from lumyn.cli.output import say

if TYPE_CHECKING:
    from lumyn.home import Home

_WITHIN_S = 5.0


def wait_for_memory(home: Home, version: int) -> None:
    """Wait until the memory stands at a version; says so when it does not in time: the labels stand all the same."""
    if not home.remembers(version, _WITHIN_S):
        say(f"the memory is not at version {version} yet; `lumyn doctor` says where it stands")
