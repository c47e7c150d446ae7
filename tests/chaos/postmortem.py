"""What to look at when something hangs: every thread's stack, the schedulers' books, the workers' states."""

from __future__ import annotations

import faulthandler
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from mpqueue._core.books import Books
from tests.chaos.arena import Arena


def show_everything(what: str, arenas: Iterable[Arena], acts: Iterable[str]) -> None:
    """Print all of it to standard error."""
    out = sys.__stderr__
    assert out is not None
    print(f"\n=== {what}: it hangs ===", *acts, sep="\n", file=out)
    for arena in arenas:
        print(*describe(arena), sep="\n", file=out)
    out.flush()
    faulthandler.dump_traceback(out, all_threads=True)


def describe(arena: Arena) -> Iterator[str]:
    """A queue, as its scheduler sees it."""
    engine: Any = arena.queue._engine
    books: Books = engine._scheduler.books
    yield f"--- queue {arena.number} {arena.make}"
    yield f"    closing={books.closing} jobs={len(books.jobs)} quiet={engine._scheduler.quiet}"
    yield f"    now {books.now:.3f}, deadline {engine._scheduler.deadline}, steal_due {books.steal_due}"
    yield f"    listeners idle={engine.listeners.idle} queued={engine.listeners._queue.qsize()}"
    for lane in books.lanes:
        shared = None if engine._pool is None else engine._pool.lane(lane.number)
        yield f"  lane {lane}"
        if shared is not None:
            yield f"       {shared.ledger.read()} calls={len(shared.calls)} {_process(shared.pid)}"
    for warden in [] if engine._pool is None else list(engine._pool._wardens.values()):
        yield f"  warden {warden.lane.number}.{warden.lane.generation} {warden._state} {_process(warden.lane.pid)}"
    for job in books.jobs.values():
        yield (
            f"  job {job.id} {job.status} cancelled={job.cancelled} {job.completed}+{job.failed} of {len(job.table)} "
            f"pending={len(job.pending)} chunks_out={job.chunks_out} epoch={job.epoch} setups={job.setups} "
            f"unfinished={job.table.unfinished()[:20]}"
        )
    for timer in sorted(books.timers._heap)[:20]:
        yield f"  {timer}"


def _process(pid: int) -> str:
    try:
        stat = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
        return f"pid {pid} {stat.rpartition(')')[2].split()[0]}"
    except OSError:
        return f"pid {pid} gone"
