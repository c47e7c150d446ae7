"""Starting a Python process that is given what it shares with this one before its first step. On Windows only."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from typing import Any

if sys.platform == "win32":
    from mpqueue._os.windows.suspended import Spawned


def spawn(executable: str, arguments: list[str], environment: Mapping[str, str], text: Callable[[Any], bytes]) -> Any:
    """Start the interpreter; returns what `multiprocessing` has of a process.

    ``text`` makes what it reads first, by the handle whose number is its last argument. It gets what is returned, as
    the process that is being spawned: what is pickled meanwhile is handed over to it. Raises OSError, and what ``text``
    raises: the process has not run then.
    """
    if sys.platform == "win32":
        return Spawned(executable, arguments, environment, text)
    raise NotImplementedError("expected Windows: elsewhere processes inherit what they share")
