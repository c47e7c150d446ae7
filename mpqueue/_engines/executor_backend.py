"""Any `concurrent.futures.Executor` as the engine: thread and process pools, mpi4py, Parsl, executorlib.

Such an engine takes a call and answers; it says neither where that runs nor when it begins, and it can't be sent
anything meanwhile. So a lane here is a place in its queue, not a worker, and what mpqueue makes up for is said in
`Backend`s own words: `Capabilities`.
"""

from __future__ import annotations

import contextlib
import functools
import logging
import os
import threading
import uuid
from collections import deque
from collections.abc import Callable
from concurrent.futures import BrokenExecutor, Executor, Future, InvalidStateError, wait
from typing import Any

from mpqueue._core.messages import LaneDied, LaneReady, LaneStartFailed
from mpqueue._engines.agent import hello
from mpqueue._os.process.own_forks import process_name
from mpqueue._parent.inbox import Inbox
from mpqueue._parent.lane_protocol import Capabilities, Lane, LaneSettings, Post
from mpqueue._parent.open_calls import Calls, Tell
from mpqueue._parent.own_faults import found
from mpqueue._text import shown
from mpqueue._wire.memory.ledger import Claim
from mpqueue._worker.elsewhere import visiting
from mpqueue.errors import WorkerStartError
from mpqueue.retry import check_number

_log = logging.getLogger("mpqueue")

#: Seconds that closing waits for what runs.
CLOSE_LIMIT = 5.0
#: Seconds that the first call of a lane may take, with the executor's own queue, without an ``answer_limit``: what its
#: workers are at meanwhile is not known.
START_LIMIT = 300.0


class ExecutorBackend:
    """Runs a queue's chunks on an executor: ``JobQueue(concurrency=None, backend=ExecutorBackend(executor))``.

    ``executor`` is one that you made and will shut down, or a function that makes one: then the queue shuts it down,
    and makes another where a crash has broken it. ``workers`` is how many calls it runs at a time, where it does not
    say so itself; ``concurrency=None`` takes them all.

    What an executor can't do is said in one logged line, and in ``limits``: end an item that runs (so time limits are
    refused, and ``kill=True`` waits), tell which item a dead worker ran (it is found by running the suspects alone, in
    halves), and tell a process that a job was paused or cancelled before its chunk ends (50 ms, or the item at hand).

    ``answer_limit`` is for engines that may forget a call, as some do whose workers have died: a call that is not
    answered within so many seconds, those in the engine's own queue included, counts as lost. Its items run again, in
    halves, and one that is lost by itself loses a try. It must be longer than a chunk takes: 50 ms, or the longest
    item. By default a call is waited for without end; the first one of each worker, 300 s.

    Raises TypeError or ValueError for anything else: also for Dask's own executor, which repeats the calls of dead
    workers (use `DaskBackend`), and for an `mpqueue.Executor` with retries.
    """

    capabilities = Capabilities(
        can_kill=False,
        can_signal=False,
        can_replace=False,
        shares_memory=False,
        own_processes=False,
        is_sticky=False,
        same_files=False,
    )

    def __init__(
        self,
        executor: Executor | Callable[[], Executor],
        workers: int | None = None,
        *,
        answer_limit: float | None = None,
    ) -> None:
        if not _is_executor(executor) and not callable(executor):
            raise TypeError(f"executor: expected an Executor, or a function that makes one, got {shown(executor)}")
        if workers is not None and (isinstance(workers, bool) or workers < 1):
            raise ValueError(f"workers: expected a number of calls that run at a time, got {shown(workers)}")
        self._executor = executor
        self._workers = workers
        if answer_limit is not None:
            check_number("answer_limit", answer_limit, low=0, exclusive=True)
        self.answer_limit = answer_limit
        if not self.makes_them:
            self.make()
        _log.info("%r: %s", self, "; ".join(self.limits))

    @property
    def limits(self) -> tuple[str, ...]:
        """What can't be done on it, in words."""
        return (
            "it can't end an item that runs: time limits are refused, and kill=True waits for it",
            "it does not tell which item a dead worker ran: suspects run again, in halves until one stands alone",
            "pause and cancel reach threads at once, and processes when their chunk ends",
            "workers have no lasting numbers and can't be replaced one by one",
        )

    def make(self) -> Executor:
        """The executor; a new one with each call, where a function was given. Raises what that raises.

        Raises TypeError for one that would make calls again by itself.
        """
        made: Any = self._executor
        if self.makes_them:
            made = made()
        _check_once(made)
        return made  # type: ignore[no-any-return]

    @property
    def makes_them(self) -> bool:
        """True where a function was given."""
        return not _is_executor(self._executor)

    def count_workers(self) -> int:
        """What was said, or what the executor says itself. Raises ValueError where neither does."""
        count = self._workers or getattr(self._executor, "_max_workers", None)
        if not isinstance(count, int):
            raise ValueError(
                "workers: expected ExecutorBackend(..., workers=N) with concurrency=None, since "
                f"{shown(self._executor)} does not say how many calls it runs at a time"
            )
        return count

    def open(self, settings: LaneSettings, inbox: Inbox) -> ExecutorPool:  # noqa: ARG002 - the protocol's
        """See `lane_protocol.Backend.open`."""
        return ExecutorPool(self, inbox.post)

    def __repr__(self) -> str:
        name = getattr(self._executor, "__qualname__", None) or type(self._executor).__qualname__
        return f"ExecutorBackend({name})"


