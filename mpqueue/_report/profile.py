"""`Profile`: the lines that a job's handlers spent time in, with the times; the value of `Job.profile`.

It can be written as speedscope's JSON, and as folded stacks for flamegraph.pl.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from heapq import nlargest
from pathlib import Path
from typing import Any, NamedTuple

from mpqueue._core.state.job_book import JobBook, JobView
from mpqueue._text import json_text, shown, visible_line
from mpqueue._text import seconds as in_words
from mpqueue._whole_file import write_whole
from mpqueue._wire.frames import Stack, Stacks, load_stacks

SCHEMA = "https://www.speedscope.app/file-format-schema.json"
#: An item is among the slowest only if this many seconds of it were sampled: ten looks.
LEAST_OF_ITEM = 0.1


class Frame(NamedTuple):
    """A place in the code: a function, its file and a line. For C code ``file`` is empty and ``line`` 0."""

    function: str
    file: str
    line: int

    def __str__(self) -> str:
        """Return the frame as ``load (scans.py:12)``; a package's file as ``loads (json/__init__.py:346)``."""
        folder, name = os.path.split(self.file)
        if name.startswith("__"):  # there are many of that name
            name = f"{os.path.basename(folder)}/{name}"
        return f"{self.function} ({name}:{self.line})" if self.file else self.function


#: The handler's own frame first; each frame was called by the one before.
Frames = tuple[Frame, ...]


class LineTime(NamedTuple):
    """One line: its own seconds (``own``, with C code that it called), and those with all that it called."""

    frame: Frame
    own: float
    total: float


@dataclass(eq=False, repr=False)
class Profile:
    """A job's samples, as of the time it was made.

    ``stacks`` has the seconds of all workers by stack; ``workers`` the same for each worker by its number, ``items``
    for at most ten of the slowest items by their ids. An item counts once it has ended. Seconds are wall time.
    """

    job_id: str
    stacks: Mapping[Frames, float]
    workers: Mapping[int, Mapping[Frames, float]]
    items: Mapping[Hashable, Mapping[Frames, float]]
    names: Mapping[Hashable, str] = field(default_factory=dict)  #: these items' labels

    @property
    def seconds(self) -> float:
        """The seconds of all samples."""
        return sum(self.stacks.values())

    def lines(self) -> list[LineTime]:
        """The lines of code, those with most seconds of their own first."""
        own: dict[Frame, float] = {}
        total: dict[Frame, float] = {}
        for stack, seconds in self.stacks.items():
            own[stack[-1]] = own.get(stack[-1], 0.0) + seconds
            for frame in set(stack):
                total[frame] = total.get(frame, 0.0) + seconds
        lines = [LineTime(frame, own.get(frame, 0.0), spent) for frame, spent in total.items()]
        return sorted(lines, key=lambda line: (-line.own, -line.total, line.frame))

    def to_speedscope(self, path: str | os.PathLike[str]) -> Path:
        """Write the profile for https://www.speedscope.app, by workers and for the slowest items. Returns its path.

        The file appears once it is complete. Raises OSError.
        """
        return write_whole(path, json_text(speedscope_of(self)).encode() + b"\n")

    def to_collapsed(self, path: str | os.PathLike[str]) -> Path:
        """Write the profile in flamegraph.pl's folded format, a stack and its microseconds per line. Returns its path.

        The file appears once it is complete. Raises OSError.
        """
        lines = []
        for stack in sorted(self.stacks):
            names = ";".join(str(frame).replace(";", ":") for frame in stack)
            lines.append(f"{visible_line(names)} {max(1, round(self.stacks[stack] * 1e6))}\n")
        return write_whole(path, "".join(lines).encode())

    def __repr__(self) -> str:
        return f"<Profile of job {self.job_id!r}: {in_words(self.seconds)} in {len(self.stacks):,} stacks>"


def views(profile: Profile) -> Iterator[tuple[str, Mapping[Frames, float]]]:
    """Yield the views, each with its name: all workers, each worker, each of the slowest items."""
    yield "all workers", profile.stacks
    for lane, stacks in profile.workers.items():
        yield f"worker {lane}", stacks
    for item_id, stacks in profile.items.items():
        yield f"item {profile.names.get(item_id) or shown(item_id)}", stacks


def make_profile(book: JobView) -> Profile | None:
    """Make the profile of `Job.profile`. Stages have one for all together, whose items are not the job's."""
    if not isinstance(book, JobBook):
        return None
    jobs = [book] if book.pipeline is None else book.pipeline.jobs
    parts = [job.samples.merged() for job in jobs if isinstance(job.samples, JobSamples)]
    if not parts:
        return None
    whole: dict[Frames, float] = {}
    workers: dict[int, dict[Frames, float]] = {}
    for part in parts:
        _add(whole, _named(part.whole))
        for lane, stacks in part.workers.items():
            _add(workers.setdefault(lane, {}), _named(stacks))
    sampled = parts[0].items if book.pipeline is None else {}
    slowest = {index: stacks for index, stacks in sampled.items() if _took(stacks) >= LEAST_OF_ITEM}
    items = sorted(slowest, key=lambda index: -_took(slowest[index]))
    return Profile(
        book.id,
        whole,
        dict(sorted(workers.items())),
        {book.table.id_of(index): _named(slowest[index]) for index in items},
        {book.table.id_of(index): book.table.named(index) for index in items},
    )


