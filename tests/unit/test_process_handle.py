"""A hold on a process: what is known of one without ending it. How processes end is in the crash table."""

from __future__ import annotations

import os
import signal
from multiprocessing import connection
from pathlib import Path
from typing import Any

import pytest

from mpqueue._engines.loky.process.worker_process import WorkerProcess
from mpqueue._os.process import process_handle
from mpqueue._os.process.own_forks import fork_here
from mpqueue._os.process.process_handle import LinuxProcess, PosixProcess
from mpqueue._os.process.process_identity import process_name
from tests.support.systems import LINUX_ONLY


def test_what_is_written_into_a_sentinel_is_not_taken_for_an_end() -> None:
    sentinel, lives = os.pipe()
    try:
        handle = PosixProcess(os.getpid(), sentinel)
        assert not handle.is_written_to()
        os.write(lives, b"x")
        assert handle.is_written_to()
    finally:
        os.close(lives)
    assert handle.wait(0)
    assert not handle.is_written_to()
    os.close(sentinel)


@LINUX_ONLY
def test_what_a_signal_would_do_is_known_where_the_system_tells() -> None:
    own, number = LinuxProcess(os.getpid()), signal.SIGUSR1
    before = signal.signal(number, lambda *_: None)
    try:
        assert own.catches(number)
        assert not PosixProcess(os.getpid()).catches(number)
        signal.signal(number, signal.SIG_DFL)
        assert not own.catches(number)
    finally:
        signal.signal(number, before)
        own.close()


@LINUX_ONLY
def test_where_the_kernel_has_no_pidfds_a_process_is_known_by_its_number(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(pid: int, flags: int = 0) -> int:
        raise PermissionError(pid, flags)

    monkeypatch.setattr(os, "pidfd_open", refuse)
    assert type(process_handle.open_process(os.getpid())) is PosixProcess
    with pytest.raises(PermissionError):
        process_handle.open_exactly(os.getpid())


@LINUX_ONLY
def test_of_a_process_that_is_gone_there_is_no_handle_without_a_sentinel() -> None:
    beyond = int(Path("/proc/sys/kernel/pid_max").read_text())
    with pytest.raises(ProcessLookupError):
        process_handle.open_process(beyond)


def test_waiting_for_the_end_while_the_lane_is_closed_does_not_raise(
    monkeypatch: pytest.MonkeyPatch, pipe: tuple[int, int]
) -> None:
    """Found by chaos: a lane that is killed while loky asks for its exit code."""
    sentinel, lives = pipe
    os.write(lives, b"x")
    worker = WorkerProcess(os.getpid(), sentinel)
    wait = connection.wait

    def wait_and_close(objects: Any, timeout: float) -> Any:
        ready = wait(objects, 0)
        worker.close()
        return ready

    monkeypatch.setattr(connection, "wait", wait_and_close)
    worker.await_end(1.0)


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
