"""The stack of a worker that is about to be killed: when all of it is here."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

import pytest

from mpqueue._engines.loky.process import stack_dump
from mpqueue._engines.loky.process.stack_dump import PATIENCE, SETTLE, StackDump


class Timer:
    def __init__(self, pause: float, call: Callable[[], object]) -> None:
        self.pause, self.call, self.cancelled = pause, call, False


class Watcher:
    """Remembers what it is asked for."""

    def __init__(self) -> None:
        self.timers: list[Timer] = []
        self.read: Callable[[], object] = lambda: None

    def later(self, pause: float, call: Callable[[], object]) -> Timer:
        self.timers.append(Timer(pause, call))
        return self.timers[-1]

    def cancel(self, timer: Timer) -> None:
        timer.cancelled = True

    def on_readable(self, _fd: int, call: Callable[[], object]) -> None:
        self.read = call

    def forget(self, _fd: int) -> None: ...

    @property
    def due(self) -> list[Timer]:
        return [timer for timer in self.timers if not timer.cancelled]


class Worker:
    def __init__(self) -> None:
        self.sent: list[int] = []

    def is_stopped(self) -> bool:
        return False

    def send(self, signal: int) -> None:
        self.sent.append(signal)


def ask(fd: int) -> tuple[StackDump, Watcher]:
    watcher: Any = Watcher()
    worker: Any = Worker()
    dump = StackDump(fd, worker, watcher)
    dump.listen()
    dump.request(lambda: None)
    assert len(worker.sent) == 1
    return dump, watcher


def test_each_piece_is_waited_for_anew(pipe: tuple[int, int]) -> None:
    dump, watcher = ask(pipe[0])
    (first,) = watcher.due
    assert first.pause == PATIENCE
    for piece in (b"Thread 0x", b"12 (most recent call first):\n", b"  File ..."):
        before = watcher.due
        os.write(pipe[1], piece)
        watcher.read()
        (timer,) = watcher.due
        assert timer not in before
        assert timer.pause == SETTLE
    assert dump.take() == "Thread 0x12 (most recent call first):\n  File ..."
    assert not watcher.due


def test_text_without_end_is_not_waited_for(pipe: tuple[int, int], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stack_dump, "MOST", 10)
    _, watcher = ask(pipe[0])
    for _ in range(5):
        os.write(pipe[1], b"x" * 8)
        watcher.read()
    assert len(watcher.timers) == 3
    assert len(watcher.due) == 1
