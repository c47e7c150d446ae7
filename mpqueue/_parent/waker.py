"""`Waker`: wakes a thread that waits on descriptors with a selector."""

from __future__ import annotations

import contextlib

from mpqueue._os import channels


class Waker:
    """A pipe whose read end a thread watches; that thread calls `clear` when it is woken, and `close` at last."""

    def __init__(self) -> None:
        read, write = channels.pipe()
        channels.set_blocking(read, False)
        channels.set_blocking(write, False)
        # Files: a late call finds a closed one, never another one's descriptor.
        self._read, self._write = channels.as_file(read, "r"), channels.as_file(write, "w")

    def fileno(self) -> int:
        """What to watch for reading."""
        return self._read.fileno()

    def wake(self) -> None:
        """Wake the thread, now or when it next waits. From any thread; never blocks; does nothing once closed."""
        with contextlib.suppress(ValueError, OSError):
            self._write.write(b"\0")  # a full pipe wakes it as well

    def clear(self) -> None:
        """The thread is awake: forget how often it was woken."""
        while self._read.read(4096):
            pass

    def close(self) -> None:
        """No thread waits any more."""
        self._write.close()
        self._read.close()
