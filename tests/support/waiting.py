"""Waiting for something to become true: the one place in the tests that sleeps.

A deadline here is a bound on how long a broken test takes, never a claim about speed: make it generous.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TypeVar

T = TypeVar("T")

#: Seconds. On a machine with ten busy processes a CPU, what takes three seconds elsewhere takes thirty.
DEFAULT_TIMEOUT = 300.0


def wait_until(predicate: Callable[[], T], *, timeout: float = DEFAULT_TIMEOUT, what: str = "") -> T:
    """Call ``predicate`` until it is true, and return what it returned.

    Raises:
        AssertionError: It was not true within ``timeout`` seconds; names ``what`` was waited for and the last value.
    """
    deadline = time.monotonic() + timeout
    pause = 0.0005
    while True:
        value = predicate()
        if value:
            return value
        if time.monotonic() >= deadline:
            name = what or getattr(predicate, "__qualname__", repr(predicate))
            raise AssertionError(f"waited {timeout:g} s for {name}; last seen: {value!r}")
        time.sleep(pause)
        pause = min(pause * 1.5, 0.02)


def spend(seconds: float) -> None:
    """Let so many seconds go by (in a handler that is to be slow)."""
    time.sleep(seconds)


class Gate:
    """A meeting point of a test and the handlers in its workers: a folder, and a file for each thing that happened.

    It makes the folder, and it pickles, so a handler can carry it. The test waits for an arrival, does what it is
    about, and opens the gate, which the fixture `gate` is::

        run = queue.start(job.id)  # its handler calls gate.pass_through(item)
        gate.wait_for("a")
        queue.pause(job.id)
        gate.open()
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir(exist_ok=True)

    def announce(self, name: object) -> None:
        """Say that ``name`` is here (in the handler)."""
        (self.folder / f"{name}.here").touch()

    def pass_through(self, name: object) -> None:
        """Announce ``name`` and wait until the gate is open (in the handler)."""
        self.announce(name)
        wait_until((self.folder / "open").exists, what="the gate to open")

    def is_here(self, name: object) -> bool:
        """Whether ``name`` has been announced."""
        return (self.folder / f"{name}.here").exists()

    def arrived(self) -> set[str]:
        """The names announced so far, as strings."""
        return {path.stem for path in self.folder.glob("*.here")}

    def wait_for(self, *names: object, timeout: float = DEFAULT_TIMEOUT) -> None:
        """Wait until all of ``names`` have been announced (in the test)."""
        for name in names:
            wait_until(partial(self.is_here, name), timeout=timeout, what=f"{name!r} to arrive at the gate")

    def wait_for_count(self, count: int, timeout: float = DEFAULT_TIMEOUT) -> set[str]:
        """Wait until ``count`` names have been announced, whichever they are (in the test)."""
        wait_until(lambda: len(self.arrived()) >= count, timeout=timeout, what=f"{count} arrivals at the gate")
        return self.arrived()

    def open(self) -> None:
        """Let all through, now and later."""
        (self.folder / "open").touch()
