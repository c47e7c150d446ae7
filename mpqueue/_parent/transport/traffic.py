"""The traffic with workers: frames made of commands, and messages made of answers.

It also counts the segments that are lent to workers and had from them, for each generation of a lane. It runs on the
coordinator's thread, except for the answers, which lanes may give on their own threads. It decides nothing.
"""

from __future__ import annotations

import logging
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
    RecordsLeft,
)
from mpqueue._core.state.books import Books
from mpqueue._core.state.job_book import JobBook
from mpqueue._core.state.lane_book import Chunk
from mpqueue._core.state.resources import Grant
from mpqueue._options import DEVICES_VARIABLE
from mpqueue._parent.lane_protocol import CarryingLane, Lane, Post, SharingLane
from mpqueue._parent.own_faults import found
from mpqueue._parent.transport.decode import Unpickling, decode_failure
from mpqueue._parent.transport.kept_errors import text_of
from mpqueue._parent.transport.packing import PackedItems, Packing, pack_at_once, pack_parcels
from mpqueue._parent.users_threads import Asides
from mpqueue._wire.frames import (
    ChunkFrame,
    ForgetFrame,
    ForgottenFrame,
    InitializeFrame,
    Means,
    dump_frame,
    load_frame,
    load_unsent,
)
from mpqueue._wire.line import Answer, DamagedError
from mpqueue._wire.memory import shared
from mpqueue._wire.memory.segments import (
    KEEP_FREE_FOR_ITEMS,
    KEEP_LENT,
    NOTHING_CARRIED,
    CommonSegment,
    HeldSegment,
    SegmentGoneError,
    SegmentStore,
    can_lend,
    view,
)
from mpqueue._wire.pickling.imports import ImportWatch
from mpqueue._wire.pickling.packed_handler import PackedHandler
from mpqueue.errors import shown

log = logging.getLogger("mpqueue")

SETUP_END_FAILED = "job %r: the end of its setup failed on worker %d:\n%s"


def means_of(grant: Grant, device: str | None, devices: Sequence[str]) -> Means:
    """Return the part of a grant that is sent to the worker; ``devices``: CUDA's names of the units of ``device``."""
    variables = {}
    if device is not None and device in grant.units:
        variables[DEVICES_VARIABLE] = ",".join(devices[unit] for unit in grant.units[device])
    return Means({name: [*units] for name, units in grant.units.items()}, grant.needs.cpus, variables)


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

    def take_back(self, serial: int) -> None:
        """Note that the worker has one view less of this segment."""
        self.common.pop(serial, None)
        if (holds := self.held.get(serial)) is not None:
            holds.pop()
            if not holds:
                del self.held[serial]


def last_words(lane: Lane) -> RecordsLeft | None:
    """Return the unsent log records of a dead worker; None if there are none."""
    unsent = load_unsent(lane.take_unsent())
    if unsent is None:
        return None
    number, records = unsent
    return RecordsLeft(lane.number, lane.generation, number, records) if records else None


