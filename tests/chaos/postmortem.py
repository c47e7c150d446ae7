"""What to look at when something hangs: who waits for what, the schedulers' books, the workers' states, all stacks."""

from __future__ import annotations

import sys
import threading
import traceback
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from mpqueue import JobQueue
from mpqueue._core.state.books import Books
from mpqueue._core.state.job_book import JobBook


def show_everything(what: str, queues: Mapping[str, JobQueue], waits: Iterable[str], acts: Iterable[str] = ()) -> None:
    """Print all of it to standard error: the queues by name, and what each thread that is not through waits for."""
    out = sys.__stderr__
    assert out is not None
    print(*acts, f"\n=== {what}: it hangs ===", *waits, sep="\n", file=out)
    for name, queue in queues.items():
        print(*describe(name, queue), sep="\n", file=out)
    print(*stacks(), sep="\n", file=out)
    out.flush()


def describe(name: str, queue: JobQueue) -> Iterator[str]:
    """A queue, as its scheduler sees it."""
    engine: Any = queue._engine
    books: Books = engine._scheduler.books
    yield f"--- {name}"
    closed, quiet = queue._closer.closed, engine._scheduler.quiet
    yield f"    closed={closed} closing={books.closing} jobs={len(books.jobs)} quiet={quiet}"
    yield f"    now {books.now:.3f}, deadline {engine._scheduler.deadline}, steal_due {books.steal_due}"
    yield (
        f"    held={books.held} any_apart={books.any_apart} apart_since={books.apart_since} "
        f"headroom={vars(books.headroom)} suspects={books.has_suspects} absent={books.absent} "
        f"no_lanes_since={books.no_lanes_since} last_start_error={books.last_start_error!r}"
    )
    if (coordinator := engine._coordinator) is not None:
        yield f"    in the inbox {coordinator.inbox._queue.qsize()}, alive={coordinator._thread.is_alive()}"
    yield f"    listeners idle={engine.listeners.idle} queued={engine.listeners._queue.qsize()}"
    for lane in books.lanes:
        shared = None if engine._pool is None else engine._pool.lane(lane.number)
        yield f"  lane {lane} worn_out={books.worn_out(lane)}"
        if shared is not None:
            yield f"       {shared.ledger.read()} calls={len(shared.calls)} {_process(shared.pid)}"
    for warden in [] if engine._pool is None else list(engine._pool._wardens.values()):
        yield f"  warden {warden.lane.number}.{warden.lane.generation} {warden._state} {_process(warden.lane.pid)}"
    yield from (f"  {_job(job)}" for job in list(books.jobs.values()))
    yield from (f"  {timer}" for timer in sorted(books.timers._heap)[:20])


def _job(job: JobBook) -> str:
    return (
        f"job {job.id} number={job.number} {job.status} cancelled={job.cancelled} sealed={job.sealed} "
        f"runnable={job.runnable} {job.completed}+{job.failed} of {len(job.table)} pending={len(job.pending)} "
        f"next_care={job.pending.next_care.name} chunks_out={job.chunks_out} lanes_held={job.lanes_held} "
        f"epoch={job.epoch} setups={job.setups} dropped={len(job.dropped)} "
        f"unfinished={job.table.unfinished()[:20]} {job.options}"
    )


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
