"""Code of users' classes that is slow: how often it is looked at, and what is done without it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest

from mpqueue._core.state.item_table import make_table
from mpqueue._core.state.job_book import JobBook
from mpqueue._core.state.lane_book import Chunk
from mpqueue._core.state.pending import Care
from mpqueue._options import JobOptions
from mpqueue._parent import users_threads as module
from mpqueue._parent.transport.packing import Packing
from mpqueue._parent.users_threads import HURRY, LOOK, Aside, Asides
from mpqueue.errors import ItemPicklingError
from mpqueue.retry import RetryPolicy


class Errands:
    """A thread that does nothing until a test says so."""

    made: list[Errands]

    def __init__(self, name: str, _: object) -> None:
        self.name = name
        self.abandoned = self.ended = False
        Errands.made.append(self)

    def put(self, errand: Callable[[], object]) -> None:
        pass

    def go_on(self) -> None:
        pass

    def abandon(self) -> None:
        self.abandoned = True

    def end(self) -> None:
        self.ended = True


@dataclass
class Slow(Aside[str]):
    """Is at an object until a test says that it is at another; ``patient``: not done without, however long it takes."""

    at: int = 0
    patient: bool = False

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


def look_at(asides: Asides, clock: Clock, *moments: float) -> None:
    for clock.now in moments:
        due = asides.deadline
        assert due is None or due <= clock.now, "the next look is due by then"
        asides.look()


def test_what_three_looks_find_at_the_same_object_is_done_without_and_its_thread_left(clock: Clock) -> None:
    asides, came = Asides("packer", lambda: clock.now, lambda call: call()), list[tuple[str, str]]()
    for job in (1, 2):
        asides.put(job, Slow(), lambda done, job=job: came.append((f"job {job}", done)))  # type: ignore[misc]
    look_at(asides, clock, LOOK, 2 * LOOK)
    assert came == []
    look_at(asides, clock, 3 * LOOK)
    assert came == [("job 1", "takes long"), ("job 2", "takes long")]
    assert all(thread.abandoned for thread in Errands.made)
    assert asides.all_done
    assert 30 <= 3 * LOOK <= 45, "as docs/explanation/promises.md says"


def test_what_goes_on_to_another_object_has_the_time_again(clock: Clock) -> None:
    asides, came, slow = Asides("packer", lambda: clock.now, lambda call: call()), list[str](), Slow()
    asides.put(1, slow, came.append)
    for turn in range(5):
        look_at(asides, clock, (2 * turn + 1) * LOOK, (2 * turn + 2) * LOOK)
        slow.at += 1
    assert came == []


@pytest.mark.holds("wait: a result is pickled for the journal, and written")
def test_what_may_take_for_ever_goes_on_until_its_job_is_killed(clock: Clock) -> None:
    asides, came = Asides("keeper", lambda: clock.now, lambda call: call()), list[str]()
    asides.put(1, Slow(patient=True), came.append)
    look_at(asides, clock, *(LOOK * turn for turn in range(1, 10)))
    assert came == []
    assert asides.is_busy(1)
    asides.hurry(1)
    asides.look()
    assert came == []
    look_at(asides, clock, clock.now + HURRY)
    assert came == ["cut short"]


def test_a_caller_waits_for_the_tasks_of_its_own_moment_and_for_no_later_ones(clock: Clock) -> None:
    asides, came = Asides("keeper", lambda: clock.now, lambda call: call()), list[str]()
    assert asides.caught_up(1)()
    asides.put(1, Slow(), came.append)
    first, nothing = asides.caught_up(1), asides.caught_up(2)
    asides.put(1, Slow(), came.append)
    second = asides.caught_up(1)
    assert (first(), nothing(), second()) == (False, True, False)
    look_at(asides, clock, LOOK, 2 * LOOK, 3 * LOOK)
    assert (first(), second(), came) == (True, False, ["takes long"])
    asides.end(1)
    assert second()


def chunk_of(*items: Any) -> Chunk:
    job = JobBook(1, "job", make_table(list(items)), JobOptions(RetryPolicy()), None)
    return Chunk(1, job, range(len(items)), Care.NONE, expected=0.0, sent_at=0.0)


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
