"""A pool of real lanes, as the coordinator holds it, with workers that do `tests.support.lane_verbs`."""

from __future__ import annotations

import pickle
import queue
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from typing import Any, TypeVar

import pytest

from mpqueue._core.messages import LaneDied, LaneReady, LaneStartFailed
from mpqueue._engines.loky import loky_lane as lane_module
from mpqueue._engines.loky.loky_lane import LokyLane
from mpqueue._engines.loky.loky_pool import LokyPool
from mpqueue._parent.inbox import Inbox, Request
from mpqueue._parent.lane_protocol import LaneSettings
from mpqueue._parent.surroundings.replies import Reply

T = TypeVar("T")

#: Seconds for one message; a bound on how long a broken test takes.
PATIENCE = 30.0

RECEIVER = ("tests.support.lane_verbs", "receive")


class Lanes:
    """Stands where the coordinator stands: starts lanes, sends frames, and takes messages in their order."""

    def __init__(self, count: int = 1, *, start: bool = True, threads_per_worker: int | None = None) -> None:
        self.messages: queue.SimpleQueue[Any] = queue.SimpleQueue()
        self._strangers = set(threading.enumerate())
        self.inbox = Inbox()
        self.thread = threading.Thread(target=self._take_in, name="lanes-inbox", daemon=True)
        self.thread.start()
        self.generations = dict.fromkeys(range(count), 0)
        self.pool = LokyPool(LaneSettings(count, threads_per_worker), self.inbox)
        if start:
            for number in self.generations:
                self.pool.start(number, 0)
            for _ in self.generations:
                self.take(LaneReady)

    def _take_in(self) -> None:
        """As the coordinator does."""
        while not isinstance(received := self.inbox.take(None), Request):
            if received is not None:
                self.messages.put(received)
        self.inbox.close()

    def threads(self) -> int:
        """How many threads there are for these lanes, pool and all."""
        return len(set(threading.enumerate()) - self._strangers)

    def close(self) -> None:
        """End everything, killing what runs."""
        self.pool.close(kill=True)
        self.inbox.post(Request(lambda: None, Reply()))
        self.thread.join()
        self._strangers.clear()  # loky's threads among them hold the semaphores of their lanes

    def lane(self, number: int = 0) -> LokyLane:
        """The live lane of that number."""
        lane = self.pool.lane(number)
        assert lane is not None
        return lane

    def send(self, function: Callable[..., Any], *arguments: Any, lane: int = 0) -> Future[bytes]:
        """Have a worker call ``function``; `answer` reads what comes back."""
        return self.lane(lane).send(pickle.dumps((function, arguments)))

    def call(self, function: Callable[..., Any], *arguments: Any, lane: int = 0) -> Any:
        """Have a worker call ``function``, and return what it returns."""
        return answer(self.send(function, *arguments, lane=lane))

    def take(self, kind: type[T]) -> T:
        """The next message, which has to be of that kind."""
        message = self.messages.get(timeout=PATIENCE)
        assert isinstance(message, kind), message
        return message

    def replace(self, number: int = 0) -> None:
        """Retire a lane that has died, and start its next generation."""
        self.pool.retire(number)
        self.start_again(number)

    def start_again(self, number: int = 0) -> None:
        """Start the next generation of a lane."""
        self.generations[number] += 1
        self.pool.start(number, self.generations[number])
        assert self.take(LaneReady).generation == self.generations[number]

    def kill(self, number: int = 0, *, dump_stack: bool = False) -> LaneDied:
        """Kill a lane and return what is said about it."""
        self.lane(number).kill(dump_stack=dump_stack)
        return self.take(LaneDied)

    def failed_start(self) -> BaseException:
        """Try to start a lane, and return why that failed."""
        self.pool.start(0, 0)
        return self.take(LaneStartFailed).error


def answer(future: Future[bytes]) -> Any:
    """What the worker's function returned."""
    return pickle.loads(future.result(timeout=PATIENCE))


@pytest.fixture
def new_lanes(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., Lanes]]:
    """Makes `Lanes`, and closes them in the end, killing what runs."""
    monkeypatch.setattr(lane_module, "RECEIVER", RECEIVER)
    made: list[Lanes] = []

    def make(count: int = 1, **options: Any) -> Lanes:
        made.append(Lanes(count, **options))
        return made[-1]

    yield make
    for lanes in made:
        lanes.close()


@pytest.fixture
def lanes(new_lanes: Callable[..., Lanes]) -> Lanes:
    """One lane, up."""
    return new_lanes()
