"""The faults: the rows of the matrix, each with what happens and how it is played."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from benchmarks.matrix import deeds
from benchmarks.matrix.deeds import Task

#: Items in a batch.
COUNT = 8


@dataclass(frozen=True, slots=True)
class Fault:
    """One row. ``play`` names a function in `plays`; the items of ``guilty`` do the ``deed``."""

    name: str
    title: str
    group: str
    play: str = "batch"
    deed: str | None = None
    guilty: frozenset[int] = frozenset({3})
    #: A new load for a guilty item.
    load: Callable[[], Any] | None = None
    #: Seconds for each item, where the library has such a thing.
    timeout: float | None = None
    #: Seconds that the whole batch is waited for.
    patience: float = 20.0
    #: Bytes of /dev/shm that are free; None: plenty.
    free_shm: int | None = None
    #: Descriptors that the program may have; None: as many as usual.
    descriptors: int | None = None
    #: Which signal the program gets, and whether its whole group does.
    signal: int | None = None
    to_group: bool = False

    def tasks(self, folder: str) -> list[Task]:
        """The items of a batch."""
        tasks = []
        for number in range(COUNT):
            bad = number in self.guilty
            load = self.load() if bad and self.load is not None else None
            tasks.append(Task(number, self.deed if bad else None, folder, load))
        return tasks


GROUPS = {
    "raises": "The function raises",
    "data": "Arguments, results and functions that can't be sent",
    "dies": "Workers that die",
    "hangs": "Items that hang, with a limit of 1 s for each",
    "ends": "The start and the end of the program",
    "sizes": "Too much, or too little",
}


def _array(size: int) -> Any:
    import numpy as np

    return np.ones(size // 8)


def _bare_array() -> Any:
    return _array(1 << 20)


def _hang(name: str, title: str, deed: str, guilty: frozenset[int] = frozenset({3})) -> Fault:
    return Fault(name, title, "hangs", deed=deed, guilty=guilty, timeout=1.0)


ALL: tuple[Fault, ...] = (
    Fault("raises", "a `ValueError`", "raises", deed="raise_error"),
    Fault("sys-exit", "`sys.exit(3)`", "raises", deed="call_sys_exit"),
    Fault("interrupt", "a `KeyboardInterrupt`", "raises", deed="raise_interrupt"),
    Fault("two-arguments", "an exception whose `__init__` takes two arguments", "raises", deed="raise_two_arguments"),
    Fault("lock-in-error", "an exception that holds a lock", "raises", deed="raise_lock_holder"),
    Fault("local-error", "an exception of a class inside a function", "raises", deed="raise_local"),
    Fault("textless", "an exception whose `str()` raises", "raises", deed="raise_textless"),
    Fault("error-comes-apart", "an exception that raises when unpickled", "raises", deed="raise_ununpicklable"),
    Fault("bad-argument", "an argument can't be pickled", "data", load=deeds.Unpicklable),
    Fault("argument-comes-apart", "an argument raises when unpickled", "data", load=deeds.Ununpicklable),
    Fault("deadly-argument", "an argument kills the process that unpickles it", "data", load=deeds.KillsWhereUnpickled),
    Fault("bad-result", "a result can't be pickled", "data", deed="return_lock"),
    Fault("result-comes-apart", "a result raises when unpickled", "data", deed="return_ununpicklable"),
    Fault("bad-function", "the function carries a lock: an error at once", "data", play="refused", guilty=frozenset()),
    Fault("os-exit", "`os._exit(7)`", "dies", deed="exit_at_once"),
    Fault("segfault", "a segmentation fault", "dies", deed="segfault"),
    Fault("killed-busy", "SIGKILL from outside, one worker", "dies", play="killed", deed="wait_to_be_killed"),
    Fault(
        "killed-all",
        "SIGKILL from outside, all workers at once",
        "dies",
        play="killed",
        deed="wait_to_be_killed",
        guilty=frozenset({0, 1}),
    ),
    Fault("killed-idle", "SIGKILL of all workers while they are idle", "dies", play="idle", guilty=frozenset()),
    Fault(
        "killed-writing",
        "three workers die while they send 100 MB",
        "dies",
        deed="die_while_writing",
        guilty=frozenset({1, 3, 5}),
    ),
    Fault("descriptors-closed", "a worker closes all its descriptors", "dies", deed="close_descriptors"),
    Fault("memory", "an item takes all memory (`RLIMIT_AS`)", "dies", deed="take_memory"),
    _hang("hang", "`time.sleep`", "hang"),
    _hang("hang-in-c", "C code that holds the global lock", "hang_in_c"),
    _hang("hang-deaf", "with SIGTERM ignored", "hang_deaf"),
    _hang("hang-all", "as many items as there are workers", "hang", frozenset({0, 1})),
    _hang("frozen", "the worker is stopped (SIGSTOP)", "freeze"),
    Fault("cancel", "a running item is cancelled: its worker is free in 5 s", "hangs", play="cancel", deed="hang"),
    Fault("initializer", "the initializer raises: an error that says why", "ends", play="initializer"),
    Fault("deadly-initializer", "the initializer kills the worker: an error", "ends", play="initializer", deed="die"),
    Fault("thread-left", "an item leaves a thread behind", "ends", deed="leave_thread"),
    Fault("child-left", "an item leaves a child process behind", "ends", deed="leave_child"),
    Fault("unclosed", "the program ends by an error, items running", "ends", play="ending", signal=0),
    Fault("ctrl-c", "Ctrl-C, items running", "ends", play="ending", signal=2, to_group=True),
    Fault("terminated", "SIGTERM of the program, items running", "ends", play="ending", signal=15),
    Fault("killed", "`kill -9` of the program, items running", "ends", play="ending", signal=9),
    Fault("endless", "an input without end, of which 50 results are wanted", "sizes", play="endless"),
    Fault("tiny", "200,000 tiny items within 60 s", "sizes", play="tiny"),
    Fault("closure", "a function that carries 100 MB, 200 items, within 60 s", "sizes", play="closure"),
    Fault(
        "full-shm",
        "/dev/shm has 1 MB left, arrays of 1 MB in and out",
        "sizes",
        deed="send_back",
        guilty=frozenset(range(COUNT)),
        load=_bare_array,
        free_shm=1 << 20,
    ),
    Fault("few-descriptors", "the program may have 64 descriptors", "sizes", deed=None, descriptors=64),
)
BY_NAME = {fault.name: fault for fault in ALL}
