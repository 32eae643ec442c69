"""`lumyn memory`: look into the memory, and make it again from the labels."""

from __future__ import annotations

import typer

from lumyn.cli.output import one_line, out, out_json, progress, say

app = typer.Typer(
    help="Look into the memory, and make it again from the labels.", no_args_is_help=True, rich_markup_mode=None
)


@app.command("stats")
def stats(json_: bool = typer.Option(False, "--json", help="Print as JSON.")) -> None:
    """Say what the memory holds.

    \b
    Example: lumyn memory stats
    """
    from lumyn import memory_views
    from lumyn.wiring import existing_home

    value = memory_views.stats(existing_home())
    if json_:
        out_json(value)
    else:
        out("\n".join(f"{name}: {', '.join(v) if isinstance(v, list) else v}" for name, v in value.items()))


@app.command("rebuild")
def rebuild(json_: bool = typer.Option(False, "--json", help="Print as JSON.")) -> None:
    """Make the memory again from the labels in the log; nothing else is touched.

    \b
    Example: lumyn memory rebuild
    """
    from lumyn.wiring import existing_home
    from streams.topics import LABELS

    home = existing_home()
    with progress("rebuilding", home.log.end(LABELS, 0)) as tick:
        version = home.fill_memory(home.agent.control().memory, tick, anew=True)
    points = home.memory.store().watermark().count
    if json_:
        out_json({"version": version, "points": points})
    else:
        out(f"memory rebuilt: version {version}, {points} points")


@app.command("verify")
def verify(
    sample: int = typer.Option(1000, "--sample", "-n", min=1, help="How many past decisions, at most."),
    seed: int | None = typer.Option(None, "--seed", help="Draw the same sample again."),
    json_: bool = typer.Option(False, "--json", help="Print as JSON."),
) -> int:
    """Recall for past decisions again, as of the memory version of each, and compare with what their records hold.

    \b
    Examples: lumyn memory verify --sample 500
              lumyn memory verify --sample 500 --seed 81
    Decisions made without memory are not drawn. Exit 0: every recall is the recorded one, bit for bit. 3: some are not,
    each is named on stderr; `lumyn memory rebuild` makes the memory again from the labels.
    """
    import secrets
    from collections import Counter
    from dataclasses import asdict

    from lumyn import memory_views
    from lumyn.wiring import existing_home
    from streams.as_of import was_recalled
    from streams.sample import sample_records

    home = existing_home()
    seed = seed if seed is not None else secrets.randbelow(1_000_000)
    tenant = home.settings.tenant
    drawn = sample_records(home.log, sample, seed, lambda r: r.get("tenant") == tenant and was_recalled(r))
    found = []
    with progress("recalling", len(drawn.records)) as tick:
        for one in memory_views.recalled_again(home, drawn.records):
            found.append(one)
            tick()
    differ = [one for one in found if one.outcome == "differs"]
    other = [one for one in found if one.outcome == "not_comparable"]
    gone = [one for one in found if one.outcome == "erased"]
    same = len(found) - len(differ) - len(other) - len(gone)
    for why, count in sorted(Counter(one.detail for one in gone).items()):
        say(one_line(f"note: {count} erased: {why}"))
    for one in differ:
        where = ", ".join(change.field for change in one.changes)
        say(one_line(f"{one.decision_id}: differs in {where}" + (f" ({one.detail})" if one.detail else "")))
    for why, count in sorted(Counter(one.detail for one in other).items()):
        say(one_line(f"note: {count} could not be compared: {why}"))
    if json_:
        out_json({
            "verified": not differ, "sampled": len(found), "of": drawn.of, "seed": seed, "same": same,
            "erased": len(gone), "differ": [asdict(one) for one in differ],
            "not_comparable": [asdict(one) for one in other],
        })  # fmt: skip
    else:
        of = f" of {drawn.of}" if drawn.of is not None else ""
        told = f"{len(found)}{of} recalled decisions, asked again as of their memory versions (seed {seed})"
        out(f"{told}: {same} the same, {len(differ)} differ" + (f", {len(gone)} erased" if gone else ""))
    return 3 if differ else 0


@app.command("search")
def search(
    request: str = typer.Argument(..., metavar="REQUEST.json", help="A request, or `-` for stdin."),
    limit: int = typer.Option(10, "--limit", "-n", min=1, max=50, help="How many of each."),
    json_: bool = typer.Option(False, "--json", help="Print as JSON."),
) -> None:
    """Show the remembered decisions nearest to a request.

    \b
    Example: lumyn memory search request.json
    """
    from lumyn import memory_views
    from lumyn.cli.decide import requests_in
    from lumyn.wiring import existing_home
    from schemas.request import parse_request

    home = existing_home()
    parsed = parse_request(requests_in(request)[0], tenant=home.settings.tenant, where=request)
    recall = memory_views.near(home, parsed, limit)
    if json_:
        out_json({"risk_signals": recall.signals, "memory": recall.as_record()})
        return
    hits = sorted(
        (h for s in ("failure_similarity", "success_similarity") for h in recall.signals[s]["top_k"]),
        key=lambda h: -h["score"],
    )
    for hit in hits:
        blocks = " ".join(f"{name}={score:.2f}" for name, score in hit["score_by_block"].items())
        told = f"{hit['score']:.3f} {hit['memory_id']} {hit['label']} of {hit['verdict']} ({blocks}) {hit['summary']}"
        out(one_line(told))
    if not hits:
        say("memory knows nothing of this action type")


@app.command("contested")
def contested(json_: bool = typer.Option(False, "--json", help="Print as JSON.")) -> None:
    """List labelled decisions whose labellers disagree, with each one's last word.

    \b
    Example: lumyn memory contested
    Until somebody settles it, harm keeps its full force, and what is fine neither supports nor softens.
    `lumyn label ID --label success --settle` is the last word over all of them.
    """
    from lumyn import memory_views
    from lumyn.wiring import existing_home

    found = memory_views.contested(existing_home())
    if json_:
        out_json({"contested": found})
        return
    for one in found:
        out(one_line(f"{one['decision_id']} {one['verdict']}, counts as {one['counts_as']}"))
        for word in one["said"]:
            should = f", should {word['should']}" if word["should"] else ""
            out(one_line(f"  {word['actor']}: {word['label']}{should} {word['summary']}"))
    say(f"{len(found)} contested" + ("; `lumyn label ID --label ... --settle` settles one" if found else ""))
