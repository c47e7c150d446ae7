"""Pairs of sockets in place of pipes: only sockets can be waited for together.

A socket has no descriptor here. Its number is its handle, under which this module keeps it until `close`.
"""

from __future__ import annotations

import contextlib
import select
import selectors
import socket
import sys
import threading
from typing import Any

assert sys.platform == "win32"

_sockets: dict[int, socket.socket] = {}


def adopt(end: socket.socket) -> int:
    """Take a socket, and return the number under which it can be used until `close`."""
    number = end.fileno()
    _sockets[number] = end
    return number


def arrive(shared: bytes) -> int:
    """Adopt a shared end, in the process for which it was shared; return its number."""
    return adopt(socket.fromshare(shared))


def share(number: int, pid: int) -> bytes:
    """Return the bytes that `arrive` takes in that process."""
    return _sockets[number].share(pid)


def pair() -> tuple[socket.socket, socket.socket]:
    """Two connected sockets; data is sent at once."""
    ends = socket.socketpair()
    for end in ends:
        end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return ends


def pipe() -> tuple[int, int]:
    """Two ends: the first reads the data written at the second."""
    read, write = pair()
    return adopt(read), adopt(write)


def read(number: int, size: int) -> bytes:
    """Read from an end, like `os.read`. If the other end's process has died, that is the end of the data."""
    try:
        return _sockets[number].recv(size)
    except (ConnectionError, KeyError):
        return b""


def write(number: int, data: bytes | memoryview) -> int:
    """Write to an end, as `os.write` does."""
    return _end(number).send(data)


def close(number: int) -> None:
    """Close an end."""
    _sockets.pop(number).close()


def close_socket(end: socket.socket) -> None:
    """Close an adopted socket."""
    _sockets.pop(end.fileno(), None)
    end.close()


def set_blocking(number: int, blocking: bool) -> None:
    """Set whether an end blocks, as `os.set_blocking` does."""
    _end(number).setblocking(blocking)


def is_readable(number: int, seconds: float | None) -> bool:
    """Tell whether data, or the end, can be read within that many seconds; None: wait for that."""
    return bool(select.select([number], [], [], seconds)[0])


def _end(number: int) -> socket.socket:
    try:
        return _sockets[number]
    except KeyError:
        raise OSError(9, "this end is closed") from None


# -- `select` of Windows, which other threads may change while it waits. -----------------------------------------------

assert sys.platform == "win32"

_READ, _WRITE = selectors.EVENT_READ, selectors.EVENT_WRITE


class WokenSelector:
    """A `mpqueue._os.channels.Selector` for sockets, by their numbers. `select` takes at most 512 of them."""

    def __init__(self) -> None:
        self._keys: dict[int, selectors.SelectorKey] = {}
        self._lock = threading.Lock()
        self._woken, self._wakes = socket.socketpair()
        for end in (self._woken, self._wakes):
            end.setblocking(False)
        self._is_waiting = False
        self._is_closed = False

    def register(self, fileobj: int, events: int, data: Any = None) -> selectors.SelectorKey:
        with self._lock:
            if self._is_closed:
                raise ValueError("expected a selector that is open")
            if fileobj in self._keys:
                raise KeyError(f"{fileobj} is looked at already")
            return self._put(fileobj, events, data)

    def modify(self, fileobj: int, events: int, data: Any = None) -> selectors.SelectorKey:
        with self._lock:
            if fileobj not in self._keys:
                raise KeyError(f"{fileobj} is not looked at")
            return self._put(fileobj, events, data)

    def unregister(self, fileobj: int) -> selectors.SelectorKey:
        with self._lock:
            key = self._keys.pop(fileobj)
            self._wake()
            return key

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        """Return the ready ones; if another thread made a change, early and none."""
        with self._lock:
            if self._is_closed:
                return []
            keys = list(self._keys.values())
            self._is_waiting = True
        reading = [key.fd for key in keys if key.events & _READ]
        writing = [key.fd for key in keys if key.events & _WRITE]
        try:
            readable, writable, failed = select.select([self._woken.fileno(), *reading], writing, writing, timeout)
        except OSError:  # one was closed meanwhile
            readable, writable, failed = self._one_by_one(reading, writing)
        finally:
            self._is_waiting = False
        with contextlib.suppress(OSError):
            while self._woken.fileno() in readable and self._woken.recv(4096):
                pass
        return self._ready({*readable}, {*writable, *failed})

    def _one_by_one(self, reading: list[int], writing: list[int]) -> tuple[list[int], list[int], list[int]]:
        """Return those that are ready, without waiting; a closed socket counts, and its reader will notice."""
        found: tuple[list[int], list[int], list[int]] = ([], [], [])
        for ends, at in ((reading, 0), (writing, 1)):
            for end in ends:
                try:
                    ready = select.select([end], [], [], 0)[0] if at == 0 else select.select([], [end], [], 0)[1]
                except OSError:
                    ready = [end]
                found[at].extend(ready)
        return found

    def _ready(self, readable: set[int], writable: set[int]) -> list[tuple[selectors.SelectorKey, int]]:
        ready = []
        with self._lock:
            for fd in readable | writable:
                if (key := self._keys.get(fd)) is not None:
                    events = (_READ if fd in readable else 0) | (_WRITE if fd in writable else 0)
                    if events & key.events:
                        ready.append((key, events & key.events))
        return ready

    def close(self) -> None:
        with self._lock:
            self._is_closed = True
            self._keys.clear()
            self._woken.close()
            self._wakes.close()

    def _put(self, fd: int, events: int, data: Any) -> selectors.SelectorKey:
        key = self._keys[fd] = selectors.SelectorKey(fd, fd, events, data)
        self._wake()
        return key

    def _wake(self) -> None:
        if self._is_waiting:
            with contextlib.suppress(OSError):  # it is woken already, or closed
                self._wakes.send(b"\0")
