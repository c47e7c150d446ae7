"""`PicklesByFields`: how the project's own frames are pickled."""

from __future__ import annotations

from typing import Any


class PicklesByFields:
    """A frozen, slotted dataclass that is pickled as its constructor's arguments: twice as fast as by itself."""

    __slots__ = ()

    def __reduce__(self) -> tuple[Any, ...]:
        names: tuple[str, ...] = self.__slots__
        return type(self), tuple([getattr(self, name) for name in names])
