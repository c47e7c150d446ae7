"""A job's items as they were passed: those of them that a journal keeps.

Small ones are kept, so that a job can be looked at, and its failed items run again, without the program that made it.
One that is big is kept when it fails for good.
"""

from __future__ import annotations

import hashlib
from array import array
from collections.abc import Iterable, Sequence
from typing import Any

from mpqueue._parent.journal.kept_values import BigFile, Kept, NotKept, Unreadable, keep, keep_small, restore
from mpqueue._parent.journal.sealed import Place, Unsealed, prepare, unseal
from mpqueue.errors import JournalError

#: Items that are pickled together.
BLOCK = 256


class Damaged(Unreadable):
    """Stands for an item whose row is damaged, or not there any more."""

    __slots__ = ()

    def __init__(self) -> None:
        super().__init__("its row in the journal is damaged")


_MISSING = Damaged()


def keep_payloads(slots: Sequence[int], payloads: list[Any]) -> tuple[list[Unsealed], list[int]]:
    """What goes into the journal of the items of these slots, and the places in the list of those that do not.

    Costs what pickling them costs. Never raises: an item that can't be pickled fails when its turn comes.
    """
    bodies: list[Unsealed] = []
    left_out: list[int] = []
    for lo in range(0, len(payloads), BLOCK):
        block, at = payloads[lo : lo + BLOCK], slots[lo : lo + BLOCK]
        named = (at[0], at[-1] + 1) if isinstance(at, range) else array("Q", at).tobytes()
        together = keep_small(block)
        if together is not None:
            bodies.append(prepare((named, tuple(together))))
            continue
        each = [keep_small(item) for item in block]
        left_out += [lo + nth for nth, one in enumerate(each) if one is None]
        bodies.append(prepare((named, [None if one is None else tuple(one) for one in each])))
    return bodies, left_out


def hash_payloads(payloads: list[Any]) -> str:
    """What version 1 knew items by."""
    digest = hashlib.blake2b(digest_size=16)
    for lo in range(0, len(payloads), BLOCK):
        block = payloads[lo : lo + BLOCK]
        if not _hash(block, digest):
            for item in block:
                _hash(item, digest)
    return digest.hexdigest()


def _hash(value: Any, digest: Any) -> bool:
    """Have the bytes of the value counted; True where it is small, and can be pickled."""
    files: list[BigFile] = []
    try:
        kept = keep(value, files)
    except Exception:
        digest.update(type(value).__name__.encode())
        return False
    for part in files[0].parts if files else (kept.by_reference or kept.by_value or b"",):
        digest.update(part)
    return not files


def read_payloads(total: int, bodies: Iterable[tuple[bytes, Place | None]], path: str) -> list[Any]:
    """The items by their slots, `NotKept` where one was left out, `Damaged` where its row is."""
    payloads: list[Any] = [_MISSING] * total
    for body, place in bodies:
        try:
            named, kept = unseal(body, place, f"{path}: the items of a job")
        except JournalError:
            continue
        slots = named_slots(named, total)
        if isinstance(kept, tuple):
            together = restore(Kept(*kept))
            values = together if isinstance(together, list) else [together] * len(slots)
        else:
            values = [NotKept() if one is None else restore(Kept(*one)) for one in kept]
        for slot, value in zip(slots, values, strict=False):
            if slot < total:  # else its maker ended before it counted
                payloads[slot] = value
    return payloads


def named_slots(named: Any, total: int) -> Sequence[int]:
    """The slots of a row, as it names them; version 1 wrote the first one only."""
    if isinstance(named, int):
        return range(named, min(named + BLOCK, total))
    if isinstance(named, tuple):
        return range(*named)
    slots = array("Q")
    slots.frombytes(named)
    return slots
