"""A function that a handler sets to trace (`sys.settrace`) is its item's: the next item begins without it.

Python calls it in all that the thread runs from then on, and what it raises comes out there. To look for one after each
item would cost a third of what a tiny item takes, so an item that sets one is the last of its stretch, at whose end
it is taken away.
"""

from __future__ import annotations

import functools
import sys
import threading
from collections.abc import Callable

#: As Python made it: a call of this one is no step that is traced.
plain_settrace = sys.settrace


def install(end_stretch: Callable[[], object]) -> None:
    """Have ``end_stretch`` called when the main thread's trace function is set; once, in a process that is a worker."""

    @functools.wraps(plain_settrace)
    def settrace(function: object, /) -> None:
        if threading.current_thread() is threading.main_thread():
            end_stretch()
        plain_settrace(function)  # type: ignore[arg-type]

    sys.settrace = settrace
