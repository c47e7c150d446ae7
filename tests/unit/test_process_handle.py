"""A hold on a process: what is known of one without ending it. How processes end is in the crash table."""

from __future__ import annotations

import os

import pytest

from mpqueue._os import process_handle
from mpqueue._os.process_handle import PosixProcess, fork_here, process_name
from tests.support.systems import LINUX_ONLY


@LINUX_ONLY
def test_where_the_kernel_has_no_pidfds_a_process_is_known_by_its_number(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(pid: int, flags: int = 0) -> int:
        raise PermissionError(pid, flags)

    monkeypatch.setattr(os, "pidfd_open", refuse)
    assert type(process_handle.open_process(os.getpid(), 0)) is PosixProcess
    with pytest.raises(PermissionError):
        process_handle.open_exactly(os.getpid())


def test_no_process_has_the_name_of_another() -> None:
    name = process_name()
    assert process_name() == name
    assert len(name) == 16
    read, write = os.pipe()
    if (child := fork_here()) == 0:
        os.write(write, process_name().encode())
        os._exit(0)
    os.waitpid(child, 0)
    assert os.read(read, 99).decode() != name
    os.close(read)
    os.close(write)


def test_bytes_in_a_sentinel_are_a_false_end_and_its_closing_is_none() -> None:
    sentinel, end = os.pipe()
    process = PosixProcess(os.getpid(), sentinel)
    assert not process.has_false_end()
    os.write(end, b"x")
    assert process.has_false_end()
    os.close(end)
    assert not process.has_false_end()
    os.close(sentinel)
