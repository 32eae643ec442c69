"""Writing a file whole: what is no file keeps being what it is."""

from __future__ import annotations

import os
import stat
import threading
from pathlib import Path

import pytest

from lumyn.exporting import write_whole
from schemas.errors import StorageUnavailable


def test_a_pipe_is_written_into_and_not_replaced(tmp_path: Path) -> None:
    """Nor is a device: `--out /dev/null` by root would leave a file there."""
    path, got = tmp_path / "pipe", []
    os.mkfifo(path)
    reader = threading.Thread(target=lambda: got.append(path.read_bytes()), daemon=True)
    reader.start()
    write_whole(path, b"told")
    reader.join(10)
    assert got == [b"told"] and stat.S_ISFIFO(path.stat().st_mode)
    assert [one.name for one in tmp_path.iterdir()] == ["pipe"]


@pytest.mark.skipif(not Path("/dev/full").is_char_device(), reason="no /dev/full here")
def test_a_full_device_is_told(tmp_path: Path) -> None:
    link = tmp_path / "link"
    link.symlink_to("/dev/full")
    with pytest.raises(StorageUnavailable, match="No space left"):
        write_whole(link, b"told" * 10_000)
    assert link.is_symlink() and Path("/dev/full").is_char_device()
