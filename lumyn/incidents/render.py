"""A postmortem's facts as Markdown, and that Markdown as one HTML page: no script, nothing loaded from anywhere."""

from __future__ import annotations

import html
from collections.abc import Iterator, Mapping, Sequence
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from jinja2 import Environment, PackageLoader, StrictUndefined, Template

from lumyn.cli.output import one_line
from lumyn.incidents import markdown, sections_kept
from lumyn.incidents.markdown import code, counts, plain
from lumyn.incidents.model import Incident
from lumyn.incidents.timeline import labels
from lumyn.pages import FOLD
from schemas.ids import iso_time

if TYPE_CHECKING:
    from markdown_it import MarkdownIt
    from markdown_it.token import Token

_HEAD = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'">
<meta name="referrer" content="no-referrer">
<title>{title}</title>
<style>
:root {{ color-scheme: light dark; --ink: #1b1b1f; --soft: #5b5b66; --line: #d7d7df; --paper: #fff; --wash: #f4f4f8; --accent: #3b5bdb; }}
@media (prefers-color-scheme: dark) {{ :root {{ --ink: #ececf1; --soft: #a5a5b3; --line: #3c3c49; --paper: #16161b; --wash: #202028; --accent: #91a7ff; }} }}
* {{ box-sizing: border-box; }}
body {{ margin: 0 auto; padding: 1rem; max-width: 62rem; font: 16px/1.55 system-ui, sans-serif; color: var(--ink); background: var(--paper); overflow-wrap: break-word; }}
h1 {{ font-size: 1.5rem; line-height: 1.25; margin: .5rem 0 1rem; }} h2 {{ font-size: 1.2rem; margin: 2.2rem 0 .6rem; border-top: 3px solid var(--ink); padding-top: .8rem; }} h3 {{ font-size: 1.02rem; margin: 1.5rem 0 .3rem; }}
p, ul, ol {{ margin: .5rem 0; }} ul, ol {{ padding-left: 1.3rem; }} li {{ margin: .25rem 0; }} em {{ color: var(--soft); }} a {{ color: var(--accent); }}
code {{ font: .82em/1.4 ui-monospace, monospace; background: var(--wash); border-radius: .25rem; padding: .1rem .3rem; overflow-wrap: anywhere; }}
pre {{ background: var(--wash); padding: .8rem; border-radius: .4rem; overflow-x: auto; }} pre code {{ padding: 0; background: none; }}
blockquote {{ margin: .5rem 0; padding-left: .8rem; border-left: 3px solid var(--line); color: var(--soft); }}
.wide {{ overflow-x: auto; margin: .7rem 0; }} .wide:focus {{ outline: 2px solid var(--accent); }} table {{ border-collapse: collapse; width: 100%; font-variant-numeric: tabular-nums; font-size: .92rem; }}
th, td {{ text-align: left; padding: .4rem .8rem .4rem 0; border-bottom: 1px solid var(--line); vertical-align: top; min-width: 4.5rem; }} thead th {{ color: var(--soft); font-size: .85rem; }}
td code {{ overflow-wrap: anywhere; }} td:last-child:not(:first-child) code {{ font-size: .76em; }}
{fold}
@media print {{ h2 {{ break-after: avoid; }} tr {{ break-inside: avoid; }} }}
</style>
</head>
<body>
<main>
"""  # noqa: E501
_TAIL = "</main>\n</body>\n</html>\n"


@lru_cache(maxsize=1)
def _template() -> Template:
    """All that was recorded goes through `plain` or `code`; what people wrote, through `written`."""
    environment = Environment(
        loader=PackageLoader("lumyn.incidents", ""), autoescape=False, undefined=StrictUndefined,  # noqa: S701 - Markdown
        trim_blocks=True, lstrip_blocks=True,
    )  # fmt: skip
    environment.globals.update(
        plain=plain, code=code, counts=counts, listed=markdown.listed, written=markdown.written, at=_at, many=_many,
        apart=_apart, money=_money,
    )
    return environment.get_template("postmortem.md.j2")


def as_markdown(facts: Mapping[str, Any], incident: Incident) -> str:
    """The postmortem as Markdown, with markers around what people write."""
    text = _template().render(
        facts=facts,
        whys=list(_whys(facts)),
        changed=list(_changed(facts)),
        reached=_reached(facts["impact"]["reach"]),
        begin=lambda name: sections_kept.begin(incident, name),
        end=sections_kept.end,
        section=lambda name: sections_kept.shown(incident, name),
    )
    return _without_gaps(text)


def as_html(text: str, title: str) -> str:
    """Markdown of ours as a whole page. Tags within it are text, links lead to http and to nothing else."""
    lines = [line for line in text.split("\n") if not line.startswith(sections_kept.MARK)]
    parser, env = _parser(), dict[str, Any]()
    tokens = parser.parse("\n".join(lines), env)
    _name_cells(tokens)
    body = str(parser.renderer.render(tokens, parser.options, env))
    return _HEAD.format(title=html.escape(one_line(title)), fold=FOLD) + body + _TAIL


@lru_cache(maxsize=1)
def _parser() -> MarkdownIt:
    from markdown_it import MarkdownIt

    parser = MarkdownIt("commonmark", {"html": False}).enable("table").disable(["image", "html_block", "html_inline"])
    parser.validateLink = lambda url: url.startswith(("https://", "http://", "#"))  # type: ignore[method-assign]
    # a table that is wider than the screen scrolls by itself, by keyboard, too; on a phone it folds instead
    parser.add_render_rule("table_open", _table_open)
    parser.add_render_rule("table_close", lambda *_: "</table></div>\n")
    return parser


def _table_open(_renderer: Any, tokens: Sequence[Token], at: int, *_: Any) -> str:
    kind = ' class="fold"' if tokens[at].meta.get("fold") else ""
    return f'<div class="wide" tabindex="0"><table{kind}>\n'


def _name_cells(tokens: Sequence[Token]) -> None:
    """Each cell gets its column's name; a table of more than two columns folds on a phone."""
    table, names, column = None, list[str](), 0
    for at, token in enumerate(tokens):
        match token.type:
            case "table_open":
                table, names = token, []
            case "th_open":
                names.append(tokens[at + 1].content)
            case "tr_open":
                column = 0
            case "td_open" if table is not None:
                table.meta["fold"] = len(names) > 2
                token.attrSet("data-h", names[column] if column < len(names) else "")
                column += 1
            case _:
                pass


def _at(ms: int) -> str:
    return iso_time(ms)[:19].replace("T", " ")


def _many(count: int, what: str) -> str:
    return f"{count} {what}{'' if count == 1 else 's'}"


def _money(total: float) -> str:
    """With cents; with more digits where a sum has them."""
    return f"{total:,.2f}" if round(total, 2) == total else f"{total:,}"


def _apart(found: Mapping[str, Any] | None) -> str:
    """`f`: 7 of 7; of the others 0 of 44."""
    if found is None:
        return ""
    others = f"of the others {found['others']} of {found['of_others']}"
    return f"{code(found['value'])}: {found['bad']} of {found['of_bad']}; {others}"


def _without_gaps(text: str) -> str:
    """One blank line at the most, but within what people wrote: there every line stays."""
    out: list[str] = []
    kept = False
    for line in text.split("\n"):
        if line.startswith(sections_kept.MARK):
            kept = line.startswith(f"{sections_kept.MARK}write")
        if kept or line.strip() or (out and out[-1].strip()):
            out.append(line if kept else line.rstrip())
    return "\n".join(out).strip("\n") + "\n"


def _whys(facts: Mapping[str, Any]) -> Iterator[tuple[int, str, Sequence[str]]]:
    """The five questions, each with the evidence that is at hand for it."""
    evidence = facts["evidence"]
    rules = [f"{counts(evidence['rules'])} are the rules that fired or lacked a fact, in {evidence['read']} decisions"]
    yield 1, "Why did it happen?", [
        *(rules if evidence["rules"] else []),
        *([f"reason codes: {counts(facts['impact']['reasons'])}"] if facts["impact"]["reasons"] else []),
    ]
    knew = evidence["neighbours"]
    yield 2, "Why did nothing stop it?", [
        *([f"the rules looked at {counts(evidence['facts'])}"] if evidence["facts"] else []),
        *([f"neighbours in memory that counted: {counts(knew)}"] if knew else []),
        *(["no neighbour in memory counted"] if evidence["read"] and not knew else []),
    ]
    around = facts["uncontrolled"]
    yield 3, "Why then, and not before?", [
        f"{code(one['factor'])} tells these decisions from the others ({one['separates']['association']:.2f} of 1): "
        f"{_apart(one['sets_apart'])}"
        for one in (around["factors"] if around else [])[:4]
        if one["separates"] and one["separates"]["association"] > 0
    ]
    yield 4, "Why was that so?", [
        f"{_at(one['at_ms'])} {plain(one['what'])} by {plain(one['who'])}" for one in evidence["changed"][:8]
    ]
    yield 5, "Why was it not known before?", [
        f"{one['id']} was near this ({one['score']:.2f}): {plain(one['title'])}"
        for one in evidence["earlier"]
    ] or [f"no earlier incident is near this one {code('lumyn incident search --near-text TEXT')}"]


def _reached(reach: Mapping[str, Any] | None) -> str:
    """The blast radius in a sentence."""
    if reach is None:
        return ""
    told = f"Labelled, and so in the memory: {reach['labelled']} of them. "
    if reach["why_not"] is not None:
        told += f"{plain(reach['why_not'])}."
    else:
        flips = f": {counts(reach['flips'])}" if reach["flips"] else ""
        told += f"Past decisions that these labels reach: {reach['compared']}; otherwise for them: "
        told += f"{reach['made_otherwise']}{flips}."
    return f"{told} {code(reach['command'])}" if reach["command"] else told


def _changed(facts: Mapping[str, Any]) -> Iterator[str]:
    """What was changed since its first decision: control, jobs, runbooks, items that are done, watches."""
    one = facts["incident"]
    show = code(f"lumyn incident show {one['id']}")
    for change in facts["evidence"]["changed"]:
        if change["since"]:
            yield f"{_at(change['at_ms'])} {plain(change['what'])}, by {plain(change['who'])}"
    for link in one["links"]:
        if link["kind"] == "job":
            yield f"{code(link['ref'])}: {plain(labels(link['detail']))} {show}"
        elif link["kind"] in ("gameday", "backtest"):
            yield f"{link['kind']} {code(link['ref'])} {plain(link['note'])}"
    for item in one["actions"]:
        if item["state"] == "done":
            yield f"{item['id']}: {plain(item['text'])} (done)"
    for row in facts["watches"]:
        yield f"a watch: {code(row['name'])}"
