"""A profile as files that other tools read: speedscope's JSON, and the folded stacks of flamegraph.pl."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from mpqueue._report.profile.places import Frame, Frames
from mpqueue._text import json_text, visible_line

SCHEMA = "https://www.speedscope.app/file-format-schema.json"


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
