"""The start message of a worker: a few plain facts, and things that it shares with the parent.

It is pickled once, while the process is being spawned: only then can descriptors and Events be handed over.

Pause and cancel are two `multiprocessing` Events per lane, which the parent sets, and which count only for the job in
the ledger's FLAG_JOB. An Event has a lock inside. A worker that is killed while it holds that lock leaves it taken for
ever, so: a worker never waits on one and reads them at most once in 5 ms; the parent sets and clears them on a thread
that may be abandoned; and they are thrown away with their lane (docs/adr/0004).
"""

from __future__ import annotations

import multiprocessing
from multiprocessing.synchronize import Event
from typing import TYPE_CHECKING, Any, NamedTuple

from mpqueue._os import parent_death
from mpqueue._os.parent_death import Leash

if TYPE_CHECKING:
    from mpqueue._wire.pickling.payload import Packed
    from mpqueue._wire.pickling.script import Script

#: Carries the cookie that identifies processes left behind by a worker; see `mpqueue._engines.loky.worker_process`.
COOKIE_VARIABLE = "MPQUEUE_LANE"


class Handle:
    """A descriptor of a file of the parent; in the worker it becomes the worker's own.

    It is inherited like the pipes of loky, so it needs neither a name in a file system nor rights in /proc, which a
    parent that has dropped its privileges does not give to its own children.
    """

    __slots__ = ("fd",)

    def __init__(self, fd: int) -> None:
        self.fd = fd

    def __reduce__(self) -> tuple[Any, ...]:
        return _arrive, (parent_death.hand_file(self.fd),)


def _arrive(passed: Any) -> Handle:
    """Take over the inherited descriptor, in the worker, for this process only."""
    return Handle(parent_death.arrive(passed))


class ChannelEnd(Handle):
    """The end of a pipe or a socket; in the worker it becomes the worker's own, see `mpqueue._os.descriptors`."""

    __slots__ = ()

    def __reduce__(self) -> tuple[Any, ...]:
        return _arrive, (parent_death.hand_channel(self.fd),)


class LeashEnd(Handle):
    """The worker's end of its leash, which becomes its own there; -1 if it holds nothing."""

    __slots__ = ("_leash",)

    def __init__(self, leash: Leash) -> None:
        super().__init__(leash.worker_end)
        self._leash = leash

    def __reduce__(self) -> tuple[Any, ...]:
        return _arrive, (parent_death.hand_leash(self._leash),)


class LaneSeed(NamedTuple):
    """The argument of `mpqueue._worker.serving.initialize`."""

    lane: int
    generation: int
    ledger: Handle  #: the shared page
    line: ChannelEnd  #: the socket for frames and answers
    asking: ChannelEnd | None  #: the socket for questions about segments that can't be opened by name, if there is one
    outbox: Handle  #: the file for log records that are not sent yet
    stack: ChannelEnd  #: write end of the pipe for the stacks that `STACK_SIGNAL` asks for
    leash: Handle  #: read end of the pipe by which the parent ends it; see `mpqueue._os.parent_death`
    flags: Flags
    start_method: str | None  #: the user's choice for `multiprocessing`; None: Python's default
    carries_segments: bool  #: segments that one side can't open are carried, see `mpqueue._worker.exchange`
    #: Done before the worker is ready, unless the process that it was forked from has done it.
    preload: tuple[str, ...] | Packed | Script | None


#: The least seconds between two reads of the flags by a worker.
READ_INTERVAL = 0.005


class Flags(NamedTuple):
    """The two Events of one generation of a lane. Picklable only while a process is being spawned."""

    pause: Event
    cancel: Event


def make_flags(context: Any = None) -> Flags:
    """Make new Events of that context, or of "spawn": those of the default one can't be handed to a loky worker."""
    if context is None:
        context = multiprocessing.get_context("spawn")
    return Flags(pause=context.Event(), cancel=context.Event())
