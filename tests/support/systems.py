"""Which tests are of one system only."""

from __future__ import annotations

import signal

import pytest

from tests.support.this_system import IS_LINUX, IS_WINDOWS

#: For what only Linux has.
LINUX_ONLY = pytest.mark.skipif(not IS_LINUX, reason="only Linux has it")

#: What is told of a worker that has killed itself, and of one that a handler has crashed: exit code and signal, and a
#: word of the error's.
KILLED_ITSELF, KILLED_ITSELF_WORD = ((9, None), "exit code 9") if IS_WINDOWS else ((-9, "SIGKILL"), "SIGKILL")
#: How the end of a worker that mpqueue has killed is described.
KILLED: tuple[int, str | None] = (1, None) if IS_WINDOWS else (-9, "SIGKILL")
SEGFAULT, SEGFAULT_WORD = (
    ((0xC0000005, "ACCESS_VIOLATION"), "ACCESS_VIOLATION") if IS_WINDOWS else ((-11, "SIGSEGV"), "SIGSEGV")
)


def not_on_windows(reason: str) -> pytest.MarkDecorator:
    """For what Windows does not have (`make test-windows`)."""
    return pytest.mark.skipif(IS_WINDOWS, reason=f"Windows: {reason}")


def signal_name(exitcode: int) -> str | None:
    """What ended a process with that exit code is called: a signal; on Windows an exception. None: neither."""
    if IS_WINDOWS:
        return "ACCESS_VIOLATION" if exitcode == 0xC0000005 else None
    return signal.Signals(-exitcode).name if exitcode < 0 else None
