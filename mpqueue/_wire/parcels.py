"""Values that one stage of a pipeline passes to the next, which stay pickled on their way through the parent."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mpqueue._wire.memory.segments import HeldSegment
    from mpqueue._wire.pickling.payload import Packed


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
