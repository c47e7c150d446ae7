"""The journal's writer: a thread that writes posted entries in group commits.

Posted entries are on disk at most `GROUP` seconds later, urgent ones as soon as possible, together with all entries
posted meanwhile. If writing fails, everything is kept and tried again, until there is room; a failure of less than 1 s,
for example for lack of a descriptor, is not reported.
"""

from __future__ import annotations

import itertools
import logging
import os
import queue
import sqlite3
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from mpqueue._parent.journal.checks import JournalLock, MovedError, check_local, check_one_name, check_own
from mpqueue._parent.journal.journal_file import (
    Connect,
    Store,
    connect,
    describe,
    text_to_column,
)
from mpqueue._parent.journal.journal_reader import Reader, RecordedJob
from mpqueue._parent.journal.kept_values import BigFile, Statement, prepare
from mpqueue._parent.journal.schema import damaged_line
from mpqueue._parent.journal.suspects import RunningMarks, suspect_of
from mpqueue._parent.replies import Reply
from mpqueue.errors import JournalError, QueueClosedError, shown

log = logging.getLogger("mpqueue")

#: The most seconds between two group commits, and so the work on very short items that a crash can lose.
GROUP = 0.2
#: Seconds after which failed writing is tried again; its owner is notified if it fails once more.
TRY_AGAIN = 1.0

#: Errors of SQLite for a row that it can't store, which waiting does not change.
NEVER_WRITTEN = (
    *(sqlite3.DataError, sqlite3.IntegrityError, sqlite3.ProgrammingError, sqlite3.InterfaceError),
    *(OverflowError, ValueError, TypeError),
)

T = TypeVar("T")
_numbers = itertools.count(1)


@dataclass(frozen=True, slots=True)
class Entry:
    """An entry to be written. ``done`` is called on the writer's thread once it is on disk, with True.

    An entry that SQLite refuses for ever is not in the journal, and nothing waits for it: ``done`` is called with
    False. An ``urgent`` entry does not wait for the group's time.
    """

    statements: Sequence[Statement]
    files: Sequence[tuple[BigFile, int]] = ()
    done: Callable[[bool], object] | None = None
    urgent: bool = False


@dataclass(frozen=True, slots=True)
class _Errand:
    """A task with the store, after all earlier entries are on disk."""

    do: Callable[[Store], Any]
    answer: Reply[Any]


