"""The launch of a worker's process: like loky's, but with fewer demands on the program.

loky's own launch flushes ``sys.stdout`` and ``sys.stderr`` first, so it fails or waits for ever if these are closed,
broken, full or replaced. It also refuses daemonic parents, a working directory that was deleted, and a missing
``sys.argv`` or ``sys.executable``. A worker needs none of these.

Private names used: of loky, the format of `loky.backend.popen_loky_posix`'s start message (two pickles: a dictionary
for `loky.backend.spawn.prepare`, whose keys are all optional, and the process) and `loky.backend.spawn._python_exe`; of
`multiprocessing`, `BaseProcess._target`, `_popen` and `_sentinel` with what `BaseProcess.start` deletes,
`process.ORIGINAL_DIR`, `util._logger` and `util._log_to_stderr`.
"""

from __future__ import annotations

import contextlib
import errno
import io
import multiprocessing.spawn
import os
import sys
from collections.abc import Callable, Mapping
from multiprocessing import process, util
from multiprocessing.context import set_spawning_popen
from typing import Any

from loky.backend import reduction, spawn
from loky.backend.context import LokyContext
from loky.backend.process import LokyProcess

from mpqueue._parent.lane_protocol import LaneSettings
from mpqueue._wire.frames import THREAD_VARIABLES
from mpqueue._wire.line import COOKIE_VARIABLE
from mpqueue._wire.pickling.script import is_being_imported
from mpqueue.errors import WorkerStartError

#: Attributes of a process that only this module uses.
_OURS = ("launch",)


class LaunchContext(LokyContext):  # type: ignore[misc]
    """The context with which an executor of loky makes its processes."""

    launch: Launch  #: the way to launch them

    def Process(self, **arguments: Any) -> Launched:  # noqa: N802 - the name that loky calls
        """A process that is about to be started."""
        process = Launched(**arguments)
        process.launch = self.launch
        return process


class Launched(LokyProcess):  # type: ignore[misc]
    """A process of loky that may be started anywhere.

    It is no daemon, even if its parent is one: handlers may start processes. `multiprocessing` does not list it among
    the children, for which it waits at exit.
    """

    name: str
    env: dict[str, str]

    def __init__(self, **arguments: Any) -> None:
        super().__init__(**arguments, daemon=False)
        self.launch: Launch
        self.name = self.name.replace(type(self).__name__, LokyProcess.__name__)  # users see it in their logs

    def start(self) -> None:
        """Launch it. Raises `WorkerStartError` if there is no interpreter to run it with, or OSError."""
        self._popen = self.launch(self)
        self._sentinel = self._popen.sentinel
        # The start arguments must not live as long as the worker.
        del self._target, self._args, self._kwargs

    def plain(self) -> LokyProcess:
        """Return the process for the worker: a `LokyProcess` that does not need this module."""
        process = LokyProcess.__new__(LokyProcess)
        process.__dict__.update({name: value for name, value in vars(self).items() if name not in _OURS})
        return process


def make_sentinel(popen: Any, undo: contextlib.ExitStack) -> int:
    """Give ``popen`` a pipe that reports the worker's end; return the end that only the worker must hold."""
    popen.sentinel, lives = os.pipe()
    util.Finalize(popen, os.close, (popen.sentinel,))
    undo.callback(os.close, lives)
    return lives


#: Starts a process, and returns the popen object that `multiprocessing` uses for it.
Launch = Callable[[Launched], Any]


def tracker(module: str) -> int | None:
    """Return the descriptor of that module's resource tracker, which is started if needed; None if it can't be.

    Few jobs need one, and starting it takes 30 ms of CPU time (loky's: 90), so workers ask for it when they need it.
    """
    try:
        fd: int = sys.modules[module].getfd()
    except (OSError, RuntimeError):  # no room for a process; or this very thread is just starting it
        return None
    return fd


def start_text(popen: Any, worker: Launched) -> bytes:
    """Return a worker's start message; it has asked ``popen`` to hand over its descriptors."""
    message = io.BytesIO()
    set_spawning_popen(popen)
    try:
        reduction.dump(_surroundings(worker.name), message)
        reduction.dump(worker.plain(), message)
    finally:
        set_spawning_popen(None)
    return message.getvalue()


