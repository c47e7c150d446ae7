"""The traffic with workers: frames made of commands, and messages made of answers, which are decoded here.

It also counts the segments that are lent to workers and had from them, for each generation of a lane. It runs on the
coordinator's thread, except for the answers, which lanes may give on their own threads. It decides nothing.
"""

from __future__ import annotations

import contextlib
import logging
import threading
import weakref
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, cast

from mpqueue._core.commands import AnnounceRecords, ForgetJob, SendChunk
from mpqueue._core.messages import (
    ChunkPacked,
    ChunkPacking,
    ChunkRefused,
    ChunkReported,
    ChunkSent,
    JobForgotten,
    LaneBroken,
    LaneInitialized,
    Message,
)
from mpqueue._core.state.books import Books
from mpqueue._core.state.item_table import Failure
from mpqueue._core.state.job_book import JobBook
from mpqueue._core.state.lane_book import Chunk
from mpqueue._core.state.resources import Grant
from mpqueue._options import DEVICES_VARIABLE
from mpqueue._parent.inbox import Inbox, found, take_traceback, text_of
from mpqueue._parent.lane_protocol import CarryingLane, Lane, SharingLane
from mpqueue._parent.packing import PackedItems, Packing, pack_at_once, pack_parcels, pickle_without_user_code
from mpqueue._parent.users_threads import Picklers
from mpqueue._wire.frames import (
    ChunkFrame,
    FailureFrame,
    ForgetFrame,
    ForgottenFrame,
    InitializeFrame,
    ItemGrant,
    Passed,
    ReportFrame,
    all_of,
    dump_frame,
    load_frame,
)
from mpqueue._wire.line import Answer, DamagedError
from mpqueue._wire.memory import shared
from mpqueue._wire.memory.segments import (
    KEEP_FREE_FOR_ITEMS,
    KEEP_LENT,
    NOTHING_CARRIED,
    Carried,
    CommonSegment,
    HeldSegment,
    SegmentGoneError,
    SegmentStore,
    can_lend,
    may_hold_more,
    view,
)
from mpqueue._wire.parcels import AddedItems, Parcel, ResultWithItems, Yielded
from mpqueue._wire.pickling.main_names import ImportWatch
from mpqueue._wire.pickling.packed_handler import PackedHandler
from mpqueue._wire.pickling.payload import Packed, load, load_home, without_segment
from mpqueue.errors import RemoteError, RemoteTraceback, ResultPicklingError, WorkerCrashedError, shown

log = logging.getLogger("mpqueue")

SETUP_END_FAILED = "job %r: the end of its setup failed on worker %d:\n%s"


def item_grant(grant: Grant, device: str | None, devices: Sequence[str]) -> ItemGrant:
    """Return the part of a grant that is sent to the worker; ``devices``: CUDA's names of the units of ``device``."""
    variables = {}
    if device is not None and device in grant.units:
        variables[DEVICES_VARIABLE] = ",".join(devices[unit] for unit in grant.units[device])
    return ItemGrant({name: [*units] for name, units in grant.units.items()}, grant.needs.cpus, variables)


@dataclass(slots=True)
class _Account:
    """A worker's account: its segments of ours, and the segments of its own that we have released."""

    lent: set[int] = field(default_factory=set)
    common: dict[int, CommonSegment] = field(default_factory=dict)  #: the same, until a view of them has gone
    held: dict[int, list[HeldSegment]] = field(default_factory=dict)  #: other workers' segments, one for each time
    returned: deque[int] = field(default_factory=deque)  #: segments of its own of which no view is left here
    stale: list[int] = field(default_factory=list)  #: jobs whose light handlers it may forget with the next chunk
    brought: weakref.WeakSet[shared.Shared[Any]] = field(default_factory=weakref.WeakSet)  #: shared objects that it has
    dropped: int = 0  #: how many of the dropped shared objects it has been notified of
    path: tuple[str, ...] | None = None  #: the ``sys.path`` that it was sent

    def news(self) -> tuple[Sequence[int], Sequence[int], Sequence[shared.Token]]:
        """Take the news for the next chunk: returned segments, stale jobs, and dropped shared objects."""
        returned = [self.returned.popleft() for _ in range(len(self.returned))] if self.returned else ()
        stale, self.stale = self.stale, []
        unshared = shared.dropped[self.dropped :]
        self.dropped += len(unshared)
        return returned, stale, unshared


