"""The output of pickling: the pickle in pieces, and the buffers beside it.

None of these is a copy: a `bytes` object of 64 KB and more is a piece of its own, a buffer is the memory of its array.
Some buffers are known only when all is pickled, or are made while they are written (`Pieces`).

What holds while a thread pickles something is here too: where the pickle goes, and what is noted on the way. Each is a
context variable that `within` sets for one call, in a copy of the thread's context. So whatever ends the call, even a
Ctrl-C between two bytecodes, leaves none of them set.
"""

from __future__ import annotations

import pickle
from collections.abc import Callable
from contextvars import ContextVar, copy_context
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

from mpqueue._wire.memory.segments import BIG, BIG_BUFFER, Part, Pieces

if TYPE_CHECKING:
    from mpqueue._wire.memory.shared import Shared
    from mpqueue._wire.pickling.script import Script


T = TypeVar("T")

#: True: it goes to a process that shares no memory with this one: elsewhere, or later.
whole: ContextVar[bool] = ContextVar("whole", default=False)
#: True: it may outlive this process's shared objects, as a result does.
leaving: ContextVar[bool] = ContextVar("leaving", default=False)
#: The list for the shared objects with segments that are pickled; None: they are not noted.
noted: ContextVar[list[Shared[Any]] | None] = ContextVar("noted", default=None)
#: The pickles of the script's classes, by their ids: each class is pickled once, in its state at that time.
moment: ContextVar[dict[str, bytes] | None] = ContextVar("moment", default=None)
#: The main module that the receiver has imported, None if it has none; unset: the one that this process has imported.
script: ContextVar[Script | None] = ContextVar("script")
#: The namespace of functions that were unpickled together, such as a journal's: they are pickled with one, too.
namespace: ContextVar[dict[str, Any] | None] = ContextVar("namespace", default=None)


def within(call: Callable[[], T], *settings: tuple[ContextVar[Any], Any]) -> T:
    """Return what ``call`` returns while these variables have these values. Costs 0.3 us."""
    return copy_context().run(_set_and_call, call, settings)


def _set_and_call(call: Callable[[], T], settings: tuple[tuple[ContextVar[Any], Any], ...]) -> T:
    for variable, value in settings:
        variable.set(value)
    return call()


#: Bytes from which on the content of a `bytes` object or a string is not part of a frame of a pickle.
UNFRAMED = 64 << 10
#: Bytes from which a small buffer is put beside a big pickle.
GATHERED = 4 << 10


class Pickled(list[Any]):
    """A pickle in pieces, which are bytes or the like: `pickle.Pickler` writes to it as to a file."""

    write = list.append

    def unwrap(self) -> None:
        """Replace buffers that stayed in the pickle by their memory."""
        self[:] = [piece.raw() if type(piece) is pickle.PickleBuffer else piece for piece in self]

    @property
    def nbytes(self) -> int:
        """Bytes of all pieces."""
        return len(self[0]) if len(self) == 1 else sum(map(len, self))

    def whole(self) -> bytes:
        """Return the pickle in one piece. Costs a copy if there are several."""
        return self[0] if len(self) == 1 else b"".join(self)  # a single piece is a frame

    def part(self) -> Pieces:
        """Return the pickle as one part to be written beside other buffers."""
        return Pieces(self.nbytes, lambda: map(memoryview, self))

    def names(self, mark: bytes) -> bool:
        """Tell whether the pickle itself contains these bytes; large data in it is not searched."""
        if len(self) == 1:
            return mark in self[0]
        before = b""
        for piece in self:
            if not (len(piece) >= UNFRAMED and _announces(before, len(piece))):
                if mark in piece:  # a frame: pieces outside of frames are large
                    return True
                before = piece
            else:
                before = b""
        return False


def _announces(frame: Any, size: int) -> bool:
    """Tell whether a frame that ends like this one is followed by ``size`` bytes of data."""
    number = size.to_bytes(8, "little")
    return (frame[-5:-4] in (b"B", b"X") and frame[-4:] + bytes(4) == number) or (
        frame[-9:-8] in (b"\x8e", b"\x8d", b"\x96") and frame[-8:] == number
    )


class Storage(Protocol):
    """Memory that several objects of one pickle view: only the parts that they view are sent."""

    def settle(self) -> None:
        """Fix which bytes are sent: all objects that view the memory are pickled."""

    def memory(self) -> memoryview:
        """Return the bytes of the memory that are sent."""


class Later(bytearray):
    """A stand-in for a buffer while pickling."""

    __slots__ = ("source",)

    source: Part | Storage

    def __init__(self, source: Part | Storage) -> None:
        self.source = source


class Buffers(list[Any]):
    """The big buffers met while pickling, in order. With ``in_band`` none are taken: all stay in the pickle."""

    def __init__(self, *, in_band: bool = False) -> None:
        super().__init__()
        self.in_band = in_band
        self.by_value = False  #: the pickle may contain classes and functions instead of their names
        self.classes: list[str] = []  #: the ids of the classes in the pickle itself
        self._gathered = 0  #: bytes of small buffers
        self.storages: dict[tuple[int, int], Any] = {}  #: by address and size: the memory that objects here view

    def take(self, buffer: pickle.PickleBuffer) -> bool:
        """Return True to keep this buffer in the pickle, False to send it beside it."""
        try:
            raw = buffer.raw()
        except BufferError:  # not contiguous
            return True
        size = raw.nbytes
        if size < BIG_BUFFER:
            if not size and type(stands_for := raw.obj) is Later:
                self.append(stands_for.source)
                return False
            if size < GATHERED:
                return True
            self._gathered += size
            if self._gathered < BIG:
                return True
        self.append(raw)
        return False

    def clear(self) -> None:
        """Forget all: pickling starts again."""
        super().clear()
        self._gathered = 0
        self.storages.clear()
        self.classes.clear()

    def parts(self) -> list[Part]:
        """Return the parts to be written, once all is pickled."""
        if not self.storages:
            return self
        for storage in self.storages.values():
            storage.settle()
        return [part if isinstance(part, memoryview | Pieces) else part.memory() for part in self]

    def contiguous(self) -> list[memoryview]:
        """Return the parts to be written, each in one piece; parts made during writing are made now."""
        return [part if isinstance(part, memoryview) else part.whole() for part in self.parts()]
