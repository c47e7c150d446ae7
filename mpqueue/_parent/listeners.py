"""Listeners: the thread that delivers events and notices, and the emitter that survives its listeners.

Everything is delivered in order, one thing at a time, on a thread of its own: a slow listener delays later events and
the resolving of runs, never the work; if one raises, that is logged, and the others go on. Notices that call users'
code log its errors; any other error of a notice is an internal error.
"""

from __future__ import annotations

import inspect
import logging
import queue
import threading
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from pyee import EventEmitter

from mpqueue._call_checks import nearest
from mpqueue._parent.replies import SafeEvent
from mpqueue.errors import shown
from mpqueue.events import EVENT_NAMES

if TYPE_CHECKING:
    import asyncio


log = logging.getLogger("mpqueue")

Notice = Callable[[], None]

_RAISED = "a listener raised (%r); the other listeners and the job go on"

#: The events that users' spellings mean.
_MEANT = {name: name for name in EVENT_NAMES} | {name.partition(":")[2]: name for name in sorted(EVENT_NAMES)}
#: Attributes of pyee's emitters for emitting, and the aliases of `on` and `off`.
_FOR_EMITTERS = frozenset({"emit", "event_names", "listeners", "add_listener", "listens_to", "remove_listener"})


class SafeEmitter(EventEmitter):
    """An emitter whose listeners can't harm each other, or the thread that calls them."""

    def __dir__(self) -> list[str]:
        """List the attributes, without those of pyee's emitters that listeners do not need."""
        return [name for name in super().__dir__() if name not in _FOR_EMITTERS]

    def off(self, event: str, listener: Callable[..., Any]) -> None:
        """Stop calling this listener of the event. Raises KeyError if it is none."""
        self.remove_listener(event, listener)

    def _on_listener_added(self) -> None:
        """Check a listener that was added. Raises if it is not allowed (any more)."""

    def _add_event_handler(self, event: str, k: Callable[..., Any], v: Callable[..., Any]) -> None:
        self._on_listener_added()
        if not isinstance(event, str):
            raise TypeError(f"event: expected a str, got {shown(event)} of type {type(event).__name__}")
        if event.startswith(("job:", "item:")) and event not in EVENT_NAMES:
            raise ValueError(f"event: expected one of {', '.join(sorted(EVENT_NAMES))}, got {shown(event)}")
        meant = None if event in EVENT_NAMES else nearest(event, _MEANT)
        if meant is not None:
            raise ValueError(
                f"event: expected one of {', '.join(sorted(EVENT_NAMES))}, or a name of your own, got {shown(event)}; "
                f"did you mean {_MEANT[meant]!r}?"
            )
        if not callable(k):
            raise TypeError(f"listener: expected a callable, got {shown(k)} of type {type(k).__name__}")
        if inspect.iscoroutinefunction(k) or inspect.iscoroutinefunction(type(k).__call__):
            v = _Scheduled(k, v)
        super()._add_event_handler(event, k, v)

    def _tell(self, event: str, payload: object) -> None:
        """Emit an event that each item has, in half the time of `emit`."""
        with self._lock:
            listeners = [*self._events.get(event, {}).values()]
        for listener in listeners:
            try:
                listener(payload)
            except BaseException:
                log.exception(_RAISED, listener)

    def _emit_run(self, f: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        try:
            f(*args, **kwargs)
        except BaseException:
            log.exception(_RAISED, f)


def has_listeners(emitter: SafeEmitter, event: str) -> bool:
    """True if the event has a listener."""
    return bool(emitter._events.get(event))  # noqa: SLF001 - pyee's own ways to ask make a copy first


class _Scheduled:
    """A coroutine listener: scheduled, in order, on the running loop that registered it, and not awaited."""

    def __init__(self, listener: Callable[..., Any], call: Callable[..., Any]) -> None:
        import asyncio  # only programs that use it import it

        try:
            self._loop = asyncio.get_running_loop()
        except RuntimeError:
            raise TypeError(
                "listener: expected a running event loop to register the coroutine function "
                f"{shown(listener)} in, got none"
            ) from None
        self._call = call
        self._tasks: set[asyncio.Task[Any]] = set()

    def __call__(self, *args: Any, **kwargs: Any) -> None:
        if self._loop.is_closed():
            return
        self._loop.call_soon_threadsafe(self._begin, args, kwargs)

    def _begin(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        coroutine = self._call(*args, **kwargs)
        if coroutine is None:  # a ``once`` listener that has had its event
            return
        task = self._loop.create_task(coroutine)
        self._tasks.add(task)
        task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[Any]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            log.error("a coroutine listener raised (%r)", self._call, exc_info=error)


class ListenerThread:
    """The thread of the listeners. Notices are posted by the coordinator and carried out in order; none is lost.

    `call_at` uses the clock ``now``.
    """

    def __init__(self, name: str, now: Callable[[], float]) -> None:
        self._now = now
        self._queue: queue.SimpleQueue[Notice | None] = queue.SimpleQueue()
        #: Called, on this thread, with an error of a notice.
        self.on_fault: Callable[[Exception], object] = lambda _: None
        self._thread = threading.Thread(target=self._loop, name=name, daemon=True)
        self._posted = self._told = 0
        self._ended = SafeEvent()
        self._timers: dict[int, tuple[float, Notice]] = {}

    def start(self) -> None:
        """Start the thread, unless it runs."""
        if not self.is_alive:
            self._thread.start()

    def post(self, notice: Notice) -> None:
        """Post a notice, to be delivered after all earlier ones."""
        self._posted += 1
        self._queue.put(notice)

    @property
    def is_alive(self) -> bool:
        """True while the thread runs."""
        # Not `Thread.is_alive`: a Ctrl-C in it makes a thread look ended for ever.
        return self._thread.ident is not None and not self._ended.is_set()

    @property
    def idle(self) -> bool:
        """True if all notices have been delivered, and none is due later."""
        return self._told == self._posted and not self._timers

    def call_at(self, key: int, moment: float, notice: Notice) -> None:
        """Deliver a notice at a moment, instead of the one waiting under this key. On this thread only."""
        self._timers[key] = (moment, notice)

    def forget(self, key: int) -> None:
        """Drop the notice waiting under this key. On this thread only."""
        self._timers.pop(key, None)

    def tell_now(self, key: int) -> None:
        """Deliver the notice waiting under this key, if any. On this thread only."""
        waiting = self._timers.pop(key, None)
        if waiting is not None:
            self._carry_out(waiting[1])

    @property
    def is_here(self) -> bool:
        """True on the thread itself: in a listener or a done-callback."""
        return threading.current_thread() is self._thread

    def stop(self, *, wait: bool, unless: SafeEvent | None = None) -> None:
        """End the thread once everything that was posted has been delivered.

        With ``wait`` it returns after that, or once ``unless`` is set.
        """
        self._queue.put(None)
        if wait and not self.is_here and self._thread.ident is not None and self._ended.wait(unless=unless):
            self._thread.join()

    def _loop(self) -> None:
        try:
            while True:
                self._tell_due()
                due = min(moment for moment, _ in self._timers.values()) if self._timers else None
                try:
                    posted = self._queue.get(timeout=None if due is None else max(0.0, due - self._now()))
                except queue.Empty:
                    continue
                if posted is None:
                    return
                self._carry_out(posted)
                self._told += 1
                posted = None  # its objects must not live until the next one
        finally:
            self._ended.set()

    def _tell_due(self) -> None:
        for key, timer in list(self._timers.items()):
            moment, notice = timer
            if moment <= self._now():
                self._carry_out(notice)
                # Only now: until it has been delivered, the thread is not `idle`. It may have set the next one.
                if self._timers.get(key) is timer:
                    del self._timers[key]

    def _carry_out(self, notice: Notice) -> None:
        try:
            notice()
        except Exception as error:
            self.on_fault(error)
        except BaseException:  # a SystemExit of a done-callback, say
            log.exception("a callback raised; the others, and the job, go on")