class ExecutorPool:
    """A `LanePool`. Has no thread of its own: it lives on those of its callers and of the executor."""

    def __init__(self, backend: ExecutorBackend, post: Post) -> None:
        self._backend = backend
        self._post = post
        self.origin = visiting.Origin(uuid.uuid4().hex, process_name(), os.getpid())
        visiting.open_home(self.origin.pool)
        self._lock = threading.RLock()
        self._lanes: dict[int, ExecutorLane] = {}
        self._executor: Executor | None = None
        self._is_closed = False
        self._under_way: set[Future[Any]] = set()
        self._submitting = 0  #: calls of lanes that the executor is just being given
        self._none_submitting = threading.Condition(self._lock)
        self._limits: set[threading.Timer] = set()

    def start(self, number: int, generation: int) -> None:
        """See `LanePool.start`. A lane is ready when the executor has run a first call."""
        executor = None
        try:
            with self._lock:
                if self._executor is None:
                    self._executor = self._backend.make()
                executor = self._executor
            first = self._submit(executor, self._backend.answer_limit or START_LIMIT, hello.introduce)
        except BaseException as error:
            self._doubt(executor)
            self._post(LaneStartFailed(number, generation, error, final=isinstance(error, TypeError)))
            return
        introduced = functools.partial(self._introduced, number, generation, executor)
        first.add_done_callback(self.guarded(number, generation, introduced))

    def serve(self, lane: ExecutorLane, frame: bytes) -> Future[bytes]:
        """Have the lane's executor serve a frame, for a call of the lane that has begun.

        Raises what that raises, and ChildProcessError for a lane that is gone: on another executor the frame would run
        although it counts as lost, and so twice; or if the pool is closed, which no longer waits for it. A lane with a
        call is not given up for having nothing to do.
        """
        with self._lock:
            if not lane.is_alive or self._is_closed:
                raise ChildProcessError("the worker is gone")
            self._submitting += 1
        try:
            # Not with the lock: callbacks of a broken executor may run under its own (CPython 3.12), and want this one.
            limit = self._backend.answer_limit
            return self._submit(lane.executor, limit, visiting.serve, self.origin, lane.number, frame)
        finally:
            with self._lock:
                self._submitting -= 1
                self._none_submitting.notify_all()

    def _submit(
        self, executor: Executor, limit: float | None, function: Callable[..., Any], *arguments: Any
    ) -> Future[Any]:
        future = executor.submit(function, *arguments)
        self._under_way.add(future)
        future.add_done_callback(self._under_way.discard)
        return future if limit is None else self._limited(future, limit)

    def _limited(self, future: Future[Any], limit: float) -> Future[Any]:
        """What comes of the call, or TimeoutError where nothing came in time: then the engine has forgotten it."""
        outcome: Future[Any] = Future()

        def lose() -> None:
            with contextlib.suppress(InvalidStateError):  # its answer comes just now
                outcome.set_exception(TimeoutError(f"the executor has not answered a call within {limit:g} s"))
                _log.warning("%r has not answered a call within %g s: it counts as lost", self._backend, limit)
            self._limits.discard(timer)
            future.cancel()

        def answer(future: Future[Any]) -> None:
            timer.cancel()
            self._limits.discard(timer)
            with contextlib.suppress(InvalidStateError):  # it comes too late
                if (error := _error_of(future)) is not None:
                    outcome.set_exception(error)
                else:
                    outcome.set_result(future.result())

        timer = threading.Timer(limit, lose)
        timer.daemon, timer.name = True, "mpqueue-executor-limit"
        self._limits.add(timer)
        timer.start()
        future.add_done_callback(answer)
        return outcome

    def guarded(
        self, number: int, generation: int, function: Callable[..., object], *arguments: Any
    ) -> Callable[..., None]:
        """The call, with what it raises told: a mistake of ours, which the executor would keep to itself."""

        def call(*more: Any) -> None:
            try:
                function(*arguments, *more)
            except BaseException as error:
                self._post(found(f"with an answer of worker {number}", error, lane=number, generation=generation))

        return call

    def _introduced(self, number: int, generation: int, executor: Executor, answer: Future[hello.Introduction]) -> None:
        error = _error_of(answer)
        if error is not None:
            self._doubt(executor)
            self._post(LaneStartFailed(number, generation, error))
            return
        difference = hello.find_difference(hello.introduce(), answer.result())
        if difference is not None:
            self._post(LaneStartFailed(number, generation, WorkerStartError(difference), final=True))
            return
        at_home = answer.result()["process"] == self.origin.process
        lane = ExecutorLane(self, number, generation, self.origin.pid if at_home else 0, executor)
        with self._lock:
            self._lanes[number] = lane
        self._post(LaneReady(number, generation, lane.pid, self.origin.pool))

    def _doubt(self, executor: Executor | None) -> None:
        """It can't answer a first call. Not all have a `BrokenExecutor` for that: it is broken, unless a call runs."""
        with self._lock:
            if not any(lane.is_alive and lane.is_busy for lane in self._lanes.values()):
                self._forget_executor(executor)

    def _forget_executor(self, executor: Executor | None) -> None:
        """It is broken, and stays broken: the next start makes a new one, where we may."""
        with self._lock:
            if executor is None or executor is not self._executor or not self._backend.makes_them:
                return
            self._executor = None
        # Not here: callbacks of a broken executor may run under its own lock (CPython 3.12), which this takes too.
        threading.Thread(
            target=_shut_down, args=(executor,), kwargs={"wait": False}, name="mpqueue-executor-end", daemon=True
        ).start()

    def failed(self, lane: ExecutorLane, error: BaseException) -> None:
        """A call of that lane failed as no call of ours does: its worker is gone; or all are.

        Where the error does not say so, lanes that have nothing to do have to answer a first call again: the next item
        would be blamed for an executor that is broken already.
        """
        is_broken = isinstance(error, BrokenExecutor)
        with self._lock:
            if is_broken:
                self._forget_executor(lane.executor)
            beside = [one for one in self._lanes.values() if one.executor is lane.executor and one is not lane]
            lost = [lane, *(one for one in beside if is_broken or not one.is_busy)]
            lost = [one for one in lost if one.is_alive]
            busy = [one for one in lost if one.is_busy]
            for one in lost:
                one.is_alive = False
        for one in lost:
            one.lose(error)
            self._post(
                LaneDied(
                    one.number,
                    one.generation,
                    one.pid,
                    alone=len(busy) <= 1,
                    innocent=one not in busy or self._is_closed,
                )
            )

    def await_starts(self) -> None:
        """There is nothing to wait for: an executor starts its workers as it likes."""

    def lane(self, number: int) -> ExecutorLane | None:
        """See `LanePool.lane`."""
        return self._lanes.get(number)

    def recycle(self, number: int) -> None:
        """See `LanePool.recycle`."""
        self._lanes.pop(number, None)

    def retire(self, number: int) -> None:
        """See `LanePool.retire`."""
        self._lanes.pop(number, None)

    def close(self, *, kill: bool) -> None:
        """See `LanePool.close`. What runs can't be killed: it is waited for, 5 s at most."""
        with self._lock:
            if self._is_closed:
                return
            self._is_closed = True
            self._none_submitting.wait_for(lambda: not self._submitting, CLOSE_LIMIT)
            executor, running = self._executor, list(self._under_way)
        if kill:
            visiting.give_up(self.origin.pool)
        for limit in list(self._limits):
            limit.cancel()
        late = wait([future for future in running if not _cancel(future)], CLOSE_LIMIT).not_done
        if late:
            _log.warning("closing goes on without %d calls that %r still runs", len(late), self._backend)
        else:
            visiting.close_home(self.origin.pool)
        if executor is not None and self._backend.makes_them:
            self._end(executor, wait=not late)
        self._lanes.clear()

    def _end(self, executor: Executor, *, wait: bool) -> None:
        """Shut it down, for 5 s at most: some wait for ever for workers that have died."""
        ending = threading.Thread(
            target=_shut_down, args=(executor,), kwargs={"wait": wait}, name="mpqueue-executor-end", daemon=True
        )
        ending.start()
        ending.join(CLOSE_LIMIT)
        if ending.is_alive():
            _log.warning("closing goes on although %r has not shut down", self._backend)


