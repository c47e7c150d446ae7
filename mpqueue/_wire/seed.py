"""The start message of a worker: a few plain facts and the things it shares with the parent.

Pickled once, while the process is being spawned, which is the only moment at which descriptors and Events can be
handed over.

Pause and cancel are two `multiprocessing` Events for each lane, which the parent sets, and which count only for the job
in the ledger's FLAG_JOB. An Event has a lock inside. A worker that is killed while it holds that lock leaves it taken
for ever, so: a worker never waits on one and reads them at most once in 5 ms; the parent sets and clears them on a
thread that may be abandoned; and they are thrown away with their lane (docs/adr/0004).
"""

from __future__ import annotations

import multiprocessing
from multiprocessing.synchronize import Event
from typing import Any, NamedTuple

from mpqueue._os.process import inheritance
from mpqueue._os.process.parent_death import Leash

#: Carries the cookie by which what a worker left behind is found; see `mpqueue._engines.loky.worker_process`.
COOKIE_VARIABLE = "MPQUEUE_LANE"


class Handle:
    """A descriptor of a file of the parent's that arrives in the worker as its own.

    Inherited like the pipes of loky, so it needs neither a name in a file system nor the right to look into /proc,
    which a parent that has dropped its privileges does not give to its own children.
    """

    __slots__ = ("fd",)

    def __init__(self, fd: int) -> None:
        self.fd = fd

    def __reduce__(self) -> tuple[Any, ...]:
        return _arrive, (inheritance.hand_file(self.fd),)


def _arrive(passed: Any) -> Handle:
    """Take the descriptor that was passed, in the worker, for this process alone."""
    return Handle(inheritance.arrive(passed))


class ChannelEnd(Handle):
    """The end of a pipe or a socket that arrives in the worker as its own, see `mpqueue._os.channels`."""

    __slots__ = ()

    def __reduce__(self) -> tuple[Any, ...]:
        return _arrive, (inheritance.hand_channel(self.fd),)


class LeashEnd(Handle):
    """The worker's end of its leash, which arrives there as its own; -1 where it holds nothing."""

    __slots__ = ("_leash",)

    def __init__(self, leash: Leash) -> None:
        super().__init__(leash.worker_end)
        self._leash = leash

    def __reduce__(self) -> tuple[Any, ...]:
        return _arrive, (inheritance.hand_leash(self._leash),)


class LaneSeed(NamedTuple):
    """The argument of `mpqueue._worker.first_steps.initialize`."""

    lane: int
    generation: int
    parent: int  #: the parent's process id
    ledger: Handle  #: the shared page
    line: ChannelEnd  #: the socket on which frames come and answers go
    asking: ChannelEnd | None  #: the socket on which segments are asked for that can't be opened by name, if any can be
    outbox: Handle  #: the file for early results
    bell: ChannelEnd  #: write end of the pipe that tells the parent to look into the outbox
    stack: ChannelEnd  #: write end of the pipe that takes the stack when `STACK_SIGNAL` comes
    leash: Handle  #: read end of the pipe by which the parent ends it; see `mpqueue._os.process.parent_death`
    flags: Flags
    start_method: str | None  #: what the user chose for `multiprocessing`; None: Python's default
    carries_segments: bool  #: what one side can't open of the other is carried, see `mpqueue._worker.exchange`


#: Seconds: a worker looks at its flags at most this often.
READ_INTERVAL = 0.005


class Flags(NamedTuple):
    """The two Events of one generation of a lane. Picklable only while a process is being spawned."""

    pause: Event
    cancel: Event


def make_flags(context: Any = None) -> Flags:
    """New Events of that context, or of "spawn": those of the default one can't be handed to a loky worker."""
    if context is None:
        context = multiprocessing.get_context("spawn")
    return Flags(pause=context.Event(), cancel=context.Event())
