"""One thread that waits for everything at once: processes that end, bells, stacks, and moments in time.

It knows nothing of lanes: others give it functions to call. What it calls runs on its thread, one after another, so
state that is only touched there needs no lock. It sleeps while nothing happens.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import threading
from collections.abc import Callable
from typing import Any

_log = logging.getLogger("mpqueue")


class Watcher:
    """The thread, started at once. Owner: the pool, which calls `stop` and waits.

    An asyncio loop, used for its selector and its timers; no coroutine runs in it.
    """

    def __init__(self, name: str) -> None:
        self._loop = asyncio.SelectorEventLoop()
        self._loop.set_exception_handler(_report)
        self.thread = threading.Thread(target=self._run, name=name, daemon=True)
        try:
            self.thread.start()
        except BaseException:
            self._loop.close()
            raise

    def call(self, function: Callable[..., object], *args: Any) -> None:
        """Have ``function`` called on the watcher's thread, in the order of the calls. From any thread; never blocks.

        Does nothing once the watcher has stopped.
        """
        with contextlib.suppress(RuntimeError):
            self._loop.call_soon_threadsafe(function, *args)

    def later(self, delay: float, function: Callable[..., object], *args: Any) -> asyncio.TimerHandle:
        """Have ``function`` called in ``delay`` seconds, unless the handle is cancelled. Watcher thread only."""
        return self._loop.call_later(delay, function, *args)

    def on_readable(self, fd: int, function: Callable[[], object]) -> None:
        """Call ``function`` whenever ``fd`` is readable or at its end, until `forget`. Watcher thread only."""
        self._loop.add_reader(fd, function)

    def forget(self, fd: int) -> None:
        """Look at ``fd`` no more; to be called before it is closed. Watcher thread only."""
        self._loop.remove_reader(fd)

    def stop(self) -> None:
        """End the thread after what is due now. Watcher thread only."""
        self._loop.stop()

    def _run(self) -> None:
        try:
            self._loop.run_forever()
        finally:
            self._loop.close()


def _report(_loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
    """A function that we called raised: a bug of ours. The thread goes on."""
    _log.error("watching a worker failed: %s", context.get("message"), exc_info=context.get("exception"))
