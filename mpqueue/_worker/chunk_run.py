"""Running a chunk: the loop that every item goes through.

A chunk runs in *stretches*: some items under one mark in the ledger, called by one ``map``, so that a tiny item costs
little more than its own call. `mpqueue._worker.timing` decides how many; if one of them is slow, the chunk timer
(`mpqueue._worker.chunk_timer`) cuts the stretch off behind it. In a careful chunk every item is a stretch.
"""

from __future__ import annotations

import contextlib
import logging
import threading
from collections.abc import Callable, Iterator
from typing import Any

from mpqueue._os import process_facts as memory
from mpqueue._os import system as clock
from mpqueue._os.process_signals import came_of_signal, kill_self
from mpqueue._wire.frames import ChunkFrame, Ended, ReportFrame, Several, dump_frame
from mpqueue._wire.memory.ledger import (
    CLAIM,
    FRACTION,
    IS_LATE,
    LATE,
    MEMORY_LIMIT,
    MEMORY_USED,
    SINCE,
    Ledger,
    Phase,
    pack_claim,
)
from mpqueue._wire.memory.segments import SegmentGoneError
from mpqueue._worker import timing
from mpqueue._worker.exchange import WorkerContext
from mpqueue._worker.handlers.current_item import Running
from mpqueue._worker.handlers.loaded_jobs import LoadedJob
from mpqueue._worker.results import ChunkResults, positions_from, run_up_to_held
from mpqueue._worker.timing import ChunkTimes, Costs
from mpqueue._worker.worker_links import BrokenWorkerError
from mpqueue.errors import text_of

log = logging.getLogger("mpqueue")

#: Items of a stretch from which on they run in a loop in C.
MANY = 512


