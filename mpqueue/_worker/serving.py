"""A worker's life: its first steps, by which it becomes a process like any other, and then frames and their answers.

The first steps run before its first call. They ensure:

- The worker dies with its parent, even if the parent is killed and the worker is in C code; so do processes that its
  main thread forks (`mpqueue._os.parent_death`).
- It is on a leash: the parent, or the parent's death, ends it and its group by that.
- It has its own process group, without a terminal: Ctrl-C does not reach it, and one signal kills it with its children.
- Signals and `multiprocessing` are as in a fresh Python, so handlers may start processes and pools.
- Its forks can neither keep the pipes to the parent open (which would wait for their end) nor write into the ledger.
- It can be asked for its stacks (`mpqueue._os.process_signals`), even while it sleeps or holds the global lock.
- loky does not look at its memory when it ends, which fails without ``/proc``.

Then it takes frames from its line and answers them, until the line ends. It is the only call that a worker gets through
loky. No code of loky runs between two frames, not even its memory guard and its garbage collections.

Loads small modules of the standard library only: every import here takes time at each start of a worker.
"""

from __future__ import annotations

import contextlib
import faulthandler
import functools
import gc
import multiprocessing
import multiprocessing.resource_tracker
import os
import stat
import sys
import threading
from typing import TYPE_CHECKING

from mpqueue._os import process_signals, standard_streams
from mpqueue._os.descriptors import move_high, open_descriptors, reopen_to_write
from mpqueue._os.memory_files import address_of, give_up_sharing
from mpqueue._os.parent_death import die_with_parent, follow_parent
from mpqueue._os.process_handle import CAN_FORK, around_forks
from mpqueue._os.process_signals import reset_signals
from mpqueue._wire.line import Flags, Incoming, LaneSeed
from mpqueue._wire.memory.asking import TRACKERS, Asking
from mpqueue._wire.memory.ledger import SIZE, Ledger
from mpqueue._worker import worker_links

if TYPE_CHECKING:
    from mpqueue._worker.preloads import Preload

_failure: BaseException | None = None
_preload: Preload | None = None
_private: list[int] = []  #: descriptors that no fork may keep


def initialize(seed: LaneSeed) -> None:
    """Make this process a worker. Never raises: `serve` raises its error, where the parent sees it."""
    global _failure, _preload
    _preload = seed.preload
    try:
        leash = move_high(seed.leash.fd)
        follow_parent(leash)
        reset_signals()
        standard_streams.follow_numbers()
        # loky sets its own start method as default, with which no handler can start a process; None is Python's own.
        multiprocessing.set_start_method(seed.start_method, force=True)
        if (executor := sys.modules.get("loky.process_executor")) is not None:
            executor._USE_PSUTIL = False  # type: ignore[attr-defined]
        ledger = _take_links(seed)
        if CAN_FORK:
            _private.extend(_inherited_pipes(leash))
            _borrow_trackers()
            _guard_forks(ledger)
        process_signals.answer(seed.stack.fd)
        never_wait_for_readers()
    except BaseException as error:
        _failure = error


# -- shared things -----------------------------------------------------------------------------------------------------


def _take_links(seed: LaneSeed) -> Ledger:
    """Map the ledger and set up the links to the parent."""
    ledger = Ledger(seed.ledger.fd)
    os.close(seed.ledger.fd)
    line, outbox = map(move_high, (seed.line.fd, seed.outbox.fd))
    asking = None if seed.asking is None else move_high(seed.asking.fd)
    _private.extend((line, outbox) if asking is None else (line, outbox, asking))
    worker_links.take(
        worker_links.WorkerLinks(
            lane=seed.lane,
            ledger=ledger,
            flags_of=functools.partial(_read_flags, seed.flags, ledger),
            outbox=worker_links.SharedOutbox(line, outbox),
            carries_segments=seed.carries_segments,
            asking=None if asking is None else Asking(asking),
        )
    )
    return ledger


def _read_flags(flags: Flags, ledger: Ledger, job: int) -> tuple[bool, bool]:
    """Tell whether that job is paused, and whether it is cancelled."""
    return ledger.flags_of(job, lambda: (flags.pause.is_set(), flags.cancel.is_set()))


