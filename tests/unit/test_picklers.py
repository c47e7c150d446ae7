"""Code of users' classes that is slow: how often it is looked at, and what is done without it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from types import SimpleNamespace
from typing import Any

import pytest

from mpqueue._core.state.item_table import make_table
from mpqueue._core.state.job_book import JobBook
from mpqueue._core.state.lane_book import Chunk
from mpqueue._core.state.pending import Care
from mpqueue._options import JobOptions
from mpqueue._parent import users_threads as module
from mpqueue._parent.packing import Packing
from mpqueue._parent.users_threads import HURRY, LOOK, Picklers, PickleTask
from mpqueue.errors import ItemPicklingError
from mpqueue.retry import RetryPolicy
from mpqueue.status import JobStatus


class Errands:
    """A thread that begins the first of its errands, and hangs in it."""

    made: list[Errands]

    def __init__(self, name: str, *_: object) -> None:
        self.name = name
        self.abandoned, self.ended = 0, False
        self._waiting: list[Any] = []
        Errands.made.append(self)

    def put(self, errand: Callable[[], object]) -> None:
        self._waiting.append(errand)
        self._begin()

    def abandon(self) -> None:
        self.abandoned += 1
        del self._waiting[0]
        self._begin()

    def _begin(self) -> None:
        if self._waiting:
            self._waiting[0].args[1].is_begun = True

    def end(self) -> None:
        self.ended = True


@dataclass
class Slow(PickleTask[str]):
    """Is at an object until a test says that it is at another; ``patient``: not done without, however long it takes."""

    at: int = 0
    patient: bool = False
    ends_with_job: bool = False

    @property
    def step(self) -> int:
        return self.at

    def run(self) -> str | None:
        raise AssertionError("on no thread here")

    def cut_short(self) -> str | None:
        return "cut short"

    def takes_long(self) -> str | None:
        return None if self.patient else "takes long"


class Clock:
    now = 0.0


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    monkeypatch.setattr(module, "Errands", Errands)
    Errands.made = []
    return Clock()


def picklers_by(clock: Clock) -> Picklers:
    inbox: Any = SimpleNamespace(call=None, call_later=None)
    return Picklers(lambda: clock.now, inbox)


def job_of(*items: Any, number: int = 1) -> JobBook:
    job = JobBook(number, "job", make_table(list(items)), JobOptions(RetryPolicy()), None)
    job.status = JobStatus.RUNNING
    return job


def look_at(picklers: Picklers, clock: Clock, *moments: float) -> None:
    for clock.now in moments:
        due = picklers.deadline
        assert due is None or due <= clock.now, "the next look is due by then"
        picklers.look()


def test_what_three_looks_find_at_the_same_object_is_done_without_and_its_thread_left(clock: Clock) -> None:
    picklers, came = picklers_by(clock), list[tuple[str, str]]()
    for number in (1, 2):
        then = partial(lambda number, done: came.append((f"job {number}", done)), number)
        picklers.put(job_of("a", number=number), Slow(), then)
    look_at(picklers, clock, LOOK, 2 * LOOK)
    assert came == []
    look_at(picklers, clock, 3 * LOOK)
    assert came == [("job 1", "takes long"), ("job 2", "takes long")]
    assert [thread.abandoned for thread in Errands.made] == [1, 1]
    assert picklers.all_done
    assert 30 <= 3 * LOOK <= 45, "as docs/explanation/promises.md says"


def test_what_goes_on_to_another_object_has_the_time_again(clock: Clock) -> None:
    picklers, came, slow = picklers_by(clock), list[str](), Slow()
    picklers.put(job_of("a"), slow, came.append)
    for turn in range(5):
        look_at(picklers, clock, (2 * turn + 1) * LOOK, (2 * turn + 2) * LOOK)
        slow.at += 1
    assert came == []


@pytest.mark.holds("wait: a result is pickled for the journal, and written")
def test_what_may_take_for_ever_goes_on_until_its_job_is_killed(clock: Clock) -> None:
    picklers, came = picklers_by(clock), list[str]()
    job = job_of("a")
    picklers.put(job, Slow(patient=True), came.append)
    look_at(picklers, clock, *(LOOK * turn for turn in range(1, 10)))
    assert came == []
    assert not picklers.all_done
    picklers.hurry([job])
    picklers.look()
    assert came == []
    look_at(picklers, clock, clock.now + HURRY)
    assert came == ["cut short"]


@pytest.mark.parametrize("everything", [False, True])
def test_of_a_job_that_was_killed_nothing_that_comes_later_takes_long(clock: Clock, everything: bool) -> None:
    picklers, came = picklers_by(clock), list[str]()
    killed, other = job_of("a"), job_of("b", number=2)
    if everything:
        picklers.hurry()
    killed.killed = not everything
    for job in killed, other:
        picklers.put(job, Slow(patient=True), partial(lambda number, _: came.append(f"job {number}"), job.number))
    look_at(picklers, clock, HURRY)
    assert came == (["job 1", "job 2"] if everything else ["job 1"])


def test_items_of_a_job_that_has_ended_hold_up_no_row_and_the_thread_ends_after_the_rows(clock: Clock) -> None:
    picklers, job, came = picklers_by(clock), job_of("a"), list[str]()
    row = Slow(patient=True)
    for name, task in ("item", Slow(ends_with_job=True)), ("row", row), ("late item", Slow(ends_with_job=True)):
        picklers.put(job, task, partial(lambda name, _: came.append(name), name))
    (thread,) = Errands.made
    job.status = JobStatus.CANCELLED
    picklers.end(job)
    assert came == ["item", "late item"]
    assert (thread.abandoned, thread.ended) == (1, False)
    picklers.hurry([job])
    look_at(picklers, clock, HURRY)
    assert came == ["item", "late item", "row"]
    assert thread.ended
    assert not picklers.lines


def chunk_of(*items: Any) -> Chunk:
    return Chunk(1, job_of(*items), range(len(items)), Care.NONE, expected=0.0, sent_at=0.0)


@pytest.mark.holds("wait: an item is pickled in your program")
def test_the_item_that_is_pickled_for_ever_fails_and_those_that_went_with_it_go_apart() -> None:
    together = Packing(chunk_of("a", "b"), ["a", "b"], None, float).cut_short()
    assert together is not None
    assert (together.apart, together.failures) == (True, {})
    alone = Packing(chunk_of("a"), ["a"], None, float).cut_short()
    assert alone is not None
    error = alone.failures[0].error
    assert isinstance(error, ItemPicklingError)
    assert str(error) == "item 0 of type str can't be pickled: it takes too long"
    assert not alone.failures[0].charged
