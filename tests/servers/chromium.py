"""A real Chromium for the tests: `LUMYN_TEST_CHROMIUM` names one, else the system's."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

_NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
_ARGUMENTS = (
    "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync",
)  # fmt: skip


def required() -> bool:
    """Whether a missing browser is a failure, not a skip."""
    return "chromium" in os.environ.get("LUMYN_TEST_REQUIRE", "")


@contextmanager
def chromium() -> Iterator[Any]:
    """A browser. Skips, or fails where one is required."""
    path = os.environ.get("LUMYN_TEST_CHROMIUM") or next(filter(None, map(shutil.which, _NAMES)), None)
    if path is None:
        why = "no Chromium: install it, or name one in LUMYN_TEST_CHROMIUM"
        (pytest.fail if required() else pytest.skip)(why)
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=list(_ARGUMENTS))
        try:
            yield browser
        finally:
            browser.close()