def _inherited_pipes(leash: int) -> list[int]:
    """Return the pipes that this process was started with, except the leash, with which forks can do no harm."""
    pipes = []
    for fd in open_descriptors():
        try:
            if fd > 2 and fd != leash and stat.S_ISFIFO(os.fstat(fd).st_mode):
                pipes.append(fd)
        except OSError:  # the folder's own descriptor, closed by now
            continue
    return pipes


def _borrow_trackers() -> None:
    """Let this process use the parent's resource trackers, once it needs one: the first look for a pipe asks."""
    for name in TRACKERS:
        if (module := sys.modules.get(name)) is not None:
            own = module._resource_tracker
            own.__class__ = type("ResourceTracker", (_Borrowed, type(own)), {"module": name})
            vars(own).pop("_fd", None)


class _Borrowed:
    """The pipe of a resource tracker of `multiprocessing` or loky, which belongs to the parent."""

    module: str
    _fd: int | None

    def __getattr__(self, name: str) -> int | None:
        if name != "_fd":
            raise AttributeError(name)
        here = worker_links.here()
        asking = None if here is None else here.asking
        self._fd = None if asking is None else asking.ask_for_tracker(self.module)
        return self._fd

    def __del__(self) -> None:
        """Do nothing: the original ends the tracker, so each worker would ask for one at its end."""


def _guard_forks(ledger: Ledger) -> None:
    """Take the private descriptors and the ledger away from all forks of this process, and tie their lives to ours.

    The null device keeps the numbers taken, so that objects that still use them do no harm. Costs 20 us per fork.
    """
    me, main = os.getpid(), threading.get_ident()
    forked_by_us = False
    page = address_of(ledger.words)
    for fd in _private:
        os.set_inheritable(fd, False)

    def before() -> None:
        nonlocal forked_by_us
        forked_by_us = threading.get_ident() == main and os.getpid() == me

    def in_child() -> None:
        # A child of another thread would die with that thread, and a grandchild with a parent that ends on purpose.
        if forked_by_us:
            die_with_parent(me)
        null = os.open(os.devnull, os.O_RDWR)
        for fd in _private:
            os.dup2(null, fd, inheritable=False)
        os.close(null)
        give_up_sharing(page, SIZE)

    around_forks(before, in_child)


# -- The stacks that `faulthandler` writes when a worker crashes in C code: unread ones must not delay its end. --------

_STANDARD_ERROR = 2


def never_wait_for_readers() -> None:
    """If standard error is a pipe, write the stacks of a crash only as far as it has room.

    Otherwise a full pipe that is not read would keep a crashing worker from ending. The pipe is opened again for it:
    only this opening, which no other process has, does not block.
    """
    if not faulthandler.is_enabled() and "PYTHONFAULTHANDLER" in os.environ:
        return  # switched off; otherwise loky switches it on
    with contextlib.suppress(OSError):  # closed, or it can't be reopened: then as usual
        if stat.S_ISFIFO(os.fstat(_STANDARD_ERROR).st_mode):
            faulthandler.enable(reopen_to_write(_STANDARD_ERROR))


# -- Serving. ----------------------------------------------------------------------------------------------------------


def serve() -> int:
    """Load the module that takes the frames, report that this worker is ready, and serve; returns the process id.

    Raises:
        DamagedError: The data are no frame of the parent's: a handler has read from the line, or written into it.
        OSError: A handler has closed the line, or shut it down.
        BaseException: An error of `initialize`, of a preload, or of the import; the parent kills this worker.
    """
    gc.enable()
    if _failure is not None:
        raise _failure
    if _preload is not None:
        from mpqueue._worker import preloads  # most workers have none

        preloads.do_all(_preload)
    from mpqueue._worker import main  # not earlier: it loads much

    here = worker_links.here()
    outbox = None if here is None else here.outbox
    assert isinstance(outbox, worker_links.SharedOutbox), "a worker is initialized before it serves"
    incoming = Incoming(outbox.line)
    outbox.say(b"", plain=True)
    while (frames := incoming.read()) is not None:
        for frame in frames:
            answer = main.receive(frame.data)
            outbox.say(answer.data, plain=answer.plain)
        if incoming.damage is not None:
            raise incoming.damage
    return os.getpid()
