"""Which recorded items run again by their user's word: another version, or ``redo``."""

from __future__ import annotations

from array import array
from collections.abc import Collection, Hashable, Sequence
from itertools import compress
from typing import TYPE_CHECKING, NamedTuple

from mpqueue._core.state.item_table import ItemTable
from mpqueue.errors import shown

if TYPE_CHECKING:
    from mpqueue._parent.journal.items.matching import Match
    from mpqueue._parent.journal.journal_reader import RecordedJob
    from mpqueue._queue.new_job import RecordOptions

#: What ``redo`` may be, beside a collection of ids.
REDO = ("failed", "changed-code", "all")

Redo = str | Collection[Hashable] | None


class Again(NamedTuple):
    """Recorded items that run again. ``afresh``: their indices; ``everything``: also what is gone, once it is back."""

    afresh: Sequence[int] = ()
    everything: bool = False
    failed: bool = False  #: those that failed, with their history


def check_redo(redo: object) -> Redo:
    """The same. Raises TypeError or ValueError for what it can't be."""
    if redo is None or (isinstance(redo, str) and redo in REDO):
        return redo
    if isinstance(redo, str):
        raise ValueError(f"redo: expected one of {', '.join(map(repr, REDO))}, or a list of ids, got {shown(redo)}")
    if not isinstance(redo, Collection):
        raise TypeError(f"redo: expected one of {', '.join(map(repr, REDO))}, or a list of ids, got {shown(redo)}")
    return redo


def choose_again(
    table: ItemTable, match: Match, recorded: RecordedJob, options: RecordOptions, *, changed: Sequence[int]
) -> Again:
    """What runs again; ``changed`` are what other code has made. Raises ValueError for the id of no item."""
    redo = options.redo
    if options.begins_anew(recorded):
        recorded_ones = bytearray(b"\1") * len(table)
        for index in match.new:
            recorded_ones[index] = 0
        return Again(array("Q", compress(range(len(table)), recorded_ones)), everything=True)
    if redo == "changed-code":
        return Again(changed)
    if redo is None or isinstance(redo, str):
        return Again(failed=redo == "failed")
    index_of = {table.id_of(index): index for index in range(len(table))}
    unknown = [item_id for item_id in redo if item_id not in index_of]
    if unknown:
        raise ValueError(f"redo: expected ids of the job's items, got {shown(unknown[0])}")
    return Again(sorted({index_of[item_id] for item_id in redo}.difference(match.new)))
