"""`lumyn kill-switch on` without the command line's machinery, which takes longer to load than the switch to be on.

Only the plain form is read here; anything else (help, a mistake) is the machinery's.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping, Sequence

from lumyn.cli.output import one_line, out, out_json, say

_SCOPES = {"--action-type": "action_type", "--tenant": "tenant", "--policy": "policy"}


def stop_now(arguments: Sequence[str]) -> bool:
    """Put a switch on as the arguments say. False, and nothing done: they are not of the plain form.

    Raises `LumynError`.
    """
    given: dict[str, str] = {}
    waiting = list(reversed(arguments))
    flags = {"--json": False, "--everything": False}
    while waiting:
        name, told, value = waiting.pop().partition("=")
        if name in flags and not told and not flags[name]:
            flags[name] = True
            continue
        if not told and waiting:
            value = waiting.pop()
            told = "" if value.startswith("-") else value
        if name not in ("--why", *_SCOPES) or name in given or not told:
            return False
        given[name] = value
    why = given.pop("--why", None)
    if why is None:
        return False
    scope = {_SCOPES[name]: value for name, value in given.items()}
    switch_on(why, scope, everything=flags["--everything"], json_=flags["--json"])
    return True


def switch_on(why: str, scope: dict[str, str], *, everything: bool, json_: bool) -> None:
    """Put a switch on and say so. Raises `UsageError` (no scope is no order to stop all), `StorageUnavailable`."""
    import uuid

    from lumyn.config import resolve
    from lumyn.stopping import append_switch
    from schemas.errors import UsageError

    settings = resolve(None)
    if not all(scope.values()):
        raise UsageError("a scope must not be empty text", help="`--everything` stops everything")
    if everything and scope:
        raise UsageError(f"`--everything` and {scope_text(scope)} say two things", help="give the one that is meant")
    if not everything and not scope:
        scopes = ", ".join(f"`{name}`" for name in _SCOPES)
        raise UsageError("what is to be stopped is not said", help=f"give {scopes}, or `--everything`")
    if not why.strip():
        raise UsageError("`--why` is empty", help="the reason goes into every record that is denied")
    is_new = settings.kafka is None and not settings.home.exists()
    switch_id = uuid.uuid4().hex[:12]
    event = {"type": "kill_switch_on", "actor": settings.actor, "why": why, "switch_id": switch_id, "scope": scope}
    append_switch(settings, event)
    if not json_:
        out(f"on: {switch_id} ({scope_text(scope)})")
        sys.stdout.flush()
    never = _never_decided(scope) if scope and not is_new else {}  # it is on by now: this may take its time
    if json_:
        out_json({"switch_id": switch_id, "scope": scope, "never_decided": never})
    for text in sentences(never, scope):
        say(f"note: {text}")
    if is_new:  # in the wrong folder a switch is on, and stops nothing
        asked = "is it the home to be stopped? LUMYN_HOME names another"
        say(f"note: `{settings.home.absolute()}` is new, nothing was ever decided there: {asked}")


def _never_decided(scope: Mapping[str, str]) -> dict[str, str | None]:
    from lumyn.switch_names import never_decided
    from lumyn.wiring import operator_home
    from schemas.errors import LumynError

    try:
        return never_decided(operator_home(), scope)
    except LumynError:
        return {}


def sentences(never: Mapping[str, str | None], scope: Mapping[str, str]) -> Iterator[str]:
    """What no decision ever had, one a line, each with the nearest name that one had."""
    for name, near in never.items():
        hint = f"; did you mean `{near}`?" if near else ""
        what = f"{name.replace('_', ' ')} `{scope[name]}`"
        yield one_line(f"no decision in the index has {what}: it may stop nothing{hint}")


def scope_text(scope: Mapping[str, str]) -> str:
    """A scope in words."""
    return ", ".join(f"{name}={value}" for name, value in scope.items()) or "everything"
