"""Templates of pages: all that one prints is escaped, and what a screen would act on or hide is made visible."""

from __future__ import annotations

from typing import Any, Final

from jinja2 import BaseLoader, Environment, StrictUndefined
from markupsafe import Markup

from lumyn.cli.output import one_line

FOLD: Final = Markup(
    "@media (max-width: 40rem) { td:not(:first-child) { overflow-wrap: anywhere; } "
    ".fold, .fold tbody, .fold tr, .fold td { display: block; } "
    ".fold thead { position: absolute; width: 1px; height: 1px; overflow: hidden; clip-path: inset(50%); } "
    ".fold tr { border-bottom: 1px solid var(--line); padding: .3rem 0; } "
    ".fold td { display: flow-root; border: 0; padding: .1rem 0 .1rem 7rem; min-width: 0; overflow-wrap: anywhere; } "
    ".fold td, .fold td.n { text-align: left !important; } .fold td code { overflow-wrap: anywhere; } "
    ".fold td::before { content: attr(data-h); float: left; width: 6.5rem; margin-left: -7rem; color: var(--soft); } "
    ".fold td:first-child { padding-left: 0; font-weight: 600; } .fold td:first-child::before { content: none; } "
    ".fold td:empty { display: none; } }"
)
"""Style of a file's tables of class `fold`: on a phone each row is a block, each cell under the name (`data-h`) of its

column, so that nothing is scrolled sideways.
"""


def page_environment(loader: BaseLoader, **names: Any) -> Environment:
    """An environment for HTML; `names` are what its templates may use. An unknown name is an error, not nothing."""
    made = Environment(
        loader=loader, autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True, finalize=_shown
    )
    made.globals.update(names)
    return made


def _shown(value: Any) -> Any:
    """Text on one line; what a macro made (`Markup`) is escaped already. JSON never holds `Markup`."""
    return one_line(value) if isinstance(value, str) and not isinstance(value, Markup) else value
