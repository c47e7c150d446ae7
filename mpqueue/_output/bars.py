"""Bars: how progress is drawn on a terminal or in a notebook, with tqdm, and without it as one plain line.

What else is written to the terminal meanwhile goes through `aside`. All is done on one queue's listener thread at a
time; several queues may draw at once.
"""

from __future__ import annotations

import contextlib
import os
import sys
import threading
import warnings
from collections.abc import Iterator
from functools import cache
from typing import TYPE_CHECKING, Any, Protocol, TextIO

from mpqueue._os.standard_streams import understand_codes
from mpqueue._text import fitting, visible_line
from mpqueue._worker import station

if TYPE_CHECKING:
    from mpqueue._output.progress import Progress

#: Characters of the plain line's bar.
WIDTH = 20
#: Columns of a terminal that does not know how many it has.
NARROW = 80
#: Back to the line's start, and clear what is right of it and below.
_CLEAR = "\r\x1b[J"
#: Held while bars begin or end, and while something else is written.
_coming_and_going = threading.RLock()
#: Of tqdm's bar, where the total is known; tqdm's own would show the items that run as fractions. What failed stands
#: before times and rate, which a narrow terminal cuts off.
_SHAPE = "{l_bar}{bar}| {items}{postfix} [{elapsed}<{remaining}, {rate_fmt}]"


class Bar(Protocol):
    """One job's bar."""

    def draw(self, progress: Progress) -> None:
        """Show how far it is."""

    def close(self) -> None:
        """Leave it as it is, and go on below."""


def can_draw() -> bool:
    """True if a bar would be seen: stderr is a terminal, or this is a notebook."""
    return _is_terminal(sys.stderr) or _in_notebook()


def open_bar(label: str | None, first: Progress, *, complain: bool = True) -> Bar:
    """A bar, drawn with tqdm where that is installed; else a plain line, with one warning unless told not to."""
    understand_codes()
    label = None if label is None else fitting(visible_line(label), _stderr())
    try:
        return TqdmBar(label, first)
    except ImportError:
        if complain:
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
    """Where bars go: under what puts this worker's prints beside another bar."""
    from mpqueue._worker.chunk.capture import BesideBar

    return sys.stderr.under if isinstance(sys.stderr, BesideBar) else sys.stderr


def _is_terminal(stream: TextIO | None) -> bool:
    try:
        return stream is not None and stream.isatty()
    except ValueError:  # closed
        return False


def _in_notebook() -> bool:
    ipython = sys.modules.get("IPython")
    shell = ipython.get_ipython() if ipython is not None else None
    return shell is not None and "IPKernelApp" in shell.config


def _columns(stream: TextIO) -> int:
    """How wide the terminal is."""
    with contextlib.suppress(OSError, ValueError):
        return os.get_terminal_size(stream.fileno()).columns or NARROW
    return NARROW


def _has_no_size(stream: TextIO) -> bool:
    """True for a terminal that does not know how wide it is."""
    try:
        return os.get_terminal_size(stream.fileno()).columns == 0
    except (OSError, ValueError):
        return False


def are_shown() -> bool:
    """True while there is a bar."""
    return TqdmBar.opened > 0 or bool(_plain_line.bars)


@contextlib.contextmanager
def aside() -> Iterator[None]:
    """What is written meanwhile, to stdout or stderr, does not tear a bar."""
    with _coming_and_going, contextlib.ExitStack() as stack:
        if _plain_line.bars:
            stack.enter_context(_plain_line.aside())
        if TqdmBar.opened:
            stack.enter_context(_tqdm_class().external_write_mode(file=_stderr()))
        yield


# -- tqdm ------------------------------------------------------------------------------------------------------------


