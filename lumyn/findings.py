"""What the doctor finds: one thing that was looked at, how it is, and how to mend it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Literal

from schemas.errors import LumynError, PolicyInvalid, StorageUnavailable

Status = Literal["ok", "warn", "fail"]
_SHOWN = 3


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was looked at. `mend` says what to do; `unreachable`: a service did not answer."""

    part: str
    status: Status
    what: str
    mend: str = ""
    unreachable: bool = False

    def as_dict(self) -> dict[str, Any]:
        """JSON form: `{part, status, what, mend?}`."""
        out = {"part": self.part, "status": self.status, "what": self.what}
        return {**out, "mend": self.mend} if self.mend else out


def failed(part: str, error: LumynError, *, service: bool = False, mend: str = "") -> Finding:
    """An error as a finding. Of a `service`, one that is a matter of reaching it says so.

    `mend` stands instead of the error's own help, which is left out where it sends to the doctor.
    """
    own = error.help or ""
    mend = mend or (own if "lumyn doctor" not in own else "")
    message = error.message
    if isinstance(error, PolicyInvalid):
        more = len(error.problems) - _SHOWN
        message = "; ".join(error.problems[:_SHOWN]) + (f"; and {more} more" if more > 0 else "")
    what = f"{error.where}: {message}" if error.where else message
    return Finding(part, "fail", what, mend, service and isinstance(error, StorageUnavailable))


def guarded(part: str, look: Callable[[], Iterable[Finding]]) -> Iterator[Finding]:
    """What a check finds, up to the error that ends it, which is a finding, too."""
    try:
        yield from look()
    except LumynError as error:
        yield failed(part, error)
