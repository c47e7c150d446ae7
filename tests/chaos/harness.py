"""Chaos: some threads that use queues in every way at random, one that strikes their workers, and then the reckoning.

All dice come from one seed, so the same seed does the same kind of things at about the same time. What the operating
system adds to that is not ours to repeat: run a seed a few times.
"""

from __future__ import annotations

import collections
import contextlib
import random
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from concurrent.futures import wait
from functools import partial
from pathlib import Path

from mpqueue import ItemStatus, JobFinished, JobNotFoundError, JobRun, JobStateError, JobStatus, QueueClosedError
from mpqueue.events import JOB_FINISHED
from mpqueue.testing import close_shared_pool
from tests.chaos import consumers
from tests.chaos.arena import Arena, Pulse
from tests.chaos.audit import Case, Struck
from tests.chaos.postmortem import show_everything
from tests.chaos.striker import Striker

#: Seconds without any progress that count as a hang. Nothing takes a tenth of it.
DEADLINE = 60.0
#: Seconds after which it counts as one though something goes on.
LONGEST = 1200.0
#: Threads that use the queues side by side.
ACTORS = 2
#: Jobs of a queue that may be under way or waiting.
MOST_JOBS = 10
#: Queues at a time.
MOST_ARENAS = 3
#: Threads at a time that consume something.
MOST_CONSUMERS = 4

#: What a call may raise because another thread was quicker.
TOO_LATE = (JobStateError, JobNotFoundError, QueueClosedError)


