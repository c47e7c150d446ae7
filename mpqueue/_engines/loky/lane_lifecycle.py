"""The life of one generation of a lane, from its start until nothing of it is left.

::

    STARTING --answers--> LIVE --recycle--> ENDING
        |                  |                  |
        +------------------+--- its process ends: LEAVING (what it has answered was read, and is handed over)
                                              |
                      LaneStartFailed or LaneDied is posted, unless the pool is closed: DEAD
                                              |
                                      retire, or the pool is closed: everything freed, `on_gone`

`LaneLifecycle._ACTIONS` has what is done in which state; all else that happens is ignored. All of it runs on the
inbox's thread, so there are no locks, and messages of a lane keep their order.
"""

from __future__ import annotations

import enum
import functools
import logging
import threading
from collections.abc import Callable
from concurrent.futures.process import BrokenProcessPool
from typing import Any, ClassVar

from mpqueue._core.messages import LaneDied, LaneReady, LaneStartFailed, Message
from mpqueue._engines.loky import launch
from mpqueue._engines.loky.loky_lane import LaneEvent, LokyLane
from mpqueue._engines.loky.worker_process import START_LOOK, StackDump, StartProgress
from mpqueue._os.descriptors import is_readable
from mpqueue._os.process_signals import signal_name
from mpqueue._parent.inbox import Inbox, TimedCall, found
from mpqueue._wire.line import Answer
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

_CLOSED = "it lives on with its end of the line closed, which a handler must have done"


class State(enum.Enum):
    """The states in the diagram of this module's docstring."""

    STARTING = enum.auto()
    LIVE = enum.auto()
    ENDING = enum.auto()
    LEAVING = enum.auto()
    DEAD = enum.auto()
    GONE = enum.auto()


