"""A cluster of many workers in simulated time, with one coordinator that is busy while it decides.

`FakeLanes` decides in no time; here the coordinator takes some for each message, while others wait. So it shows when
one coordinator is not enough::

    cluster = Cluster(512, latency=0.001, service=lambda message, taken: taken + 50e-6)
    job = cluster.work([0.05] * 40_000)
    cluster.start(job)
    cluster.run_until_over(job)
    print(cluster.utilisation, cluster.busy)
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from mpqueue._core.commands import Capabilities, Command, LowerLimit, ObserveLane, SetFlags
from mpqueue._core.messages import Message, QueueOpened
from mpqueue._core.state.job_book import JobBook
from tests.support.fake_lanes import FakeLanes, succeed

#: Seconds that the coordinator takes for a message, by the message and by what the scheduler has really taken for it.
Service = Callable[[Message, float], float]


class Cluster(FakeLanes):
    """Lanes that are elsewhere: what they share with the coordinator also takes the ``latency``."""

    def __init__(
        self,
        lanes: int,
        *,
        latency: float,
        service: Service,
        engine: Capabilities = Capabilities(),  # noqa: B008 - frozen
    ) -> None:
        super().__init__(lanes, latency=latency, engine=engine)
        self.steps: list[float] = []  #: CPU seconds that the scheduler has taken for each message
        self.served = 0.0  #: seconds that the coordinator was busy
        self.worked = 0.0  #: seconds that the items of all jobs take
        self._service = service
        self._inbox: deque[Message] = deque()
        self._is_serving = False
        self._began: float | None = None  #: when the workers had started
        for kind in (SetFlags, LowerLimit, ObserveLane):
            self._actions[kind] = partial(self._do_later, self._actions[kind])

    def work(self, seconds: Sequence[float]) -> JobBook:
        """Create a job of items that take so long each."""
        self.worked += sum(seconds)
        each = {one: succeed(one) for one in set(seconds)}
        return self.job([each[one] for one in seconds])

    def start(self, *jobs: JobBook) -> None:
        """Start jobs; the workers of the first are there at once."""
        if self._began is None:
            self.handle(QueueOpened())
            self.run_until_ready()
            self._began = self.now
        super().start(*jobs)

    # -- the coordinator -----------------------------------------------------------------------------------------

    def handle(self, message: Message) -> None:
        """Take a message in when those before it are done: what follows from it happens once that is decided."""
        if self._began is None:
            super().handle(message)
            return
        self._inbox.append(message)
        if not self._is_serving:
            self._serve()

    def _serve(self) -> None:
        self._is_serving = bool(self._inbox)
        if self._is_serving:
            message = self._inbox.popleft()
            self.counts[type(message)] += 1
            began = time.thread_time()
            commands = self.scheduler.handle(message, self.now)
            self.steps.append(time.thread_time() - began)
            seconds = self._service(message, self.steps[-1])
            self.served += seconds
            self.call_at(self.now + seconds, partial(self._carry_out, commands))

    def _carry_out(self, commands: list[Command]) -> None:
        for command in commands:
            self._actions[type(command)](command)
        self._inbox.extendleft(reversed(self._more))
        self._more.clear()
        self._serve()

    def _do_later(self, action: Callable[[Any], None], command: Command) -> None:
        def act() -> None:
            action(command)
            while self._more:
                self.post(self._more.popleft())

        self.call_at(self.now + self.latency, act)

    @property
    def next_moment(self) -> float:
        """When something happens next; a busy coordinator does not look at its deadline."""
        return self._calendar[0][0] if self._is_serving else super().next_moment

    # -- what came of it -----------------------------------------------------------------------------------------

    @property
    def elapsed(self) -> float:
        """Seconds since the first job was started."""
        return self.now - (self._began or 0.0)

    @property
    def utilisation(self) -> float:
        """The part of the workers' time in which they ran items, when all jobs have ended."""
        return self.worked / (len(self.workers) * self.elapsed)

    @property
    def busy(self) -> float:
        """The part of its time for which the coordinator was busy."""
        return self.served / self.elapsed
