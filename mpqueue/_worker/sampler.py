"""Samples the lines that a job's handler spends time in: a thread of the worker looks up to 100 times per second.

A look attributes all seconds that the handler has run since the look before. So code that held the global lock
meanwhile, when no other thread can look, counts for the line that called it; and items much shorter than the interval
are right on average, which they would not be if the seconds before the item were dropped.

Samples are kept with their item until it is reported: if the item's outcome is lost, so are its samples.
"""

from __future__ import annotations

import _thread
import contextlib
import os
import queue
import threading
import time
from types import CoroutineType, FrameType, GeneratorType
from typing import TYPE_CHECKING, Any

from mpqueue._os import system as clock
from mpqueue._os.process_signals import frame_of
from mpqueue._wire.frames import OTHERS, Place, Stack, Stacks, dump_stacks

if TYPE_CHECKING:
    from mpqueue._worker.handlers.current_item import Running
    from mpqueue._worker.handlers.loaded_jobs import LoadedJob

#: Seconds between two looks. They vary by 25%, so as not to be in step with a handler's own rhythm.
LOOK_INTERVAL_S = 0.01
_VARIES, _GOLDEN = 0.5, 0.6180339887
#: The largest part of a CPU that the sampler uses, by its own clock: passing the global lock to it and back costs the
#: handler several times more (ADR 15). If a look costs more, it looks less often.
BUDGET = 0.001
#: The number of looks after which the interval is computed again, and the longest interval in seconds.
RECKONED, MAX_INTERVAL_S = 32, 0.1
#: The shortest pause in seconds, even after a late look.
MIN_PAUSE_S = 0.001
#: The most stacks of one item that are kept separate.
MAX_STACKS_OF_ITEM = 1_000
#: The numbers of outermost and innermost places of a stack that are kept.
OUTERMOST, INNERMOST = 40, 60

_HERE = os.path.dirname((lambda: 0).__code__.co_filename)
_OURS = os.path.dirname(_HERE) + os.sep
#: They call the handler.
_CALLERS = frozenset(os.path.join(_HERE, name) for name in ("chunk_run.py", "capture.py"))
#: They never do: the worker is at work for itself.
_AROUND_ITEMS = frozenset(
    os.path.join(_HERE, f"{name}.py") for name in ("chunk_timer", "log_records", "results", "sampler", "timing")
)
_LIBRARY = os.path.dirname(queue.__file__) + os.sep
_LOOP = (os.path.join(_LIBRARY, "asyncio") + os.sep, os.path.join(_LIBRARY, "selectors.py"))


class StackSampler:
    """The thread that looks at the stack. It belongs to a worker, whose main thread sets the current work.

    It is started with the first sampled job, and waits without a timeout while none runs.
    """

    def __init__(self) -> None:
        self._samples: JobSampling | None = None
        self._calls: queue.SimpleQueue[None] = queue.SimpleQueue()
        self._waits = False
        self._left: threading.Event | None = None  #: set when the thread has ended
        self._ended = False

    def watch(self, samples: JobSampling | None) -> None:
        """Watch a chunk of that job that begins; None: it has ended."""
        self._samples = samples
        if samples is None:
            return
        if self._left is None:
            left = threading.Event()
            with contextlib.suppress(RuntimeError):  # no thread is left: then nothing is sampled
                _thread.start_new_thread(self._run, (left,))
                self._left = left
        elif self._waits:
            self._calls.put(None)

    def end(self) -> None:
        """Let the thread end, and wait for that. If the worker is a process, it ends with it."""
        self._ended, self._samples = True, None
        if self._left is not None:
            self._calls.put(None)
            self._left.wait()

    def _run(self, left: threading.Event) -> None:
        try:
            self._look_now_and_then()
        finally:
            left.set()

    def _look_now_and_then(self) -> None:
        never = _thread.allocate_lock()
        never.acquire()
        turn, due, interval, used = 0, clock.monotonic(), LOOK_INTERVAL_S, time.thread_time()
        while not self._ended:
            if self._samples is None:
                self._waits = True
                self._wait_unless_called()
                self._waits = False
                due = clock.monotonic()
                continue
            turn += 1
            now = clock.monotonic()
            if turn % RECKONED == 0:
                before, used = used, time.thread_time()
                interval = interval_for(used - before)
            due = max(due + interval * (1 + _VARIES * (turn * _GOLDEN % 1 - 0.5)), now + MIN_PAUSE_S)
            never.acquire(timeout=due - now)
            samples = self._samples
            if samples is not None:
                samples.look()
            del samples  # so that an ended job can be freed

    def _wait_unless_called(self) -> None:
        """Wait for a call, unless one came just now by a caller that has not seen the wait."""
        if self._samples is None and not self._ended:
            self._calls.get()


