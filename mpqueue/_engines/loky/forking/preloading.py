"""Launches the workers of a pool with ``preload``: by a fork, and where that can't be, the ordinary way."""

from __future__ import annotations

import contextlib
import functools
import logging
import os
from collections.abc import Callable, Mapping
from typing import Any

from mpqueue._engines.loky.exec_launch import Launching
from mpqueue._engines.loky.forking.fork_server import ForkedPopen, ForkerGoneError, ForkServer
from mpqueue._engines.loky.launch import Launched
from mpqueue._wire.pickling.imports import ImportWatch
from mpqueue._worker import preloads
from mpqueue.errors import WorkerStartError

_log = logging.getLogger("mpqueue")

#: How many forkers may end over one worker, until it is started the ordinary way.
TRIES = 3


class Preloading:
    """The launcher of one pool, on its starter's thread. A forker that has ended is replaced when one is wanted."""

    def __init__(self, preload: preloads.Preload, environment: Callable[[], Mapping[str, str]]) -> None:
        self._preload = preload
        self._environment = environment
        self._server: ForkServer | None = None
        self._imports = ImportWatch()
        self._is_unsafe = False
        self._is_closing = False
        self._is_waiting = False  #: for a forker's answer

    def launch(self, worker: Launched) -> Any:
        """Start that worker's process.

        Raises `WorkerStartError` where what was to be imported can't be, or the pool closes meanwhile; or OSError.
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
        return self._launch_alone(worker)

    def _fork(self, worker: Launched) -> Any:
        try:
            self._is_waiting = True
            server = self._server_now()
            if self._is_closing:
                raise ForkerGoneError("the queue is closed")
            return self._launch_alone(worker) if server is None else ForkedPopen(worker, server)
        finally:
            self._is_waiting = False

    def _launch_alone(self, worker: Launched) -> Launching:
        """Launch a worker that imports by itself, or calls the function."""
        worker.begin_with(functools.partial(preloads.begin, self._preload))
        return Launching(worker)

    def _server_now(self) -> ForkServer | None:
        """Return a server that can fork; None where it would not be safe."""
        if self._server is not None and self._server.user != (os.geteuid(), os.getegid()):
            self._drop()  # its workers would have the rights that this process has given up
        if self._imports.look():
            self._drop()  # it has modules as they were before the program reloaded them
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
        """Wait for no import any more, and for no fork: the pool closes. On any thread."""
        self._is_closing = True
        server = self._server
        if server is not None and self._is_waiting:
            server.kill()

    def close(self) -> None:
        """Close the forker: all workers are gone, and the starter is at its end."""
        server, self._server = self._server, None
        if server is not None:
            server.close()
