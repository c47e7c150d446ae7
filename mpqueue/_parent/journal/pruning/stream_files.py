"""The files of a stream's big results that are not needed any more: a row that is replaced leaves them behind."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from typing import Any

from mpqueue._parent.journal.items.streams.told import Named, read_row
from mpqueue._parent.journal.pruning.compaction import files_of


def unnamed_files(run: Callable[..., Any], job: int, path: str) -> set[str]:
    """The names of a job's files that none of its rows has. Raises `JournalError` for a row that is damaged."""
    names = {row[0] for row in run("SELECT name FROM files WHERE job = ?", (job,))}
    if names:
        for identity, nth, body in run("SELECT identity, nth, body FROM stream_items WHERE job = ?", (job,)):
            outcome = read_row(body, Named(identity, nth), job, path).outcome
            if isinstance(outcome, bytes):
                names -= files_of(pickle.loads(outcome))
    return names
