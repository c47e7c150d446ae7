"""The parent's side of the forker: it requests workers and reports their ends."""

from __future__ import annotations

import contextlib
import logging
import multiprocessing
import os
import pickle
import socket
import threading
from collections.abc import Callable, Mapping
from multiprocessing import connection, resource_tracker, util
from typing import Any

from loky.backend import popen_loky_posix

from mpqueue._engines.loky import launch
from mpqueue._engines.loky.exec_launch import Launching
from mpqueue._engines.loky.forker import (
    EXIT_CODE,
    MOST_BYTES,
    ForkerSeed,
    ForkRequest,
    Preloaded,
    serve,
)
from mpqueue._engines.loky.launch import Launched
from mpqueue._engines.loky.worker_process import START_LOOK, StartProgress
from mpqueue._os.descriptors import is_readable, message_pair
from mpqueue._os.memory_files import SharedFile
from mpqueue._os.parent_death import Leash
from mpqueue._wire.line import Handle
from mpqueue._wire.pickling.main_names import ImportWatch
from mpqueue._worker import preloads
from mpqueue._worker.preloads import Preload
from mpqueue.errors import WorkerStartError

#: Seconds that one fork may take: a few ms, with the pages of a large program.
FORK_LIMIT = 10.0
#: Seconds that the forker may take to end.
END_LIMIT = 1.0


class ForkerGoneError(Exception):
    """The forker has ended, or does not answer."""


class ForkServer:
    """One forker, from its start until `close`. Used on the starter's thread; `kill` may be called on any."""

    def __init__(self, preload: Preload, environment: Mapping[str, str]) -> None:
        """Start the forker. Raises OSError, or `WorkerStartError` if there is no interpreter."""
        self.user = os.geteuid(), os.getegid()
        self.free = 0
        self._leash = Leash()
        with contextlib.ExitStack() as undo:
            undo.callback(self._leash.close)
            self._line, theirs = message_pair()
            undo.callback(self._line.close)
            tracker = resource_tracker.getfd()
            assert tracker is not None, "it runs"
            with theirs:
                seed = ForkerSeed(
                    line=Handle(theirs.fileno()),
                    leash=Handle(self._leash.worker_end),
                    tracker=Handle(tracker),
                    preload=preload,
                    start_method=multiprocessing.get_start_method(allow_none=True),
                )
                context = launch.LaunchContext()
                context.launch = Launching
                process = context.Process(target=serve, args=(seed,), env=dict(environment))
                process.start()
            self._process: Any = process
            undo.pop_all()

    def await_imports(self) -> Preloaded:
        """Wait for the outcome of the imports.

        Raises `ForkerGoneError` if the forker ended meanwhile, `WorkerStartError` if it is stuck.
        """
        progress = StartProgress(self._process.pid)
        while not is_readable(self._line.fileno(), START_LOOK):
            if (stuck := progress.look()) is not None:
                self.kill()
                raise WorkerStartError(f"preload: the importing {stuck}")
        came_of_it: Preloaded = self._receive(0.0)
        self.free = came_of_it.free
        return came_of_it

    def fork(self, descriptors: list[int]) -> int:
        """Fork a worker, see `ForkRequest`; return its process id.

        Raises `ForkerGoneError`, or OSError if there is no room.
        """
        try:
            socket.send_fds(self._line, [b"fork"], descriptors)
            answer = self._receive(FORK_LIMIT)
        except TimeoutError:
            self.kill()
            raise ForkerGoneError("it did not answer") from None
        except OSError as error:
            raise ForkerGoneError(str(error)) from None
        if isinstance(answer, OSError):
            raise answer
        return int(answer)

    def _receive(self, limit: float) -> Any:
        if not is_readable(self._line.fileno(), limit):
            raise TimeoutError
        try:
            message = self._line.recv(MOST_BYTES)
        except OSError:
            message = b""
        if not message:
            raise ForkerGoneError("it has ended")
        return pickle.loads(message)

    def kill(self) -> None:
        """End the forker now. Its workers live on."""
        self._leash.pull()

    def close(self) -> None:
        """Let the forker end, and make sure that it does: its workers have ended."""
        self._line.close()
        self._process.join(END_LIMIT)
        self._leash.close()  # in any state
        self._process.join(END_LIMIT)


