"""A share of the documents' pages runs from top to bottom."""

from __future__ import annotations

from pathlib import Path

import pytest
from doc_pages import run, share


@pytest.mark.parametrize("page", share(2))
def test_a_page_runs_from_top_to_bottom(page: str, tmp_path: Path) -> None:
    run(page, tmp_path)
