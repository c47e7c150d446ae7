"""Writes a whole journal, chunk by chunk, and tells of those that are on disk: what was announced is.

Also a program: ``python -m tests.support.journal_writer KIND FOLDER`` writes ``FOLDER/run.db``, and appends to
``FOLDER/told``. The log is moved home now and then, too.
"""

from __future__ import annotations

import contextlib
import importlib
import os
import queue
import sqlite3
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import mpqueue
from mpqueue.testing import InlinePool

#: Chunks that are written, and items in each; every fifth chunk brings a big value.
CHUNKS, ITEMS = 16, 5
#: What the job can be.
KINDS = ("list", "open", "stream")

#: One for each second chunk that was told, which the next one waits for.
_told = queue.SimpleQueue[int]()


def result_of(index: int) -> Any:
    """What an item returned."""
    chunk, at = divmod(index, ITEMS)
    return bytes([chunk]) * 300_000 if at == 0 and chunk % 5 == 4 else index * index


def work(index: int) -> Any:
    """Run in this process; each second chunk waits until the one before it was told.

    It waits for 5 s at most: on a slow machine the one before is cut short, and some of it comes in the same chunk.
    """
    if index % (2 * ITEMS) == 0 and index:
        with contextlib.suppress(queue.Empty):
            _told.get(timeout=5)
    return result_of(index)


def write_journal(kind: str, path: Path, tell: Callable[[str], object]) -> None:
    """``tell`` hears of each second chunk, that it, and so the one before, is on disk."""
    ended = Counter[int]()
    for index in _announced(kind, path):
        pair = index // (2 * ITEMS)
        ended[pair] += 1
        if ended[pair] == 2 * ITEMS:
            tell(str(2 * pair + 1))
            _told.put(pair)


def _announced(kind: str, path: Path) -> Iterator[int]:
    """The items, as their ends are announced."""
    items = range(CHUNKS * ITEMS)
    if kind == "stream":
        call: Any = mpqueue.imap
        results = call(work, items, journal=path, job_id="job", concurrency=1, chunksize=ITEMS, backend=InlinePool())
        yield from (index for index, _ in enumerate(results))
        return
    made: Any
    with mpqueue.JobQueue(1, journal=path, backend=InlinePool()) as made:
        is_open = kind == "open"
        create = made.open_job if is_open else made.create_job
        create("job", items[: 4 * ITEMS] if is_open else items, work, chunksize=ITEMS)
        run = made.start("job")
        if is_open:
            for lo in range(4 * ITEMS, len(items), 2 * ITEMS):
                made.add_items("job", items[lo : lo + 2 * ITEMS])
            made.seal("job")
        yield from (item.payload for item in run.as_completed())


def main(kind: str, folder: Path) -> None:
    """See the head of this file."""
    told = os.open(folder / "told", os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC)
    connect: Any = sqlite3.connect

    def often_home(*arguments: Any, **named: Any) -> Any:
        connection = connect(*arguments, **named)
        connection.execute("PRAGMA wal_autocheckpoint=12")  # not after each commit, also of several chunks
        return connection

    sqlite3.connect = often_home
    write_journal(kind, folder / "run.db", lambda chunk: os.write(told, f"{chunk}\n".encode()))


if __name__ == "__main__":
    importlib.import_module("tests.support.journal_writer").main(sys.argv[1], Path(sys.argv[2]))  # not `__main__`'s
