"""`Report`: why a job took its time, to print, to save and to view."""

from __future__ import annotations

import html
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from mpqueue._core.state.job_book import JobBook, JobView
from mpqueue._engines.loky.loky_pool import count_cpus
from mpqueue._parent.surroundings.clock import SystemClock
from mpqueue._parent.surroundings.memory_sampler import memory_supply
from mpqueue._report.advice import advise, conclude
from mpqueue._report.figures import Figures, measure
from mpqueue._report.profile import Profile, make_profile
from mpqueue._report.report_page import write_page
from mpqueue._report.report_text import write_text
from mpqueue._report.rules.rule import Advice
from mpqueue._report.trace import write_trace
from mpqueue._text import fitting
from mpqueue._whole_file import whole_file


class Report:
    """One run of a job, as of the time of the report. ``str(report)`` is its text, in stdout's encoding."""

    def __init__(self, figures: Figures, findings: Sequence[Advice], profile: Profile | None = None) -> None:
        self.figures = figures  #: all its numbers
        self.findings = findings  #: the rules that apply, the largest effect first, each with its expected gain
        self.advice = conclude(figures, findings)  #: the same as sentences
        self.profile = profile  #: where the handlers spent their time; None: not sampled

    def __str__(self) -> str:
        return fitting(self._text(), sys.stdout)

    def _text(self) -> str:
        return write_text(self.figures, self.advice, self.profile)

    def __repr__(self) -> str:
        return f"<Report on job {self.figures.job_id!r}: {self.figures.status}>"

    def to_html(self) -> str:
        """The report as one self-contained page with plots, for light and dark."""
        return write_page(self.figures, self.advice, self.profile)

    def save(self, path: str | os.PathLike[str]) -> Path:
        """Write the report into a file: ``.html`` the page, ``.txt`` or ``.md`` the text. Returns its path.

        The file appears once it is complete. Raises ValueError for another suffix.
        """
        target = Path(path)
        match target.suffix.lower():
            case ".html" | ".htm":
                text = self.to_html()
            case ".txt" | ".md":
                text = f"{self._text()}\n"
            case suffix:
                raise ValueError(f"path: expected a file named .html, .txt or .md, got {str(path)!r} ({suffix!r})")
        with whole_file(target) as file:
            file.write(text.encode())
        return target

    def _repr_html_(self) -> str:
        """Return the page in a frame of its own, for notebooks."""
        page = html.escape(self.to_html(), quote=True)
        return f'<iframe srcdoc="{page}" style="width: 100%; height: 50rem; border: 0"></iframe>'


def make_report(book: JobView, alone: JobView | None) -> Report:
    """Make the report that `Job.report` returns."""
    figures = _figures(book)
    advice = advise(figures, None if alone is None else _figures(alone))
    return Report(figures, advice, make_profile(book))


def save_trace(book: JobView, path: str | os.PathLike[str]) -> Path:
    """Write the trace of `Job.trace`. Returns its path."""
    target = Path(path)
    if book.started_at is not None and not book.timings.lanes:
        raise ValueError(f"job {book.id!r}: expected a job that this program ran, got one that the journal remembers")
    figures = _figures(book)
    stretches = dict(book.timings.stretches)
    with whole_file(target) as file:
        write_trace(file, figures, stretches, book.table)
    return target


def _figures(book: JobView) -> Figures:
    """Return the job's figures. If only a journal has it, how workers spent their time is not among them.

    Raises ValueError if it has no times.
    """
    if book.started_at is None:
        raise ValueError(f"job {book.id!r}: expected a job that was started, got one that is {book.status}")
    if not book.timings.lanes and book.duration is None:
        raise ValueError(f"job {book.id!r}: expected a job of which the journal knows how long it took, got one whose "
                         "program ended before it")  # fmt: skip
    says_memory = isinstance(book, JobBook) and book.needs is not None and book.needs.any_memory
    supply = None if says_memory else memory_supply()
    return measure(book, SystemClock().now(), count_cpus(), supply)
