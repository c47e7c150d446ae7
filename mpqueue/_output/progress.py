"""``progress=``: a bar, or a function of the user's, that gets a job's progress ten times a second.

It looks at the job's books, so a job costs the same with it and without it, however many items it has. It runs on the
queue's listener thread, and is over before the job's run resolves.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Sequence, Sized
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from mpqueue._output.bars import Bar, can_draw, open_bar
from mpqueue.errors import shown
from mpqueue.status import JobStatus

if TYPE_CHECKING:
    from mpqueue._core.state.job_book import JobBook
    from mpqueue._parent.listeners import ListenerThread

log = logging.getLogger("mpqueue")

#: Seconds between two looks.
INTERVAL = 0.1
#: Seconds that an interruption waits for what is being drawn.
PATIENCE = 1.0


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a job is. ``total`` is None where the end of the input is not known yet; times are seconds."""

    job_id: str
    status: JobStatus
    total: int | None
    completed: int
    failed: int
    retries: int  #: tries that failed and were followed by another, so far
    running: float  #: what running items have done, by their handlers' `report`: 0.5 for one that is half done
    elapsed: float  #: since the start
    already: int = 0  #: how many had ended before: in a job whose failed items are run again

    @property
    def done(self) -> float:
        """How many items are done, running ones by the fraction that their handlers reported."""
        return self.completed + self.failed + self.running

    @property
    def fraction(self) -> float | None:
        """From 0 to 1; None where the total is not known."""
        if self.total is None:
            return None
        return min(self.done / self.total, 1.0) if self.total else 1.0

    @property
    def rate(self) -> float | None:
        """Items a second since the start; None before the first."""
        done = self.done - self.already
        return done / self.elapsed if done > 0 and self.elapsed > 0 else None

    @property
    def eta(self) -> float | None:
        """Seconds to the end at this rate; None if unknown."""
        if self.total is None or self.rate is None:
            return None
        return max(self.total - self.done, 0.0) / self.rate

    @property
    def troubles(self) -> str:
        """``"1 failed, 2 retries"``; empty where there were none."""
        retries = f"{self.retries} retr{'y' if self.retries == 1 else 'ies'}"
        return ", ".join([f"{self.failed} failed"] * bool(self.failed) + [retries] * bool(self.retries))


ShowProgress = bool | Callable[[Progress], object]


def check_progress(value: object) -> None:
    """Raise TypeError unless it is True, False or a callable."""
    if not isinstance(value, bool) and not callable(value):
        raise TypeError(
            f"progress: expected True, False or a callable, got {shown(value)} of type {type(value).__name__}"
        )


@dataclass(frozen=True, slots=True)
class Showing:
    """What is to be shown of one run, checked."""

    progress: ShowProgress = False
    label: str | None = None  #: before the bar
    total: Callable[[JobBook], int | None] = lambda book: len(book.table)

    def __post_init__(self) -> None:
        check_progress(self.progress)


def label_of(function: object) -> str | None:
    """What to write before the bar of a call of it."""
    name = getattr(function, "__name__", None)
    return name if isinstance(name, str) and name.isidentifier() else None


def showing_stream(progress: ShowProgress, function: object, items: object) -> Showing:
    """For a stream: the total is known where the input has a length, else when it has been read."""
    hint = length_of(items)
    return Showing(progress, label_of(function), lambda book: len(book.table) if book.sealed else hint)


def length_of(items: object) -> int | None:
    """How many items there are; None where that is not known: some have a length and can't tell it, such as tqdm's."""
    try:
        return len(items) if isinstance(items, Sized) else None
    except Exception:  # noqa: BLE001 - whatever it raises, the length is not known
        return None


class Display:
    """Shows how far one run of a job is, from `begin` to `end`."""

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
        self._label = showing.label
        self._total = showing.total
        self._bar: Bar | None = None
        self._started = now()
        self._already = 0
        self._retries_before = book.retries
        self._lock = threading.RLock()
        self._ended = False

    @property
    def draws(self) -> bool:
        """True where it is a bar, not a function of the user's."""
        return self._show is None

    def begin(self) -> None:
        """The job has started."""
        self._already = self._book.completed + self._book.failed
        self._thread.post(self._look)

    def end(self) -> None:
        """Show the last state. Once; returns when it is shown, or where what is being drawn is stuck."""
        if not self._lock.acquire(timeout=PATIENCE):
            return
        try:
            if self._ended:
                return
            self._ended = True
            self._tell(self._progress())
            if self._bar is not None:
                self._bar.close()
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
                    return  # `end` tells the last state, once
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
                self._show = _show_nothing
            self._book.timings.heard.seconds += self._now() - began
            return
        if self._bar is None:
            self._bar = open_bar(self._label, progress)
        self._bar.draw(progress)

    def _progress(self) -> Progress:
        book = self._book
        return Progress(
            job_id=book.id,
            status=book.status,
            total=self._total(book),
            completed=book.completed,
            failed=book.failed,
            retries=book.retries - self._retries_before,
            running=sum(book.table.live.running().values()),
            elapsed=self._now() - self._started,
            already=self._already,
        )


class StagesDisplay:
    """The displays of a pipeline's stages, one below the other."""

    def __init__(self, displays: Sequence[Display]) -> None:
        self._displays = displays

    @property
    def draws(self) -> bool:
        """See `Display.draws`."""
        return any(display.draws for display in self._displays)

    def begin(self) -> None:
        """See `Display.begin`."""
        for display in self._displays:
            display.begin()

    def end(self) -> None:
        """See `Display.end`."""
        for display in self._displays:
            display.end()


def display_stages(
    progress: ShowProgress, head: JobBook, thread: ListenerThread, now: Callable[[], float]
) -> StagesDisplay | None:
    """A line for each stage; a callable gets the head too. None if it would not be seen."""
    check_progress(progress)
    books = head.family if callable(progress) else head.family[1:]
    displays = [make_display(Showing(progress, book.id, _total_of_stage), book, thread, now) for book in books]
    shown_ones = [display for display in displays if display is not None]
    return StagesDisplay(shown_ones) if shown_ones else None


def _total_of_stage(book: JobBook) -> int | None:
    if book.stage is None or book.sealed:
        return len(book.table)
    pipeline = book.stage.pipeline
    return None if pipeline.has_spread else pipeline.total


def _show_nothing(_: Progress) -> None:
    pass


def make_display(showing: Showing, book: JobBook, thread: ListenerThread, now: Callable[[], float]) -> Display | None:
    """The display that was asked for; None if it would not be seen.

    Without a terminal or a notebook, `True` is lines for a log.
    """
    progress = showing.progress
    if progress is False:
        return None
    if progress is True:
        from mpqueue._output.log_lines import LogLines, are_wanted, is_silenced

        if is_silenced():
            return None
        if not can_draw():
            if not are_wanted():
                return None
            showing = replace(showing, progress=LogLines(lambda _: showing.label or ""))
    return Display(book, showing, thread, now)
