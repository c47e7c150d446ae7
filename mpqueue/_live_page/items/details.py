"""One item, with all that is known of it: what the page shows when it is opened."""

from __future__ import annotations

from typing import Any

from mpqueue._core.state.item_table import ItemTable
from mpqueue._live_page.page_json import cut, result_of, short_repr, shows_picture
from mpqueue._live_page.served import ShownJob
from mpqueue._queue.job_items import JobItem, as_json
from mpqueue._text import json_text

#: Characters of each text.
MOST = 100_000


def details_of(book: ShownJob, table: ItemTable, index: int) -> dict[str, Any]:
    """As JSON has it; the table is the job's.

    Costs what the ``repr`` of the item and of its result cost; users' code may run in these.
    """
    item: JobItem = JobItem(table, index)
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
    return details | {name: cut(text, MOST) for name, text in texts.items() if text}


def _as_text(value: Any) -> str:
    """As JSON over several lines where it is of plain containers and short, else its ``repr``."""
    if isinstance(value, str):
        return value
    brief = short_repr(value, MOST)
    if isinstance(value, dict | list | tuple) and "..." not in brief:
        try:
            return json_text(value, indent=2, allow_nan=False)
        except Exception:  # noqa: BLE001 - json asks what may raise anything
            return brief
    return brief
