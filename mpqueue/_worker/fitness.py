"""A check that this process can still do a worker's work, whatever the handlers have done to it.

A handler may lower the recursion limit, take the memory, or put something else in the place of pickle. Then the results
of other items can't be pickled either, and the worker has to be replaced rather than to fail them.
"""

from __future__ import annotations

import mmap

from mpqueue._wire.pickling.payload import dump, dump_by_value

#: Bytes of memory that a worker has to get.
_ROOM = 16 << 20
#: How deep data may be nested at least.
_DEPTH = 100


class _Probe:
    """An object of a class that can be imported."""


def can_pack() -> bool:
    """True where ordinary results can be pickled. Costs 0.1 ms."""
    nested: list[object] = [_Probe()]
    for _ in range(_DEPTH):
        nested = [nested]
    try:
        mmap.mmap(-1, _ROOM).close()
        data, _ = dump_by_value(lambda: None)
        return type(dump(nested).data) is bytes and type(data) is bytes
    except BaseException:
        return False
