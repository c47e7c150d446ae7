"""Hears every event of one queue, and objects at once to what contradicts what it has heard before."""

from __future__ import annotations

import random
import threading
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from mpqueue import ItemRetry, JobFinished, JobProgress, JobQueue, JobStarted, JobStatus
from mpqueue.events import (
    EVENT_NAMES,
    ITEM_RETRY,
    JOB_FINISHED,
    JOB_PAUSED,
    JOB_PROGRESS,
    JOB_RESUMED,
    JOB_STARTED,
)

Object = Callable[[str], None]


@dataclass
class Told:
    """What was told of one job."""

    runs: int = 0  #: how often it started
    finished: int = 0
    running: bool = False
    paused: bool = False
    completed: int = 0
    failed: int = 0
    left_failed: int = 0  #: items that stay failed when the job is started again
    ended: set[Any] = field(default_factory=set)  #: the items that ended in this run
    retries: Counter[Any] = field(default_factory=Counter)  #: in this run
    all_completed: set[Any] = field(default_factory=set)
    last: JobFinished | None = None


class Witness:
    """Listens to a queue from now on; ``merges`` says that its queue merges progress."""

    def __init__(self, queue: JobQueue, objection: Object, *, merges: bool) -> None:
        self.jobs: dict[str, Told] = {}
        self.events = 0
        self._object = objection
        hears: dict[str, Callable[[Told, Any], None]] = {
            JOB_STARTED: self._started,
            JOB_PROGRESS: self._merged if merges else self._progress,
            JOB_FINISHED: self._finished,
            JOB_PAUSED: self._paused,
            JOB_RESUMED: self._resumed,
            ITEM_RETRY: self._retried,
        }
        assert hears.keys() == EVENT_NAMES
        for name, hear in hears.items():
            queue.on(name, partial(self._hear, name, hear))

    def of(self, job_id: str) -> Told:
        """What was told of that job."""
        return self.jobs.setdefault(job_id, Told())

    def _hear(self, name: str, hear: Callable[[Told, Any], None], event: Any) -> None:
        self.events += 1
        told = self.of(event.job_id)
        try:
            hear(told, event)
        except AssertionError as error:
            self._object(f"{name} of {event.job_id}: {error.args}; {told.__dict__}; {event}")

    # --- what is heard ----------------------------------------------------------------------------------------------

    def _started(self, told: Told, event: JobStarted) -> None:
        assert not told.running, "a job started twice"
        told.runs += 1
        told.running = True
        told.failed, told.left_failed = told.left_failed, 0  # what had failed is tried again, or some of it
        told.ended.clear()
        told.retries.clear()

    def _progress(self, told: Told, event: JobProgress) -> None:
        assert told.running, "progress outside of a run"
        assert event.completed + event.failed == told.completed + told.failed + 1, "not one item more"
        assert (event.completed, event.failed) >= (told.completed, 0), "a counter fell"
        assert event.failed >= told.failed, "a counter fell"
        assert event.status in (JobStatus.RUNNING, JobStatus.PAUSED)
        assert event.paused == (event.status is JobStatus.PAUSED)
        assert event.item is not None
        assert event.item.id not in told.ended, f"item {event.item.id} ended twice"
        assert event.item.id not in told.all_completed, f"item {event.item.id} had completed before"
        told.ended.add(event.item.id)
        if event.completed > told.completed:
            told.all_completed.add(event.item.id)
        told.completed, told.failed = event.completed, event.failed

    def _merged(self, told: Told, event: JobProgress) -> None:
        assert told.running, "progress outside of a run"
        assert event.item is None
        assert event.completed + event.failed > told.completed + told.failed, "nothing new"
        assert event.completed >= told.completed, "a counter fell"
        assert event.failed >= told.failed, "a counter fell"
        told.completed, told.failed = event.completed, event.failed

    def _finished(self, told: Told, event: JobFinished) -> None:
        assert told.running or (event.status is JobStatus.CANCELLED and told.runs == 0), "finished without a start"
        assert event.status.final
        assert (event.completed, event.failed) == (told.completed, told.failed), "the counters of the last progress"
        told.running = told.paused = False
        told.finished += 1
        told.last = event

    def _paused(self, told: Told, event: JobProgress) -> None:
        assert told.running, "paused outside of a run"
        assert not told.paused, "paused twice"
        assert event.paused
        assert event.item is None
        told.paused = True

    def _resumed(self, told: Told, event: JobProgress) -> None:
        assert told.running, "resumed outside of a run"
        assert told.paused, "resumed twice"
        assert not event.paused
        told.paused = False

    def _retried(self, told: Told, event: ItemRetry) -> None:
        assert told.running, "a retry outside of a run"
        assert event.item.id not in told.ended, f"item {event.item.id} is retried after its end"
        told.retries[event.item.id] += 1
        assert event.attempt == told.retries[event.item.id], "attempts are counted one by one"
        assert event.item.attempts == event.attempt
        assert event.delay >= 0


class SlowListener:
    """Delays everything that is told after it, now and then."""

    def __init__(self, rng: random.Random) -> None:
        self._rng = rng

    def __call__(self, event: Any) -> None:
        if self._rng.random() < 0.02:
            threading.Event().wait(self._rng.random() * 0.03)


class RaisingListener:
    """Raises, now and then."""

    def __init__(self, rng: random.Random) -> None:
        self._rng = rng

    def __call__(self, event: Any) -> None:
        if self._rng.random() < 0.05:
            raise RuntimeError("this listener raises, as it should")
