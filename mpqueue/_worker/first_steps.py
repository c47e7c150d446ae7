"""A worker's first steps: it ties its life to the parent's, and becomes a process like any other.

Runs once in each worker, before its first call. What it sees to, and why:

- The worker dies with its parent, also when the parent is killed and the worker is in C code (`PR_SET_PDEATHSIG`);
  so do the processes that its main thread forks.
- It is on a leash, by which the parent ends it and its group, and the parent's death does; see
  `mpqueue._os.process.parent_death`.
- It is a session of its own: Ctrl-C at the terminal does not reach it, and one signal kills it with its children.
- Signals and `multiprocessing` are as in a fresh Python, so handlers may start processes and pools of their own.
- What it forks can neither hold the pipes home open (the parent would wait for their end) nor write into the ledger.
- It can be asked where it is (`STACK_SIGNAL`), also while it sleeps or holds the global lock.

Loads small modules of the standard library only: whatever is imported here is paid at every start of a worker.
"""

from __future__ import annotations

import contextlib
import ctypes
import faulthandler
import fcntl
import functools
import mmap
import multiprocessing
import multiprocessing.resource_tracker
import os
import resource
import select
import signal
import stat
import sys
import threading
from collections.abc import Iterable

from mpqueue._wire.memory.flags import Flags
from mpqueue._wire.memory.ledger import SIZE, Ledger
from mpqueue._wire.seed import STACK_SIGNAL, LaneSeed
from mpqueue._worker import faults, station

_PR_SET_PDEATHSIG = 1
_MAP_FIXED = 0x10
#: Where nothing lists the open descriptors, those up to here are looked at: 20 ms.
_MOST_DESCRIPTORS = 1 << 16

_failure: BaseException | None = None
_stack_pipe = -1
_private: list[int] = []  #: descriptors that no fork may keep


def initialize(seed: LaneSeed) -> None:
    """Make this process a worker. Never raises: what went wrong is raised by `check`, where the parent sees it."""
    global _failure
    try:
        _follow_parent(seed.parent, seed.leash.fd)
        _reset_signals()
        # loky makes its own start method the default, by which no handler can start a process; None is Python's own.
        multiprocessing.set_start_method(seed.start_method, force=True)
        ledger = _take_station(seed)
        _private.extend((seed.line.fd, seed.asking.fd, seed.outbox.fd, *_inherited_pipes(seed.leash.fd)))
        _guard_forks(ledger)
        _answer_stack_signal(seed.stack.fd)
        faults.never_wait_for_readers()
    except BaseException as error:
        _failure = error


def check() -> None:
    """Raise what `initialize` raised, in a call, whose error reaches the parent."""
    if _failure is not None:
        raise _failure


def rearm() -> None:
    """See to it that this worker can be asked where it is, whatever the handler has done to its signals.

    To be called before each chunk; costs 0.7 us. Registering alone would not do: faulthandler takes a signal that it
    has registered before for its own, even after somebody else has taken it.
    """
    if _stack_pipe >= 0:
        faulthandler.unregister(STACK_SIGNAL)
        faulthandler.register(STACK_SIGNAL, _stack_pipe, all_threads=True)


# -- the parent --------------------------------------------------------------------------------------------------------


def _follow_parent(parent: int, leash: int) -> None:
    """Leave the parent's session, and die when it does, or when it says so."""
    _leave_unless_child_of(parent)
    if os.getsid(0) != os.getpid():
        os.setsid()
    if sys.platform == "linux":
        _die_with_parent()
    if not _kernel_holds(leash):
        threading.Thread(target=_watch, args=(leash,), name="mpqueue-leash", daemon=True).start()
    # It may have died before the kernel was asked to tell, or have pulled.
    _leave_unless_child_of(parent)
    if _is_pulled(leash, 0):
        os._exit(1)


def _leave_unless_child_of(parent: int) -> None:
    if os.getppid() != parent:
        os._exit(1)


def _die_with_parent() -> None:
    """SIGKILL when the thread that started this process ends: the parent's starter, which outlives its workers."""
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, ctypes.c_ulong(signal.SIGKILL))


def _kernel_holds(leash: int) -> bool:
    """Have the kernel send SIGKILL to this group once the leash is pulled or let go. False where it can't (macOS).

    What that may hit was settled here, as the user that this is now: the parent may become another one.
    """
    try:
        fcntl.fcntl(leash, fcntl.F_SETOWN, -os.getpid())  # the leader of its group
        fcntl.fcntl(leash, fcntl.F_SETSIG, signal.SIGKILL)  # type: ignore[attr-defined,unused-ignore]
        fcntl.fcntl(leash, fcntl.F_SETFL, fcntl.fcntl(leash, fcntl.F_GETFL) | os.O_ASYNC)
    except (OSError, AttributeError):
        return False
    return True


