"""What goes to the workers and what comes back: frames made of commands, and messages made of answers.

On the coordinator's thread, but for the answers, which lanes give on threads of their own. It decides nothing: what an
answer says goes into the inbox.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from concurrent.futures import Future
from functools import partial
from typing import cast

from mpqueue._core.commands import AnnounceRecords, ForgetJob, SendChunk
from mpqueue._core.messages import (
    ChunkRefused,
    ChunkReported,
    ChunkSent,
    JobForgotten,
    LaneBroken,
    LaneDied,
    LaneInitialized,
    Message,
)
from mpqueue._core.state.books import Books
from mpqueue._core.state.job_book import JobBook
from mpqueue._parent.lane_protocol import EarlyLane, Lane, Post
from mpqueue._parent.own_faults import found
from mpqueue._parent.surroundings.probe import reached
from mpqueue._parent.transport.decode import Unpickling, decode_failure
from mpqueue._parent.transport.exchange import Exchange
from mpqueue._parent.transport.kept_errors import text_of
from mpqueue._parent.transport.last_words import records_of
from mpqueue._wire.frames import ChunkFrame, ForgetFrame, ForgottenFrame, InitializeFrame, dump_frame, load_frame
from mpqueue._wire.line import DamagedError
from mpqueue._wire.memory.segments import SegmentGoneError
from mpqueue._wire.pickling.packed_handler import PackedHandler
from mpqueue._wire.pickling.payload import Packed

log = logging.getLogger("mpqueue")

SETUP_END_FAILED = "job %r: the end of its setup failed on worker %d:\n%s"


class Traffic:
    """Owns the `Exchange`. ``post`` and ``later`` reach the coordinator from any thread."""

    def __init__(
        self,
        now: Callable[[], float],
        post: Post,
        later: Callable[[Callable[[], None]], object],
        announce: Callable[[AnnounceRecords], None],
        books: Books,
    ) -> None:
        self._now = now
        self._post = post
        self._later = later
        self._announce = announce
        self._books = books
        self._exchange = Exchange(books.engine)
        self._unpicklings: dict[tuple[int, int], Unpickling] = {}  #: by lane and generation, on any thread

    # -- to the workers --------------------------------------------------------------------------------------

    def send_chunk(self, lane: Lane, command: SendChunk) -> ChunkSent | ChunkRefused:
        """Send a chunk; the message that it is on its way, or that it can't be, since items of it can't be pickled."""
        chunk = command.chunk
        began = self._now()
        packed = self._exchange.pack(lane, chunk)
        if isinstance(packed, dict):
            return ChunkRefused(command.lane, command.generation, chunk.number, packed)
        packing = self._now() - began
        brings_handler = command.with_handler or not self._books.engine.is_sticky
        if brings_handler:
            self._exchange.bring(lane, chunk.job.handler.shared)
            self._exchange.lend(lane, chunk.job.handler.segments)
        frame = ChunkFrame(
            job=chunk.job.number,
            chunk=chunk.number,
            items=packed,
            indices=chunk.indices,
            attempts=chunk.attempts,
            handler=chunk.job.handler.frame if brings_handler else None,
            returned=self._exchange.returned(lane),
            forget=self._exchange.to_forget(lane),
            alive=None if self._books.engine.is_sticky else [*self._books.jobs],
            unshared=self._exchange.unshared(lane),
            imports=self._exchange.import_news(lane),
        )
        if self._books.engine.shares_memory and (early := cast("EarlyLane", lane)).early_later is None:
            early.early_later = partial(self._early_later, lane)
        data = dump_frame(frame)
        together = isinstance(packed, Packed)
        size = packed.size if isinstance(packed, Packed) else sum(one.size for one in packed)
        sent = ChunkSent(command.lane, command.generation, chunk.number, size, packing, self._now(), apart=not together)
        lane.send(data).add_done_callback(partial(self._take_in, lane, self._answered))
        reached("chunk sent", chunk)
        return sent

    def forget_job(self, lane: Lane, command: ForgetJob) -> JobForgotten | None:
        """Have a worker drop a job; or the message that it is done: of a light handler it hears with the next chunk."""
        if command.job.handler.light or not self._books.engine.is_sticky:
            self._exchange.forget_later(lane, command.job.number)
            return JobForgotten(command.lane, command.generation, command.job.number)
        answer = lane.send(dump_frame(ForgetFrame(command.job.number)))
        answer.add_done_callback(partial(self._take_in, lane, partial(self._forgotten, command.job)))
        return None

    def initialize(self, lane: Lane, initializer: PackedHandler) -> None:
        """Have a new worker run the queue's initializer."""
        self._exchange.bring(lane, initializer.shared)
        frame = InitializeFrame(initializer.frame.handler, self._exchange.import_news(lane))
        lane.send(dump_frame(frame)).add_done_callback(partial(self._take_in, lane, self._initialized))

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

    def _take_in(self, lane: Lane, take: Callable[[Lane, Future[bytes]], None], answer: Future[bytes]) -> None:
        """On the lane's own thread: what ``take`` raises would be lost there, and is a mistake of ours."""
        try:
            take(lane, answer)
        except BaseException as error:
            at = f"while it took in an answer of worker {lane.number}"
            self._post(found(at, error, lane=lane.number, generation=lane.generation))

    def _answered(self, lane: Lane, answer: Future[bytes]) -> None:
        """On the lane's own thread: a worker answered, or died (which `LaneDied` tells)."""
        if answer.exception() is not None:
            lane.kill()  # where it still lives, it is not what it should be
        elif (report := self._decode(lane, answer.result())) is not None:
            self._post(report)

    def _decode(self, lane: Lane, data: bytes) -> ChunkReported | None:
        """A worker's report; None, and the end of that worker, where it makes no sense."""
        key, unpickling = (lane.number, lane.generation), None
        try:
            unpickling = Unpickling(data, *key, self._exchange.received(lane), self._now)
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

    def _forgotten(self, job: JobBook, lane: Lane, answer: Future[bytes]) -> None:
        if answer.exception() is not None:
            return
        try:
            forgotten: ForgottenFrame = load_frame(answer.result())
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

    def _initialized(self, lane: Lane, answer: Future[bytes]) -> None:
        if answer.exception() is not None:
            return
        try:
            failure = decode_failure(answer.result())
        except BaseException as error:
            self._replace(lane, error)
        else:
            self._post(LaneInitialized(lane.number, lane.generation, failure))

    # -- segments --------------------------------------------------------------------------------------------

    def settle(self, message: Message) -> None:
        """Take back the segments that a worker has done with, or those of a dead one."""
        if isinstance(message, ChunkReported) and message.returned:
            self._exchange.take_back(message.lane, message.generation, message.returned)
        elif isinstance(message, LaneDied):
            self._exchange.lane_gone(message.lane, message.generation)

    def lane_gone(self, lane: Lane) -> None:
        """That worker is let go: what it held is not used again."""
        self._exchange.lane_gone(lane.number, lane.generation)

    def close(self) -> None:
        """The workers are gone: keep nothing for reuse, whoever still holds the queue."""
        self._exchange.close()
