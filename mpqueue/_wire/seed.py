"""What a worker is started with: a few plain facts and the things it shares with the parent.

Pickled once, while the process is being spawned, which is the only moment at which descriptors and Events can be
handed over.
"""

from __future__ import annotations

import os
from multiprocessing import reduction
from typing import Any, NamedTuple

from mpqueue._wire.memory.flags import Flags

#: Carries the cookie by which what a worker left behind is found; see `mpqueue._engines.loky.process.strays`.
COOKIE_VARIABLE = "MPQUEUE_LANE"


class Handle:
    """A descriptor of the parent that arrives in the worker as its own.

    Inherited like the pipes of loky, so it needs neither a name in a file system nor the right to look into /proc,
    which a parent that has dropped its privileges does not give to its own children.
    """

    __slots__ = ("fd",)

    def __init__(self, fd: int) -> None:
        self.fd = fd

    def __reduce__(self) -> tuple[Any, ...]:
        return _arrive, (reduction.DupFd(self.fd),)


def _arrive(passed: Any) -> Handle:
    """The worker's side: take the descriptor that was passed, for this process alone."""
    handle = Handle(passed.detach())
    os.set_inheritable(handle.fd, False)
    return handle


class LaneSeed(NamedTuple):
    """What `mpqueue._worker.first_steps.initialize` is called with."""

    lane: int
    generation: int
    parent: int  #: the parent's process id
    ledger: Handle  #: the shared page
    line: Handle  #: the socket on which frames come and answers go
    asking: Handle  #: the socket on which segments are asked for that can't be opened by name
    outbox: Handle  #: the file for early results
    bell: Handle  #: write end of the pipe that tells the parent to look into the outbox
    stack: Handle  #: write end of the pipe that takes the stack when `STACK_SIGNAL` comes
    leash: Handle  #: read end of the pipe by which the parent ends it; see `mpqueue._os.process.parent_death`
    flags: Flags
    start_method: str | None  #: what the user chose for `multiprocessing`; None: Python's default