class Chaos:
    """One run. `run_for`, then `finish`; ``complaints`` is what was found wrong."""

    def __init__(self, seed: int, folder: Path) -> None:
        self.complaints: list[str] = []
        self.counts: collections.Counter[str] = collections.Counter()
        self.struck = Struck()
        self._rng = random.Random(seed)
        self._folder = folder
        self._arenas: list[Arena] = []
        self._lock = threading.Lock()
        self._acts: collections.deque[str] = collections.deque(maxlen=400)
        self._stop = threading.Event()
        self._pulse = Pulse()
        self._threads: dict[threading.Thread, Callable[[], str]] = {}  #: those beside, and what each waits for
        self._actions: dict[Callable[[random.Random, Arena], object], int] = {
            self._start_job: 30,
            self._pause: 4,
            self._resume: 10,
            self._cancel: 2,
            self._kill: 2,
            self._cancel_items: 5,
            self._add: 8,
            self._seal: 4,
            self._resize: 2,
            self._clear: 6,
            self._retry: 8,
            self._look: 6,
            self._consume: 4,
            self._close: 1,
        }

    def run_for(self, seconds: float) -> None:
        """Wreak havoc for so long, or until something is wrong."""
        self._open(self._rng)
        striker = Striker(random.Random(self._rng.random()), self.struck)
        actors = [
            threading.Thread(target=self._act, args=(random.Random(self._rng.random()),), name=f"chaos-actor-{number}")
            for number in range(ACTORS)
        ]
        for actor in actors:
            actor.daemon = True
            actor.start()
        end = time.monotonic() + seconds
        while time.monotonic() < end and not self.complaints:
            self._stop.wait(0.2)
        self._stop.set()
        striker.stop()
        self.counts["strikes"] = striker.strikes
        self.join(*actors)

    def finish(self) -> None:
        """End everything, in one way or another, and check that it has ended well."""
        for arena in list(self._arenas):
            if not self.complaints:
                self._wind_up(arena)
        self.join(*self._threads)
        self._see_ended("the shared pool", partial(close_shared_pool, kill=True))
        for arena in list(self._arenas):  # of a run that has failed
            self._see_ended(f"queue {arena.number}", partial(arena.queue.close, kill=True))

    # --- machinery --------------------------------------------------------------------------------------------------

    def complain(self, text: str) -> None:
        """Something is wrong."""
        with self._lock:
            self.complaints.append(text)

    def hang(self, what: str) -> None:
        """Something did not end."""
        self.complain(f"{what} did not end: nothing went on for {DEADLINE:g} s")
        queues = {f"queue {arena.number} {arena.make}": arena.queue for arena in list(self._arenas)}
        waits = [f"{thread.name} {tell()}" for thread, tell in list(self._threads.items())]
        show_everything(what, queues, waits, list(self._acts))

    def _await(self, what: str, done: Callable[[], bool]) -> None:
        """Until it is done; a hang, where it is not and nothing goes on. ``done`` waits a little by itself."""
        seen, end, last = -1, 0.0, time.monotonic() + LONGEST
        while not done():
            now, beats = time.monotonic(), self._beats()
            if beats != seen:
                seen, end = beats, min(last, now + DEADLINE)
            elif now > end:
                self.hang(what)
                return

    def _beats(self) -> int:
        """Something that grows with all that goes on."""
        arenas = list(self._arenas)
        ended = sum(case.job.completed + case.job.failed for arena in arenas for case in arena.cases())
        return self._pulse.beats + ended + sum(arena.witness.events for arena in arenas)

    def join(self, *threads: threading.Thread) -> None:
        for thread in threads:

            def done(thread: threading.Thread = thread) -> bool:
                if thread.ident is None:  # it is about to start
                    return threading.Event().wait(0.001)
                thread.join(1.0)
                return not thread.is_alive()

            self._await(f"thread {thread.name}", done)

    def _see_ended(self, what: str, call: Callable[[], object]) -> None:
        """Make a call that waits, on a thread of its own, as it may hang."""
        self.join(self.beside(f"end of {what}", call))

    def _act(self, rng: random.Random) -> None:
        actions, weights = list(self._actions), list(self._actions.values())
        while not self._stop.is_set() and not self.complaints:
            self._stop.wait(min(0.2, rng.expovariate(1 / 0.01)))
            with self._lock:
                arenas = list(self._arenas)
            if not arenas or (len(arenas) < MOST_ARENAS and rng.random() < 0.02):
                self._open(rng)
                continue
            (action,) = rng.choices(actions, weights)
            with self._guarded(action.__name__):
                action(rng, rng.choice(arenas))

    @contextlib.contextmanager
    def _guarded(self, name: str) -> Iterator[None]:
        try:
            yield
        except TOO_LATE:
            self.counts["too late"] += 1
        except BaseException:  # whatever it is, it is what we look for
            self.complain(f"{name} raised:\n{traceback.format_exc()}")

    def _note(self, arena: Arena, what: str) -> None:
        self.counts[what.split(maxsplit=1)[0]] += 1
        self._acts.append(f"{time.monotonic():.4f} {threading.current_thread().name}: {arena.number}: {what}")

    def beside(
        self, name: str, target: Callable[[], object], waits: Callable[[], str] = lambda: ""
    ) -> threading.Thread:
        """Do something in a thread of its own; ``waits`` says what it waits for."""

        def guarded() -> None:
            with self._guarded(name):
                target()
            self._threads.pop(threading.current_thread(), None)  # and with it what it holds

        thread = threading.Thread(target=guarded, name=f"chaos-{name}", daemon=True)
        self._threads[thread] = waits
        thread.start()
        return thread

    # --- what users do ----------------------------------------------------------------------------------------------

    def _open(self, rng: random.Random) -> None:
        arena = Arena(rng, self._folder, self.struck, self.complain, self._pulse)
        if rng.random() < 0.5:
            dice = random.Random(rng.random())
            arena.queue.on(JOB_FINISHED, lambda event: self._retry_from_listener(arena, dice, event))
        with self._lock:
            self._arenas.append(arena)
        self._note(arena, f"open {arena.make}")

    def _start_job(self, rng: random.Random, arena: Arena) -> None:
        under_way = [case for case in arena.cases() if not case.job.status.final]
        if len(under_way) >= MOST_JOBS:
            return
        case = arena.create(rng)
        self._note(arena, f"create {case.job.id}: {case.job.total} items")
        if rng.random() < 0.95:
            self._start(arena, case)
        self.counts["items"] += case.job.total

    def _start(self, arena: Arena, case: Case) -> None:
        with case.starting:
            self._add_run(arena, case, arena.queue.start(case.job.id))

    def _add_run(self, arena: Arena, case: Case, run: JobRun) -> None:
        case.runs.append(run)
        number, told = len(case.runs), arena.witness.of(case.job.id)

        def resolved(_run: object) -> None:
            if told.finished < number:
                arena.complain(f"run {number} of {case.job.id} resolved before job:finished was told")

        run.add_done_callback(resolved)

    def _some_case(self, rng: random.Random, arena: Arena, *statuses: JobStatus) -> Case | None:
        cases = [case for case in arena.cases() if not statuses or case.job.status in statuses]
        return rng.choice(cases) if cases else None

    def _pause(self, rng: random.Random, arena: Arena) -> None:
        case = self._some_case(rng, arena, JobStatus.RUNNING)
        if case is not None:
            self._note(arena, f"pause {case.job.id}")
            case.was_paused = True
            arena.queue.pause(case.job.id)

    def _resume(self, rng: random.Random, arena: Arena) -> None:
        case = self._some_case(rng, arena, JobStatus.PAUSED)
        if case is not None:
            self._note(arena, f"resume {case.job.id}")
            arena.queue.resume(case.job.id)

    def _cancel(self, rng: random.Random, arena: Arena) -> None:
        case = self._some_case(rng, arena, JobStatus.RUNNING, JobStatus.PAUSED, JobStatus.PENDING)
        if case is not None:
            self._note(arena, f"cancel {case.job.id}")
            with case.starting:
                arena.queue.cancel(case.job.id)

    def _kill(self, rng: random.Random, arena: Arena) -> None:
        case = self._some_case(rng, arena, JobStatus.RUNNING, JobStatus.PAUSED)
        if case is not None:
            self._note(arena, f"kill {case.job.id}")
            arena.queue.cancel(case.job.id, kill=True)

    def _cancel_items(self, rng: random.Random, arena: Arena) -> None:
        case = self._some_case(rng, arena, JobStatus.RUNNING, JobStatus.PAUSED, JobStatus.PENDING)
        if case is None or not case.job.total:
            return
        with case.starting:
            first, kill = rng.randrange(case.job.total), rng.random() < 0.5
            chosen = range(first, min(case.job.total, first + rng.choice((1, 1, 3, 100))))
            self._note(arena, f"cancel_items {case.job.id}: {chosen}, kill={kill}")
            case.dropped.update(chosen)
            arena.queue.cancel_items(case.job.id, chosen, kill=kill)

    def _add(self, rng: random.Random, arena: Arena) -> None:
        cases = [case for case in arena.cases() if case.is_open and not case.job.status.final]
        if cases:
            case = rng.choice(cases)
            with case.starting:
                taken = arena.add(rng, case)
            self._note(arena, f"add {taken} to {case.job.id}")
            self.counts["items"] += taken

    def _seal(self, rng: random.Random, arena: Arena) -> None:
        cases = [case for case in arena.cases() if case.is_open and not case.job.status.final]
        if cases:
            case = rng.choice(cases)
            self._note(arena, f"seal {case.job.id}")
            arena.queue.seal(case.job.id)

    def _resize(self, rng: random.Random, arena: Arena) -> None:
        size, kill = rng.choice((1, 2, 2, 3, 4)), rng.random() < 0.5
        self._note(arena, f"resize to {size}, kill={kill}")
        arena.queue.resize(size, kill=kill)

    def _clear(self, rng: random.Random, arena: Arena) -> None:
        case = self._some_case(rng, arena)
        if case is None or not case.over or not case.job.status.final:
            return
        with case.starting:
            if case.over:
                self._note(arena, f"clear {case.job.id}")
                arena.queue.clear_job(case.job.id)
                self._await_finished(arena, case)
                arena.audit(case)

    def _await_finished(self, arena: Arena, case: Case) -> None:
        """A job that was cancelled before it started has no run, only an event."""
        told = arena.witness.of(case.job.id)

        def done() -> bool:
            if over := not case.job.status.final or told.finished > 0:
                return over
            threading.Event().wait(0.01)
            return False

        self._await(f"telling the end of {case.job.id}", done)

    def _retry(self, rng: random.Random, arena: Arena) -> None:
        case = self._some_case(rng, arena, JobStatus.COMPLETED_WITH_ERRORS)
        if case is not None:
            with case.starting:
                self._retry_case(rng, arena, case)

    def _retry_from_listener(self, arena: Arena, rng: random.Random, event: JobFinished) -> None:
        """Start a job again before its run has resolved."""
        case = arena.case(event.job_id)
        if case is None or len(case.runs) > 3 or rng.random() < 0.7:
            return
        if case.starting.acquire(blocking=False):  # else somebody waits for the listeners
            with self._guarded("retry from a listener"):
                self._retry_case(rng, arena, case)
            case.starting.release()

    def _retry_case(self, rng: random.Random, arena: Arena, case: Case) -> None:
        if case.job.status is not JobStatus.COMPLETED_WITH_ERRORS or case.audited:
            return
        failed = [index for index, item in enumerate(case.job.items) if item.status is ItemStatus.FAILED]
        chosen = None if rng.random() < 0.6 else rng.sample(failed, rng.randint(1, len(failed)))
        again = set(failed if chosen is None else chosen)
        before = [len(item.history) for item in case.job.items]
        self._note(arena, f"retry {case.job.id}: {len(again)} of {len(failed)} items")
        arena.witness.of(case.job.id).left_failed = len(failed) - len(again)
        run = arena.queue.retry_failed(case.job.id, items=chosen)
        case.dropped -= again
        old = case.history_before or [0] * len(before)
        case.history_before = [before[at] if at in again else then for at, then in enumerate(old)]
        self._add_run(arena, case, run)

    def _look(self, rng: random.Random, arena: Arena) -> None:
        """Read what can be read: nothing of it may raise, or hold anybody up."""
        stats = arena.queue.get_stats()
        if stats.running + stats.pending + stats.completed != stats.total:
            arena.complain(f"stats don't add up: {stats}")
        for job in arena.queue.jobs()[-5:]:
            if job.total <= 60 and len(job.to_dict()["items"]) != job.total:
                arena.complain(f"{job} does not write all its items")
            _ = [item.status for item in job.items[:50]], job.failures, repr(job)

    def _consume(self, rng: random.Random, arena: Arena) -> None:
        if len(self._threads) >= MOST_CONSUMERS:
            return
        dice = random.Random(rng.random())
        kind = rng.choice(("calls", "calls", "imap", "as_completed", "run", "fork", "fork"))
        self._note(arena, f"{kind}")
        if kind == "calls":
            driver = consumers.CallDriver(dice, arena, self.struck)
            self.beside(kind, partial(driver.drive, self._stop), driver.describe)
        elif kind == "imap":
            self.beside(kind, lambda: consumers.read_imap(dice, arena, self.struck))
        elif kind == "run":
            self.beside(kind, lambda: consumers.run_at_once(dice, arena))
        elif kind == "fork":
            self.beside(kind, lambda: consumers.fork_and_look(dice, arena))
        else:
            case = self._some_case(rng, arena, JobStatus.RUNNING)
            if case is not None and case.runs:
                run = case.runs[-1]
                self.beside(kind, lambda: consumers.iterate(arena, run))

    # --- the end of a queue -----------------------------------------------------------------------------------------

    def _close(self, rng: random.Random, arena: Arena) -> None:
        if rng.random() < 0.5:
            return
        with self._lock:
            if arena.closing:
                return
            arena.closing = True
        way = rng.choice(("kill", "kill", "cancel", "wait", "listener"))
        self._note(arena, f"close by {way}")
        if way == "wait":
            self.beside("closer", lambda: self._close_by(way, arena), lambda: f"closes queue {arena.number}")
        else:
            self._close_by(way, arena)

    def _wind_up(self, arena: Arena) -> None:
        """The end of chaos: everything may go on, and must come to its end."""
        for case in arena.cases():
            with contextlib.suppress(*TOO_LATE):
                if case.job.paused:
                    arena.queue.resume(case.job.id)
                if case.is_open:
                    arena.queue.seal(case.job.id)
        if not arena.closing:
            arena.closing = True
            self._note(arena, "wind up")
            arena.queue.resize(3)  # one worker would take minutes for what several have begun
            self._await_runs(arena)
            self._close_by(self._rng.choice(("wait", "kill", "cancel")), arena)

    def _close_by(self, way: str, arena: Arena) -> None:
        what = f"queue {arena.number}"
        if way == "kill":
            self._see_ended(what, partial(arena.queue.close, kill=True))
        elif way == "cancel":
            self._see_ended(what, partial(arena.queue.close, wait=False))
        elif way == "wait":
            self._see_ended(what, arena.queue.close)
        else:
            arena.queue.on(JOB_FINISHED, lambda _: arena.queue.close())
            arena.queue.run([], len)
        self._await_runs(arena)
        if not self.complaints:
            self._see_ended(what, arena.queue.close)  # another thread may be at it
            with self._lock:
                self._arenas.remove(arena)
            for case in arena.cases():
                with case.starting:  # whoever is about to start it comes too late by now
                    self._await_finished(arena, case)
            self._await_runs(arena)
            arena.audit_all()
            self.counts["events"] += arena.witness.events

    def _await_runs(self, arena: Arena) -> None:
        runs = [run for case in arena.cases() for run in case.runs]
        self._await(f"the runs of queue {arena.number}", lambda: not wait(runs, timeout=1.0).not_done)
