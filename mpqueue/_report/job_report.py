"""`Report`: why a job took its time, to print, to save and to view."""

from __future__ import annotations

import os
import sys
import textwrap
from collections.abc import Iterator, Sequence
from html import escape
from importlib.resources import files
from itertools import zip_longest
from pathlib import Path

from mpqueue._core.state.job_book import JobBook, JobView
from mpqueue._engines.loky.loky_pool import count_cpus
from mpqueue._parent.inbox import SystemClock
from mpqueue._parent.running import memory_supply
from mpqueue._report.figures import Figures, measure
from mpqueue._report.plots import script_policy, swatch
from mpqueue._report.profile import Profile, make_profile
from mpqueue._report.report_sections import Section, headline, sections, subtitles
from mpqueue._report.rules import Advice, advise, conclude
from mpqueue._text import fitting, seconds, visible, visible_line
from mpqueue._whole_file import write_whole


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
        lines = [f"Job {self.figures.job_id!r} {headline(self.figures)}"]
        for line in subtitles(self.figures):
            lines += _wrapped(f"  {line}")
        for section in sections(self.figures, self.advice, self.profile):
            lines += _shown(section)
        return visible("\n".join(line.rstrip() for line in lines))

    def __repr__(self) -> str:
        return f"<Report on job {self.figures.job_id!r}: {self.figures.status}>"

    def to_html(self) -> str:
        """The report as one self-contained page with plots, for light and dark."""
        look = files("mpqueue._live_page").joinpath("static/look.css").read_text()
        style = look + files("mpqueue._report").joinpath("report.css").read_text()
        title = escape(f"{self.figures.job_id}: why it took {seconds(self.figures.wall)}")
        head = _HEAD.format(title=title, style=style, policy=script_policy())
        body = "\n".join(_body(self.figures, self.advice, self.profile))
        return visible(f"{head}{body}\n</body>\n</html>\n")

    def save(self, path: str | os.PathLike[str]) -> Path:
        """Write the report into a file: ``.html`` the page, ``.txt`` or ``.md`` the text. Returns its path.

        The file appears once it is complete. Raises ValueError for another suffix.
        """
        match Path(path).suffix.lower():
            case ".html" | ".htm":
                text = self.to_html()
            case ".txt" | ".md":
                text = f"{self._text()}\n"
            case suffix:
                raise ValueError(f"path: expected a file named .html, .txt or .md, got {str(path)!r} ({suffix!r})")
        return write_whole(path, text.encode())

    def _repr_html_(self) -> str:
        """Return the page in a frame of its own, for notebooks."""
        return f'<iframe srcdoc="{escape(self.to_html())}" style="width: 100%; height: 50rem; border: 0"></iframe>'


def make_report(book: JobView, alone: JobView | None) -> Report:
    """Make the report that `Job.report` returns."""
    figures = _figures(book)
    advice = advise(figures, None if alone is None else _figures(alone))
    return Report(figures, advice, make_profile(book))


def has_report(book: JobView) -> bool:
    """True if there is a report of the job. Costs little."""
    return book.started_at is not None and (book.timings.lanes > 0 or book.duration is not None)


def _figures(book: JobView) -> Figures:
    """Return the job's figures. If only a journal has it, how workers spent their time is not among them.

    Raises ValueError if it has no times.
    """
    if book.started_at is None:
        raise ValueError(f"job {book.id!r}: expected a job that was started, got one that is {book.status}")
    if not has_report(book):
        raise ValueError(f"job {book.id!r}: expected a job of which the journal knows how long it took, got one whose "
                         "program ended before it")  # fmt: skip
    says_memory = isinstance(book, JobBook) and book.needs is not None and book.needs.any_memory
    supply = None if says_memory else memory_supply()
    return measure(book, SystemClock().now(), count_cpus(), supply)


# -- A report as text for a terminal, at most 100 columns wide. --------------------------------------------------------

#: Characters of a line, and of a cell that others follow.
WIDTH, WIDEST = 100, 50
#: The entries whose longer text is shown, and the lines of its end.
OPENED, LAST_LINES = 5, 6