@cache
def _tqdm_class() -> Any:
    """The tqdm for where this runs, which counts whole items, and starts no thread."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a notebook without ipywidgets gets the text bar
        from tqdm.auto import tqdm

    class Counting(tqdm):  # type: ignore[misc, unused-ignore]
        monitor_interval = 0  # tqdm's thread, which redraws what has stood still: we draw by ourselves

        @property
        def format_dict(self) -> dict[str, Any]:
            """What the bar is made of."""
            return {**super().format_dict, "items": getattr(self, "items", "")}

    return Counting


class TqdmBar:
    """A bar of tqdm's. Several jobs' stand one below the other, and a job's inside a worker below those."""

    opened = 0  #: how many there are

    def __init__(self, label: str | None, first: Progress) -> None:
        here = station.here()
        columns = NARROW if _has_no_size(_stderr()) else None
        with _coming_and_going:
            self._bar = _tqdm_class()(
                total=first.total,
                initial=first.completed + first.failed,
                desc=label,
                unit="item",
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
        """Show how far it is; what runs counts by what its handler reported."""
        bar, ended = self._bar, progress.completed + progress.failed
        bar.total = progress.total
        bar.bar_format = None if progress.total is None else _SHAPE
        bar.items = f"{ended}/{progress.total}"
        bar.set_postfix_str(progress.troubles, refresh=False)
        now = progress.done if progress.total is not None else ended
        moved = now - bar.n
        if moved > 0:
            bar.update(moved)  # which draws it, and learns the rate
        else:
            bar.n = now
            bar.refresh()

    def close(self) -> None:
        """Leave it as it is, and go on below."""
        bar, ours = self._bar, type(self._bar)
        with _coming_and_going, ours.get_lock():
            TqdmBar.opened -= 1
            # tqdm would leave a copy of each bar that stands below, and a gap in this one's place.
            others = [one for one in ours._instances if isinstance(one, ours) and one is not bar]  # noqa: SLF001
            for one in others:
                one.clear(nolock=True)
            place = bar.pos
            bar.close()
            for one in others:
                if one.pos > place >= 0:
                    one.pos -= 1
                one.refresh(nolock=True)


# -- plain -----------------------------------------------------------------------------------------------------------


class PlainBar:
    """A bar without tqdm; several share one line."""

    def __init__(self, label: str | None) -> None:
        self._label = f"{label}: " if label else ""
        self.text = ""
        _plain_line.add(self)

    def draw(self, progress: Progress) -> None:
        """Show how far it is."""
        self.text = self._label + describe(progress)
        _plain_line.draw()

    def close(self) -> None:
        """Leave it as it is, and go on below."""
        _plain_line.remove(self)


def describe(progress: Progress) -> str:
    """One line for people: ``[####......] 40/100  1 failed  12.3/s  0:05 left``; what is cut off first stands last."""
    ended = progress.completed + progress.failed
    parts = [f"{ended}/{progress.total}" if progress.total is not None else f"{ended} items"]
    if progress.total:
        filled = int(WIDTH * min(progress.done / progress.total, 1.0))
        parts[0] = f"[{'#' * filled}{'.' * (WIDTH - filled)}] {parts[0]}"
    if progress.troubles:
        parts.append(progress.troubles)
    if progress.rate is not None:
        parts.append(f"{progress.rate:.3g}/s")
    left = progress.eta
    parts.append(f"{minutes(left)} left" if left else f"{minutes(progress.elapsed)}")
    return "  ".join(parts)


def minutes(seconds: float) -> str:
    """Seconds as ``m:ss``, from an hour on as ``h:mm:ss``."""
    whole, second = divmod(round(seconds), 60)
    hour, minute = divmod(whole, 60)
    return f"{hour}:{minute:02}:{second:02}" if hour else f"{minute}:{second:02}"


class _PlainLine:
    """The one line that all plain bars share."""

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
            text = " | ".join(bar.text for bar in self.bars)
            self._write(_CLEAR + text[: _columns(_stderr()) - 1])

    @contextlib.contextmanager
    def aside(self) -> Iterator[None]:
        with self._lock:
            self._write(_CLEAR)
            try:
                yield
            finally:
                self.draw()

    def _write(self, text: str) -> None:
        with contextlib.suppress(OSError, ValueError):  # the terminal is gone; the job is not
            _stderr().write(text)
            _stderr().flush()


_plain_line = _PlainLine()
