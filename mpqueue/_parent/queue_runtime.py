"""A queue's runtime, and its shutdown: owns the coordinator, the pool and the listener thread.

It holds no reference to the queue, so that a queue that is no longer referenced can be collected; the remaining work is
done here.
"""

from __future__ import annotations

import contextlib
import functools
import itertools
import logging
import os
import random
import threading
from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING, TypeVar

from mpqueue._core.messages import FailedItemsReset, JobStartAsked, Message, QueueClosing, QueueOpened
from mpqueue._core.scheduler import Scheduler
from mpqueue._core.state.books import EndedCounts
from mpqueue._core.state.job_book import JobBook
from mpqueue._options import DEVICES_VARIABLE, QueueOptions
from mpqueue._os.descriptors import told
from mpqueue._parent import replies as threads
from mpqueue._parent.coordinator import Announce, Coordinator, GiveUp
from mpqueue._parent.inbox import Clock, SystemClock, found
from mpqueue._parent.interpreter_exit import check_running, is_exiting, on_exit
from mpqueue._parent.lane_protocol import Backend, LanePool, LaneSettings
from mpqueue._parent.listeners import ListenerThread
from mpqueue._parent.replies import Reply, SafeEvent
from mpqueue._parent.running import LaneNow, LaneStack, Sampler, lanes_now, stacks_now
from mpqueue._wire.pickling.packed_handler import PackedHandler
from mpqueue._wire.pickling.script import Script
from mpqueue.errors import InternalError, JournalError, QueueClosedError

if TYPE_CHECKING:
    from mpqueue._parent.journal.journal_outlet import JournalOutlet

log = logging.getLogger("mpqueue")

T = TypeVar("T")
_numbers = itertools.count(1)

#: Seconds that `shutdown` waits for the end of setups and listeners before it goes on without them.
LISTENER_WAIT_S = 30.0
#: Seconds that it waits for sinks of jobs that no caller waits for any more.
SINK_WAIT_S = 5.0


def _announce_nothing(*_: object) -> None:
    pass


