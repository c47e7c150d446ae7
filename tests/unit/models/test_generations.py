"""Generations of a lane against messages that come late: what a dead worker said is never taken for the next one's.

The real `Scheduler`, one lane, a job of two items. The first worker dies; what it said (a report, a look at its ledger,
its death, each perhaps twice) comes in every order, among what the second worker says, whose chunks have the same
numbers. Only what comes before the death may count.
"""

from __future__ import annotations

import random
from collections.abc import Callable

import pytest

from mpqueue._core.commands import SendChunk, StartLane
from mpqueue._core.messages import (
    ChunkReported,
    JobStartAsked,
    LaneDied,
    LaneObserved,
    LaneReady,
    Message,
    QueueOpened,
)
from mpqueue._core.scheduler import Scheduler
from mpqueue._core.state.books import Books
from mpqueue._core.state.item_table import make_table
from mpqueue._core.state.job_book import JobBook
from mpqueue._core.state.lane_book import Chunk
from mpqueue._options import JobOptions
from mpqueue._wire.frames import Ended
from mpqueue._wire.memory.ledger import Claim, Phase
from mpqueue.retry import RetryPolicy
from mpqueue.status import JobStatus
from tests.support.fake_worker import Handler
from tests.support.invariants import check_ended, check_invariants
from tests.unit.models.explorer import Model, World, explore, reverted


def report(chunk: Chunk, generation: int) -> ChunkReported:
    """All of the chunk has run; each result says in which worker."""
    results = [(index, generation) for index in chunk.indices]
    count = len(results)
    return ChunkReported(0, generation, chunk.number, 0, count, results, {}, [(count, 0.001, 0.001)], 0.001, Ended.DONE)


class Parent:
    """The scheduler, and what it has asked for."""

    def __init__(self, chunksize: int) -> None:
        self.scheduler = Scheduler(1, random.Random(0))
        options = JobOptions(RetryPolicy(base_delay=0), chunksize=chunksize)
        self.job = JobBook(1, "job", make_table(range(2)), options, Handler())
        self.sent: list[list[Chunk]] = [[]]  #: by generation, from 1
        self.handled: list[tuple[type, int]] = []
        self.handle(QueueOpened())
        self.handle(LaneReady(0, 1, 1000))
        self.handle(JobStartAsked(self.job, 0.0))

    def handle(self, message: Message) -> None:
        """One step, after which the books must balance."""
        books, generation = self.scheduler.books, getattr(message, "generation", -1)
        is_late = generation not in (-1, books.lanes[0].generation)
        before = self.job.completed
        self.handled.append((type(message), generation))
        for command in self.scheduler.handle(message, len(self.handled) * 1e-6):
            if isinstance(command, StartLane):
                self.sent.append([])
            elif isinstance(command, SendChunk):
                self.sent[command.generation].append(command.chunk)
        check_invariants(books)
        assert not is_late or self.job.completed == before, f"{message} counts, and its worker is dead"


def model(chunksize: int) -> Model:
    def make(world: World) -> Callable[[], None]:
        parent = Parent(chunksize)
        process = world.process("parent")
        chunk = parent.sent[1][0]
        claim = Claim(chunk.number, Phase.RUNNING, 0, 1, 0.0)

        def say(*messages: Message) -> None:
            for message in messages:
                world.pause()
                parent.handle(message)

        def next_worker() -> None:
            world.pause(lambda: len(parent.sent) > 2)
            parent.handle(LaneReady(0, 2, 1001))
            answered: list[Chunk] = []
            while parent.job.active:
                world.pause(lambda: parent.sent[2] != answered or not parent.job.active)
                for chunk in parent.sent[2][len(answered) :][:1]:
                    answered.append(chunk)
                    parent.handle(report(chunk, 2))

        world.thread(process, lambda: say(report(chunk, 1)))
        world.thread(process, lambda: say(LaneDied(0, 1, 1000, -9, "SIGKILL", claim), report(chunk, 1)))
        world.thread(process, lambda: say(LaneObserved(0, 1, claim)))
        world.thread(process, next_worker)
        world.shared = lambda: tuple(parent.handled)

        def look() -> None:
            assert parent.job.status is JobStatus.COMPLETED
            check_ended(parent.job)
            assert [index for index, _ in parent.job.table.results] == [0, 1]

        return look

    return make


@pytest.mark.parametrize("chunksize", [1, 2])
def test_what_a_dead_worker_says_late_counts_for_nothing(chunksize: int) -> None:
    assert explore(model(chunksize)).states > 20


def test_the_model_finds_books_that_do_not_ask_for_the_generation(monkeypatch: pytest.MonkeyPatch) -> None:
    old = "return lane if lane.generation == generation else None"
    monkeypatch.setattr(Books, "live_lane", reverted(Books.live_lane, old, "return lane"))
    with pytest.raises(AssertionError):
        explore(model(2))
