"""The life of one generation of a lane, from its start until nothing of it is left.

::

    STARTING --answers--> LIVE --recycle--> ENDING
        |                  |                  |
        +------------------+--- its process ends: LEAVING (what it has answered is read and handed over)
                                              |
                      LaneStartFailed or LaneDied is posted, unless the pool is closed: DEAD
                                              |
                                      retire, or the pool is closed: everything freed, `on_gone`

All of it runs on the watcher's thread, so there are no locks, and messages of a lane keep their order.
"""

from __future__ import annotations

import contextlib
import enum
import functools
import logging
import sched
import threading
from collections.abc import Callable
from concurrent.futures import Future
from concurrent.futures.process import BrokenProcessPool

from mpqueue._core.messages import LaneDied, LaneReady, LaneStartFailed, Message
from mpqueue._engines.loky import launch, worker_process
from mpqueue._engines.loky.loky_lane import LokyLane
from mpqueue._engines.loky.watcher import Watcher
from mpqueue._engines.loky.worker_process import START_LOOK, StackDump, StartProgress
from mpqueue._os import channels
from mpqueue._os.descriptors import is_readable
from mpqueue._os.process.process_signals import signal_name
from mpqueue._parent.lane_protocol import Post
from mpqueue._parent.own_faults import found
from mpqueue._wire.memory.ledger import Claim
from mpqueue.errors import WorkerStartError

_log = logging.getLogger("mpqueue")

#: Seconds that a worker may take to end by itself. Meanwhile it runs `atexit` handlers, and waits for threads that a
#: handler left behind, which may never end.
END_LIMIT = 1.0

#: Seconds that a killed worker may take to end, before the queue goes on without it. It may hang in a device or a
#: network file system, where no signal reaches it, or no signal may be sent. Freeing a terabyte takes as long.
KILL_LIMIT = 10.0

#: Seconds that a worker may live with a closed descriptor that it answers by. If it died, its end is reported much
#: sooner, and blames its item; if it lives, that item or an earlier one has closed it.
CUT_OFF_LIMIT = 1.0

#: Seconds that the end of a dead worker's line may take to come: another process may hold it open.
DRAIN_LIMIT = 0.5

_CLOSED = "it lives on with its end of the line closed, which a handler must have done"


class State(enum.Enum):
    """The states in the diagram of this module's docstring."""

    STARTING = enum.auto()
    LIVE = enum.auto()
    ENDING = enum.auto()
    LEAVING = enum.auto()
    DEAD = enum.auto()
    GONE = enum.auto()