class Traffic:
    """The traffic of a queue with its workers. The coordinator takes ``inbox``.

    ``picklers`` are threads for items that are pickled by code of their classes; ``handle`` handles a message, on the
    coordinator's thread. ``devices``: see `item_grant`.
    """

    def __init__(
        self,
        now: Callable[[], float],
        inbox: Inbox,
        announce: Callable[[AnnounceRecords], None],
        books: Books,
        picklers: Picklers,
        handle: Callable[[Message], None],
        devices: Sequence[str],
    ) -> None:
        self._devices = devices
        self._now = now
        self._inbox = inbox
        self._announce = announce
        self._books = books
        self._picklers = picklers
        self._not_plain: set[int] = set()  #: jobs with items that the picklers pickle
        self._handle = handle
        self._engine = books.capabilities
        self._carries = books.capabilities.carries
        self._in_segments = self._engine.shares_memory or self._carries
        self._store = SegmentStore(KEEP_FREE_FOR_ITEMS) if self._in_segments and can_lend() else None
        self._imports = ImportWatch()
        #: Workers import modules from the files that they have here.
        self._same_files = self._engine.own_processes and self._engine.is_here
        self._accounts: dict[tuple[int, int], _Account] = {}
        self._ready: dict[Chunk, PackedItems] = {}  #: chunks that wait, pickled, for a lane
        self._unpicklings: dict[tuple[int, int], Unpickling] = {}  #: by lane and generation, on any thread

    # -- to the workers --------------------------------------------------------------------------------------

    def have_reloaded(self) -> bool:
        """Return, when the user's work has come, whether modules were reloaded since the workers' imports."""
        return self._engine.own_processes and self._imports.look()

    def send_chunk(self, lane: Lane, command: SendChunk) -> ChunkSent | ChunkPacking:
        """Send a chunk; or let its items be pickled first if that runs code of their classes. Returns the message."""
        chunk, job = command.chunk, command.chunk.job
        if self._ready and (ready := self._ready.pop(chunk, None)) is not None:
            return self._send(lane, command, ready)
        items = job.table.payloads_of(chunk.indices)
        if job.stage is not None and job.stage.place:
            return self._send(lane, command, pack_parcels(items, careful=chunk.careful))
        if job.number not in self._not_plain:  # if some items of a job are not plain, the others hardly are
            began, packed = self._now(), pack_at_once(chunk, items, self._store)
            if packed is not None:
                return self._send(lane, command, PackedItems(packed, {}, seconds=self._now() - began))
        packing = Packing(chunk, items, self._store, self._now, notes=self._carries)
        self._not_plain.add(job.number)
        self._picklers.put(job, packing, partial(self._packed, chunk))
        return ChunkPacking(command.lane, command.generation, chunk.number)

    def _packed(self, chunk: Chunk, packed: PackedItems) -> None:
        """Take a chunk's items that the job's own thread has pickled; they may no longer be wanted."""
        job = chunk.job
        self._forget_unwanted()
        if chunk not in job.packing:
            self._give_back(packed)
        elif packed.refused:
            self._handle(ChunkRefused(job, packed.failures, packed.apart))
        else:
            self._ready[chunk] = packed
            self._handle(ChunkPacked(job))

    def job_ended(self, job: JobBook) -> None:
        """Stop packing for this job, of which no more items are sent."""
        self._picklers.end(job)
        self._not_plain.discard(job.number)
        if self._ready:
            self._forget_unwanted()

    def _forget_unwanted(self) -> None:
        for chunk in [chunk for chunk in self._ready if chunk not in chunk.job.packed]:
            self._give_back(self._ready.pop(chunk))

    def _give_back(self, packed: PackedItems) -> None:
        """Free the segments of items that are not sent."""
        if self._store is not None:
            self._store.take_back(packed.serials)

    def _send(self, lane: Lane, command: SendChunk, packed: PackedItems) -> ChunkSent:
        chunk, account = command.chunk, self._account(lane)
        self.lend_items(lane, account, packed)
        if command.with_handler:
            self._bring(lane, account, chunk.job.handler.shared)
            common = account.common
            common.update((segment.ref.serial, segment) for segment in chunk.job.handler.segments)
            while len(common) > KEEP_LENT:  # each costs a descriptor, and a handler may keep its arrays for ever
                del common[next(iter(common))]
        returned, stale, unshared = account.news()
        frame = ChunkFrame(
            job=chunk.job.number,
            chunk=chunk.number,
            items=packed.items,
            indices=chunk.indices,
            attempts=chunk.attempts,
            handler=chunk.job.handler.frame if command.with_handler else None,
            returned=returned,
            forget=stale,
            unshared=unshared,
            path=self._new_path(account),
            slots=chunk.job.table.slots_of(chunk.indices),
            grant=None if chunk.grant is None else item_grant(chunk.grant, self._books.device, self._devices),
            limit=chunk.limit,
        )
        if (tell := lane.answers.tell_early) is None:
            tell = lane.answers.tell_early = partial(self._take_in, lane, self._read_report)
        data = dump_frame(frame)
        apart, size = isinstance(packed.items, list), packed.size
        left_at = self._now()
        lane.send(data, tell)
        return ChunkSent(command.lane, command.generation, chunk.number, size, packed.seconds, left_at, apart=apart)

    def forget_job(self, lane: Lane, command: ForgetJob) -> None:
        """Make a worker drop a job."""
        if not command.at_once:
            account = self._accounts.get((lane.number, lane.generation))
            if account is not None:  # otherwise it was sent nothing yet, or has just died
                account.stale.append(command.job.number)
            return
        forgotten = partial(self._take_in, lane, partial(self._forgotten, command.job))
        lane.send(dump_frame(ForgetFrame(command.job.number)), forgotten)

    def initialize(self, lane: Lane, initializer: PackedHandler) -> None:
        """Make a new worker run the queue's initializer."""
        account = self._account(lane)
        self._bring(lane, account, initializer.shared)
        frame = InitializeFrame(initializer.frame.handler, self._new_path(account))
        lane.send(dump_frame(frame), partial(self._take_in, lane, self._initialized))

    # -- from the workers ------------------------------------------------------------------------------------

    def _take_in(
        self, lane: Lane, read: Callable[[Lane, bytes], Message | None], answer: Answer | BaseException
    ) -> None:
        """Handle an answer, unless it is invalid: that ends the worker."""
        if not isinstance(answer, Answer):  # it died, which `LaneDied` reports
            lane.kill()  # if it still lives, it does not work properly
            return
        try:
            message = read(lane, answer.data)
        except BaseException as error:
            self._replace(lane, error)
            return
        try:
            if message is not None:
                self._handle(message)
        except BaseException as error:  # an internal error, which this thread would lose
            self._inbox.post(found(f"while it took in an answer of worker {lane.number}", error))

    def _read_report(self, lane: Lane, data: bytes) -> ChunkReported | None:
        """Return a worker's report; None if it was cut short meanwhile."""
        key = (lane.number, lane.generation)
        carried = cast("CarryingLane", lane).carried if self._carries else NOTHING_CARRIED
        unpickling = Unpickling(data, *key, self._account(lane).returned.append, self._now, carried)
        self._unpicklings[key] = unpickling
        try:
            report = unpickling.report()
            if report is not None and unpickling.lost is not None:
                log.warning("an item of worker %d has failed: %s", lane.number, unpickling.lost.message)
            why = None if report is None or report.unreadable is None else report.unreadable.error.__cause__
            if isinstance(why, SegmentGoneError) and self._in_segments:
                cast("SharingLane", lane).take_results_by_pipe()  # if it lives
            return report
        finally:
            if self._unpicklings.get(key) is unpickling:
                del self._unpicklings[key]
            if self._carries:
                for serial in unpickling.segments:
                    cast("CarryingLane", lane).carried.pop(serial, None)

    def unpickling_since(self, lane: int, generation: int) -> float | None:
        """Return since when an answer of that worker is being unpickled; None if none is."""
        unpickling = self._unpicklings.get((lane, generation))
        return None if unpickling is None else unpickling.since

    def give_up_answer(self, lane: Lane) -> ChunkReported | None:
        """Return the finished part of the answer that takes too long to unpickle; None if it has just ended."""
        unpickling = self._unpicklings.pop((lane.number, lane.generation), None)
        if unpickling is None:
            return None
        report = unpickling.cut_short()
        if report is not None:
            self._inbox.call(lane.answers.abandon)  # after the report: it may be the last thing its death waits for
        return report

    def _replace(self, lane: Lane, error: BaseException) -> None:
        if isinstance(error, DamagedError):
            what = f"what it sent is damaged: {error}"
        else:
            what = f"what it sent makes no sense: {text_of(error)}"
            log.critical("worker %d sent an answer that makes no sense; please report it", lane.number, exc_info=error)
        self._inbox.post(LaneBroken(lane.number, lane.generation, what))
        lane.kill()

    def _forgotten(self, job: JobBook, lane: Lane, answer: bytes) -> JobForgotten:
        forgotten: ForgottenFrame = load_frame(answer)
        if forgotten.complaint is not None:
            log.warning(SETUP_END_FAILED, job.id, lane.number, forgotten.complaint)
        if forgotten.returned:
            self._inbox.call(self.take_back, lane.number, lane.generation, forgotten.returned)
        if forgotten.records:
            records = [load_frame(record) for record in forgotten.records]
            self._inbox.call(self._announce, AnnounceRecords(job, lane.number, records))
        return JobForgotten(lane.number, lane.generation, job.number)

    def _initialized(self, lane: Lane, answer: bytes) -> LaneInitialized:
        frame: FailureFrame | None = load_frame(answer)
        failure = None if frame is None else _failure(frame)
        text = "" if failure is None else shown(failure.error)
        return LaneInitialized(lane.number, lane.generation, failure, text)

    # -- what is lent ----------------------------------------------------------------------------------------

    def _account(self, lane: Lane) -> _Account:
        """Return the account of the lane's worker, made if it has none. On any thread."""
        key = (lane.number, lane.generation)
        account = self._accounts.get(key)
        if account is None:
            # Two threads may come at once. A forked worker may have modules from before a reload.
            account = self._accounts.setdefault(key, _Account(dropped=len(shared.dropped)))
        return account

    def lend_items(self, lane: Lane, account: _Account, packed: PackedItems) -> None:
        """Note the segments that this lane's worker gets with items that are about to be sent to it."""
        if packed.shared:
            self._bring(lane, account, packed.shared)
        if segments := packed.segments:
            account.lent.update(ref.serial for ref in segments)
        if packed.held:
            for segment in packed.held:
                account.held.setdefault(segment.ref.serial, []).append(segment)
            while len(account.held) > KEEP_LENT:  # a handler may keep them for ever; it has mapped them by then
                del account.held[next(iter(account.held))]
        if self._carries and not (carrying := cast("CarryingLane", lane)).shares_memory:
            contents = {} if self._store is None else {ref.serial: self._store.contents(ref) for ref in segments}
            contents.update((segment.ref.serial, view(segment.ref)) for segment in packed.held)
            carrying.carry(contents)

    def _bring(self, lane: Lane, account: _Account, objects: Iterable[shared.Shared[Any]]) -> None:
        """Bring these shared objects to the worker, if it needs that and does not have them."""
        if not self._carries:
            return
        for one in objects:
            if one not in account.brought:
                account.brought.add(one)
                cast("CarryingLane", lane).bring(one)

    def _new_path(self, account: _Account) -> tuple[str, ...] | None:
        """Return the program's ``sys.path`` if that worker has another one."""
        if not self._same_files or account.path == (path := self._imports.path_now()):
            return None
        account.path = path
        return path

    def take_back(self, lane: int, generation: int, serials: Sequence[int]) -> None:
        """Take back these segments, of each of which the worker has one view less, and no view of ours."""
        account = self._accounts.get((lane, generation))
        if account is None:
            return
        account.lent.difference_update(serials)
        if self._store is not None:
            self._store.take_back(serials)
        for serial in serials:
            account.common.pop(serial, None)
            if (holds := account.held.get(serial)) is not None:
                holds.pop()
                if not holds:
                    del account.held[serial]

    def lane_gone(self, lane: int, generation: int) -> None:
        """Give up a dead worker's segments: a child of it may still map them, so they are not used again."""
        account = self._accounts.pop((lane, generation), None)
        if account is not None and self._store is not None:
            self._store.give_up(sorted(account.lent))

    def close(self) -> None:
        """Keep nothing for reuse, now that the workers have ended, even if the queue is still referenced."""
        if self._store is not None:
            self._store = SegmentStore(KEEP_FREE_FOR_ITEMS)
        self._accounts.clear()


