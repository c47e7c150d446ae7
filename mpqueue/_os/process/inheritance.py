"""Things that a process gets while it is spawned: files, ends of pipes and sockets, its leash.

Each `hand_...` is called while the process is spawned, and returns an object that can be pickled; `arrive` turns it
into that process's own. `spawn` starts one on Windows; elsewhere processes inherit shared things.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Mapping
from multiprocessing import context, reduction
from typing import Any

from mpqueue._os.process.parent_death import Leash

if sys.platform == "win32":
    import msvcrt

    from mpqueue._os.windows import sockets as windows

    class _File:
        def __init__(self, handle: int) -> None:
            self._handle = handle

        def detach(self) -> int:
            return msvcrt.open_osfhandle(self._handle, os.O_RDWR | os.O_NOINHERIT)

    class _Socket:
        def __init__(self, shared: bytes) -> None:
            self._shared = shared

        def detach(self) -> int:
            return windows.arrive(self._shared)

    class _Nothing:
        def detach(self) -> int:
            return -1

    def hand_file(fd: int) -> Any:
        """Hand over a descriptor of a file."""
        return _File(_spawning().duplicate_for_child(msvcrt.get_osfhandle(fd)))

    def hand_channel(end: int) -> Any:
        """Hand over an end of `mpqueue._os.channels`."""
        return _Socket(windows.share(end, _spawning().pid))

    def hand_leash(leash: Leash) -> Any:
        """Hand over the leash: the process is held from now on."""
        leash.take_in(_spawning().sentinel)
        return _Nothing()

    def _spawning() -> Any:
        return context.get_spawning_popen()

    def arrive(passed: Any) -> int:
        """Take over a thing; return the number under which it is this process's own."""
        number: int = passed.detach()
        return number

else:

    def hand_file(fd: int) -> Any:
        """Hand over a descriptor of a file."""
        return reduction.DupFd(fd)

    #: An end of `mpqueue._os.channels`.
    hand_channel = hand_file

    def hand_leash(leash: Leash) -> Any:
        """Hand over the leash: the process holds its end from now on."""
        return reduction.DupFd(leash.worker_end)

    def arrive(passed: Any) -> int:
        """Take over a thing; return the number under which it is this process's own."""
        number: int = passed.detach()
        os.set_inheritable(number, False)
        return number


if sys.platform == "win32":
    from mpqueue._os.windows.processes import Spawned


def spawn(executable: str, arguments: list[str], environment: Mapping[str, str], text: Callable[[Any], bytes]) -> Any:
    """Start the interpreter; returns the popen object that `multiprocessing` uses for a process.

    ``text`` makes the first data that it reads, by the handle whose number is its last argument. ``text`` gets the
    returned object as the process that is being spawned: things pickled meanwhile are handed over to it. Raises
    OSError, and errors of ``text``: then the process has not run.
    """
    if sys.platform == "win32":
        return Spawned(executable, arguments, environment, text)
    raise NotImplementedError("expected Windows: elsewhere processes inherit what they share")
