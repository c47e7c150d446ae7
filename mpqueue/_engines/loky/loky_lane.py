"""A lane on loky: an executor of one worker, with its resources. With `launch`, the only module that knows loky.

One executor for each worker, so that a crash affects one lane and the culprit is known (docs/adr/0002). loky is built
for many trusted workers per executor; so this is needed here:

- The parent closes its own copies of the pipe ends that the worker uses. Otherwise there is no end of file when a
  worker dies in the middle of a large message, and loky's manager thread waits for the rest for ever.
- So loky must never start a second worker in the same executor, whose pipes could not be handed over any more: once it
  has its worker, the executor is set to need none. No idle timeout, no memory guard
  (`LOKY_MAX_MEMORY_LEAK_SIZE`).
- The manager thread may still be stuck (a grandchild holds the pipe): it is a daemon, since the starter that starts it
  is one, and loky does not know of it at exit.
"""

from __future__ import annotations

import contextlib
import enum
import functools
import multiprocessing
import os
import threading
import weakref
from collections.abc import Callable
from concurrent.futures import Future
from concurrent.futures.process import BrokenProcessPool
from typing import Any

import loky
from loky import process_executor

from mpqueue._core.messages import LaneBroken
from mpqueue._engines.loky.launch import Launch, LaunchContext
from mpqueue._engines.loky.parent_line import Answering, FlagSetter, Line
from mpqueue._engines.loky.worker_process import WorkerProcess
from mpqueue._os import descriptors, locks
from mpqueue._os.descriptors import CAN_PASS, check_descriptors, check_threads
from mpqueue._os.files import read_at
from mpqueue._os.memory_files import SharedFile
from mpqueue._os.parent_death import Leash, hand_channel, hand_leash
from mpqueue._os.process_handle import is_reaped
from mpqueue._os.process_signals import kill_process
from mpqueue._parent.inbox import Inbox, SystemClock, text_of
from mpqueue._parent.lane_protocol import Answers, LaneSettings, Tell
from mpqueue._parent.users_threads import Errands
from mpqueue._wire.line import Answer, DamagedError, Handle, LaneSeed, make_flags
from mpqueue._wire.memory.ledger import (
    IS_LATE,
    LATE,
    MEMORY_LIMIT,
    PIPED,
    SIZE,
    UNSENT,
    Claim,
    Ledger,
)
from mpqueue._worker import serving, worker_links

#: The most descriptors that a start needs, rounded up.
DESCRIPTORS = 32

#: The threads and processes of a lane, on both sides, rounded up. Some of them start later.
THREADS = 12

#: The most looks for a dead worker's exit code, and the seconds between them.
LAST_LOOKS, LAST_PAUSE_S = 250, 0.001

#: Seconds that a worker whose lane could not be made may take to end, once it was killed.
ABORT_WAIT_S = 1.0


def count_cpus() -> int:
    """Return how many CPUs this process may use, by cgroup and affinity; 1 inside a worker."""
    return 1 if worker_links.here() is not None else _count()


def count_cores() -> int:
    """Return how many cores this process may use: two hyperthreads of one core count as one; 1 inside a worker."""
    return 1 if worker_links.here() is not None else _count(only_physical_cores=True)


def _count(**what: bool) -> int:
    try:
        return int(loky.cpu_count(**what))
    except OSError:  # a filter does not show which ones this process may use
        return os.cpu_count() or 1


def check_room() -> None:
    """Raise OSError (EMFILE or EAGAIN) if this process has too little room for a worker, before anything is half made.

    Costs 0.5 ms. loky leaves descriptors open when it runs out of them halfway; and if a thread of its own can't start
    another one, that error is never seen.
    """
    check_descriptors(DESCRIPTORS, "starting a worker")
    check_threads(THREADS, "starting a worker")


def register_exit() -> None:
    """Let loky register its exit hook now, once.

    The first worker may start when the exit has begun. And loky forgets that it has registered its hook: with each
    start it would come before ours again.
    """
    if process_executor.process_pool_executor_at_exit is None:
        register: Any = threading._register_atexit  # type: ignore[attr-defined]
        process_executor.process_pool_executor_at_exit = register(process_executor._python_exit) or True


