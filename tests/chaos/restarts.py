"""Restarts: a program with a journal is killed and interrupted again and again, and run again until it is through.

Then the books: each item ended once and rightly; what was told of a long item is never undone, and it never runs again;
a try that is called twice had a reason; and each end of the program left no process.
"""

from __future__ import annotations

import contextlib
import os
import random
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from mpqueue import JobQueue, JobStatus
from tests.chaos.audit import Audit, Case, Struck
from tests.chaos.program import EMPTY_HANDED, RETRIES, SLOW, TELL, TIMEOUT, jobs_of
from tests.chaos.workers import is_worker
from tests.support.leaks import descendants
from tests.support.programs import is_running
from tests.support.small_shm import own_shm
from tests.support.waiting import wait_until

#: Seconds that a program may take that is let alone, and that one may take to end.
PATIENCE = 300.0
#: Seconds that one which hangs has to say what it waits for.
TELLING = 5.0
#: How often a program is ended before it is let alone.
MOST_ENDS = 8
#: What ends it, and how often in comparison.
ENDS = {signal.SIGKILL: 6, signal.SIGINT: 3, signal.SIGTERM: 1}
#: What the standard output of a program may be.
OUTPUTS = ("null", "null", "full", "full pipe", "broken pipe")
#: What a file holds that is not the program's to write to.
VICTIM = "not yours"
#: A name that is none of a journal's.
NOTES = "notes"
#: What ends the processes that handlers of a program have left that was killed.
START_OF_A_QUEUE = "from mpqueue import JobQueue\nwith JobQueue(1) as queue: queue.run([1], abs)"
#: Seconds after which an item is long: it is on disk before it is told.
LONG = 0.25

ROOT = Path(__file__).parents[2]


