"""What the workers of `tests.support.lanes` do: they call the function that a frame names, and answer what it returns.

Nothing of a job: no items, no handlers. The functions here look at a worker from inside; others come from
`tests.support.handlers`.
"""

from __future__ import annotations

import atexit
import ctypes
import os
import pickle
import signal
import subprocess
import threading
from pathlib import Path
from typing import Any

from mpqueue._wire.line import Answer
from mpqueue._wire.memory.ledger import FLAG_JOB
from mpqueue._worker import first_steps as guard
from mpqueue._worker import station
from tests.support import handlers
from tests.support.waiting import Gate


def receive(frame: bytes) -> Answer:
    """In the place of `mpqueue._worker.main.receive`."""
    function, arguments = pickle.loads(frame)
    return Answer(pickle.dumps(function(*arguments)))


def _here() -> station.Station:
    here = station.here()
    assert here is not None
    return here


def who_am_i() -> tuple[int, int, int, int]:
    """Lane, generation, process id, process group."""
    return _here().lane, _here().generation, os.getpid(), os.getpgid(0)


def read_flags() -> tuple[int, bool, bool]:
    """The job for which the flags count; whether pause and cancel are set."""
    here = _here()
    assert here.flags is not None
    return here.ledger.words[FLAG_JOB] & (1 << 32) - 1, here.flags.pause.is_set(), here.flags.cancel.is_set()


def die_with_flag_lock() -> None:
    """Die as a worker does that is killed in the middle of reading a flag."""
    flags: Any = _here().flags
    flags.pause._cond._lock.acquire()
    handlers.kill_self(None)


def leave_in_outbox(data: bytes) -> None:
    """Leave ``data`` in the outbox and ring the bell."""
    outbox = _here().outbox
    assert outbox is not None
    outbox.leave(data)


def environment() -> dict[str, str]:
    """The worker's environment variables."""
    return dict(os.environ)


def rearm_and_hang(gate: Gate) -> None:
    """Do what a worker does before each chunk, and hang."""
    guard.rearm()
    gate.announce("hung")
    handlers.hang_python(None)


def raise_on_every_signal() -> None:
    """Take every signal that can be taken, the rare ones too."""
    for number in signal.valid_signals() - {signal.SIGKILL, signal.SIGSTOP}:
        signal.signal(number, lambda *_: None)


def leave_stray() -> int:
    """Leave a program behind that has made itself a session of its own; returns its id."""
    quiet = subprocess.DEVNULL
    command = ["sleep", str(int(handlers.FOREVER))]
    return subprocess.Popen(command, start_new_session=True, stdin=quiet, stdout=quiet, stderr=quiet).pid


def leave_unseen_fork() -> int:
    """Fork in C, where no hook of Python sees it: the child holds all pipes, and has no group or cookie of ours."""
    libc = ctypes.CDLL(None)
    pid: int = libc.fork()
    if pid == 0:
        libc.setsid()
        for fd in range(3, 64):
            try:
                os.set_inheritable(fd, True)
            except OSError:
                continue
        # Not without any environment: tests that run at the same time would take it for one of theirs in an exec.
        os.execve("/bin/sleep", ["sleep", "20"], {"LANG": "C"})
    return pid


def fork_that_claims(value: int) -> int:
    """Fork a child that writes ``value`` into each word of the ledger and ends; returns its exit code."""
    pid = os.fork()
    if pid == 0:
        try:
            for index in range(len(_here().ledger.words)):
                _here().ledger.words[index] = value
        finally:
            os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def touch_at_exit(path: Path) -> None:
    """Create the file when this worker ends by itself."""
    atexit.register(path.touch)


def thread_that_exits(code: int) -> None:
    """Leave a thread behind that takes the process with it."""
    threading.Thread(target=os._exit, args=(code,)).start()


def fail_with(error: BaseException) -> Any:
    """Raise it out of `receive`, which the real one never does."""
    raise error
