"""Decodes workers' reports: the only place of the parent where results are unpickled.

It runs on the lane's own thread, so that a slow or broken result delays its own lane only; if the answer is plain, on
the thread that reads it.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from typing import Any

from mpqueue._core.messages import ChunkReported
from mpqueue._core.state.item_table import Failure
from mpqueue._parent.transport.kept_errors import let_go, text_of
from mpqueue._parent.transport.packing import are_harmless
from mpqueue._wire.added_items import AddedItems, ResultWithItems
from mpqueue._wire.frames import FailureFrame, Passed, ReportFrame, all_of, load_frame
from mpqueue._wire.memory.segments import NOTHING_CARRIED, Carried, HeldSegment, SegmentGoneError, may_hold_more
from mpqueue._wire.parcels import Parcel, Yielded
from mpqueue._wire.pickling.payload import Packed, load, load_home, without_segment
from mpqueue.errors import RemoteError, RemoteTraceback, ResultPicklingError, WorkerCrashedError

OnFree = Callable[[int], None]


class Unpickling:
    """One answer on its way to becoming a report, which came ``now``; ``on_free`` gets segments without views.

    ``carried`` are the contents of segments of a worker that shares no memory with this process, by their serials.

    `report` runs the code of users' classes, which may never end. Then another thread can get the finished part by
    `cut_short`: the result, or the exception, that is being unpickled has failed, and later items run again. Raises
    only if the answer is none of ours.
    """

    def __init__(
        self,
        data: bytes,
        lane: int,
        generation: int,
        on_free: OnFree,
        now: Callable[[], float],
        carried: Carried = NOTHING_CARRIED,
    ) -> None:
        self.since = now()
        self._size = len(data)
        self._frame: ReportFrame = load_frame(data)
        self._lane, self._generation = lane, generation
        self._on_free, self._now, self._carried = on_free, now, carried
        self._results: list[Any] = []
        self._failures: dict[int, Failure] = {}
        self._setup_failure: Failure | None = None
        self.lost: Failure | None = None  #: the last of the results that can't be unpickled here
        self._held: dict[int, HeldSegment] = {}  #: values to pass on, by the writer's serials
        self._copied: set[int] = set()  #: serials of segments that were copied instead
        self._at = 0  #: the position that is being unpickled
        self._over = threading.Lock()  #: taken, for good, by the thread that makes the report

    def report(self) -> ChunkReported | None:
        """Return the report; None if it was cut short meanwhile."""
        frame, unreadable = self._frame, None
        if frame.setup_failure is not None:
            self._setup_failure = _failure(frame.setup_failure)
        if isinstance(frame.results, Packed):
            unreadable = self._load_together(frame.results)
        else:
            unreadable = self._load_each(frame.results)
            for serial in self._copied:  # once nothing more is read from there: several results may share one
                self._on_free(serial)
        if not self._over.acquire(blocking=False):
            return None
        return self._report(self._results, self._failures, self._setup_failure, unreadable)

    @property
    def segments(self) -> set[int]:
        """The serials of its results' segments."""
        results = self._frame.results
        each = [results] if isinstance(results, Packed) else all_of(results)
        return {one.segment.serial for one in each if one.segment is not None}

    def cut_short(self, seconds: float) -> ChunkReported | None:
        """Return the part unpickled after that many seconds; None if `report` has ended after all."""
        if not self._over.acquire(blocking=False):
            return None
        # Copies: the stuck thread may go on at any time.
        frame, at, failures, setup_failure = self._frame, self._at, dict(self._failures), self._setup_failure
        results = [*self._results[:at], None][: frame.done - frame.first]
        if frame.setup_failure is not None and setup_failure is None:
            setup_failure = _failure(frame.setup_failure._replace(error=None))
        elif at in frame.failures:
            failures[at] = _failure(frame.failures[at]._replace(error=None))
        elif results:
            failures[at] = _unreadable(TimeoutError(f"it was still being unpickled after {seconds:.0f} s"))
        return self._report(results, failures, setup_failure, None)

    def _load_each(self, packed: Sequence[Passed]) -> Failure | None:
        """Fill in results and failures, position by position, as far as possible; returns the obstacle, if any."""
        frame, each, results, failures = self._frame, iter(packed), self._results, self._failures
        for at in range(frame.done - frame.first):
            self._at, result = at, None
            if at in frame.failures:
                failures[at] = _failure(frame.failures[at])
            else:
                try:
                    result = self._load_one(next(each))
                except SegmentGoneError as error:
                    return _unreadable(error)
                except BaseException as error:
                    failures[at] = self.lost = _unreadable(error)
            results.append(result)
        return None

    def _load_one(self, packed: Passed) -> Any:
        if not self._frame.passed:
            assert isinstance(packed, Packed)
            return load_home(packed, self._on_free, self._carried)
        return Yielded([*map(self._parcel, packed)]) if isinstance(packed, list) else self._parcel(packed)

    def _parcel(self, packed: Packed | bytes) -> Parcel:
        """Return a value to pass on unchanged. Its segment is opened now, since its writer may die at any time."""
        if isinstance(packed, bytes):
            return Parcel(packed)
        ref = packed.segment
        assert ref is not None
        held = self._held.get(ref.serial)
        if held is None:
            if ref.serial in self._carried or not may_hold_more():
                self._copied.add(ref.serial)
                return Parcel(without_segment(packed, self._carried))
            held = self._held[ref.serial] = HeldSegment(ref, self._on_free)
        return Parcel(packed._replace(segment=held.ref), held)

    def _load_together(self, packed: Packed) -> Failure | None:
        """Load results that are plain data, in one pickle. Fails only if the writer has ended or memory is short."""
        frame = self._frame
        count = frame.done - frame.first
        loaded: list[Any] = []
        if count:
            try:
                loaded = load(packed, self._on_free, self._carried)
            except BaseException as error:
                alone = [at for at in range(count) if at not in frame.failures]
                if len(alone) > 1 or isinstance(error, SegmentGoneError):
                    return _unreadable(error)
                self._failures[alone[0]] = self.lost = _unreadable(error)
                loaded = [None]
        if not frame.failures:
            self._results = loaded
            return None
        values = iter(loaded)
        self._results = [None if at in frame.failures else next(values) for at in range(count)]
        for at in sorted(frame.failures):
            self._at = at
            self._failures[at] = _failure(frame.failures[at])
        return None

    def _is_foreign(self, results: list[Any], *failed: Any, added: dict[int, AddedItems] | None) -> bool:
        if any(failed) or (added and not all(are_harmless(each.items) for each in added.values())):
            return True
        return not (isinstance(self._frame.results, Packed) or self._frame.passed or are_harmless(results))

    def _report(
        self,
        results: list[Any],
        failures: dict[int, Failure],
        setup_failure: Failure | None,
        unreadable: Failure | None,
    ) -> ChunkReported:
        frame = self._frame
        added = _take_added(results, frame.added) if frame.added else None
        return ChunkReported(
            lane=self._lane,
            generation=self._generation,
            chunk=frame.chunk,
            first=frame.first,
            done=frame.first + len(results),
            results=results,
            failures=failures,
            stretches=frame.stretches,
            busy=frame.busy,
            ended=frame.ended,
            final=frame.final,
            setup_failure=setup_failure,
            returned=frame.returned,
            records=[load_frame(record) for record in frame.records] if frame.records else (),
            output=frame.output,
            peaks=frame.peaks,
            times=frame.times,
            size=self._size + _size_beside(frame.results),
            received=self.since,
            decoded=self._now(),
            unreadable=unreadable,
            added=added,
            yielded=_yielded(results, frame.yielded) if frame.yielded else None,
            foreign=self._is_foreign(results, failures, setup_failure, unreadable, added=added),
            profile=frame.profile,
        )


