"""Places in the code, and a profile of them as files: speedscope's JSON, and folded stacks for flamegraph.pl."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

from mpqueue._text import json_text, visible_line

SCHEMA = "https://www.speedscope.app/file-format-schema.json"


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


def speedscope(name: str, views: Iterable[tuple[str, Mapping[Frames, float]]]) -> bytes:
    """The whole file, see https://github.com/jlfwong/speedscope/wiki/Importing-from-custom-sources."""
    numbers: dict[Frame, int] = {}
    profiles = [_sampled(view, stacks, numbers) for view, stacks in views]
    content = {
        "$schema": SCHEMA,
        "name": name,
        "exporter": "mpqueue",
        "activeProfileIndex": 0,
        "shared": {"frames": [_described(frame) for frame in numbers]},
        "profiles": profiles,
    }
    return json_text(content).encode() + b"\n"


def _sampled(name: str, stacks: Mapping[Frames, float], numbers: dict[Frame, int]) -> dict[str, Any]:
    """By stack, so that what is alike stands side by side."""
    in_order = sorted(stacks)
    weights = [round(stacks[stack], 6) for stack in in_order]
    return {
        "type": "sampled",
        "name": name,
        "unit": "seconds",
        "startValue": 0,
        "endValue": round(sum(weights), 6),
        "samples": [[numbers.setdefault(frame, len(numbers)) for frame in stack] for stack in in_order],
        "weights": weights,
    }


def _described(frame: Frame) -> dict[str, Any]:
    described: dict[str, Any] = {"name": str(frame)}
    if frame.file:
        described["file"] = frame.file
        if frame.line:
            described["line"] = frame.line
    return described


def collapsed(stacks: Mapping[Frames, float]) -> bytes:
    """A stack a line, its frames from the handler on, and how many microseconds."""
    lines = []
    for stack in sorted(stacks):
        names = ";".join(str(frame).replace(";", ":") for frame in stack)
        lines.append(f"{visible_line(names)} {max(1, round(stacks[stack] * 1e6))}\n")
    return "".join(lines).encode()
