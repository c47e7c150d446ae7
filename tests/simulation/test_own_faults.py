"""mpqueue's own mistakes: each command's action and each message's handling is broken in turn.

The queue ends with `InternalError`, and no thread waits for ever. Simulated workers, each with an item of a job of its
own: the *victim*, which is hit, and the *bystander*.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from typing import Any, NoReturn, get_args
from unittest import mock

import pytest

from mpqueue import InternalError, JobRun
from mpqueue._core import commands, messages
from mpqueue._core.scheduler import _HANDLERS, _LANE_HANDLERS, Scheduler
from mpqueue._core.state.books import Books, Lookout
from mpqueue._core.state.job_book import JobBook
from mpqueue._core.state.lane_book import Chunk
from mpqueue._parent.coordinator import Coordinator
from mpqueue._queue.announcer import Announcer
from tests.simulation.history import handle
from tests.simulation.lanes import SimulatedPool, queue_in
from tests.simulation.parent import simulated_parent
from tests.simulation.world import Thread, World
from tests.support.fake_lanes import succeed

BOOKS = ("JobBook", "Chunk")
#: Seconds of simulated time that an item takes, so that both run when the mistake comes; and in which all has to end.
LONG, LIMIT = 100.0, 10_000.0


def broken(*_: Any, **__: Any) -> NoReturn:
    raise ZeroDivisionError("a mistake of ours")


class Two:
    """A queue with both jobs, each with an item on a worker of its own. Lives in a world of its own."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.errors: dict[str, InternalError] = {}
        self.runs: dict[str, JobRun] = {}
        self.pools: list[SimulatedPool] = []
        self.queue = queue_in(world, 2, 0.0, self.pools.append)
        self.scheduler: Scheduler = self.queue._engine._scheduler
        for name in ("victim", "bystander"):
            self.queue.create_job(name, [succeed(LONG)], handle)
        self.queue._host.worker_pids()  # makes the coordinator
        self.coordinator = self.queue._engine.coordinator()

    def start(self) -> None:
        """Both run, or were hit."""
        for name in ("victim", "bystander"):
            try:
                self.runs[name] = self.queue.start(name)
            except InternalError as error:
                self.errors[name] = error
        self.world.wait(lambda: False, 1.0)

    def facts(self) -> dict[str, Any]:
        """What a command or a message about the victim says, by the types and the names of its fields."""
        lanes = self.scheduler.books.lanes
        lane = next((lane for lane in lanes if lane.job is not None and lane.job.id == "victim"), None)
        if lane is None or lane.job is None:
            return {}
        return {
            "JobBook": lane.job,
            "Chunk": lane.chunks[0],
            "lane": lane.number,
            "generation": lane.generation,
            "error": InternalError("posted"),
        }

    def end(self) -> None:
        """Both jobs end, one way or the other, and the queue is closed."""
        for name, run in self.runs.items():
            assert self.world.wait(run.done, LIMIT), f"{name} waits for ever"
            error = run.exception(0)
            if error is not None:
                assert isinstance(error, InternalError)
                assert "a mistake of ours" in error.traceback
                self.errors[name] = error
        self.queue.close()

        assert self.errors.keys() == {"victim", "bystander"}


@pytest.fixture
def world() -> Iterator[World]:
    """In which mistakes are no failure of the test."""
    made = World(0)
    with simulated_parent(made), mock.patch.object(logging.getLogger("mpqueue"), "critical"):
        yield made
        made.kill()


def live_through(world: World, live: Callable[[Two], object]) -> None:
    """Do that with a queue, on a simulated thread."""
    main = Thread(target=lambda: live(Two(world)), name="main")
    main.start()
    world.run(lambda: not world.threads)


def made_of(kind: type, facts: dict[str, Any]) -> Any:
    """A command or message of that kind, about what the facts say."""
    hints = {name: str(getattr(hint, "__forward_arg__", hint)) for name, hint in kind.__annotations__.items()}
    return kind(**{name: facts.get(hint.removesuffix(" | None"), facts.get(name)) for name, hint in hints.items()})


def is_of(subject: Any, job_id: str) -> bool:
    """True where it names that job, or none."""
    chunk = getattr(subject, "chunk", None)
    job = chunk.job if isinstance(chunk, Chunk) else getattr(subject, "job", None)
    return not isinstance(job, JobBook) or job.id == job_id


def breaking(real: Callable[..., object]) -> Callable[..., object]:
    """The same, but it raises where it is about the victim, or about no job."""

    def call(*arguments: Any) -> object:
        return broken() if is_of(arguments[-1], "victim") else real(*arguments)

    return call


@pytest.mark.parametrize("kind", get_args(commands.Command), ids=lambda kind: kind.__name__)
def test_a_command_that_can_not_be_carried_out_ends_the_queue(
    kind: type, world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    def live(two: Two) -> None:
        actions: dict[type, Any] = two.coordinator._actions
        actions[kind] = breaking(actions[kind])
        two.start()
        if facts := two.facts():  # else it was carried out, and broken, before

            def ask_for_it(books: Books, _: object) -> None:
                if facts:  # once
                    books.commands.append(made_of(kind, facts))
                    facts.clear()

            monkeypatch.setitem(_HANDLERS, messages.TimePassed, ask_for_it)
            two.coordinator.post(messages.TimePassed())
        two.end()

    live_through(world, live)


@pytest.mark.parametrize("kind", [*_HANDLERS, *_LANE_HANDLERS], ids=lambda kind: kind.__name__)
def test_a_message_that_can_not_be_handled_ends_the_queue(
    kind: type, world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    handlers: dict[type, Any] = _LANE_HANDLERS if kind in _LANE_HANDLERS else _HANDLERS
    monkeypatch.setitem(handlers, kind, breaking(handlers[kind]))

    def live(two: Two) -> None:
        two.start()
        if facts := two.facts():
            two.coordinator.post(made_of(kind, facts))
        two.end()

    live_through(world, live)


#: What runs on the coordinator's thread, or on another one of the queue's, besides.
BREAKS: dict[str, tuple[Any, str]] = {
    "an answer": (Coordinator, "_hand_in"),
    "an announcement": (Announcer, "announce"),
    "the last notice": (Announcer, "_tell_finished"),
}


@pytest.mark.parametrize("where", BREAKS)
def test_a_mistake_anywhere_else_ends_the_queue(where: str, world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(*BREAKS[where], broken)

    def live(two: Two) -> None:
        for name in ("job:progress", "job:finished"):
            two.queue.on(name, lambda _: None)
        two.start()
        two.end()

    live_through(world, live)


def test_a_mistake_in_the_coordinator_s_own_loop_ends_the_queue(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    def live(two: Two) -> None:
        two.start()
        monkeypatch.setattr(Lookout, "look", broken)
        two.end()
        assert "in the coordinator's loop" in str(two.errors["victim"])

    live_through(world, live)
