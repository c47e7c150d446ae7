"""Files, as each system reads and writes them."""

from __future__ import annotations

import os
from pathlib import Path

from mpqueue._os.files import open_file, read_at, write_at


def test_a_file_is_written_and_read_wherever_one_says_and_can_be_renamed_meanwhile(tmp_path: Path) -> None:
    fd = open_file(tmp_path / "file", os.O_RDWR | os.O_CREAT)
    try:
        assert (write_at(fd, b"near\r\n", 0), write_at(fd, b"far", 1 << 33)) == (6, 3)
        assert (read_at(fd, 6, 0), read_at(fd, 10, 1 << 33), read_at(fd, 1, 1 << 34)) == (b"near\r\n", b"far", b"")
        os.replace(tmp_path / "file", tmp_path / "other name")
        os.unlink(tmp_path / "other name")
    finally:
        os.close(fd)
