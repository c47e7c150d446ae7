"""The failed items of a job, by the type and the place of their errors."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from mpqueue._core.state.item_table import ItemTable
from mpqueue._live_page.page_json import cut
from mpqueue._live_page.served import ShownJob
from mpqueue._output.failure_groups import FailureGroup, groups_of

#: Groups that are shown.
MOST = 50
#: How many times longer than it took to make, a list is kept that may be out of date.
KEPT = 6


@dataclass(frozen=True, slots=True)
class _Made:
    """The groups as they were at one moment."""

    table: ItemTable
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

    def told(self) -> dict[str, Any]:
        """The groups, the largest first, and how many items are in all of them, as JSON has it."""
        groups = self._groups(self._job.table)
        shown = [
            {
                "key": _key_of(group),
                "errorType": group.error_type if group.stage is None else f"{group.error_type} in {group.stage}",
                "place": group.place,
                "message": cut(group.message),
                "count": group.count,
                "first": group.items[0].label,
            }
            for group in groups[:MOST]
        ]
        return {"failed": sum(group.count for group in groups), "groups": shown}

    def members(self, key: str, table: ItemTable | None = None) -> Sequence[int]:
        """The indices of the table's items of that group; none where there is no such group (any more).

        By default the table is the one that the job has now.
        """
        groups = self._groups(self._job.table if table is None else table)
        return [item._index for group in groups if _key_of(group) == key for item in group.items]

    def _groups(self, table: ItemTable) -> list[FailureGroup]:
        job = self._job
        of: Any = (job.epoch, job.failed, job.retries)
        with self._lock:
            made = self._made
            is_old = made is None or (made.of != of and self._now() > made.at + KEPT * made.cost)
            if made is None or is_old or made.table is not table:
                begun = self._now()
                groups = groups_of(table)
                now = self._now()
                made = self._made = _Made(table, of, now, now - begun, groups)
        return made.groups


def _key_of(group: FailureGroup) -> str:
    return "@".join([group.error_type, group.place or "", group.stage or ""])
