"""Fixtures of checkpointed homes; a module asks for them with `pytest_plugins = ("checkpointed_plugin",)`."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from checkpointed import Home

from streams.signing import SigningKey


@pytest.fixture(params=["embedded", "sparse"])
def home(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Home]:
    home = Home(tmp_path, sparse=request.param == "sparse")
    home.fill()
    assert home.verify()[0] == []
    yield home
    home.close()


@pytest.fixture
def dense(tmp_path: Path) -> Iterator[Home]:
    home = Home(tmp_path, sparse=False)
    home.fill()
    yield home
    home.close()


@pytest.fixture
def stranger(tmp_path: Path) -> SigningKey:
    return SigningKey.load_or_create(tmp_path / "stranger.pem")