def _is_pulled(leash: int, milliseconds: int | None) -> bool:
    looker = select.poll()
    looker.register(leash, select.POLLIN)
    return bool(looker.poll(milliseconds))


def _watch(leash: int) -> None:
    """Do on a thread what the kernel does not. Does not get to run while a handler holds the global lock in C code."""
    try:
        _is_pulled(leash, None)
    finally:
        try:
            os.killpg(0, signal.SIGKILL)
        finally:
            os._exit(1)


# -- signals -----------------------------------------------------------------------------------------------------------


def _reset_signals() -> None:
    """As in a fresh Python at a terminal, whatever the parent ignores or blocks: both are inherited by processes."""
    # A Ctrl-C that came before this process left the terminal's group is pending. Ignoring a signal drops it.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_SETMASK, ())
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    # Ignored, it would make every exit status in a handler 0.
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    signal.signal(signal.SIGPIPE, signal.SIG_IGN)


def _answer_stack_signal(pipe: int) -> None:
    """From now on, write the stacks of all threads into ``pipe`` when `STACK_SIGNAL` comes."""
    global _stack_pipe
    # What does not fit into the pipe is lost rather than waited for: nobody may ever read it.
    os.set_blocking(pipe, False)
    faulthandler.register(STACK_SIGNAL, pipe, all_threads=True)
    _stack_pipe = pipe


# -- what is shared ----------------------------------------------------------------------------------------------------


def _take_station(seed: LaneSeed) -> Ledger:
    """Map the ledger and settle in."""
    ledger = Ledger(seed.ledger.fd)
    os.close(seed.ledger.fd)
    os.set_blocking(seed.bell.fd, False)
    station.take(
        station.Station(
            lane=seed.lane,
            generation=seed.generation,
            parent=seed.parent,
            ledger=ledger,
            flags_of=functools.partial(_read_flags, seed.flags, ledger),
            outbox=station.SharedOutbox(seed.outbox.fd, seed.bell.fd, ledger),
            flags=seed.flags,
            line=seed.line.fd,
            asking=seed.asking.fd,
        )
    )
    return ledger


def _read_flags(flags: Flags, ledger: Ledger, job: int) -> tuple[bool, bool]:
    """Whether that job is paused, and cancelled."""
    return ledger.flags_of(job, lambda: (flags.pause.is_set(), flags.cancel.is_set()))


def _inherited_pipes(leash: int) -> list[int]:
    """The pipes that this process was started with, but for those to the two resource trackers, and the leash.

    Forks may keep that: they can do no harm with it.
    """
    trackers = ("multiprocessing.resource_tracker", "loky.backend.resource_tracker")
    kept = {leash, *(sys.modules[name]._resource_tracker._fd for name in trackers if name in sys.modules)}
    pipes = []
    for fd in _open_descriptors():
        try:
            if fd > 2 and fd not in kept and stat.S_ISFIFO(os.fstat(fd).st_mode):
                pipes.append(fd)
        except OSError:  # the folder's own, closed by now
            continue
    return pipes


def _open_descriptors() -> Iterable[int]:
    """Those that are open, and where the system doesn't list them, all that there may be."""
    for folder in ("/dev/fd", "/proc/self/fd"):
        with contextlib.suppress(OSError):
            return [int(name) for name in os.listdir(folder)]
    return range(min(resource.getrlimit(resource.RLIMIT_NOFILE)[0], _MOST_DESCRIPTORS))


def _guard_forks(ledger: Ledger) -> None:
    """Take the private descriptors and the ledger away from all that this process forks, and tie its life to ours.

    The numbers stay taken, by the null device, so that objects that go on using them do no harm. Costs a fork 20 us.
    """
    me, main = os.getpid(), threading.get_ident()
    forked_by_us = False
    libc = ctypes.CDLL(None)
    libc.mmap.restype = ctypes.c_void_p
    libc.mmap.argtypes = (ctypes.c_void_p, ctypes.c_size_t, *[ctypes.c_int] * 3, ctypes.c_long)
    page = ctypes.addressof(ctypes.c_char.from_buffer(ledger.words))
    for fd in _private:
        os.set_inheritable(fd, False)

    def before() -> None:
        nonlocal forked_by_us
        forked_by_us = threading.get_ident() == main and os.getpid() == me

    def in_child() -> None:
        # The child of another thread would die with that thread, and a grandchild with a parent that means to leave it.
        if sys.platform == "linux" and forked_by_us:
            _die_with_parent()
            _leave_unless_child_of(me)  # dead already, it is no parent any more
        null = os.open(os.devnull, os.O_RDWR)
        for fd in _private:
            os.dup2(null, fd, inheritable=False)
        os.close(null)
        protection, kind = mmap.PROT_READ | mmap.PROT_WRITE, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | _MAP_FIXED
        libc.mmap(page, SIZE, protection, kind, -1, 0)

    os.register_at_fork(before=before, after_in_child=in_child)
