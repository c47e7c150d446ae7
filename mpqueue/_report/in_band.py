"""Objects of a job that are copied into the pickle, unlike those whose memory is sent beside it.

A report looks at one item and one result of the job, and only if these are big: so jobs without a report are not
slowed.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Sequence
from operator import itemgetter
from typing import Any, NamedTuple

from mpqueue._core.state.item_table import Elsewhere, ItemTable
from mpqueue._wire.pickling.payload import weigh_in_band
from mpqueue.status import COMPLETED

#: Bytes from which an item or a result is looked at.
BIG = 100_000
#: The depth to which containers are looked into.
DEPTH = 4
#: The most entries of a container that are looked at.
ENTRIES = 1000
#: The part of a container's bytes from which an entry is named in its place.
MOST = 0.5
#: Types that are sent in pieces of their own, though they are part of the pickle.
_AS_THEY_ARE = (bytes, bytearray, str)

#: Advice on a replacement, by type. For other types, it is about their parts.
REMEDIES = {
    "polars": "with pyarrow imported in the program, columns of numbers and texts go as Arrow arrays",
    "pandas": "make its columns numbers, or text of pandas' Arrow types",
    "numpy": "make it an array of numbers, rather than of objects",
    "PIL": "send an image without a palette, image.convert('RGB')",
    "builtins": "put numbers into a numpy array, and text into one str",
}
USUAL = "send the arrays, tensors or bytes in it, or a path"


class InBand(NamedTuple):
    """An object with that many bytes that are copied into the pickle."""

    kind: str  #: its type, with its module
    size: int

    @property
    def name(self) -> str:
        """The usual name of its type."""
        return self.kind.removeprefix("builtins.")

    @property
    def remedy(self) -> str:
        """Advice on a replacement."""
        return REMEDIES.get(self.kind.partition(".")[0], USUAL)


def of_first(table: ItemTable, values: Sequence[Any]) -> InBand | None:
    """Look into the first completed item, or its result: ``values`` are the table's payloads, or results.

    None if it is not in memory. Runs its pickling code once or a few times.
    """
    at = table.status.find(COMPLETED)
    with contextlib.suppress(Exception):  # a user's object may run any code when it is looked at
        return None if at < 0 or type(values[at]) is Elsewhere else _in_band(values[at])
    return None


def _in_band(obj: Any, depth: int = DEPTH) -> InBand | None:
    """Find the big part of the object that is copied into the pickle; None if no part could be sent otherwise."""
    size = _size(obj)
    if size < BIG or type(obj) in _AS_THEY_ARE:
        return None
    sizes = [(_size(part), part) for part in _parts(obj)] if depth else []
    heaviest, part = max(sizes, key=itemgetter(0), default=(0, None))
    if heaviest >= MOST * size:
        return _in_band(part, depth - 1)
    return InBand(f"{type(obj).__module__}.{type(obj).__qualname__}", size)


def _size(obj: Any) -> int:
    with contextlib.suppress(Exception):  # some parts of picklable objects can't be pickled alone
        return weigh_in_band(obj)
    return 0


def _parts(obj: Any) -> Iterable[Any]:
    """Return the object's parts, as far as they are known; none if they are many."""
    if isinstance(obj, dict):
        parts: Any = obj.values()
    elif isinstance(obj, list | tuple | set | frozenset):
        parts = obj
    else:
        parts = getattr(obj, "__dict__", {}).values()
    return list(parts) if len(parts) <= ENTRIES else ()