def _took(stacks: Mapping[Stack, float]) -> float:
    return sum(stacks.values())


def _add(to: dict[Frames, float], stacks: Mapping[Frames, float]) -> None:
    for stack, seconds in stacks.items():
        to[stack] = to.get(stack, 0.0) + seconds


def _named(stacks: Mapping[Stack, float]) -> dict[Frames, float]:
    return {tuple(map(Frame._make, stack)): seconds for stack, seconds in stacks.items()}


# -- files -------------------------------------------------------------------------------------------------------------


def speedscope_of(profile: Profile, most: int | None = None) -> dict[str, Any]:
    """The content of the file, see https://github.com/jlfwong/speedscope/wiki/Importing-from-custom-sources.

    ``most``: only that many stacks of each view, those with most seconds.
    """
    numbers: dict[Frame, int] = {}
    profiles = [_sampled(view, stacks, numbers, most) for view, stacks in views(profile)]
    return {
        "$schema": SCHEMA,
        "name": profile.job_id,
        "exporter": "mpqueue",
        "activeProfileIndex": 0,
        "shared": {"frames": [_described(frame) for frame in numbers]},
        "profiles": profiles,
    }


def _sampled(name: str, stacks: Mapping[Frames, float], numbers: dict[Frame, int], most: int | None) -> dict[str, Any]:
    """One view for speedscope, its samples ordered by stack."""
    in_order = sorted(stacks if most is None else nlargest(most, stacks, key=stacks.__getitem__))
    return {
        "type": "sampled",
        "name": name,
        "unit": "seconds",
        "startValue": 0,
        "endValue": round(sum(stacks.values()), 6),
        "samples": [[numbers.setdefault(frame, len(numbers)) for frame in stack] for stack in in_order],
        "weights": [round(stacks[stack], 6) for stack in in_order],
    }


def _described(frame: Frame) -> dict[str, Any]:
    described: dict[str, Any] = {"name": str(frame)}
    if frame.file:
        described["file"] = frame.file
        if frame.line:
            described["line"] = frame.line
    return described


# -- What all workers have sampled of one job's handler, as it comes. --------------------------------------------------

#: The most stacks that are kept: of the job, of a worker, and of each of the slowest items.
MOST_STACKS, MOST_OF_WORKER, MOST_OF_ITEM = 5_000, 1_000, 500
#: The number of items whose stacks are kept.
SLOWEST = 10


class Merged(NamedTuple):
    """Seconds by stack: of all workers, of each worker, and, by index, of the items with most seconds."""

    whole: dict[Stack, float]
    workers: dict[int, dict[Stack, float]]
    items: dict[int, dict[Stack, float]]


class JobSamples:
    """The samples of one job. Satisfies `mpqueue._core.state.job_book.Samples`. Any thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self.begin()

    def begin(self) -> None:
        """Forget the samples of an earlier run, as the job starts."""
        with self._lock:
            self._whole = Stacks(MOST_STACKS)
            self._workers: dict[int, Stacks] = {}
            self._items: dict[int, Stacks] = {}
            self._of_item: dict[int, float] = {}
            self._known: dict[Stack, Stack] = {}

    def keep(self, lane: int, indices: Sequence[int], data: bytes) -> None:
        """Add a worker's samples of these items. Costs 10 to 20 us."""
        with self._lock:
            worker = self._workers.setdefault(lane, Stacks(MOST_OF_WORKER))
            items: dict[int, list[tuple[Stack, float]]] = {}
            for position, loaded, seconds in load_stacks(data):
                if position < len(indices):  # later items were given to other workers
                    stack = self._known.setdefault(loaded, loaded)
                    self._whole.add(stack, seconds)
                    worker.add(stack, seconds)
                    items.setdefault(indices[position], []).append((stack, seconds))
            for index, samples in items.items():
                self._keep_item(index, samples)
            if len(self._known) > 2 * MOST_STACKS:
                self._known = {stack: stack for stack in self._whole.seconds}

    def merged(self) -> Merged:
        """Return all samples."""
        with self._lock:
            return Merged(
                dict(self._whole.seconds),
                {lane: dict(stacks.seconds) for lane, stacks in self._workers.items()},
                {index: dict(stacks.seconds) for index, stacks in self._items.items()},
            )

    def _keep_item(self, index: int, samples: list[tuple[Stack, float]]) -> None:
        """Keep the item's stacks if it is among the slowest. Earlier tries of an item that was not are lost."""
        took = self._of_item.get(index, 0.0) + sum(seconds for _, seconds in samples)
        if index not in self._items:
            if len(self._items) >= SLOWEST:
                least = min(self._of_item, key=self._of_item.__getitem__)
                if took <= self._of_item[least]:
                    return
                del self._items[least], self._of_item[least]
            self._items[index] = Stacks(MOST_OF_ITEM)
        self._of_item[index] = took
        for stack, seconds in samples:
            self._items[index].add(stack, seconds)
