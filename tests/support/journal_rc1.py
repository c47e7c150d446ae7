"""The program that wrote ``tests/support/journal_rc1.tar.xz``, run with mpqueue 1.0.0rc1 (at commit a861ae5)::

    git archive a861ae5 | tar -x -C OLD; cp tests/support/journal_rc1.py OLD/tests/support/; cd OLD
    python -c "from tests.support import journal_rc1; journal_rc1.write('run.db')"
    tar -cJf journal_rc1.tar.xz run.db

The journal names what is here as it was then, so the names stay.
"""

from __future__ import annotations

import datetime as dt
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any
from zoneinfo import ZoneInfo

import mpqueue
from mpqueue import JobQueue


@dataclass(frozen=True)
class Point:
    """An item of a class of one's own."""

    x: int
    y: tuple[str, ...] = ()


#: Items without ids.
VALUES: list[Any] = [
    1, "two", 3.0, None, b"5", (6, [7, {"k": {8}}]), PurePosixPath("a/b"), Point(1, ("a",)),
    {"at": dt.date(2024, 1, 1)}, frozenset({"x", "y"}), dt.datetime(2024, 1, 1, tzinfo=dt.UTC),
]  # fmt: skip
#: Items with ids; of the second, rc1 did not know what it is.
NAMED = [
    {"id": "plain", "price": 1},
    {"id": "in a zone", "price": 2, "at": dt.datetime(2024, 1, 1, tzinfo=ZoneInfo("Europe/Berlin"))},
]


#: An option as that version had it.
OF_THEN: Any = {"open": True}


def show(item: Any) -> str:
    """The handler."""
    return f"rc1: {type(item).__name__}"


def write(path: str) -> None:
    """A job with a list of each kind, a stream and an open job."""
    with JobQueue(1, journal=path) as queue:
        queue.run(VALUES, show, id="values")
        queue.run(NAMED, show, id="named")
        job = queue.create_job("open", VALUES, show, **OF_THEN)
        run = queue.start(job.id)
        queue.seal(job.id)
        run.result()
    list(mpqueue.imap(show, VALUES, concurrency=1, journal=path, job_id="stream"))