class ForkedPopen(popen_loky_posix.Popen):  # type: ignore[misc]
    """A launch by a fork; for `multiprocessing` the popen object of a process that is no child of this one."""

    def __init__(self, worker: launch.Launched, server: ForkServer) -> None:
        """Fork the worker. Raises the errors of `ForkServer.fork`."""
        self.returncode: int | None = None
        self._lock = threading.Lock()
        self._fds: list[int] = []
        self._free = server.free
        with contextlib.ExitStack() as undo:
            message = launch.start_text(self, worker)
            self._fds.append(launch.make_sentinel(self, undo))
            self._status, status = os.pipe()
            util.Finalize(self, os.close, (self._status,))  # it shows the forker that the number may be freed
            undo.callback(os.close, status)
            folder = os.open(".", os.O_PATH | os.O_DIRECTORY)  # type: ignore[attr-defined,unused-ignore]
            undo.callback(os.close, folder)
            numbers = range(self._free, self._free + len(self._fds))
            request = pickle.dumps(ForkRequest(numbers, {**os.environ, **worker.env}))
            file = undo.enter_context(contextlib.closing(SharedFile("start", data=request + message)))
            self.pid = server.fork([status, folder, file.fd, *self._fds])

    def duplicate_for_child(self, fd: int) -> int:
        """Return the number under which the worker will find that descriptor."""
        self._fds.append(fd)
        return self._free + len(self._fds) - 1

    @staticmethod
    def DupFd(number: int) -> Any:  # noqa: N802 - the name that loky calls
        """Return an object that becomes that number in the worker.

        loky's own would change the parent's descriptor.
        """
        passed = popen_loky_posix._DupFd.__new__(popen_loky_posix._DupFd)
        passed.fd = number
        return passed

    def poll(self, flag: int = os.WNOHANG) -> int | None:
        """Return the exit code; None: not ended, or not reported by the forker yet. 255: the forker had ended before.

        With 0 it waits for the worker's end, or the forker's; but a stopped forker reports nothing.
        """
        if flag != os.WNOHANG and self.returncode is None:
            connection.wait([self.sentinel, self._status])
        with self._lock:  # loky's thread asks too, and the answer comes once
            is_due = self.returncode is None and is_readable(self.sentinel, 0)
            if is_due and is_readable(self._status, 0):
                told = os.read(self._status, EXIT_CODE.size)
                self.returncode = int(EXIT_CODE.unpack(told)[0]) if len(told) == EXIT_CODE.size else 255
            return self.returncode


# -- Launches the workers of a pool with ``preload``: by a fork; if that is not possible, the ordinary way. ------------

_log = logging.getLogger("mpqueue")

#: The most forkers that may end while starting a worker, before it is started the ordinary way.
TRIES = 3


class Preloading:
    """The launcher of one pool, on its starter's thread. A forker that has ended is replaced at the next request."""

    def __init__(self, preload: Preload, environment: Callable[[], Mapping[str, str]]) -> None:
        self._preload = preload
        self._environment = environment
        self._server: ForkServer | None = None
        self._imports = ImportWatch()
        self._is_unsafe = False
        self._is_closing = False
        self._is_waiting = False  #: for a forker's answer

    def launch(self, worker: Launched) -> Any:
        """Start that worker's process.

        Raises `WorkerStartError` if an import fails, or the pool closes meanwhile; or OSError.
        """
        for _ in range(TRIES):
            try:
                return self._fork(worker)
            except ForkerGoneError as error:
                _log.debug("the process that workers are forked from is gone: %s", error)
                self._drop()
                if self._is_closing:  # and has ended it
                    raise WorkerStartError("preload: the queue is closed") from None
        _log.warning("preload: the process that workers are forked from ends again and again; one starts without it")
        return Launching(worker)

    def _fork(self, worker: Launched) -> Any:
        try:
            self._is_waiting = True
            server = self._server_now()
            if self._is_closing:
                raise ForkerGoneError("the queue is closed")
            return Launching(worker) if server is None else ForkedPopen(worker, server)
        finally:
            self._is_waiting = False

    def _server_now(self) -> ForkServer | None:
        """Return a server that can fork; None if it would not be safe."""
        if self._server is not None and self._server.user != (os.geteuid(), os.getegid()):
            self._drop()  # its workers would have the rights that this process has dropped
        if self._imports.look():
            self._drop()  # it has modules from before the program's reload
        if self._server is None and not self._is_unsafe:
            self._start()
        return self._server

    def _start(self) -> None:
        self._server = server = ForkServer(self._preload, self._environment())
        if self._is_closing:
            raise ForkerGoneError("the queue is closed")
        came_of_it = server.await_imports()
        if not came_of_it.failure and not came_of_it.unsafe:
            return
        self._drop()
        if came_of_it.failure:
            raise preloads.failure(came_of_it.failure, came_of_it.where)
        self._is_unsafe = True
        _log.warning(
            "preload: %s; workers start the ordinary way, and each imports by itself, or calls the function",
            came_of_it.unsafe,
        )

    def _drop(self) -> None:
        server, self._server = self._server, None
        if server is not None:
            server.kill()
            with contextlib.suppress(OSError):
                server.close()

    def hurry(self) -> None:
        """Stop waiting for imports and forks: the pool closes. On any thread."""
        self._is_closing = True
        server = self._server
        if server is not None and self._is_waiting:
            server.kill()

    def close(self) -> None:
        """Close the forker: all workers have ended, and the starter is ending."""
        server, self._server = self._server, None
        if server is not None:
            server.close()
