"""What to look at when something hangs: who waits for what, the queues' jobs, the workers, all stacks."""

from __future__ import annotations

import sys
import threading
import traceback
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

from mpqueue import ItemStatus, Job, JobQueue
from tests.chaos.workers import workers

#: So many items of a job are named.
SOME = 20


def show_everything(what: str, queues: Mapping[str, JobQueue], waits: Iterable[str], acts: Iterable[str] = ()) -> None:
    """Print all of it to standard error: the queues by name, and what each thread that is not through waits for."""
    out = sys.__stderr__
    assert out is not None
    print(*acts, f"\n=== {what}: it hangs ===", *waits, sep="\n", file=out)
    for name, queue in queues.items():
        print(*describe(name, queue), sep="\n", file=out)
    print("--- workers", *map(_process, workers()), sep="\n  ", file=out)
    print(*stacks(), sep="\n", file=out)
    out.flush()


def describe(name: str, queue: JobQueue) -> Iterator[str]:
    """A queue, and its jobs that are not over."""
    yield f"--- {name}"
    yield f"    {queue.get_stats()}, for {queue.concurrency} workers"
    yield from (f"  {_job(job)}" for job in queue.jobs() if not job.status.final)


def _job(job: Job) -> str:
    left = [item for item in job.items if item.status not in (ItemStatus.COMPLETED, ItemStatus.FAILED)]
    some = ", ".join(f"{item.id} {item.status} after {item.attempts}" for item in left[:SOME])
    return f"{job!r} paused={job.paused} cancelled={job.cancelled}, {len(left)} have not ended: {some}"


def stacks() -> Iterator[str]:
    """Where each thread is."""
    names = {thread.ident: thread.name for thread in threading.enumerate()}
    for ident, frame in sys._current_frames().items():
        yield f"--- thread {names.get(ident, ident)}"
        yield from (line.rstrip() for line in traceback.format_stack(frame))


def _process(pid: int) -> str:
    try:
        stat = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
        return f"pid {pid} {stat.rpartition(')')[2].split()[0]}"
    except OSError:
        return f"pid {pid} gone"
