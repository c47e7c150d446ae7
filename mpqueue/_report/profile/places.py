"""Places in the code, as users see them in a profile."""

from __future__ import annotations

import os
from typing import NamedTuple


class Frame(NamedTuple):
    """A place in the code: a function, its file and a line. Of C code ``file`` is empty and ``line`` 0."""

    function: str
    file: str
    line: int

    def __str__(self) -> str:
        """As ``load (scans.py:12)``."""
        return f"{self.function} ({os.path.basename(self.file)}:{self.line})" if self.file else self.function


#: The handler's own frame first; each frame was called by the one before.
Frames = tuple[Frame, ...]


class LineTime(NamedTuple):
    """One line: the seconds spent in it (``own``: C code that it called included), and in all that it called, too."""

    frame: Frame
    own: float
    total: float
