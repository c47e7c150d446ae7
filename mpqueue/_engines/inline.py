"""The engine of tests and debuggers: all workers in one thread of this process. Its public name is `InlinePool`."""

from __future__ import annotations

import functools
import logging
import os
import queue
import threading
import weakref
from collections.abc import Callable
from typing import NoReturn

from mpqueue._core.messages import LaneDied, LaneReady
from mpqueue._parent.inbox import Inbox, found
from mpqueue._parent.lane_protocol import Answers, Capabilities, Lane, LaneSettings, Tell
from mpqueue._wire.line import Answer
from mpqueue._wire.memory.ledger import NOBODY, Claim, Ledger
from mpqueue._worker import worker_links
from mpqueue._worker.exchange import make_context
from mpqueue._worker.main import Worker

_log = logging.getLogger("mpqueue")

#: Seconds that closing waits for the running item.
CLOSE_LIMIT = 5.0


class InlinePool:
    """Runs everything in one thread of this process, one chunk at a time, for tests, and for ``pdb`` in a handler.

    ``JobQueue(backend=InlinePool())`` behaves like any queue: items and results are pickled, failures are retried,
    pause and cancel reach the handler. No process is started and none can die, but `mpqueue.testing.crash` simulates
    it. Running items can't be killed, so time limits are refused.
    """

    capabilities = Capabilities(own_processes=False, shares_memory=False)

    def count_workers(self) -> int:
        """Return 1: more would not be faster."""
        return 1

    def open(self, settings: LaneSettings, inbox: Inbox) -> InlineLanes:  # noqa: ARG002 - the protocol's
        """Open a queue's lanes, with their thread."""
        return InlineLanes(inbox)

    def __repr__(self) -> str:
        return "InlinePool()"


class Crash(BaseException):
    """Ends a handler whose worker counts as dead; see `mpqueue.testing.crash`."""


class InlineLanes:
    """A `LanePool` in one thread, which ends with `close`."""

    def __init__(self, inbox: Inbox) -> None:
        self.inbox = inbox
        self.post = inbox.post
        self._lanes: dict[int, InlineLane] = {}
        self._made: list[InlineLane] = []  #: used on the thread only: lanes whose workers have to be closed
        self._turns: queue.SimpleQueue[Callable[[], object] | None] = queue.SimpleQueue()
        self.thread = threading.Thread(target=self._run, name="mpqueue-inline", daemon=True)
        self.thread.start()

    def _run(self) -> None:
        while (turn := self._turns.get()) is not None:
            self._carry_out(turn)
        for lane in self._made:
            self._carry_out(lane.end)

    def _carry_out(self, turn: Callable[[], object]) -> None:
        try:
            turn()
        except BaseException as error:
            self.post(found("on the thread of its inline workers", error))

    def do(self, turn: Callable[[], object]) -> None:
        """Run a function on the thread, after all earlier ones."""
        self._turns.put(turn)

    def start(self, number: int, generation: int) -> None:
        """Make a worker, on the thread."""

        def start() -> None:
            lane = InlineLane(self, number, generation)
            self._made.append(lane)
            self._lanes[number] = lane
            self.post(LaneReady(number, generation, lane.pid))

        self.do(start)

    def await_starts(self) -> None:
        """Return at once."""

    def lane(self, number: int) -> InlineLane | None:
        return self._lanes.get(number)

    def recycle(self, number: int) -> None:
        self.retire(number)

    def retire(self, number: int) -> None:
        lane = self._lanes.pop(number, None)
        if lane is not None:
            self.do(lane.end)
            self.do(functools.partial(self._made.remove, lane))

    def close(self, *, kill: bool) -> None:
        """End the thread. A running item can't be killed: it is asked to stop, and waited for, at most 5 s."""
        if kill:
            for lane in list(self._lanes.values()):
                lane.is_given_up = True
        self._turns.put(None)
        if threading.current_thread() is not self.thread:
            self.thread.join(CLOSE_LIMIT)
            if self.thread.is_alive():
                _log.warning("closing goes on without the item that runs in the thread %s", self.thread.name)
        self._lanes.clear()


