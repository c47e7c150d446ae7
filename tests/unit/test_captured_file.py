"""The file that stands for stdout or stderr while a chunk runs: what is written to it at any time, and its text."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from mpqueue._os.memory import memory_files
from mpqueue._os.process.process_facts import end_of_file
from mpqueue._os.system import IS_LINUX
from mpqueue._worker.chunk import capture
from mpqueue._worker.chunk.capture import CapturedFile, CapturedText
from tests.support.systems import LINUX_ONLY


@pytest.fixture(params=[memory_files._punch_beginning, memory_files._free_nothing], ids=["freed", "not freed"])
def file(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[CapturedFile]:
    monkeypatch.setattr(capture, "free_beginning", request.param)
    made = CapturedFile("test")
    yield made
    made.close()


def test_each_read_has_what_was_written_since_the_last_one(file: CapturedFile) -> None:
    fd = file.descriptor.fd
    written = [b"", b"a\n", b"", b"longer" * 2000, b"\n", b"b", b""]
    for data in written:
        os.write(fd, data)
        assert file.rest(fd) == data


def test_what_a_reader_has_not_seen_stays_whatever_offset_others_write_at(file: CapturedFile) -> None:
    fd = file.descriptor.fd
    os.write(fd, b"one ")
    assert file.rest(fd) == b"one "
    os.lseek(fd, 0, os.SEEK_SET)
    os.write(fd, b"two ")
    os.lseek(fd, 100, os.SEEK_SET)
    os.write(fd, b"three")
    assert file.rest(fd) == b"two three"


def test_nothing_is_read_of_another_file_nor_freed_there(file: CapturedFile) -> None:
    os.write(file.descriptor.fd, b"own")
    other = memory_files.make_file("test")
    os.write(other, b"another one's")
    assert file.rest(other) == b""
    assert file.rest(file.descriptor.fd) == b"own"
    assert os.path.getsize(f"/dev/fd/{other}") == len(b"another one's")
    os.close(other)


@pytest.mark.skipif(not IS_LINUX, reason="elsewhere no program truncates it: /dev/stderr is a duplicate there")
@pytest.mark.parametrize("text", [b"x", b"as long\n", b"longer, and more\n"])
def test_a_file_that_a_program_has_truncated_is_read_from_its_beginning(text: bytes, file: CapturedFile) -> None:
    fd = file.descriptor.fd
    os.write(fd, b"as long\n")
    assert file.rest(fd) == b"as long\n"
    for _ in range(3):
        os.ftruncate(fd, 0)
        os.write(fd, text)
        assert (file.rest(fd), file.rest(fd)) == (text, b"")
    os.write(fd, b"more")
    assert file.rest(fd) == b"more"
    os.ftruncate(fd, 0)
    assert file.rest(fd) == b""
    os.write(fd, b"again")
    assert file.rest(fd) == b"again"


def test_memory_of_what_was_read_is_freed_or_another_file_takes_over(file: CapturedFile) -> None:
    fd = file.descriptor.fd
    for _ in range(17):
        os.write(fd, bytes(1 << 20))
        assert len(file.rest(fd)) == 1 << 20
    assert file.is_full or os.fstat(fd).st_blocks == 0


def test_another_file_takes_over_before_the_limit_of_a_file_s_size(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(capture, "file_size_limit", lambda: 1000)
    file = CapturedFile("test")
    fd = file.descriptor.fd
    os.write(fd, bytes(400))
    full = [(file.rest(fd), file.is_full)[1]]
    os.write(fd, bytes(200))
    full.append((file.rest(fd), file.is_full)[1])
    file.close()
    assert full == [False, True]


@pytest.mark.parametrize(
    ("written", "texts"),
    [
        ([[b"a", b"", b"b"]], ["a", "", "b"]),
        ([[b"a\xe2", b"", b"\x82", b"\xac b"]], ["a", "", "", "\u20ac b"]),
        ([[b"caf\xe9", b"next"]], ["caf\ufffd", "next"]),
        ([[b"caf\xe9", b"", b"\xa9 next"]], ["caf\ufffd", "", "\ufffd next"]),
        ([[b"caf\xe9"]], ["caf\ufffd"]),
        ([[b"\xff!", b"\x80"]], ["\ufffd!", "\ufffd"]),
        ([[b"a\xf0\x9f", b""], [b"", b"\x98\x80 b"]], ["a\ufffd", "", "", "\U0001f600 b"]),
        ([[b"caf\xe9"], [], [b"next"]], ["caf\ufffd", "next"]),
    ],
)
def test_a_character_that_is_cut_between_two_reads_is_whole(written: list[list[bytes]], texts: list[str]) -> None:
    text = CapturedText()
    assert [each for some in written for each in text.of_each(some)] == texts


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
