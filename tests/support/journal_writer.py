"""Writes a whole journal, chunk by chunk, and tells of those that are on disk.

Also a program: ``python -m tests.support.journal_writer FOLDER`` writes ``FOLDER/run.db``, with the standard library's
SQLite, and appends to ``FOLDER/told``.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from mpqueue._core.state.item_table import make_table
from mpqueue._parent.journal import journal_file as store
from mpqueue._parent.journal.chunk_rows import make_row
from mpqueue._parent.journal.items.inventory import Inventory
from mpqueue._parent.journal.journal_file import chunk_statement
from mpqueue._parent.journal.journal_writer import Entry, Journal

#: Chunks that are written, and items in each; every fifth chunk brings a big value.
CHUNKS, ITEMS = 24, 5


def result_of(index: int) -> Any:
    """What an item returned."""
    chunk, at = divmod(index, ITEMS)
    return bytes([chunk]) * 300_000 if at == 0 and chunk % 5 == 4 else index * index


def write_journal(path: Path, connect: store.Connect, tell: Callable[[str], object]) -> None:
    """``tell`` hears of each second chunk, that it, and so the one before, is on disk."""
    table = make_table(range(CHUNKS * ITEMS))
    journal = Journal(str(path), lambda: 0.0, connect)
    columns = {"id": "job", "rule": str(table.rule), "seed": "0"}
    columns |= {"created_at": "0.0", "status": "running"}
    number = Inventory(table).add(journal, columns)
    for chunk in range(CHUNKS):
        indices = range(chunk * ITEMS, (chunk + 1) * ITEMS)
        table.complete(indices, [*map(result_of, indices)])
        row = make_row(table, indices, {})
        assert row.body is not None
        files = [(file, number) for file in row.files]
        done = None if chunk % 2 == 0 else lambda chunk=chunk: tell(str(chunk))
        journal.post(Entry([chunk_statement(journal.next_chunk(), number, row)], files, done))
        if chunk % 2:
            journal.flush()
    journal.close()


def often_home(connection: Any) -> Any:
    """The log is moved home now and then, too."""
    connection.execute("PRAGMA wal_autocheckpoint=8")
    return connection


if __name__ == "__main__":
    told = os.open(Path(sys.argv[1], "told"), os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC)
    write_journal(
        Path(sys.argv[1], "run.db"),
        lambda path: often_home(store.connect(path)),
        lambda chunk: os.write(told, f"{chunk}\n".encode()),
    )
