"""Publishing a policy: it is checked and shown beside what decides now, and then that very document is published.

What is confirmed is a hash, and what it was compared with: where either is not any more as it was shown, nothing is
done. Publishing decides nothing; making it active is another step, on the policy's own page.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Sequence
from typing import Any, Final

from starlette.responses import RedirectResponse, Response

from lumyn import policies
from lumyn.console import render
from lumyn.console.page import Page
from lumyn.console.policies import SHARED, difference, published
from lumyn.console.visit import Visit
from schemas.errors import BadInput, PolicyConflict, TooLarge
from streams.control import ControlState, check_publishable
from streams.policy import CompiledPolicy, check_policy, load_policy

MOST_BYTES: Final = 64 * 1024
_NAME: Final = "policy.yml"


def new(visit: Visit) -> Response:
    """A document to be typed; begun from one that is published, where its hash is given."""
    visit.principal.require_operator(SHARED)
    begun = visit.query.get("from", "")
    source = published(visit, begun).source if begun else ""
    return _form(visit, source)


def _form(visit: Visit, source: str, status: int = 200, problems: Sequence[str] = ()) -> Response:
    return render.html(
        "policy_new", status, visit=visit, here="policies", source=source, problems=problems, most=MOST_BYTES
    )


def preview(visit: Visit) -> Response:
    """Check what was typed, and show what it would change. Nothing is published."""
    visit.principal.require_operator(SHARED)
    text = visit.form.get("source", "")
    if len(text.encode("utf-8")) > MOST_BYTES:
        raise TooLarge(f"more than {MOST_BYTES} bytes", help="`lumyn policy publish FILE` takes larger ones")
    report = check_policy(text.encode("utf-8"), name=_NAME)
    if report.policy is None:
        return _form(visit, text, 422, report.errors)
    return _shown(visit, report.policy, report.warnings)


def again(visit: Visit) -> Response:
    """The same for a document that is known here from a file or a trial in the shadow."""
    visit.principal.require_operator(SHARED)
    found = published(visit, visit.request.path_params["hash"])
    policy = visit.home.agent.control().compiled(found.hash)
    return _shown(visit, policy, check_policy(policy.source, name=_NAME).warnings)


def _shown(visit: Visit, policy: CompiledPolicy, warnings: Sequence[str]) -> Response:
    control = visit.home.agent.control()
    against = beside(control, policy)
    conflict: PolicyConflict | None = None
    try:
        check_publishable(control, policy)
    except PolicyConflict as error:
        conflict = error
    known = control.policies.get(policy.policy_hash)
    told: dict[str, Any] = {"text": [], "changes": [], "same": 0, "condition": None}
    if against:
        told = difference(control.compiled(against), policy)
    return render.html(
        "policy_publish", 409 if conflict else 200, visit=visit, here="policies", policy=policy, warnings=warnings,
        conflict=conflict, old=control.policies[against] if against else None, against=against,
        known=known is not None and known.origin == "publish",
        document=base64.b64encode(policy.source).decode(), **told,
    )  # fmt: skip


def beside(control: ControlState, policy: CompiledPolicy) -> str:
    """The hash of what a policy is compared with: the active one of its name, else the latest; empty: there is none."""
    active = control.active.get(policy.name)
    if active is not None:
        return active
    others = [one.hash for one in control.policies.values() if one.name == policy.name]
    return next((one for one in reversed(others) if one != policy.policy_hash), "")


def publish(visit: Visit) -> Response:
    """Publish what was shown."""
    visit.principal.require_operator(SHARED)
    if visit.form.get("confirm") != "yes":
        raise BadInput("nothing was published: it was not confirmed", help="go back and tick the box")
    try:
        policy = load_policy(base64.b64decode(visit.form.get("document", ""), validate=True), name=_NAME)
    except (binascii.Error, ValueError):
        raise BadInput("nothing was published: the document can't be read", help="show it again") from None
    home = visit.home
    if policy.policy_hash != visit.form.get("hash"):
        raise BadInput("nothing was published: this is not the document that was shown", help="show it again")
    if beside(home.agent.control(), policy) != visit.form.get("against", ""):
        raise PolicyConflict(
            "nothing was published: what it was compared with does not decide any more", help="look at it again"
        )
    made = policies.publish(home, policy)
    done = "published" if made else "known"
    return RedirectResponse(
        render.url("policies", policy.policy_hash, done=done), 303, headers=dict(render.HEADERS)
    )


PAGES: Final = (
    Page("/policies/new", "admin", new),
    Page("/policies/preview", "admin", preview, "POST", 4 * MOST_BYTES),
    Page("/policies/publish", "admin", publish, "POST", 4 * MOST_BYTES),
    Page("/policies/{hash}/publish", "admin", again),
)
