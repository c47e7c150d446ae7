"""Those who use results: streams, `imap`, `as_completed`, `run` and forks of this process, each checked as it goes."""

from __future__ import annotations

import ctypes
import os
import queue
import random
import signal
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import suppress
from multiprocessing.connection import wait
from typing import Any, Self

import mpqueue
from mpqueue import ItemTimeoutError, JobRun, JobStatus, QueueClosedError, RetryPolicy, SetupError, WorkerCrashedError
from mpqueue._core.state.item_table import Failure
from mpqueue._options import JobOptions
from mpqueue._queue.growing.stream import Stream, open_stream
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


def is_right_outcome(deed: Deed, result: Any, failure: Failure | None, struck: Struck, tries: int) -> bool:
    """Whether an item may have ended so."""
    if failure is None:
        number, attempt, content = result
        return bool(number == deed.id and is_right(deed, content) and 1 <= attempt <= tries)
    error = failure.error
    if isinstance(error, SetupError):
        error = error.__cause__ or error  # loading the handler, it was struck
    if isinstance(error, WorkerCrashedError):
        return deed.kind in CRASHES or bool(struck.signals.get(error.pid or 0))
    return isinstance(error, ItemCancelledError) or (deed.kind in RAISES and not isinstance(error, ItemTimeoutError))


# --- streams --------------------------------------------------------------------------------------------------------


class StreamDriver:
    """One stream from its opening to its end, driven by one thread."""

    def __init__(self, rng: random.Random, arena: Arena, struck: Struck, patience: float) -> None:
        self._rng = rng
        self._arena = arena
        self._struck = struck
        self._patience = patience
        self._news: queue.SimpleQueue[Sequence[int] | None] = queue.SimpleQueue()
        self._policy: RetryPolicy = random_policy(rng)
        self._deeds: dict[int, Deed] = {}  #: what was added and not taken
        self._count = 0
        self.over = False
        self._way = ""
        self._dropped: set[int] = set()
        self._stream: Stream = open_stream(
            arena.queue,
            Doer(f"{arena.log}-streams"),
            self._news.put,
            JobOptions(self._policy, chunksize=rng.choice((None, None, 1, 20)), max_lanes=rng.choice((None, 1))),
        )

    def describe(self) -> str:
        """What it waits for."""
        table = self._stream._table
        left = table.unfinished()
        tries = {index: (str(table.status[index]), table.attempts[index]) for index in left[:20]}
        state = f"{self._way or 'open'}, its queue is {'closing' if self._arena.closing else 'open'}"
        return (
            f"of queue {self._arena.number}: {state}, {self._count} added, "
            f"{len(self._deeds)} not heard of, {len(left)} not ended: {tries}, last news {self._news.qsize()}"
        )

    def drive(self, stop: threading.Event) -> None:
        """Add, take and drop at random; then end it in one way or another, and hear the rest."""
        rng, rounds = self._rng, self._rng.choice((1, 3, 10, 40))
        items_of_a_worker = self._arena.make["max_items_per_worker"]
        # Where each few items need a new worker, hundreds would take minutes.
        most = 12_000 if items_of_a_worker is None else 15 * items_of_a_worker
        while rounds and not self.over and not stop.is_set():
            rounds -= 1
            self._add(min(rng.choice((0, 1, 5, 50, 300)), most - self._count))
            if rng.random() < 0.3:
                self._drop()
            while len(self._deeds) > rng.choice((0, 10, 200)) and not self.over:
                self._hear()
        self._way = way = rng.choice(("seal", "seal", "cancel", "kill"))
        if way == "seal":
            self._stream.seal()
        else:
            self._stream.cancel(kill=way == "kill")
        while not self.over:
            self._hear()
        if self._deeds and way == "seal" and not self._arena.closing:
            self._arena.complain(f"a sealed stream ended without {len(self._deeds)} items")

    def _add(self, size: int) -> None:
        deeds = [easy_deed(self._rng, self._count + at) for at in range(size)]
        indices = self._stream.add(deeds)
        self._deeds.update(zip(indices, deeds, strict=True))
        self._count += size

    def _next_news(self) -> Sequence[int] | None:
        """What ended next. Where its queue's workers have time for nothing else, a stream is served late, but is."""
        while True:
            others = self._arena.witness.events
            try:
                return self._news.get(timeout=self._patience)
            except queue.Empty:
                if self._arena.witness.events == others:
                    self.over = True
                    raise AssertionError(f"a stream is silent: {self.describe()}") from None

    def _drop(self) -> None:
        if self._deeds:
            wanted = self._rng.sample(sorted(self._deeds), min(3, len(self._deeds)))
            with suppress(QueueClosedError):
                self._dropped.update(self._stream.drop_all(wanted, kill=self._rng.random() < 0.3))

    def _hear(self) -> None:
        indices = self._next_news()
        self._arena.pulse.beat()
        if indices is None:
            self.over = True
            return
        for index, outcome in zip(indices, self._stream.take_all(indices), strict=True):
            deed = self._deeds.pop(index, None)
            if deed is None:
                self._arena.complain(f"item {index} of a stream ended twice")
                continue
            failure = outcome if isinstance(outcome, Failure) else None
            tries = self._policy.max_retries + 1
            if not is_right_outcome(deed, outcome, failure, self._struck, tries) or (
                failure is not None and isinstance(failure.error, ItemCancelledError) and index not in self._dropped
            ):
                self._arena.complain(f"{deed.kind} {deed.id} of a stream ended with {failure or repr(outcome)[:100]}")


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
        failure = Failure(outcome) if isinstance(outcome, BaseException) else None
        if not is_right_outcome(deed, outcome, failure, struck, policy.max_retries + 1):
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

    What runs in it keeps the interpreter's lock, see `tests.chaos.deeds._fork_and_look`.
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
