"""Bars: progress on a terminal or in a notebook, drawn with tqdm, or without it as one plain line.

Other output to the terminal goes through `aside`. A queue draws on its listener thread; several queues may draw at
once.
"""

from __future__ import annotations

import contextlib
import os
import sys
import threading
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import cache
from typing import TYPE_CHECKING, Any, TextIO

from mpqueue._os.standard_streams import understand_codes
from mpqueue._output.words import counted, done, minutes, rate
from mpqueue._text import fitting, visible_line
from mpqueue._worker import station

if TYPE_CHECKING:
    from mpqueue._output.job_facts import Progress

#: Characters of a bar in a log; and the least share of a terminal's line that a bar has, if there are enough columns.
WIDTH, SHARE, LEAST_COLUMNS = 20, 3, 45
#: The least width at which a shortened label is shown.
LEAST_LABEL = 6
#: Columns of a notebook, and of a terminal that does not know its width.
NARROW, WIDE = 80, 200
#: Go to the line's start, and clear everything right of it and below.
_CLEAR = "\r\x1b[J"
#: Held while bars begin or end, and while other text is written.
_coming_and_going = threading.RLock()
#: The format of tqdm's bar: the texts around it are made here.
_SHAPE, _NO_BAR = "{head}|{bar}| {tail}", "{head}{tail}"


def can_draw() -> bool:
    """True if a bar would be seen: stderr is a terminal, or this is a notebook."""
    return _is_terminal(sys.stderr) or in_notebook()


def open_bar(label: str | None, first: Progress) -> Bar:
    """Return a bar, drawn with tqdm if it is installed; else a plain line, with one warning."""
    understand_codes()
    label = None if label is None else fitting(visible_line(label), _stderr())
    try:
        return TqdmBar(label, first)
    except ImportError:
        _warn_once()
        return PlainBar(label)


@cache
def _warn_once() -> None:
    warnings.warn(
        "progress: tqdm is not installed, so a plain line shows it; `pip install 'mpqueue[progress]'` makes it a bar",
        RuntimeWarning,
        stacklevel=2,
    )


def _stderr() -> TextIO:
    """Return the stream of the bars: in a worker, the stream below the one that keeps prints from tearing bars."""
    from mpqueue._worker.chunk.capture import BesideBar

    return sys.stderr.under if isinstance(sys.stderr, BesideBar) else sys.stderr


def _is_terminal(stream: TextIO | None) -> bool:
    try:
        return stream is not None and stream.isatty()
    except ValueError:  # closed
        return False


def in_notebook() -> bool:
    """True in a cell of a notebook."""
    ipython = sys.modules.get("IPython")
    shell = ipython.get_ipython() if ipython is not None else None
    return shell is not None and "IPKernelApp" in shell.config


def _columns(stream: TextIO) -> int | None:
    """Return the terminal's width in columns; 0 if it does not know, None if the stream is no terminal."""
    with contextlib.suppress(OSError, ValueError):
        return os.get_terminal_size(stream.fileno()).columns
    return None


def _width() -> int:
    """Return the width of a line on stderr, in columns."""
    return _columns(_stderr()) or NARROW


def write_below(lines: Iterable[str]) -> None:
    """Write lines for people on stderr without tearing a bar."""
    stream = _stderr()
    with aside(), contextlib.suppress(OSError, ValueError, AttributeError):  # it is closed, or missing
        stream.writelines(f"{fitting(visible_line(line), stream)}\n" for line in lines)
        stream.flush()


def are_shown() -> bool:
    """True while a bar is shown."""
    return TqdmBar.opened > 0 or bool(_plain_line.bars)


@contextlib.contextmanager
def aside() -> Iterator[None]:
    """Keep text that is written to stdout or stderr in the block from tearing a bar."""
    with _coming_and_going, contextlib.ExitStack() as stack:
        if _plain_line.bars:
            stack.enter_context(_plain_line.aside())
        if TqdmBar.opened:
            stack.enter_context(_tqdm_class().external_write_mode(file=_stderr()))
        yield


# -- tqdm --------------------------------------------------------------------------------------------------------------


@cache
def _tqdm_class() -> Any:
    """Return the tqdm class for this terminal or notebook; it counts whole items, and starts no thread."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a notebook without ipywidgets gets the text bar
        from tqdm.auto import tqdm

    class Counting(tqdm):  # type: ignore[misc, unused-ignore]
        monitor_interval = 0  # tqdm's thread redraws bars that stand still: we draw them ourselves

        @property
        def format_dict(self) -> dict[str, Any]:
            """The values that the bar shows."""
            return {**super().format_dict, "head": getattr(self, "head", ""), "tail": getattr(self, "tail", "")}

    return Counting


class TqdmBar:
    """A bar of tqdm. Several jobs' bars stand one below the other, and bars of jobs inside a worker below those."""

    opened = 0  #: the number of bars

    def __init__(self, label: str | None, first: Progress) -> None:
        here, self._label = station.here(), label
        columns = NARROW if _columns(_stderr()) == 0 else None
        with _coming_and_going:
            self._bar = _tqdm_class()(
                total=first.total,
                initial=first.ended,
                bar_format=_NO_BAR,
                mininterval=0,
                miniters=0,
                ncols=columns,
                dynamic_ncols=columns is None,
                position=None if here is None else 1 + here.lane,
                leave=here is None,
                file=_stderr(),
            )
            TqdmBar.opened += 1

    def draw(self, progress: Progress) -> None:
        """Show the job's progress; running items count by the fraction that their handlers reported."""
        bar = self._bar
        bar.total = progress.total
        columns = WIDE if in_notebook() else _width()
        bar.head, bar.tail = _around(progress, self._label, columns, _bracketed)
        bar.bar_format = _NO_BAR if progress.total is None else _SHAPE
        now = progress.done if progress.total is not None else progress.ended
        moved = now - bar.n
        if moved > 0:
            bar.update(moved)  # it draws the bar, and measures the rate
        else:
            bar.n = now
            bar.refresh()

    def close(self) -> None:
        """Leave the bar on the terminal, and go on below."""
        bar, ours = self._bar, type(self._bar)
        with _coming_and_going, ours.get_lock():
            TqdmBar.opened -= 1
            # tqdm would leave a copy of each bar below, and a gap in this one's place.
            others = [one for one in ours._instances if isinstance(one, ours) and one is not bar]  # noqa: SLF001
            for one in others:
                one.clear(nolock=True)
            place = bar.pos
            bar.close()
            for one in others:
                if one.pos > place >= 0:
                    one.pos -= 1
                one.refresh(nolock=True)