class Warden:
    """The keeper of one `LokyLane`. Made and called on the watcher's thread only."""

    def __init__(
        self,
        lane: LokyLane,
        cookie: str,
        watcher: Watcher,
        post: Post,
        on_ready: Callable[[LokyLane], object],
        on_gone: Callable[[LokyLane, list[threading.Thread]], object],
    ) -> None:
        self.lane = lane
        self._cookie = cookie
        self._watcher = watcher
        self._post = post
        self._on_ready = on_ready
        self._on_gone = on_gone
        self._state = State.STARTING
        self._was_ready = False
        self._is_silent = False
        self._pool_closes = False  #: and then looks for strays of all its workers at once
        self._failure: BaseException | None = None
        self._exitcode: int | None = None
        self._claim: Claim | None = None
        self._text: str | None = None
        self._progress = StartProgress(lane.pid)
        self._stack = StackDump(lane.stack, lane.worker, watcher)
        self._timer: sched.Event | None = None
        self._end_expected: sched.Event | None = None  #: when a killed worker is given up

    def begin(self) -> None:
        """Begin to watch the lane."""
        self._guarded(self._begin)()

    def _begin(self) -> None:
        self._watcher.on_readable(self.lane.worker.fileno(), self._guarded(self._exited))
        self.lane.worker.when_killed = lambda: self._watcher.call(self._guarded(self._killed))
        self._look_at_start_later()
        self.lane.when_cut_off = lambda: self._watcher.call(self._guarded(self._cut_off))
        first, self.lane.first_answer = self.lane.first_answer, None
        assert first is not None
        first.add_done_callback(lambda answer: self._watcher.call(self._guarded(self._answered), answer))

    def _guarded(self, function: Callable[..., object]) -> Callable[..., None]:
        """Return the function, wrapped to end the lane if it raises: that is an internal error."""
        return functools.partial(self._guard, function)

    def _guard(self, function: Callable[..., object], *arguments: object) -> None:
        try:
            function(*arguments)
        except BaseException as error:
            self._collapse(error)

    def _collapse(self, error: BaseException) -> None:
        """End the lane at once, and report it: nothing more of it may come."""
        lane, state = self.lane, self._state
        self._post(found(f"while it watched worker {lane.number}", error, lane=lane.number, generation=lane.generation))
        self._is_silent = True
        self._state = State.LEAVING
        steps: list[Callable[[], object]] = [
            self._cancel_timer,
            self._forget_end,
            lane.worker.kill,
            functools.partial(lane.answers.close, error),
            functools.partial(lane.answers.fail_all, error),
            functools.partial(self._watcher.forget, lane.worker.fileno()),
            functools.partial(self._watcher.forget, lane.bell),
        ]
        if state not in (State.DEAD, State.GONE):
            steps.append(lambda: is_readable(lane.worker.fileno(), END_LIMIT))
            steps.append(lambda: lane.abandon(lane.worker.exited()))
        steps.append(functools.partial(self._on_gone, lane, []) if state is State.GONE else self._free)
        for step in steps:
            try:
                step()
            except BaseException:
                _log.critical("ending worker %d goes on although a part of it failed", lane.number, exc_info=True)
        self._state = State.GONE

    # -- the pool's requests -------------------------------------------------------------------------------------------

    def end(self) -> None:
        """Let the worker end by itself, up to a time limit, and report nothing."""
        self._is_silent = True
        if self._state is State.LIVE:
            self._state = State.ENDING
            self._cancel_timer()  # it may be cut off
            self.lane.end()
            self._timer = self._watcher.later(END_LIMIT, self.lane.worker.kill)
        else:
            self.retire()

    def retire(self) -> None:
        """Free the lane, which is no longer needed, now or when it is dead."""
        self._is_silent = True
        if self._state is State.DEAD:
            self._free()

    def leave(self, *, kill: bool) -> None:
        """End the worker, as the pool closes: by itself where it is idle, else by a kill. Its answers are void."""
        self._pool_closes = True
        if not kill and self._state is State.LIVE and len(self.lane.answers) == 0:
            self.end()
        elif kill or self._state is not State.ENDING:
            self.lane.worker.kill()
        self.retire()
        self._drained()

    # -- events --------------------------------------------------------------------------------------------------------

    def _answered(self, answer: Future[bytes]) -> None:
        error = answer.exception()
        if error is not None and not isinstance(error, BrokenProcessPool):  # `_exited` has more about its death
            self._failure = error  # in time, even if the process has ended already: `_drained` comes later
        if self._state is not State.STARTING:
            return
        if error is not None:
            self.lane.worker.kill()
            return
        self._cancel_timer()
        self._state = State.LIVE
        self._was_ready = self.lane.is_up = True
        self._watcher.on_readable(self.lane.bell, self._guarded(self._rang))
        self._stack.listen()
        self.lane.ask_for_stack = lambda: self._watcher.call(self._guarded(self._ask_for_stack))
        self.lane.look_at_stack = lambda tell: self._watcher.call(self._guarded(self._look_at_stack), tell)
        if not self._is_silent:
            self._on_ready(self.lane)
            self._tell(LaneReady(self.lane.number, self.lane.generation, self.lane.pid))

    def _look_at_start_later(self) -> None:
        self._timer = self._watcher.later(START_LOOK, self._guarded(self._look_at_start))

    def _look_at_start(self) -> None:
        """Check whether the start makes progress; it may take its time as long as it does."""
        stuck = self._progress.look()
        if stuck is None:
            self._look_at_start_later()
        else:
            self._failure = TimeoutError(f"the worker's {stuck}")
            self.lane.worker.kill()

    def _rang(self) -> None:
        with contextlib.suppress(BlockingIOError):
            if channels.read(self.lane.bell, 4096):
                self.lane.take_early()
            else:
                self._watcher.forget(self.lane.bell)

    def _ask_for_stack(self) -> None:
        if self._state is State.LIVE:
            self._stack.request(self.lane.worker.kill)

    def _look_at_stack(self, tell: Callable[[str | None], object]) -> None:
        if self._state is State.LIVE:
            self._stack.look(tell)
        else:
            tell(None)

    def _killed(self) -> None:
        """Expect the end of the killed worker within `KILL_LIMIT` seconds."""
        if self._end_expected is None and self._state in (State.STARTING, State.LIVE, State.ENDING):
            self._end_expected = self._watcher.later(KILL_LIMIT, self._guarded(self._give_up))

    def _cut_off(self) -> None:
        """Wait for the report of a death: the worker has closed the line, so it is most likely dead."""
        if self._state is State.STARTING:
            self.lane.worker.kill()
        elif self._state is State.LIVE and self._timer is None:
            self._timer = self._watcher.later(CUT_OFF_LIMIT, self.lane.break_off, _CLOSED)

    def _give_up(self) -> None:
        """Count the worker as ended: it was killed but still lives. Nothing that it does counts any more."""
        pid = self.lane.pid
        _log.warning("worker %d was killed and does not end; the queue goes on without it", pid)
        self._exited()

    def _exited(self) -> None:
        """Handle the end of the process; its answers may still be on their way."""
        lane = self.lane
        self._cancel_timer()
        self._forget_end()
        self._watcher.forget(lane.worker.fileno())
        self._state = State.LEAVING
        try:
            self._exitcode = lane.worker.exited()
            self._claim = lane.ledger.read()
            if self._was_ready:
                self._text = self._stack.take()
                self._watcher.forget(lane.bell)
            if not self._pool_closes:
                worker_process.kill_strays(self._cookie)
        except Exception as fault:  # its death is reported in any case
            at = f"while it looked at what worker {lane.number} left behind"
            self._tell(found(at, fault, lane=lane.number, generation=lane.generation))
        error = BrokenProcessPool(f"worker {lane.pid} has ended")
        lane.answers.close(error)
        lane.take_early()
        if self._pool_closes:
            self._drained()
            return
        self._timer = self._watcher.later(DRAIN_LIMIT, lane.read_rest)
        lane.when_over(lambda: self._watcher.call(self._guarded(self._drained)))

    def _drained(self) -> None:
        """Report the death: no answer is on its way any more."""
        if self._state is not State.LEAVING:
            return
        self._cancel_timer()
        lane = self.lane
        self._exitcode = lane.abandon(self._exitcode)
        self._state = State.DEAD
        if self._was_ready:
            self._tell(
                LaneDied(
                    lane.number,
                    lane.generation,
                    lane.pid,
                    exitcode=self._exitcode,
                    signal=signal_name(self._exitcode),
                    claim=self._claim,
                    stack=self._text,
                )
            )
        else:
            # A signal may have come from anywhere, most likely from the system for lack of memory.
            code = self._exitcode
            ended_by_itself = code is not None and code >= 0 and signal_name(code) is None
            lasting = ended_by_itself if self._failure is None else launch.lasts(self._failure)
            error = self._failure or self._died_at_start()
            self._tell(LaneStartFailed(lane.number, lane.generation, error, lasting=lasting))
        if self._is_silent or not self._was_ready:
            self._free()

    def _died_at_start(self) -> WorkerStartError:
        code = self._exitcode
        how = signal_name(code) or ("an unknown exit code" if code is None else f"exit code {code}")
        return WorkerStartError(f"the worker ended with {how} before it answered; see its standard error for more")

    def _free(self) -> None:
        if self._state is not State.GONE:
            self._state = State.GONE
            self._on_gone(self.lane, self.lane.close())

    def _tell(self, message: Message) -> None:
        if not self._is_silent:
            self._post(message)

    def _cancel_timer(self) -> None:
        if self._timer is not None:
            self._watcher.cancel(self._timer)
            self._timer = None

    def _forget_end(self) -> None:
        if self._end_expected is not None:
            self._watcher.cancel(self._end_expected)
            self._end_expected = None  # it holds this warden, and so the lane
