"""Items that may have ended their program: those that workers had then, the suspicion, and its consequences.

A file beside an open journal has the items that workers have. It has a record for each of a worker's two chunks,
overwritten and never synced: a program that is killed, or crashes, leaves its records; a power cut, which no item has
caused, leaves nothing that counts. The file is removed when the journal is closed. Each record is a line with a
checksum: other lines are ignored.

Usually no item is at fault if a program ended without closing its journal: it was killed. So its end counts against an
item only if workers had no other item. Items beside others are suspected: they run in chunks of their own, and, if that
happened `BESIDE` times, while nothing else runs. From then on each end while one runs alone counts.

The degree is one number: up to `BESIDE` the ends beside others, above that the ends that count.
"""

from __future__ import annotations

import contextlib
import json
import os
import zlib
from collections.abc import Collection, Sequence
from typing import NamedTuple

from mpqueue._core.state.item_table import Failure
from mpqueue._core.state.pending import Care
from mpqueue._os.files import NO_LINKS, open_file, write_at
from mpqueue._parent.journal.checks import check_stat
from mpqueue.errors import WorkerCrashedError

# -- running marks -----------------------------------------------------------------------------------------------------

#: Bytes between two records, each of which is a line; and the most slots that one names if they are no stretch: 190 of
#: at most twenty digits have room.
RECORD, MOST = 4096, 190


class RunningMark(NamedTuple):
    """Items that a worker had when a program ended. ``alone``: it is a single one, and no worker had any other."""

    job: int
    slots: Collection[int]
    alone: bool


class RunningMarks:
    """The marks of the items that workers have. Written by the coordinator's thread.

    Never raises: items that can't be marked are not suspected.
    """

    def __init__(self, journal: str) -> None:
        self._path = f"{journal}.running"
        #: The marks from the last program, if it ended without closing the journal.
        self.left = read_marks(journal)
        self._fd: int | None = None
        self._alone: tuple[int, bytes] | None = None  #: the place of an item with nothing beside it, and its mark
        with contextlib.suppress(OSError):
            os.unlink(self._path)

    def mark(self, place: int, job: int, slots: Sequence[int], *, alone: bool) -> None:
        """Mark items that are sent, in this place of the file. Costs a system call."""
        self.mark_beside()
        if isinstance(slots, range):
            content = b'"job":%d,"from":%d,"to":%d}' % (job, slots.start, slots.stop)
        else:
            content = b'"job":%d,"of":[%s]}' % (job, ",".join(map(str, slots[:MOST])).encode())
        if alone:
            self._alone = place, content
        self._write(place, b"%b%b" % (b'{"alone":1,' if alone else b"{", content))

    def mark_beside(self) -> None:
        """Note that other items are sent, marked or not: no item is alone any more."""
        if self._alone is not None:
            place, content = self._alone
            self._alone = None
            self._write(place, b"{%b" % content)

    def clear(self, place: int) -> None:
        """Clear this place: the items sent in it have ended."""
        if self._alone is not None and self._alone[0] == place:
            self._alone = None
        if self._fd is not None:
            self._write(place, b"")

    def _write(self, place: int, content: bytes) -> None:
        with contextlib.suppress(OSError):
            if self._fd is None:
                flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | NO_LINKS
                self._fd = open_file(self._path, flags, 0o600)
            write_at(self._fd, b"%08x%b\n" % (zlib.crc32(content), content), place * RECORD)

    def close(self) -> None:
        """Remove the file: no items run any more."""
        if self._fd is not None:
            os.close(self._fd)
            self._fd = None
        with contextlib.suppress(OSError):
            os.unlink(self._path)


def read_marks(journal: str) -> list[RunningMark]:
    """Return the marks of the items that workers have, or had when the last program left the journal open."""
    left: list[RunningMark] = []
    path = f"{journal}.running"
    try:
        with open(open_file(path, os.O_RDONLY | NO_LINKS), "rb") as file:
            check_stat(path, os.fstat(file.fileno()))
            while record := file.read(RECORD):
                check, content = record[:8], record[8:].partition(b"\n")[0]
                if content and check == b"%08x" % zlib.crc32(content):
                    found = json.loads(content)
                    slots = found["of"] if "of" in found else range(found["from"], found["to"])
                    left.append(RunningMark(found["job"], slots, "alone" in found))
    except OSError:
        return left
    return left


# -- suspects ----------------------------------------------------------------------------------------------------------

#: Ends beside other items after which an item runs with nothing beside it.
BESIDE = 2
#: The least ends that count after which an item has failed; otherwise as many as it has tries.
LEAST_ENDS = 3


def suspect(counts: dict[int, int], mark: RunningMark) -> None:
    """Count the suspicion of items that workers had when a program ended."""
    for slot in mark.slots:
        before = counts.get(slot, 0)
        counts[slot] = max(before, BESIDE) + 1 if mark.alone else max(before, min(before + 1, BESIDE))


def suspect_of(counts: dict[int, int], job: int, marks: Collection[RunningMark]) -> dict[int, int]:
    """Update and return the counts of a job, after a program ended while workers had these marked items."""
    for mark in ends_that_tell(marks):
        if mark.job == job:
            suspect(counts, mark)
    return counts


def is_guilty(count: int, max_retries: int) -> bool:
    """True for an item that has failed, since it ends its program."""
    return count - BESIDE >= max(LEAST_ENDS, max_retries + 1)


def care_of(count: int) -> Care:
    """Return how an item with that count of suspicions is handled."""
    return Care.APART if count >= BESIDE else Care.ALONE


def ended_program(count: int) -> Failure:
    """Return the failure of an item that ends its program."""
    text = f"the program ended {count - BESIDE} times while this item ran alone, and did not close its journal"
    return Failure(WorkerCrashedError(text), text=text)


def ends_that_tell(marks: Collection[RunningMark]) -> Collection[RunningMark]:
    """Return the marks that count: if an item was alone, only its own, since those beside it had ended before."""
    return [mark for mark in marks if mark.alone] or marks
