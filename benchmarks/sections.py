"""The tables of docs/benchmarks.md: which works, beside which libraries, and what to conclude from them.

Titles are those of a full run. The sentences are written by hand: read them again when other results are chosen.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from benchmarks.contenders import BareLoop
from benchmarks.tables import EQUAL, Table, best, ratio, seconds

Questions = Mapping[str, Any]
#: The contenders of each column; the fastest of them counts.
Columns = Mapping[str, Sequence[str]]

OWN = "mpqueue"
LIBRARIES: Columns = {
    OWN: ("mpqueue",),
    "Pool.map": ("multiprocessing",),
    "futures": ("concurrent.futures",),
    "loky": ("loky",),
    "joblib": ("joblib",),
    "mpire": ("mpire",),
    "Ray": ("ray", "ray, batched by hand"),
}
CLUSTERS: Columns = {
    OWN: ("mpqueue",),
    "mpqueue on Dask": ("mpqueue on dask",),
    "Dask's map": ("dask",),
    "mpqueue on Ray": ("mpqueue on ray",),
    "Ray's Pool": ("ray",),
    "Ray, a task each": ("ray, a task each",),
}
IMAP: Columns = {**LIBRARIES, OWN: ("mpqueue.map",)}
PRELOAD: Columns = {OWN: ("mpqueue, preload",), "Pool.map": ("multiprocessing, preload",)}

#: The load before a question from which on its rows are marked.
BUSY = 4.0
MARK = "†"


@dataclass(frozen=True, slots=True)
class Row:
    """One work: what it takes mpqueue, and the others as multiples of that."""

    title: str
    question: str
    case: str
    metric: str = "seconds"
    write: Callable[[float], str] = seconds
    #: Instead of those of the section.
    columns: Columns | None = None

    def is_in(self, questions: Questions) -> bool:
        """Whether it has been measured, as in a quick run not everything is."""
        return self.question in questions and self.case in questions[self.question]["cases"]

    def cells(self, questions: Questions, columns: Columns) -> list[str]:
        """The row, its title first."""
        record, contenders = questions[self.question], self.columns or columns
        own = self.value(questions, columns, OWN)
        cells = [f"{self.title} {MARK}" if is_rough(questions, self.question) else self.title]
        for column in columns:
            value = self.value(questions, columns, column)
            if value is None:
                cells.append(_why_none(record, self.case, contenders.get(column, ())))
            elif column == OWN or own is None:
                cells.append(self.write(value))
            else:
                text = ratio(value, own)
                ahead = value * EQUAL < own and column != BareLoop.name
                cells.append(f"**{text}**" if ahead else text)
        return cells

    def value(self, questions: Questions, columns: Columns, column: str) -> float | None:
        """The best figure of a column."""
        names = (self.columns or columns).get(column, ())
        found = [best(questions[self.question], self.case, name, self.metric) for name in names]
        return min((value for value in found if value is not None), default=None)


@dataclass(frozen=True, slots=True)
class Section:
    """A table, what to conclude from it, and where and why another library is better."""

    title: str
    rows: Sequence[Row]
    conclusion: str
    behind: str = ""
    columns: Columns = field(default_factory=lambda: LIBRARIES)

    def table(self, questions: Questions) -> Table:
        """The rows that have been measured."""
        rows = [row.cells(questions, self.columns) for row in self.rows if row.is_in(questions)]
        return Table(self.title, ["", *self.columns], rows)


def is_rough(questions: Questions, question: str) -> bool:
    """Whether the machine was busy, or another one than that of most questions."""
    record, usual = questions[question], next(iter(questions.values()))
    return bool(record["load"][0] > BUSY or record["machine"]["cpu"] != usual["machine"]["cpu"])


def _why_none(record: Any, case: str, contenders: Sequence[str]) -> str:
    entries = record["cases"][case]["contenders"]
    for entry in (entries[name] for name in contenders if name in entries):
        if "over" in entry:
            return f"over {entry['over']:g} s"
        if "failed" in entry:
            return "fails"
    return ""


def _bytes(value: float) -> str:
    return f"{value:.0f} B"


def _megabytes(value: float) -> str:
    return f"{value:.0f} MB"


SECTIONS = (
    Section(
        "Items that do nothing",
        (
            Row("one no-op, warm (median)", "one_item", "one item"),
            Row("100 no-ops", "item_count", "100"),
            Row("10,000 no-ops", "item_count", "10000"),
            Row("500,000 no-ops", "noop", "noop"),
            Row("200,000, `imap_unordered`", "listeners", "with", columns=IMAP),
            Row("200,000, a listener for each", "listeners", "with"),
            Row("from import to first result", "cold_start", "cold start"),
            Row("memory, each of a million", "million", "1000000", "running_bytes", _bytes),
        ),
        "All of this is overhead. For a few items, use a bare pool, or a loop: mpqueue takes 0.2 to 1 ms more for each "
        "job. The first result takes long once for each queue, so keep queues open.",
        "`Pool.map` cuts the list into a few chunks and keeps only results. mpqueue keeps each item's state, and sends "
        "the first items one by one to learn how long they take. Its listeners get events with counters; the other "
        "libraries only return results. Workers that are forked start faster, but forking is not safe in programs "
        "with threads; mpqueue and loky start interpreters.",
    ),
    Section(
        "Items that compute",
        (
            Row("2,000 of 1 ms", "durations", "1 ms"),
            Row("1,000 of 1 ms, 32 workers", "scaling", "1,000 of 1 ms, 32 workers"),
            Row("9,000 of 10 us, then 1 ms, one of 400 ms", "drifting", "drifting"),
            Row("120 thumbnails", "images", "images"),
        ),
        "The ideal is the CPU time of the items alone, divided by the workers. For equal items of 0.1 ms or more, all "
        "are within 9% of it. If items differ, mpqueue adapts its chunks; the others have one size for all. Tuned by "
        "hand to these very items, it makes them up to 5% faster than mpqueue. With thumbnails mpqueue is below "
        "the ideal, since its workers [keep memory](how-to/memory.md).",
        "With many more workers than CPUs, pools whose workers share one queue have less to decide.",
        {OWN: LIBRARIES[OWN], "ideal": (BareLoop.name,), **LIBRARIES},
    ),
    Section(
        "Big data",
        (
            Row("400 arrays of 0.1 MB, in and out", "arrays", "both 0.1 MB"),
            Row("40 arrays of 8 MB, in and out", "arrays", "both 8 MB"),
            Row("6 arrays of 64 MB, in and out", "arrays", "both 64 MB"),
            Row("40 arrays of 8 MB, three stages", "stages", "three stages"),
            Row("tensors of 8 MB, in and out", "payload_kinds", "torch both"),
            Row("polars frames of 8 MB, in and out", "payload_kinds", "polars both"),
            Row("100 MB in a `partial`", "closure", "bound"),
            Row("the workers' memory for it", "closure", "weight", "megabytes", _megabytes),
            Row("torch model of 105 MB", "models", "bound"),
        ),
        "mpqueue sends big objects through shared memory, so it is several times as fast as pools that use pipes. What "
        "all items need is in memory [once](how-to/models-and-big-data.md), not once per worker. A `Pool` that is "
        "forked when the object exists already copies nothing, which is faster still.",
        "Ray writes an object once, and every process reads it in place, read-only. Arrays from mpqueue are writable.",
    ),
    Section(
        "Faults",
        (
            Row("1,000 of 1 ms, one kills its worker", "crash", "crash"),
            Row("new worker, import of 3 s", "replacement", "replacement"),
            Row("the same, preloaded", "replacement", "replacement", columns=PRELOAD),
        ),
        "mpqueue and Ray deliver every result. The others fail as a whole, or wait forever. The [fault "
        "matrix](fault-matrix.md) has other faults.",
        "`multiprocessing` does not look for the item that the worker had: it is lost. futures and loky were created "
        "anew by hand, at the moment of the crash.",
    ),
    Section(
        "On a cluster's engine",
        (
            Row("2,000 of 1 ms", "backends", "1 ms"),
            Row("5,000 of 10 us", "backends", "10 us"),
        ),
        "All on one machine, where an engine gains nothing. With short items, a queue on Dask or Ray is several "
        "times as fast as a task each; on Ray, its `Pool` with chunks is about as fast. For thousands of workers, see "
        "[how far one coordinator reaches](explanation/scale.md).",
        columns=CLUSTERS,
    ),
)

#: The works of the picture.
PICTURE = tuple(
    (section, row)
    for section in SECTIONS
    for row in section.rows
    if (row.question, row.case)
    in {
        ("one_item", "one item"),
        ("noop", "noop"),
        ("cold_start", "cold start"),
        ("durations", "1 ms"),
        ("drifting", "drifting"),
        ("arrays", "both 8 MB"),
    }
)
