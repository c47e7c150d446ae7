"""Threads that a test runs by hand: what they would do, when the test says so."""

from __future__ import annotations

import threading

import pytest

from mpqueue._parent.users_threads import Errands


class Starts:
    """Stands in the place of `threading.Thread.start`: refuses the first ones, and counts the others."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, refused: int) -> None:
        self._monkeypatch = monkeypatch
        self.refused = refused  #: how many of the next ones
        self.count = 0
        monkeypatch.setattr(threading.Thread, "start", self._start)

    def _start(self, *_: object) -> None:
        if self.refused:
            self.refused -= 1
            raise RuntimeError("can't start new thread")
        self.count += 1

    def run(self, errands: Errands) -> None:
        """Do what the thread that was started last would do, until there is nothing left."""
        thread = errands.thread
        assert thread is not None
        with self._monkeypatch.context() as patch:
            patch.setattr(threading, "current_thread", lambda: thread)
            thread.run()
