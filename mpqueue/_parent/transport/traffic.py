"""What goes to the workers and what comes back: frames made of commands, and messages made of answers.

On the coordinator's thread, but for the answers, which lanes give on threads of their own. It decides nothing: what an
answer says goes into the inbox.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from functools import partial
from typing import cast

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
from mpqueue._core.state.job_book import JobBook
from mpqueue._core.state.lane_book import Chunk
from mpqueue._core.state.needs.resources import Grant
from mpqueue._options import DEVICES_VARIABLE
from mpqueue._parent.lane_protocol import EarlyLane, Lane, Post
from mpqueue._parent.own_faults import found
from mpqueue._parent.transport.decode import Unpickling, decode_failure
from mpqueue._parent.transport.exchange import Exchange
from mpqueue._parent.transport.kept_errors import text_of
from mpqueue._parent.transport.last_words import records_of
from mpqueue._parent.transport.packing import PackedItems, pack_parcels
from mpqueue._parent.users_code.asides import Asides
from mpqueue._wire.frames import (
    ChunkFrame,
    ForgetFrame,
    ForgottenFrame,
    InitializeFrame,
    Means,
    dump_frame,
    load_frame,
)
from mpqueue._wire.line import DamagedError
from mpqueue._wire.memory.segments import SegmentGoneError
from mpqueue._wire.pickling.packed_handler import PackedHandler
from mpqueue.errors import shown

log = logging.getLogger("mpqueue")

SETUP_END_FAILED = "job %r: the end of its setup failed on worker %d:\n%s"


def means_of(grant: Grant, device: str | None, devices: Sequence[str]) -> Means:
    """The part of it that is sent to the worker; ``devices``: what CUDA calls each unit of ``device``."""
    variables = {}
    if device is not None and device in grant.units:
        variables[DEVICES_VARIABLE] = ",".join(devices[unit] for unit in grant.units[device])
    return Means({name: [*units] for name, units in grant.units.items()}, grant.needs.cpus, variables)


class Traffic:
    """Owns the `Exchange`. ``post`` and ``later`` reach the coordinator from any thread.

    ``packers`` are threads for items that are pickled by code of their classes; ``handle`` has a message handled, on
    the coordinator's thread. ``devices``: see `means_of`.
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
        self._exchange = Exchange(books.engine)
        self._ready: dict[Chunk, PackedItems] = {}  #: chunks that wait, pickled, for a lane
        self._unpicklings: dict[tuple[int, int], Unpickling] = {}  #: by lane and generation, on any thread

    # -- to the workers --------------------------------------------------------------------------------------

    def work_came(self) -> None:
        """From the user: the next chunk is that of a program as it is now."""
        self._exchange.work_came()

    def send_chunk(self, lane: Lane, command: SendChunk) -> ChunkSent | ChunkPacking:
        """Send a chunk; or have its items pickled first where that runs code of their classes. Returns the message."""
        chunk, job = command.chunk, command.chunk.job
        if self._ready and (ready := self._ready.pop(chunk, None)) is not None:
            return self._send(lane, command, ready)
        items = job.table.payloads_of(chunk.indices)
        if job.stage is not None and job.stage.place:
            return self._send(lane, command, pack_parcels(items, careful=chunk.careful))
        # Where some items of a job are not plain the others hardly are.
        packed = None if self._packers.has(job.number) else self._exchange.pack_at_once(chunk, items, self._now)
        if packed is not None:
            return self._send(lane, command, packed)
        packing = self._exchange.packing(chunk, items, self._now)
        self._packers.put(job.number, packing, partial(self._packed, chunk))
        return ChunkPacking(command.lane, command.generation, chunk.number)

    def _packed(self, chunk: Chunk, packed: PackedItems) -> None:
        """The job's own thread has pickled a chunk's items; they may no longer be wanted."""
        job = chunk.job
        self._forget_unwanted()
        if chunk not in job.packing:
            self._exchange.give_back(packed)
        elif packed.refused:
            self._handle(ChunkRefused(job, packed.failures, packed.apart))
        else:
            self._ready[chunk] = packed
            self._handle(ChunkPacked(job))

    def job_ended(self, job: JobBook) -> None:
        """Nothing more of this job is to be sent."""
        self._packers.end(job.number)
        if self._ready:
            self._forget_unwanted()

    def _forget_unwanted(self) -> None:
        for chunk in [chunk for chunk in self._ready if chunk not in chunk.job.packed]:
            self._exchange.give_back(self._ready.pop(chunk))

    def _send(self, lane: Lane, command: SendChunk, packed: PackedItems) -> ChunkSent:
        chunk = command.chunk
        self._exchange.hand_over(lane, packed)
        brings_handler = command.with_handler or not self._books.engine.is_sticky
        if brings_handler:
            self._exchange.bring(lane, chunk.job.handler.shared)
            self._exchange.lend(lane, chunk.job.handler.segments)
        news = self._exchange.news(lane)
        frame = ChunkFrame(
            job=chunk.job.number,
            chunk=chunk.number,
            items=packed.items,
            indices=chunk.indices,
            attempts=chunk.attempts,
            handler=chunk.job.handler.frame if brings_handler else None,
            returned=news.returned,
            forget=news.forget,
            alive=None if self._books.engine.is_sticky else [*self._books.jobs],
            unshared=news.unshared,
            imports=news.imports,
            slots=chunk.job.table.slots_of(chunk.indices),
            means=None if chunk.grant is None else means_of(chunk.grant, self._books.device, self._devices),
            limit=chunk.limit,
        )
        if self._books.engine.shares_memory and (early := cast("EarlyLane", lane)).early_later is None:
            early.early_later = partial(self._early_later, lane)
        data = dump_frame(frame)
        apart, size = isinstance(packed.items, list), packed.size
        left_at = self._now()
        lane.send(data, partial(self._take_in, lane, self._answered))
        return ChunkSent(command.lane, command.generation, chunk.number, size, packed.seconds, left_at, apart=apart)

    def forget_job(self, lane: Lane, command: ForgetJob) -> None:
        """Have a worker drop a job."""
        if not command.at_once:
            self._exchange.forget_later(lane, command.job.number)
            return
        forgotten = partial(self._take_in, lane, partial(self._forgotten, command.job))
        lane.send(dump_frame(ForgetFrame(command.job.number)), forgotten)

    def initialize(self, lane: Lane, initializer: PackedHandler) -> None:
        """Have a new worker run the queue's initializer."""
        self._exchange.bring(lane, initializer.shared)
        frame = InitializeFrame(initializer.frame.handler, self._exchange.import_news(lane))
        lane.send(dump_frame(frame), partial(self._take_in, lane, self._initialized))

    # -- from the workers ------------------------------------------------------------------------------------

    def early_report(self, lane: Lane) -> ChunkReported | None:
        """What the worker left in its outbox in the middle of a chunk; its outbox is free again."""
        try:
            early = lane.take_early()
        except Exception as error:
            self._replace(lane, error)
            return None
        return None if early is None else self._decode(lane, early)

    def _early_later(self, lane: Lane, fetch: Callable[[], bytes | None]) -> None:
        """On the lane's own thread: the same where users' code may run."""
        try:
            early = fetch()
        except Exception as error:
            self._replace(lane, error)
            return
        if early is not None and (report := self._decode(lane, early)) is not None:
            self._post(report)

    def _take_in(self, lane: Lane, take: Callable[[Lane, bytes], None], answer: bytes | BaseException) -> None:
        """On the lane's own thread: what ``take`` raises would be lost there, and is a mistake of ours."""
        if not isinstance(answer, bytes):  # it died, which `LaneDied` tells
            lane.kill()  # where it still lives, it is not what it should be
            return
        try:
            take(lane, answer)
        except BaseException as error:
            at = f"while it took in an answer of worker {lane.number}"
            self._post(found(at, error, lane=lane.number, generation=lane.generation))

    def _answered(self, lane: Lane, answer: bytes) -> None:
        if (report := self._decode(lane, answer)) is not None:
            self._handle(report)

    def _decode(self, lane: Lane, data: bytes) -> ChunkReported | None:
        """A worker's report; None, and the end of that worker, where it makes no sense."""
        key, unpickling = (lane.number, lane.generation), None
        try:
            carried = self._exchange.carried(lane)
            unpickling = Unpickling(data, *key, self._exchange.received(lane), self._now, carried)
            self._unpicklings[key] = unpickling
            report = unpickling.report()
            if report is not None and unpickling.lost is not None:
                log.warning("an item of worker %d has failed: %s", lane.number, unpickling.lost.message)
            why = None if report is None or report.unreadable is None else report.unreadable.error.__cause__
            if isinstance(why, SegmentGoneError):
                self._exchange.unreachable(lane)
            return report
        except BaseException as error:
            self._replace(lane, error)
            return None
        finally:
            if unpickling is not None and self._unpicklings.get(key) is unpickling:
                del self._unpicklings[key]
            if unpickling is not None:
                self._exchange.drop_carried(lane, unpickling)

    def unpickling_since(self, lane: Lane) -> float | None:
        """Since when an answer of that worker is being unpickled; None where none is."""
        unpickling = self._unpicklings.get((lane.number, lane.generation))
        return None if unpickling is None else unpickling.since

    def give_up_answer(self, lane: Lane) -> ChunkReported | None:
        """The answer at hand takes too long to unpickle: what there is of it, where it has not just come to its end."""
        unpickling = self._unpicklings.pop((lane.number, lane.generation), None)
        if unpickling is None:
            return None
        report = unpickling.cut_short(self._now() - unpickling.since)
        if report is not None:
            self._later(lane.abandon_answer)  # after the report: it may have been the last thing its death waited for
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
                self._later(partial(self._exchange.take_back, lane.number, lane.generation, forgotten.returned))
            if forgotten.records:
                self._later(partial(self._announce, records_of(job, lane.number, forgotten.records)))
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

    # -- segments --------------------------------------------------------------------------------------------

    def take_back(self, message: ChunkReported) -> None:
        """Take back the segments that a worker has done with."""
        if message.returned:
            self._exchange.take_back(message.lane, message.generation, message.returned)

    def lane_gone(self, lane: int, generation: int) -> None:
        """That worker is gone, or is let go: what it held is not used again."""
        self._exchange.lane_gone(lane, generation)

    def close(self) -> None:
        """The workers are gone: keep nothing for reuse, even if the queue is still referenced."""
        self._exchange.close()
