"""Items that were gone when their journal was pruned: nothing of them is known any more, and their slots stay empty.

If such an item comes back, it is treated as any new one: it gets a slot of its own.
"""

from __future__ import annotations

import pickle
from collections.abc import Callable, Sequence
from typing import Any

from mpqueue._parent.journal.items.identity import SIZE
from mpqueue._parent.journal.items.kept_payloads import named_slots
from mpqueue._parent.journal.items.matching import BLOCK, Block
from mpqueue._parent.journal.kept_values import Kept, plain_list
from mpqueue._parent.journal.sealed import Place, prepare, unseal
from mpqueue.errors import JournalError

#: The identity of a slot that has no item: no digest is that.
NOBODY = bytes(SIZE)
#: What stands for the identity of an item in a damaged row; it is no item's either.
_DAMAGED = b"\1" * SIZE

Run = Callable[..., Any]


def forget(run: Run, job: int, present: bytearray, path: str) -> int:
    """Empty the slots that are not ``present``, within the caller's transaction; returns how many were not empty.

    Raises `JournalError` for what is damaged, and what the database raises.
    """
    count = sum(
        _forget_identities(run, job, first, present, path)
        for (first,) in run("SELECT first FROM slots WHERE job = ? ORDER BY first", (job,)).fetchall()
    )
    if count:
        for (number,) in run("SELECT number FROM payloads WHERE job = ?", (job,)).fetchall():
            _forget_payloads(run, job, number, present, path)
    return count


def _forget_identities(run: Run, job: int, first: int, present: bytearray, path: str) -> int:
    """Those of one block of slots."""
    place, place_of_ids = Place("slots", job, first), Place("slots.ids", job, first)
    body, ids = run("SELECT body, ids FROM slots WHERE job = ? AND first = ?", (job, first)).fetchone()
    try:
        block = Block(*unseal(body, place, f"{path}: what the items of a job are"))
    except JournalError:
        slots = present[first : first + BLOCK]
        if any(slots):
            raise
        block, ids = Block(_DAMAGED * len(slots), None), None  # of the items, which are all gone
    gone = [
        at
        for at in range(block.size)
        if not _is_present(present, first + at) and block.identities[at * SIZE : (at + 1) * SIZE] != NOBODY
    ]
    if not gone:
        return 0
    columns = [bytearray(block.identities), None if block.keys is None else bytearray(block.keys)]
    named = None if ids is None else list(unseal(ids, place_of_ids, f"{path}: the ids of a job"))
    for at in gone:
        for column in columns:
            if column is not None:
                column[at * SIZE : (at + 1) * SIZE] = NOBODY
        if named is not None:
            named[at] = None
    identities, keys = (None if column is None else bytes(column) for column in columns)
    left_out = tuple(at for at in block.left_out if at not in gone)
    body = prepare(tuple(block._replace(identities=identities or b"", keys=keys, left_out=left_out))).seal(place)
    ids = None if named is None else prepare(named).seal(place_of_ids)
    run("UPDATE slots SET body = ?, ids = ? WHERE job = ? AND first = ?", (body, ids, job, first))
    return len(gone)


def _forget_payloads(run: Run, job: int, number: int, present: bytearray, path: str) -> None:
    """Those of one row. What was pickled together, and is not plain data, stays until all of it is gone."""
    place = Place("payloads", job, number)
    (body,) = run("SELECT body FROM payloads WHERE number = ?", (number,)).fetchone()
    try:
        named, kept = unseal(body, place, f"{path}: the items of a job")
    except JournalError:
        return  # it says nothing
    slots = named_slots(named, len(present))
    gone = [at for at, slot in enumerate(slots) if not _is_present(present, slot)]
    if not gone:
        return
    if len(gone) == len(slots):
        kept = [None] * len(slots)
    elif isinstance(kept, tuple):
        kept = _without(Kept(*kept), gone)
    else:
        kept = [None if at in gone else one for at, one in enumerate(kept)]
    if kept is not None:
        run("UPDATE payloads SET body = ? WHERE number = ?", (prepare((named, kept)).seal(place), number))


def _without(kept: Kept, gone: Sequence[int]) -> tuple[Any, ...] | None:
    values = plain_list(kept)
    if values is None:
        return None
    for at in gone:
        values[at] = None
    return tuple(Kept(pickle.dumps(values, pickle.HIGHEST_PROTOCOL)))


def _is_present(present: bytearray, slot: int) -> bool:
    """True too for a slot that does not count (yet)."""
    return slot >= len(present) or bool(present[slot])
