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

from mpqueue._options import check_progress
from mpqueue._output.bars import Bar, can_draw, describe, open_bar, write_below
from mpqueue._output.job_facts import Progress, Total, Watch, total_of
from mpqueue._text import visible_line
from mpqueue._worker import worker_links

if TYPE_CHECKING:
    from mpqueue._core.state.job_book import JobBook, JobView
    from mpqueue._parent.listeners import ListenerThread

log = logging.getLogger("mpqueue")

#: Seconds between two looks.
INTERVAL = 0.1
#: Seconds that an interruption waits for a drawing that has begun.
DRAWING_WAIT_S = 1.0
#: Groups of failures below a bar.
MOST_GROUPS = 5
#: Seconds between two lines in a log.
LINE_EVERY = 5.0
#: ``0``: `progress=True` shows nothing.
VARIABLE = "MPQUEUE_PROGRESS"


ShowProgress = bool | Callable[[Progress], object]


@dataclass(frozen=True, slots=True)
class Showing:
    """The checked choice of what to show of one run."""

    progress: ShowProgress = False
    label: str | None = None  #: before the bar
    total: Callable[[JobView], Total] = total_of
    failures: bool = False  #: shown at the end: the job's failures in groups

    def __post_init__(self) -> None:
        check_progress("progress", self.progress)


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
        self._failures = showing.failures
        self._thread = thread
        self._now = now
        self._bar: Bar | None = None
        self._show: Callable[[Progress], object]
        if callable(showing.progress):
            self._show = showing.progress
        else:
            self._bar = open_bar(showing.label)
            self._show = self._bar.draw
        self._watch = Watch(book, showing.total)
        self._lock = threading.RLock()
        self._ended = False

    @property
    def draws(self) -> bool:
        """True if the display is a bar, not a user's function."""
        return self._bar is not None

    def begin(self) -> None:
        """Begin to show the job, which has started."""
        self._thread.post(self._look)

    def end(self) -> None:
        """Show the last state, once; returns when it is shown, or if the drawing is stuck."""
        if not self._lock.acquire(timeout=DRAWING_WAIT_S):
            return
        try:
            if not self._ended:
                self._ended = True
                self._tell(self._progress())
                if self._bar is not None:
                    self._bar.close()
                if self._failures and self._book.failed:
                    self._tell_failures()
        except Exception:  # the run resolves all the same
            log.exception("showing the end of a job's progress failed")
        finally:
            self._lock.release()

    def _look(self) -> None:
        with self._lock:
            if self._ended:
                return
            progress = self._progress()
            if progress.status.final:
                return  # `end` shows the last state, once
            self._tell(progress)
            # Negative: the announcer's timers have the jobs' numbers.
            self._thread.call_at(-self._book.number, self._now() + INTERVAL, self._look)

    def _tell(self, progress: Progress) -> None:
        began = self._now()
        caught = Exception if self.draws else BaseException  # Ctrl-C may come while a bar is drawn on the main thread
        try:
            self._show(progress)
        except caught:
            log.exception("the progress callable raised (%r); it is not called again, the job goes on", self._show)
            self._show = lambda _: None
        self._book.timings.heard.seconds += self._now() - began

    def _tell_failures(self) -> None:
        from mpqueue._output.failure_groups import MOST_FAILED, groups_of, shown_groups  # few programs need it

        groups = groups_of(self._book.table, MOST_FAILED)
        write_below(f"  {text}" for text in shown_groups(groups, MOST_GROUPS))

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
    """False if lines about progress would not be read: in tests run by pytest."""
    return "PYTEST_CURRENT_TEST" not in os.environ


def is_silenced() -> bool:
    """True for a job inside a worker, and if the user wants to see no progress in any program."""
    return os.environ.get(VARIABLE) == "0" or worker_links.here() is not None


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
