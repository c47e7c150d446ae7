"""A sink that keeps its rows for the test."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any


class Rows:
    """It has these attributes; ``at`` is the call that raises ``error``."""

    def __init__(self, at: str = "", error: BaseException | None = None, **attributes: Any) -> None:
        self.rows: list[dict[str, Any]] = []
        self.calls: list[str] = []
        self._at = at
        self._error = error
        vars(self).update(attributes)

    def note(self, name: str) -> None:
        self.calls.append(name)
        if name == self._at and self._error is not None:
            raise self._error

    def open(self) -> None:
        self.note("open")

    def write(self, rows: Sequence[dict[str, Any]]) -> None:
        self.note("write")
        self.rows += rows

    def close(self) -> None:
        self.note("close")

    def leave(self) -> None:
        self.note("leave")
