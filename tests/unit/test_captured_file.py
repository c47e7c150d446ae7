"""The file that stands for stdout or stderr while a chunk runs: what is written to it at any time."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from mpqueue._os import files, memory_files
from mpqueue._os.process_facts import end_of_file
from mpqueue._os.system import IS_LINUX
from mpqueue._worker import capture
from mpqueue._worker.capture import CapturedFile
from tests.support.systems import LINUX_ONLY


@pytest.fixture(params=[memory_files.free_beginning, lambda *_: False], ids=["freed", "not freed"])
def file(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[CapturedFile]:
    monkeypatch.setattr(capture, "free_beginning", request.param)
    made = CapturedFile("test")
    yield made
    made.close()


def test_each_read_has_what_was_written_since_the_last_one(file: CapturedFile) -> None:
    for data in [b"", b"a\n", b"", b"longer" * 2000, b"\n", b"b", b""]:
        os.write(file.fd, data)
        assert file.rest() == data


def test_what_a_reader_has_not_seen_stays_whatever_offset_others_write_at(file: CapturedFile) -> None:
    os.write(file.fd, b"one ")
    assert file.rest() == b"one "
    os.lseek(file.fd, 0, os.SEEK_SET)
    os.write(file.fd, b"two ")
    os.lseek(file.fd, 100, os.SEEK_SET)
    os.write(file.fd, b"three")
    assert file.rest() == b"two three"


def test_what_is_written_between_a_read_and_the_freeing_of_its_memory_comes_with_the_next_read(
    file: CapturedFile, monkeypatch: pytest.MonkeyPatch
) -> None:
    read = files.read_at

    def read_and_write(fd: int, size: int, offset: int) -> bytes:
        data = read(fd, size, offset)
        os.write(fd, b"late")
        return data

    os.write(file.fd, b"early ")
    with monkeypatch.context() as patched:
        patched.setattr(capture, "read_at", read_and_write)
        assert file.rest() == b"early "
    assert (file.rest(), file.rest()) == (b"late", b"")


@pytest.mark.skipif(not IS_LINUX, reason="elsewhere no program truncates it: /dev/stderr is a duplicate there")
@pytest.mark.parametrize("text", [b"", b"as long", b"longer, and more"])
def test_a_file_that_a_program_has_truncated_is_read_from_its_beginning(file: CapturedFile, text: bytes) -> None:
    os.write(file.fd, b"as long\n")
    assert file.rest() == b"as long\n"
    for turn in (b"1", b"2", b"3"):
        os.ftruncate(file.fd, 0)
        os.write(file.fd, text + turn)
        assert (file.rest(), file.rest()) == (text + turn, b"")
    os.write(file.fd, b"more")
    assert file.rest() == b"more"
    os.ftruncate(file.fd, 0)
    assert file.rest() == b""
    os.write(file.fd, b"again")
    assert file.rest() == b"again"


def test_memory_of_what_was_read_is_freed_or_the_next_chunk_has_another_file(file: CapturedFile) -> None:
    for _ in range(17):
        os.write(file.fd, bytes(1 << 20))
        assert len(file.rest()) == 1 << 20
    assert file.is_full is (os.fstat(file.fd).st_blocks > 0)


@LINUX_ONLY
def test_the_end_of_a_file_is_read_and_of_nothing_else(tmp_path: Path) -> None:
    pid = os.getpid()
    with (tmp_path / "file").open("wb") as file:
        file.write(b"x" * 100 + b"end")
        file.flush()
        assert end_of_file(pid, file.fileno(), 5) == b"xxend"
        assert end_of_file(pid, file.fileno(), 500) == b"x" * 100 + b"end"
    reading, writing = os.pipe()
    try:
        os.write(writing, b"secret")
        assert end_of_file(pid, reading, 5) is None
        assert os.read(reading, 10) == b"secret"  # which is still there
    finally:
        os.close(reading)
        os.close(writing)
    assert end_of_file(pid, reading, 5) is None
