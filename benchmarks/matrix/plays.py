"""How a fault is played, in a process of its own, by one library. What happened is told to the process above."""

from __future__ import annotations

import os
import resource
import signal
import threading
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

from benchmarks.matrix import deeds
from benchmarks.matrix.dialects import CannotError, Dialect, Outcome, describe
from benchmarks.matrix.faults import Fault

Tell = Callable[..., None]

#: Seconds that the pool is given afterwards to show that it is still at work.
AFTERWARDS = 6.0
#: Input that nobody wanted, from which on it counts as read without end.
TOO_MUCH = 100_000


class Stage:
    """What a play needs: the library, the fault, the folder of marks, and somebody to tell."""

    def __init__(self, dialect: Dialect, fault: Fault, folder: str, tell: Tell) -> None:
        self.dialect = dialect
        self.fault = fault
        self.folder = folder
        self.tell = tell

    def marks(self, what: str) -> list[str]:
        """Names of the marks of that kind."""
        return [name for name in os.listdir(self.folder) if name.startswith(f"{what}-")]

    def wait_for_marks(self, what: str, count: int = 1, patience: float = 20.0) -> list[str]:
        """Those marks, once there are so many, or time is over."""
        until = time.monotonic() + patience
        while len(found := self.marks(what)) < count and time.monotonic() < until:
            time.sleep(0.01)
        return found

    def enter(self, initializer: Callable[[], None] | None = None) -> None:
        """Prepare what the fault asks for, and start the workers."""
        if self.fault.free_shm is not None:
            fill_shm(self.fault.free_shm)
        if self.fault.descriptors is not None:
            resource.setrlimit(resource.RLIMIT_NOFILE, (self.fault.descriptors,) * 2)
        try:
            self.dialect.enter(initializer)
        except BaseException as error:
            self.tell(event="refused", error=describe(error))
            raise
        self.tell(event="entered")

    def tell_outcomes(self, outcomes: list[Outcome], guilty: frozenset[int]) -> None:
        """Which items came home right, and what became of the guilty ones."""
        kinds = []
        for number, (kind, value) in enumerate(outcomes):
            found = value[0] if isinstance(value, tuple) else value
            right = found == number or number in guilty
            kinds.append("wrong" if kind == "ok" and not right else kind)
        errors = {number: value[:160] for number, (kind, value) in enumerate(outcomes) if kind == "error"}
        self.tell(event="outcomes", kinds=kinds, guilty=sorted(guilty), errors=errors)

    def show_usable(self) -> None:
        """Whether the pool still works, as it is; for libraries that make a new one by themselves, with that."""
        usable = self.dialect.outcomes(deeds.echo, list(range(4)), AFTERWARDS)
        self.tell(event="afterwards", usable=all(outcome == ("ok", at) for at, outcome in enumerate(usable)))

    def leave(self) -> None:
        """Close the pool."""
        self.dialect.leave()
        self.tell(event="left")


def batch(stage: Stage) -> None:
    """Eight items; the guilty ones do their deed."""
    fault = stage.fault
    stage.enter()
    outcomes = stage.dialect.outcomes(deeds.work, fault.tasks(stage.folder), fault.patience, fault.timeout)
    if fault.free_shm is not None:
        stage.tell_outcomes(outcomes, frozenset())
    else:
        stage.tell_outcomes(outcomes, fault.guilty if fault.deed or fault.load else frozenset())
    stage.show_usable()
    stage.leave()


def killed(stage: Stage) -> None:
    """As `batch`, with somebody who kills the workers of the guilty items."""

    def kill() -> None:
        count = len(stage.fault.guilty)
        stage.wait_for_marks("victim", 1, stage.fault.patience)  # some start their workers now
        stage.wait_for_marks("victim", count, 5.0)
        killed: set[str] = set()
        while len(killed) < count:
            for name in set(stage.marks("victim")) - killed:
                os.kill(int(name.split("-")[2]), signal.SIGKILL)
                killed.add(name)
            time.sleep(0.05)

    threading.Thread(target=kill, daemon=True).start()
    batch(stage)


def idle(stage: Stage) -> None:
    """All workers are killed when they have nothing to do; then there are items."""
    stage.enter()
    first = stage.dialect.outcomes(deeds.tell_pid, list(range(8)), 30.0)
    for pid in {outcome.value[1] for outcome in first if outcome.kind == "ok"}:
        os.kill(pid, signal.SIGKILL)
    time.sleep(0.5)
    outcomes = stage.dialect.outcomes(deeds.work, stage.fault.tasks(stage.folder), stage.fault.patience)
    stage.tell_outcomes(outcomes, frozenset())
    stage.show_usable()
    stage.leave()


def refused(stage: Stage) -> None:
    """A function that can't be sent: an error for the call, or for each item."""
    stage.enter()
    outcomes = stage.dialect.outcomes(deeds.Carrier(), stage.fault.tasks(stage.folder), stage.fault.patience)
    stage.tell(event="error", told=all(kind == "error" for kind, _ in outcomes), error=_first_error(outcomes))
    stage.show_usable()
    stage.leave()


