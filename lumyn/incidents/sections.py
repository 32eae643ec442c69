"""The parts of a postmortem that people write; each has a place of its own between markers."""

from __future__ import annotations

import difflib
from dataclasses import dataclass
from typing import Final

from lumyn.lookup import shown
from schemas.errors import UsageError


@dataclass(frozen=True, slots=True)
class Written:
    """A part by its name, with what it asks of who writes it."""

    name: str
    asks: str


WHYS: Final = tuple(
    Written(f"why{n}", "Why?" if n > 1 else "Why did it happen?") for n in range(1, 6)
)
SECTIONS: Final = (
    Written("summary", "What happened, in a few sentences, for somebody who was not there. No names of who erred."),
    Written("impact", "What it meant for people: what the figures do not say."),
    *WHYS,
    Written("cause", "What, then, is the cause: or say that it is not known. That is an answer."),
    Written("unknown", "What else could not be determined, and why."),
    Written("changed", "What was changed anyway: guard rails, prompts, eval cases, less entropy in the context."),
    Written("capture", "What was changed in what is captured, so that next time it can be determined."),
    Written("recur", "What would have to be true for this to happen again."),
    Written("monitor", "What would catch the second instance before a user does."),
    Written("learnt", "What went well, what did not, where there was luck."),
)
NAMES: Final = tuple(one.name for one in SECTIONS)


def section_named(name: str) -> Written:
    """A part by its name. Raises `UsageError`."""
    for one in SECTIONS:
        if one.name == name:
            return one
    near = difflib.get_close_matches(name[:40], NAMES, n=1)
    hint = f"did you mean `{near[0]}`? " if near else ""
    raise UsageError(f"a postmortem has no part `{shown(name)}` to write", help=f"{hint}{', '.join(NAMES)}")