def interval_for(used: float) -> float:
    """Return the seconds between two looks, if the last `RECKONED` of them used that many CPU seconds."""
    return min(max(LOOK_INTERVAL_S, used / RECKONED / BUDGET), MAX_INTERVAL_S)


class JobSampling:
    """One job's samples of the current chunk in this worker, and the seconds that no look has attributed yet.

    The main thread marks when the handler runs; the sampler looks; the maker of a report takes them.
    """

    def __init__(self, job: LoadedJob, name: str) -> None:
        self._job = job
        self._nameless: Stack = ((name, "", 0),)  #: for a handler in C code
        self._lock = threading.Lock()
        self._running: Running | None = None
        self._thread = 0
        self._since: float | None = None  #: the handler's last look, or its start; None: it does not run
        self._unseen = 0.0  #: seconds that it ran, for the next look to attribute
        self._by_position: dict[int, Stacks] = {}

    def chunk_begins(self, running: Running) -> None:
        """Begin a chunk, on the thread that runs it."""
        with self._lock:
            self._running, self._thread = running, threading.get_ident()
            self._since, self._by_position = None, {}

    def handler_begins(self, now: float) -> None:
        """Count each second as the handler's from now on."""
        with self._lock:
            self._since = now

    def handler_ends(self, now: float) -> None:
        """Stop counting; the seconds since the last look are attributed by the next one."""
        with self._lock:
            if self._since is not None:
                self._unseen += max(0.0, now - self._since)
                self._since = None

    def look(self) -> None:
        """Attribute the time since the last look to the handler's place now. On the sampler's thread; 10 to 30 us."""
        frame = frame_of(self._thread)
        with self._lock:
            running, since = self._running, self._since
            if frame is None or running is None or since is None:
                return
            now = clock.monotonic()
            seconds, self._unseen, self._since = self._unseen + max(0.0, now - since), 0.0, now
            position = min(len(running.out), len(running.indices) - 1)
            stack = stack_of(frame, self._job.task)
            del frame  # its locals should not live longer than they do
            if stack is None:
                return
            sampled = self._by_position.get(position)
            if sampled is None:
                sampled = self._by_position[position] = Stacks(MAX_STACKS_OF_ITEM)
            sampled.add(stack or self._nameless, seconds)

    def take(self, first: int, done: int) -> bytes | None:
        """Take the samples of these items, by position from ``first``, for a report; None if there are none."""
        with self._lock:
            if not self._by_position:
                return None
            taken = [position for position in self._by_position if first <= position < done]
            found = {position - first: self._by_position.pop(position) for position in taken}
        return dump_stacks(found) if found else None


def stack_of(frame: FrameType | None, task: Any = None) -> Stack | None:
    """Return the places of a thread that runs a chunk, from the handler's own on, without the worker's.

    Empty if the handler is C code; None if the worker runs code of its own, such as handling an exception. ``task`` is
    the handler's: first its own places, even while it waits, then those of another task that runs, if any.
    """
    places: list[Place] = []
    loop = 0  #: how many of the places come after the last one that belongs to no event loop
    while frame is not None:
        code = frame.f_code
        file = code.co_filename
        if file.startswith(_OURS):
            if file in _CALLERS:
                break
            if file in _AROUND_ITEMS:
                return None
            if task is not None and code.co_name == TASK:
                task = None
                break
        else:
            places.append((code.co_qualname, file, frame.f_lineno or 0))
            if task is None or not file.startswith(_LOOP):
                loop = len(places)
        frame = frame.f_back
    if task is not None:
        return _cut((*_awaited(task), *reversed(places[:loop])))
    return _cut(tuple(reversed(places)))


#: Our coroutine function in which a handler's coroutine runs.
TASK = "_as_coroutine"


def _awaited(task: Any) -> list[Place]:
    """Return the places where a task waits: its coroutine, the one that it awaits, and so on."""
    places: list[Place] = []
    awaited = task.get_coro()
    while len(places) < OUTERMOST + INNERMOST:
        if type(awaited) is CoroutineType:
            frame, awaited = awaited.cr_frame, awaited.cr_await
        elif type(awaited) is GeneratorType:
            frame, awaited = awaited.gi_frame, awaited.gi_yieldfrom
        else:
            break
        if frame is not None and not (file := frame.f_code.co_filename).startswith(_OURS):
            places.append((frame.f_code.co_qualname, file, frame.f_lineno or 0))
    return places


def _cut(stack: Stack) -> Stack:
    if len(stack) <= OUTERMOST + INNERMOST:
        return stack
    return (*stack[:OUTERMOST], OTHERS, *stack[-INNERMOST:])
