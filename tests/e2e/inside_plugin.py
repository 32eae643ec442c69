"""The `inside` fixture; a test module asks for it with `pytest_plugins = ("inside_plugin",)`."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from conftest_e2e import POLICY
from inside import Inside

from lumyn import wiring


@pytest.fixture
def inside(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Inside]:
    for name in [name for name in os.environ if name.startswith("LUMYN_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("LUMYN_POLICY", "policy.yml")
    monkeypatch.setenv("LUMYN_ACTOR", "oncall")
    monkeypatch.chdir(tmp_path)
    folder = Inside(tmp_path)
    folder.write("policy.yml", POLICY)
    yield folder
    wiring.close_homes()
