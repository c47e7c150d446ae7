"""A launch on Windows, which has no forks: the process is made, gets its handles, and only then runs."""

from __future__ import annotations

import functools
import os
import sys
from typing import Any

from mpqueue._engines.loky import launch
from mpqueue._engines.loky.worker_entry import PROGRAM
from mpqueue._os import parent_death

#: The code that the interpreter runs: open the message, as `loky.backend.popen_loky_win32` does, and become the worker.
#: If it has no standard streams, as under `pythonw.exe`, they become the null device, which `faulthandler` needs. Their
#: numbers are not free, so no file of ours has one.
_PROGRAM = f"""
import msvcrt, os, sys
null = os.open(os.devnull, os.O_RDWR)
for number, name in enumerate(("stdin", "stdout", "stderr")):
    try:
        os.fstat(number)
    except OSError:
        os.dup2(null, number)
    if number and getattr(sys, name) is None:
        setattr(sys, name, open(number, "w", encoding="utf-8", errors="backslashreplace", closefd=False))
os.close(null)
fd = msvcrt.open_osfhandle(int(sys.argv[-1]), os.O_RDONLY)
os.lseek(fd, 0, 0)
message = os.fdopen(fd, "rb")
{PROGRAM}"""


def launch_suspended(worker: launch.Launched) -> Any:
    """Start the worker with an interpreter of its own; return the popen object that `multiprocessing` uses for it."""
    executable, environment = launch.interpreter(), {**os.environ, **worker.env}
    base = getattr(sys, "_base_executable", executable)
    if os.path.normcase(executable) == os.path.normcase(sys.executable) != os.path.normcase(base):
        # In a virtual environment it would start the real one, and be only its parent.
        executable, environment["__PYVENV_LAUNCHER__"] = base, executable
    text = functools.partial(launch.start_text, worker=worker)
    return parent_death.spawn(executable, ["-c", _PROGRAM, "--multiprocessing-fork"], environment, text)