# -- plain -------------------------------------------------------------------------------------------------------------


class PlainBar:
    """A bar without tqdm; several share one line."""

    def __init__(self, label: str | None) -> None:
        self._label = label
        self.text = ""
        _plain_line.add(self)

    def draw(self, progress: Progress) -> None:
        """Show the job's progress."""
        columns = _width() // len(_plain_line.bars) - len(_plain_line.BETWEEN)
        head, tail = _around(progress, self._label, columns, _JOIN)
        space = " " * head.endswith("%")
        self.text = head + space + _drawn(progress, _share(progress, columns) - len(space)) + tail
        _plain_line.draw()

    def close(self) -> None:
        """Leave the bar on the terminal, and go on below."""
        _plain_line.remove(self)


Bar = TqdmBar | PlainBar


# -- texts -------------------------------------------------------------------------------------------------------------


def describe(progress: Progress) -> str:
    """Return one line for a log: ``[####......] 40/100  1 failed  12.3/s  0:05 left``."""
    return _drawn(progress, WIDTH + 3) + _JOIN(_words(progress)[0])


_JOIN = "  ".join


def _bracketed(words: Sequence[str]) -> str:
    """Join the words as tqdm does: counts before, times and rate in brackets."""
    *counts, last = words
    rates = [counts.pop()] if counts[1:] and counts[-1].endswith("/s") else []
    return f"{', '.join(counts)} [{', '.join([last, *rates])}]"


def _drawn(progress: Progress, width: int) -> str:
    """The bar in its brackets, and a space; empty if there is no total, or no room."""
    if not progress.total or progress.fraction is None or width <= 3:
        return ""
    filled = int((width - 3) * progress.fraction)
    return f"[{'#' * filled}{'.' * (width - 3 - filled)}] "


def _words(progress: Progress) -> Sequence[Sequence[str]]:
    """Return the words beside the bar: all of them, then fewer and fewer, but always the failures and the time left."""
    ended = f"{progress.ended} items" if progress.total is None else f"{progress.ended}/{progress.total}"
    if progress.starting and not progress.done:
        return [[ended, f"starting {counted(progress.starting, 'worker')}"], [ended, "starting"]]
    left = progress.eta
    time = f"{minutes(left)} left" if left else minutes(progress.elapsed)
    troubles = [progress.troubles] * bool(progress.troubles)
    failed = [f"{progress.failed} failed"] * bool(progress.failed)
    speed = [rate(progress.rate)] if progress.rate is not None else []
    return [[ended, *troubles, *speed, time], [ended, *troubles, time], [ended, *failed, time]]


def _share(progress: Progress, columns: int) -> int:
    """Return how many columns the bar has at least."""
    return 0 if progress.fraction is None or columns < LEAST_COLUMNS else columns // SHARE


def _around(
    progress: Progress, label: str | None, columns: int, join: Callable[[Sequence[str]], str]
) -> tuple[str, str]:
    """Return the texts before and after the bar, short enough to leave the bar its share of the line."""
    tails = [join(words) for words in _words(progress)]
    share = "" if progress.fraction is None else f"{done(progress.fraction):>4}"
    room = columns - _share(progress, columns)
    heads = [f"{label}: {share}", f"{label}: "] if label else [share, ""]
    for head in heads:
        for tail in tails:
            if len(head) + len(tail) <= room:
                return head, tail
    cut = room - len(tails[-1]) - len("...: ")
    return (f"{label[:cut]}...: " if label and cut + len("...") >= LEAST_LABEL else ""), tails[-1]


class _PlainLine:
    """The one line that all plain bars share."""

    BETWEEN = " | "

    def __init__(self) -> None:
        self.bars: list[PlainBar] = []
        self._lock = threading.RLock()

    def add(self, bar: PlainBar) -> None:
        with self._lock:
            self.bars.append(bar)

    def remove(self, bar: PlainBar) -> None:
        with self._lock:
            self.bars.remove(bar)
            self._write(f"{_CLEAR}{bar.text}\n")
            self.draw()

    def draw(self) -> None:
        with self._lock:
            text = self.BETWEEN.join(bar.text for bar in self.bars)
            self._write(_CLEAR + text[: _width() - 1])

    @contextlib.contextmanager
    def aside(self) -> Iterator[None]:
        with self._lock:
            self._write(_CLEAR)
            try:
                yield
            finally:
                self.draw()

    def _write(self, text: str) -> None:
        with contextlib.suppress(OSError, ValueError):  # the terminal is gone; the job goes on
            _stderr().write(text)
            _stderr().flush()


_plain_line = _PlainLine()
