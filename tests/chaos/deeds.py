"""What the items of a chaos run do, and what each must come to: runs in the workers, and is known to the test.

A *deed* is one item. It is bad at its first ``until`` attempts, in the manner of its kind, and good from then on. A
good attempt returns ``(id, attempt, content)``, where `is_right` knows the content.
"""

from __future__ import annotations

import ctypes
import faulthandler
import fcntl
import functools
import os
import random
import socket
import stat
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, NoReturn

import mpqueue
from tests.support import handlers as do
from tests.support import hogs

#: An ``until`` that is never reached.
ALWAYS = 1_000

#: Kind -> what a bad attempt does. These raise.
RAISES: dict[str, Callable[[Any], Any]] = {
    "raise": do.fail,
    "raise what can't be pickled": do.raise_unpicklable,
    "raise what can't be unpickled": do.raise_two_argument_error,
    "raise a lock": do.raise_lock_holder,
    "stop iteration": do.raise_stop_iteration,
    "sys.exit": do.sys_exit,
    "interrupt": do.raise_keyboard_interrupt,
}

#: These end the worker.
CRASHES: dict[str, Callable[[Any], Any]] = {
    "exit 0": do.exit_zero,
    "exit 7": do.exit_with(7),
    "segfault": do.segfault,
    "kill": do.kill_self,
}

#: These never return, so they need a timeout.
HANGS: dict[str, Callable[[Any], Any]] = {
    "hang": do.hang_sleep,
    "hang in python": do.hang_python,
    "stop": do.stop_self,
}

#: These spoil what the worker talks with, so that their worker ends, or raise where nothing came of it.
BREAKS: tuple[str, ...] = ("write garbage", "shut down")

#: These take more memory than their worker may have, and would never return: they need a limit.
HOGS: dict[str, Callable[[Any], Any]] = {
    "hog": lambda item: hogs.take_and_hang(400),
}

#: These end well and leave something behind in the worker.
LITTER: dict[str, Callable[[Any], Any]] = {
    "leave a child": do.leave_child,
    "leave a thread": do.leave_daemon_thread,
}

#: These end well, and fork a process that goes on to look at its item.
FORKS: tuple[str, ...] = ("fork", "fork in C")

#: These fail at once, whatever the policy.
HOPELESS = ("give up", "return a lock", "unpicklable", "unreadable")


@dataclass(frozen=True, eq=False)
class Deed:
    """One item."""

    id: int
    kind: str
    until: int = 0
    amount: int = 0  #: bytes of the result, or of the item; or microseconds
    cargo: Any = None  #: what the item carries


@dataclass(frozen=True, eq=False)
class Unpicklable(Deed):
    """An item that can't be pickled."""

    def __reduce__(self) -> NoReturn:
        raise TypeError("this deed refuses to be pickled")


@dataclass(frozen=True, eq=False)
class Unreadable(Deed):
    """An item that can't be unpickled."""

    def __reduce__(self) -> tuple[Any, ...]:
        return _refuse, (self.id,)


def _refuse(number: int) -> NoReturn:
    raise ValueError(f"deed {number} refuses to be unpickled")


def array_of(number: int, size: int) -> Any:
    """The array of so many bytes that belongs to a deed."""
    import numpy as np  # 100 ms that most workers never need

    return np.full(size, number % 251, np.uint8)


def is_right(deed: Deed, content: Any) -> bool:
    """Whether this is what the deed's good attempts return."""
    match deed.kind:
        case "array":
            return bool(len(content) == deed.amount and (content == deed.id % 251).all())
        case "bytes":
            return bool(content == bytes([deed.id % 251]) * deed.amount)
        case "carry" | "keep" | "fork" | "fork in C":
            return bool(content == (deed.id % 251) * deed.amount)
        case "watch":
            return content in ("", "paused", "cancelled")
        case _:
            return content is None


# --- in the workers -------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Doer:
    """The handler of a job. Writes down in ``log`` that an attempt began: job, item, attempt, process."""

    log: str

    def __call__(self, deed: Deed, state: Any = None) -> Any:
        here = mpqueue.current_item()
        attempt = here.attempt
        _write(self.log, f"{here.job_id} {deed.id} {attempt} {os.getpid()}\n")
        if state is not None:
            assert state == "ready", state
        with _holding(here.uses, self.log):
            if attempt <= deed.until:
                _do_badly(deed)
                return deed.id, attempt, None  # a hang that was let go
            return deed.id, attempt, _do_well(deed, self.log)


@functools.cache
def _opened(path: str) -> int:
    faulthandler.disable()  # where these workers die is no news
    return os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC)


def _write(path: str, line: str) -> None:
    os.write(_opened(path), line.encode())


