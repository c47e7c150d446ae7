"""The real parent on simulated threads: what of it is replaced, and how.

Real are `JobQueue`, `QueueRuntime`, `Coordinator`, `Traffic`, `Scheduler`, `JournalOutlet`, `Journal`, `Store`,
`ListenerThread` and `Announcer`, with their own loops. Replaced are the names by which they know threads, locks,
queues, clocks, and SQLite's connection; how a thread waits for an event; and the inbox, whose real one waits in a
selector.
"""

from __future__ import annotations

import logging
import queue
import random
import sys
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NoReturn
from unittest import mock

from mpqueue._core.messages import Message
from mpqueue._parent import coordinator, listeners, users_threads
from mpqueue._parent import queue_runtime as engine
from mpqueue._parent.inbox import Request
from mpqueue._parent.journal import chunk_rows as rows
from mpqueue._parent.journal import journal_file as store
from mpqueue._parent.journal import journal_writer as journal
from mpqueue._parent.journal import kept_values as values
from mpqueue._parent.replies import SafeEvent
from mpqueue._queue import announcer, host, registry
from tests.simulation import world as simulated
from tests.simulation.disk import Disk, SystemCalls
from tests.simulation.world import ProgramKilled, World

#: Bytes from which on a result has a file of its own beside the journal: small, so that histories are quick.
BIG = 1000


class SimulatedInbox:
    """What `mpqueue._parent.inbox.Inbox` is to the coordinator. It may wake for nothing, and late.

    ``readers`` are called as those of descriptors that are ready: by the thread that takes, once no message is there,
    or now and then before.
    """

    def __init__(self) -> None:
        self._world = World.current
        self._waiting: deque[Message | Request] = deque()
        self.readers: deque[Callable[[], object]] = deque()
        self.owner: int | None = None

    def post(self, message: Message | Request) -> None:
        self._waiting.append(message)

    def take(self, timeout: float | None) -> Message | Request | None:
        rng = self._world.rng
        if rng.random() < 0.05:  # a descriptor was ready, and nothing came of it
            timeout = min(rng.choice((0.0, 0.01)), float("inf") if timeout is None else timeout)
        self._world.wait(lambda: self._waiting or self.readers, timeout)
        if not self._waiting or rng.random() < 0.2:
            while self.readers:
                self.readers.popleft()()
        return self.take_now()

    def call(self, function: Callable[..., object], *arguments: Any) -> None:
        self.post(Request(partial(function, *arguments), None))

    def call_later(self, delay: float, function: Callable[[], object]) -> None:
        self._world.call_at(self._world.time + delay, lambda: self.readers.append(function))

    @property
    def waiting(self) -> int:
        return len(self._waiting)

    def take_now(self) -> Message | Request | None:
        return self._waiting.popleft() if self._waiting else None

    def close(self) -> None:
        """Nobody takes any more."""
        self.owner = None


class _Disks:
    """The disk of the history that runs."""

    current: Disk | None = None


class SimulatedJournal(journal.Journal):
    """A journal on the simulated disk."""

    def __init__(self, path: str, now: Callable[[], float]) -> None:
        assert _Disks.current is not None
        super().__init__(path, now, _Disks.current.connect)


def _current_thread() -> object:
    return World.current.here


def _get_ident() -> int:
    return id(World.current.here)


def _complain(text: str, *arguments: object, **_: object) -> NoReturn:
    if isinstance(killed := sys.exception(), ProgramKilled):
        raise killed  # no mistake: its threads end wherever they are
    raise AssertionError(text % arguments)


_THREADING = SimpleNamespace(
    Thread=simulated.Thread,
    Lock=simulated.Lock,
    RLock=simulated.Lock,
    current_thread=_current_thread,
    get_ident=_get_ident,
)
_QUEUE = SimpleNamespace(SimpleQueue=simulated.Queue, Empty=queue.Empty)


@contextmanager
def simulated_parent(world: World) -> Iterator[None]:
    """Meanwhile a `JobQueue` lives in that world; at the end all that it began is killed."""
    World.current = world  # before anything is replaced: what earlier tests left may be freed at any moment, and asks
    loud = logging.getLogger("mpqueue")
    with ExitStack() as stack:
        replaced: dict[Any, dict[str, Any]] = {
            coordinator: {"threading": _THREADING, "Inbox": SimulatedInbox},
            engine: {
                "threading": _THREADING,
                "SystemClock": lambda: World.current,
                "random": SimpleNamespace(Random=lambda: random.Random(World.current.rng.random())),
                "on_exit": lambda *_, **__: lambda: None,
            },
            users_threads: {"threading": _THREADING, "queue": _QUEUE},
            listeners: {"threading": _THREADING, "queue": _QUEUE},
            journal: {
                "threading": _THREADING,
                "queue": _QUEUE,
                "Journal": SimulatedJournal,
            },
            store: {"os": SystemCalls(lambda: _Disks.current)},
            values: {"BIG": BIG},
            rows: {"BIG": BIG},
            registry: {"threading": _THREADING},
            announcer: {"threading": _THREADING},
            host: {"threading": _THREADING},
            SafeEvent: {"wait": simulated.wait_for},
        }
        for module, names in replaced.items():
            for name, value in names.items():
                stack.enter_context(mock.patch.object(module, name, value))
        for level in ("critical", "exception"):  # the engine says so of its own mistakes
            stack.enter_context(mock.patch.object(loud, level, _complain))
        for level in ("error", "warning"):
            stack.enter_context(mock.patch.object(loud, level, partial(_note, level)))
        try:
            yield
        finally:
            world.kill()


def _note(level: str, text: str, *_: object, **__: object) -> None:
    World.current.note((level, text))


def use_disk(disk: Disk | None) -> None:
    """Journals that are opened from now on are on that disk."""
    _Disks.current = disk


def abandon(folder: Path) -> None:
    """The program is dead, and its system closes what it had open."""
    for opened in list(journal._open):
        if Path(opened.path).parent == folder:
            opened._store._connection.close()
            opened._store._files.close()
            opened.running.close()
            opened._lock.release()
            journal._open.discard(opened)
