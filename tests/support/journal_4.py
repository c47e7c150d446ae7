"""The program that wrote ``tests/support/journal_4.tar.xz``, run with mpqueue at commit 165eed4, before 1.0::

    git archive 165eed4 | tar -x -C OLD; cp tests/support/journal_4.py OLD/tests/support/; cd OLD
    python -c "from tests.support import journal_4; journal_4.write('run.db')"   # ends by itself, in the middle
    python -c "from tests.support import journal_4; journal_4.finish('run.db')"
    tar -cJf journal_4.tar.xz run.db run.db.files

The journal names what is here as it was then, so the names stay.
"""

from __future__ import annotations

import os
import signal
import threading
from typing import Any

import mpqueue
from mpqueue import JobQueue
from tests.support.journal_rc1 import VALUES, show

#: Items with ids: more than a lot has, and one that is too big to be kept.
MANY: list[dict[str, Any]] = [{"id": at, "v": 0} for at in range(700)]
BIG: dict[str, Any] = {"id": "big", "v": b"x" * 300_000}
#: With this in the environment all items end well.
HEALED = "JOURNAL_4_HEALED"


def grow(item: Any) -> str:
    """The handler of an open job: each number adds another one."""
    if isinstance(item, int) and item < 3:
        mpqueue.current_item().add([item + 1])
    return show(item)


def last(item: str) -> str:
    """The second of two stages: its first item ends the program, once what has come to it is on disk."""
    if not os.environ.get(HEALED):
        threading.Event().wait(1.0)
        os.kill(os.getppid(), signal.SIGKILL)
    return f"last: {item}"


class Then:
    """Options as that version had them."""

    UPDATE: Any = {"update": True}  # noqa: RUF012
    OPEN: Any = {"open": True}  # noqa: RUF012


def write(path: str) -> None:
    """Lists, one of which has changed, an open job, a stream that came in another order, and stages."""
    with JobQueue(1, journal=path) as queue:
        queue.run(VALUES, show, id="values")
        queue.run([*MANY, BIG], show, id="many")
    with JobQueue(1, journal=path) as queue:
        changed = [{**item, "v": 1} if item["id"] % 7 == 0 else item for item in MANY[:600]]
        queue.run([{"id": "new", "v": 0}, *changed[::-1], BIG], show, id="many", **Then.UPDATE)
        job = queue.create_job("open", VALUES, grow, **Then.OPEN)
        run = queue.start(job.id)
        queue.seal(job.id)
        run.result()
    for values in VALUES, [*VALUES[::-1], "more"]:
        list(mpqueue.imap(show, values, concurrency=1, journal=path, job_id="stream"))
    with JobQueue(1, journal=path) as queue:
        queue.run_stages(range(5), [show, last], id="stages")


def finish(path: str) -> None:
    """Bring the log home, so that all is in one file."""
    with JobQueue(1, journal=path) as queue:
        print(queue.jobs())
