"""Those who use results: executors, `imap`, `as_completed`, `run` and forks of this process, each checked."""

from __future__ import annotations

import ctypes
import os
import random
import signal
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import FIRST_COMPLETED, Future
from concurrent.futures import wait as wait_for_any
from multiprocessing.connection import wait
from typing import Any, Self

import mpqueue
from mpqueue import Executor, ItemTimeoutError, JobRun, JobStatus, RetryPolicy, SetupError, WorkerCrashedError
from mpqueue.errors import ItemCancelledError
from tests.chaos.arena import Arena, random_policy
from tests.chaos.audit import Struck
from tests.chaos.deeds import CRASHES, RAISES, Deed, Doer, array_of, is_right


def easy_deed(rng: random.Random, number: int) -> Deed:
    """A deed without a timeout and with an end."""
    if rng.random() < 0.05:
        return Deed(number, rng.choice([*RAISES, *CRASHES]), rng.choice((1, 2, 1000)))
    kind = rng.choice(("quick", "quick", "quick", "nap", "array", "carry"))
    amount = int(10 ** rng.uniform(2, 4 if kind == "nap" else 6))
    return Deed(number, kind, amount=amount, cargo=array_of(number, amount) if kind == "carry" else None)


def is_right_outcome(deed: Deed, outcome: Any, struck: Struck, tries: int) -> bool:
    """Whether an item may have ended so: with this result, or this exception."""
    if not isinstance(outcome, BaseException):
        number, attempt, content = outcome
        return bool(number == deed.id and is_right(deed, content) and 1 <= attempt <= tries)
    error: BaseException = outcome
    if isinstance(error, SetupError):
        error = error.__cause__ or error  # loading the handler, it was struck
    if isinstance(error, WorkerCrashedError):
        return deed.kind in CRASHES or bool(struck.signals.get(error.pid or 0))
    return isinstance(error, ItemCancelledError) or (deed.kind in RAISES and not isinstance(error, ItemTimeoutError))


# --- calls ----------------------------------------------------------------------------------------------------------


class CallDriver:
    """An executor from its start to its end, driven by one thread."""

    def __init__(self, rng: random.Random, arena: Arena, struck: Struck) -> None:
        self._rng = rng
        self._arena = arena
        self._struck = struck
        self._policy = random_policy(rng)
        self._calls: dict[Future[Any], Deed] = {}  #: what was submitted, and has not been heard of
        self._count = 0
        self._way = "open"
        self._doer = Doer(f"{arena.log}-calls")
        self._executor = Executor(
            rng.choice((1, 2)), max_tasks_per_child=rng.choice((None, None, 40)), retry=self._policy
        )

    def describe(self) -> str:
        """What it waits for."""
        return f"for calls of an executor: {self._way}, {self._count} submitted, {len(self._calls)} not heard of"

    def drive(self, stop: threading.Event) -> None:
        """Submit, take and cancel at random; then end it in one way or another, and hear the rest."""
        rng, rounds = self._rng, self._rng.choice((1, 3, 10, 40))
        while rounds and not stop.is_set():
            rounds -= 1
            self.add(rng.choice((0, 1, 5, 50, 100)))
            if rng.random() < 0.3 and self._calls:
                rng.choice(list(self._calls)).cancel()
            while len(self._calls) > rng.choice((0, 10, 200)):
                self.hear()
        self.end(rng.choice(("shut down", "shut down", "cancelled", "killed")))

    def add(self, size: int) -> None:
        """Submit so many."""
        for _ in range(size):
            deed = easy_deed(self._rng, self._count)
            self._calls[self._executor.submit(self._doer, deed)] = deed
            self._count += 1

    def hear(self) -> None:
        """Take what has ended, once there is anything."""
        done, _ = wait_for_any(self._calls, return_when=FIRST_COMPLETED)
        for future in done:
            self._arena.pulse.beat()
            deed = self._calls.pop(future)
            if future.cancelled():
                continue
            outcome = future.exception() or future.result()
            if not is_right_outcome(deed, outcome, self._struck, self._policy.max_retries + 1):
                self._arena.complain(f"{deed.kind} {deed.id} of an executor ended with {outcome!r:.200}")

    def end(self, way: str) -> None:
        """End it in this way, and hear the rest."""
        self._way = way
        if way == "killed":
            self._executor.kill_workers()
        else:
            self._executor.shutdown(wait=False, cancel_futures=way == "cancelled")
        while self._calls:
            self.hear()
        self._executor.shutdown()


# --- the others -----------------------------------------------------------------------------------------------------


