"""What goes wrong in the workers. Importable, so that every pool can send it by name; imports nothing of weight.

An item is a `Task`; `work` does it. Its deed is the name of a function in this module, called with the task; a task
without one takes 50 ms and ends well. Each try leaves a mark, a file in the task's folder, by which the parent sees
what runs where.
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys
import threading
import time
import uuid

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, NoReturn

#: Seconds; longer than anybody waits, and still an end for what nobody found.
FOREVER = 600.0


class Task:
    """One item: its number, what goes wrong with it (None: nothing), the folder of marks, what else it carries."""

    def __init__(self, number: int, deed: str | None, folder: str, load: Any = None) -> None:
        self.number = number
        self.deed = deed
        self.folder = folder
        self.load = load


def work(task: Task) -> Any:
    """Do the task; its number is the result, unless the deed has another one."""
    mark(task, "try")
    result = None
    if task.deed is None:
        time.sleep(0.05)
    else:
        result = globals()[task.deed](task)
    mark(task, "end")
    return task.number if result is None else result


def echo(number: int) -> int:
    """The no-op: whether anybody is still at work."""
    return number


def doze(number: int) -> int:
    """Five milliseconds of doing nothing."""
    time.sleep(0.005)
    return number


def tell_pid(number: int) -> tuple[int, int]:
    """Take long enough for every worker to get one, and say who did it."""
    time.sleep(0.1)
    return number, os.getpid()


def mark(task: Task, what: str) -> None:
    """Leave a file that says so: what, which number, which process."""
    path = os.path.join(task.folder, f"{what}-{task.number}-{os.getpid()}-{uuid.uuid4().hex[:6]}")
    os.close(os.open(path, os.O_CREAT, 0o600))


def tries(task: Task) -> int:
    """How often the task has begun, this time included."""
    return sum(name.startswith(f"try-{task.number}-") for name in os.listdir(task.folder))


# -- that raise ------------------------------------------------------------------------------------------------------


class TwoArgumentError(Exception):
    """Pickles, and can't be unpickled: `Exception` gives only one argument back."""

    def __init__(self, name: str, reason: str) -> None:
        super().__init__(f"{name}: {reason}")


class LockHolderError(Exception):
    """Can't be pickled."""

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.lock = threading.Lock()


class TextlessError(Exception):
    """Its text can't be had."""

    def __str__(self) -> str:
        raise RuntimeError("no text")


class BrokenWhenUnpickledError(Exception):
    """Raises where it is unpickled."""

    def __reduce__(self) -> Any:
        return refuse, ("this error refuses to be unpickled",)


def refuse(text: str) -> NoReturn:
    """Raise."""
    raise RuntimeError(text)


def raise_error(task: Task) -> NoReturn:
    raise ValueError(f"cannot do {task.number}")


def raise_two_arguments(task: Task) -> NoReturn:
    raise TwoArgumentError(f"item {task.number}", "two arguments")


def raise_lock_holder(task: Task) -> NoReturn:
    raise LockHolderError(f"item {task.number} holds a lock")


def raise_local(task: Task) -> NoReturn:
    class LocalError(Exception):
        pass

    raise LocalError(f"item {task.number}")


def raise_textless(task: Task) -> NoReturn:  # noqa: ARG001
    raise TextlessError


def raise_ununpicklable(task: Task) -> NoReturn:  # noqa: ARG001
    raise BrokenWhenUnpickledError("no way home")


def raise_interrupt(task: Task) -> NoReturn:
    raise KeyboardInterrupt(f"item {task.number}")


def call_sys_exit(task: Task) -> NoReturn:  # noqa: ARG001
    sys.exit(3)


# -- arguments and results -------------------------------------------------------------------------------------------


class Unpicklable:
    """Raises where it is pickled."""

    def __reduce__(self) -> NoReturn:
        raise RuntimeError("this object refuses to be pickled")


class Ununpicklable:
    """Raises where it is unpickled."""

    def __reduce__(self) -> Any:
        return refuse, ("this object refuses to be unpickled",)