def _take_added(results: list[Any], positions: Sequence[int]) -> dict[int, AddedItems]:
    """Take the items that come with results; the handler's own results replace them in the list."""
    added = {}
    for at in positions:
        if at < len(results) and type(whole := results[at]) is ResultWithItems:  # otherwise it is not here
            results[at] = whole.result
            added[at] = whole.added()
    return added


def _yielded(results: list[Any], positions: Sequence[int]) -> dict[int, int]:
    """Return how many values were yielded, by position."""
    return {at: len(results[at].values) for at in positions if at < len(results) and type(results[at]) is Yielded}


def _size_beside(results: Packed | Sequence[Passed]) -> int:
    """Bytes of the results in segments."""
    if isinstance(results, Packed):
        return 0 if results.segment is None else results.size - len(results.data)
    return sum(one.size - len(one.data) for one in all_of(results))


def _unreadable(error: BaseException) -> Failure:
    if isinstance(error, SegmentGoneError):  # the result is not at fault
        gone = WorkerCrashedError("the worker ended before its result could be taken")
        gone.__cause__ = error
        let_go(error)
        return Failure(gone)
    broken = ResultPicklingError(f"the result can't be unpickled: {text_of(error)}")
    broken.__cause__ = error
    return Failure(broken, let_go(error))


def decode_failure(data: bytes) -> Failure | None:
    """Return the failure in a worker's answer, if there is one."""
    frame: FailureFrame | None = load_frame(data)
    return None if frame is None else _failure(frame)


def _failure(frame: FailureFrame) -> Failure:
    type_name, message, trace, bases = frame.stand_in
    error: BaseException
    raised = False
    if frame.result is not None:
        reason, message = f"{type_name}: {message}", f"the result {frame.result} can't be pickled: {message}"
        error = ResultPicklingError(message, frame.result, reason)
    else:
        loaded = _unpickled(frame)
        if isinstance(loaded, Exception):
            raised, error = True, loaded
        else:
            error = RemoteError(type_name, message, trace, bases)
            error._itself = loaded  # noqa: SLF001 - for `Executor` alone
    error.__cause__ = RemoteTraceback(trace)
    text = message or type_name.rpartition(".")[2]
    return Failure(error, trace, frame.elapsed, frame.charged, text, raised)


def _unpickled(frame: FailureFrame) -> BaseException | None:
    if frame.error is None:
        return None
    try:
        error = load_home(frame.error)
    except BaseException:
        return None
    return error if isinstance(error, BaseException) else None
