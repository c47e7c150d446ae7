"""``progress=``: a bar, lines for a log, or a user's function, which gets a job's progress 10 times per second.

It reads the job's books, so it costs a job nothing per item. It runs on the queue's listener thread, and is over before
the job's run resolves.

A bar is a line for each job on a terminal, or a piece of the cell in a notebook. Other output to the terminal goes
through `aside`. A queue draws on its listener thread; several queues may draw at once.
"""

from __future__ import annotations

import contextlib
import logging
import math
import os
import sys
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence, Sized
from dataclasses import dataclass, field, replace
from math import inf
from typing import TYPE_CHECKING, Any

from mpqueue._options import check_progress
from mpqueue._os.standard_streams import understand_codes
from mpqueue._output.job_facts import Progress, Total, Watch, total_of
from mpqueue._text import counted, done, fitting, minutes, rate, visible_line
from mpqueue._worker import worker_links

if TYPE_CHECKING:
    from mpqueue._core.state.job_book import JobBook, JobView
    from mpqueue._parent.listeners import ListenerThread


#: Characters of a bar in a log; and the least share of a terminal's line that a bar has, if there are enough columns.
WIDTH, SHARE, LEAST_COLUMNS = 20, 3, 45
#: The least width at which a shortened label is shown.
LEAST_LABEL = 6
#: Columns of a terminal that does not know its width, and of a notebook.
NARROW, WIDE = 80, 200
#: Clear everything right of the cursor and below; right of it; and go a line up.
_CLEAR, _CLEAR_LINE, _UP = "\x1b[J", "\x1b[K", "\x1b[A"
#: How a bar is drawn on a terminal.
_BLOCKS = str.maketrans({"#": "█", ".": "░"})


def can_draw() -> bool:
    """True if a bar would be seen: stderr is a terminal that moves its cursor, or this is a notebook."""
    try:
        is_terminal = sys.stderr is not None and sys.stderr.isatty()
    except ValueError:  # closed
        is_terminal = False
    return (is_terminal and os.environ.get("TERM") != "dumb") or in_notebook()


def in_notebook() -> bool:
    """True in a cell of a notebook."""
    ipython = sys.modules.get("IPython")
    shell = ipython.get_ipython() if ipython is not None else None
    return shell is not None and "IPKernelApp" in shell.config


def write_below(lines: Iterable[str]) -> None:
    """Write lines for people on stderr without tearing a bar."""
    stream = sys.stderr
    with aside(), contextlib.suppress(OSError, ValueError, AttributeError):  # it is closed, or missing
        stream.writelines(f"{fitting(visible_line(line), stream)}\n" for line in lines)
        stream.flush()


def are_shown() -> bool:
    """True while a bar is shown."""
    return bool(_bars)


@contextlib.contextmanager
def aside() -> Iterator[None]:
    """Keep text that is written to stdout or stderr in the block from tearing a bar."""
    with _drawing:
        if not _on_terminal():
            yield
            return
        _write(f"\r{_CLEAR}")
        try:
            yield
        finally:
            _draw()


# -- bars --------------------------------------------------------------------------------------------------------------

#: The bars that were drawn and are open. The cursor stays at the line of the first one.
_bars: list[Bar] = []
_drawing = threading.RLock()


class TerminalBar:
    """A line of the terminal."""

    def __init__(self, label: str | None) -> None:
        self._label = label
        self.text = ""

    def draw(self, progress: Progress) -> None:
        """Show the job's progress."""
        columns = NARROW - 1
        with contextlib.suppress(OSError, ValueError):
            columns = (os.get_terminal_size(sys.stderr.fileno()).columns or NARROW) - 1
        head, tail = _around(progress, self._label, columns)
        space = " " * head.endswith("%")
        room = min(_share(progress, columns), columns - len(head) - len(tail))
        bar = _drawn(progress, room - len(space)).translate(_BLOCKS)
        self.text = fitting(head + space + bar + tail, sys.stderr)[:columns]
        with _drawing:
            _open(self)
            _draw()

    def close(self) -> None:
        """Leave the bar on the terminal, and go on below."""
        with _drawing:
            _bars.remove(self)
            _write(f"\r{_CLEAR}{self.text}\n")
            _draw()