class KillsWhereUnpickled:
    """Ends the process that unpickles it."""

    def __reduce__(self) -> Any:
        return os._exit, (5,)


def return_lock(task: Task) -> Any:  # noqa: ARG001
    return threading.Lock()


def return_ununpicklable(task: Task) -> Any:  # noqa: ARG001
    return Ununpicklable()


class Carrier:
    """A function that carries something which can't be pickled."""

    def __init__(self) -> None:
        self.lock = threading.Lock()

    def __call__(self, task: Task) -> Any:
        """Do the task."""
        return work(task)


def look_up(table: Any, number: int) -> int:
    """The number again, out of a table that says so."""
    return int(table[number])


def send_back(task: Task) -> Any:
    """The number and an array as large as the one that came."""
    return task.number, task.load * 2


# -- workers that die ------------------------------------------------------------------------------------------------


def exit_at_once(task: Task) -> None:  # noqa: ARG001
    os._exit(7)


def segfault(task: Task) -> None:  # noqa: ARG001
    ctypes.string_at(0)


def wait_to_be_killed(task: Task) -> None:
    """Wait for a signal from outside; a second try ends well."""
    if tries(task) == 1:
        mark(task, "victim")
        time.sleep(FOREVER)


def die_while_writing(task: Task) -> Any:
    """Return 100 MB, and die soon afterwards: sooner for lower numbers."""
    delay = 0.03 + 0.04 * task.number

    def die() -> None:
        time.sleep(delay)
        os.kill(os.getpid(), signal.SIGKILL)

    threading.Thread(target=die, daemon=True).start()
    return task.number, os.urandom(1 << 20) * 100


def close_descriptors(task: Task) -> None:  # noqa: ARG001
    os.closerange(3, 1 << 10)


def take_memory(task: Task) -> None:  # noqa: ARG001
    """Take memory until there is no more: 300 MB later, by a limit on this process."""
    import resource

    with open("/proc/self/statm") as file:
        pages = int(file.read().split()[0])
    limit = pages * resource.getpagesize() + 300 * (1 << 20)
    resource.setrlimit(resource.RLIMIT_AS, (limit, resource.getrlimit(resource.RLIMIT_AS)[1]))
    held = []
    while True:
        held.append(bytearray(1 << 24))


# -- that hang -------------------------------------------------------------------------------------------------------


def hang(task: Task) -> None:  # noqa: ARG001
    time.sleep(FOREVER)


def hang_in_c(task: Task) -> None:  # noqa: ARG001
    """Never come back from C code that holds the global lock."""
    import re

    re.match(r"(a+)+$", "a" * 64 + "b")


def hang_deaf(task: Task) -> None:  # noqa: ARG001
    """Hang with SIGTERM ignored; set in C, as this need not be the main thread."""
    ctypes.CDLL(None).signal(int(signal.SIGTERM), ctypes.c_void_p(1))
    time.sleep(FOREVER)


def freeze(task: Task) -> None:  # noqa: ARG001
    """Stop the whole process, as a debugger or a paused container does."""
    os.kill(os.getpid(), signal.SIGSTOP)


# -- that leave something --------------------------------------------------------------------------------------------


def leave_thread(task: Task) -> None:  # noqa: ARG001
    threading.Thread(target=time.sleep, args=(FOREVER,)).start()


def leave_child(task: Task) -> None:  # noqa: ARG001
    import subprocess

    subprocess.Popen(["sleep", str(FOREVER)])


# -- initializers ----------------------------------------------------------------------------------------------------


class Initializer:
    """Called once in each worker: counts itself, then goes wrong."""

    def __init__(self, folder: str, *, deadly: bool = False) -> None:
        self.folder = folder
        self.deadly = deadly

    def __call__(self) -> None:
        """Leave a mark, and go wrong."""
        mark(Task(0, None, self.folder), "start")
        if self.deadly:
            os._exit(9)
        raise RuntimeError("no licence for this machine")
