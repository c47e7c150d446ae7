"""How many calls the threads make that are started meanwhile: the same at any load."""

from __future__ import annotations

import contextlib
import threading
from collections import Counter
from collections.abc import Iterator
from typing import Any


@contextlib.contextmanager
def calls_by_thread() -> Iterator[Counter[int]]:
    """The calls of Python functions, by thread, of threads that are started inside."""
    calls = Counter[int]()

    def count(frame: Any, event: str, argument: Any) -> None:
        calls[threading.get_ident()] += event == "call"

    before = threading.getprofile()
    threading.setprofile(count)
    try:
        yield calls
    finally:
        threading.setprofile(before)
