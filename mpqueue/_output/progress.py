"""``progress=``: a bar, lines for a log, or a user's function, which gets a job's progress 10 times per second.

It reads the job's books, so it costs a job nothing per item. It runs on the queue's listener thread, and is over before
the job's run resolves.
"""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Callable, Sized
from dataclasses import dataclass, field, replace
from math import inf
from typing import TYPE_CHECKING

from mpqueue._output.bars import Bar, can_draw, describe, open_bar, write_below
from mpqueue._output.job_facts import Progress, Total, Watch, total_of
from mpqueue._text import visible_line
from mpqueue._worker import station
from mpqueue.errors import shown

if TYPE_CHECKING:
    from mpqueue._core.state.job_book import JobBook, JobView
    from mpqueue._parent.listeners import ListenerThread

log = logging.getLogger("mpqueue")

#: Seconds between two looks.
INTERVAL = 0.1
#: Seconds that an interruption waits for a drawing that has begun.
PATIENCE = 1.0
#: Groups of failures below a bar.
MOST_GROUPS = 5
#: Seconds between two lines in a log.
LINE_EVERY = 5.0
#: ``0``: `progress=True` shows nothing.
VARIABLE = "MPQUEUE_PROGRESS"


ShowProgress = bool | Callable[[Progress], object]


def check_progress(value: object) -> None:
    """Raise TypeError unless it is True, False or a callable."""
    if not isinstance(value, bool) and not callable(value):
        raise TypeError(
            f"progress: expected True, False or a callable, got {shown(value)} of type {type(value).__name__}"
        )


@dataclass(frozen=True, slots=True)
class Showing:
    """The checked choice of what to show of one run."""

    progress: ShowProgress = False
    label: str | None = None  #: before the bar
    total: Callable[[JobView], Total] = total_of
    failures: bool = False  #: shown at the end: the job's failures in groups

    def __post_init__(self) -> None:
        check_progress(self.progress)


def label_of(function: object) -> str | None:
    """Return the text before the bar of a call of the function: its name; None if that is no identifier."""
    name = getattr(function, "__name__", None)
    return name if isinstance(name, str) and name.isidentifier() else None


def showing_stream(progress: ShowProgress, function: object, items: object) -> Showing:
    """The choice for a stream: the total is known if the input has a length, else once it has been read."""
    hint = length_of(items)
    return Showing(progress, label_of(function), lambda book: Total(book.total if book.sealed else hint))


def length_of(items: object) -> int | None:
    """Return the number of items, or None if it is not known: some objects have a length but can't tell it (tqdm's)."""
    try:
        return len(items) if isinstance(items, Sized) else None
    except Exception:  # noqa: BLE001 - whatever it raises, the length is not known
        return None


class Display:
    """Shows the progress of one run of a job, from `begin` to `end`."""

    def __init__(
        self,
        book: JobBook,
        showing: Showing,
        thread: ListenerThread,
        now: Callable[[], float],
    ) -> None:
        self._book = book
        self._show = None if isinstance(showing.progress, bool) else showing.progress
        self._thread = thread
        self._now = now
        self._showing = showing
        self._bar: Bar | None = None
        self._watch = Watch(book, showing.total)
        self._lock = threading.RLock()
        self._ended = False

    @property
    def draws(self) -> bool:
        """True if the display is a bar, not a user's function."""
        return self._show is None

    def begin(self) -> None:
        """Begin to show the job, which has started."""
        self._thread.post(self._look)

    def end(self) -> None:
        """Show the last state, once; returns when it is shown, or if the drawing is stuck."""
        if not self._lock.acquire(timeout=PATIENCE):
            return
        try:
            if self._ended:
                return
            self._ended = True
            self._tell(self._progress())
            if self._bar is not None:
                self._bar.close()
            if self._showing.failures and self._book.failed:
                from mpqueue._output.failure_groups import (
                    MOST_FAILED,
                    groups_of,
                    shown_groups,
                )  # which few programs need

                groups = groups_of(self._book.table, MOST_FAILED)
                write_below(f"  {text}" for text in shown_groups(groups, MOST_GROUPS))
        except Exception:
            log.exception("showing the end of a job's progress failed")
        finally:
            self._lock.release()

    def _look(self) -> None:
        with self._lock:
            if self._ended:
                return
            try:
                progress = self._progress()
                if progress.status.final:
                    return  # `end` shows the last state, once
                self._tell(progress)
            except Exception:  # the terminal is gone, say
                log.exception("showing a job's progress failed; it is not shown any more, the job goes on")
                return
            # Negative: the announcer's timers have the jobs' numbers.
            self._thread.call_at(-self._book.number, self._now() + INTERVAL, self._look)

    def _tell(self, progress: Progress) -> None:
        if self._show is not None:
            began = self._now()
            try:
                self._show(progress)
            except BaseException:
                log.exception("the progress callable raised (%r); it is not called again, the job goes on", self._show)
                self._show = lambda _: None
            self._book.timings.heard.seconds += self._now() - began
            return
        if self._bar is None:
            self._bar = open_bar(self._showing.label)
        self._bar.draw(progress)

    def _progress(self) -> Progress:
        return self._watch.look(self._now(), sum(self._book.table.live.running().values()))


@dataclass(eq=False)
class LogLines:
    """Writes a line every 5 s, and one at the end, for each job that takes at least that many seconds."""

    label: Callable[[Progress], str]
    write: Callable[[str], object] = lambda line: write_below([line])
    least: float = 1.0
    _next: dict[str, float] = field(default_factory=dict)  #: the time of each job's next line

    def __call__(self, progress: Progress) -> None:
        """Write a line if one is due."""
        due = self._next.get(progress.job_id, LINE_EVERY)
        is_last = progress.status.final and due < inf and progress.elapsed >= self.least
        if progress.elapsed >= due or is_last:
            self._next[progress.job_id] = inf if progress.status.final else progress.elapsed + LINE_EVERY
            label = self.label(progress)
            self.write(visible_line(f"{label}: {describe(progress)}" if label else describe(progress)))


def are_wanted() -> bool:
    """False if lines about progress would not be read: in tests run by pytest, and for a job inside a worker."""
    return "PYTEST_CURRENT_TEST" not in os.environ and station.here() is None


def is_silenced() -> bool:
    """True if the user wants to see no progress in any program."""
    return os.environ.get(VARIABLE) == "0"


def make_displays(
    showing: Showing, book: JobBook, thread: ListenerThread, now: Callable[[], float], *, failures: bool
) -> list[Display]:
    """Return the chosen displays; none if they would not be seen.

    A pipeline has one for each stage, and a callable gets its head, too. Without a terminal or a notebook, `True` means
    lines for a log. With ``failures`` it ends with the job's failures, in groups; a call such as `map` raises them
    instead.
    """
    if book.pipeline is not None:
        books = book.family if callable(showing.progress) else book.family[1:]
        showings = [(replace(showing, label=stage.id), stage) for stage in books]
    else:
        showings = [(showing, book)]
    seen = [(_as_seen(each, failures=failures and one.listed), one) for each, one in showings]
    return [Display(one, each, thread, now) for each, one in seen if each is not None]


def _as_seen(showing: Showing, *, failures: bool) -> Showing | None:
    if showing.progress is not True:
        return showing if showing.progress else None
    if is_silenced() or not (can_draw() or are_wanted()):
        return None
    lines: ShowProgress = True if can_draw() else LogLines(lambda _: showing.label or "")
    return replace(showing, progress=lines, failures=failures)
