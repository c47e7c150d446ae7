"""The coordinator: the one thread that owns all state of a queue.

It takes a message from the inbox, asks the scheduler, carries out the commands, and sleeps until the next message or
the scheduler's deadline. It never polls, never blocks on a lane, and decides nothing about jobs.

Errors here are internal errors, since users' code runs elsewhere. A half-done step may have left wrong data in the
books, so the queue ends, and all its jobs with it: see `_break_down`.
"""

from __future__ import annotations

import logging
import threading
from collections import deque
from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar, cast

from mpqueue._core.commands import (
    AnnounceFinished,
    AnnounceItems,
    AnnounceRecords,
    AnnounceStarted,
    AnnounceState,
    Command,
    ForgetJob,
    GiveUpAnswer,
    HurryJob,
    InitializeLane,
    KillLane,
    LowerLimit,
    ObserveLane,
    RecycleLane,
    RetireLane,
    SendChunk,
    SetFlags,
    StartLane,
    TellDemand,
    Warn,
)
from mpqueue._core.messages import (
    ChunkRefused,
    ChunkReported,
    ChunkSent,
    FailedItemsReset,
    FaultFound,
    ItemsAdded,
    JobHeldBack,
    JobResumed,
    JobStartAsked,
    LaneDied,
    LaneInitialized,
    LaneObserved,
    Message,
    ModulesReloaded,
    RecordsLeft,
    Slept,
    TimePassed,
)
from mpqueue._core.scheduler import Scheduler
from mpqueue._core.state.books import Lookout
from mpqueue._core.state.job_book import JobBook
from mpqueue._os.descriptors import NO_SIGNAL
from mpqueue._os.process_facts import busy_machine
from mpqueue._os.process_signals import report_broken_pipes
from mpqueue._parent.deliveries import Deliveries
from mpqueue._parent.inbox import Clock, Inbox, Request, cpu_seconds, found
from mpqueue._parent.lane_protocol import DemandPool, Lane, LanePool
from mpqueue._parent.replies import Reply
from mpqueue._parent.running import running_items
from mpqueue._parent.traffic import Traffic
from mpqueue._parent.users_threads import Errands, Picklers
from mpqueue._wire.frames import load_unsent
from mpqueue._wire.memory.ledger import Claim
from mpqueue._wire.pickling.packed_handler import PackedHandler
from mpqueue.errors import InternalError, JobStateError, MPQueueError, QueueClosedError

if TYPE_CHECKING:
    from mpqueue._parent.journal.journal_outlet import JournalOutlet

log = logging.getLogger("mpqueue")

T = TypeVar("T")
Announce = Callable[[AnnounceStarted | AnnounceItems | AnnounceRecords | AnnounceState | AnnounceFinished], None]
GiveUp = Callable[[InternalError], object]
Subscriber = Callable[[Sequence[int] | None], None]
#: Commands for a lane, whichever worker it has.
_OF_ANY_WORKER = frozenset({KillLane, LowerLimit, SetFlags})
_BRING_WORK = frozenset({ItemsAdded, JobStartAsked, FailedItemsReset, JobResumed})


