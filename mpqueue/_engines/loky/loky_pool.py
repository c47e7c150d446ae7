"""The lanes of a queue, on loky: starts them, watches them, and leaves nothing when it is closed.

The *starter*, a thread, starts workers, and sweeps up behind them. All later events of lanes are handled on the inbox's
thread.
"""

from __future__ import annotations

import contextlib
import errno
import functools
import itertools
import logging
import os
import threading
from multiprocessing import resource_tracker
from typing import TYPE_CHECKING

from mpqueue._core.messages import LaneStartFailed
from mpqueue._engines.loky import launch, worker_process
from mpqueue._engines.loky.lane_lifecycle import LaneLifecycle
from mpqueue._engines.loky.launch import Launch, worker_environment
from mpqueue._engines.loky.loky_lane import LokyLane, check_room, count_cores, count_cpus, register_exit
from mpqueue._os import locks, standard_streams
from mpqueue._os.descriptors import NO_THREAD
from mpqueue._os.facts import facts
from mpqueue._os.process_signals import block_interrupts, report_broken_pipes
from mpqueue._os.system import IS_LINUX, IS_WINDOWS
from mpqueue._parent import interpreter_exit
from mpqueue._parent import replies as threads
from mpqueue._parent.inbox import Inbox, found
from mpqueue._parent.interpreter_exit import on_exit
from mpqueue._parent.lane_protocol import Capabilities, LanePool, LaneSettings
from mpqueue._parent.replies import SafeEvent
from mpqueue._parent.users_threads import Errands
from mpqueue._wire.pickling.script import Script
from mpqueue.errors import WorkerStartError

if TYPE_CHECKING:
    from mpqueue._engines.loky.fork_server import Preloading


__all__ = ["LokyBackend", "LokyPool", "count_cpus"]

_log = logging.getLogger("mpqueue")
_numbers = itertools.count()

#: Seconds that `close` waits for workers before it warns and returns: longer than a lane takes to end one, to kill it,
#: and to give it up. So it only ends the wait of a program that gets no CPU itself.
CLOSE_LIMIT = 15.0
#: Seconds without enough descriptors and threads for a worker, after which starts fail for good; and between two looks.
#: Programs may lack them for a few tenths of a second now and then.
SHORT_LIMIT, SHORT_LOOK = 0.7, 0.02
#: Seconds after which slow starts are logged.
STARTS_LIMIT = 30.0
THREAD_LIMIT = 1.0

#: Seconds after which it looks for processes left by dead programs: that reads /proc, while workers start.
ORPHANS_AFTER = 0.5