def read_imap(rng: random.Random, arena: Arena, struck: Struck) -> None:
    """`mpqueue.imap` over some items, read to the end or left in the middle."""
    size = rng.choice((1, 20, 300))
    leave_at = rng.choice((None, None, rng.randrange(size)))
    deeds = [easy_deed(rng, number) for number in range(size)]
    policy = random_policy(rng)
    results: Iterator[Any] = mpqueue.imap(
        Doer(f"{arena.log}-imap"), deeds, concurrency=rng.choice((1, 2)), retry=policy, on_error="collect"
    )
    for deed in deeds:
        if deed.id == leave_at:
            results.close()  # type: ignore[attr-defined]
            return
        outcome = next(results)
        arena.pulse.beat()
        if not is_right_outcome(deed, outcome, struck, policy.max_retries + 1):
            arena.complain(f"imap: {deed.kind} {deed.id} gave {outcome!r:.200}")
    if next(results, None) is not None:
        arena.complain("imap gave more than there was")


def run_at_once(rng: random.Random, arena: Arena) -> None:
    """`queue.run`, of items that can't fail unless they are struck."""
    deeds = [Deed(number, "quick") for number in range(rng.choice((1, 10, 100)))]
    job = arena.queue.run(deeds, Doer(f"{arena.log}-run"), retry=RetryPolicy(3, base_delay=0.0))
    for deed, item in zip(deeds, job.items, strict=True):
        if item.result is not None and item.result[0] != deed.id:
            arena.complain(f"run: item {deed.id} gave {item.result}")
    if job.completed + job.failed < job.total and job.status is not JobStatus.CANCELLED:
        arena.complain(f"run: {job} is not over")


#: Seconds that a child may take to look. A fork that Python was not told of may wait for its lock for ever.
LONGEST_LOOK = 20


def fork_and_look(rng: random.Random, arena: Arena) -> None:
    """A child of this process keeps a job's arrays, which this process drops; then other jobs bring others."""
    deeds = [Deed(number, "array", amount=int(10 ** rng.uniform(4.6, 6))) for number in rng.sample(range(1000), 20)]
    job = arena.queue.run(deeds, Doer(f"{arena.log}-run"), retry=RetryPolicy(3, base_delay=0.0))
    arrays = [(deed, item.result[2]) for deed, item in zip(deeds, job.items, strict=True) if item.result is not None]
    with _Looking(arrays, by_python=rng.random() < 0.5) as looking:
        arrays.clear()
        arena.queue.clear_job(job.id)
        del job
        for _ in range(3):
            arena.pulse.beat()
            others = [
                Deed(number, "array", amount=int(10 ** rng.uniform(4.6, 6))) for number in rng.sample(range(1000), 20)
            ]
            other = arena.queue.run(others, Doer(f"{arena.log}-run"), retry=RetryPolicy(3, base_delay=0.0))
            arena.queue.clear_job(other.id)
            del other
    if looking.wrong:
        arena.complain(f"a fork of this process saw {looking.wrong} of 20 arrays wrong")


class _Looking:
    """A fork that keeps some arrays, and compares them with what they were when the ``with`` block ends.

    What runs in it keeps the interpreter's lock, see `fork_and_look`.
    """

    def __init__(self, arrays: list[tuple[Deed, Any]], *, by_python: bool) -> None:
        libc = ctypes.PyDLL(None)
        parts = [
            (ctypes.c_void_p(array.ctypes.data), bytes([deed.id % 251]) * deed.amount, ctypes.c_size_t(deed.amount))
            for deed, array in arrays
        ]
        buffer, self.wrong = ctypes.create_string_buffer(1), 0
        read, self._go = os.pipe()
        self._pid = os.fork() if by_python and sys.version_info < (3, 12) else libc.fork()
        if self._pid == 0:
            libc.close(self._go)
            libc.read(read, buffer, 1)  # returns at its end
            libc._exit(sum(1 for part in parts if libc.memcmp(*part)))
        os.close(read)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self._go)
        pidfd = os.pidfd_open(self._pid)
        if not wait([pidfd], LONGEST_LOOK):
            os.kill(self._pid, signal.SIGKILL)
        os.close(pidfd)
        self.wrong = max(0, os.waitstatus_to_exitcode(os.waitpid(self._pid, 0)[1]))


def iterate(arena: Arena, run: JobRun) -> None:
    """`run.as_completed`: each item that ended, once."""
    seen: set[Any] = set()
    for item in run.as_completed():
        arena.pulse.beat()
        if item.id in seen:
            arena.complain(f"as_completed of {run.job.id} gave {item.id} twice")
        seen.add(item.id)
    if len(seen) < run.job.completed and run.done():
        arena.complain(f"as_completed of {run.job.id} gave {len(seen)} of {run.job.completed} items")