# -- Decodes workers' reports: the only place of the parent where results are unpickled. -------------------------------
#
# It runs on the lane's own thread, so that a slow or broken result delays its own lane only; if the answer is plain,
# on the thread that reads it.

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
        carried: Carried,
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
        frame = self._frame
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
        return {one.segment.serial for one in all_of(self._frame.results) if one.segment is not None}

    def cut_short(self) -> ChunkReported | None:
        """Return the part unpickled by now; None if `report` has ended after all."""
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
            seconds = self._now() - self.since
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

    def _report(
        self,
        results: list[Any],
        failures: dict[int, Failure],
        setup_failure: Failure | None,
        unreadable: Failure | None,
    ) -> ChunkReported:
        frame = self._frame
        added = _take_added(results, frame.added) if frame.added else None
        is_plain = (
            not (failures or setup_failure or unreadable)
            and (isinstance(frame.results, Packed) or frame.passed or pickle_without_user_code(results))
            and (not added or all(pickle_without_user_code(each.items) for each in added.values()))
        )
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
            size=self._size + sum(one.size - len(one.data) for one in all_of(frame.results)),
            received=self.since,
            decoded=self._now(),
            unreadable=unreadable,
            added=added,
            yielded=_yielded(results, frame.yielded) if frame.yielded else None,
            has_user_objects=not is_plain,
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


