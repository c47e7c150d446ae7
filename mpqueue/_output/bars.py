"""Bars: progress on a terminal, a line for each job, or in a notebook, in its cell.

Other output to the terminal goes through `aside`. A queue draws on its listener thread; several queues may draw at
once.
"""

from __future__ import annotations

import contextlib
import math
import os
import sys
import threading
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, TextIO

from mpqueue._os.standard_streams import understand_codes
from mpqueue._text import counted, done, fitting, minutes, rate, visible_line

if TYPE_CHECKING:
    from mpqueue._output.job_facts import Progress

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
    return (_is_terminal(sys.stderr) and os.environ.get("TERM") != "dumb") or in_notebook()


def open_bar(label: str | None) -> Bar:
    """Return a bar, which is empty until it is drawn."""
    understand_codes()
    label = None if label is None else fitting(visible_line(label), sys.stderr)
    return NotebookBar(label) if in_notebook() else TerminalBar(label)


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


def _width() -> int:
    """Return the width of a line on stderr, in columns."""
    with contextlib.suppress(OSError, ValueError):
        return os.get_terminal_size(sys.stderr.fileno()).columns or NARROW
    return NARROW


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
        columns = _width() - 1
        head, tail = _around(progress, self._label, columns)
        space = " " * head.endswith("%")
        bar = _drawn(progress, _share(progress, columns) - len(space)).translate(_BLOCKS)
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
    ended = f"{progress.ended} items" if progress.total is None else f"{progress.ended}/{progress.total}"
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
    """Return the texts before and after the bar, short enough to leave the bar its share of the line."""
    tails = ["  ".join(words) for words in _words(progress)]
    share = "" if progress.fraction is None else f"{done(progress.fraction):>4}"
    room = columns - _share(progress, columns)
    heads = [f"{label}: {share}", f"{label}: "] if label else [share, ""]
    for head in heads:
        for tail in tails:
            if len(head) + len(tail) <= room:
                return head, tail
    cut = room - len(tails[-1]) - len("...: ")
    return (f"{label[:cut]}...: " if label and cut + len("...") >= LEAST_LABEL else ""), tails[-1]
