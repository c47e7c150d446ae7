"""A job's items as they were passed: their hash, and those of them that a journal keeps.

Small ones are kept, so that a job can be looked at, and its failed items run again, without the program that made it.
One that is big is kept when it fails for good.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from mpqueue._parent.journal.kept_values import BigFile, Kept, NotKept, keep, restore
from mpqueue._parent.journal.sealed import Place, Unsealed, prepare, unseal
from mpqueue.errors import JournalError

#: Items that are pickled together.
BLOCK = 256


@dataclass(frozen=True, slots=True)
class KeptPayloads:
    """What goes into the journal, and the items that do not, by their places."""

    hash: str
    bodies: list[Unsealed]
    left_out: frozenset[int]


def keep_payloads(payloads: list[Any]) -> KeptPayloads:
    """Costs what pickling all items costs. Never raises: an item that can't be pickled fails when its turn comes."""
    digest, bodies = hashlib.blake2b(digest_size=16), []
    left_out: set[int] = set()
    for lo in range(0, len(payloads), BLOCK):
        block = payloads[lo : lo + BLOCK]
        together = _kept(block, digest)
        if together is not None:
            bodies.append(prepare((lo, tuple(together))))
            continue
        each = [_kept(item, digest) for item in block]
        left_out.update(lo + at for at, one in enumerate(each) if one is None)
        bodies.append(prepare((lo, [None if one is None else tuple(one) for one in each])))
    return KeptPayloads(digest.hexdigest(), bodies, frozenset(left_out))


def _kept(value: Any, digest: Any) -> Kept | None:
    """The value, where it is small enough and can be pickled; its bytes count for the hash in any case."""
    files: list[BigFile] = []
    try:
        kept = keep(value, files)
    except Exception:
        digest.update(type(value).__name__.encode())
        return None
    for part in files[0].parts if files else (kept.by_reference or kept.by_value or b"",):
        digest.update(part)
    return None if files else kept


def read_payloads(total: int, bodies: Iterable[tuple[bytes, Place | None]], path: str) -> list[Any]:
    """The items, `NotKept` where one was left out. Raises `JournalError` for what is damaged."""
    payloads: list[Any] = []
    for body, place in bodies:
        lo, kept = unseal(body, place, f"{path}: the items of a job")
        if lo != len(payloads):
            break
        if isinstance(kept, tuple):
            together = restore(Kept(*kept), _no_file)
            values = together if isinstance(together, list) else [together] * min(BLOCK, total - lo)
        else:
            values = [NotKept() if one is None else restore(Kept(*one), _no_file) for one in kept]
        payloads += values
    if len(payloads) != total:  # of each there is something, if only that it was not kept
        raise JournalError(f"{path}: expected {total} items, got {len(payloads)}; it is left as it is")
    return payloads


def _no_file(name: str) -> bytes:
    raise FileNotFoundError(name)
