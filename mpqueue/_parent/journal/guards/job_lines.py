"""A job's line in ``jobs``, with one checksum over all that it says: ``seal``.

The database makes it itself, whatever statement has written the line, see `seal_lines`; and it refuses to change a line
that is not as it was written, so that no damage is sealed. Readers compare it, see `is_whole`.
"""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from typing import Any

from mpqueue.errors import JournalError, shown

#: What a line says, in this order.
COLUMNS = (
    *("number", "id", "total", "rule", "payload_hash", "code_hash", "seed", "created_at", "status", "started_at"),
    *("finished_at", "duration", "completed", "failed", "retries", "version", "python", "slots", "handler_name"),
    *("generation", "is_open", "cpu", "ran"),
)
#: Bodies, which are sealed by themselves: the line says only which of them are there.
BODIES = ("ids", "handler", "suspects", "places", "codes")
#: All that ``seal`` covers, for a SELECT.
SAID = ", ".join((*COLUMNS, *(f"{name} IS NULL" for name in BODIES)))
#: How many values that is.
COUNT = len(COLUMNS) + len(BODIES)

_RESEAL = f"UPDATE jobs SET seal = mpqueue_seal({SAID}) WHERE number = NEW.number"  # noqa: S608
_CHECK = f"""SELECT RAISE(ABORT, 'the line of a job is damaged') FROM jobs
WHERE number = OLD.number AND seal IS NOT mpqueue_seal({SAID})"""  # noqa: S608
_CHANGED = f"UPDATE OF {', '.join(COLUMNS + BODIES)} ON main.jobs"
_TRIGGERS = (
    f"CREATE TEMP TRIGGER seal_new AFTER INSERT ON main.jobs BEGIN {_RESEAL}; END",
    f"CREATE TEMP TRIGGER check_changed BEFORE {_CHANGED} BEGIN {_CHECK}; END",
    f"CREATE TEMP TRIGGER seal_changed AFTER {_CHANGED} BEGIN {_RESEAL}; END",
)


def seal_lines(connection: Any) -> None:
    """From now on each line that is written through this connection is sealed. Costs 20 us for a change of a line."""
    connection.create_function("mpqueue_seal", COUNT, lambda *said: seal_of(said), deterministic=True)
    for statement in _TRIGGERS:
        connection.execute(statement)


def seal_of(said: Sequence[Any]) -> int:
    """The checksum of what a line says."""
    return zlib.crc32(repr(tuple(said)).encode())


def is_whole(said: Sequence[Any], seal: Any) -> bool:
    """True for a line that is as it was written."""
    return type(seal) is int and seal == seal_of(said)


def damaged_line(path: str, number: object) -> JournalError:
    """What is said of another one."""
    return JournalError(
        f"{path}: expected line {shown(number)} of its jobs as it was written, got something damaged; it is left as it "
        "is: put a copy back, or use another file"
    )
