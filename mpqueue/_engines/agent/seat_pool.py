"""Lanes in the agent's own process, where no other can be started: see `mpqueue._worker.elsewhere.hosted`.

A time limit can't end one of them alone: it ends the process, with all that runs there, where the engine makes another
one; else the lane is given up, and what runs in it goes on.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from functools import partial

from mpqueue._core.messages import BellRung, LaneDied, LaneReady
from mpqueue._parent.lane_protocol import Post, TellingLane
from mpqueue._parent.open_calls import Calls, Tell
from mpqueue._wire.memory.ledger import Claim
from mpqueue._wire.memory.shared import Brought
from mpqueue._worker.elsewhere import hosted
from mpqueue._worker.elsewhere.private import Leaving


class SeatLane(TellingLane):
    """One seat."""

    def __init__(self, pool: SeatPool, number: int, generation: int, seat: hosted.HostedSeat) -> None:
        self.number = number
        self.generation = generation
        self.pid = os.getpid()
        self.seat = seat
        self._pool = pool
        self._calls = Calls()
        self._is_over = False

    def send(self, frame: bytes, tell: Tell) -> None:
        """See `Lane.send`."""
        if self._calls.begin(tell):
            self.seat.receive(frame, None).add_done_callback(partial(self._answered, tell))

    def _answered(self, tell: Tell, answer: Future[Leaving]) -> None:
        if (error := answer.exception()) is not None:
            self._calls.settle(tell, error)
            self.give_up(error)
        else:
            self._calls.settle(tell, answer.result().frame)

    def bring(self, brought: Sequence[Brought]) -> None:
        """Have the worker know these shared objects before the next frame."""
        self.seat.bring(brought)

    def set_flags(self, job: int, *, pause: bool, cancel: bool) -> None:
        """See `Lane.set_flags`."""
        self.seat.ledger.set_flags(job, pause=pause, cancel=cancel)

    def set_limit(self, chunk: int, position: int) -> None:
        """See `Lane.set_limit`."""
        self.seat.ledger.set_limit(chunk, position)

    def observe(self, tell: Callable[[Claim], None]) -> None:
        """See `Lane.observe`. Here and now."""
        tell(self.seat.ledger.read())

    def peek(self) -> Claim | None:
        """See `Lane.peek`."""
        return self.seat.ledger.read()

    def take_early(self) -> bytes | None:
        """See `Lane.take_early`."""
        return self.seat.outbox.fetch()

    def tell_stack(self, tell: Callable[[str | None], object]) -> None:
        """See `TellingLane.tell_stack`. Not without the rest of the process."""
        tell(None)

    def kill(self, *, dump_stack: bool = False) -> None:  # noqa: ARG002 - the protocol's
        """See `Lane.kill`: the whole process, where it is replaced."""
        if self._pool.end_process is not None:
            self._pool.end_process()
        else:
            self.give_up(RuntimeError("its process is not ended, since none would take its place"))

    def give_up(self, error: BaseException) -> None:
        """What it does counts no more."""
        if not self._is_over:
            self._is_over = True
            self._calls.close(error)
            self._calls.fail_all(error)
            self._pool.post(LaneDied(self.number, self.generation, self.pid))

    def close(self) -> None:
        """Take no more frames; what runs is left to end."""
        self._is_over = True
        error = RuntimeError("the worker is closed")
        self._calls.close(error)
        self._calls.fail_all(error)
        self.seat.close()


class SeatPool:
    """Satisfies `lane_protocol.LanePool`. ``end_process``: None where nothing would take the place of this process."""

    def __init__(self, post: Post, end_process: Callable[[], object] | None) -> None:
        self.post = post
        self.end_process = end_process
        self._lanes: dict[int, SeatLane] = {}

    def start(self, number: int, generation: int) -> None:
        """See `LanePool.start`."""
        ring = partial(self.post, BellRung(number, generation))
        seat = hosted.HostedSeat(number, generation, os.getpid(), ring)
        self._lanes[number] = SeatLane(self, number, generation, seat)
        self.post(LaneReady(number, generation, os.getpid()))

    def await_starts(self) -> None:
        """See `LanePool.await_starts`. There is nothing to wait for."""

    def lane(self, number: int) -> SeatLane | None:
        """See `LanePool.lane`."""
        return self._lanes.get(number)

    def recycle(self, number: int) -> None:
        """See `LanePool.recycle`."""
        lane = self._lanes.pop(number, None)
        if lane is not None:
            lane.close()

    def retire(self, number: int) -> None:
        """See `LanePool.retire`."""
        self.recycle(number)

    def close(self, *, kill: bool) -> None:  # noqa: ARG002 - the protocol's
        """See `LanePool.close`. What runs is left to end."""
        lanes = list(self._lanes.values())
        for number in list(self._lanes):
            self.recycle(number)
        hosted.await_ends([lane.seat for lane in lanes])