def _surroundings(name: str) -> dict[str, Any]:
    """Return the facts about this process that a worker takes over, as far as they exist.

    It inherits the working directory.
    """
    origin = process.ORIGINAL_DIR  # type: ignore[attr-defined]
    found = {
        "name": name,
        "authkey": bytes(process.current_process().authkey),
        "log_to_stderr": util._log_to_stderr,  # type: ignore[attr-defined]
        "sys_path": [path for entry in sys.path if (path := entry if entry != "" else origin) is not None],
        "orig_dir": origin,
    }
    if isinstance(getattr(sys, "argv", None), list):
        found["sys_argv"] = sys.argv
    logger = util._logger  # type: ignore[attr-defined]
    if logger is not None:
        found["log_level"] = logger.getEffectiveLevel()
        if util._log_to_stderr and logger.handlers:  # type: ignore[attr-defined]
            found["log_fmt"] = getattr(logger.handlers[0].formatter, "_fmt", None)
    return found


def interpreter() -> str:
    """The Python that workers run: the one given to `multiprocessing.set_executable`, else this one."""
    chosen = multiprocessing.spawn.get_executable()
    version = f"python{sys.version_info.major}.{sys.version_info.minor}"
    in_prefixes = [os.path.join(prefix, "bin", version) for prefix in (sys.exec_prefix, sys.base_exec_prefix)]
    for path in (os.fsdecode(chosen or ""), getattr(sys, "executable", None), *in_prefixes):
        if path and os.access(path, os.X_OK) and os.path.isfile(path):
            return path
    raise WorkerStartError(
        "expected sys.executable to be the path of a Python interpreter that this user may run, got "
        f"{getattr(sys, 'executable', None)!r}; call multiprocessing.set_executable(path) before the first job"
    )


#: Temporary errors: the machine, or this process's share of it, is full at the moment.
_PASSING = (errno.EAGAIN, errno.EINTR, errno.ENFILE, errno.ENOMEM, errno.ENOSPC)


def lasts(error: BaseException) -> bool:
    """Tell whether a start that failed with this error would probably fail again."""
    if isinstance(error, OSError):
        return error.errno not in _PASSING and not isinstance(error, TimeoutError)
    return not isinstance(error, (MemoryError, RuntimeError))  # "can't start new thread" is a RuntimeError


def prepare() -> None:
    """Let the resource trackers find the interpreter, before the first start. Raises the errors of `interpreter`.

    Raises `WorkerStartError` also in a worker that imports the program's main module: its workers would do so too, and
    theirs.
    """
    if is_being_imported():
        raise WorkerStartError(
            'expected workers to be started below `if __name__ == "__main__":`, got a start while a worker imports the '
            "main module"
        )
    path = interpreter()
    if not multiprocessing.spawn.get_executable():
        multiprocessing.set_executable(path)
    if not spawn.get_executable():
        spawn._python_exe = path


# -- The environment variables of a worker, in addition to the parent's. -----------------------------------------------

#: Bytes of freed memory that a worker keeps for the next item, and the size up to which allocations use it (32 MB are
#: glibc's most). By default glibc may return the memory of a picture after each picture, and new pages cost a fifth of
#: a thumbnail's time (docs/adr/0010).
KEPT_MEMORY, KEPT_SIZE = 64 << 20, 32 << 20
#: A worker with a limit keeps it if the limit is at least this many times as much.
KEPT_PART = 8


def worker_environment(settings: LaneSettings, cpus: int, cookie: str, inherited: Mapping[str, str]) -> dict[str, str]:
    """Return the variables for a worker: as many threads as keep the CPUs busy with all workers together.

    The user's own variables (``inherited``) are kept, except for threads if ``threads_per_worker`` is given.
    """
    threads = settings.threads_per_worker
    if threads is None:
        share = str(max(1, cpus // settings.concurrency))
        variables = {name: share for name in THREAD_VARIABLES if name not in inherited}
    else:
        variables = dict.fromkeys(THREAD_VARIABLES, str(threads))
    # loky replaces a worker that has grown by 300 MB, as loading a model does; we have memory limits of our own. A
    # number, since "inf" would overflow.
    variables |= {"LOKY_MAX_MEMORY_LEAK_SIZE": "1e18", COOKIE_VARIABLE: cookie, **settings.variables}
    return variables | _memory_variables(settings.max_memory, inherited)


def _memory_variables(limit: int | None, inherited: Mapping[str, str]) -> dict[str, str]:
    """Return the variables that glibc's malloc reads when a process starts; other C libraries ignore them."""
    if limit is not None and limit < KEPT_PART * KEPT_MEMORY:
        return {}
    if any(name.startswith("MALLOC_") for name in inherited) or "glibc.malloc" in inherited.get("GLIBC_TUNABLES", ""):
        return {}
    return {"MALLOC_TRIM_THRESHOLD_": str(KEPT_MEMORY), "MALLOC_MMAP_THRESHOLD_": str(KEPT_SIZE)}
