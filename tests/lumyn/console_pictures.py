"""Pictures of every page of the console, on a phone and a desktop, light and dark, to be looked at.

With PYTHONPATH=.:tests:tests/e2e:

    python tests/lumyn/console_pictures.py FOLDER            of a world whose every recorded text is hostile
    python tests/lumyn/console_pictures.py FOLDER ADDRESS    of a console that is served already (`lumyn serve --dev`)
"""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from console_world import World, build, served
from servers.chromium import chromium

SIZES = {"desktop": (1280, 900), "phone": (390, 844)}
_LINK = re.compile(r'href="/console(/[^"#]+)"')
_MOST = 60


def pictures(browser: Any, address: str, paths: list[str], folder: Path) -> None:
    """A picture each of page, width and theme; says what is wider than its screen."""
    for path in paths:
        name = re.sub(r"[^\w.-]+", "_", path.strip("/"))[:80]
        for size, (width, height) in SIZES.items():
            for theme in ("light", "dark"):
                context = browser.new_context(viewport={"width": width, "height": height}, color_scheme=theme)
                page = context.new_page()
                page.goto(f"{address}/console{path}")
                page.wait_for_timeout(600 if path in ("/live", "/switches") else 50)
                if page.evaluate("document.documentElement.scrollWidth > innerWidth"):
                    print(f"too wide: {path} on a {size}")
                page.screenshot(path=folder / f"{name}-{size}-{theme}.png", full_page=True)
                context.close()


def found(browser: Any, address: str) -> Iterator[str]:
    """The pages of a console that is served: the menu's, and the first of each kind that these lead to."""
    page = browser.new_page()
    page.goto(f"{address}/console/decisions")
    waiting, seen = ["/decisions", "/runbooks", "/gamedays", "/nothing"], set[str]()
    while waiting and len(seen) < _MOST:
        path = waiting.pop(0)
        kind = re.sub(r"(sha256%3A|gameday-|INC-|01)\w+", "*", path)
        if kind in seen or path.endswith(("/stream", "/containment")) or "/static/" in path:
            continue
        seen.add(kind)
        yield path
        page.goto(f"{address}/console{path}")
        waiting += [link.replace("&amp;", "&") for link in _LINK.findall(page.content())]


def main(folder: Path, address: str | None) -> None:
    folder = folder.absolute()
    folder.mkdir(parents=True, exist_ok=True)
    with chromium() as browser:
        if address is not None:
            pictures(browser, address, list(found(browser, address)), folder)
            return
        with TemporaryDirectory() as made:
            os.chdir(made)
            world: World = build(Path(made))
            with served(world, dev=True) as at:
                pictures(browser, at, [*world.pages(), "/nothing"], folder)
            with served(world, dev=False) as at:
                pictures(browser, at, ["/login"], folder)


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2] if len(sys.argv) > 2 else None)
