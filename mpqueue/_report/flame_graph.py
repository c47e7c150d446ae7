"""A profile on a report's page, as a flame graph. Without scripts, there is only the table of the heaviest lines.

The page stays self-contained: the script is in it, and the page's policy allows only that script, by its hash.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cache
from importlib.resources import files
from typing import Any

from mpqueue._output.words import seconds
from mpqueue._report.profile import Frame, Frames, Profile, views
from mpqueue._text import shown_json

#: The most frames that are drawn, for all workers together and for each other view: more would be too narrow to see.
MOST_FRAMES, MOST_OF_VIEW = 3_000, 500
#: The least part of the whole that a frame may have.
NARROWEST = 0.0005


@cache
def _file(suffix: str) -> str:
    return files("mpqueue._report").joinpath(f"flame_graph.{suffix}").read_text()


def style() -> str:
    """Return the style that a page needs besides its own."""
    return _file("css")


def policy() -> str:
    """Return what the page's policy has to allow for the script."""
    digest = base64.b64encode(hashlib.sha256(_file("js").encode()).digest()).decode()
    return f"; script-src 'sha256-{digest}'"


def section(profile: Profile) -> Iterator[str]:
    """Yield the flame graph's section of the page."""
    yield "<section aria-labelledby='profile-heading'><h2 id='profile-heading'>Where the handlers were</h2>"
    if not profile.stacks:
        yield "<p class='quiet'>Nothing was sampled: no item that has ended ran for long enough.</p></section>"
        return
    yield (
        f"<p class='quiet'>{seconds(profile.seconds)} of all workers, sampled up to a hundred times a second. A box is "
        "as wide as the time spent in that line and in what it called. What it called is below it.</p>"
    )
    yield "<div id='flame-tools' class='flame-tools' hidden><label>Of <select id='flame-view'></select></label>"
    yield "<label>Search <input id='flame-search' type='search' autocomplete='off' spellcheck='false'></label>"
    yield "<button id='flame-whole' type='button' disabled>Show all</button><output id='flame-found'></output></div>"
    yield "<div id='flame' class='flame' role='tree' aria-label='Flame graph' aria-describedby='flame-help'></div>"
    yield "<p id='flame-detail' class='flame-detail'></p>"
    yield (
        "<p id='flame-help' class='quiet' hidden>Click a box, or press Enter, to see it alone. Escape shows all, arrow "
        "keys move, / searches.</p>"
    )
    yield f"<script type='application/json' id='flame-data'>{_data(profile)}</script><script>{_file('js')}</script>"
    yield "</section>"


@dataclass(slots=True, eq=False)
class _Box:
    """A frame, below the one that called it."""

    frame: Frame
    seconds: float = 0.0
    below: dict[Frame, _Box] = field(default_factory=dict)


def _data(profile: Profile) -> str:
    """Return the script's data: frames, and for each view its boxes as [frame, seconds, boxes below]."""
    numbers: dict[Frame, int] = {}
    drawn = []
    for place, (name, stacks) in enumerate(views(profile)):
        boxes = _boxes(stacks)
        whole = sum(stacks.values())
        least = max(NARROWEST * whole, _least(boxes, MOST_OF_VIEW if place else MOST_FRAMES))
        drawn.append([name, round(whole, 4), _shapes(boxes, least, numbers)])
    frames = [[str(frame), f"{frame.file}:{frame.line}" if frame.file else "C code"] for frame in numbers]
    return shown_json({"frames": frames, "views": drawn}).replace("<", "\\u003c")


def _boxes(stacks: Mapping[Frames, float]) -> dict[Frame, _Box]:
    boxes: dict[Frame, _Box] = {}
    for stack, spent in stacks.items():
        level = boxes
        for frame in stack:
            box = level.get(frame)
            if box is None:
                box = level[frame] = _Box(frame)
            box.seconds += spent
            level = box.below
    return boxes


def _least(boxes: Mapping[Frame, _Box], most: int) -> float:
    """The seconds of the smallest box that is drawn, if there are too many boxes."""
    found: list[float] = []
    rest = [*boxes.values()]
    while rest:
        box = rest.pop()
        found.append(box.seconds)
        rest += box.below.values()
    return 0.0 if len(found) <= most else sorted(found, reverse=True)[most]


def _shapes(boxes: Mapping[Frame, _Box], least: float, numbers: dict[Frame, int]) -> list[Any]:
    return [
        [numbers.setdefault(box.frame, len(numbers)), round(box.seconds, 4), _shapes(box.below, least, numbers)]
        for box in sorted(boxes.values(), key=lambda box: -box.seconds)
        if box.seconds >= least
    ]
