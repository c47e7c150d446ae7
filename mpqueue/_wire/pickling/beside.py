"""The output of pickling: the pickle in pieces, and the buffers beside it.

Nothing of these is a copy: a `bytes` object of 64 KB and more is a piece of its own, a buffer is the memory of the
array that has it. Some buffers are known only when all is pickled, or come to be while they are written (`Pieces`).
"""

from __future__ import annotations

import pickle
from typing import Any, Protocol

from mpqueue._wire.memory.segments import BIG, BIG_BUFFER, Part, Pieces

#: From so many bytes on, the content of a `bytes` object or a string is no part of a frame of a pickle.
UNFRAMED = 64 << 10
#: Bytes from which a buffer that is not big is put beside a pickle that is.
GATHERED = 4 << 10


class Pickled(list[Any]):
    """A pickle in pieces, which are bytes of some kind: `pickle.Pickler` writes to it as to a file."""

    write = list.append

    def unwrap(self) -> None:
        """Replace buffers that have stayed in the pickle by their memory."""
        self[:] = [piece.raw() if type(piece) is pickle.PickleBuffer else piece for piece in self]

    @property
    def nbytes(self) -> int:
        """Bytes of all pieces."""
        return len(self[0]) if len(self) == 1 else sum(map(len, self))

    def whole(self) -> bytes:
        """Return the pickle in one piece. Costs a copy where there are several."""
        return self[0] if len(self) == 1 else b"".join(self)  # a single one is a frame

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
                if mark in piece:  # a frame: what is no frame is large
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
    """Memory that several objects of one pickle are views of: only what they have of it is sent."""

    def settle(self) -> None:
        """Fix which bytes are sent: all objects that view the memory are pickled."""

    def memory(self) -> memoryview:
        """Return the bytes of the memory that are to be sent."""


class Later(bytearray):
    """A stand-in for a buffer while pickling."""

    __slots__ = ("source",)

    source: Part | Storage

    def __init__(self, source: Part | Storage) -> None:
        self.source = source


class Buffers(list[Any]):
    """The big buffers that pickling met, in their order. With ``in_band`` none are taken: all stay in the pickle."""

    def __init__(self, *, in_band: bool = False) -> None:
        super().__init__()
        self.in_band = in_band
        self.by_value = False  #: classes and functions may be in the pickle, rather than their names
        self.classes: list[str] = []  #: the ids of those that are in the pickle itself
        self._gathered = 0  #: bytes of buffers that are not big
        self.storages: dict[tuple[int, int], Any] = {}  #: by address and size, what the objects here are views of

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
        """Forget all: pickling begins anew."""
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
        """Return the parts to be written, each in one piece: those made while they are written are made here."""
        return [part if isinstance(part, memoryview) else part.whole() for part in self.parts()]
