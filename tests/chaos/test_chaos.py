"""Workers killed at random moments, while jobs are started, paused, resumed and cancelled: the books must balance."""

from __future__ import annotations

import contextlib
import queue as queues
import random
import signal
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import pytest

from mpqueue import (
    ItemStatus,
    Job,
    JobQueue,
    JobRun,
    JobStateError,
    ResultPicklingError,
    RetryPolicy,
    SetupError,
    WorkerCrashedError,
    current_item,
)
from tests.chaos.postmortem import show_everything
from tests.chaos.striker import choose
from tests.chaos.workers import strike
from tests.support import handlers as do
from tests.support.recorder import Recorder
from tests.support.strength import workers_of

pytestmark = pytest.mark.slow

#: Seconds that what is left to do may take after the last kill.
PATIENCE = 90.0

POLICY = RetryPolicy(max_retries=3, base_delay=0.01, jitter=0.5)
WORKERS = 3
#: Jobs under way at a time, at most.
JOBS = 6


@dataclass(frozen=True)
class Kind:
    """A kind of job: its handler, what each item has to become, and how it may fail beside being killed."""

    handler: Callable[..., Any]
    result: Callable[[int], Any]
    setup: Callable[[], Any] | None = None
    fails: Callable[[int], bool] = lambda item: False
    error: type[BaseException] = ValueError
    most_items: int = 3000


def treble(item: int) -> int:
    return item * 3


def treble_slowly(item: int) -> int:
    end = time.monotonic() + (item % 10) / 1000
    while time.monotonic() < end:
        pass
    return item * 3


def treble_unless_seventh(item: int) -> int:
    if item % 7 == 0:
        raise ValueError(item)
    return item * 3


def treble_at_second(item: int) -> int:
    if item % 5 == 0 and current_item().attempt == 1:
        raise ValueError(item)
    return item * 3


def treble_or_die_first(item: int) -> int:
    if item % 11 == 0 and current_item().attempt == 1:
        do.kill_self(item)
    return item * 3


async def treble_later(item: int) -> int:
    return item * 3


def multiply(item: int, factor: int) -> int:
    return item * factor


def set_up() -> Iterator[int]:
    yield 3


def fill(item: int) -> bytes:
    return bytes([item % 256]) * (item * 1000)


def treble_or_lock(item: int) -> Any:
    return do.return_lock(item) if item % 13 == 0 else item * 3


KINDS = {
    "tiny": Kind(treble, treble),
    "slow": Kind(treble_slowly, treble, most_items=150),
    "failing": Kind(treble_unless_seventh, treble, fails=lambda item: item % 7 == 0, most_items=200),
    "better later": Kind(treble_at_second, treble, most_items=200),
    "suicidal": Kind(treble_or_die_first, treble, most_items=60),
    "coroutine": Kind(treble_later, treble),
    "set up": Kind(multiply, treble, setup=set_up),
    "big": Kind(fill, fill, most_items=400),
    "unpicklable": Kind(
        treble_or_lock, treble, fails=lambda item: item % 13 == 0, error=ResultPicklingError, most_items=300
    ),
}


class Chaos:
    """Does something at random, again and again, and keeps the books."""

    def __init__(self, queue: JobQueue, seed: int) -> None:
        self.queue = queue
        self.rng = random.Random(seed)
        self.recorder = Recorder(queue)
        self.did: Counter[str] = Counter()
        self.runs: dict[str, tuple[Kind, JobRun]] = {}
        self._happened: queues.SimpleQueue[None] = queues.SimpleQueue()
        for name in ("job:progress", "job:finished", "item:retry"):
            queue.on(name, lambda told: self._happened.put(None))

    def go_on(self, seconds: float) -> None:
        """Keep it up for so long."""
        actions = {
            self.start: 20,
            self.kill_worker: 10,
            self.pause: 15,
            self.resume: 20,
            self.cancel: 4,
            self.check_ended: 20,
        }
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            (act,) = self.rng.choices(list(actions), list(actions.values()))
            with contextlib.suppress(JobStateError):
                act()
                self.did[act.__name__] += 1
            self._wait_a_little()

    def _wait_a_little(self) -> None:
        """Until something has happened, or not that long."""
        with contextlib.suppress(queues.Empty):
            self._happened.get(timeout=self.rng.random() * 0.03)
            while True:
                self._happened.get_nowait()

    def start(self) -> None:
        """Start a job of any kind."""
        if len(self.runs) >= JOBS:
            return
        name, kind = self.rng.choice(list(KINDS.items()))
        job_id = f"{name} {sum(self.did.values())}"
        size = self.rng.randrange(kind.most_items)
        self.did["items"] += size
        self.queue.create_job(
            job_id,
            range(size),
            kind.handler,
            setup=kind.setup,
            priority=self.rng.choice([0, 0, 0, 1, -1]),
            chunksize=self.rng.choice([None, None, 1, 10, 1000]),
        )
        self.runs[job_id] = kind, self.queue.start(job_id)

    def kill_worker(self) -> None:
        """SIGKILL one of the workers, whatever it is at; seldom one that starts, else there are none for too long."""
        if pid := choose(self.rng):
            self.did["kills"] += strike(pid, signal.SIGKILL)

    def pause(self) -> None:
        if self.runs:
            self.queue.pause(self.rng.choice(list(self.runs)))

    def resume(self) -> None:
        if self.runs:
            self.queue.resume(self.rng.choice(list(self.runs)))

    def cancel(self) -> None:
        if self.runs:
            self.queue.cancel(self.rng.choice(list(self.runs)), kill=self.rng.random() < 0.5)

    def check_ended(self) -> None:
        """Look at the books of the jobs that have ended."""
        for job_id, (kind, run) in list(self.runs.items()):
            if run.done():
                self.check(kind, run.job)
                self.queue.clear_job(job_id)
                self.recorder.forget(job_id)
                del self.runs[job_id]

    def finish(self) -> None:
        """Let everything come to its end."""
        for job_id, (_, run) in self.runs.items():
            with contextlib.suppress(JobStateError):
                self.queue.resume(job_id)
            try:
                run.result(PATIENCE)
            except TimeoutError:
                show_everything(f"job {job_id}", {"the queue": self.queue}, ())
                raise
        self.check_ended()
        assert self.runs == {}

    def check(self, kind: Kind, job: Job) -> None:
        """Every item ended once, by handle and by event, as its kind has it or because a worker was killed."""
        self.recorder.check(job)
        for item in job.items:
            match item.status:
                case ItemStatus.COMPLETED:
                    assert item.result == kind.result(item.payload)
                    assert not kind.fails(item.payload)
                case ItemStatus.FAILED:
                    killed = isinstance(item.exception, WorkerCrashedError | SetupError)
                    assert killed or (kind.fails(item.payload) and isinstance(item.exception, kind.error)), (
                        item,
                        item.exception,
                    )
                    assert item.attempts <= POLICY.max_retries + 1
                case _:
                    assert item.status is ItemStatus.PENDING
                    assert job.cancelled


@pytest.mark.long
@pytest.mark.timeout(0)
def test_books_balance_whatever_is_killed_whenever(seed: int, seconds: float) -> None:
    with JobQueue(WORKERS, retry=POLICY) as queue:
        chaos = Chaos(queue, seed)
        chaos.go_on(seconds)
        chaos.finish()
        print(", ".join(f"{count} {name}" for name, count in sorted(chaos.did.items())))
        # And nothing of it has worn off: the pool is whole, and one more job ends well.
        assert len(workers_of(queue)) == WORKERS
        assert queue.run(range(1000), treble).results == [3 * item for item in range(1000)]