class Traffic:
    """The traffic of a queue with its workers. ``post`` and ``later`` reach the coordinator from any thread.

    ``packers`` are threads for items that are pickled by code of their classes; ``handle`` handles a message, on the
    coordinator's thread. ``devices``: see `means_of`.
    """

    def __init__(
        self,
        now: Callable[[], float],
        post: Post,
        later: Callable[[Callable[[], None]], object],
        announce: Callable[[AnnounceRecords], None],
        books: Books,
        packers: Asides,
        handle: Callable[[Message], None],
        devices: Sequence[str] = (),
    ) -> None:
        self._devices = devices
        self._now = now
        self._post = post
        self._later = later
        self._announce = announce
        self._books = books
        self._packers = packers
        self._handle = handle
        self._engine = books.engine
        self._carries = books.engine.carries
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
        # If some items of a job are not plain, the others hardly are.
        packed = None if self._packers.has(job.number) else self.pack_at_once(chunk, items)
        if packed is not None:
            return self._send(lane, command, packed)
        handler: PackedHandler = job.handler
        notes, script, classes = self._carries, handler.script, handler.classes
        packing = Packing(chunk, items, self._store, self._now, notes=notes, script=script, classes=classes)
        self._packers.put(job.number, packing, partial(self._packed, chunk))
        return ChunkPacking(command.lane, command.generation, chunk.number)

    def pack_at_once(self, chunk: Chunk, items: list[Any]) -> PackedItems | None:
        """Return the chunk's items, if pickling them runs no users' code; else None."""
        began, packed = self._now(), pack_at_once(chunk, items, self._store)
        return None if packed is None else PackedItems(packed, {}, seconds=self._now() - began)

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
        self._packers.end(job.number)
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
            self._lend(account, chunk.job.handler.segments)
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
            means=None if chunk.grant is None else means_of(chunk.grant, self._books.device, self._devices),
            limit=chunk.limit,
        )
        if (tell := lane.answers.tell_early) is None:
            tell = lane.answers.tell_early = partial(self._take_in, lane, self._answered)
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

    def _take_in(self, lane: Lane, take: Callable[[Lane, bytes], None], answer: Answer | BaseException) -> None:
        """Handle an answer. Its thread would lose an error of ``take``, which is an internal error."""
        if not isinstance(answer, Answer):  # it died, which `LaneDied` reports
            lane.kill()  # if it still lives, it does not work properly
            return
        try:
            take(lane, answer.data)
        except BaseException as error:
            at = f"while it took in an answer of worker {lane.number}"
            self._post(found(at, error, lane=lane.number, generation=lane.generation))

    def _answered(self, lane: Lane, answer: bytes) -> None:
        if (report := self._decode(lane, answer)) is not None:
            self._handle(report)

    def _decode(self, lane: Lane, data: bytes) -> ChunkReported | None:
        """Return a worker's report; None, and end that worker, if it is invalid."""
        key, unpickling, carried = (lane.number, lane.generation), None, NOTHING_CARRIED
        try:
            if self._carries:
                carried = cast("CarryingLane", lane).carried
            unpickling = Unpickling(data, *key, self._account(lane).returned.append, self._now, carried)
            self._unpicklings[key] = unpickling
            report = unpickling.report()
            if report is not None and unpickling.lost is not None:
                log.warning("an item of worker %d has failed: %s", lane.number, unpickling.lost.message)
            why = None if report is None or report.unreadable is None else report.unreadable.error.__cause__
            if isinstance(why, SegmentGoneError) and self._in_segments:
                cast("SharingLane", lane).take_results_by_pipe()  # if it lives
            return report
        except BaseException as error:
            self._replace(lane, error)
            return None
        finally:
            if unpickling is not None and self._unpicklings.get(key) is unpickling:
                del self._unpicklings[key]
            if unpickling is not None and self._carries:
                for serial in unpickling.segments:
                    cast("CarryingLane", lane).carried.pop(serial, None)

    def unpickling_since(self, lane: Lane) -> float | None:
        """Return since when an answer of that worker is being unpickled; None if none is."""
        unpickling = self._unpicklings.get((lane.number, lane.generation))
        return None if unpickling is None else unpickling.since

    def give_up_answer(self, lane: Lane) -> ChunkReported | None:
        """Return the finished part of the answer that takes too long to unpickle; None if it has just ended."""
        unpickling = self._unpicklings.pop((lane.number, lane.generation), None)
        if unpickling is None:
            return None
        report = unpickling.cut_short(self._now() - unpickling.since)
        if report is not None:
            self._later(lane.answers.abandon)  # after the report: it may be the last thing its death waits for
        return report

    def _replace(self, lane: Lane, error: BaseException) -> None:
        if isinstance(error, DamagedError):
            what = f"what it sent is damaged: {error}"
        else:
            what = f"what it sent makes no sense: {text_of(error)}"
            log.critical("worker %d sent an answer that makes no sense; please report it", lane.number, exc_info=error)
        self._post(LaneBroken(lane.number, lane.generation, what))
        lane.kill()

    def _forgotten(self, job: JobBook, lane: Lane, answer: bytes) -> None:
        try:
            forgotten: ForgottenFrame = load_frame(answer)
            if forgotten.complaint is not None:
                log.warning(SETUP_END_FAILED, job.id, lane.number, forgotten.complaint)
            if forgotten.returned:
                self._later(partial(self.take_back, lane.number, lane.generation, forgotten.returned))
            if forgotten.records:
                records = [load_frame(record) for record in forgotten.records]
                self._later(partial(self._announce, AnnounceRecords(job, lane.number, records)))
        except BaseException as error:
            self._replace(lane, error)
        else:
            self._post(JobForgotten(lane.number, lane.generation, job.number))

    def _initialized(self, lane: Lane, answer: bytes) -> None:
        try:
            failure = decode_failure(answer)
        except BaseException as error:
            self._replace(lane, error)
        else:
            text = "" if failure is None else shown(failure.error)
            self._post(LaneInitialized(lane.number, lane.generation, failure, text))

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
            carrying.carry(self._contents(packed))

    def _contents(self, packed: PackedItems) -> dict[int, memoryview]:
        """Return the contents of these items' segments, by serial."""
        contents = {} if self._store is None else {ref.serial: self._store.contents(ref) for ref in packed.segments}
        contents.update((segment.ref.serial, view(segment.ref)) for segment in packed.held)
        return contents

    def _bring(self, lane: Lane, account: _Account, objects: Iterable[shared.Shared[Any]]) -> None:
        """Bring these shared objects to the worker, if it needs that and does not have them."""
        if not self._carries:
            return
        for one in objects:
            if one not in account.brought:
                account.brought.add(one)
                cast("CarryingLane", lane).bring(one)

    def _lend(self, account: _Account, segments: Sequence[CommonSegment]) -> None:
        """Note that the worker is about to map the big parts of a handler."""
        common = account.common
        common.update((segment.ref.serial, segment) for segment in segments)
        while len(common) > KEEP_LENT:  # each costs a descriptor, and a handler may keep its arrays for ever
            del common[next(iter(common))]

    def _new_path(self, account: _Account) -> tuple[str, ...] | None:
        """Return the program's ``sys.path`` if that worker has another one."""
        if not self._same_files or account.path == (path := self._imports.path_now()):
            return None
        account.path = path
        return path

    def take_back(self, lane: int, generation: int, serials: Sequence[int]) -> None:
        """Take back these segments, of which the worker has no view any more."""
        account = self._accounts.get((lane, generation))
        if account is not None:
            account.lent.difference_update(serials)
            if self._store is not None:
                self._store.take_back(serials)
            for serial in serials:
                account.take_back(serial)

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