class ChunkRun:
    """One chunk on its way through the worker.

    ``running.out`` has one entry for each position that ended, None if it failed. The chunk timer may cut off the
    current stretch, and send finished positions early.
    """

    def __init__(self, context: WorkerContext, job: LoadedJob, frame: ChunkFrame, times: ChunkTimes) -> None:
        self.context = context
        self.links = links = context.links
        self.job = job
        self.number = frame.chunk
        self.careful = isinstance(frame.items, list)
        self.limit = frame.limit
        #: Called when several items begin under one mark, in a chunk that ends too late for that.
        self.stretch_begins: Callable[[ChunkRun], object] | None = None
        self.running = Running(
            links,
            job.number,
            job.id,
            job.id_rule,
            job.seed,
            indices=frame.indices,
            attempts=frame.attempts,
            slots=frame.slots,
            is_open=job.is_open,
        )
        self.results = ChunkResults(
            job,
            self.running,
            self.careful,
            self._mark_result,
            context.exchange.store,
        )
        self.times = times
        self.started = clock.monotonic()
        self._told = self.started  #: the time of the last report
        self.stretch: list[Any] = []  #: the items of the current ``map``; the chunk timer may cut them off
        self.stretch_lock = threading.Lock()  #: held while the stretch is ended, or marked as cut off
        self.stretch_lo = 0
        self.stretch_started = self.started
        self.cut_at: int | None = None  #: the position behind which the chunk timer cut the stretch off
        self._costs = Costs()
        self.sampling = job.sampling
        if self.sampling is not None:
            self.sampling.chunk_begins(self.running)
        self._packed_items = frame.items
        self._begun = 0  #: items up to this position were claimed

    def run(self) -> ReportFrame:
        """Run the chunk; every outcome of its items is in the report."""
        if self._has_too_much():
            return self._report(0, Ended.MEMORY)
        if not self._unpack():
            return self._report(0, Ended.UNREADABLE)
        self.links.running = self.running
        self.context.logs.sender = self
        with self.job.around_chunk():
            ended = self._run_stretches()
        self.context.logs.sender = None
        if self.running.reported:
            self.links.ledger.reals[FRACTION] = 0.0
        done = len(self.running.out)
        report = self._report(done, ended)
        self.claim(Phase.IDLE, done, done)
        return report

    def end_worker(self, error: BaseException) -> None:
        """End this worker, because of an error outside of the items' own code, or because pickling no longer works.

        Items that ran since the last report are tried again alone, which finds the item to blame. Returns if this
        process is not the worker's own: then the engine ends the worker.
        """
        self.claim(Phase.IDLE, self._begun, self._begun)
        if self.links.is_own_process:
            with contextlib.suppress(BaseException):
                log.warning("worker %d ends itself: %s", self.links.lane, text_of(error))
            kill_self()

    def claim(self, phase: Phase, lo: int, hi: int) -> None:
        """Note in the ledger which items may run from now on."""
        self._begun = hi
        words = self.links.ledger.words
        words[SINCE] = clock.monotonic_ns()
        words[CLAIM] = pack_claim(self.number, phase, lo, hi)

    def _mark_result(self, position: int) -> None:
        self.claim(Phase.PACKING, position, len(self.running.out))

    def _unpack(self) -> bool:
        """Unpickle the items (in a careful chunk each one later, under its own mark); False if that fails."""
        if isinstance(self._packed_items, list):
            self.running.items = [None] * len(self._packed_items)
            return True
        self.claim(Phase.UNPACKING, 0, len(self.running.indices))
        packed, exchange, began = self._packed_items, self.context.exchange, clock.monotonic()
        try:
            self.running.items = (
                exchange.load_several(packed.each) if isinstance(packed, Several) else exchange.load(packed)
            )
        except BaseException:
            return False
        finally:
            self.times.unpacking += clock.monotonic() - began
        return True

    def _run_stretches(self) -> Ended:
        out, total = self.running.out, len(self.running.items)
        ledger, size = self.links.ledger, 1 if self.careful else timing.first_size(self.job.pace)
        while (lo := len(out)) < total:
            # The stretch would go beyond the chunk's end: in the middle of it, the chunk timer would report too.
            hi = min(lo + size, total)
            expected = timing.expected_seconds(hi - lo, self.job.pace)
            if lo and clock.monotonic() - self.started + expected >= self.limit:
                return Ended.TIME
            paused, cancelled = self.running.flags()
            if paused or cancelled:
                return Ended.CANCELLED if cancelled else Ended.PAUSED
            if lo and self._has_too_much():
                return Ended.MEMORY
            self.claim(Phase.UNPACKING if self.careful else Phase.RUNNING, lo, hi)
            # Read after the claim was stored: either this worker sees the limit, or the parent sees the claim.
            limit = ledger.limit(self.number)
            if limit < hi:
                if limit <= lo:
                    return Ended.LIMIT
                hi = limit
                self.claim(Phase.UNPACKING if self.careful else Phase.RUNNING, lo, hi)
            if self.careful and not self._unpack_one(lo):
                continue
            self.links.has_run = True
            size = self._run_stretch(lo, hi)
        return Ended.DONE

    def _has_too_much(self) -> bool:
        """True if this worker must be replaced: it is over its memory limit, or is likely to be after one more item.

        Never before its first item. To be called once between two stretches.
        """
        used, most = note_memory(self.links.ledger), self.links.ledger.words[MEMORY_LIMIT]
        return used is not None and self.links.growth.likely(used) > most and self.links.has_run

    def _unpack_one(self, position: int) -> bool:
        """Unpickle the item at this position; an error is the item's failure, and costs no try the first time."""
        assert isinstance(self._packed_items, list)
        began = clock.monotonic()
        try:
            item = self.context.exchange.load(self._packed_items[position])
        except BaseException as error:
            if self.links.carries_segments and isinstance(error, SegmentGoneError):
                # This worker can't open segments of a program that has no other way to it; another worker can.
                self.claim(Phase.IDLE, position, position)  # the item has not begun
                raise
            if came_of_signal(error):
                raise
            self.results.fail(error, 0.0, charged=False)
            return False
        finally:
            self.times.unpacking += clock.monotonic() - began
        self.running.items[position] = item
        self.claim(Phase.RUNNING, position, position + 1)
        return True

    def _run_stretch(self, lo: int, hi: int) -> int:
        """Run the items from lo to hi; returns the size of the next stretch."""
        job, out = self.job, self.running.out
        if self.running.reported:
            self.running.reported = False
            self.links.ledger.reals[FRACTION] = 0.0
        self.stretch_lo, self.cut_at = lo, None
        self.stretch = stretch = self.running.items[lo:hi]
        self._costs.stretch_begins(lo, hi, job.pace)
        started = self.stretch_started = clock.monotonic()
        if self.stretch_begins is not None and hi - lo > 1:
            self.stretch_begins(self)
        if self.sampling is not None:
            self.sampling.handler_begins(started)
        packing = self._run_to_end(stretch, hi - lo == 1)
        if self.links.ledger.words[LATE] == IS_LATE:
            kill_self()
        ended = clock.monotonic()
        self._costs.handler_ended()
        with self.stretch_lock:
            self.stretch = []
        if self.sampling is not None:
            self.sampling.handler_ends(ended)
        self.times.handling += ended - started - packing
        self.results.stretch_ended(lo, len(out))
        if job.capture is not None:
            job.capture.keep(len(out) - 1)  # output while its result was pickled
        self.times.packing += clock.monotonic() - ended + packing
        return self._time_stretch(lo, len(out), ended - started - packing, packing)

    def _run_to_end(self, stretch: list[Any], alone: bool) -> float:
        """Run the items of the stretch; returns the seconds of pickling results and errors meanwhile."""
        out, items, packing = self.running.out, iter(stretch), 0.0
        at, began = self.stretch_lo, self.stretch_started
        while True:
            try:
                result = self._run_items(items, alone)
            except BrokenWorkerError:
                raise
            except BaseException as error:
                if not _has_one_in_hand(items, len(out) - self.stretch_lo):
                    if isinstance(error, StopIteration):
                        return packing
                    raise  # from a signal's handler, between two items: the next item must not fail for it
                if isinstance(error, StopIteration):
                    self.job.raises_stop_iteration = True  # the next one is to arrive whole
                seconds, before = clock.monotonic() - began, len(out) - at
                # The clock was not read when the items before it ended.
                elapsed = max(seconds - before * (self.job.pace or 0.0), seconds / (before + 1))
                self._costs.handler_ended()
                packing -= began + seconds
                self.results.fail(error, elapsed)
            else:
                self._costs.handler_ended()
                packing -= clock.monotonic()
                self.results.add_at_once(result)
            began = clock.monotonic()
            packing += began
            self._costs.handler_begins()
            at = len(out)

    def _run_items(self, items: Iterator[Any], alone: bool) -> Any:
        """Run the items up to one whose result must be pickled before the next one runs, and return that result.

        Raises an item's error; at their end `StopIteration`.
        """
        job, out = self.job, self.running.out
        results = job.map(items, out)
        if alone or (job.discards and not job.is_open):  # pickled at the stretch's end, or not at all
            # `next` raises the handler's own StopIteration; all other loops in C would take it for the end.
            return next(filter(out.append, results))
        many = len(self.stretch) >= MANY and not job.is_open and not job.raises_stop_iteration
        return run_up_to_held(results, out, self.running.added, many=many)

    def _time_stretch(self, lo: int, hi: int, seconds: float, packing: float) -> int:
        # If it was cut off, all but the last item were as fast as expected.
        cut_pace = None if self.cut_at is None else self.job.pace or 0.0
        pace = self._costs.stretch_ended(lo, hi, seconds, cut_pace) + packing / (hi - lo)
        self.job.pace = pace
        return 1 if self.careful else timing.next_size(pace, hi - lo)

    # -- the report ------------------------------------------------------------------------------------------

    def _report(self, done: int, ended: Ended) -> ReportFrame:
        with self.results.lock:
            return self.part(done, ended)

    def part(self, done: int, ended: Ended, *, final: bool = True) -> ReportFrame:
        """Return a report on the positions since the last report, up to ``done``. Call with the lock held."""
        began = clock.monotonic()
        first, packed, failures = self.results.take(done, final=final)
        self.context.exchange.sent(self.number, packed)
        told, self._told = self._told, clock.monotonic()
        if final:
            # The lists of items may be reused, unless the handler has kept a view of them.
            self.running.items, self.running.out = [], []
        return ReportFrame(
            chunk=self.number,
            first=first,
            done=done,
            results=packed,
            failures=failures,
            stretches=self._costs.between(first, done, self.job.pace or 0.0),
            busy=self._told - told,
            ended=ended,
            final=final,
            returned=self.context.exchange.done_with(),
            records=self.context.logs.take(),
            output=None if self.job.capture is None else self.job.capture.take(first, done),
            peaks=self._costs.peaks_between(first, done),
            times=self.times.take(self._told, self._told - began),
            added=positions_from(first, done, self.results.with_items),
            passed=self.job.passes_on,
            yielded=positions_from(first, done, self.results.yielded),
            profile=None if self.sampling is None else self.sampling.take(first, done),
        )

    def send_records(self) -> bool:
        """Send log records, if no report is being made. On any thread."""
        results, links = self.results, self.links
        if not results.lock.acquire(blocking=False):
            return False
        try:
            outbox = links.outbox
            if outbox is None or self.context.logs.sender is not self:
                return False
            at, records = results.sent, self.context.logs.take()
            report = ReportFrame(
                chunk=self.number,
                first=at,
                done=at,
                results=[],
                failures={},
                stretches=(),
                busy=0.0,
                ended=Ended.DONE,
                final=False,
                records=records,
            )
            try:
                outbox.leave(dump_frame(report))
            except OSError:
                self.context.logs.give_back(records)
                return False
            return True
        finally:
            results.lock.release()


def note_memory(ledger: Ledger) -> int | None:
    """Write the memory at the start of an item or a setup into the ledger, and return it; None without a limit."""
    if not ledger.words[MEMORY_LIMIT]:
        return None
    ledger.words[MEMORY_USED] = used = memory.memory_of("self") or 0
    return used


def _has_one_in_hand(items: Iterator[Any], ended: int) -> bool:
    """Tell whether that iterator over a list has yielded one item more than have ended."""
    state: Any = items.__reduce__()
    return len(state) == 3 and state[2] > ended  # at its end it has no state; it got there after the last item's end