@contextmanager
def _holding(uses: Mapping[str, Any], log: str) -> Iterator[None]:
    """Lock what this item was given of a resource: it goes with the process, and children have no part in it."""
    locked = []
    for number in uses.get("gpu", ()):
        fd = _opened(f"{log}-gpu-{number}")
        try:
            fcntl.lockf(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            _write(f"{log}-uses", f"gpu {number}, in {os.getpid()}\n")
        else:
            locked.append(fd)
    try:
        yield
    finally:
        for fd in locked:
            fcntl.lockf(fd, fcntl.LOCK_UN)


def _do_badly(deed: Deed) -> None:
    bad = {**RAISES, **CRASHES, **HANGS, **HOGS}.get(deed.kind)
    if bad is not None:
        bad(deed.id)
    elif deed.kind in BREAKS:
        _break(deed)
    elif deed.kind == "ask":
        raise mpqueue.Retry(delay=0.001 * (deed.id % 20))


def _break(deed: Deed) -> NoReturn:
    """Spoil every socket and pipe of this worker, and stay long enough to be found out."""
    trackers = ("multiprocessing.resource_tracker", "loky.backend.resource_tracker")  #: those of the whole program
    spared = {0, 1, 2, *(sys.modules[name]._resource_tracker._fd for name in trackers if name in sys.modules)}
    for fd in map(int, os.listdir("/proc/self/fd")):
        try:
            mode = os.fstat(fd).st_mode
            if fd in spared or not (stat.S_ISSOCK(mode) or stat.S_ISFIFO(mode)):
                continue
            if deed.kind == "write garbage":
                os.set_blocking(fd, False)
                os.write(fd, random.randbytes(random.choice((1, 8, 100, 5000))))
            elif stat.S_ISSOCK(mode):
                with socket.socket(fileno=os.dup(fd)) as ours:
                    ours.shutdown(random.choice((socket.SHUT_RD, socket.SHUT_WR, socket.SHUT_RDWR)))
        except OSError:
            continue
    threading.Event().wait(1.0)
    raise ValueError(f"nothing came of it: deed {deed.id}")


_kept: list[Any] = []


def _do_well(deed: Deed, log: str) -> Any:
    match deed.kind:
        case "give up":
            raise mpqueue.GiveUp("hopeless")
        case "return a lock":
            return threading.Lock()
        case "nap":
            threading.Event().wait(deed.amount / 1e6)
        case "array":
            return array_of(deed.id, deed.amount)
        case "bytes":
            return bytes([deed.id % 251]) * deed.amount
        case "carry" | "keep" | "fork" | "fork in C":
            _outlive(deed, log)
            return int(deed.cargo.sum(dtype="int64"))
        case "watch":
            return _watch(deed)
        case kind if kind in LITTER:
            LITTER[kind](deed.id)
    return None


def _outlive(deed: Deed, log: str) -> None:
    """A view of the item outlives its chunk, here or in a child."""
    if deed.kind == "keep":
        _kept.append(deed.cargo)
        del _kept[:-3]
    elif deed.kind in FORKS:
        _fork_and_look(deed, log)


def _fork_and_look(deed: Deed, log: str) -> None:
    """A child of this worker looks at the item after a while, when the worker may have done with it long ago.

    What it finds wrong it writes down. All that it calls keeps the interpreter's lock: a fork that Python was not told
    of has no other thread that could give the lock back.
    """
    libc = ctypes.PyDLL(None)
    wrong, size = _opened(f"{log}-forks"), deed.amount
    right = bytes([deed.id % 251]) * size
    address = deed.cargo.__array_interface__["data"][0]
    line = f"{deed.id}\n".encode()
    pid = os.fork() if deed.kind == "fork" and sys.version_info < (3, 12) else libc.fork()
    if pid == 0:
        libc.alarm(20)
        libc.usleep(50_000 + deed.id % 10 * 30_000)
        if libc.memcmp(ctypes.c_void_p(address), right, ctypes.c_size_t(size)):
            libc.write(wrong, line, len(line))
        libc._exit(0)


def _watch(deed: Deed) -> str:
    """Look at the flags for a while; what they said first."""
    here, end = mpqueue.current_item(), time.monotonic() + deed.amount / 1e6
    seen = ""
    while time.monotonic() < end:
        if here.cancelled:
            return "cancelled"
        if here.paused:
            seen = "paused"
        here.report(0.5)
        threading.Event().wait(0.002)
    return seen


# --- setups ---------------------------------------------------------------------------------------------------------


def plain_setup() -> str:
    """Succeed."""
    return "ready"


def slow_setup() -> str:
    """Succeed after a while."""
    threading.Event().wait(0.1)
    return "ready"


def generator_setup() -> Iterator[str]:
    """Succeed, and have something to finish."""
    yield "ready"


@contextmanager
def context_setup() -> Iterator[str]:
    """Succeed, and fail when it is finished one time in four."""
    yield "ready"
    if os.urandom(1)[0] < 64:
        raise RuntimeError("the end of the setup failed")


def flaky_setup() -> str:
    """Fail one time in three, in one of several ways."""
    dice = os.urandom(1)[0]
    if dice < 30:
        os._exit(3)
    if dice < 40:
        threading.Event().wait(300)
    if dice < 85:
        raise ValueError("the setup failed")
    return "ready"


def bad_setup() -> NoReturn:
    """Fail always."""
    raise ValueError("the setup always fails")


GOOD_SETUPS: tuple[Callable[[], Any] | None, ...] = (
    None,
    None,
    None,
    plain_setup,
    slow_setup,
    generator_setup,
    context_setup,
)
BAD_SETUPS: tuple[Callable[[], Any], ...] = (flaky_setup, flaky_setup, bad_setup)