class Restarts:
    """One after the other. ``complaints`` is what was found wrong, with the folder that shows it."""

    def __init__(self, seed: int, folder: Path) -> None:
        self.complaints: list[str] = []
        self.counts: Counter[str] = Counter()
        self._rng = random.Random(seed)
        self._folder = folder
        self._family: list[Process] = []  #: all processes of programs that were ended

    def run_for(self, seconds: float) -> None:
        """As many programs as there is time for, at least one."""
        end = time.monotonic() + seconds
        while not self.complaints:
            seed = self._rng.randrange(2**32)
            folder = self._folder / f"program-{seed}"
            folder.mkdir()
            self._see_through(seed, folder)
            if self.complaints:
                self.complaints.append(f"seed of the program {seed}, its files in {folder}")
                return
            self.complaints += [f"program {seed} in {folder}: {text}" for text in audit(seed, folder, self.counts)]
            if not self.complaints:
                shutil.rmtree(folder)
            if time.monotonic() >= end:
                return

    def _see_through(self, seed: int, folder: Path) -> None:
        self.counts["programs"] += 1
        ends = self._rng.randrange(MOST_ENDS)
        for run in range(100):
            self._plant(folder)
            program = start(folder, seed, run, self._rng.choice(OUTPUTS))
            patience = PATIENCE if run >= ends else 10 ** self._rng.uniform(-0.7, 0.6)
            try:
                if self._rng.random() < 0.3:
                    self._put_to_sleep(program, patience)
                code = program.wait(patience)
            except subprocess.TimeoutExpired:
                if run >= ends:
                    self._give_up(program, f"run {run} did not end within {PATIENCE:g} s", folder / "stderr")
                    return
                self._end(program, folder)
                continue
            if code == 0:
                self._await_orphans()
                while _unread:
                    os.close(_unread.pop())
                return
            self.counts["empty-handed"] += code == EMPTY_HANDED
            if code != EMPTY_HANDED:
                self.complaints.append(f"run {run} ended with {code}: {(folder / 'stderr').read_text()[-3000:]}")
                return
        self.complaints.append("it is never through")

    def _plant(self, folder: Path) -> None:
        """Put files where the program writes, among them links: what they lead to, and what is not its own, stays."""
        values, noted = folder / "run.db.files", {str(folder / "victim")}
        (folder / "victim").write_text(VICTIM)
        for place in (folder, values):
            if place.is_dir():
                for name in (f".{self._rng.randbytes(8).hex()}.part", f"{self._rng.randbytes(16).hex()}.value"):
                    (place / name).symlink_to(folder / "victim")
                (place / NOTES).write_text(VICTIM)
                noted.add(str(place / NOTES))
        (folder / "planted").write_text("\n".join(sorted(noted)))

    def _put_to_sleep(self, program: subprocess.Popen[bytes], patience: float) -> None:
        """Stop all of it for a while, like a laptop whose lid is closed; the program wakes up before its workers."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            program.wait(self._rng.uniform(0.2, min(2.0, patience)))
            return
        family = [Process.of(pid) for pid in [program.pid, *descendants(program.pid)]]
        for process in family:
            process.send(signal.SIGSTOP)
        self._pause(2.0)
        for process in family:
            process.send(signal.SIGCONT)
            if process.pid == program.pid:
                self._pause(0.5)
        self.counts["sleeps"] += 1

    def _pause(self, most: float) -> None:
        threading.Event().wait(self._rng.uniform(0.0, most))

    def _give_up(self, program: subprocess.Popen[bytes], why: str, stderr: Path) -> None:
        """It hangs: what it says itself that it waits for is part of the complaint."""
        program.send_signal(TELL)
        with contextlib.suppress(subprocess.TimeoutExpired):
            program.wait(TELLING)
        program.kill()
        program.wait()
        self.complaints.append(f"{why}\n{stderr.read_text(errors='replace')[-20_000:]}")

    def _await_orphans(self) -> None:
        """What handlers had started is ended with the next start of a queue, if not before."""
        if any(process.is_running for process in self._family):
            subprocess.run([sys.executable, "-c", START_OF_A_QUEUE], check=True, timeout=PATIENCE)
        wait_until(lambda: not any(process.is_running for process in self._family), what=f"{self._family} to end")
        self._family.clear()

    def _end(self, program: subprocess.Popen[bytes], folder: Path) -> None:
        (number,) = self._rng.choices(list(ENDS), list(ENDS.values()))
        family = [Process.of(pid) for pid in descendants(program.pid)]
        program.send_signal(number)
        self.counts[f"{number.name} of programs"] += 1
        try:
            program.wait(PATIENCE)
        except subprocess.TimeoutExpired:
            self._give_up(program, f"{number.name} did not end it", folder / "stderr")
        for process in family:
            process.send(signal.SIGCONT)  # whatever had stopped it would have let it go on
        try:
            wait_until(lambda: not any(process.is_worker for process in family))
        except AssertionError:
            left = [process.described for process in family if process.is_worker]
            self.complaints.append(f"workers outlive {number.name} of their program: {left}")
        self._family += family


@dataclass(frozen=True)
class Process:
    """One process; never another one that has its number later, of which there are only 32,768 on some machines."""

    pid: int
    start: str

    @classmethod
    def of(cls, pid: int) -> Process:
        """The one that has that number now."""
        return cls(pid, start_of(pid))

    @property
    def is_running(self) -> bool:
        """Whether it lives."""
        return is_running(self.pid) and start_of(self.pid) == self.start

    @property
    def is_worker(self) -> bool:
        """Whether it lives and is a worker: not a program that a handler has started, once that is loaded."""
        return self.is_running and is_worker(self.pid)

    @property
    def described(self) -> str:
        """What can be told of it."""
        return f"{self.pid}: {_read(self.pid, 'cmdline')!r} {_read(self.pid, 'stat')!r} {_read(self.pid, 'wchan')!r}"

    def send(self, number: signal.Signals) -> None:
        """Send it a signal, if it lives."""
        if self.is_running:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, number)


def start_of(pid: int) -> str:
    """When a process began, in the system's own words; empty where there is none of that number."""
    return " ".join(_read(pid, "stat").decode(errors="replace").rpartition(")")[2].split()[19:20])


def _read(pid: int, name: str) -> bytes:
    try:
        return Path(f"/proc/{pid}/{name}").read_bytes()
    except OSError:
        return b""