class LokyPool:
    """A `LanePool`. Made by the queue's coordinator, in the process that uses it; a fork must not."""

    def __init__(self, settings: LaneSettings, inbox: Inbox) -> None:
        launch.prepare()
        self._settings = settings
        self._inbox = inbox
        self._owner = os.getpid()
        self._number = next(_numbers)
        self._cpus = count_cpus()
        self._preloading: Preloading | None = None
        self._launch: Launch = self._choose_launch()
        self._lanes: dict[int, LokyLane] = {}
        self._wanted: dict[int, int] = {}  #: the generation of each lane that was last asked for
        self._lifecycles: dict[LokyLane, LaneLifecycle] = {}  # used on the inbox's thread
        self._threads: list[threading.Thread] = []  # the same: threads of ended lanes, about to end
        self._is_closing = False
        self._is_short = False  #: descriptors or threads were lacking for so long that it will not pass
        self._gone = SafeEvent()
        self._starts_are_over = False
        #: Starts all workers, one after another. Threads that loky starts for a lane inherit from it that they are
        #: daemons, for which no exit waits.
        self._starter = Errands(f"mpqueue-starter-{self._number}", self._fault, inbox.call_later)
        register_exit()
        interpreter_exit.run_before_loky()
        self._take_back = on_exit(functools.partial(self.close, kill=True), last=True)
        inbox.call_later(ORPHANS_AFTER, functools.partial(self._starter.put, worker_process.kill_orphans))

    def start(self, number: int, generation: int) -> None:
        self._wanted[number] = generation
        self._starter.put(functools.partial(self._start_safely, number, generation))
        if self._starter.thread is None:
            del self._wanted[number]
            self._inbox.post(LaneStartFailed(number, generation, RuntimeError(NO_THREAD)))

    def await_starts(self) -> None:
        """Wait until each worker to be started exists as a process, or the pool is closed."""
        started = SafeEvent()
        self._starter.put(started.set)
        while not started.wait(STARTS_LIMIT) and not self._is_closing:
            _log.warning("starting workers takes more than %g s", STARTS_LIMIT)

    def lane(self, number: int) -> LokyLane | None:
        return self._lanes.get(number)

    def recycle(self, number: int) -> None:
        lane = self._lanes.pop(number, None)
        if lane is not None:
            self._inbox.call(self._end, lane)

    def retire(self, number: int) -> None:
        lane = self._lanes.pop(number, None)
        if lane is not None:
            self._inbox.call(self._retire, lane)

    def close(self, *, kill: bool) -> None:
        """End all workers. It does not wait on the inbox's thread, nor on a lane's own, where a finalizer may run."""
        if os.getpid() != self._owner:
            return
        self._is_closing = True
        if threading.get_ident() == self._inbox.owner:
            self._begin_to_close(kill)
            return
        self._inbox.call(self._begin_to_close, kill)
        if threads.what_is_patched():
            return
        of_lanes = itertools.chain.from_iterable(lane.threads() for lane in list(self._lifecycles))
        own = {thread for thread in (self._starter.thread, *of_lanes, *self._threads) if thread is not None}
        if threading.current_thread() in own:
            return
        if not self._gone.wait(CLOSE_LIMIT):
            _log.warning("closing goes on without %s", self._what_is_left())
        limit = THREAD_LIMIT
        for thread in (*own, *self._threads):
            threading.Thread.join(thread, limit)
            if thread.is_alive():
                _log.warning("closing leaves the thread %s behind", thread.name)
                limit = 0.0
        self._threads.clear()
        self._take_back()

    def _choose_launch(self) -> Launch:
        """Return the way to launch workers: by forks of one that has imported, or each with its own interpreter."""
        if (preload := self._settings.preload) is not None and not isinstance(preload, Script):
            from mpqueue._engines.loky.fork_server import Preloading  # most programs don't need it

            cookie = worker_process.cookie(self._number)
            self._preloading = Preloading(
                preload, lambda: worker_environment(self._settings, self._cpus, cookie, os.environ)
            )
            return self._preloading.launch
        if IS_WINDOWS:
            from mpqueue._engines.loky.suspended_launch import launch_suspended

            return launch_suspended
        from mpqueue._engines.loky.exec_launch import Launching

        return Launching

    def _fault(self, error: BaseException) -> None:
        self._inbox.post(found("on a thread that starts or watches workers", error))

    def _what_is_left(self) -> str:
        workers = ", ".join(str(lane.pid) for lane in list(self._lifecycles))
        return f"the workers {workers}" if workers else "its starter, which hangs"

    # -- on the starter's thread ---------------------------------------------------------------------------------------

    def _start_safely(self, number: int, generation: int) -> None:
        report_broken_pipes()
        standard_streams.keep_taken()
        _block_interrupts()
        try:
            self._start(number, generation)
        except BaseException as error:
            self._inbox.post(found(f"while it started worker {number}", error))

    def _start(self, number: int, generation: int) -> None:
        if self._is_closing or generation != self._wanted.get(number):
            return
        try:
            cookie = worker_process.cookie(self._number, number, generation)
            environment = worker_environment(self._settings, self._cpus, cookie, os.environ)
            lane = LokyLane(number, generation, environment, self._inbox, self._settings, self._launch)
        except BaseException as error:
            error = _without_frames(error)
            lasting = launch.lasts(error)
            if _is_short(error):
                short = self._stays_short()
                error, lasting = short or error, short is not None
            self._inbox.post(LaneStartFailed(number, generation, error, lasting=lasting))
            return
        self._is_short = False
        self._inbox.call(self._adopt, lane)

    def _stays_short(self) -> OSError | None:
        """Return the error of a lasting lack of room; None if it passes: the first time it looks closely."""
        short = None
        for _ in range(1 if self._is_short else int(SHORT_LIMIT / SHORT_LOOK)):
            threading.Event().wait(SHORT_LOOK)
            try:
                check_room()
            except OSError as error:
                short = error.with_traceback(None)
            else:
                return None
        self._is_short = True
        return short

    # -- on the inbox's thread -----------------------------------------------------------------------------------------

    def _adopt(self, lane: LokyLane) -> None:
        lifecycle = LaneLifecycle(lane, self._inbox, self._ready, self._sweep_behind, self._lane_gone)
        self._lifecycles[lane] = lifecycle
        lifecycle.begin()
        if self._is_closing:
            lifecycle.leave(kill=True)

    def _ready(self, lane: LokyLane) -> None:
        if lane.generation == self._wanted.get(lane.number):
            self._lanes[lane.number] = lane
        else:  # it is no longer awaited
            self._end(lane)

    def _end(self, lane: LokyLane) -> None:
        if lane in self._lifecycles:
            self._lifecycles[lane].end()

    def _retire(self, lane: LokyLane) -> None:
        if lane in self._lifecycles:
            self._lifecycles[lane].retire()

    def _lane_gone(self, lane: LokyLane, threads: list[threading.Thread]) -> None:
        del self._lifecycles[lane]
        if self._lanes.get(lane.number) is lane:  # an internal error ended it
            self._lanes.pop(lane.number, None)
        self._threads = [thread for thread in (*self._threads, *threads) if thread.is_alive()]
        if self._is_closing:
            self._finish_if_gone()

    def _sweep_behind(self, lane: LokyLane) -> None:
        """Have the processes killed that a dead worker has left, once its successor was started."""
        cookie = worker_process.cookie(self._number, lane.number, lane.generation)
        self._inbox.call(self._starter.put, functools.partial(worker_process.kill_strays, cookie))

    def _begin_to_close(self, kill: bool) -> None:
        if self._preloading is not None:
            self._preloading.hurry()
        self._lanes.clear()
        for lifecycle in list(self._lifecycles.values()):
            lifecycle.leave(kill=kill)
        # A lane that was just started may still wait in the inbox to be adopted.
        note = functools.partial(self._inbox.call, self._note_starts_are_over)
        if self._starter.busy:
            self._starter.put(note)
        else:
            note()

    def _note_starts_are_over(self) -> None:
        self._starts_are_over = True
        self._finish_if_gone()

    def _finish_if_gone(self) -> None:
        """Leave nothing once all workers have ended, and no start is under way."""
        if self._lifecycles or not self._starts_are_over or self._gone.is_set():
            return
        self._starter.end()
        if self._preloading is not None:
            self._preloading.close()
        with contextlib.suppress(OSError):  # no descriptor to look with
            worker_process.kill_strays(worker_process.cookie(self._number))
        self._gone.set()


