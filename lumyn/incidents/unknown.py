"""What could not be determined, made of what is missing: each gap with its share, and what would have closed it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from lumyn.incidents.captured import EXPECTED, Seen
from lumyn.incidents.evidence import Decisions
from lumyn.incidents.impact import list_command
from lumyn.incidents.links import file_now
from lumyn.incidents.model import Incident


@dataclass(frozen=True, slots=True)
class Gap:
    """What is not known and why; `command`: what would tell, or shows it."""

    what: str
    command: str


def gaps(
    incident: Incident,
    found: Decisions,
    seen: Seen,
    rates: Sequence[Mapping[str, Any]],
    traffic: Mapping[str, Any] | None,
    changes: Mapping[str, Any] | None,
) -> list[Gap]:
    """Every gap that the evidence shows, the widest first within its kind."""
    return [
        *_of_decisions(incident, found, seen),
        *_of_capture(incident, seen),
        *_of_log(seen),
        *_of_labels(traffic),
        *_of_rates(found, rates),
        *_of_window(incident, found, changes),
        *_of_packs(incident, found),
        *_of_monitors(incident),
    ]


def _of_decisions(incident: Incident, found: Decisions, seen: Seen) -> Iterator[Gap]:
    if gone := [event.seq for event in incident.events if event.redacted]:
        which = ", ".join(map(str, gone))
        yield Gap(f"Texts of event {which} were redacted.", f"lumyn incident show {incident.id} --json")
    if found.problem is not None:
        command = f"lumyn incident edit {incident.id} --query Q"
        yield Gap(f"The incident's query can't be asked any more: {found.problem}", command)
    if not found.rows:
        yield Gap(
            "No decision belongs to this incident: what was decided, for whom, on what evidence and by which "
            "policy can't be told.",
            f"lumyn incident add {incident.id} --decision ID",
        )
        return
    show = f"lumyn incident show {incident.id}"
    for count, what in (
        (seen.gone, "have no record in the log any more"),
        (seen.erased, "are of subjects that were forgotten: what was asked is gone for good"),
        (seen.closed, "are sealed under keys that are not here: what was asked can't be read here"),
        (seen.unsound, "have records that do not check out: they were changed"),
    ):
        if count:
            yield Gap(f"{count} of the decisions {what}.", "lumyn verify" if "check out" in what else show)


def not_captured(incident: Incident, found: Decisions, seen: Seen) -> list[dict[str, Any]]:
    """What is not controlled and was not captured with all of the decisions, the widest gap first."""
    return [
        {
            "what": what,
            "missing": missing,
            "of": seen.read,
            "names": list(EXPECTED[what]),
            "command": list_command(
                incident, found, " AND ".join(f"provenance.{name} = null" for name in EXPECTED[what])
            ),
        }
        for what, missing in sorted(seen.missing.items(), key=lambda item: (-item[1], item[0]))
    ]


def _of_capture(incident: Incident, seen: Seen) -> Iterator[Gap]:
    if seen.without_context:
        yield Gap(
            f"What the agent saw is not in the record of {of(seen.without_context, seen.read)} of the decisions: they "
            "have no `context.inline`.",
            f"lumyn incident postmortem {incident.id} --json",
        )


def _of_log(seen: Seen) -> Iterator[Gap]:
    read = seen.read + seen.closed + seen.erased
    if seen.requests_expired:
        yield Gap(
            f"The requests of {of(seen.requests_expired, read)} of the decisions have expired from the log: only "
            "their records are left.",
            "lumyn verify",
        )
    if seen.receipts_expired:
        yield Gap(
            f"The receipts of {of(seen.receipts_expired, read)} of the decisions have expired: whether a request "
            "came twice can't be told.",
            "lumyn verify",
        )
    if seen.without_memory:
        yield Gap(
            f"The memory could not answer for {of(seen.without_memory, seen.read)} of the decisions: what it would "
            "have said then is not known.",
            'lumyn redrive --query "reason = STORAGE_UNAVAILABLE"',
        )


def _of_labels(traffic: Mapping[str, Any] | None) -> Iterator[Gap]:
    if traffic is None or not traffic["labelled"]["of"]:
        return
    n, labelled, failures = (traffic["labelled"][name] for name in ("of", "labelled", "failures"))
    unknown = n - labelled
    if unknown:
        lower, upper = failures / n, (failures + unknown) / n
        yield Gap(
            f"{of(unknown, n)} of the decisions like these in the window have no label: their true failure rate "
            f"lies anywhere from {lower:.1%} to {upper:.1%}.",
            traffic["during"]["command"],
        )


def _of_rates(found: Decisions, rates: Sequence[Mapping[str, Any]]) -> Iterator[Gap]:
    if not rates:
        some = found.rows[0].decision_id if found.rows else "ID"
        yield Gap(
            "The agent was not run again on what it was given: how often it does this on the same input is not known.",
            f"lumyn rate --decision {some} --runs 100 --command AGENT",
        )
    for one in rates:
        command = f"lumyn rate show {one['rate_id']}"
        if one.get("problem"):
            yield Gap(f"The sample {one['rate_id']} can't be used: {one['problem']}.", command)
            continue
        if one["changed_since_recorded"]:
            names = ", ".join(one["changed_since_recorded"])
            yield Gap(f"The agent that was run again is not the one of the incident: {names} differ.", command)
        failed = one["runs"] - one["answered"]
        event = one["event"]
        if failed and event is not None and event["whatever_failed"] is not None:
            ends = event["whatever_failed"]
            yield Gap(
                f"{of(failed, one['runs'])} of the runs gave no outcome: whatever they would have said, the rate lies "
                f"from {ends['lower']:.1%} to {ends['upper']:.1%}.",
                command,
            )
        if event is not None and event["runs"] == 0:
            yield Gap(
                f"It was not reproduced: `{event['outcome']}` did not come in {one['answered']} runs, so its rate "
                f"is at most {event['upper']:.2%}.",
                command,
            )
        fits = event["reported"] if event is not None else None
        if fits is not None and fits["consistent"] is False:
            yield Gap(f"The runs do not agree with the report ({fits['text']}): {fits['why']}.", command)


def _of_window(incident: Incident, found: Decisions, changes: Mapping[str, Any] | None) -> Iterator[Gap]:
    if incident.start_ms is None:
        taken = "its first decision, which may not be the first" if found.rows else "when it was opened"
        yield Gap(
            f"No window was given: when it began is taken from {taken}.",
            f"lumyn incident edit {incident.id} --from T --to T",
        )
    if changes is None and found.rows:
        what = f"With {len(found.rows):,} decisions, what was otherwise around them was not compared here."
        yield Gap(what, f"lumyn rate changes --incident {incident.id}")
    if changes is not None and not changes["before"]["n"]:
        yield Gap("There are no decisions before the window: what changed can't be compared.", changes["command"])
    if changes is not None and not changes["canary"]:
        yield Gap(
            "No canary ran in the window: whether the agent drifted on a held-out set is not known.",
            "lumyn watch canary --command AGENT",
        )


def _of_packs(incident: Incident, found: Decisions) -> Iterator[Gap]:
    packs = [link for link in incident.links if link.kind == "pack"]
    if found.rows and not packs:
        yield Gap(
            "No pack was kept: once requests and receipts expire, this evidence rests on the log's records alone.",
            f"lumyn export {found.rows[0].decision_id} --pack --out {incident.id.lower()}.zip",
        )
    for link in (one for one in incident.links if one.kind in ("pack", "backtest")):
        wrong = file_now(link.ref, link.detail)
        if wrong is not None:
            what = f"The linked {link.kind} {link.ref} is not what it was: {wrong}."
            yield Gap(what, f"lumyn incident show {incident.id}")


def _of_monitors(incident: Incident) -> Iterator[Gap]:
    if not incident.refs("watch"):
        yield Gap(
            "Nothing watches for the second instance: the monitoring does not measure this yet, which is itself "
            "an action item.",
            f"lumyn incident monitor {incident.id} --query Q --alert 'rate > 1%'",
        )


def of(count: int, total: int) -> str:
    """`3 of 20 (15%)`."""
    return f"{count} of {total} ({count / total:.0%})" if total else f"{count} of {total}"