def start(folder: Path, seed: int, run: int, output: str) -> subprocess.Popen[bytes]:
    """Start the program, with a small /dev/shm of its own where that can be had, and a standard output of that kind."""
    command = [sys.executable, "-m", "tests.chaos.program", str(folder), str(seed), str(run)]
    wrapped = own_shm(command)
    environment = {**os.environ, "CHAOS_OWN_SHM": "0" if wrapped is None else "1"}
    with open(folder / "stderr", "ab") as errors, standard_output(output) as out:
        return subprocess.Popen(
            wrapped or command,
            cwd=ROOT,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=errors,
            start_new_session=True,
        )


@contextlib.contextmanager
def standard_output(kind: str) -> Iterator[int]:
    """A descriptor to write to: nothing, a device that is full, a pipe that is full, or one that nothing reads."""
    if kind in ("null", "full"):
        fd = os.open(f"/dev/{kind}", os.O_WRONLY)
    else:
        read, fd = os.pipe()
        if kind == "full pipe":
            os.set_blocking(fd, False)
            with contextlib.suppress(BlockingIOError):
                while True:
                    os.write(fd, b"x" * 4096)
            os.set_blocking(fd, True)
            _unread.append(read)
        else:
            os.close(read)
    try:
        yield fd
    finally:
        os.close(fd)


#: Read ends of pipes that stay full.
_unread: list[int] = []


# --- the books ------------------------------------------------------------------------------------------------------


def audit(seed: int, folder: Path, counts: Counter[str]) -> Iterator[str]:
    """What is wrong with what a program that is through has left behind."""
    struck = Struck()
    for pid in lines(folder / "struck"):
        struck.signals[int(pid[0])].update(("SIGKILL", "SIGSEGV", "SIGTERM"))
    counts["strikes"] += len(struck.signals)
    books = Audit(struck)
    with JobQueue(1, journal=folder / "run.db") as queue:
        for job_id, deeds in jobs_of(seed).items():
            job = queue.load_job(job_id)
            case = Case(job, deeds, RETRIES, TIMEOUT, good_setup=True)
            if job.status not in (JobStatus.COMPLETED, JobStatus.COMPLETED_WITH_ERRORS):
                yield f"{job_id} is {job.status}"
            if job.completed + job.failed != job.total or job.total != len(deeds):
                yield f"{job_id}: {job.completed} completed, {job.failed} failed of {len(deeds)}"
            counts["items"] += job.total
            counts["failed items"] += job.failed
            counts["retries"] += job.retries
            yield from (f"{job_id}: {objection}" for objection in books.of_items(case))
    for (planted,) in lines(folder / "planted"):
        left = Path(planted)
        if not left.exists() or left.read_text() != VICTIM:
            yield f"{left} is not what it was"
    for log in folder.glob("calls-*-forks"):
        yield from Audit.of_forks(log.with_name(log.name.removesuffix("-forks")))
    yield from objections_to_events(folder)


def objections_to_events(folder: Path) -> Iterator[str]:
    """What was told, run by run, and what ran after it had been told."""
    told: dict[tuple[str, str], int] = {}  #: in which run a long item ended
    runs = range(len(list(folder.glob("events-*"))) + 100)
    for run in runs:
        called = [(job, item) for job, item, *_ in lines(folder / f"calls-{run}")]
        yield from (f"{one} ran in run {run}, its end was told in run {told[one]}" for one in called if one in told)
        in_this_run: set[tuple[str, str]] = set()
        for job, item, _status, elapsed in lines(folder / f"events-{run}"):
            if (job, item) in in_this_run or (job, item) in told:
                yield f"{job} {item} ended in run {run} and before"
            in_this_run.add((job, item))
            if float(elapsed) >= LONG:
                told[job, item] = run
    assert SLOW > LONG


def lines(path: Path) -> list[list[str]]:
    """The lines of a log, as fields."""
    return [line.split() for line in path.read_text(encoding="utf-8").splitlines()] if path.exists() else []
