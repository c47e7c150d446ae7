"""The forker: a process that imports the workers' modules once; workers are then forked from it.

It is started like a worker, one for each pool with ``preload``. First it imports, and reports the outcome. Then it
forks a worker for each request, and reports each one's end. It runs no job, and its end ends no worker.

A fork has one thread, even if its parent had more: a lock that another thread held is held for ever there. So nothing
is forked here if an import has started threads, except for threads that end before each fork, like OpenBLAS's, or are
known to be safe.
"""

from __future__ import annotations

import contextlib
import gc
import importlib
import io
import multiprocessing
import os
import pickle
import select
import socket
import struct
import sys
import traceback
from collections.abc import Mapping, Sequence
from multiprocessing import resource_tracker
from typing import Any, NamedTuple, NoReturn

from mpqueue._engines.loky import worker_entry
from mpqueue._os import parent_death
from mpqueue._os.descriptors import close_all, move, open_descriptors
from mpqueue._os.process_facts import other_threads, python_threads
from mpqueue._os.process_handle import ProcessHandle, bury, end_at_once, exit_code, fork_here, open_exactly, try_fork
from mpqueue._os.process_signals import report_broken_pipes, reset_signals
from mpqueue._wire.line import Handle
from mpqueue._worker import preloads
from mpqueue._worker.preloads import Preload

#: The most bytes of a message, and descriptors that one brings: a lane needs about twenty.
MOST_BYTES, MOST_DESCRIPTORS = 1 << 16, 64
#: A worker's exit code, as it is written into its pipe.
EXIT_CODE = struct.Struct("=i")

#: Threads that handle each fork themselves: jemalloc's, which pyarrow brings, holds no lock in one (`prefork` in
#: jemalloc's background_thread.c).
_SAFE = ("jemalloc_bg_thd",)

#: Modules that every worker imports anyway.
_OWN = ("mpqueue._worker.main", "mpqueue._worker.serving", "loky.process_executor")


class ForkerSeed(NamedTuple):
    """The start message of a forker."""

    line: Handle  #: the socket on which requests come
    leash: Handle  #: the same as a worker's
    tracker: Handle  #: the resource tracker of `multiprocessing`, for the imports
    preload: Preload
    start_method: str | None  #: the same as a worker's


class Preloaded(NamedTuple):
    """The outcome of the imports."""

    free: int = 0  #: from here on `MOST_DESCRIPTORS` numbers are free
    failure: str = ""  #: the error
    where: str = ""  #: its traceback
    unsafe: str = ""  #: why nothing may be forked


class ForkRequest(NamedTuple):
    """A request for one worker: it begins the file of the worker's start message.

    It comes with these descriptors: the pipe for its exit code, its folder, this file, and those that the worker keeps.
    """

    numbers: Sequence[int]  #: the worker's numbers of the descriptors that it keeps
    environment: Mapping[str, str]


def serve(seed: ForkerSeed) -> None:
    """Import, and then fork workers on request, until the parent closes the line. In a fork it never returns."""
    parent_death.follow_parent(seed.leash.fd)
    reset_signals()
    multiprocessing.set_start_method(seed.start_method, force=True)
    resource_tracker._resource_tracker._fd = seed.tracker.fd  # type: ignore[attr-defined]
    line = socket.socket(fileno=seed.line.fd)
    came_of_it = _preload(seed.preload)
    line.send(pickle.dumps(came_of_it))
    if not came_of_it.failure and not came_of_it.unsafe:
        report_broken_pipes()
        gc.collect()
        gc.freeze()  # objects here stay: no collection in a worker writes to these pages
        _Forker(line, seed.leash.fd).run()


# -- imports -----------------------------------------------------------------------------------------------------------


