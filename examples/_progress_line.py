"""Owns the progress line: one line that keeps up to date on a terminal, a line now and then elsewhere."""

import shutil
import sys
import time
from typing import TextIO

from mpqueue import JobProgress

#: Elsewhere than on a terminal, a line is written each time this share of the items has ended.
STEP = 0.1
BAR_WIDTH = 20


class ProgressLine:
    """Listens to one job and shows how far it is. Its methods run on the queue's listener thread, one at a time."""

    def __init__(self, stream: TextIO | None = None) -> None:
        self._stream = stream if stream is not None else sys.stdout
        self._live = self._stream.isatty()
        self._started = time.monotonic()
        self._retries = 0
        self._next_share = STEP
        self._shown = ""

    def on_retry(self, _event: object) -> None:
        """Count a retry; it is shown with the next progress."""
        self._retries += 1

    def on_progress(self, progress: JobProgress) -> None:
        """Show the state that ``progress`` tells of."""
        done = progress.completed + progress.failed
        line = self._line(done, progress.total, progress.failed)
        if self._live:
            width = shutil.get_terminal_size().columns - 1
            self._stream.write("\r" + line[:width].ljust(min(len(self._shown), width)))
            self._stream.flush()
            self._shown = line
        elif done >= self._next_share * progress.total:
            self._next_share = min(done / progress.total + STEP, 1.0)
            print(line.strip(), file=self._stream, flush=True)

    def end(self) -> None:
        """Leave the line as it is and go on to the next."""
        if self._shown:
            print(file=self._stream, flush=True)
            self._shown = ""

    def _line(self, done: int, total: int, failed: int) -> str:
        elapsed = time.monotonic() - self._started
        rate = done / elapsed if elapsed else 0.0
        filled = BAR_WIDTH * done // max(total, 1)
        left = f"{(total - done) / rate:.0f} s left" if rate and done < total else f"{elapsed:.1f} s"
        bar = "#" * filled + "." * (BAR_WIDTH - filled)
        return f"[{bar}] {done}/{total}  {rate:.0f} a second  {self._retries} retries  {failed} failed  {left}"
