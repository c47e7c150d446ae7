"""Which items are with workers, beside an open journal: what may have ended the program, if it ends without closing it.

A record for each of a worker's two chunks, overwritten and never synced: a program that is killed, or crashes, leaves
what it had written; a power cut, which no item has caused, leaves nothing that counts. The file goes when the journal
is closed.
"""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Sequence

from mpqueue._os.files import NO_LINKS, open_file, write_at
from mpqueue._parent.journal.guards.ownership import check_stat

#: Bytes between two records, each of which is a line, and how many slots are named in one that are no stretch: those of
#: twenty digits, at the most, have room.
RECORD, MOST = 4096, 190


class RunningMarks:
    """Written by the coordinator's thread. Never raises: what can't be marked is not suspected."""

    def __init__(self, journal: str) -> None:
        self._path = f"{journal}.running"
        #: What was running when the last program ended without closing the journal: slots, by the job's number.
        self.left: dict[int, set[int]] = _read(self._path)
        self._fd: int | None = None
        with contextlib.suppress(OSError):
            os.unlink(self._path)

    def mark(self, place: int, job: int, slots: Sequence[int]) -> None:
        """These items are sent, in this place of the file. Costs a system call."""
        if isinstance(slots, range):
            content = b'{"job":%d,"from":%d,"to":%d}\n' % (job, slots.start, slots.stop)
        else:
            content = b'{"job":%d,"of":[%s]}\n' % (job, ",".join(map(str, slots[:MOST])).encode())
        with contextlib.suppress(OSError):
            if self._fd is None:
                flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | NO_LINKS
                self._fd = open_file(self._path, flags, 0o600)
            write_at(self._fd, content, place * RECORD)

    def clear(self, place: int) -> None:
        """What was sent in this place has ended."""
        if self._fd is not None:
            with contextlib.suppress(OSError):
                write_at(self._fd, b"\n", place * RECORD)

    def close(self) -> None:
        """Nothing runs any more."""
        if self._fd is not None:
            os.close(self._fd)
            self._fd = None
        with contextlib.suppress(OSError):
            os.unlink(self._path)


def _read(path: str) -> dict[int, set[int]]:
    left: dict[int, set[int]] = {}
    try:
        with open(open_file(path, os.O_RDONLY | NO_LINKS), "rb") as file:
            check_stat(path, os.fstat(file.fileno()))
            while content := file.read(RECORD):
                with contextlib.suppress(ValueError, KeyError, TypeError):
                    found = json.loads(content.partition(b"\n")[0])
                    slots = found["of"] if "of" in found else range(found["from"], found["to"])
                    left.setdefault(found["job"], set()).update(slots)
    except OSError:
        return left
    return left
