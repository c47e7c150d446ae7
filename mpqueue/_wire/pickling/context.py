"""What holds while a thread pickles something: where the pickle goes, and what is noted on the way.

Each is a context variable that `within` sets for one call, in a copy of the thread's context. So whatever ends the
call, even a Ctrl-C between two bytecodes, leaves none of them set.
"""

from __future__ import annotations

from collections.abc import Callable
from contextvars import ContextVar, copy_context
from typing import TYPE_CHECKING, Any, TypeVar

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
