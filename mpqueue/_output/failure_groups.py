"""Groups of similar failures: by the type of the error, the line that raised it, and the stage."""

from __future__ import annotations

import os
import re
import site
import sys
import sysconfig
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import islice
from typing import TYPE_CHECKING, NamedTuple, TypeVar

from mpqueue._text import counted, fitting, visible_line
from mpqueue.errors import StageError, shown, text_of, type_name_of
from mpqueue.status import FAILED

if TYPE_CHECKING:
    from mpqueue._core.state.item_table import Failure, ItemTable
    from mpqueue._queue.job_items import JobItem

T = TypeVar("T")

#: Characters of an error's text that the text of a group has.
MAX_MESSAGE_CHARS = 200
#: Failed items that are looked at where a job's groups are shown with other things.
MOST_FAILED = 10_000
#: How a traceback begins as text; that of a group of exceptions has a margin.
_HEADER = re.compile(r"(?:  \+ Exception Group )?Traceback \(most recent call last\):$")
_MARGIN = "  | "
#: A frame. The place of a SyntaxError itself is no frame, and names no function.
_FRAME = re.compile(r'  File "([^"\n]*)", line (\d+), in ')
#: The text between the traceback of an exception and that of the one which it has caused.
_CHAINED = re.compile(
    r"^(?:The above exception was the direct cause of the following exception"
    r"|During handling of the above exception, another exception occurred):$",
    re.MULTILINE,
)


@dataclass(frozen=True, slots=True, repr=False)
class FailureGroup:
    """Failed items whose errors have one type and one place, in the order of the job.

    ``place`` is ``"file.py:12"``, the line of your own code that raised the error or called the code that did; None if
    there is no traceback. ``message`` is the text of the first one's error. ``stage`` is the stage of `run_stages` in
    which they failed, with the error of that stage; otherwise None.
    """

    error_type: str
    place: str | None
    message: str
    items: tuple[JobItem, ...]
    stage: str | None = None

    @property
    def count(self) -> int:
        """The number of items in the group."""
        return len(self.items)

    def __str__(self) -> str:
        return fitting(line_of(self), sys.stdout)

    def __repr__(self) -> str:
        return f"<FailureGroup {self}>"


def line_of(group: FailureGroup) -> str:
    """A line about a group, in characters that not every stream can write."""
    stage = "" if group.stage is None else f" in stage {shown(group.stage)}"
    where = "" if group.place is None else f" at {visible_line(group.place)}"
    message = group.message if len(group.message) <= MAX_MESSAGE_CHARS else f"{group.message[:MAX_MESSAGE_CHARS]}..."
    why = "" if message in ("", group.error_type) else f": {visible_line(message)}"
    return f"{group.error_type} × {group.count}{stage}{where}, first: {group.items[0].label}{why}"


def groups_of(table: ItemTable, most: int | None = None) -> list[FailureGroup]:
    """The failed items of a job in groups; with ``most`` only that many of the first."""
    from mpqueue._queue.job_items import JobItem

    failed = (index for index in sorted(table.failures) if table.status[index] == FAILED)
    return group_failures(JobItem(table, index) for index in islice(failed, most))


def group_failures(items: Iterable[JobItem]) -> list[FailureGroup]:
    """Group the failed ones of these items, the largest group first."""
    # An item's failure is looked at once: one that is tried again has none.
    failures = ((item, item._failure) for item in items)  # noqa: SLF001
    failed = ((item, _reason(failure)) for item, failure in failures if failure is not None)
    return [
        FailureGroup(error_type, place, reason.message, tuple(members), reason.stage)
        for error_type, place, reason, members in alike(failed)
    ]


class Reason(NamedTuple):
    """Why something failed: its error, the text and the traceback of that, and the stage that it was in."""

    error: BaseException
    message: str
    trace: str
    stage: str | None = None


def alike(failed: Iterable[tuple[T, Reason]]) -> list[tuple[str, str | None, Reason, list[T]]]:
    """Group what failed alike, most first: the type of the error, its place, the first reason, and what failed."""
    groups: dict[tuple[str, str | None, str | None], tuple[Reason, list[T]]] = {}
    place = cache(place_of)
    for one, reason in failed:
        kind = type_name_of(reason.error), place(reason.trace, reason.message), reason.stage
        groups.setdefault(kind, (reason, []))[1].append(one)
    found = [(error_type, place, *group) for (error_type, place, _), group in groups.items()]
    return sorted(found, key=lambda group: -len(group[-1]))


def shown_groups(groups: Sequence[FailureGroup], most: int) -> list[str]:
    """The first groups as texts, and the number of further ones."""
    more = len(groups) - most
    return [*map(line_of, groups[:most]), *([f"... and {counted(more, 'more group')}"] if more > 0 else [])]


def _reason(failure: Failure) -> Reason:
    error, trace = failure.own, failure.traceback or ""
    if isinstance(error, StageError) and error.__cause__ is not None:
        return Reason(error.__cause__, text_of(error.__cause__), trace, error.stage)
    return Reason(failure.error, failure.message, trace)


def place_of(trace: str, message: str = "") -> str | None:
    """The innermost line of a traceback that is neither the standard library's nor an installed package's.

    ``message`` is the error's text, which may hold another traceback, such as that of a child process.
    """
    frames = list(_frames(trace, message))
    users = [frame for frame in frames if not frame[0].startswith(_libraries())]
    if not frames:
        return None
    path, line = (users or frames)[-1]
    return f"{os.path.basename(path)}:{line}"


def _frames(trace: str, message: str) -> Iterator[tuple[str, str]]:
    """Yield the frames of the error itself, outermost first: they are between the header and the error's type."""
    if "\n" in message and (at := trace.rfind(message)) > 0:
        trace = trace[:at]
    header, *lines = _CHAINED.split(trace)[-1].lstrip("\n").split("\n")
    if not _HEADER.match(header):
        return
    margin = _MARGIN if header.startswith(" ") else ""
    for line in (line.removeprefix(margin) for line in lines):
        if line.strip() and not line.startswith("  "):
            return
        if found := _FRAME.match(line):
            yield found[1], found[2]


@cache
def _libraries() -> tuple[str, ...]:
    """Return the folders of installed code; workers on this machine have the same."""
    names = ("stdlib", "platstdlib", "purelib", "platlib")
    folders = {sysconfig.get_path(name) for name in names} | {*site.getsitepackages(), site.getusersitepackages()}
    mpqueue = os.path.dirname(os.path.dirname(__file__))
    return (*(os.path.join(folder, "") for folder in {*folders, mpqueue} if folder), "<frozen ")