def _is_short(error: BaseException) -> bool:
    """True for an error of a process that has no room for a worker: see `check_room`."""
    if isinstance(error, OSError):
        return error.errno in (errno.EMFILE, errno.EAGAIN)
    return isinstance(error, RuntimeError) and NO_THREAD in str(error)


def _without_frames(error: BaseException) -> BaseException:
    """Return the error without frames, which would keep half-made things alive; the real one if loky hid it."""
    if isinstance(error, UnboundLocalError) and error.__context__ is not None:
        error = error.__context__
    error.__context__ = error.__cause__ = None
    return error.with_traceback(None)


def _block_interrupts() -> None:
    """Block SIGINT, which a worker inherits: so a Ctrl-C can't hit it before it has left the terminal's group.

    It is called before every start, since Python 3.11 unblocks SIGINT whenever it starts the resource tracker, as named
    semaphores do.
    """
    if not locks.AVAILABLE:
        with contextlib.suppress(Exception):  # no descriptors, say: then the start fails too, and reports it
            resource_tracker.ensure_running()
    block_interrupts()


# -- The engine. -------------------------------------------------------------------------------------------------------

#: Bytes that must be free where the system keeps named semaphores, before workers start.
SHM_NEEDED = 1 << 20


class LokyBackend:
    """The `lane_protocol.Backend` of ``backend="loky"``. It supports everything."""

    capabilities = Capabilities(can_fork=IS_LINUX)

    def count_workers(self) -> int:
        """Return the number of CPUs that this process may use."""
        return count_cpus()

    def count_cores(self) -> int:
        """Return the number of cores that this process may use."""
        return count_cores()

    def open(self, settings: LaneSettings, inbox: Inbox) -> LanePool:
        """Open a queue's lanes. Raises `WorkerStartError` if semaphores can't be made."""
        if not locks.AVAILABLE:
            _check_shm()
        _say_what_is_off()
        return LokyPool(settings, inbox)

    def __repr__(self) -> str:
        return "LokyBackend()"


@functools.cache
def _say_what_is_off() -> None:
    """Log which facilities this system lacks, once per process."""
    if off := [name for name, is_there in facts().items() if not is_there]:
        _log.info("this system does without: %s", ", ".join(off))


def _check_shm() -> None:
    """Refuse to start if semaphores can't be made, or there is no room for them: each start would fail."""
    folder = locks.NAMED_IN
    if folder is None:
        return
    try:
        stat = os.statvfs(folder)
    except OSError as error:
        raise WorkerStartError(
            f"expected the folder {folder}, where the system keeps semaphores, got {error.strerror}; mount it: "
            f"`mount -t tmpfs tmpfs {folder}`, for a container `docker run --tmpfs {folder}`"
        ) from error
    if stat.f_flag & os.ST_RDONLY or not os.access(folder, os.W_OK | os.X_OK):
        raise WorkerStartError(
            f"expected to be allowed to write to {folder}, where the system keeps semaphores; mount "
            f"a writable one: `mount -t tmpfs tmpfs {folder}`, for a container `docker run --tmpfs {folder}`"
        )
    free = stat.f_bavail * stat.f_frsize
    if stat.f_blocks and free < SHM_NEEDED:
        raise WorkerStartError(f"expected at least {SHM_NEEDED} bytes free in {folder} to start workers, got {free}")