class _Outbox:
    """Hands on what the worker leaves at once, so it is always free."""

    def __init__(self, answers: Answers) -> None:
        self._answers = answers

    def leave(self, data: bytes) -> None:
        """Have the report handed over."""
        self._answers.put(functools.partial(self._answers.early, Answer(data)))

    def leave_unsent(self, data: bytes, at: int) -> None:
        """Drop the log records: no process dies here, so no parent would look for them."""


class InlineLane(Lane):
    """A `Lane` whose worker lives in the pool's thread."""

    def __init__(self, pool: InlineLanes, number: int, generation: int) -> None:
        self.number = number
        self.generation = generation
        self.pid = os.getpid()
        self._pool = pool
        self.answers = Answers(pool.inbox, number)
        self._is_dead = False
        self._ledger = Ledger()
        self._flags = NOBODY, False, False  #: a job, whether it is paused, and whether it is cancelled
        here = worker_links.WorkerLinks(
            number, self._ledger, self._flags_of, _Outbox(self.answers), is_own_process=False
        )
        self._worker = Worker(make_context(here))
        self.is_given_up = False  #: it starts no more work, and its running item is asked to stop
        _lane_of[self._worker.context.links] = self

    def send(self, frame: bytes, tell: Tell) -> None:
        if self.answers.begin(tell):
            self._pool.do(functools.partial(self._answer, frame))

    def _answer(self, frame: bytes) -> None:
        if self._is_dead or self.is_given_up:
            self.answers.answered(ChildProcessError("the worker has ended"))
            return
        with worker_links.as_worker(self._worker.context.links):
            try:
                answer = self._worker.receive(frame)
            except Exception:  # as for any worker: its items are tried again alone
                self.die(1)
                return
        if not self._is_dead:
            self.answers.answered(answer)

    def set_flags(self, job: int, *, pause: bool, cancel: bool) -> None:
        """Set the flags at once."""
        self._flags = job, pause, cancel

    def _flags_of(self, job: int) -> tuple[bool, bool]:
        meant, paused, cancelled = self._flags
        return meant == job and paused, (meant == job and cancelled) or self.is_given_up

    def set_limit(self, chunk: int, position: int) -> None:
        """Set the limit at once."""
        self._ledger.set_limit(chunk, position)

    def observe(self, tell: Callable[[Claim], None]) -> None:
        """Call ``tell`` at once."""
        tell(self._ledger.read())

    def peek(self) -> Claim | None:
        return self._ledger.read()

    def kill(self, *, dump_stack: bool = False) -> None:  # noqa: ARG002 - the protocol's
        """Let the worker count as dead once the running item has ended."""
        self._pool.do(self.die)

    # -- on the pool's thread ----------------------------------------------------------------------------------------

    def die(self, exitcode: int | None = None, signal: str | None = "SIGKILL") -> None:
        """Let this worker count as dead from now on: unsent parts of its chunk do not count."""
        if self._is_dead:
            return
        self._is_dead = True
        claim = self._ledger.read()
        run = self._worker.chunk_timer.run
        if run is not None:
            del run.stretch[len(run.running.out) - run.stretch_lo + 1 :]  # the rest of it must not run
            self._flags = run.job.number, False, True
        error = ChildProcessError("the worker has ended")
        died = LaneDied(self.number, self.generation, self.pid, exitcode, None if exitcode else signal, claim)
        self.answers.die(error, functools.partial(self._pool.post, died))

    def end(self) -> None:
        """Finish the worker's setups: it is no longer needed."""
        with worker_links.as_worker(self._worker.context.links):
            self._worker.close(quietly=self._is_dead)
        self.answers.end()


_lane_of: weakref.WeakKeyDictionary[worker_links.WorkerLinks, InlineLane] = weakref.WeakKeyDictionary()


def crash(exitcode: int | None, signal: str | None) -> NoReturn:
    """Let the worker of this handler count as dead, see `mpqueue.testing.crash`. Raises RuntimeError elsewhere."""
    here = worker_links.here()
    lane = None if here is None else _lane_of.get(here)
    if lane is None:
        raise RuntimeError(
            "crash(): expected to be called in a handler of a queue on an InlinePool, got called elsewhere"
        )
    lane.die(exitcode, signal)
    raise Crash