class _Context(locks.Locks, LaunchContext):
    """loky's context, with semaphores that have no names. For one lane."""

    def __init__(self) -> None:
        self._page = locks.LockPage()

    def close(self) -> None:
        """Close the page: the worker has its semaphores."""
        self._page.close()


class LaneEvent(enum.Enum):
    """The events of a lane; `mpqueue._engines.loky.lane_lifecycle` says what is done then."""

    ANSWERED = enum.auto()  #: for the first time
    STACK_CAME = enum.auto()  #: a part of it
    STACK_WANTED = enum.auto()
    LOOKED = enum.auto()  #: it was time to look at the progress of the start
    CUT_OFF = enum.auto()  #: the worker has closed the line, so it is most likely dead
    KILLED = enum.auto()
    GIVEN_UP = enum.auto()  #: it was killed but still lives: nothing that it does counts any more
    EXITED = enum.auto()
    DRAINED = enum.auto()  #: no answer is on its way any more


class LokyLane:
    """One generation of a lane. Made on the starter's thread, which takes 10-30 ms; raises if it can't be made.

    The methods of `Lane` may be called on any thread, the others on the inbox's only. The caller that makes it calls
    `close` in the end.
    """

    def __init__(
        self,
        number: int,
        generation: int,
        environment: dict[str, str],
        inbox: Inbox,
        settings: LaneSettings,
        launch: Launch,
    ) -> None:
        self.number = number
        self.generation = generation
        self.answers = Answers(inbox, number)
        self._inbox = inbox
        self._is_ending = False
        self.is_up = False  #: it has answered; set by its lifecycle
        self.last_stack: str | None = None  #: the worker's when it was killed, if that was asked for
        #: Gets what happens to the lane, on any thread; set by its lifecycle.
        self.happened: Callable[..., object] | None = None
        with contextlib.ExitStack() as undo:
            check_room()
            page = undo.enter_context(contextlib.closing(SharedFile(f"ledger-{number}", SIZE)))
            self.ledger = Ledger(page.fd)
            self.ledger.begin(SystemClock().now())
            self.ledger.words[MEMORY_LIMIT] = settings.max_memory or 0
            self.ledger.words[PIPED] = not settings.can_open_results
            on_failure = undo.enter_context(contextlib.ExitStack())
            on_failure.callback(self.ledger.close)
            self._outbox = SharedFile(f"outbox-{number}", 0)
            on_failure.callback(self._outbox.close)
            self.stack, stack = descriptors.pipe()
            undo.callback(descriptors.close, stack)
            on_failure.callback(descriptors.close, self.stack)
            leash = Leash()
            on_failure.callback(leash.close)
            self._line = Line(inbox)
            undo.callback(descriptors.close, self._line.worker_end)
            on_failure.callback(self._line.close)
            if CAN_PASS:
                self._answering: Answering | None = Answering(inbox)
                undo.callback(os.close, self._answering.worker_end)
                on_failure.callback(self._answering.close)
            else:
                self._answering = None
            if locks.AVAILABLE:
                context: Any = undo.enter_context(contextlib.closing(_Context()))
                self._flags = make_flags(context)
            else:
                context, self._flags = LaunchContext(), make_flags()
            context.launch = launch
            setter = Errands(f"mpqueue-flags-{number}", self.answers.on_fault, inbox.call_later)
            self._setter = FlagSetter(self._flags, self.ledger, setter)
            seed = LaneSeed(
                lane=number,
                generation=generation,
                ledger=Handle(page.fd),
                line=Handle(self._line.worker_end, hand_channel),
                asking=None if self._answering is None else Handle(self._answering.worker_end, hand_channel),
                outbox=Handle(self._outbox.fd),
                stack=Handle(stack, hand_channel),
                leash=Handle(leash.worker_end, lambda _: hand_leash(leash)),
                flags=self._flags,
                start_method=multiprocessing.get_start_method(allow_none=True),
                carries_segments=settings.carries_segments,
                preload=settings.preload,
            )
            self._start(seed, context, environment, leash, on_failure)
            on_failure.pop_all()
        os.set_inheritable(self._outbox.fd, False)
        # Like the ledger, it is freed with this object: the coordinator may be about to read it when the pool is
        # closed.
        weakref.finalize(self, self._outbox.close)

    def _start(
        self,
        seed: LaneSeed,
        context: Any,
        environment: dict[str, str],
        leash: Leash,
        on_failure: contextlib.ExitStack,
    ) -> None:
        """Spawn the worker, and take its process and loky's thread out of the executor."""
        # The context itself: if joblib's own copy of loky was imported later, its name means that one.
        self._executor: Any = process_executor.ProcessPoolExecutor(
            1, context=context, initializer=serving.initialize, initargs=(seed,), env=environment, timeout=None
        )
        on_failure.callback(self._executor.shutdown, wait=False, kill_workers=True)
        on_failure.callback(leash.pull)
        self._executor._adjust_process_count()
        ((_, self._process),) = self._executor._processes.items()
        on_failure.callback(_abort, self._process)
        # loky's thread gets no worker to kill, for which it would look for its children first, through `pgrep`; nor a
        # sentinel to wait for, which may be closed meanwhile. So no worker is what the executor is full with.
        self._executor._processes.clear()
        self._executor._max_workers = 0
        self._serving: Future[int] = self._executor.submit(serving.serve)
        self.worker = WorkerProcess(self._process.pid, self._process.sentinel, leash)
        self.pid = self.worker.pid
        self._call_queue: Any = self._executor._call_queue
        self._call_queue._reader.close()
        self._executor._result_queue._writer.close()
        self.thread: threading.Thread = self._executor._executor_manager_thread
        # loky would wait for it at exit: a hung worker would keep it for ever. It is a daemon, and the pool ends it.
        process_executor._threads_wakeups.pop(self.thread, None)

    def begin(self, tell: Tell) -> None:
        """Take in what the worker says from now on; ``tell`` gets its first answer. On the inbox's thread, once."""
        self.answers.begin(tell)
        self._line.open(self._answered, self._ended)
        if self._answering is not None:
            self._answering.open()
        future = self._serving
        del self._serving  # what goes round is collected late
        future.add_done_callback(self._served)

    def send(self, frame: bytes, tell: Tell) -> None:
        """Write the frame to the line. 10 us."""
        if self.answers.begin(tell):
            self._line.send(frame)

    def _answered(self, answer: Answer) -> None:
        """Take in an answer, on the inbox's thread."""
        if answer.early:
            self.answers.put(functools.partial(self.answers.early, answer))
        elif not self.answers.answered(answer):
            self.break_off("it answered what it was not asked")

    def _ended(self, damage: DamagedError | None) -> None:
        """Note on the inbox's thread that the worker closed the line, most likely by dying, or broke it."""
        if damage is not None:
            self.break_off(f"what it sent is damaged: {damage}")
        else:
            self._cut_off()

    def _served(self, served: Future[int]) -> None:
        """Note on loky's thread that the worker serves no more. If it lives, it is of no more use."""
        error = served.exception()
        if isinstance(error, (BrokenProcessPool, process_executor.ShutdownExecutorError)):
            self._cut_off()  # the end of the process is more precise
        elif error is not None:
            self.break_off(f"it serves no more: {text_of(error)}")
            self.answers.fail_all(error)
        elif not self._is_ending:
            self.break_off("it read the end of its line, which a handler must have shut down")

    def _cut_off(self) -> None:
        """Report that a descriptor of the worker is closed: by its death, which is more precise, or by a handler."""
        if (happened := self.happened) is not None:
            happened(LaneEvent.CUT_OFF)

    def hand_over_rest(self, then: Callable[[], object]) -> None:
        """Read what the dead worker has said, and call ``then`` once it is handed over. On the inbox's thread."""
        error = BrokenProcessPool(f"worker {self.pid} has ended")
        self.answers.close(error)
        self._line.read_rest()
        self.answers.die(error, then)

    def break_off(self, why: str) -> None:
        """Say that the worker is of no more use, before its death does, and kill it. On any thread."""
        if self.is_up and not self.answers.is_closed:  # before, it is a start that failed, and says why
            self._inbox.post(LaneBroken(self.number, self.generation, why))
        self.worker.kill()

    def set_flags(self, job: int, *, pause: bool, cancel: bool) -> None:
        """Set the flags on the flag setter's thread."""
        self._setter.put(job, pause=pause, cancel=cancel)

    def take_results_by_pipe(self) -> None:
        with contextlib.suppress(ValueError):  # retired meanwhile
            self.ledger.words[PIPED] = 1

    def set_limit(self, chunk: int, position: int) -> None:
        self.ledger.set_limit(chunk, position)

    def observe(self, tell: Callable[[Claim], None]) -> None:
        """Call ``tell`` at once."""
        tell(self.ledger.read())

    def peek(self) -> Claim | None:
        """Return the ledger's claim; None if the lane was retired meanwhile."""
        try:
            return self.ledger.read()
        except ValueError:
            return None

    def take_unsent(self) -> bytes:
        """Return the log records that the dead worker has left in its outbox."""
        if not (size := self.ledger.words[UNSENT]):
            return b""
        return read_at(self._outbox.fd, min(size, os.fstat(self._outbox.fd).st_size), 0)

    def kill(self, *, dump_stack: bool = False) -> None:
        """Kill the worker's group, or ask the worker for its stack first."""
        if dump_stack and self.is_up and (happened := self.happened) is not None:
            with contextlib.suppress(ValueError):  # retired meanwhile
                self.ledger.words[LATE] = IS_LATE  # before it is asked
            happened(LaneEvent.STACK_WANTED, self._kill_with)
        else:
            self.worker.kill()

    def _kill_with(self, stack: str | None) -> None:
        self.last_stack = stack or self.last_stack
        self.worker.kill()

    def tell_stack(self, tell: Callable[[str | None], object]) -> None:
        if (happened := self.happened) is None:
            tell(None)
        else:
            happened(LaneEvent.STACK_WANTED, tell)

    def end(self) -> None:
        """Let the worker end by itself once it has answered all frames."""
        self._is_ending = True
        self._line.end()
        self._executor._processes[self.pid] = self._process  # loky tells it that no call comes any more
        self._executor.shutdown(wait=False)

    def abandon(self) -> int | None:
        """Drop the executor of a dead worker, even if its thread is stuck; returns the exit code, if it can be known.

        A sentinel is closed some microseconds before its process has ended, and earlier if the machine is busy; a
        forker reports the code after that, or not at all; and a worker that was given up lives on. So it looks a few
        times.
        """
        self._executor.shutdown(wait=False, kill_workers=True)
        self._executor = None
        for _ in range(LAST_LOOKS):
            code: int | None = self._process.exitcode
            if code is not None or is_reaped(self.pid):
                return code
            threading.Event().wait(LAST_PAUSE_S)
        return None

    def threads(self) -> list[threading.Thread]:
        """The threads on which answers arrive and loky says that the worker is gone."""
        return [thread for thread in (getattr(self, "thread", None), self.answers.thread) if thread is not None]

    def close(self) -> list[threading.Thread]:
        """Free the lane's resources; returns the threads that are about to end."""
        setter = self._setter.end()
        self.answers.end()
        threads = [*self.threads(), *filter(None, (self._call_queue._thread, setter))]
        self._line.close()
        if self._answering is not None:
            self._answering.close()
        self.worker.close()
        descriptors.close(self.stack)
        # Semaphores live as long as these do, and code that uses this lane may hold it a little longer.
        self.happened = None
        del self._flags, self._process, self._call_queue, self.thread
        return threads


def _abort(process: Any) -> None:
    """End the worker of an executor that could not be started completely: it may lack the thread that does so."""
    kill_process(process.pid)
    process.join(ABORT_WAIT_S)
