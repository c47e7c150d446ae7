"""The events that listeners get: `JobStarted`, `JobProgress`, `JobFinished`, `ItemRetry`, each with its wire form.

The wire form (`to_dict`) has camelCase keys and milliseconds as whole numbers; keys that are unset are absent.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any

from mpqueue.errors import typed
from mpqueue.status import JobStatus

if TYPE_CHECKING:
    from mpqueue._queue.job_items import Items, JobItem

__all__ = [
    "EVENT_NAMES",
    "ITEM_RETRY",
    "JOB_FINISHED",
    "JOB_PAUSED",
    "JOB_PROGRESS",
    "JOB_RESUMED",
    "JOB_STARTED",
    "ItemRetry",
    "JobFinished",
    "JobProgress",
    "JobStarted",
]

JOB_STARTED = "job:started"
JOB_PROGRESS = "job:progress"
JOB_FINISHED = "job:finished"
JOB_PAUSED = "job:paused"
JOB_RESUMED = "job:resumed"
ITEM_RETRY = "item:retry"

EVENT_NAMES = frozenset({JOB_STARTED, JOB_PROGRESS, JOB_FINISHED, JOB_PAUSED, JOB_RESUMED, ITEM_RETRY})


def milliseconds(seconds: float) -> int:
    """Seconds as whole milliseconds, the unit of the wire form."""
    return round(seconds * 1000)


@dataclass(frozen=True, slots=True)
class JobStarted:
    """``job:started``: a job began."""

    job_id: str

    def to_dict(self) -> dict[str, Any]:
        """The wire form."""
        return {"jobId": self.job_id}


@dataclass(frozen=True, slots=True)
class JobProgress:
    """``job:progress``: an item completed or failed (``item``); ``job:paused`` and ``job:resumed`` (``item=None``).

    Counters, status and ``item`` are as of the event. ``items`` is a live, read-only view until `to_dict` writes it
    out, so that the cost of an event does not grow with the job.
    """

    job_id: str
    status: JobStatus
    total: int
    completed: int
    failed: int
    paused: bool
    items: Items
    item: JobItem | None = None

    def to_dict(self) -> dict[str, Any]:
        """The wire form, with all items: costs about 1 us per item."""
        return {
            "jobId": self.job_id,
            "status": str(self.status),
            "total": self.total,
            "completed": self.completed,
            "failed": self.failed,
            "paused": self.paused,
            "items": [_progress_form(item) for item in self.items],
        }


_made: Any = object.__new__
_job_id, _status, _total, _completed, _failed, _paused, _items, _item = (
    vars(JobProgress)[entry.name].__set__ for entry in fields(JobProgress)
)


def item_progress(
    job_id: str, status: JobStatus, total: int, completed: int, failed: int, items: Items, item: JobItem
) -> JobProgress:
    """The event of an item that ended, in half the time of `JobProgress`, whose frozen fields are set slowly."""
    made: JobProgress = _made(JobProgress)
    _job_id(made, job_id)
    _status(made, status)
    _total(made, total)
    _completed(made, completed)
    _failed(made, failed)
    _paused(made, status is JobStatus.PAUSED)
    _items(made, items)
    _item(made, item)
    return made


@dataclass(frozen=True, slots=True)
class JobFinished:
    """``job:finished``: a job ended. ``duration`` is seconds since its start, 0 if it never started."""

    job_id: str
    status: JobStatus
    completed: int
    failed: int
    duration: float

    def to_dict(self) -> dict[str, Any]:
        """The wire form."""
        return {
            "jobId": self.job_id,
            "status": str(self.status),
            "completed": self.completed,
            "failed": self.failed,
            "duration": milliseconds(self.duration),
        }


@dataclass(frozen=True, slots=True)
class ItemRetry:
    """``item:retry``: try number ``attempt`` of an item failed, the next one starts in ``delay`` seconds."""

    job_id: str
    item: JobItem
    attempt: int
    delay: float
    message: str
    error_type: str

    @property
    def error(self) -> str:
        """The error's type and text: ``KeyError: 'height'``."""
        return typed(self.error_type, self.message)

    def to_dict(self) -> dict[str, Any]:
        """The wire form."""
        return {
            "jobId": self.job_id,
            "item": _progress_form(self.item),
            "attempt": self.attempt,
            "delay": milliseconds(self.delay),
            "error": self.message,
            "errorType": self.error_type,
        }


def _progress_form(item: JobItem) -> dict[str, Any]:
    """An item's wire form inside an event, the same as the seed's: without ``attempts``."""
    wire = item.to_dict()
    del wire["attempts"]
    return wire