class NotebookBar:
    """An output of a notebook's cell."""

    def __init__(self, label: str | None) -> None:
        self._label = label
        self._shown: Any = None

    def draw(self, progress: Progress) -> None:
        """Show the job's progress."""
        _open(self)
        head, tail = _around(progress, self._label, WIDE)
        value = "" if progress.fraction is None else f' value="{progress.fraction:.3f}"'
        from html import escape  # in a notebook

        html = f"<label><code>{escape(head)}</code> <progress{value}></progress> <code>{escape(tail)}</code></label>"
        content = {"text/plain": f"{head} {_drawn(progress, WIDTH + 3)}{tail}", "text/html": html}
        if self._shown is None:
            from IPython.display import display  # it is there: this is a notebook

            self._shown = display(content, raw=True, display_id=True)  # type: ignore[no-untyped-call, unused-ignore]
        else:
            self._shown.update(content, raw=True)

    def close(self) -> None:
        """Leave the bar in the cell."""
        _bars.remove(self)


Bar = TerminalBar | NotebookBar


def _open(bar: Bar) -> None:
    if bar not in _bars:
        _bars.append(bar)


def _on_terminal() -> list[TerminalBar]:
    return [bar for bar in _bars if isinstance(bar, TerminalBar)]


def _draw() -> None:
    """Draw all bars of the terminal from the cursor's line down, and go back there."""
    lines = [bar.text for bar in _on_terminal()]
    if lines:
        _write("\r" + f"{_CLEAR_LINE}\n\r".join(lines) + _CLEAR_LINE + _UP * (len(lines) - 1))


def _write(text: str) -> None:
    with contextlib.suppress(OSError, ValueError):  # the terminal is gone; the job goes on
        sys.stderr.write(text)
        sys.stderr.flush()


# -- texts -------------------------------------------------------------------------------------------------------------


def describe(progress: Progress) -> str:
    """Return one line for a log: ``[####......] 40/100  1 failed  12.3/s  0:05 left``."""
    return _drawn(progress, WIDTH + 3) + "  ".join(_words(progress)[0])


def _drawn(progress: Progress, width: int) -> str:
    """The bar in its brackets, and a space; empty if there is no total, or no room."""
    if not progress.total or progress.fraction is None or width <= 3:
        return ""
    filled = int((width - 3) * progress.fraction)
    return f"[{'#' * filled}{'.' * (width - 3 - filled)}] "


def _words(progress: Progress) -> Sequence[Sequence[str]]:
    """Return the words beside the bar: all of them, then fewer and fewer, but always the failures and the time left."""
    ended = counted(progress.ended, "item") if progress.total is None else f"{progress.ended}/{progress.total}"
    if progress.starting and not progress.done:
        return [[ended, f"starting {counted(progress.starting, 'worker')}"], [ended, "starting"]]
    left = progress.eta
    time = f"{minutes(math.ceil(left))} left" if left else minutes(progress.elapsed)
    troubles = [progress.troubles] * bool(progress.troubles)
    failed = [f"{progress.failed} failed"] * bool(progress.failed)
    speed = [rate(progress.rate)] if progress.rate is not None else []
    return [[ended, *troubles, *speed, time], [ended, *troubles, time], [ended, *failed, time]]


def _share(progress: Progress, columns: int) -> int:
    """Return how many columns the bar has at least."""
    return 0 if progress.fraction is None or columns < LEAST_COLUMNS else columns // SHARE


def _around(progress: Progress, label: str | None, columns: int) -> tuple[str, str]:
    """Return the texts before and after the bar, short enough to leave the bar its share of the line.

    If there is no room for the counts, the failures and the time left are there, and the share that is done.
    """
    words = _words(progress)
    tails = ["  ".join(each) for each in words]
    share = "" if progress.fraction is None else f"{done(progress.fraction):>4}"
    room = columns - _share(progress, columns)
    heads = [f"{label}: {share}", f"{label}: "] if label else [share, ""]
    for head in heads:
        for tail in tails:
            if len(head) + len(tail) <= room:
                return head, tail
    cut = room - len(tails[-1]) - len("...: ")
    if label and cut + len("...") >= LEAST_LABEL:
        return f"{label[:cut]}...: ", tails[-1]
    if len(tails[-1]) <= room:
        return "", tails[-1]
    return share, "  ".join(words[-1][1:])


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
            understand_codes()
            label = None if showing.label is None else fitting(visible_line(showing.label), sys.stderr)
            self._bar = NotebookBar(label) if in_notebook() else TerminalBar(label)
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
                    from mpqueue._output.failure_groups import MOST_FAILED, groups_of, shown_groups  # few need it

                    groups = groups_of(self._book.table, MOST_FAILED)
                    write_below(f"  {text}" for text in shown_groups(groups, MOST_GROUPS))
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
