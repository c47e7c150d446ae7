"""Running a chunk: the loop that every item goes through.

A chunk runs in *stretches*: some items under one mark in the ledger, called by one ``map``, so that a tiny item costs
little more than its own call. How many, is said in `mpqueue._worker.chunk.stretches`; where one of them turns out to
be slow, the watchdog (`mpqueue._worker.chunk.watchdog`) cuts the stretch off behind it. In a careful chunk every item
is a stretch.
"""

from __future__ import annotations

import contextlib
import inspect
import logging
import sys
import threading
from collections.abc import Callable, Iterator
from typing import Any, NoReturn

from mpqueue._os import monotonic as clock
from mpqueue._os.process.process_signals import kill_self
from mpqueue._wire.frames import ChunkFrame, Ended, ReportFrame, Several, dump_frame
from mpqueue._wire.memory.ledger import CLAIM, FRACTION, IS_LATE, LATE, MOST, OUTBOX, SINCE, Phase, pack_claim
from mpqueue._wire.pickling.payload import Packed
from mpqueue._worker.chunk import stretches
from mpqueue._worker.chunk.costs import Costs
from mpqueue._worker.chunk.failures import pack_failure
from mpqueue._worker.chunk.holding import run_up_to_held
from mpqueue._worker.chunk.results import BrokenWorkerError, ChunkResults
from mpqueue._worker.chunk.timing import ChunkTimes
from mpqueue._worker.chunk.tracing import plain_settrace
from mpqueue._worker.fitness import can_pack
from mpqueue._worker.handlers import current_item as context
from mpqueue._worker.handlers.current_item import Running
from mpqueue._worker.handlers.loaded_jobs import LoadedJob
from mpqueue._worker.memory_growth import note_memory
from mpqueue._worker.seat import Seat
from mpqueue._worker.signals import calls_users_code

log = logging.getLogger("mpqueue")

#: Frames of the stack for which there is to be room, beside those that pickling needs.
_ROOM = 20
#: Frames by which that is asked deeper in the stack than where a chunk begins, at most.
_DEEPER = 10


