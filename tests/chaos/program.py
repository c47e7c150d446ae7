"""The program of a restart run: the same jobs from the same seed each time, in a queue with a journal.

``python -m tests.chaos.program FOLDER SEED RUN``. Whatever ends it, `tests.chaos.restarts` runs it again, with a higher
RUN, until it ends by itself. Meanwhile its workers are struck, its wall clock jumps, and for moments it has no
descriptors left and no room in /dev/shm (of which it has one of its own).
"""

from __future__ import annotations

import contextlib
import logging
import os
import random
import resource
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import freezegun
import time_machine

from mpqueue import JobProgress, JobQueue, JobRun, JournalError, MPQueueError, RetryPolicy, WorkerStartError
from mpqueue.events import JOB_PROGRESS
from tests.chaos.arena import random_deeds
from tests.chaos.audit import Struck
from tests.chaos.deeds import Deed, Doer
from tests.chaos.postmortem import show_everything
from tests.chaos.striker import Striker

TIMEOUT = 1.0
#: Items in a job, but for the slow ones.
MOST_ITEMS = 150
#: Often enough that hardly an item runs out of tries only because its workers are struck.
RETRIES = 6
MEMORY_LIMIT = "250MB"
#: Seconds that the longest items take: longer than a group commit, so that they are on disk before they are told.
SLOW = 0.4

#: Seconds between two strikes: few workers bear less than those of many queues.
MOODS = (3.0, 1.0, 0.3)

TELL = signal.SIGUSR2  #: the program says on standard error what it waits for

EMPTY_HANDED = 77  #: the exit code where jobs can't be started for want of descriptors or shared memory


def jobs_of(seed: int) -> dict[str, list[Deed]]:
    """The jobs of a run by id, the same each time."""
    rng = random.Random(seed)
    jobs = {}
    for number in range(rng.choice((1, 2, 3))):
        deeds = random_deeds(rng, MOST_ITEMS, may_hang=True, may_hog=True)
        slow = [Deed(len(deeds) + at, "nap", amount=int(SLOW * 1e6)) for at in range(rng.choice((0, 2, 6)))]
        jobs[f"job-{number}"] = [*deeds, *slow]
    return jobs


class Log:
    """A file to which lines are appended, each whole whatever happens next."""

    def __init__(self, path: Path) -> None:
        self._fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC)

    def write(self, *fields: object) -> None:
        """Append a line."""
        os.write(self._fd, (" ".join(map(str, fields)) + "\n").encode())


class LoggedStrikes(dict[int, set[str]]):
    """Signals sent to workers by process id, written down before they are sent."""

    def __init__(self, log: Log) -> None:
        super().__init__()
        self._log = log

    def __missing__(self, pid: int) -> set[str]:
        self._log.write(pid)
        self[pid] = set()
        return self[pid]


def main(folder: Path, seed: int, run: int) -> None:
    """Run all jobs to their end."""
    logging.basicConfig(filename=folder / "log", level=logging.WARNING, format=f"{run} %(levelname)s %(message)s")
    rng = random.Random(f"{seed} {run}")
    sys.stdout = open(1, "w", closefd=False)  # noqa: SIM115 - buffered whatever the environment says
    print("what is printed and not flushed" * 10)  # a start of a worker that flushes it may wait for ever, or fail
    if rng.random() < 0.3:
        pretend_another_time(rng)
    stop, trouble = threading.Event(), []
    for make in (jump_with_the_clock, run_out_of_descriptors, fill_shared_memory):
        if rng.random() < 0.5:
            dice = random.Random(rng.random())
            trouble.append(threading.Thread(target=make, args=(dice, stop), name=make.__name__, daemon=True))
    events = Log(folder / f"events-{run}")
    with JobQueue(
        rng.choice((1, 2, 3)),
        journal=folder / "run.db",
        retry=RetryPolicy(RETRIES, base_delay=rng.choice((0.0, 0.05))),
        timeout=TIMEOUT,
        per_worker={"memory": MEMORY_LIMIT},
    ) as queue:
        signal.signal(TELL, lambda *_: show_everything(f"run {run}", {"the queue": queue}, ()))

        @queue.on(JOB_PROGRESS)
        def write(progress: JobProgress) -> None:
            assert progress.item is not None
            events.write(progress.job_id, progress.item.id, progress.item.status, progress.item.elapsed)

        for thread in trouble:
            thread.start()
        jobs = jobs_of(seed)
        doer = Doer(str(folder / f"calls-{run}"))
        for job_id, deeds in jobs.items():
            persist(partial(queue.create_job, job_id, deeds, doer))
        struck = Struck(LoggedStrikes(Log(folder / "struck")))
        striker = Striker(random.Random(rng.random()), struck, MOODS)
        runs = [persist(partial(queue.start, job_id)) for job_id in jobs]
        for job_run in runs:
            await_end(job_run)
        striker.stop()
        stop.set()


