"""The statuses of jobs and items: the strings of the wire form, exactly.

An item's status is kept as one byte in a column; `ITEM_CODES` is the only place where bytes and names meet.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

__all__ = [
    "ItemStatus",
    "JobStatus",
    "Pruned",
    "QueueStats",
]


class JobStatus(StrEnum):
    """The state of a job. The last three are final."""

    PENDING = "pending"  #: created, not started
    RUNNING = "running"  #: started, items are being dispatched
    PAUSED = "paused"  #: no new item starts until it is resumed
    COMPLETED = "completed"  #: every item completed
    COMPLETED_WITH_ERRORS = "completed_with_errors"  #: every item ended, at least one failed
    CANCELLED = "cancelled"  #: cancelled while it was pending, running or paused

    @property
    def final(self) -> bool:
        """True for a job that has ended."""
        return self in _FINAL


class JobKind(StrEnum):
    """The kind of a job, as a journal has it."""

    LIST = "list"
    OPEN = "open"
    STREAM = "stream"
    STAGES = "stages"


class ItemStatus(StrEnum):
    """The state of an item."""

    PENDING = "pending"  #: not started, or handed back before its start
    PROCESSING = "processing"  #: a worker runs it now: read from the worker, never stored
    COMPLETED = "completed"  #: its result is available
    FAILED = "failed"  #: its last try failed
    RETRY = "retry"  #: a try failed, the next one is due later


_FINAL = frozenset({JobStatus.COMPLETED, JobStatus.COMPLETED_WITH_ERRORS, JobStatus.CANCELLED})

#: The states of a job that ended by itself.
OVER = frozenset({JobStatus.COMPLETED, JobStatus.COMPLETED_WITH_ERRORS})

#: Item statuses by their byte in the status column.
ITEM_CODES: tuple[ItemStatus, ...] = tuple(ItemStatus)
PENDING, PROCESSING, COMPLETED, FAILED, RETRY = range(len(ITEM_CODES))


@dataclass(frozen=True, slots=True)
class Pruned:
    """The jobs, items and bytes that `JobQueue.prune` has taken out of a journal."""

    jobs: int  #: removed completely
    items: int  #: no longer in their jobs' lists of items
    bytes: int  #: saved in the journal and its files; 0 if none


@dataclass(frozen=True, slots=True)
class QueueStats:
    """The numbers of a queue's jobs by state."""

    running: int  #: running or paused
    pending: int  #: not yet started
    completed: int  #: in any of the final states
    total: int

    def _repr_html_(self) -> str:
        """Return a table for notebooks."""
        names = ("running", "pending", "completed", "total")
        head = "".join(f"<th>{name}</th>" for name in names)
        line = "".join(f"<td>{getattr(self, name):,}</td>" for name in names)
        return f"<table><thead><tr>{head}</tr></thead><tbody><tr>{line}</tr></tbody></table>"
