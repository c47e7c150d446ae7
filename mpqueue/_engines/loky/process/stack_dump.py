"""Asking a worker where it is: before it is killed, and when a caller wants to see it. All on the watcher's thread."""

from __future__ import annotations

import sched
from collections.abc import Callable

from mpqueue._engines.loky.process.watcher import Watcher
from mpqueue._engines.loky.process.worker_process import WorkerProcess
from mpqueue._os import channels
from mpqueue._os.process import stacks

#: Seconds to wait for the first of the text. It comes within 2 ms, later on a busy machine, or not at all: the handler
#: blocks the signal, or on Windows keeps the interpreter to itself. So much later it is killed then.
PATIENCE = 0.5
#: The same where the worker goes on: nothing waits for it but the one who looks.
LOOK_PATIENCE = 1.0
#: Seconds without more of the text after which that was all. It comes in pieces, 10 us for a thread, between which the
#: worker may have to wait where the machine is busy.
SETTLE = 0.02
#: Bytes after which more of it does not matter.
MOST = 1 << 20


class StackDump:
    """One worker's pipe for stacks. `listen`, then any number of `look`s, at most one `request`, then `take`."""

    def __init__(self, fd: int, worker: WorkerProcess, watcher: Watcher) -> None:
        self._fd = fd
        self._worker = worker
        self._watcher = watcher
        self._text = bytearray()
        self._then: Callable[[], object] | None = None
        self._lookers: list[Callable[[str | None], object]] = []
        self._timer: sched.Event | None = None

    def listen(self) -> None:
        """Read from now on; what comes without having been asked for is dropped."""
        self._watcher.on_readable(self._fd, self._read)

    def request(self, then: Callable[[], object]) -> None:
        """Ask for the stack, and call ``then`` when it is here or will not come.

        A stopped process would take the signal only when it goes on, and might end its item then: it is not asked.
        """
        if self._then is None:
            self._then = then
            stopped = self._worker.is_stopped()
            if not stopped:
                stacks.ask(self._worker.send, self._fd)
            self._wait(0.0 if stopped else PATIENCE)

    def look(self, tell: Callable[[str | None], object]) -> None:
        """Have ``tell`` called with the stack; with None where it can't be had. The worker goes on.

        Nothing is sent to a process that is stopped, or does not catch the signal any more, which would end it.
        """
        if self._then is None and not self._lookers:
            if self._worker.is_stopped() or not stacks.answers(self._worker.catches):
                tell(None)
                return
            stacks.ask(self._worker.send, self._fd)
            self._wait(LOOK_PATIENCE)
        self._lookers.append(tell)

    def take(self) -> str | None:
        """Stop listening after the worker's death, and return the text that was asked for, if any came."""
        self._cancel_timer()
        if self._then is None and not self._lookers:
            self._watcher.forget(self._fd)
            return None
        channels.set_blocking(self._fd, False)
        while self._read():
            pass
        self._cancel_timer()
        self._watcher.forget(self._fd)
        self._tell_lookers()
        requested, self._then = self._then is not None, None
        return self._as_text() if requested else None

    def _wait(self, seconds: float) -> None:
        self._cancel_timer()
        self._timer = self._watcher.later(seconds, self._settled)

    def _cancel_timer(self) -> None:
        if self._timer is not None:
            self._watcher.cancel(self._timer)
            self._timer = None

    def _settled(self) -> None:
        """Hand the text out: all of it is here, or nothing comes."""
        self._timer = None
        self._tell_lookers()
        if self._then is not None:
            self._then()

    def _tell_lookers(self) -> None:
        text, lookers, self._lookers = self._as_text(), self._lookers, []
        if self._then is None:
            self._text.clear()
        for tell in lookers:
            tell(text)

    def _as_text(self) -> str | None:
        return self._text.decode(errors="replace") or None

    def _read(self) -> bool:
        """Read what is there; False at the end, or where there is nothing."""
        try:
            text = channels.read(self._fd, 1 << 16)
        except BlockingIOError:
            return False
        if not text:
            self._watcher.forget(self._fd)
            return False
        if self._then is not None or self._lookers:
            if self._timer is not None and len(self._text) < MOST:
                self._wait(SETTLE)
            self._text += text
        return True
