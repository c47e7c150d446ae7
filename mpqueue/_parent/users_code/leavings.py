"""What the coordinator is done with and may be users' objects: freed on another thread, since that may run any code.

Python frees an object where its last reference goes. So what holds one is put aside while it is still needed, and
handed over at the end of the coordinator's turn, when no frame of it refers to that any more.

The collector of reference cycles runs on any thread that makes objects, and so may run such code here as well.
"""

from __future__ import annotations

import threading
from collections.abc import Callable

from mpqueue._parent.errands import Errands


class Leavings:
    """Used on its owner's thread, whose identity is ``owner``. ``on_fault``: see `Errands`."""

    def __init__(self, name: str, on_fault: Callable[[BaseException], object]) -> None:
        self._errands = Errands(name, on_fault)
        #: What is not needed any more when the owner's turn is over.
        self.left: list[object] = []
        self.owner: int | None = None

    def add(self, left: object) -> None:
        """This is not needed any more when the owner's turn is over."""
        self.left.append(left)

    def inherit(self, left: object) -> None:
        """Something is being freed that holds this. On any thread: elsewhere it may be freed there."""
        if threading.get_ident() == self.owner:
            self.left.append(left)

    def hand_over(self) -> None:
        """The owner's turn is over."""
        if self.left:
            left, self.left = self.left, []
            self._errands.put(left.clear)

    def end(self) -> None:
        """The owner's thread is about to end."""
        self.hand_over()
        self._errands.end()