class Journal:
    """One open journal. Any thread may call any method; its thread, and the file, end with `close`.

    Raises `JournalError` if the file can't be used.
    """

    def __init__(self, path: str, now: Callable[[], float], connect: Connect = connect) -> None:
        self.path = path
        self.reader = Reader(path)
        #: Called on the writer's thread when writing has failed for a while, and (None) when it works again.
        self.on_trouble: Callable[[JournalError | None], object] = lambda _: None
        #: After `close`: why a part of it was not written.
        self.lost: JournalError | None = None
        self._now = now
        check_own(path)
        check_one_name(path)
        check_local(path)
        self._lock = JournalLock(path)
        try:
            self._store = Store(path, connect, self._lock.left, self._lock.mark)
        except BaseException:
            self._lock.release(keep=True)
            raise
        self.running = RunningMarks(path)  #: the items that workers have now
        self._count_ends()
        self._posted: queue.SimpleQueue[Entry | _Errand | None] = queue.SimpleQueue()
        self._unwritten: list[Entry] = []
        #: Committed, but maybe to a file that has been removed; and whether they were written.
        self._unconfirmed: list[tuple[Entry, bool]] = []
        self._due: float  #: when the unwritten entries have to be written
        self._trouble: JournalError | None = None
        self._troubled_at = 0.0
        self._told = False  #: whether the trouble was reported
        self._stopping = self._has_ended = False
        self._owner = os.getpid()
        self._thread = threading.Thread(target=self._loop, name=f"mpqueue-journal-{next(_numbers)}", daemon=True)
        _open.add(self)
        self._thread.start()

    def _count_ends(self) -> None:
        """Count the items that workers had when a program ended without closing the journal, of all jobs."""
        for number in {mark.job for mark in self.running.left}:
            try:
                counts = suspect_of(self.reader.suspects(number), number, self.running.left)
                self._store.put_job(number, {"suspects": prepare(counts)})
            except (sqlite3.Error, OSError, JournalError) as error:
                log.warning("%s: what ran when its last program ended is not noted: %s", self.path, describe(error))

    def next_chunk(self) -> int:
        """Return the number of the next row of ``chunks``, see `Store.next_chunk`."""
        return self._store.next_chunk()

    def find(self, job_id: str) -> RecordedJob | None:
        """Return the job of that id. The cost does not grow with the jobs.

        Raises `JournalError` if the job's line is not as it was written.
        """
        if self._stopping:  # after that others may write it
            return self.reader.find(job_id)
        name, numbers = text_to_column(job_id), self._store.numbers
        number = numbers.get(name)
        if number is None:
            for damaged in self._store.damaged:
                raise damaged_line(self.path, damaged)  # it may be that job's line
            return None
        found = self.reader.line(number)
        if found is not None and found.id == job_id:
            return None if found.total < 0 else found
        if numbers.get(name) != number:  # it has just been removed
            return self.find(job_id)
        raise JournalError(
            f"{self.path}: expected job {job_id!r} in line {number} of its jobs, got "
            f"{'none' if found is None else shown(found.id)}; it is left as it is"
        )

    def post(self, entry: Entry) -> None:
        """Post entries to be written, after all earlier ones. Never blocks. One thread at a time."""
        self._posted.put(entry)

    @property
    def fails(self) -> bool:
        """True while writing fails, even if that has not lasted so far; any thread."""
        return self._trouble is not None

    def ask(self, do: Callable[[Store], T]) -> T:
        """Run a function with the store once all earlier entries are on disk; returns its value.

        Raises `JournalError` if that, or an earlier entry, can't be written, and `QueueClosedError` once it is closed;
        then it was not done.
        """
        return self.ask_later(do).result()

    def ask_later(self, do: Callable[[Store], T]) -> Reply[T]:
        """Like `ask`, without the wait; requests are done in the order in which they come."""
        answer = Reply[T]()
        self._posted.put(_Errand(do, answer))
        # Not `Thread.is_alive`: a Ctrl-C in it makes a thread look ended for ever.
        if self._has_ended or os.getpid() != self._owner:
            self._refuse_rest()
        return answer

    def await_asked(self) -> None:
        """Wait until all earlier requests have been done, or refused."""
        self.ask_later(lambda _: None).wait()

    def flush(self) -> None:
        """Wait until all posted entries are on disk. Raises the errors of `ask`."""
        self.ask(lambda _: None)

    def close(self, *, wait: bool = True) -> None:
        """Write the rest, close the file and free its lock. Idempotent. Without ``wait`` it only posts."""
        self._stopping = True
        self._posted.put(None)
        if wait and threading.current_thread() is not self._thread:
            self._thread.join()

    # -- the thread ------------------------------------------------------------------------------------------

    def _loop(self) -> None:
        try:
            self._serve()
            self._end()
        finally:
            self._has_ended = True
            self._refuse_rest()

    def _serve(self) -> None:
        while True:
            received = self._take(self._due - self._now() if self._waits else None)
            while isinstance(received, Entry):
                self._keep(received)
                received = self._take(0.0)
            if received is None and self._stopping:
                break
            if isinstance(received, _Errand):
                self._commit()
                self._run(received)
            elif self._waits and self._due <= self._now():
                self._commit()

    @property
    def _waits(self) -> bool:
        return bool(self._unwritten or self._unconfirmed)

    def _keep(self, entry: Entry) -> None:
        if not self._waits:
            self._due = self._now() + GROUP
        self._unwritten.append(entry)
        if entry.urgent and self._trouble is None:
            self._due = self._now()

    def _take(self, timeout: float | None) -> Entry | _Errand | None:
        try:
            return self._posted.get(timeout=None if timeout is None else max(0.0, timeout))
        except queue.Empty:
            return None

    def _commit(self) -> None:
        """Write all entries, or none and keep them."""
        try:
            self._check_in_place()
            if self._unwritten:
                self._write(self._unwritten)
                self._check_in_place()
        except Exception as error:
            self._fail(error)
            return
        entries, self._unconfirmed = self._unconfirmed, []
        if self._trouble is not None:
            self._trouble = None
            if self._told:
                self._told = False
                self.on_trouble(None)
        for entry, is_written in entries:
            if entry.done is not None:
                entry.done(is_written)

    def _write(self, entries: Sequence[Entry]) -> None:
        """Write the first unwritten entries; if one can never be written, all but that."""
        statements = [statement for entry in entries for statement in entry.statements]
        files = [file for entry in entries for file in entry.files]
        is_written = True
        try:
            self._store.write(statements, files)
        except NEVER_WRITTEN as error:
            if len(entries) > 1:
                middle = len(entries) // 2
                self._write(entries[:middle])
                self._write(entries[middle:])
                return
            log.error("%s: a row can't be written (%s: %s); its items will run again when the job is resumed",  # noqa: TRY400
                      self.path, type(error).__name__, error)  # fmt: skip
            is_written = False
        self._unconfirmed += [(entry, is_written) for entry in entries]
        self._unwritten = self._unwritten[len(entries) :]

    def _check_in_place(self) -> None:
        """Raise `MovedError` if the file or its lock was moved: writes would be lost, or other queues let in."""
        self._store.check_in_place()
        if not self._lock.is_in_place:
            raise MovedError(f"expected the lock {self.path}.lock that was made, got none or another one")

    def _fail(self, error: Exception) -> None:
        trouble = JournalError(
            f"{self.path}: {describe(error)}; what is not written is kept, and written once it can be"
        )
        trouble.__cause__ = error
        now = self._now()
        if self._trouble is None:
            self._troubled_at = now
        elif not self._told and now - self._troubled_at >= TRY_AGAIN:
            self._told = True
            self.on_trouble(trouble)
        self._trouble = trouble
        self._due = now + TRY_AGAIN

    def _run(self, errand: _Errand) -> None:
        if self._trouble is not None:
            errand.answer.set_exception(JournalError(str(self._trouble)))
            return
        try:
            value = errand.do(self._store)
            self._check_in_place()
            errand.answer.set_result(value)
        except (sqlite3.Error, OSError, UnicodeError) as error:
            refused = JournalError(f"{self.path}: {describe(error)}; nothing was changed")
            refused.__cause__ = error
            errand.answer.set_exception(refused)
        except BaseException as error:
            errand.answer.set_exception(error)

    def _end(self) -> None:
        self._commit()
        if self._waits:
            self.lost = JournalError(f"{self._trouble}. It was closed before that: those items will run again")
            log.error("%s", self.lost)
        try:
            self._store.close()
        except Exception:
            log.exception("%s: closing it failed", self.path)
        self.running.close()
        self._lock.release()
        _open.discard(self)

    def _refuse_rest(self) -> None:
        """Refuse requests that still come once the thread has ended, or as it ends. On the asking thread."""
        while True:
            try:
                left = self._posted.get_nowait()
            except queue.Empty:
                return
            if isinstance(left, _Errand):
                left.answer.set_exception(
                    QueueClosedError(
                        f"expected an open queue to use {self.path}, got one that was closed; make a new one"
                    )
                )


#: Kept, so that no fork collects a connection of its parent, which would close the file behind the parent's back.
_open: set[Journal] = set()
