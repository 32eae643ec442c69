"""What people wrote between the markers of a postmortem's file, read back, so that making it again loses nothing.

A marker names its part and a digest of what was written into it: a part with another digest was edited in the file.
"""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from typing import Final, Literal

from lumyn.incidents.markdown import unwritten, written
from lumyn.incidents.model import Incident
from lumyn.incidents.sections import NAMES, SECTIONS
from schemas.errors import UsageError

Keep = Literal["file", "store"]
_BEGIN = re.compile(r"^<!-- lumyn:write (?P<id>INC-\d+) (?P<name>[a-z0-9-]+) (?P<digest>[0-9a-f]{16}) -->$")
_END = re.compile(r"^<!-- lumyn:end (?P<name>[a-z0-9-]+) -->$")
MARK: Final = "<!-- lumyn:"


@dataclass(frozen=True, slots=True)
class Part:
    """A part in a file: its text, and the digest of what was written there."""

    text: str
    digest: str


def digest_of(text: str) -> str:
    """The digest that a marker holds."""
    return hashlib.sha256(text.strip().encode("utf-8", "surrogatepass")).hexdigest()[:16]


def begin(incident: Incident, name: str) -> str:
    """The marker before a part."""
    return f"{MARK}write {incident.id} {name} {digest_of(shown(incident, name))} -->"


def end(name: str) -> str:
    """The marker after it."""
    return f"{MARK}end {name} -->"


def shown(incident: Incident, name: str) -> str:
    """What stands between the markers: what was written, or what is asked."""
    known = incident.sections.get(name)
    if known is not None and known.text.strip():
        return written(known.text)
    return f"_{next(one.asks for one in SECTIONS if one.name == name)}_"


def parts_in(text: str, incident: Incident, where: str) -> dict[str, Part]:
    """The parts of a file that was made for this incident. Raises `UsageError` for markers that don't fit."""
    found: dict[str, Part] = {}
    lines: list[str] = []
    name, told = "", ""
    for number, line in enumerate(text.replace("\r\n", "\n").split("\n"), start=1):
        if started := _BEGIN.match(line.strip()):
            if name or started["name"] in found or started["name"] not in NAMES:
                raise _broken(f"{where}:{number}")
            if started["id"] != incident.id:
                raise UsageError(f"this is the postmortem of {started['id']}", where=where, help="write another file")
            name, told, lines = started["name"], started["digest"], []
        elif ended := _END.match(line.strip()):
            if ended["name"] != name:
                raise _broken(f"{where}:{number}")
            found[name] = Part("\n".join(lines).strip(), told)
            name = ""
        elif line.strip().startswith(MARK):
            raise _broken(f"{where}:{number}")
        elif name:
            lines.append(line)
    if name:
        raise _broken(where)
    return found


def edited(parts: dict[str, Part], incident: Incident, keep: Keep | None, where: str) -> dict[str, str]:
    """What was edited in the file since it was made, by part.

    Raises `UsageError` where the same part was written here, too, and `keep` does not say which one stays.
    """
    out: dict[str, str] = {}
    for name, part in parts.items():
        now = shown(incident, name)
        if digest_of(part.text) in (part.digest, digest_of(now)):
            continue  # nobody touched it in the file, or both say the same
        if part.digest != digest_of(now) and keep is None:
            raise UsageError(
                f"part `{name}` was edited in the file and written with `lumyn incident write` since", where=where,
                help="`--keep file` or `--keep store` says which one stays; the other stays in the incident's history",
            )  # fmt: skip
        if part.digest == digest_of(now) or keep == "file":
            out[name] = unwritten(part.text)
    return out


def _broken(where: str) -> UsageError:
    return UsageError(
        "the markers of this postmortem don't belong together", where=where,
        help="each `lumyn:write` needs its `lumyn:end`; write to another file with `--out` to begin anew",
    )  # fmt: skip
