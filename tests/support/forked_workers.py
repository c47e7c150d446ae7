"""Workers that are forked from one process for all queues of a test file, which has imported what that file needs.

For files whose tests are not about how workers start. An ordinary start costs 0.15 CPU seconds, and half a second where
the worker has to import the test file, for a handler in it. The workers are real ones, launched by what ``preload`` is
made of: its own tests show that they differ in nothing but their parent (docs/adr/0035).
"""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from functools import partial
from typing import Any
from unittest.mock import patch

from mpqueue._engines.loky import launch, worker_process
from mpqueue._wire.line import COOKIE_VARIABLE
from tests.support.this_system import IS_LINUX


@contextlib.contextmanager
def forked_workers(*modules: str) -> Iterator[Callable[[], AbstractContextManager[object]]]:
    """Until it is left, all workers of this process are forks of one that has imported ``modules``.

    Where the system can't fork them, they start as ever; so they do in what it gives, ``with ordinary_workers():``.
    """
    if not IS_LINUX:
        yield contextlib.nullcontext
        return
    from mpqueue._engines.loky import exec_launch
    from mpqueue._engines.loky.fork_server import ForkedPopen, ForkServer

    launch.prepare()
    # The name of no pool: whoever sweeps up after one leaves this process alone.
    server = ForkServer(modules, {COOKIE_VARIABLE: worker_process.cookie()})
    own, ordinary = os.getpid(), exec_launch.Launching
    one_at_a_time = threading.Lock()  # each queue starts its workers on a thread of its own

    def start(worker: launch.Launched) -> Any:
        if os.getpid() != own:  # a child that a test has forked has workers of its own
            return ordinary(worker)
        with one_at_a_time:
            return ForkedPopen(worker, server)

    with contextlib.closing(server):
        came_of_it = server.await_imports()
        assert not came_of_it.failure, came_of_it.where
        assert not came_of_it.unsafe, came_of_it.unsafe
        with patch.object(exec_launch, "Launching", start):
            yield partial(patch.object, exec_launch, "Launching", ordinary)
