"""The program that wrote ``tests/support/journal_0_1.tar.xz``, run with mpqueue 0.1 (at commit 96ff49a)::

    git archive 96ff49a | tar -x -C OLD; cp tests/support/journal_0_1.py OLD/tests/support/; cd OLD
    python -c "from tests.support import journal_0_1; journal_0_1.write('run.db')"   # ends by itself, in the middle
    python -c "from tests.support import journal_0_1; journal_0_1.finish('run.db')"
    tar -cJf journal_0_1.tar.xz run.db run.db.files

The journal names the functions and classes here and in mpqueue as they were then, so their names stay.
"""

from __future__ import annotations

import os
import signal
import threading
from dataclasses import dataclass
from typing import Any

import mpqueue
from mpqueue import GiveUp, JobQueue, RetryPolicy

#: What the items of the job "measures" are.
KINDS = [
    "plain", "big", "policy", "fails", "gives up", "crashes", "hangs", "unpicklable", "can't be raised", "at last",
]  # fmt: skip
#: With this in the environment all of them end well.
HEALED = "JOURNAL_0_1_HEALED"


@dataclass
class Measure:
    """An item and a result of a class of one's own, with a retry policy in it."""

    kind: str
    retry: RetryPolicy


class OddError(Exception):
    """Can't be pickled whole: it takes more arguments than it shows."""

    def __init__(self, number: int, text: str) -> None:
        super().__init__(f"{number} {text}")


def measure(item: dict[str, Any]) -> Any:
    """The handler."""
    kind = item["kind"]
    if kind == "big":
        return b"x" * 300_000
    if kind == "policy":
        return Measure(kind, item["retry"])
    if kind == "at last" and mpqueue.current_item().attempt == 1:
        raise ValueError("not yet")
    if kind in ("plain", "at last") or os.environ.get(HEALED):
        return {"kind": kind}
    return _fail(kind)


def _fail(kind: str) -> Any:
    if kind == "gives up":
        raise GiveUp("no use")
    if kind == "crashes":
        os.kill(os.getpid(), signal.SIGSEGV)
    if kind == "hangs":
        while True:
            signal.pause()
    if kind == "unpicklable":
        return threading.Lock()
    if kind == "can't be raised":
        raise OddError(3, "arguments")
    raise ValueError(kind)


def double(item: int) -> int:
    """The handler of the job that was interrupted: the fifth item ends the program, once the others are on disk."""
    if item == 5 and not os.environ.get(HEALED):
        threading.Event().wait(1.0)
        os.kill(os.getppid(), signal.SIGKILL)
    return 2 * item


def refuse() -> None:
    """A setup that fails."""
    raise OSError("no model")


def with_state(item: int, _: None) -> int:
    """A handler with a setup."""
    return item


def write(path: str) -> None:
    """Three jobs that end, and one in the middle of which the program does."""
    retry = RetryPolicy(max_retries=1, base_delay=0.01)
    with JobQueue(2, journal=path, retry=retry) as queue:
        items = [{"id": kind, "kind": kind, "retry": retry} for kind in KINDS]
        queue.run(items, measure, id="measures", timeout=2.0)
        queue.run([1, 2], with_state, id="no setup", setup=refuse)
        queue.run(range(10), double, id="interrupted", chunksize=1)


def finish(path: str) -> None:
    """Bring the log home, so that all is in one file."""
    with JobQueue(1, journal=path) as queue:
        print(queue.jobs())