class QueueRuntime:
    """The threads and workers of a queue: started with the first call that needs them; ended once, by `shutdown`."""

    def __init__(
        self,
        options: QueueOptions,
        backend: Backend,
        initializer: PackedHandler | None = None,
        clock: Clock | None = None,
        journal: str | None = None,
        preload: tuple[str, ...] | PackedHandler | Script | None = None,
    ) -> None:
        threads.check_real()
        check_running()
        self.clock = clock or SystemClock()
        self._options = options
        self._backend = backend
        self._owner = os.getpid()
        self._number = next(_numbers)
        self.listeners = ListenerThread(f"mpqueue-listeners-{self._number}", self.clock.now)
        self._scheduler = Scheduler(
            options.concurrency,
            random.Random(),
            max_items_per_worker=options.per_worker.items,
            max_memory_per_worker=options.per_worker.memory,
            has_initializer=initializer is not None,
            engine=backend.capabilities,
            resources=dict(options.resources),
            device="gpu" if options.gpu_env else None,
        )
        self._initializer = initializer
        self.has_initializer = initializer is not None
        self._preload = preload
        self.script = preload if isinstance(preload, Script) else None  #: the main module that the workers import
        self._coordinator: Coordinator | None = None
        self._pool: LanePool | None = None
        self._sampler: Sampler | None = None
        self._lock = threading.RLock()  # a signal handler may close the queue
        self._shut = False
        self._ender: int | None = None  #: the thread that ends everything
        self._over = SafeEvent()  #: set when it has done so, or was interrupted
        #: Set if everything has to end at once: an end that waits for listeners or idle workers then stops waiting.
        self.cut_short = SafeEvent()
        self._take_back: Callable[[], None] | None = None
        self.journal_outlet = None if journal is None else self._open_journal(journal)
        self.announce: Announce = _announce_nothing  #: the coordinator's reports about jobs; set before it starts
        self.say_unfinished: Callable[[], object] = list  #: called if the program ends before the queue was closed
        self.give_up: GiveUp = _announce_nothing  #: all runs end with an internal error

    def _open_journal(self, path: str) -> JournalOutlet:
        from mpqueue._parent.journal.journal_outlet import JournalOutlet
        from mpqueue._parent.journal.journal_writer import Journal  # most programs have none, and need no SQLite

        outlet = JournalOutlet(Journal(path, self.clock.now))
        self.end_at_exit()
        return outlet

    @property
    def is_fork(self) -> bool:
        """True in a fork of the process that made it."""
        return os.getpid() != self._owner

    def check_process(self) -> None:
        """Raise QueueClosedError in a fork: threads and workers belong to the process that started them."""
        if self.is_fork:
            raise QueueClosedError(
                f"this queue belongs to process {self._owner}, of which this one ({os.getpid()}) is a fork; "
                "make a new queue here"
            )

    @property
    def broken(self) -> InternalError | None:
        """The internal error after which nothing works any more."""
        return None if self._coordinator is None else self._coordinator.broken

    def coordinator(self) -> Coordinator:
        """The coordinator, started with the listener thread by the first call.

        If the system has no descriptor or thread left for it, it raises OSError, and the next call tries again.
        RuntimeError if gevent has patched threads meanwhile, or the interpreter exits. QueueClosedError in a fork.
        """
        self.check_process()
        threads.check_real()
        if self._coordinator is not None:  # without the lock: a garbage collection while it is held may post too
            return self._coordinator
        with self._lock, told("a queue"):
            if self._coordinator is None:
                if self._shut:
                    raise QueueClosedError("the queue is closed")
                check_running()
                self.end_at_exit()
                coordinator = Coordinator(
                    self._scheduler,
                    self.clock,
                    self.announce,
                    self._initializer,
                    f"mpqueue-coordinator-{self._number}",
                    self.journal_outlet,
                    self.give_up,
                    self._options.devices,
                )
                self.listeners.on_fault = lambda error: coordinator.post(found("on the listeners' thread", error))
                self.listeners.start()
                coordinator.start()
                self._coordinator = coordinator
            return self._coordinator

    def count_lanes(self) -> int | None:
        """Return how many lanes there are, or would be if work waited; None before the first job. On any thread."""
        books = self._scheduler.books
        return sum(lane.number not in books.absent or lane.is_awaited for lane in books.lanes) if books.opened else None

    def lanes_now(self) -> list[LaneNow]:
        """Return the work of each lane; empty before the first job. On any thread."""
        return [] if self._pool is None else lanes_now(self._scheduler.books, self._pool.lane)

    def ended_now(self) -> EndedCounts:
        """Return how many items have ended, and how many tries were followed by another. On any thread."""
        return replace(self._scheduler.books.ended)

    def deaths_now(self) -> dict[str, int]:
        """Return how many workers have died while they had work, by the reason. On any thread."""
        return dict(self._scheduler.books.deaths)

    def stacks_now(self, patience: float) -> list[LaneStack]:
        """Return the stack of each worker, for an engine with ``own_processes``; empty before the first job.

        Waits at most ``patience`` seconds, on a thread that may.
        """
        return [] if self._pool is None else stacks_now(self._scheduler.books, self._pool.lane, patience)

    def begin(self, message: JobStartAsked | FailedItemsReset) -> None:
        """Prepare what a job needs, before it starts. On the coordinator's thread.

        Raises the errors of `open_pool`, and `JournalError` if the journal can't be written.
        """
        if self.journal_outlet is not None:
            self.journal_outlet.check()
        if isinstance(message, FailedItemsReset) or not message.job.restored:
            self.open_pool()

    def open_pool(self) -> None:
        """Start the workers, if they have not been started. On the coordinator's thread.

        Raises `QueueClosedError` if a close came first: no caller would wait for workers started now.
        """
        if self._scheduler.books.closing:
            raise QueueClosedError("the queue is closed")
        if self._pool is None and self._coordinator is not None:
            check_running()
            options = self._options
            settings = LaneSettings(
                options.concurrency,
                options.per_worker.threads,
                options.may_grow,
                options.per_worker.memory,  # type: ignore[arg-type] # bytes, once checked
                self._preload.frame.handler if isinstance(self._preload, PackedHandler) else self._preload,
                # A worker sees no GPU until its items hold one.
                {DEVICES_VARIABLE: ""} if options.gpu_env else {},
            )
            with told("a queue"):
                self._pool = self._backend.open(settings, self._coordinator.inbox)
            self._coordinator.open(self._pool)
            if self._options.per_worker.memory is not None and self._backend.capabilities.shares_memory:
                books, name = self._scheduler.books, f"mpqueue-sampler-{self._number}"
                numbers, busy = lambda: range(len(books.lanes)), lambda: bool(books.jobs)
                self._sampler = Sampler(numbers, self._pool, self._coordinator.post, busy, name)
        if self._coordinator is not None and not self._scheduler.books.opened:
            self._coordinator.handle(QueueOpened())

    def await_starts(self) -> None:
        """Wait until the workers exist as processes."""
        if self._pool is not None:
            self._pool.await_starts()

    def end_at_exit(self) -> None:
        """End this with the program, at the latest."""
        with self._lock:
            if self._take_back is None and not self._shut:
                self._take_back = on_exit(functools.partial(self.shutdown, kill=True, at_exit=True))

    def handle(self, message: Message) -> None:
        """Handle a message of a caller, on the coordinator's thread."""
        if self._coordinator is not None:
            self._coordinator.handle(message)
        if self._sampler is not None:
            self._sampler.wake()

    @property
    def job_here(self) -> JobBook | None:
        """The job whose sink calls this, on the job's own thread. The job's end waits for that thread."""
        return None if self._coordinator is None else self._coordinator.deliveries.job_here

    @property
    def is_awaited_here(self) -> bool:
        """True on a thread that the queue's end waits for: in a listener, a done-callback or a sink."""
        return self.listeners.is_here or self.job_here is not None

    def close_jobs(self, *, cancel: bool, within: float | None = None) -> None:
        """Let no new work begin: paused jobs are cancelled, with ``cancel`` all of them.

        With ``within``, running items have that many seconds.
        """
        coordinator = self._coordinator
        if coordinator is not None and not self._shut and not threads.what_is_patched():
            message = QueueClosing(self.clock.wall(), cancel=cancel, within=within)
            with contextlib.suppress(QueueClosedError, InternalError):  # another thread was first, or all has ended
                coordinator.ask(lambda: self._handle_closing(coordinator, message))

    def _handle_closing(self, coordinator: Coordinator, message: QueueClosing) -> None:
        try:
            coordinator.handle(message)
        finally:
            if self.journal_outlet is not None:
                self.journal_outlet.close()

    def shutdown(
        self, *, kill: bool, wait_for_listeners: bool = False, at_exit: bool = False, by: float | None = None
    ) -> None:
        """End everything: workers (with ``kill`` at once, else when they are idle), threads, files. Idempotent.

        If a Ctrl-C interrupts it, the next call goes on with the rest. With ``kill`` it cuts short one on another
        thread, without waiting for it. ``by`` is the latest moment, by the queue's clock, until which it waits for idle
        workers.
        """
        if kill and not at_exit:  # at the program's end a thread that closes the queue still waits for its listeners
            self.cut_short.set()
        here, is_first = threading.get_ident(), False
        try:
            with self._lock:
                if self.is_fork or self._shut:
                    return
                is_first = self._shut = True  # without a call since the check, in which a signal handler could close it
                self._ender = here
            self._end_all(kill, wait_for_listeners, at_exit, by)
        except BaseException as interruption:
            if is_first and not isinstance(interruption, Exception):
                self._shut = False  # another call ends the rest, at the latest at the program's end
            raise
        finally:
            if is_first:
                self._over.set()

    def await_end(self, by: float | None = None) -> None:
        """After `shutdown`: wait until everything has ended, if another thread was the first to call that.

        `LISTENER_WAIT_S` seconds after the moment ``by``, that thread is cut short. It does not wait on a thread for
        which that one may wait itself.
        """
        if threading.get_ident() == self._ender or _is_own_thread() or is_exiting() or threads.what_is_patched():
            return
        if by is not None and not self._over.wait(max(0.0, by - self.clock.now()) + LISTENER_WAIT_S):
            self.cut_short.set()
        self._over.wait()

    def _end_all(self, kill: bool, wait_for_listeners: bool, at_exit: bool, by: float | None) -> None:
        if at_exit:
            self.say_unfinished()
        if threads.what_is_patched():
            self._leave()
            return
        if self._coordinator is not None:
            with contextlib.suppress(QueueClosedError):  # an interrupted end had come further
                self._end_work(self._coordinator, kill, by)
            self.listeners.stop(wait=wait_for_listeners and not at_exit, unless=self.cut_short)
        elif self.listeners.is_alive:  # the coordinator could not be started
            self.listeners.stop(wait=False)
        if self.journal_outlet is not None:
            self.journal_outlet.journal.close()
        if self._take_back is not None:
            self._take_back()

    def _end_work(self, coordinator: Coordinator, kill: bool, by: float | None) -> None:
        with contextlib.suppress(InternalError):  # it has ended all jobs
            self._end_jobs(coordinator, kill, by)
        if self._sampler is not None:
            self._sampler.stop()
        if self._pool is not None:  # last: it may have been opened just before
            is_late = by is not None and self.clock.now() >= by
            self._pool.close(kill=kill or self.cut_short.is_set() or is_late or coordinator.broken is not None)
        coordinator.stop()

    def _end_jobs(self, coordinator: Coordinator, kill: bool, by: float | None) -> None:
        if not kill:
            quiet = Reply[None]()
            coordinator.ask(lambda: coordinator.when(lambda: coordinator.scheduler.quiet, quiet))
            patience = LISTENER_WAIT_S if by is None else min(LISTENER_WAIT_S, max(0.0, by - self.clock.now()))
            if quiet.wait(patience, unless=self.cut_short):
                quiet.result()
            elif not self.cut_short.is_set():
                log.warning("closing goes on although the end of a setup has taken %.3g s and still runs", patience)
            kill = self.cut_short.is_set()
        if kill:
            message = QueueClosing(self.clock.wall(), cancel=True, kill=True)
            coordinator.ask(lambda: self._handle_closing(coordinator, message))
        if self.journal_outlet is not None:
            pickled = Reply[None]()
            coordinator.ask(lambda: coordinator.when(lambda: coordinator.picklers.all_done, pickled))
            if kill or not pickled.wait(unless=self.cut_short):
                coordinator.ask(coordinator.picklers.hurry)
                pickled.wait()
            with contextlib.suppress(JournalError, QueueClosedError):  # reported when it is closed
                self.journal_outlet.journal.flush()
            # Otherwise a run whose end could not be written would never resolve: no thread comes after the coordinator.
            coordinator.ask(self.journal_outlet.give_up)
        if not coordinator.deliveries.all_done:
            delivered = Reply[None]()
            coordinator.ask(lambda: coordinator.when(lambda: coordinator.deliveries.all_done, delivered))
            try:
                delivered.result(SINK_WAIT_S)
            except TimeoutError:
                coordinator.ask(coordinator.deliveries.abandon)

    def _leave(self) -> None:
        """End the workers, and wait for nothing: threads from before gevent's patch can't be waited for."""
        threads.prepare_to_leave()
        if self._pool is not None:
            log.warning("closing ends the workers and does not wait for them: gevent has patched the program's threads")
            self._pool.close(kill=True)

    def check_written(self) -> None:
        """After `shutdown`: raise `JournalError` if a part could not be written into the journal."""
        lost = None if self.journal_outlet is None else self.journal_outlet.journal.lost
        if lost is not None:
            raise JournalError(str(lost))

    def abandon(self) -> None:
        """End a queue that is no longer referenced. Callable inside a garbage collection: only posts."""
        if self._shut or self.is_fork:
            return
        if self._coordinator is not None:
            shutdown, name = functools.partial(self.shutdown, kill=True), f"mpqueue-closer-{self._number}"
            self._coordinator.ask_later(lambda: threading.Thread(target=shutdown, name=name, daemon=True).start())
        else:
            self._shut = True
            self._over.set()
            if self.journal_outlet is not None:
                self.journal_outlet.journal.close(wait=False)
            if self._take_back is not None:
                self._take_back()


def _is_own_thread() -> bool:
    """True on a thread of mpqueue, except one that closes a queue. Objects may be freed on any, and close theirs."""
    name = threading.current_thread().name
    return name.startswith("mpqueue-") and "closer" not in name
