"""The failed items of a job, by the type and the place of their errors."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from mpqueue._live_page.page_json import cut
from mpqueue._live_page.served import ShownJob
from mpqueue._output.failure_groups import FailureGroup
from mpqueue._queue.job import Job

#: Groups that are shown.
MOST = 50
#: How many times longer than it took to make, a list is kept that may be out of date.
KEPT = 6


@dataclass(frozen=True, slots=True)
class _Made:
    """The groups as they were at one moment."""

    of: Any
    at: float
    cost: float
    groups: list[FailureGroup]


class FailureList:
    """Of one job. Called on threads, several at a time. Costs some microseconds an item that failed."""

    def __init__(self, job: ShownJob, now: Callable[[], float]) -> None:
        self._job = job
        self._now = now
        self._lock = threading.Lock()
        self._made: _Made | None = None

    def forget(self) -> None:
        """There are no viewers: free what was kept."""
        self._made = None

    def told(self) -> list[dict[str, Any]]:
        """The groups, the largest first, as JSON has them."""
        return [
            {
                "key": _key_of(group),
                "errorType": group.error_type,
                "place": group.place,
                "message": cut(group.message),
                "count": group.count,
                "first": group.items[0].label,
            }
            for group in self._groups()[:MOST]
        ]

    def members(self, key: str) -> Sequence[int]:
        """The indices of the items of that group; none where there is no such group (any more)."""
        return [item._index for group in self._groups() if _key_of(group) == key for item in group.items]

    def _groups(self) -> list[FailureGroup]:
        job = self._job
        of: Any = (job.epoch, job.failed, job.retries)
        with self._lock:
            made = self._made
            if made is None or (made.of != of and self._now() > made.at + KEPT * made.cost):
                begun = self._now()
                groups = Job(job).failure_groups()
                now = self._now()
                made = self._made = _Made(of, now, now - begun, groups)
        return made.groups


def _key_of(group: FailureGroup) -> str:
    return f"{group.error_type}@{group.place or ''}"
