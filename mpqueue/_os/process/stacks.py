"""Asking a process where it is: the stacks of all its threads, also while it sleeps or holds the global lock.

On POSIX systems a signal asks, and `faulthandler` writes the stacks into a pipe. Windows has no such signals: there a
byte at the pipe's own end asks, and a thread of the process writes them. It needs the global lock for that, so
C code that holds it does not answer.
"""

from __future__ import annotations

import faulthandler
import signal
import sys
from collections.abc import Callable

from mpqueue._os import channels

if sys.platform == "win32":
    import _thread
    import os

    from mpqueue._os.windows.file_handles import make_temporary, read_at

    def answer(pipe: int) -> None:
        """Write the stacks of all threads into this end whenever the other end asks."""
        _thread.start_new_thread(_serve, (pipe,))  # none that a handler sees among its own

    def _serve(pipe: int) -> None:
        while channels.read(pipe, 1):
            file = make_temporary("stacks")
            try:
                faulthandler.dump_traceback(file, all_threads=True)
                channels.write(pipe, read_at(file, _MOST, 0))
            finally:
                os.close(file)

    def ask(send: Callable[[int], object], pipe: int) -> None:  # noqa: ARG001 - no signal does
        """Ask a process, by the parent's end of what it writes into."""
        channels.write(pipe, b"?")

    def answers(catches: Callable[[int], bool]) -> bool:  # noqa: ARG001 - no signal asks
        """Tell whether to ask a process does it no harm: always True."""
        return True

    _MOST = 1 << 16

else:
    #: Asks a process where it is. A rare one, so that a handler hardly has a use of its own for it.
    STACK_SIGNAL: int = getattr(signal, "SIGRTMAX", signal.SIGUSR2 + 3) - 3

    def answer(pipe: int) -> None:
        """Write the stacks of all threads into this end whenever the signal asks."""
        # What does not fit into the pipe is lost rather than waited for: it may never be read.
        channels.set_blocking(pipe, False)
        faulthandler.register(STACK_SIGNAL, pipe, all_threads=True)

    def ask(send: Callable[[int], object], pipe: int) -> None:  # noqa: ARG001 - it writes there
        """Ask a process, by what sends it a signal."""
        send(STACK_SIGNAL)

    def answers(catches: Callable[[int], bool]) -> bool:
        """Tell whether to ask a process does it no harm, by what knows which signals it catches: others may end it."""
        return catches(STACK_SIGNAL)