class LaneLifecycle:
    """The keeper of one `LokyLane`. Made and called on the inbox's thread, except for `happened`.

    ``on_exit`` is called once the end of the process was reported.
    """

    def __init__(
        self,
        lane: LokyLane,
        inbox: Inbox,
        on_ready: Callable[[LokyLane], object],
        on_exit: Callable[[LokyLane], object],
        on_gone: Callable[[LokyLane, list[threading.Thread]], object],
    ) -> None:
        self.lane = lane
        self._inbox = inbox
        self._on_ready = on_ready
        self._on_exit = on_exit
        self._on_gone = on_gone
        self._state = State.STARTING
        self._is_silent = False
        self._pool_closes = False
        self._failure: BaseException | None = None
        self._claim: Claim | None = None
        self._progress = StartProgress(lane.pid)
        self._stack = StackDump(lane.stack, lane.worker, inbox)
        self._timer: TimedCall | None = None
        self._end_expected: TimedCall | None = None  #: when a killed worker is given up

    def begin(self) -> None:
        """Begin to watch the lane."""
        self._guard(self._begin)

    def _begin(self) -> None:
        lane = self.lane
        self._inbox.watch(lane.worker.fileno(), self._told(LaneEvent.EXITED))
        lane.happened = self.happened
        lane.worker.when_killed = functools.partial(self.happened, LaneEvent.KILLED)
        self._look_at_start_later()
        lane.begin(functools.partial(self.happened, LaneEvent.ANSWERED))

    def happened(self, event: LaneEvent, *arguments: Any) -> None:
        """Take in what has happened, soon. On any thread."""
        self._inbox.call(self._take, event, *arguments)

    def _told(self, event: LaneEvent) -> Callable[[], None]:
        """Return what takes in that event: a call for the inbox's thread."""
        return functools.partial(self._take, event)

    def _take(self, event: LaneEvent, *arguments: Any) -> None:
        """Do what belongs to that event in this state."""
        if (action := self._ACTIONS.get((self._state, event))) is not None:
            self._guard(action, self, *arguments)

    def _guard(self, action: Callable[..., object], *arguments: Any) -> None:
        """Do it; an error is an internal one, and ends the lane."""
        try:
            action(*arguments)
        except BaseException as error:
            self._collapse(error)

    def _collapse(self, error: BaseException) -> None:
        """End the lane at once, and report it: nothing more of it may come."""
        lane, state = self.lane, self._state
        self._inbox.post(found(f"while it watched worker {lane.number}", error))
        self._is_silent = True
        self._state = State.LEAVING
        steps: list[Callable[[], object]] = [
            self._cancel_timer,
            self._forget_end,
            lane.worker.kill,
            functools.partial(lane.answers.close, error),
            functools.partial(lane.answers.fail_all, error),
            functools.partial(self._inbox.forget, lane.worker.fileno()),
            functools.partial(self._inbox.forget, lane.stack),
        ]
        if state not in (State.DEAD, State.GONE):
            steps.append(lambda: is_readable(lane.worker.fileno(), END_LIMIT))
            steps.append(lane.worker.exited)
            steps.append(lane.abandon)
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
            self._timer = self._inbox.later(END_LIMIT, self.lane.worker.kill)
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
        self._take(LaneEvent.DRAINED)

    # -- events --------------------------------------------------------------------------------------------------------

    def _answered(self, answer: Answer | BaseException) -> None:
        self._note_failure(answer)
        if isinstance(answer, BaseException):
            self.lane.worker.kill()
            return
        self._cancel_timer()
        self._state = State.LIVE
        self.lane.is_up = True
        self._inbox.watch(self.lane.stack, self._told(LaneEvent.STACK_CAME))
        if not self._is_silent:
            self._on_ready(self.lane)
            self._tell(LaneReady(self.lane.number, self.lane.generation, self.lane.pid))

    def _note_failure(self, answer: Answer | BaseException) -> None:
        """Keep the error of a start; even if the process has ended already: its end has less information."""
        if isinstance(answer, BaseException) and not isinstance(answer, BrokenProcessPool):
            self._failure = answer

    def _look_at_start_later(self) -> None:
        self._timer = self._inbox.later(START_LOOK, self._told(LaneEvent.LOOKED))

    def _look_at_start(self) -> None:
        """Check whether the start makes progress; it may take its time as long as it does."""
        stuck = self._progress.look()
        if stuck is None:
            self._look_at_start_later()
        else:
            self._failure = TimeoutError(f"the worker's {stuck}")
            self.lane.worker.kill()

    def _expect_end(self) -> None:
        """Expect the end of the killed worker within `KILL_LIMIT` seconds."""
        if self._end_expected is None:
            self._end_expected = self._inbox.later(KILL_LIMIT, self._told(LaneEvent.GIVEN_UP))

    def _suspect_end(self) -> None:
        """Wait for the end of the worker, which has closed the line."""
        if self._timer is None:
            self._timer = self._inbox.later(CUT_OFF_LIMIT, self.lane.break_off, _CLOSED)

    def _give_up(self) -> None:
        """Count the worker as ended."""
        pid = self.lane.pid
        _log.warning("worker %d was killed and does not end; the queue goes on without it", pid)
        self._exited()

    def _exited(self) -> None:
        """Handle the end of the process; its answers may still be on their way."""
        lane = self.lane
        self._cancel_timer()
        self._forget_end()
        self._inbox.forget(lane.worker.fileno())
        self._state = State.LEAVING
        try:
            if lane.worker.has_false_end():
                lane.break_off("found bytes in the pipe that reports the worker's end")
            lane.worker.exited()
            self._claim = lane.ledger.read()
            if lane.is_up:
                self._stack.end()
        except Exception as fault:  # its death is reported in any case
            self._tell(found(f"while it looked at what worker {lane.number} left behind", fault))
        if self._pool_closes:
            self._bury()
        else:
            lane.hand_over_rest(functools.partial(self.happened, LaneEvent.DRAINED))

    def _bury(self) -> None:
        """Report the death: no answer is on its way any more."""
        lane = self.lane
        code = lane.abandon()
        self._state = State.DEAD
        if lane.is_up:
            self._tell(
                LaneDied(
                    lane.number,
                    lane.generation,
                    lane.pid,
                    exitcode=code,
                    signal=signal_name(code),
                    claim=self._claim,
                    stack=lane.last_stack,
                )
            )
        else:
            # A signal may have come from anywhere, most likely from the system for lack of memory.
            ended_by_itself = code is not None and code >= 0 and signal_name(code) is None
            lasting = ended_by_itself if self._failure is None else launch.lasts(self._failure)
            error = self._failure or _died_at_start(code)
            self._tell(LaneStartFailed(lane.number, lane.generation, error, lasting=lasting))
        if not self._pool_closes:  # which then looks for what all its workers have left behind
            self._on_exit(lane)
        if self._is_silent or not lane.is_up:
            self._free()

    def _free(self) -> None:
        if self._state is not State.GONE:
            self._state = State.GONE
            self._on_gone(self.lane, self.lane.close())

    def _tell(self, message: Message) -> None:
        if not self._is_silent:
            self._inbox.post(message)

    def _cancel_timer(self) -> None:
        if self._timer is not None:
            self._inbox.cancel(self._timer)
            self._timer = None

    def _forget_end(self) -> None:
        if self._end_expected is not None:
            self._inbox.cancel(self._end_expected)
            self._end_expected = None  # it holds this lifecycle, and so the lane

    #: What is done when something happens to the lane in some state; nothing in others.
    _ACTIONS: ClassVar[dict[tuple[State, LaneEvent], Callable[..., object]]] = {
        (State.STARTING, LaneEvent.ANSWERED): _answered,
        (State.LEAVING, LaneEvent.ANSWERED): _note_failure,
        (State.STARTING, LaneEvent.LOOKED): _look_at_start,
        (State.STARTING, LaneEvent.CUT_OFF): lambda self: self.lane.worker.kill(),
        (State.LIVE, LaneEvent.CUT_OFF): _suspect_end,
        **dict.fromkeys([(state, LaneEvent.STACK_WANTED) for state in State], lambda _, tell: tell(None)),
        (State.LIVE, LaneEvent.STACK_WANTED): lambda self, tell: self._stack.look(tell),
        (State.LIVE, LaneEvent.STACK_CAME): lambda self: self._stack.read(),
        (State.ENDING, LaneEvent.STACK_CAME): lambda self: self._stack.read(),
        **{
            (state, event): action
            for event, action in (
                (LaneEvent.KILLED, _expect_end),
                (LaneEvent.GIVEN_UP, _give_up),
                (LaneEvent.EXITED, _exited),
            )
            for state in (State.STARTING, State.LIVE, State.ENDING)
        },
        (State.LEAVING, LaneEvent.DRAINED): _bury,
    }


def _died_at_start(code: int | None) -> WorkerStartError:
    how = signal_name(code) or ("an unknown exit code" if code is None else f"exit code {code}")
    return WorkerStartError(f"the worker ended with {how} before it answered; see its standard error for more")
