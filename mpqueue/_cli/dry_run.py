"""``mpqueue run --dry-run``: runs the first, middle and last item, and estimates the whole run."""

from __future__ import annotations

import pickle
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from mpqueue._cli.outputs import Tell
from mpqueue._cli.usage import Exit, coloured, say, usage_errors
from mpqueue._core.state.job_book import JobBook
from mpqueue._output.export import record_of
from mpqueue._queue.job import Job
from mpqueue._queue.job_items import JobItem
from mpqueue._text import counted, number, seconds, size, visible
from mpqueue.status import ItemStatus

#: The columns about the items that ran.
_COLUMNS = ("id", "item", "status", "elapsed", "peak_memory", "error")
#: The estimate if no item completed.
UNKNOWN = dict[str, Any].fromkeys(("elapsed", "setup", "workers", "at_a_time", "duration", "result_size"))
#: The least seconds of a setup that are mentioned.
WORTH_TELLING = 0.05


def some_of(items: Sequence[Any]) -> list[Any]:
    """Return the first, the middle and the last of the items; fewer if there are fewer."""
    return [items[at] for at in sorted({0, len(items) // 2, len(items) - 1})] if items else []


def at_a_time(job: Job, workers: int, resources: Mapping[str, int]) -> int:
    """Return how many of the job's items run at a time on that many workers, by their needs."""
    needs = job._book.needs if isinstance(job._book, JobBook) else None
    return workers if needs is None else min(workers, needs.most_at_a_time(workers, resources))


def say_estimate(
    job: Job, columns: Sequence[str] | None, total: int, workers: int, fitting: int, setup: bool, tell: Tell
) -> int:
    """Print how these items ended, and an estimate for all items and workers; returns the exit code.

    ``fitting``: how many items run at a time, by their needs. Raises UsageError for a column that no item has.
    """
    for item in job.items:
        say(f"{item.label}: ", *_told(item))
    done = [item for item in job.items if item.status is ItemStatus.COMPLETED]
    longest_setup = max((span.setup for span in job.report().figures.spans), default=0.0) if setup else 0.0
    estimate = _estimate(done, total, workers, fitting, longest_setup) if done else UNKNOWN
    if done:
        say(", ".join(_in_words(estimate, total, done)))
    with usage_errors("--", (ValueError,)):
        job.to_records(columns)
    say(f"dry run: {job.total} of {counted(total, 'item')} ran, nothing was written")
    items = [record_of(item, _COLUMNS) for item in job.items]
    tell({"total": total, "ran": job.total, "failed": job.failed, **estimate, "items": items}, None)
    return Exit.FAILED if job.failed else Exit.GOOD


def _told(item: JobItem) -> Iterator[str]:
    if item.status is not ItemStatus.COMPLETED:
        yield coloured("failed: ", "red")
        yield visible(str(item.error)).replace("\n", "\n    ")
        return
    yield seconds(item.elapsed)
    if item.peak_memory:
        yield f", {size(item.peak_memory)} of memory"


def _estimate(done: Sequence[JobItem], total: int, workers: int, fitting: int, setup: float) -> dict[str, Any]:
    """An estimate of a whole run: times in seconds, sizes in bytes."""
    each = sum(item.elapsed for item in done) / len(done)
    used, ran = min(workers, total), min(fitting, total)
    rounds = -(-total // ran) if total < 3 * ran else total / ran
    sizes = [one for one in (_size_of(item.result) for item in done) if one is not None]
    return {"elapsed": round(each, 6), "setup": round(setup, 6), "workers": used, "at_a_time": min(used, ran),
            "duration": round(each * rounds + setup, 6), "result_size": max(sizes, default=None)}  # fmt: skip


def _in_words(estimate: Mapping[str, Any], total: int, done: Sequence[JobItem]) -> Iterator[str]:
    slowest, quickest = max(item.elapsed for item in done), min(item.elapsed for item in done)
    spread = f" ({seconds(quickest)} to {seconds(slowest)})" if slowest > 1.5 * quickest else ""
    yield f"{seconds(estimate['elapsed'])} an item{spread}"
    if estimate["setup"] >= WORTH_TELLING:
        yield f"{seconds(estimate['setup'])} of setup for each worker"
    limit = f", {estimate['at_a_time']} at a time" if estimate["at_a_time"] < estimate["workers"] else ""
    whole = f"about {seconds(estimate['duration'])} for {number(total)} on {counted(estimate['workers'], 'worker')}"
    size_of_one = estimate["result_size"]
    yield f"{whole}{limit}" + ("" if size_of_one is None else f"; the result of one is {size(size_of_one)}")


def _size_of(result: Any) -> int | None:
    try:
        return len(pickle.dumps(result, protocol=pickle.HIGHEST_PROTOCOL))
    except Exception:  # noqa: BLE001 - a worker may be able to pickle it even if this process can't
        return None
