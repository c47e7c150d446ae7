"""Journals on a live page: their jobs can be viewed. Nothing runs, and nothing is written.

A journal may be written by another process meanwhile. Each look uses its own read-only connection, and holds no lock
that a writer would wait for; a file is read only if it has changed.
"""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Sequence

from mpqueue._core.state.item_table import ItemTable
from mpqueue._live_page.served import Served, ShownJob
from mpqueue._parent.inbox import SystemClock
from mpqueue._parent.journal.checks import own_path
from mpqueue._parent.journal.journal_reader import Reader, RecordedJob
from mpqueue._queue.recorded.past_job import PastJob, recorded_timings
from mpqueue.errors import JournalError

log = logging.getLogger("mpqueue")

#: Seconds between two looks at a file.
LOOK_SECONDS = 1.0


class ShownRecord(PastJob):
    """A job as its journal had it at the last look. Satisfies `_live_page.served.ShownJob`."""

    def __init__(self, reader: Reader, recorded: RecordedJob, number: int, name: str, now: float) -> None:
        """Take the record. ``now``: seconds since the epoch if a process runs the job, else 0."""
        self._shown_as = number, name
        self.take(reader, recorded, now)

    def take(self, reader: Reader, recorded: RecordedJob, now: float) -> None:
        """Take the journal's current record; items are read again on their next use."""
        super().__init__(reader, recorded)
        self._items = PastJob(reader, recorded)  # a new object: a thread may be reading those of the last look
        self.epoch += 1  # set last: data read once this is seen is not older
        self.number, self.id = self._shown_as
        self.line, self.is_live = recorded, bool(now)
        if now:
            self.status = recorded.status
        if now and self.duration is None and self.started_at is not None:
            self.duration = max(0.0, now - self.started_at)
        self.timings = recorded_timings(self.duration, recorded)

    @property
    def table(self) -> ItemTable:
        """The items, see `PastJob`."""
        return self._items.table


class JournalView(Served):
    """The jobs of some journals, in the order of the files.

    Raises `JournalError` if one can't be read at first. Later it shows its last data, and warns once.
    """

    def __init__(self, paths: Sequence[str]) -> None:
        self._readers = [Reader(own_path(path)) for path in paths]
        super().__init__(SystemClock())
        self._lock = threading.Lock()
        self._numbers: dict[tuple[str, int], int] = {}
        self._shown: dict[int, ShownRecord] = {}
        self._states: dict[str, object] = {}  #: of the files, and whether a process writes them
        self._complaint = ""
        self._looked_at = self.now()
        self._books: list[ShownJob] = []
        self._look()

    def books(self) -> Sequence[ShownJob]:
        """Return the jobs, after a look at the files if the last was `LOOK_SECONDS` ago."""
        with self._lock:
            if self.now() >= self._looked_at + LOOK_SECONDS:
                self._looked_at = self.now()
                try:
                    self._look()
                except JournalError as error:
                    if str(error) != self._complaint:
                        self._complaint = str(error)
                        log.warning("%s; the page shows what was there before", error)
            return self._books

    def _look(self) -> None:
        """Look at the files that have changed."""
        changed = False
        for reader in self._readers:
            before = self._states.get(reader.path)
            in_use = reader.in_use
            state = (*reader.state(), in_use)
            if state == before:
                continue
            jobs = reader.jobs()
            self._states[reader.path] = state
            changed = self._take(reader, jobs, in_use=in_use) or changed
        if changed:
            self._books = [*self._shown.values()]

    def _take(self, reader: Reader, jobs: Sequence[RecordedJob], *, in_use: bool) -> bool:
        """Take a journal's current records; return True if its jobs are others."""
        changed, numbers = False, set[int]()
        for line in jobs:
            number = self._numbers.setdefault((reader.path, line.number), len(self._numbers) + 1)
            numbers.add(number)
            known, is_live = self._shown.get(number), in_use and not line.status.final
            if known is not None and known.line == line and known.is_live == is_live:
                continue
            now = self.wall() if is_live else 0.0
            if known is not None:
                known.take(reader, line, now)
                continue
            name = line.id if len(self._readers) == 1 else f"{line.id} ({os.path.basename(reader.path)})"
            self._shown[number] = ShownRecord(reader, line, number, name, now)
            changed = True
        own = {number for (path, _), number in self._numbers.items() if path == reader.path}
        for number in (own - numbers) & self._shown.keys():
            del self._shown[number]
            changed = True
        return changed