def _preload(preload: Preload) -> Preloaded:
    try:
        open_exactly(os.getpid()).close()
        other_threads()
    except OSError as error:
        return Preloaded(unsafe=f"the system refuses what that takes ({error})")
    for name in _OWN:
        importlib.import_module(name)
    for what, step in preloads.steps(preload):
        try:
            step()
        except BaseException as error:
            text, where = preloads.text_of_failure(what, error), traceback.format_exc()
            return Preloaded(failure=text, where=where[-preloads.MAX_TEXT :])
        if _unsafe_threads():
            try_fork()  # some end before a first fork
        if names := _unsafe_threads():
            return Preloaded(
                unsafe=f"{what} has started threads ({', '.join(names)}), and a fork of a process with threads may hang"
            )
    preloads.done = preload
    return Preloaded(free=max(open_descriptors(), default=2) + 1)


def _unsafe_threads() -> list[str]:
    """Return the names of threads that a fork would lack."""
    return python_threads() or [name for name in other_threads() if name not in _SAFE]


# -- forks -------------------------------------------------------------------------------------------------------------


class _Live(NamedTuple):
    """A worker, and its pipe."""

    pid: int
    handle: ProcessHandle
    status: int


class _Forker:
    """The loop of the forker, which waits for requests, and for workers to end."""

    def __init__(self, line: socket.socket, leash: int) -> None:
        self._line = line
        self._leash = leash
        self._poll = select.poll()
        self._poll.register(line, select.POLLIN)
        self._live: dict[int, _Live] = {}  #: by the descriptor that reports their ends
        self._ended: dict[int, int] = {}  #: by its pipe: an ended worker, until the parent knows

    def run(self) -> NoReturn:
        """Serve until the line ends. An ended worker keeps its number until the parent knows: it may send signals."""
        while True:
            for fd, _ in self._poll.poll():
                if fd in self._live:
                    self._tell_end(fd)
                elif fd in self._ended:
                    self._bury(fd)
                elif not self._take_request():
                    for pid in self._ended.values():
                        bury(pid)
                    end_at_once()  # cleanup of the imported modules may take long

    def _take_request(self) -> bool:
        message, fds, _, _ = socket.recv_fds(self._line, MOST_BYTES, MOST_DESCRIPTORS)
        if not message:
            return False
        status, folder, file, *kept = fds
        try:
            pid = fork_here()
        except OSError as error:
            self._line.send(pickle.dumps(error))
            os.close(status)
        else:
            if pid == 0:
                os.close(status)
                self._become_worker(file, folder, kept)
            handle = open_exactly(pid)
            self._live[handle.fileno()] = _Live(pid, handle, status)
            self._poll.register(handle.fileno(), select.POLLIN)
            self._line.send(pickle.dumps(pid))
        close_all(folder, file, *kept)
        return True

    def _tell_end(self, fd: int) -> None:
        pid, handle, status = self._live.pop(fd)
        self._poll.unregister(fd)
        handle.close()
        with contextlib.suppress(OSError):  # it has no reader any more
            os.write(status, EXIT_CODE.pack(exit_code(pid)))
        self._ended[status] = pid
        self._poll.register(status, 0)  # the end of its reader is reported in any case

    def _bury(self, status: int) -> None:
        pid = self._ended.pop(status)
        self._poll.unregister(status)
        os.close(status)
        bury(pid)

    def _become_worker(self, file: int, folder: int, kept: Sequence[int]) -> NoReturn:
        """Become a worker, in the fork, by this start message, with these descriptors."""
        exitcode = 1
        try:
            self._line.close()
            statuses = [live.status for live in self._live.values()]
            close_all(self._leash, *self._live, *statuses, *self._ended)
            os.fchdir(folder)
            os.close(folder)
            with os.fdopen(file, "rb") as start:
                message = io.BytesIO(start.read())  # its number may be one that the worker needs
            request: ForkRequest = pickle.load(message)
            move(kept, request.numbers)
            for name in os.environ.keys() - request.environment.keys():
                del os.environ[name]
            os.environ.update(request.environment)
            _draw_new_seeds()
            exitcode = worker_entry.live(pickle.load(message), message)
        except Exception:
            traceback.print_exc()
        sys.exit(exitcode)


def _draw_new_seeds() -> None:
    """Make sure that no two workers draw the same random numbers. Python's own generator does that itself."""
    for name, function in (("numpy.random", "seed"), ("torch", "seed")):
        module: Any = sys.modules.get(name)
        if module is not None:
            getattr(module, function)()
