"""What a sequencer knows of the events before: whose turn a change is made from, and who is held."""

from __future__ import annotations

from collections.abc import Sequence

from schemas.label import LabelEvent, key_of, labeller_key, speaks_of_labeller


class Told:
    """The version of the last event of each decision and labeller, and what was said of labellers; over an earlier."""

    def __init__(self, before: Told | None = None) -> None:
        self._before = before
        self._last: dict[str, int] = {}
        self._trusts: dict[str, LabelEvent] = {}

    def take(self, event: LabelEvent) -> None:
        """Take the next event in; notes say nothing."""
        if event["type"] == "note":
            return
        of = key_of(event)
        self._last[of] = event["version"]
        if speaks_of_labeller(event):
            self._trusts[of] = event

    def take_all(self, later: Told) -> None:
        """Take in what another heard later."""
        self._last |= later._last
        self._trusts |= later._trusts

    def last(self, of: str) -> int:
        """The version of the last event of a decision, or of a labeller by his key; 0: none."""
        return self._last.get(of) or (self._before.last(of) if self._before else 0)

    def trust_in(self, tenant: str, labeller: str) -> Sequence[LabelEvent]:
        """The event that set the trust in a labeller last, if there is one."""
        found = self._trusts.get(labeller_key(tenant, labeller))
        if found is None and self._before is not None:
            return self._before.trust_in(tenant, labeller)
        return [found] if found is not None else []
