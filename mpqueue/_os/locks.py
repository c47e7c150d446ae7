"""Semaphores without a name, for a worker and its parent: they leave nothing in /dev/shm.

`multiprocessing` and loky make each semaphore as a file in /dev/shm. Its name stays until it is unlinked: for ever, if
the parent is killed together with its resource trackers before the worker has opened it. Here all semaphores of a lane
are in one page of an unnamed file, which the worker inherits. Otherwise they are the same, including the Events made of
them, and need neither a tracker nor room in /dev/shm.

If that is not possible (`AVAILABLE` is False: macOS has no such semaphores, and musl's `sem_close` must not get one),
they have names as usual.

Private names used: `_multiprocessing.SemLock._rebuild` with None as the name, and of `multiprocessing.synchronize`
`SemLock._make_methods` and the attribute `_semlock`.
"""

from __future__ import annotations

import contextlib
import ctypes
import mmap
import multiprocessing.util
import os
from multiprocessing import context, reduction, synchronize
from typing import Any

from mpqueue._os.memory_files import SharedFile, map_file
from mpqueue._os.system import IS_LINUX, c_library, choose

#: Bytes of a page, and of the place of each semaphore; glibc needs 32.
_SIZE, _EACH = 4096, 64


def _find_sem_init() -> Any:
    """Return the system's ``sem_init``; None if its semaphores need names."""
    if not IS_LINUX:
        return None
    libc = c_library()
    with contextlib.suppress(AttributeError):
        libc.gnu_get_libc_version  # noqa: B018 - glibc's own
        libc.sem_init.argtypes = (ctypes.c_void_p, ctypes.c_int, ctypes.c_uint)
        return libc.sem_init
    return None


_sem_init = _find_sem_init()
AVAILABLE = _sem_init is not None

#: The folder of semaphores that have names; None if they are in no folder.
NAMED_IN: str | None = choose(linux="/dev/shm", posix=None)  # noqa: S108 - nothing of ours is written there


class LockPage:
    """The memory of a lane's semaphores. It lives as long as any of them; `close` closes the descriptor."""

    def __init__(self) -> None:
        self._file: SharedFile | None = SharedFile("locks", _SIZE)
        self._map(self._file.fd)
        self._used = 0

    def _map(self, fd: int) -> None:
        # Python's own mapping would keep a descriptor: a handler that writes there would end the program.
        self._memory = map_file(_SIZE, mmap.MAP_SHARED, fd)
        if self._memory is None:
            raise OSError(ctypes.get_errno(), "the page of a lane's semaphores could not be mapped")
        self.address = ctypes.addressof(self._memory)

    def add(self, value: int) -> int:
        """Make one more semaphore with that value; returns its address. Raises OSError."""
        if self._used + _EACH > _SIZE:
            raise OSError("expected a lane to need fewer semaphores")
        address = self.address + self._used
        if _sem_init(address, 1, value):
            raise OSError(ctypes.get_errno(), "a semaphore could not be made")
        self._used += _EACH
        return address

    def close(self) -> None:
        """Close the descriptor, once the worker has inherited it."""
        if self._file is not None:
            self._file.close()
            self._file = None

    def __reduce__(self) -> tuple[Any, ...]:
        context.assert_spawning(self)
        assert self._file is not None
        return _arrive, (reduction.DupFd(self._file.fd),)


def _arrive(passed: Any) -> LockPage:
    """Map the page in the worker."""
    page = LockPage.__new__(LockPage)
    fd = passed.detach()
    page._file = None
    page._map(fd)
    page._used = _SIZE
    os.close(fd)
    return page


class _Unnamed:
    """A mixin that removes the name from a class of `multiprocessing.synchronize`."""

    _semlock: Any
    _make_methods: Any

    def __init__(self, page: LockPage, kind: int, value: int, most: int) -> None:
        self._place = (page, page.add(value) - page.address, kind, most)
        self._open()

    def _open(self) -> None:
        page, at, kind, most = self._place
        self._semlock = synchronize._multiprocessing.SemLock._rebuild(  # type: ignore[attr-defined]
            page.address + at, kind, most, None
        )
        self._make_methods()
        multiprocessing.util.register_after_fork(self, _after_fork)

    def __getstate__(self) -> Any:
        context.assert_spawning(self)
        return self._place

    def __setstate__(self, place: Any) -> None:
        self._place = place
        self._open()


def _after_fork(lock: _Unnamed) -> None:
    lock._semlock._after_fork()


class _Lock(_Unnamed, synchronize.Lock): ...


class _Semaphore(_Unnamed, synchronize.Semaphore): ...


class _BoundedSemaphore(_Unnamed, synchronize.BoundedSemaphore): ...


_MOST: int = synchronize.SEM_VALUE_MAX  # type: ignore[attr-defined]
_PLAIN: int = synchronize.SEMAPHORE  # type: ignore[attr-defined]


class Locks:
    """The locks of a context of `multiprocessing`, all in one page: a mixin for the context's class."""

    _page: LockPage

    def Lock(self) -> Any:  # noqa: N802 - the names of multiprocessing
        return _Lock(self._page, _PLAIN, 1, 1)

    def Semaphore(self, value: int = 1) -> Any:  # noqa: N802
        return _Semaphore(self._page, _PLAIN, value, _MOST)

    def BoundedSemaphore(self, value: int = 1) -> Any:  # noqa: N802
        return _BoundedSemaphore(self._page, _PLAIN, value, value)

    def Condition(self, lock: Any = None) -> Any:  # noqa: N802
        return synchronize.Condition(lock, ctx=self)  # type: ignore[arg-type]

    def Event(self) -> Any:  # noqa: N802
        return synchronize.Event(ctx=self)  # type: ignore[arg-type]
