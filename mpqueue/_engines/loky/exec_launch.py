"""A launch on POSIX systems: the interpreter is executed in a fork, and inherits descriptors."""

from __future__ import annotations

import contextlib

from loky.backend import popen_loky_posix
from loky.backend.fork_exec import fork_exec

from mpqueue._engines.loky import launch
from mpqueue._engines.loky.worker_entry import PROGRAM
from mpqueue._os.memory_files import SharedFile

#: The code that the interpreter runs; in a list of processes, users see the worker's name after it.
_PROGRAM = f"import os, sys; message = os.fdopen(int(sys.argv[1]), 'rb')\n{PROGRAM.strip()}"


class Launching(popen_loky_posix.Popen):  # type: ignore[misc]
    """One launch, with an interpreter of its own."""

    def __init__(self, worker: launch.Launched) -> None:
        """Fork and execute the interpreter, with its start message in a file: a pipe would hold 64 KB of it."""
        self.returncode = None
        self._fds: list[int] = []
        executable = launch.interpreter()
        with contextlib.ExitStack() as undo:
            message = launch.start_text(self, worker)
            file = undo.enter_context(contextlib.closing(SharedFile("start", data=message)))
            lives = launch.make_sentinel(self, undo)
            command = [executable, "-c", _PROGRAM, str(file.fd), worker.name]
            self.pid = fork_exec(command, [*self._fds, file.fd, lives], env=worker.env)