def _unreadable(error: BaseException) -> Failure:
    if isinstance(error, SegmentGoneError):  # the result is not at fault
        gone = WorkerCrashedError("the worker ended before its result could be taken")
        gone.__cause__ = error
        take_traceback(error)
        return Failure(gone)
    broken = ResultPicklingError(f"the result can't be unpickled: {text_of(error)}")
    broken.__cause__ = error
    return Failure(broken, take_traceback(error))


def _failure(frame: FailureFrame) -> Failure:
    type_name, message, trace, bases = frame.stand_in
    error: BaseException
    loaded: Any = None
    if frame.result is not None:
        reason, message = f"{type_name}: {message}", f"the result {frame.result} can't be pickled: {message}"
        error = ResultPicklingError(message, frame.result, reason)
    else:
        if frame.error is not None:
            with contextlib.suppress(BaseException):
                loaded = load_home(frame.error)
        if isinstance(loaded, Exception):
            error = loaded
        else:
            error = RemoteError(type_name, message, trace, bases)
            error._itself = loaded if isinstance(loaded, BaseException) else None  # noqa: SLF001 - for `Executor` alone
    error.__cause__ = RemoteTraceback(trace)
    text = message or type_name.rpartition(".")[2]
    return Failure(error, trace, frame.elapsed, frame.charged, text, raised=error is loaded)
