"""Telling that a home has a signing key from now on: what others signed is then refused until it is trusted."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from lumyn.cli.output import say

if TYPE_CHECKING:
    from lumyn.home import Home


@contextmanager
def telling_new_key(home: Home) -> Iterator[None]:
    """Say so where what is done within makes the first key that the home knows."""
    from lumyn.replaying import trusted_keys

    before = trusted_keys(home.path)
    yield
    if before is None and (known := trusted_keys(home.path)) is not None:
        say(f"made this home's signing key, {next(iter(known))}: packs and attestations by other keys are refused here")
        say("  from now on, also those that were accepted while no key was known; `lumyn keys trust` names others")
