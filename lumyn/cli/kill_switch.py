"""`lumyn kill-switch`: what is stopped, and how fast that took hold."""

from __future__ import annotations

from typing import TYPE_CHECKING

import typer

from lumyn.cli.output import one_line, out, out_json, say
from lumyn.cli.stop_now import scope_text, sentences
from lumyn.cli.stop_now import switch_on as turn_on

if TYPE_CHECKING:
    from streams.containment import Containment

app = typer.Typer(help="Stop actions at once, by scope.", no_args_is_help=True, rich_markup_mode=None)


@app.command("on")
def switch_on(
    why: str = typer.Option(..., "--why", help="The reason; it goes into every record that is denied."),
    action_type: str | None = typer.Option(None, "--action-type", help="Only this action type."),
    tenant: str | None = typer.Option(None, "--tenant", help="Only this tenant."),
    policy: str | None = typer.Option(None, "--policy", help="Only requests that this policy decides."),
    everything: bool = typer.Option(False, "--everything", help="Every decision; for where no scope is given."),
    json_: bool = typer.Option(False, "--json", help="Print as JSON."),
) -> None:
    """Deny everything in a scope from now on, before any rule or memory.

    \b
    Examples: lumyn kill-switch on --action-type refund --why "double refunds"
              lumyn kill-switch on --everything --why "the model went mad"
    """
    given = {"action_type": action_type, "tenant": tenant, "policy": policy}
    scope = {name: value for name, value in given.items() if value is not None}
    turn_on(why, scope, everything=everything, json_=json_)


@app.command("off")
def switch_off(
    switch_id: str = typer.Argument(..., metavar="SWITCH_ID", help="As `kill-switch status` shows it."),
    why: str = typer.Option("", "--why", help="The reason."),
    json_: bool = typer.Option(False, "--json", help="Print as JSON."),
) -> None:
    """Take a kill switch off.

    \b
    Example: lumyn kill-switch off 3f2a --why "fixed"
    """
    from lumyn.lookup import shown
    from lumyn.switches import named
    from lumyn.wiring import existing_home
    from schemas.errors import NotFound
    from streams.control import control_append

    home = existing_home()
    on = (one.switch_id for one in home.agent.control().switches)
    found = named(on, switch_id, home.settings.tenant, prefix=True)
    if len(found) != 1:
        fits = f"`{shown(switch_id)}` fits {len(found)} switches that are on"
        raise NotFound(
            fits if found else f"no switch `{shown(switch_id)}` is on",
            help="`lumyn kill-switch status` shows those that are",
        )
    home.log.append(
        [
            control_append(
                {"type": "kill_switch_off", "actor": home.settings.actor, "why": why, "switch_id": found[0]}
            )
        ]
    )
    if json_:
        out_json({"switch_id": found[0]})
    else:
        out(f"off: {found[0]}")


@app.command("status")
def switch_status(json_: bool = typer.Option(False, "--json", help="Print as JSON.")) -> None:
    """Show the kill switches that are on, each with how long decisions went on without it.

    \b
    Example: lumyn kill-switch status
    The figure is of the log's own times: from the switch to the last decision under it that it did not deny.
    """
    from dataclasses import asdict

    from lumyn.switch_names import never_decided
    from lumyn.wiring import existing_home
    from streams.containment import WITHIN_S, containment

    home = existing_home()
    switches = home.agent.control().switches
    within_s = max(WITHIN_S, 3 * home.settings.runtime_setting("control_max_staleness_s", 10.0))
    figures = [containment(home.log, switch, within_s=within_s) for switch in switches]
    never = [never_decided(home, switch.scope) for switch in switches]
    if json_:
        told = [
            {**switch.as_record(), "containment": asdict(figure), "never_decided": names}
            for switch, figure, names in zip(switches, figures, never, strict=True)
        ]
        out_json(told)
        return
    for switch, figure, names in zip(switches, figures, never, strict=True):
        since = f"since {switch.at} by {switch.actor}: {switch.why}"
        out(one_line(f"{switch.switch_id} {scope_text(switch.scope)} {since}"))
        out(f"  {_contained(figure, within_s)}")
        for text in sentences(names, switch.scope):
            out(f"  {text}")
    if not switches:
        say("no kill switch is on")


def _contained(figure: Containment, within_s: float) -> str:
    if figure.seconds is None:
        denied = f"{figure.with_it or 'none'} denied in its first {within_s:g} s"
        return f"contained at once: no decision without it after it was on, {denied}"
    many = f"{figure.without} decision{'' if figure.without == 1 else 's'}"
    return f"contained in {figure.seconds:.3f} s: {many} without it after it was on, the last {figure.last}"