class Coordinator:
    """Owns the scheduler and, from `open` on, the pool. Everything but `ask` and `post` runs on its thread.

    ``give_up`` resolves all runs with an error.
    """

    def __init__(
        self,
        scheduler: Scheduler,
        clock: Clock,
        announce: Announce,
        initializer: PackedHandler | None,
        name: str,
        outlet: JournalOutlet | None = None,
        give_up: GiveUp = lambda _: None,
        devices: Sequence[str] = (),
    ) -> None:
        self.scheduler = scheduler
        self.clock = clock
        self._announce = announce
        self._give_up = give_up
        self._outlet = outlet
        #: The internal error after which nothing works any more.
        self.broken: InternalError | None = None
        self.inbox = Inbox()
        self._pool: LanePool | None = None
        self._received = 0  #: the number of the current message
        self._looked_until = 0  #: messages up to that one had come at the last look at the imports
        self._more: deque[Message] = deque()
        self._planned: float | None = None  #: seconds that it may wait for the next step; None: any
        #: Frees objects that may be users', so that their `__del__` does not run here.
        self._freeing = Errands(
            name.replace("coordinator", "freeing"),
            lambda error: self.post(found("while it freed what it was done with", error)),
            self.inbox.call_later,
        )
        self.picklers = Picklers(clock.now, self.inbox)
        self._traffic = Traffic(clock.now, self.inbox, announce, scheduler.books, self.picklers, self._hand_in, devices)
        #: Results on their way into sinks.
        self.deliveries = Deliveries(self)
        self._subscribers: dict[int, list[Subscriber]] = {}
        self._running = True
        self._ended = False
        self._awaited: list[tuple[Callable[[], bool], Reply[None]]] = []
        self._thread = threading.Thread(target=self._loop, name=name, daemon=True)
        self._actions: dict[type, Callable[[Any], None]] = {
            StartLane: lambda command: self._pool_now.start(command.lane, command.generation),
            RecycleLane: self._recycle_lane,
            RetireLane: lambda command: self._pool_now.retire(command.lane),
            TellDemand: lambda command: cast("DemandPool", self._pool_now).tell_demand(command.lanes, command.seconds),
            Warn: lambda command: log.warning("%s%s", command.text, busy_machine() if command.with_load else ""),
            AnnounceStarted: self._tell_started,
            AnnounceItems: self._tell_items,
            AnnounceRecords: self._announce,
            AnnounceState: self._announce,
            AnnounceFinished: self._tell_finished,
            HurryJob: lambda command: self.picklers.hurry(command.job.family),
        }
        at_lanes: dict[type, Callable[[Lane, Any], object]] = {
            InitializeLane: lambda lane, _: self._traffic.initialize(lane, cast("PackedHandler", initializer)),
            KillLane: lambda lane, command: lane.kill(dump_stack=command.dump_stack),
            SendChunk: self._send_chunk,
            ForgetJob: self._traffic.forget_job,
            SetFlags: lambda lane, command: lane.set_flags(command.job, pause=command.pause, cancel=command.cancel),
            LowerLimit: lambda lane, command: lane.set_limit(command.chunk, command.position),
            ObserveLane: lambda lane, command: lane.observe(partial(self._observed, command, self.clock.now())),
            GiveUpAnswer: self._give_up_answer,
        }
        self._actions |= {kind: partial(self._at_lane, carry_out) for kind, carry_out in at_lanes.items()}
        if outlet is not None:
            outlet.join(self, self._actions)
        self._actions[AnnounceFinished] = partial(self._end_packing, self._actions[AnnounceFinished])

    # -- from any thread -------------------------------------------------------------------------------------

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def post(self, message: Message) -> None:
        """Post a message or a request. Never blocks."""
        self.inbox.post(message)

    def ask(self, call: Callable[[], T]) -> T:
        """Run ``call`` on the coordinator's thread, between two messages; returns or raises as it does.

        Raises RuntimeError when called on that thread: it would wait for itself.
        """
        self.check_thread()
        return self.ask_later(call).result()

    def check_thread(self) -> None:
        """Raise RuntimeError on the coordinator's own thread."""
        if threading.current_thread() is self._thread:
            raise RuntimeError("a queue's methods can't be called on its coordinator's thread")

    def ask_later(self, call: Callable[[], T], told: Callable[[Reply[T]], object] | None = None) -> Reply[T]:
        """Like `ask`, without waiting; ``told`` is called with the answer, on the answering thread."""
        answer = Reply(told)
        self.inbox.post(Request(call, answer))
        if self._ended:
            self._refuse_rest()
        return answer

    def do_later(self, call: Callable[[], object]) -> None:
        """Run ``call`` like `ask`, but no caller waits: its errors are internal errors."""
        self.inbox.post(Request(call, None))

    def hold_back(self, job: JobBook, held: bool) -> None:
        """Soon send no more of the job's items, until each such call was taken back."""
        self.post(JobHeldBack(job, held))

    def stop(self) -> None:
        """End the thread after all that was posted before."""

        def end() -> None:
            self._running = False

        self.ask_later(end)
        if threading.current_thread() is not self._thread:
            self._thread.join()

    # -- inside requests -------------------------------------------------------------------------------------

    def open(self, pool: LanePool) -> None:
        """Send commands to the lanes of this pool from now on."""
        self._pool = pool

    def handle(self, message: Message) -> None:
        """Handle a message and carry out its commands.

        Raises `JobStateError` if the scheduler refuses it, and `InternalError` after an internal error, which has ended
        all jobs.
        """
        if self.broken is not None:
            raise self.broken
        if type(message) in _BRING_WORK:
            self._look_at_imports()
        elif type(message) is LaneDied:
            self._take_last_words(message)
        self._decide(message)

    def _look_at_imports(self) -> None:
        """Replace workers that have older modules than the program had when the user's work came."""
        if self._received <= self._looked_until:
            return
        self._looked_until = self._received + self.inbox.waiting
        if self._traffic.have_reloaded():
            self._decide(ModulesReloaded())

    def _decide(self, message: Message) -> None:
        doing: Message | Command = message
        try:
            if type(message) is ChunkReported:
                if message.returned:
                    self._traffic.take_back(message.lane, message.generation, message.returned)
            elif type(message) is LaneDied:
                self._traffic.lane_gone(message.lane, message.generation)
            for command in self.scheduler.handle(message, self.clock.now()):
                doing = command
                self._actions[type(command)](command)
        except Exception as error:
            if doing is message and isinstance(error, JobStateError):
                raise
            self._break_down(found(f"in {type(doing).__name__}", error).error)
        if self.broken is not None:  # raised here, where it does not refer to the frames of its cause
            raise self.broken
        if (type(message) is ChunkReported and message.has_user_objects) or type(message) in (
            ChunkRefused,
            LaneInitialized,
        ):
            self.scheduler.books.free_later(message)

    def _break_down(self, error: InternalError) -> None:
        """End all jobs: all callers that wait for this queue get the error at once.

        It relies on nothing: each step is tried, even if others failed.
        """
        if self.broken is not None:
            return
        self.broken = error
        log.critical("the queue and all its jobs end by that")
        subscribers = [one for each in self._subscribers.values() for one in each]
        awaited, self._awaited = self._awaited, []
        steps: list[Callable[[], object]] = [
            partial(self.scheduler.break_down, error),
            *(partial(subscriber, None) for subscriber in subscribers),
            partial(self._give_up, error),
            self.deliveries.drop_all,
            *(partial(answer.set_exception, error) for _, answer in awaited),
        ]
        if self._outlet is not None:
            steps.append(self._outlet.give_up)
        if self._pool is not None:
            steps.append(partial(self._pool.close, kill=True))
        for step in steps:
            try:
                step()
            except BaseException:
                log.critical("ending the queue goes on although a part of it failed", exc_info=True)

    def subscribe(self, job: JobBook, subscriber: Subscriber) -> None:
        """Give ``subscriber`` the indices of the items that have ended, then of each that ends, then None: each once.

        With a journal, an item has ended once that is on disk.
        """
        self._in_turn(job, partial(self._subscribe, job, subscriber))

    def _subscribe(self, job: JobBook, subscriber: Subscriber) -> None:
        untold = [] if self._outlet is None else self._outlet.untold(job)
        waiting = {index for each in untold if isinstance(each, AnnounceItems) for index in each.indices}
        ended = job.table.ended_indices()
        subscriber([index for index in ended if index not in waiting] if waiting else ended)
        is_untold = any(isinstance(each, AnnounceFinished) for each in untold) or self.deliveries.is_under_way(job)
        if job.status.final and not is_untold:
            subscriber(None)
        else:
            self._subscribers.setdefault(job.number, []).append(subscriber)

    def _in_turn(self, job: JobBook, call: Callable[[], object]) -> None:
        if self._outlet is None:
            call()
        else:
            self._outlet.in_turn(job, call)

    def subscribe_early(self, job: JobBook, subscriber: Subscriber) -> None:
        """Like `subscribe`, for a job that is about to start."""
        self._subscribers[job.number] = [subscriber]

    def unsubscribe(self, job: JobBook, subscriber: Subscriber) -> None:
        """Stop giving that subscriber indices."""

        def unsubscribe() -> None:
            subscribers = self._subscribers.get(job.number, [])
            if subscriber in subscribers:
                subscribers.remove(subscriber)

        self._in_turn(job, unsubscribe)  # it may not have had its turn yet

    def when(self, condition: Callable[[], bool], answer: Reply[None]) -> None:
        """Resolve ``answer`` once the condition holds between two messages; at once if nothing works any more."""
        if self.broken is None:
            self._awaited.append((condition, answer))
        else:
            answer.set_exception(self.broken)

    # -- the thread ------------------------------------------------------------------------------------------

    def _loop(self) -> None:
        self.inbox.owner = threading.get_ident()
        if not NO_SIGNAL:  # as on macOS; only there, since threads started here inherit it and run users' code
            report_broken_pipes()
        try:
            self._serve()
        except BaseException as error:
            self._break_down(found("in the coordinator's loop", error).error)
        self._serve_broken()
        self._ended = True
        self.picklers.close()
        self._refuse_rest()
        try:
            self._traffic.close()
        finally:
            self._free_elsewhere()
            self._freeing.end()
            self.inbox.close()

    def _serve(self) -> None:
        self._lookout = Lookout(self.clock.now(), cpu_seconds)
        while self._running and self.broken is None:
            deadline = self.scheduler.deadline
            if self.picklers.lines and (due := self.picklers.deadline) is not None:
                deadline = due if deadline is None else min(due, deadline)
            self._planned = None if deadline is None else max(0.0, deadline - self.clock.now())
            received = self.inbox.take(self._planned)
            self._received += 1
            try:
                now = self._awake()
                if isinstance(received, Request):
                    self._answer(received)
                elif received is not None:
                    self._step(received)
                elif deadline is not None and now >= deadline:
                    self._step(TimePassed())
            except BaseException:
                if received is not None:
                    self.inbox.post(received)  # it is answered, or freed, with all others
                raise
            received = None  # the results in it must not live until the next message
            if self.picklers.lines:
                self.picklers.look()
            self._step_on()
            self._free_elsewhere()
            if self._awaited:
                self._answer_awaited()

    def _serve_broken(self) -> None:
        """Decide nothing any more, but end workers, sinks and files as usual, until the queue is closed."""
        while self._running:
            received = self.inbox.take(None)
            if isinstance(received, Request):
                self._answer(received)
            elif received is not None:
                self.scheduler.books.free_later(received)
            received = None
            self._free_elsewhere()

    def _awake(self) -> float:
        """Return the time. If no process could run meanwhile, that is the first step: else others would seem late."""
        now = self.clock.now()
        if (since := self._lookout.look(now, self._planned)) is not None:
            self._step(Slept(since, now))
        return now

    def _free_elsewhere(self) -> None:
        """Free unneeded objects on another thread, now that no frame here refers to them.

        Python frees an object when its last reference goes, on that thread. The collector of reference cycles runs on
        any thread that makes objects, and so may run users' code here as well.
        """
        if self.scheduler.books.to_free:
            self._freeing.put(self.scheduler.books.take_unneeded().clear)

    def _free_later_if_here(self, contents: object) -> None:
        """Free this later if its holder is being freed on this thread; on other threads it may be freed there."""
        if threading.get_ident() == self.inbox.owner:
            self.scheduler.books.free_later(contents)

    def _answer_awaited(self) -> None:
        awaited, self._awaited = self._awaited, []
        for condition, answer in awaited:
            if condition():
                answer.set_result(None)
            else:
                self._awaited.append((condition, answer))

    def _refuse_rest(self) -> None:
        """Refuse requests that still come once the thread has ended. On the asking thread."""
        while (received := self.inbox.take_now()) is not None:
            if isinstance(received, Request) and received.answer is not None and not received.answer.done():
                received.answer.set_exception(self.broken or QueueClosedError("the queue is closed"))
            self._free_later_if_here(received)
        for _, answer in self._awaited:
            if not answer.done():
                answer.set_exception(self.broken or QueueClosedError("the queue is closed"))

    def _answer(self, request: Request) -> None:
        try:
            value = request.call()
        except BaseException as error:
            if request.answer is not None:
                request.answer.set_exception(error)
            elif not isinstance(error, InternalError):  # otherwise all jobs have ended
                self._break_down(found("in what it was to do later", error).error)
        else:
            if request.answer is not None:
                request.answer.set_result(value)

    def _hand_in(self, message: Message) -> None:
        """Handle a worker's message, in the order of reading: at once on this thread if nothing waits."""
        if threading.get_ident() == self.inbox.owner and not self._more and not self.inbox.waiting:
            self._awake()
            self._step(message)
            self._step_on()
        else:
            self.post(message)

    def _step_on(self) -> None:
        """Take the steps that follow from the last one before others' messages, which may answer it."""
        while self._more and self.broken is None:
            self._step(self._more.popleft())

    def _step(self, message: Message) -> None:
        if type(message) is FaultFound:
            self._break_down(message.error)
            return
        try:
            self.handle(message)
        except InternalError:
            pass  # all jobs have ended, and it was logged
        except JobStateError as error:  # of a message without a waiting caller
            log.info("%s", error)

    @property
    def _pool_now(self) -> LanePool:
        if self._pool is None:
            raise MPQueueError("expected an open pool, got none")
        return self._pool

    def _lane(self, number: int) -> Lane | None:
        return None if self._pool is None else self._pool.lane(number)

    # -- chunks ----------------------------------------------------------------------------------------------

    def _at_lane(self, carry_out: Callable[[Lane, Any], object], command: Any) -> None:
        """Carry a command out at its lane, unless its worker is gone: that death is in the inbox."""
        lane = self._lane(command.lane)
        if lane is not None and (type(command) in _OF_ANY_WORKER or lane.generation == command.generation):
            carry_out(lane, command)

    def _send_chunk(self, lane: Lane, command: SendChunk) -> None:
        message = self._traffic.send_chunk(lane, command)
        if type(message) is ChunkSent:  # no command follows from it
            self.scheduler.handle(message, message.left_at)
        else:
            self._more.append(message)

    def _take_last_words(self, message: LaneDied) -> None:
        """Take the log records that a dead worker may have left in its outbox."""
        lane = self._lane(message.lane)
        if lane is None or lane.generation != message.generation:
            return
        if (unsent := load_unsent(lane.take_unsent())) is not None and unsent[1]:
            self._decide(RecordsLeft(lane.number, lane.generation, *unsent))

    def _recycle_lane(self, command: RecycleLane) -> None:
        lane = self._lane(command.lane)
        if lane is not None:
            self._traffic.lane_gone(lane.number, lane.generation)
        self._pool_now.recycle(command.lane)

    def _give_up_answer(self, lane: Lane, _: GiveUpAnswer) -> None:
        if (report := self._traffic.give_up_answer(lane)) is not None:
            self._more.append(report)

    def _observed(self, command: ObserveLane, asked_at: float, claim: Claim) -> None:
        since = self._traffic.unpickling_since(command.lane, command.generation)
        observed = LaneObserved(command.lane, command.generation, claim, asked_at, since)
        if threading.current_thread() is self._thread:
            self._more.append(observed)
        else:
            self.post(observed)

    # -- announcements ---------------------------------------------------------------------------------------

    def _tell_started(self, command: AnnounceStarted) -> None:
        command.job.table.live.running = partial(running_items, self.scheduler.books, self._lane, command.job)
        command.job.table.live.free_elsewhere = self._free_later_if_here
        if command.job.delivery is not None:
            self.deliveries.start(command.job, command.ended)
        self._announce(command)

    def _tell_items(self, command: AnnounceItems) -> None:
        ended = command.indices
        if command.retrying:
            ended = [index for index in ended if index not in command.retrying]
        if ended:  # otherwise all of them are tried again
            if command.job.delivery is not None:
                self.deliveries.put(command, ended)
            for subscriber in self._subscribers.get(command.job.number, ()):
                subscriber(ended)
        self._announce(command)

    def _end_packing(self, forward: Callable[[AnnounceFinished], object], command: AnnounceFinished) -> None:
        """At once: its last row in the journal must not wait behind items that are not needed any more."""
        self._traffic.job_ended(command.job)
        forward(command)

    def _tell_finished(self, command: AnnounceFinished) -> None:
        if command.job.delivery is not None and self.deliveries.is_under_way(command.job):
            # Announced once its sink is closed: if that fails, the job is cancelled.
            self.deliveries.end(command, lambda: self._tell_finished(command._replace(status=command.job.status)))
            return
        command.job.table.live.running = dict
        subscribers = self._subscribers.pop(command.job.number, ())
        for subscriber in subscribers:
            subscriber(None)
        self._announce(command)
        if subscribers and command.job.table.live.has_user_objects:
            self.scheduler.books.free_later(subscribers)
