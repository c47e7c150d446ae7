"""A chunk's items, pickled; and which of them can't be."""

from __future__ import annotations

from typing import Any

from mpqueue._core.state.item_table import Failure
from mpqueue._core.state.lane_book import Chunk
from mpqueue._parent.transport.kept_errors import let_go, text_of
from mpqueue._wire.memory.segments import SegmentStore
from mpqueue._wire.pickling.payload import Packed, dump, dump_plain
from mpqueue.errors import ItemPicklingError, shown


def pack_items(chunk: Chunk, store: SegmentStore | None) -> Packed | list[Packed] | dict[int, Failure]:
    """One pickle of the list of items (a careful chunk: one each); or the failures by position, where some can't be.

    Runs on the coordinator's thread; costs what pickling costs.
    """
    items = chunk.job.table.payloads_of(chunk.indices)
    if not chunk.careful:
        try:
            # Plain data names no class, so nobody need look for the names of one: that takes longer than to try.
            return dump_plain(items, store) or dump(items, store)
        except BaseException:
            pass
    return _pack_each(chunk, items, store)


def _pack_each(chunk: Chunk, items: list[Any], store: SegmentStore | None) -> list[Packed] | dict[int, Failure]:
    packed, failures = [], {}
    for position, item in enumerate(items):
        try:
            packed.append(dump(item, store))
        except BaseException as error:
            item_id = chunk.job.table.id_of(chunk.indices[position])
            refusal = ItemPicklingError(
                f"item {shown(item_id)} of type {type(item).__name__} can't be pickled: {text_of(error)}"
            )
            refusal.__cause__ = error
            failures[position] = Failure(refusal, let_go(error), charged=False)
    if failures:
        if store is not None:
            store.take_back([one.segment.serial for one in packed if one.segment is not None])
        return failures
    # Where together they failed and each alone they do not, they were pickled twice with different outcomes.
    return packed