def initializer(stage: Stage) -> None:
    """Workers that can't begin."""
    deadly = stage.fault.deed is not None
    try:
        stage.enter(deeds.Initializer(stage.folder, deadly=deadly))
    except Exception as error:  # noqa: BLE001 - told at once: even better
        _tell_initializer(stage, [Outcome("error", describe(error))], deadly=deadly)
        return
    outcomes = stage.dialect.outcomes(deeds.echo, list(range(4)), stage.fault.patience)
    _tell_initializer(stage, outcomes, deadly=deadly)
    stage.leave()


def _tell_initializer(stage: Stage, outcomes: list[Outcome], *, deadly: bool) -> None:
    error = _first_error(outcomes)
    stage.tell(
        event="error",
        told=all(kind == "error" for kind, _ in outcomes),
        error=error,
        reason=deadly or "no licence" in error,
        starts=len(stage.marks("start")),
    )


def _first_error(outcomes: list[Outcome]) -> str:
    return next((value for kind, value in outcomes if kind == "error"), "")


def cancel(stage: Stage) -> None:
    """An item that runs is cancelled; then its worker must do something else."""
    stage.enter()
    task = stage.fault.tasks(stage.folder)[3]
    try:
        stage.dialect.end_running(deeds.work, task, lambda: bool(stage.wait_for_marks("try")))
    except CannotError as error:
        stage.tell(event="cannot", error=str(error))
        os._exit(0)  # nothing else is asked here, and some would wait for the item
    pids = [int(name.split("-")[2]) for name in stage.marks("try")]
    until = time.monotonic() + 5.0
    while any(Path(f"/proc/{pid}").exists() for pid in pids) and time.monotonic() < until:
        time.sleep(0.02)
    gone = not any(Path(f"/proc/{pid}").exists() for pid in pids)
    stage.tell(event="error", told=gone, error="" if gone else "the item runs on")
    stage.show_usable()
    stage.leave()


def ending(stage: Stage) -> None:
    """Items of ten minutes on all workers; the process above does the rest, or an error here."""
    stage.dialect.interruptible = True
    tasks = [deeds.Task(number, "hang", stage.folder) for number in range(4)]
    stage.enter()
    if stage.fault.signal == 0:
        threading.Thread(target=_fail_when_running, args=(stage,), daemon=True).start()
    try:
        stage.dialect.outcomes(deeds.work, tasks, deeds.FOREVER)
    except BaseException as error:
        stage.dialect.leave(type(error), error, error.__traceback__)
        raise


def _fail_when_running(stage: Stage) -> None:
    """Raise in the main thread, by way of a signal handler, as if the program had a fault of its own there."""
    stage.wait_for_marks("try", 2)
    os.kill(os.getpid(), signal.SIGUSR1)


class ProgramError(KeyboardInterrupt):
    """The program's own fault; of this type since the waiting lets only such through."""


def fail_on_signal() -> None:
    """Have SIGUSR1 raise in the main thread."""

    def fail(*_: object) -> None:
        raise ProgramError("a fault of the program itself")

    signal.signal(signal.SIGUSR1, fail)


def endless(stage: Stage) -> None:
    """Fifty results out of an input without end."""
    stage.enter()
    reads = [0]

    def numbers() -> Iterator[int]:
        while True:
            number = reads[0]
            reads[0] += 1
            if reads[0] > TOO_MUCH:
                stage.tell(event="endless", reads=reads[0], taken=len(taken))
                os._exit(0)
            yield number

    taken: list[int] = []
    try:
        results = stage.dialect.take(deeds.doze, numbers())
    except CannotError as error:
        stage.tell(event="cannot", error=str(error))
        os._exit(0)
    for value in results:
        taken.append(value)
        if len(taken) == 50:
            break
    time.sleep(1.0)  # nobody takes anything: nobody may read on
    stage.tell(event="endless", reads=reads[0], taken=len(taken), right=taken == list(range(50)))
    if hasattr(results, "close"):
        results.close()
    stage.leave()


def tiny(stage: Stage) -> None:
    """Many items that cost nothing, by the call that is meant for many."""
    from benchmarks import contenders

    count = 200_000
    name = stage.dialect.contender.name
    if name == "dask":
        name = "dask.bag"
    contender = contenders.make(name, stage.dialect.workers)
    stage.tell(event="entered")
    results = contender.map(deeds.echo, range(count), count // (4 * stage.dialect.workers))
    stage.tell(event="results", right=list(results) == list(range(count)))
    contender.close()
    stage.tell(event="left")


def closure(stage: Stage) -> None:
    """A function with a table of 100 MB in it."""
    import numpy as np

    stage.enter()
    table = np.arange(100_000_000 // 8)
    outcomes = stage.dialect.outcomes(partial(deeds.look_up, table), list(range(200)), 60.0)
    stage.tell_outcomes(outcomes, frozenset())
    stage.leave()


def fill_shm(free: int) -> None:
    """Take all of /dev/shm but so many bytes; only where it is small, so nobody else's."""
    status = os.statvfs("/dev/shm")
    size = status.f_bavail * status.f_frsize
    assert size <= 1 << 26, "this /dev/shm is everybody's"
    with open("/dev/shm/filler", "wb") as file:
        os.posix_fallocate(file.fileno(), 0, size - free)