def persist(call: Callable[[], Any]) -> Any:
    """Call it again while there are no descriptors and no room: these are refused with clear errors."""
    end = time.monotonic() + 20
    while True:
        try:
            return call()
        except (MPQueueError, OSError) as error:
            logging.getLogger("chaos").warning("refused: %r", error)
            if time.monotonic() > end:
                os._exit(EMPTY_HANDED)
            threading.Event().wait(0.05)


def await_end(run: JobRun) -> None:
    """Wait for its end, also where the journal can't be written for want of descriptors: it goes on by itself."""
    while not run.done():
        try:
            run.result()
        except JournalError as error:
            logging.getLogger("chaos").warning("paused: %r", error)
            threading.Event().wait(0.05)
        except WorkerStartError as error:  # all that were started for half a minute were struck
            logging.getLogger("chaos").warning("interrupted: %r", error)


# --- trouble --------------------------------------------------------------------------------------------------------


def jump_with_the_clock(rng: random.Random, stop: threading.Event) -> None:
    """The wall clock jumps, forwards and back, by up to a week."""
    real, offset = time.time, 0.0

    def wall() -> float:
        return real() + offset

    time.time = wall
    while not stop.wait(rng.expovariate(1 / 0.1)):
        offset = rng.uniform(-1, 1) * 10 ** rng.uniform(-2, 5.8)


def pretend_another_time(rng: random.Random) -> None:
    """All clocks of Python say another time, as in a program's own tests."""
    if rng.random() < 0.5:
        freezegun.freeze_time("2031-01-01", tick=True).start()
    else:
        time_machine.travel(1_900_000_000 * rng.random(), tick=True).start()


def run_out_of_descriptors(rng: random.Random, stop: threading.Event) -> None:
    """Now and then this process may open hardly a file more."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    while not stop.wait(rng.expovariate(1 / 0.7)):
        highest = max(map(int, os.listdir("/proc/self/fd")))
        resource.setrlimit(resource.RLIMIT_NOFILE, (min(soft, highest + rng.choice((1, 3, 20))), hard))
        stop.wait(rng.uniform(0.01, 0.4))
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def fill_shared_memory(rng: random.Random, stop: threading.Event) -> None:
    """Now and then /dev/shm, which has to be our own, is full but for some kilobytes."""
    if os.environ.get("CHAOS_OWN_SHM") != "1":
        return
    while not stop.wait(rng.expovariate(1 / 0.7)):
        with contextlib.suppress(OSError), filled("/dev/shm/filler", rng.choice((0, 4096, 200_000))):
            stop.wait(rng.uniform(0.01, 0.4))


@contextlib.contextmanager
def filled(path: str, rest: int) -> Iterator[None]:
    """All but so many bytes of the file system are taken."""
    stat = os.statvfs(os.path.dirname(path))
    file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC)
    try:
        os.posix_fallocate(file, 0, max(4096, stat.f_bavail * stat.f_frsize - rest))
        yield
    finally:
        os.close(file)
        os.unlink(path)


if __name__ == "__main__":
    try:
        main(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]))
    finally:  # the interpreter's exit flushes, and would wait, or fail, as that of any program
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
