"""Waiting for many ends of `mpqueue._os.channels` at once, while other threads add some and take some away.

On POSIX systems a selector of the standard library's does it. That of Windows, `select`, looks at what was there when
it was called: so there it is woken up by each change.
"""

from __future__ import annotations

import selectors
import sys
from collections.abc import Callable
from typing import Any, Protocol

if sys.platform == "win32":
    from mpqueue._os.windows.woken_selector import WokenSelector


class Selector(Protocol):
    """Those methods of `selectors.BaseSelector` that are used, on any thread but for `select`, with its promises."""

    def register(self, fileobj: int, events: int, data: Any = None) -> object:
        """Look at that end. KeyError: it is looked at already; ValueError: this is closed."""

    def modify(self, fileobj: int, events: int, data: Any = None) -> object:
        """Look at it for something else. KeyError: it is not looked at."""

    def unregister(self, fileobj: int) -> object:
        """Look at it no more. KeyError: it is not looked at."""

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        """What is ready within so many seconds."""

    def close(self) -> None:
        """Give back what this has."""


if sys.platform == "win32":
    make_selector: Callable[[], Selector] = WokenSelector
else:
    make_selector: Callable[[], Selector] = selectors.DefaultSelector
