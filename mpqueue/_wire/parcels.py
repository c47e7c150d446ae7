"""Items on their way, into an open job and from one stage of a pipeline to the next.

Those of an open job come from the program, or from a handler with its result. Values between stages stay pickled on
their way through the parent.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from mpqueue._wire.item_names import IdRule, ids_of
from mpqueue.errors import shown

if TYPE_CHECKING:
    from mpqueue._wire.memory.segments import HeldSegment
    from mpqueue._wire.pickling.payload import Packed


#: Types that an id in an open job may consist of: they are compared where no users' code may run.
_PLAIN = frozenset({str, int, float, bytes, bool, type(None)})


@dataclass(slots=True, eq=False)
class AddedItems:
    """Items added to a job. ``ids`` is None if the ids are the items' places; ``new`` has the places of new items."""

    items: list[Any]
    ids: list[Hashable] | None
    new: range = range(0)


class ResultWithItems:
    """A result with items for the job: one pickle, so that both arrive or neither does.

    ``lots``: the items of each call of `add`, in any class while the worker pickles them, and their ids.
    """

    __slots__ = ("lots", "result")

    def __init__(self, result: Any, lots: list[tuple[Any, list[Hashable] | None]]) -> None:
        self.result = result
        self.lots = lots

    def added(self) -> AddedItems:
        """Return the items of all calls of `add`, with their ids."""
        items = [item for lot, _ in self.lots for item in lot]
        ids: list[Hashable] = []
        for _, own in self.lots:
            if own is None:
                return AddedItems(items, None)
            ids += own
        return AddedItems(items, ids)


def plain_ids(rule: IdRule, items: Sequence[Any]) -> list[Hashable] | None:
    """Return the ids of added items. Raises TypeError for an item without one, or with one that is not plain."""
    ids = ids_of(rule, items)
    for position, item_id in enumerate(ids or ()):
        if not _is_plain(item_id):
            raise TypeError(
                f"items[{position}]: expected an id that is text, a number, bytes or a tuple of these, as an open job "
                f"needs it, got {shown(item_id)} of type {type(item_id).__name__}"
            )
    return ids


def _is_plain(item_id: object) -> bool:
    return type(item_id) in _PLAIN or (type(item_id) is tuple and all(map(_is_plain, item_id)))


class Yielded:
    """All values that a handler has yielded for one item."""

    __slots__ = ("values",)

    def __init__(self, values: list[Any]) -> None:
        self.values = values


class Parcel:
    """A value as a worker has pickled it, for the worker of the next stage. Nothing is unpickled or copied here.

    ``packed`` are plain bytes if nothing is beside them. ``held`` keeps data beside them: while the parcel is
    referenced, it can be sent any number of times.
    """

    __slots__ = ("held", "packed")

    def __init__(self, packed: Packed | bytes, held: HeldSegment | None = None) -> None:
        self.packed = packed
        self.held = held

    @property
    def size(self) -> int:
        """Bytes of the pickled value in total."""
        return len(self.packed) if isinstance(self.packed, bytes) else self.packed.size

    def load(self) -> Any:
        """Return the value, for users who ask for it. Raises errors of unpickling it."""
        from mpqueue._wire.pickling.payload import Packed, load_home  # it names this module

        return load_home(self.packed if isinstance(self.packed, Packed) else Packed(self.packed, by_value=True))

    def __repr__(self) -> str:
        return f"<a value of {self.size} bytes, pickled>"