class ExecutorLane(Lane):
    """A place in the executor's queue.

    The executor gets a frame when the one before it is answered: another of its workers would begin it at once.
    """

    def __init__(self, pool: ExecutorPool, number: int, generation: int, pid: int, executor: Executor) -> None:
        self.number = number
        self.generation = generation
        self.pid = pid
        self.executor = executor  #: the one that has answered its first call
        self.is_alive = True  #: guarded by the pool's lock
        self._pool = pool
        self._calls = Calls()
        self._lock = threading.Lock()
        self._frames: deque[tuple[Tell, bytes]] = deque()  #: the executor has the first one

    @property
    def is_busy(self) -> bool:
        """True where something is under way."""
        return len(self._calls) > 0

    def send(self, frame: bytes, tell: Tell) -> None:
        """See `lane_protocol.Lane.send`."""
        if not self._calls.begin(tell):
            return
        with self._lock:
            self._frames.append((tell, frame))
            is_first = len(self._frames) == 1
        if is_first:
            self._submit(tell, frame)

    def _submit(self, tell: Tell, frame: bytes) -> None:
        try:
            answer = self._pool.serve(self, frame)
        except BaseException as error:
            self._fail(tell, error)
        else:
            answer.add_done_callback(self._pool.guarded(self.number, self.generation, self._answered, tell))

    def _answered(self, tell: Tell, answer: Future[bytes]) -> None:
        error = _error_of(answer)
        if error is not None:
            self._fail(tell, error)
            return
        self._calls.settle(tell, answer.result())
        with self._lock:
            self._frames.popleft()
            following = self._frames[0] if self._frames else None
        if following is not None and not self._calls.is_closed:
            self._submit(*following)

    def _fail(self, tell: Tell, error: BaseException) -> None:
        """Its worker is gone. What waits behind the call fails too, and never runs."""
        self._pool.failed(self, error)
        self._calls.settle(tell, error)

    def lose(self, error: BaseException) -> None:
        """Fail all that is under way, and all that is yet to come."""
        self._calls.close(error)
        self._calls.fail_all(error)

    def set_flags(self, job: int, *, pause: bool, cancel: bool) -> None:
        """See `lane_protocol.Lane.set_flags`. Reaches threads only."""
        visiting.set_flags(self._pool.origin.pool, self.number, job, pause=pause, cancel=cancel)

    def set_limit(self, chunk: int, position: int) -> None:
        """See `lane_protocol.Lane.set_limit`. Not asked for."""

    def observe(self, tell: Callable[[Claim], None]) -> None:
        """See `lane_protocol.Lane.observe`. Not asked for."""

    def peek(self) -> Claim | None:
        """See `lane_protocol.Lane.peek`. Nothing is known."""
        return None

    def take_early(self) -> bytes | None:
        """See `lane_protocol.Lane.take_early`. Nothing comes early."""
        return None

    def kill(self, *, dump_stack: bool = False) -> None:
        """See `lane_protocol.Lane.kill`. What runs can't be killed."""


