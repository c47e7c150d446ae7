"""How often a payload is copied on its way: the bytes that pickling and loading take, per byte of it.

The segment itself is one copy, which the reader maps. What has its data in memory of its own (bytes, texts) is copied
once more there; arrays are views of the segment.
"""

from __future__ import annotations

import array
import gc
import io
import tracemalloc
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from mpqueue._wire.memory.segments import SegmentStore
from mpqueue._wire.pickling.payload import Packed, dump, load
from tests.support.this_system import IS_LINUX

#: Bytes of each payload.
SIZE = 2_000_000
#: What headers, and copies in small pieces, take at most, as a part of the payload.
SMALL = 0.2

NUMBERS = np.arange(SIZE // 8)
#: Each kind, with the copies on the heap of the one that sends it, and of the one that gets it.
KINDS: dict[str, tuple[Any, int, int]] = {
    "bytes": (b"x" * SIZE, 0, 1),
    "bytearray": (bytearray(SIZE), 0, 1),
    "text": ("x" * SIZE, 1, 1),
    "a file in memory": (io.BytesIO(b"x" * SIZE), 0, 1),
    "array.array": (array.array("d", bytes(SIZE)), 0, 1),
    "an array": (NUMBERS, 0, 0),
    "an array in columns": (np.asfortranarray(NUMBERS.reshape(100, -1)), 0, 0),
    "every second number of an array": (np.arange(SIZE // 4)[::2], 0, 0),
    "several arrays": ({"a": NUMBERS[::-1].copy(), "b": [NUMBERS]}, 0, 0),
}


def _counted(call: Callable[[], Any]) -> tuple[Any, int]:
    """The value of a call, and the most bytes that it had on the heap at a time."""
    gc.collect()
    tracemalloc.start()
    try:
        return call(), tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


@pytest.mark.skipif(not IS_LINUX, reason="elsewhere, segments are files or data in a pipe")
@pytest.mark.parametrize("kind", KINDS)
def test_a_payload_is_copied_no_more_often_than_its_kind_needs(kind: str) -> None:
    obj, most_out, most_in = KINDS[kind]
    store = SegmentStore()
    load(dump(obj, store))  # imports, and what is kept of types
    packed, out = _counted(lambda: dump(obj, store))
    assert isinstance(packed, Packed)
    assert packed.segment is not None
    assert len(packed.data) < SMALL * packed.size
    _, came = _counted(lambda: load(packed))
    assert out <= (most_out + SMALL) * packed.size
    assert came <= (most_in + SMALL) * packed.size
