"""Two jobs side by side: their figures, and the items with different outcomes. Items are matched by their ids."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from typing import Any

from mpqueue._core.state.item_table import ItemTable
from mpqueue._live_page.job_feed import JobFeed
from mpqueue._live_page.page_json import cut, end_of
from mpqueue._queue.job_items import as_json
from mpqueue._report.figures import item_times
from mpqueue.errors import JournalError
from mpqueue.status import COMPLETED, FAILED

#: The most items with different outcomes that are shown.
MAX_DIFFERENCES = 100
#: An item whose duration changed by this factor, and by this many seconds, is slower or faster.
FACTOR, LEAST = 1.5, 0.01


def compare(one: JobFeed, other: JobFeed) -> dict[str, Any]:
    """Compare two jobs, for JSON. Costs a few microseconds per item; runs users' code, for the labels that are shown.

    ``items`` are those whose status differs, then those whose duration does, the largest difference first.
    """
    left, right = one.book.table, other.book.table
    places = {right.id_of(at): at for at in range(len(right))}
    pairs = [(at, there) for at in range(len(left)) if (there := places.pop(left.id_of(at), None)) is not None]
    changed, timed = [], []
    for a, b in pairs:
        if left.status[a] != right.status[b]:
            changed.append((a, b))
        elif left.status[a] in (COMPLETED, FAILED):
            short, long = sorted((left.elapsed[a], right.elapsed[b]))
            if long - short >= LEAST and long >= FACTOR * short:
                timed.append((a, b))
    timed.sort(key=lambda pair: -abs(left.elapsed[pair[0]] - right.elapsed[pair[1]]))
    slower = sum(right.elapsed[b] > left.elapsed[a] for a, b in timed)
    return {
        "runs": [_figures(one, left), _figures(other, right)],
        "matched": len(pairs),
        "only": [len(left) - len(pairs), len(right) - len(pairs)],
        "changed": len(changed),
        "slower": slower,
        "faster": len(timed) - slower,
        "items": [
            {"id": as_json(left.id_of(a)), "label": left.label_of(a), "runs": [_outcome(left, a), _outcome(right, b)]}
            for a, b in (changed + timed)[:MAX_DIFFERENCES]
        ],
    }


def jobs_like(job: JobFeed, others: Sequence[JobFeed]) -> list[int]:
    """Return the numbers of started jobs with the same handler, or with an id in common that is not a position.

    Reads the items of a journal's job if its handler is another. Costs 0.1 us per item.
    """
    handler, ids = job.book.timings.handler_name, frozenset(job.book.table.ids or ())
    return [
        one.book.number
        for one in others
        if one is not job
        and one.book.started_at is not None
        # The ids last: they may have to be read.
        and ((handler and one.book.timings.handler_name == handler) or (ids and not ids.isdisjoint(_ids_of(one))))
    ]


def _ids_of(job: JobFeed) -> Sequence[Hashable]:
    try:
        return job.book.table.ids or ()
    except JournalError:  # it has been removed
        return ()


def _outcome(table: ItemTable, index: int) -> dict[str, Any]:
    status = table.status[index]
    told, failure = end_of(table, index, status), table.failures.get(index)
    return told if status != FAILED or failure is None else told | {"error": cut(failure.shown)}


def _figures(job: JobFeed, table: ItemTable) -> dict[str, Any]:
    told = job.state() | {
        "cpu": sum(table.cpu) + table.cpu_gone,
        "peakMemory": max(table.peak, default=0) << 10,
    }
    if (times := item_times(table)) is not None:
        told |= {
            "itemSeconds": times.mean * times.items,
            "median": times.median,
            "p90": times.p90,
            "slowest": times.longest,
        }
    if job.book.duration is not None:
        told["duration"] = job.book.duration
    return told
