"""A launch on POSIX systems: the interpreter is executed in a fork, and inherits what it is handed over."""

from __future__ import annotations

import contextlib
import os
import weakref
from typing import Any

from loky.backend import popen_loky_posix
from loky.backend.fork_exec import fork_exec

from mpqueue._engines.loky import launch
from mpqueue._engines.loky.process.worker_process import WorkerProcess
from mpqueue._engines.loky.worker_entry import PROGRAM

#: What the interpreter runs; users see the name of the worker after it, in a list of processes.
_PROGRAM = f"import os, sys; message = os.fdopen(int(sys.argv[1]), 'rb')\n{PROGRAM.strip()}"
#: Seconds from the end of a worker's pipe to the end of its process: the time to free its memory, 60 ms for 300 MB.
EXITCODE_PATIENCE = 0.25


class Launching(popen_loky_posix.Popen):  # type: ignore[misc]
    """One launch, with an interpreter of its own."""

    def __init__(self, worker: launch.Launched) -> None:
        self.returncode = None
        self._fds: list[int] = []
        self._launch(worker)

    def _launch(self, worker: launch.Launched) -> None:
        """Fork and execute the interpreter, with its start message in a file: a pipe would hold 64 KB of it."""
        executable = launch.interpreter()
        with contextlib.ExitStack() as undo:
            file = undo.enter_context(contextlib.closing(launch.start_message(self, worker)))
            lives = launch.make_sentinel(self, undo)
            command = [executable, "-c", _PROGRAM, str(file.fd), worker.name]
            self.pid = fork_exec(command, [*self._fds, file.fd, lives], env=worker.env)


def await_exitcode(popen: Any, worker: WorkerProcess) -> None:
    """Where loky asks for the exit code of a worker that is just ending, let it have it.

    It often asks too early: its pipe from the worker is closed some microseconds before the process is dead. Then it
    sleeps 100 ms before it fails the calls.
    """
    reference = weakref.ref(popen)
    plain_poll = type(popen).poll

    def poll(flag: int = os.WNOHANG) -> Any:
        popen = reference()
        assert popen is not None
        if flag == os.WNOHANG and popen.returncode is None:
            worker.await_end(EXITCODE_PATIENCE)
        return plain_poll(popen, flag)

    popen.poll = poll
