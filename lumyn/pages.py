"""Templates of pages: all that one prints is escaped, and what a screen would act on or hide is made visible."""

from __future__ import annotations

from typing import Any

from jinja2 import BaseLoader, Environment, StrictUndefined
from markupsafe import Markup

from lumyn.cli.output import one_line


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
