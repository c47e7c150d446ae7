"""One item with all its facts, which the page shows when it is opened.

While it runs, these include its worker, that process's CPU seconds and memory, and the end of the item's output so far.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from mpqueue._core.state.item_table import ItemTable
from mpqueue._live_page.page_json import cut, result_of, short_repr, shows_picture
from mpqueue._live_page.served import ShownJob
from mpqueue._os.process.process_facts import end_of_file, use_of
from mpqueue._parent.running import LaneNow
from mpqueue._queue.job_items import JobItem, as_json
from mpqueue._text import json_text
from mpqueue.events import milliseconds
from mpqueue.status import COMPLETED, FAILED

#: The most characters of each text.
MOST = 100_000
#: The most bytes of output that are shown while an item runs.
MOST_OUTPUT = 8_000


class LiveItem(NamedTuple):
    """A running item: its lane, and the sources of further facts."""

    lane: LaneNow
    is_here: bool  #: its worker is a process of this machine
    keeps_output: bool  #: its item's output goes into a file for that item only
    offset: float  #: add it to moments of the monotonic clock to get seconds since the epoch


def details_of(book: ShownJob, table: ItemTable, index: int, live: LiveItem | None) -> dict[str, Any]:
    """Return an item's details for JSON; the table is the job's, and ``live`` is where it runs, if known.

    The cost is the ``repr`` of the item and of its result, which may run users' code.
    """
    item: JobItem = JobItem(table, index)
    is_under_way = table.status[index] not in (COMPLETED, FAILED)  # first: it may end meanwhile
    completed = item.status == "completed"
    details: dict[str, Any] = {
        "jobId": book.id,
        "index": index,
        "id": as_json(item.id),
        "label": item.label,
        "status": str(item.status),
        "attempts": item.attempts,
        "mostAttempts": book.options.retry.max_retries + 1,
        "elapsed": round(item.elapsed, 6),
        "cpu": item.cpu_seconds,
        "peakMemory": item.peak_memory,
        "fraction": item.fraction,
        "keepsOutput": book.options.capture_output,
        "payload": short_repr(item.payload, MOST),
        "history": [
            {
                "error": cut(tried.error, MOST),
                "duration": round(tried.duration, 6),
                "pid": tried.pid,
            }
            for tried in item.history
        ],
    }
    texts = {"error": item.error, "traceback": item.traceback, "stdout": item.stdout, "stderr": item.stderr}
    if completed:
        result = result_of(table, index)
        texts["result"] = _as_text(result)
        details["picture"] = shows_picture(result)
        details["resultType"] = type(result).__name__
    if live is not None and is_under_way and details["status"] == "processing":
        details["live"] = _as_it_runs(live)
    return details | {name: cut(text, MOST) for name, text in texts.items() if text}


def _as_it_runs(item: LiveItem) -> dict[str, Any]:
    """Return for JSON the facts of an item while it runs. Costs 0.1 ms: it reads in /proc."""
    lane = item.lane
    told: dict[str, Any] = {
        "worker": lane.number,
        "pid": lane.pid,
        "since": milliseconds(lane.since + item.offset),
        "fraction": round(lane.fraction, 4),
    }
    if not item.is_here or lane.pid is None:
        return told
    use = use_of(lane.pid)
    if use is not None:
        told |= {"workerCpu": use.cpu, "memory": use.memory}
    for name, descriptor in (("stdout", 1), ("stderr", 2)) if item.keeps_output else ():
        # A zero byte precedes this item's output, if others have written to the file, see `captured_file`.
        written = (end_of_file(lane.pid, descriptor, MOST_OUTPUT) or b"").rpartition(b"\0")[2]
        if written:
            told[name] = written.decode(errors="replace")
    return told


def _as_text(value: Any) -> str:
    """Return short plain containers as JSON over several lines, texts as they are, and all other values as ``repr``."""
    if isinstance(value, str):
        return value
    brief = short_repr(value, MOST)
    if isinstance(value, dict | list | tuple) and "..." not in brief:
        try:
            return json_text(value, indent=2, allow_nan=False)
        except Exception:  # noqa: BLE001 - json asks what may raise anything
            return brief
    return brief
