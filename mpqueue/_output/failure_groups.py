"""Failures that are alike: by the type of the error and the line that raised it."""

from __future__ import annotations

import os
import re
import site
import sys
import sysconfig
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING

from mpqueue._text import fitting, visible_line

if TYPE_CHECKING:
    from mpqueue._queue.job import JobItem

#: A frame of a traceback as text.
_FRAME = re.compile(r'^  File "([^"\n]*)", line (\d+)', re.MULTILINE)
#: What stands between the traceback of an exception and that of the one which it has caused.
_CHAINED = re.compile(
    r"^(?:The above exception was the direct cause of|During handling of the above exception), ?.*$", re.MULTILINE
)


@dataclass(frozen=True, slots=True, repr=False)
class FailureGroup:
    """Failed items whose errors have one type and one place, in the order of the job.

    ``place`` is ``"file.py:12"``, the line of your own code that raised the error or called what did; None where there
    is no traceback. ``message`` is the text of the first one's error.
    """

    error_type: str
    place: str | None
    message: str
    items: tuple[JobItem, ...]

    @property
    def count(self) -> int:
        """How many items."""
        return len(self.items)

    def __str__(self) -> str:
        where = "" if self.place is None else f" at {visible_line(self.place)}"
        text = f"{self.error_type} × {self.count}{where}, first: {self.items[0].label}"
        return fitting(text, sys.stdout)

    def __repr__(self) -> str:
        return f"<FailureGroup {self}>"


def group_failures(items: Iterable[JobItem]) -> list[FailureGroup]:
    """The failed ones of these, the largest group first."""
    groups: dict[tuple[str, str | None], list[JobItem]] = {}
    places: dict[str, str | None] = {}
    for item in items:
        trace = item.traceback or ""
        if trace not in places:
            places[trace] = place_of(trace)
        groups.setdefault((item.error_type or "", places[trace]), []).append(item)
    found = [
        FailureGroup(name, place, members[0].to_dict()["error"], tuple(members))
        for (name, place), members in groups.items()
    ]
    return sorted(found, key=lambda group: -group.count)


def place_of(trace: str) -> str | None:
    """The innermost line of a traceback that is not the standard library's nor an installed package's."""
    frames = list(_frames(trace))
    users = [frame for frame in frames if not frame[0].startswith(_libraries())]
    if not frames:
        return None
    path, line = (users or frames)[-1]
    return f"{os.path.basename(path)}:{line}"


def _frames(trace: str) -> Iterator[tuple[str, str]]:
    last = _CHAINED.split(trace)[-1]
    return ((found[1], found[2]) for found in _FRAME.finditer(last))


@cache
def _libraries() -> tuple[str, ...]:
    """Where installed code is; workers on this machine have the same places."""
    names = ("stdlib", "platstdlib", "purelib", "platlib")
    folders = {sysconfig.get_path(name) for name in names} | {*site.getsitepackages(), site.getusersitepackages()}
    mpqueue = os.path.dirname(os.path.dirname(__file__))
    return (*(os.path.join(folder, "") for folder in {*folders, mpqueue} if folder), "<frozen ")
