"""What a queue told its listeners, in order; and whether that, the items and the counters tell the same story."""

from __future__ import annotations

from collections import Counter
from functools import partial
from typing import Any

from mpqueue import Job, JobQueue
from mpqueue.events import EVENT_NAMES, ITEM_RETRY, JOB_FINISHED, JOB_PROGRESS, JOB_STARTED
from mpqueue.status import ItemStatus
from tests.support.waiting import wait_until


class Recorder:
    """Listens to every event of a queue from now on."""

    def __init__(self, queue: JobQueue) -> None:
        self.events: list[tuple[str, Any]] = []
        self._of_job: dict[str, list[tuple[str, Any]]] = {}
        for name in sorted(EVENT_NAMES):
            queue.on(name, partial(self._note, name))

    def _note(self, name: str, payload: Any) -> None:
        self.events.append((name, payload))
        self._of_job.setdefault(payload.job_id, []).append((name, payload))

    def of(self, name: str, job_id: str | None = None) -> list[Any]:
        """The payloads of the events of that name, of one job or of all."""
        events = self.events if job_id is None else self._of_job.get(job_id, [])
        return [told for event, told in list(events) if event == name]

    def names(self, job_id: str) -> list[str]:
        """The names of all events of a job."""
        return [event for event, _ in self._of_job.get(job_id, [])]

    def forget(self, job_id: str) -> None:
        """Forget a job that has ended, where there are many."""
        self._of_job.pop(job_id, None)
        self.events = [(event, told) for event, told in self.events if told.job_id != job_id]

    def retries(self, job_id: str) -> list[tuple[Any, int]]:
        """(item's id, number of the failed try) of each ``item:retry``."""
        return [(told.item.id, told.attempt) for told in self.of(ITEM_RETRY, job_id)]

    def wait_for(self, name: str, count: int = 1, *, job_id: str | None = None) -> list[Any]:
        """Wait until so many events of that name have come; returns all of them."""
        wait_until(lambda: len(self.of(name, job_id)) >= count, what=f"{count} x {name}")
        return self.of(name, job_id)

    def check(self, job: Job) -> None:
        """Whatever happened to the job: every item ended once, and event, item and counter agree on how.

        For a job that was started once and has ended.
        """
        statuses = Counter(item.status for item in job.items)
        assert statuses[ItemStatus.COMPLETED] == job.completed
        assert statuses[ItemStatus.FAILED] == job.failed
        ended = {item.id: item.status for item in job.items if item.status in (ItemStatus.COMPLETED, ItemStatus.FAILED)}
        told = [(progress.item.id, progress.item.status) for progress in self.of(JOB_PROGRESS, job.id)]
        assert sorted(told, key=repr) == sorted(ended.items(), key=repr), "an event for each item that ended, and one"
        counts = [(progress.completed, progress.failed) for progress in self.of(JOB_PROGRESS, job.id)]
        assert [completed + failed for completed, failed in counts] == list(range(1, len(ended) + 1))
        self._check_ends(job)
        self._check_attempts(job)

    def _check_ends(self, job: Job) -> None:
        names = self.names(job.id)
        assert names.count(JOB_FINISHED) == 1
        assert names[-1] == JOB_FINISHED
        assert names.count(JOB_STARTED) == (job.started_at is not None)
        if job.started_at is not None:
            assert names[0] == JOB_STARTED
        finished = self.of(JOB_FINISHED, job.id)[0]
        assert (finished.status, finished.completed, finished.failed) == (job.status, job.completed, job.failed)

    def _check_attempts(self, job: Job) -> None:
        retries = Counter(item_id for item_id, _ in self.retries(job.id))
        for item in job.items:
            if item.status is ItemStatus.COMPLETED:
                assert item.error is None
                assert item.attempts == retries[item.id] + 1
            elif item.status is ItemStatus.FAILED:
                assert item.attempts - retries[item.id] in (0, 1)
            assert item.attempts >= retries[item.id]
