"""A hold on a process, and what ends with it: each form, with processes that really end."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest

from mpqueue._os.descriptors import is_readable
from mpqueue._os.process import parent_death, process_handle
from mpqueue._os.process.own_forks import fork_here
from mpqueue._os.process.process_handle import LinuxProcess, PosixProcess, ProcessHandle, is_reaped
from mpqueue._os.process.process_identity import process_name
from mpqueue._os.process.process_signals import signal_name
from tests.support.programs import is_running
from tests.support.systems import LINUX_ONLY
from tests.support.waiting import wait_until

FORMS = pytest.mark.parametrize(
    "form",
    [
        pytest.param(lambda pid, _: LinuxProcess(pid), id="linux", marks=LINUX_ONLY),
        pytest.param(PosixProcess, id="posix"),
    ],
)
Form = Callable[[int, int], ProcessHandle]
#: macOS tells how a process has ended, and that it was stopped, from Python 3.13 on only.
TELLS = LINUX_ONLY


@contextmanager
def started(form: Form, *command: str) -> Iterator[tuple[subprocess.Popen[bytes], ProcessHandle]]:
    """A process that holds the other end of its sentinel, and a handle of it."""
    sentinel, lives = os.pipe()
    process = subprocess.Popen(command, pass_fds=[lives])
    os.close(lives)
    handle = form(process.pid, sentinel)
    try:
        yield process, handle
    finally:
        process.kill()
        process.wait()
        handle.close()
        handle.close()
        os.close(sentinel)


@TELLS
@FORMS
def test_a_signal_ends_it_and_its_end_is_seen_and_told_and_left_to_be_reaped(form: Form) -> None:
    with started(form, "sleep", "300") as (process, handle):
        assert not handle.wait(0)
        assert handle.exit_code() is None
        handle.send(signal.SIGKILL)
        assert handle.wait(30)
        wait_until(lambda: handle.exit_code() is not None, what="the exit code")
        assert handle.exit_code() == -signal.SIGKILL
        assert signal_name(handle.exit_code()) == "SIGKILL"
        assert not is_reaped(process.pid)
        assert process.wait() == -signal.SIGKILL
        assert is_reaped(process.pid)
        handle.send(signal.SIGKILL)  # to nobody


@TELLS
@FORMS
def test_one_that_ends_by_itself_tells_its_code(form: Form) -> None:
    with started(form, "sh", "-c", "exit 3") as (_, handle):
        assert handle.wait(30)
        wait_until(lambda: handle.exit_code() == 3, what="the exit code")
        own = handle.duplicate()
        handle.close()
        if own is not None:
            assert is_readable(own, 0)
            os.close(own)
        assert (own is not None) == isinstance(handle, LinuxProcess)


@TELLS
@FORMS
def test_one_that_was_stopped_is_seen_as_such_until_it_goes_on(form: Form) -> None:
    with started(form, "sleep", "300") as (_, handle):
        assert not handle.is_stopped()
        handle.send(signal.SIGSTOP)
        wait_until(handle.is_stopped, what="the stop")
        assert handle.is_stopped(), "it was not taken away by looking"
        handle.send(signal.SIGCONT)
        wait_until(lambda: not handle.is_stopped(), what="its going on")


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
    process = subprocess.Popen(["true"])
    process.wait()
    with pytest.raises(ProcessLookupError):
        process_handle.open_process(process.pid)


def test_a_guard_is_no_child_that_a_handler_could_wait_for() -> None:
    """It ends with the group, which is that of a process of its own here."""
    leash = parent_death.Leash()
    program = (
        "import os\n"
        "from mpqueue._os.process import parent_death\n"
        "os.setsid()\n"
        f"assert parent_death._hold_by_guard({leash.worker_end})\n"
        "try:\n    os.wait()\nexcept ChildProcessError:\n    print('none', flush=True)\n"
        "os.read(0, 1)\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE, pass_fds=[leash.worker_end]
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"none\n"
        leash.pull()
        assert process.wait(30) == -signal.SIGKILL
    leash.close()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("form", "deed"),
    [
        pytest.param("parent_death._hold_by_kernel", "handlers.hang_holding_gil(0)", id="kernel", marks=LINUX_ONLY),
        pytest.param("parent_death._hold_by_guard", "handlers.hang_holding_gil(0)", id="guard"),
        pytest.param("lambda leash: False", "child.wait()", id="thread"),
    ],
)
@pytest.mark.parametrize("way", ["pull", "close"])
def test_a_leash_ends_a_worker_and_its_group_by_each_form(form: str, deed: str, way: str) -> None:
    leash = parent_death.Leash()
    program = (
        "import os, subprocess, sys\n"
        "from mpqueue._os.process import parent_death\n"
        "from tests.support import handlers\n"
        f"parent_death.hold_leash = {form}\n"
        f"parent_death.follow_parent({os.getpid()}, {leash.worker_end})\n"
        "child = subprocess.Popen(['sleep', '300'])\n"
        "print(child.pid, flush=True)\n"
        f"{deed}\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", program], stdout=subprocess.PIPE, pass_fds=[leash.worker_end]
    ) as worker:
        assert worker.stdout is not None
        child = int(worker.stdout.readline())
        assert is_running(child)
        getattr(leash, way)()
        assert worker.wait(30) == -signal.SIGKILL
        wait_until(lambda: not is_running(child), what="the end of the group")
    leash.close()


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