def _shown(section: Section) -> Iterator[str]:
    """Yield the section, with an empty line before it; nothing if it is only a picture."""
    if section.entries or section.line or section.rows:
        yield ""
        yield section.title
    for at, (text, more) in enumerate(section.entries):
        yield from _wrapped(f"  - {text}")
        yield from (_cut(f"      {line}") for line in more.splitlines()[-LAST_LINES:] if at < OPENED)
    if section.line:
        yield from _wrapped(f"  {section.line}")
    if section.rows:
        yield from _aligned(section)


def _aligned(table: Section) -> Iterator[str]:
    names = [name for name, _ in table.columns]
    rows = [_cells(row) for row in (([names] if any(names) else []) + [*table.rows])]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        cells = zip(row, widths, table.columns, strict=True)
        aligned = [cell.rjust(width) if is_number else cell.ljust(width) for cell, width, (_, is_number) in cells]
        yield _cut("  " + "  ".join(aligned).rstrip())


def _cells(row: Sequence[str]) -> list[str]:
    """The cells as one line each. Only the last one may fill the line: the others would push it beyond the end."""
    *heads, last = map(visible_line, row)
    return [*(_cut(cell, WIDEST) for cell in heads), last]


def _cut(line: str, width: int = WIDTH) -> str:
    return line if len(line) <= width else f"{line[: width - 1]}…"


def _wrapped(text: str) -> Iterator[str]:
    lines = textwrap.wrap(text, WIDTH, subsequent_indent="    ", break_long_words=False, break_on_hyphens=False)
    return map(_cut, lines)


# -- A report as one self-contained page of HTML: no script, font or picture is loaded from elsewhere. -----------------

_HEAD = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'; script-src {policy}">
<title>{title}</title>
<style>
{style}
</style>
</head>
<body>
"""


def _body(figures: Figures, advice: Sequence[str], profile: Profile | None) -> Iterator[str]:
    yield f"<header><h1>{escape(figures.job_id)}</h1><p>{escape(headline(figures))}</p>"
    yield from (f"<p>{escape(line)}</p>" for line in subtitles(figures))
    yield "</header>"
    yield "<main>"
    for section in sections(figures, advice, profile):
        title, content = escape(section.title), "\n".join(_content(section))
        if section.folded:
            yield f"<details><summary>{title}</summary>{content}</details>"
        else:
            yield f"<h2>{title}</h2>{content}"
    yield "</main>"
    yield "<footer><p>Written by mpqueue. Times are measured in each chunk of items, not sampled; an item that"
    yield "was sent with others has their average.</p></footer>"


def _content(section: Section) -> Iterator[str]:
    if section.entries:
        yield f"<ul class='entries'>{''.join(f'<li>{one}</li>' for one in _entries(section))}</ul>"
    if section.picture is not None:
        yield section.picture()
    if section.line:
        yield f"<p class='quiet'>{escape(section.line)}</p>"
    if section.rows:
        yield _table(section)


def _entries(section: Section) -> Iterator[str]:
    for at, (text, more) in enumerate(section.entries):
        shown = f"<summary>{escape(text)}</summary><pre tabindex='0'>{escape(more)}</pre>"
        yield f"<details{'' if at else ' open'}>{shown}</details>" if more else escape(text)


def _table(section: Section) -> str:
    has_head = any(name for name, _ in section.columns)
    kinds = ["n" if is_number else "" for _, is_number in section.columns]
    if has_head and not section.columns[-1][0]:
        kinds[-1] = "meaning"
    head = "".join(
        f'<th scope="col" class="{kind}">{escape(name)}</th>' if name else f'<td class="{kind}"></td>'
        for (name, _), kind in zip(section.columns, kinds, strict=True)
    )
    head = f"<thead><tr>{head}</tr></thead>" if has_head else ""
    body = []
    for row, key in zip_longest(section.rows, section.keys):
        cells = zip(row, kinds, [swatch(key) if key else "", *[""] * len(row)], strict=False)
        body.append("".join(f'<td class="{kind}">{swatch}{escape(cell)}</td>' for cell, kind, swatch in cells))
    return f"<table>{head}<tbody>{''.join(f'<tr>{row}</tr>' for row in body)}</tbody></table>"