class ChunkRun:
    """One chunk on its way through the worker.

    ``running.out`` has one entry for each position that ended, None where it failed. The watchdog may cut the stretch
    at hand off, and send finished positions home early.
    """

    def __init__(self, seat: Seat, job: LoadedJob, frame: ChunkFrame, times: ChunkTimes) -> None:
        self.seat = seat
        self.station = station = seat.station
        self.job = job
        self.number = frame.chunk
        self.careful = isinstance(frame.items, list)
        self.limit = frame.limit
        #: Called when several items begin under one mark, in a chunk whose own end is too far for that.
        self.stretch_begins: Callable[[ChunkRun], object] | None = None
        self.running = Running(
            station,
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
            job, self.running, self.careful, self._mark_result, seat.exchange.store, self._is_broken
        )
        self._could_pack = not self.careful  #: when this chunk began; of careful ones alone it is found out
        self._recursion_limit = sys.getrecursionlimit()
        self._trace = sys.gettrace()  #: what this chunk began with
        self.times = times
        self.started = clock.monotonic()
        self._told = self.started  #: when the last report was made
        self.stretch: list[Any] = []  #: what the ``map`` at hand runs over; the watchdog may cut it off
        self.stretch_lock = threading.Lock()  #: held while it is ended, or marked as cut off
        self.stretch_lo = 0
        self.stretch_started = self.started
        self.cut_at: int | None = None  #: the position behind which the watchdog cut the stretch off
        self._costs = Costs()
        self.sampling = job.sampling
        if self.sampling is not None:
            self.sampling.chunk_begins(self.running)
        self._packed_items = frame.items

    def run(self) -> ReportFrame:
        """Run the chunk; every outcome of its items is in the report."""
        if self._has_too_much():
            return self._report(0, Ended.MEMORY)
        if not self._unpack():
            return self._report(0, Ended.UNREADABLE)
        if self.careful and self.station.is_own_process:
            # What is damaged now, none of these items has done.
            self._end_unless_whole(0)
            self._could_pack = can_pack(_ROOM + _DEEPER)
            if not self.station.has_run:
                self.station.could_pack = self._could_pack
            elif self.station.could_pack and not self._could_pack:
                self._end(0)
        context.enter(self.station, self.running)
        self.seat.home.sender = self
        with self.job.around_chunk():
            ended = self._run_stretches()
            if not self.careful:
                self._end_unless_whole(len(self.running.out))
        self.seat.home.sender = None
        if self.running.reported:
            self.station.ledger.reals[FRACTION] = 0.0
        done = len(self.running.out)
        report = self._report(done, ended)
        self.claim(Phase.IDLE, done, done)
        return report

    def _end_unless_whole(self, done: int) -> None:
        """End this worker where a handler has taken from it what it needs: so many items of this chunk have run."""
        station, capture = self.station, self.job.capture
        if not station.is_own_process:
            return
        if not station.is_whole() or (capture is not None and not capture.is_whole()):
            self._end(done)
        # What else may be in the way of pickling takes too long to look for, and is found once it is in the way.
        if sys.getrecursionlimit() < self._recursion_limit and self._is_broken():
            self._end(done)

    def _end(self, done: int) -> NoReturn:
        """End this worker: which of the items that have run is to blame is found out by running each alone."""
        self.claim(Phase.IDLE, done, done)
        kill_self()

    def _is_broken(self) -> bool:
        """True where nothing can be pickled here any more, since the chunk began."""
        return self.station.is_own_process and self._could_pack and not can_pack(_ROOM)

    def _end_if_damaged(self) -> None:
        """In a careful chunk, after an item: end this worker under the item's own mark where the item has damaged it.

        The parent would kill the next one for it, or the next one would fail.
        """
        station, capture = self.station, self.job.capture
        if not station.is_own_process:
            return
        if not station.is_whole() or (capture is not None and not capture.is_whole()):
            self._end_under_mark("closed descriptors that are the worker's")
        if self._is_broken():
            self._end_under_mark("made pickling impossible")

    def _end_under_mark(self, what: str) -> NoReturn:
        """End this worker: the item that it is marked to be at has done it."""
        with contextlib.suppress(BaseException):
            sys.setrecursionlimit(max(sys.getrecursionlimit(), self._recursion_limit))  # the log has to be written
            log.warning("worker %d ends itself: the item that it ran has %s", self.station.lane, what)
        kill_self()

    def broken_by(self, error: BaseException) -> ReportFrame:
        """Something broke outside the items' own code: they run again carefully.

        In a careful chunk, finished results are sent, and if there are none, the item that ran fails, so that it ends.
        Where items have made pickling impossible, this worker ends instead, and they run again in another one.
        """
        done = max(len(self.running.out), self.results.sent)  # the list is empty once a report was made of it
        if isinstance(error, BrokenWorkerError) or ((done or self.careful) and self._is_broken()):
            if self.careful:
                self._end_under_mark("made pickling impossible")
            self._end(done)
        self.stretch = []  # nothing of it is to be sent early any more
        locked = self.results.lock.acquire(timeout=1.0)  # a late signal may have left it locked
        try:
            return self._broken_report(error)
        finally:
            if locked:
                self.results.lock.release()

    def _broken_report(self, error: BaseException) -> ReportFrame:
        results, first = self.results, self.results.sent
        done = results.ended_whole(first, len(self.running.indices)) if self.careful else first
        if self.careful and done == first < len(self.running.indices):
            results.failures[first] = pack_failure(error)
            done += 1
        _, packed, failures = results.take(done, final=True)
        self.seat.exchange.sent(self.number, packed)
        return ReportFrame(
            chunk=self.number,
            first=first,
            done=done,
            results=packed,
            failures=failures,
            stretches=(),
            busy=clock.monotonic() - self._told,
            ended=Ended.UNREADABLE,
            records=self.seat.home.take(),
            added=results.added(first, done),
            passed=self.job.passes_on,
            yielded=results.yielded(first, done),
        )

    def claim(self, phase: Phase, lo: int, hi: int) -> None:
        """Say in the ledger what may be running from now on."""
        words = self.station.ledger.words
        words[SINCE] = clock.monotonic_ns()
        words[CLAIM] = pack_claim(self.number, phase, lo, hi)

    def _mark_result(self, position: int) -> None:
        self.claim(Phase.PACKING, position, len(self.running.out))

    def _unpack(self) -> bool:
        """Unpickle the items (in a careful chunk each one later, under its own mark); False where that fails."""
        if isinstance(self._packed_items, list):
            self.running.items = [None] * len(self._packed_items)
            return True
        self.claim(Phase.UNPACKING, 0, len(self.running.indices))
        began = clock.monotonic()
        try:
            self.running.items = self._unpack_all(self._packed_items)
        except BaseException:
            return False
        finally:
            self.times.unpacking += clock.monotonic() - began
        return True

    def _unpack_all(self, packed: Packed | Several) -> list[Any]:
        exchange = self.seat.exchange
        if isinstance(packed, Several):
            return exchange.load_several(packed.each)
        items: list[Any] = exchange.load(packed)
        return items

    def _run_stretches(self) -> Ended:
        out, total = self.running.out, len(self.running.items)
        one_by_one = self.careful or self.job.may_await
        ledger, size = self.station.ledger, 1 if one_by_one else stretches.first_size(self.job.pace)
        while (lo := len(out)) < total:
            # A stretch that would go beyond the chunk's end: in the middle of it, the watchdog would report too.
            hi = min(lo + size, total)
            expected = stretches.expected_seconds(hi - lo, self.job.pace)
            if lo and clock.monotonic() - self.started + expected >= self.limit:
                return Ended.TIME
            paused, cancelled = self.running.flags()
            if paused or cancelled:
                return Ended.CANCELLED if cancelled else Ended.PAUSED
            if lo and self._has_too_much():
                return Ended.MEMORY
            self.claim(Phase.UNPACKING if self.careful else Phase.RUNNING, lo, hi)
            # Read after the claim was stored: either we see the limit, or the parent sees the claim.
            limit = ledger.limit(self.number)
            if limit < hi:
                if limit <= lo:
                    return Ended.LIMIT
                hi = limit
                self.claim(Phase.UNPACKING if self.careful else Phase.RUNNING, lo, hi)
            if self.careful and not self._unpack_one(lo):
                if len(out) == lo:
                    return Ended.TIME
                continue
            self.station.has_run = True
            size = self._run_stretch(lo, hi)
            if self.careful:
                self._end_if_damaged()
        return Ended.DONE

    def _has_too_much(self) -> bool:
        """True where this worker is to be replaced: it has more memory than it may, or is likely to after an item more.

        Never before it has run one. To be called once between two stretches.
        """
        used, most = self.note_memory(), self.station.ledger.words[MOST]
        return used is not None and self.station.growth.likely(used) > most and self.station.has_run

    def note_memory(self) -> int | None:
        """What the item that begins now begins with, see `memory_growth.note_memory`."""
        return note_memory(self.station.ledger)

    def _unpack_one(self, position: int) -> bool:
        """Unpickle the item at this position; what that raises is its failure, not charged, unless it comes again."""
        assert isinstance(self._packed_items, list)
        began = clock.monotonic()
        try:
            item = self.seat.exchange.load(self._packed_items[position])
        except BaseException as error:
            if not self.seat.exchange.is_carried_next(error):
                self.results.fail(position, error, 0.0, charged=False)
            return False
        finally:
            self.times.unpacking += clock.monotonic() - began
        self.running.items[position] = item
        self.claim(Phase.RUNNING, position, position + 1)
        return True

    def _run_stretch(self, lo: int, hi: int) -> int:
        """Run the items from lo to hi; returns how many the next stretch should hold."""
        job, out = self.job, self.running.out
        if self.running.reported:
            self.running.reported = False
            self.station.ledger.reals[FRACTION] = 0.0
        self.stretch_lo, self.cut_at = lo, None
        self.stretch = stretch = self.running.items[lo:hi]
        self._costs.stretch_begins(lo, hi, job.pace)
        started = self.stretch_started = clock.monotonic()
        if self.stretch_begins is not None and hi - lo > 1:
            self.stretch_begins(self)
        if self.sampling is not None:
            self.sampling.handler_begins(started)
        packing = self._run_to_end(stretch, hi - lo == 1)
        if self.station.ledger.words[LATE] == IS_LATE:
            kill_self()
        ended = clock.monotonic()
        with self.stretch_lock:
            self.stretch = []
        if job.may_await and lo not in self.results.failures:
            job.may_await = False
            if inspect.isawaitable(out[lo]):
                self._await_first(lo, stretch)
                ended = clock.monotonic()
        if self.sampling is not None:
            self.sampling.handler_ends(ended)
        self.times.handling += ended - started - packing
        self.results.stretch_ended(lo, len(out))
        if job.capture is not None:
            job.capture.keep(len(out) - 1)  # what was written while its result was pickled
        self.times.packing += clock.monotonic() - ended + packing
        return self._time_stretch(lo, len(out), ended - started - packing, packing)

    def _run_to_end(self, stretch: list[Any], alone: bool) -> float:
        """Run the items of the stretch; returns how long results were pickled meanwhile."""
        out, items, packing = self.running.out, iter(stretch), 0.0
        at, began = self.stretch_lo, self.stretch_started
        while True:
            try:
                result = self._run_items(items, alone)
            except BaseException as error:
                if isinstance(error, StopIteration) and len(out) - self.stretch_lo >= len(stretch):
                    return packing
                seconds, before = clock.monotonic() - began, len(out) - at
                # The clock was not read where those before it ended.
                elapsed = max(seconds - before * (self.job.pace or 0.0), seconds / (before + 1))
                self.results.fail(len(out), error, elapsed)
                began += seconds
            else:
                began = clock.monotonic()
                self.results.add_at_once(result)
                packing -= began
                began = clock.monotonic()
                packing += began
            at = len(out)

    @calls_users_code
    def _run_items(self, items: Iterator[Any], alone: bool) -> Any:
        """Run them up to one whose result is to be pickled before the next one runs: returns that.

        Raises what an item raises; at their end `StopIteration`.
        """
        job, out = self.job, self.running.out
        results = job.map(items, out)
        try:
            if alone or (job.discards and not job.is_open):  # pickled at the stretch's end, or not at all
                # `next` raises the handler's own StopIteration; all other loops in C take it for the end.
                return next(filter(out.append, results))
            return run_up_to_held(results, out, self.running.added)
        finally:
            if sys.gettrace() is not self._trace:
                plain_settrace(self._trace)

    def _await_first(self, lo: int, stretch: list[Any]) -> None:
        """The handler is no coroutine function and still returned something to await: so it will the next time.

        It was the first item that returned, so it is alone in its stretch.
        """
        self.job.await_results()
        pending = self.running.out.pop()
        self.stretch = stretch  # it still runs: what failed before it may be sent early
        try:
            self.running.out.append(self.job.resolve(pending))
        except BaseException as error:
            self.results.fail(lo, error, clock.monotonic() - self.stretch_started)
        finally:
            with self.stretch_lock:
                self.stretch = []
            if self.job.capture is not None:
                self.job.capture.keep(lo)

    def _time_stretch(self, lo: int, hi: int, seconds: float, packing: float) -> int:
        # Where it was cut off, all but the last item were as quick as expected.
        cut_pace = None if self.cut_at is None else self.job.pace or 0.0
        pace = self._costs.stretch_ended(lo, hi, seconds, cut_pace, packing) + packing / (hi - lo)
        self.job.pace = pace
        if self.careful or self.job.may_await:
            return 1
        return stretches.next_size(pace, hi - lo)

    # -- the report ------------------------------------------------------------------------------------------

    def _report(self, done: int, ended: Ended) -> ReportFrame:
        with self.results.lock:
            return self.part(done, ended)

    def part(self, done: int, ended: Ended, *, final: bool = True) -> ReportFrame:
        """What is to be said of the positions since the last report, up to ``done``. Call with the lock held."""
        began = clock.monotonic()
        first, packed, failures = self.results.take(done, final=final)
        self.seat.exchange.sent(self.number, packed)
        told, self._told = self._told, clock.monotonic()
        if final:
            # What the items were in may be used again, unless the handler has kept a view of it.
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
            returned=self.seat.exchange.done_with(),
            records=self.seat.home.take(),
            output=None if self.job.capture is None else self.job.capture.take(first, done),
            peaks=self._costs.peaks_between(first, done),
            times=self.times.take(self._told, self._told - began),
            added=self.results.added(first, done),
            passed=self.job.passes_on,
            yielded=self.results.yielded(first, done),
            profile=None if self.sampling is None else self.sampling.take(first, done),
        )

    def send_records(self) -> bool:
        """Leave what was logged in the outbox, where that is free and no report is in the making. On any thread."""
        results, station = self.results, self.station
        if not results.lock.acquire(blocking=False):
            return False
        try:
            outbox = station.outbox
            if outbox is None or self.seat.home.sender is not self or station.ledger.words[OUTBOX]:
                return False
            if not outbox.can_take():
                return False
            at, records = results.sent, self.seat.home.take()
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
                outbox.leave(dump_frame(report), plain=True)
            except OSError:
                self.seat.home.give_back(records)
                return False
            return True
        finally:
            results.lock.release()
