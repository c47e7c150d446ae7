"""An engine around another one, which calls a test where a queue calls it: on the queue's own threads.

A queue calls ``pool.start``, ``lane.send``, ``lane.kill`` and the others of `mpqueue.backends.Backend` on its
coordinator's thread, and ``pool.close`` on the one that closes it. What a test does there comes before the real call:
it waits, or raises, which an engine must not.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from mpqueue.backends import Backend

Calls = dict[str, Callable[[], object]]


class WrappedEngine:
    """``JobQueue(backend=WrappedEngine(LokyBackend(), {"send": wait}))``; ``calls`` may change at any time."""

    def __init__(self, sound: Backend, calls: Calls | None = None) -> None:
        self._sound = sound
        self.calls: Calls = calls or {}
        self.capabilities = sound.capabilities

    def count_workers(self) -> int:
        """See `Backend`."""
        return self._sound.count_workers()

    def open(self, settings: Any, inbox: Any) -> Any:
        """See `Backend`."""
        return _Wrapped(self._sound.open(settings, inbox), self.calls)


class _Wrapped:
    """A pool, or a lane of it."""

    def __init__(self, sound: Any, calls: Calls) -> None:
        vars(self).update(sound=sound, calls=calls)

    def __getattr__(self, name: str) -> Any:
        found = getattr(self.sound, name)
        if name == "lane":
            found = self.wrapped_lane
        return self.after(name, found) if name in self.calls else found

    def __setattr__(self, name: str, value: object) -> None:
        setattr(self.sound, name, value)

    def after(self, name: str, real: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any, **options: Any) -> Any:
            if name in self.calls:
                self.calls[name]()
            return real(*arguments, **options)

        return call

    def wrapped_lane(self, number: int) -> Any:
        lane = self.sound.lane(number)
        return None if lane is None else _Wrapped(lane, self.calls)