def _is_executor(given: object) -> bool:
    """False for a function that makes one, which a class is too."""
    return callable(getattr(given, "submit", None)) and not isinstance(given, type)


def _check_once(executor: Executor) -> None:
    """Raise TypeError for an executor that makes the calls of dead workers again, or those that failed."""
    kind = type(executor)
    if kind.__name__ == "ClientExecutor" and kind.__module__.partition(".")[0] == "distributed":
        raise TypeError(
            "executor: expected one that makes each call once, got Dask's, which repeats the calls of dead workers; "
            "use DaskBackend(client)"
        )
    retries = getattr(executor, "_max_retries", 0)
    if kind.__module__.partition(".")[0] == "mpqueue" and retries:
        raise TypeError(
            f"executor: expected one that makes each call once, got an mpqueue.Executor with max_retries={retries}, so "
            "that both would try an item again; make it with max_retries=0, or leave out backend="
        )


def _cancel(future: Future[Any]) -> bool:
    """True where the call will not run. Some executors can't, and say so with an exception."""
    with contextlib.suppress(Exception):
        return future.cancel()
    return False


def _shut_down(executor: Executor, *, wait: bool) -> None:
    try:
        executor.shutdown(wait=wait)
    except Exception as error:  # it is of no use any more, however it ends
        _log.warning("%s could not be shut down: %r", type(executor).__name__, error)


def _error_of(answer: Future[Any]) -> BaseException | None:
    return RuntimeError("the executor cancelled a call") if answer.cancelled() else answer.exception()
