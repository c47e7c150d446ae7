"""From what was measured to tables: the best of all rounds, and how it compares with mpqueue's."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from benchmarks.contenders import BY_NAME, MPQueue

Record = dict[str, Any]
Entry = dict[str, Any]

#: Within this many times of each other two times count as equal.
EQUAL = 1.05


@dataclass(frozen=True, slots=True)
class Column:
    """One figure of each contender: which case, which measure, and how it is written."""

    title: str
    case: str
    metric: str = "seconds"
    write: Callable[[float], str] | None = None  #: None: as a time
    #: Whether others are written as a multiple of mpqueue's too.
    compared: bool = True


@dataclass(frozen=True, slots=True)
class Table:
    """Lines of cells under headings."""

    title: str
    headings: Sequence[str]
    rows: Sequence[Sequence[str]]

    def markdown(self) -> str:
        """The table in Markdown."""
        heading, *rows = ("| " + " | ".join(line) + " |" for line in (self.headings, *self.rows))
        return "\n".join((heading, "|---" + "|--:" * (len(self.headings) - 1) + "|", *rows))

    def text(self) -> str:
        """The table for a terminal."""
        lines = [self.headings, *self.rows]
        widths = [max(len(line[at]) for line in lines) for at in range(len(self.headings))]
        return "\n".join(
            "  ".join(cell.ljust(width) if at == 0 else cell.rjust(width) for at, (cell, width) in enumerate(pairs))
            for pairs in (list(zip(line, widths, strict=True)) for line in lines)
        )


def summary(question: str, record: Record) -> str:
    """All tables of a question, for a terminal."""
    return "\n\n".join((f"{table.title}\n" if table.title else "") + table.text() for table in tables(question, record))


# -- figures ---------------------------------------------------------------------------------------------------------


def measures(entry: Entry, metric: str = "seconds") -> list[float]:
    """Every measurement of all rounds."""
    return [repeat[metric] for round_ in entry["rounds"] for repeat in round_ if metric in repeat]


def best(record: Record, case: str, contender: str, metric: str = "seconds") -> float | None:
    """The lowest figure of all rounds; None where there is none."""
    entry = record["cases"].get(case, {}).get("contenders", {}).get(contender)
    if entry is None or "failed" in entry or "over" in entry:
        return None
    return min(measures(entry, metric), default=None)


def an_item(record: Record, case: str, contender: str, metric: str) -> float | None:
    """The lowest figure an item, where the measurements say how many items there were."""
    entry = record["cases"].get(case, {}).get("contenders", {}).get(contender)
    if entry is None or "failed" in entry or "over" in entry:
        return None
    found = [
        repeat[metric] / repeat["count"]
        for round_ in entry["rounds"]
        for repeat in round_
        if metric in repeat and "count" in repeat
    ]
    return min(found, default=None)


def contenders_of(record: Record) -> list[str]:
    """Those that took part, in the usual order."""
    return [name for name in BY_NAME if any(name in case["contenders"] for case in record["cases"].values())]


# -- cells -----------------------------------------------------------------------------------------------------------


def seconds(value: float) -> str:
    """A time, in the unit that suits it."""
    for unit, factor in (("s", 1.0), ("ms", 1e3), ("us", 1e6)):
        if value * factor >= 1 or unit == "us":
            return f"{significant(value * factor)} {unit}"
    return ""


def significant(value: float) -> str:
    """Three significant digits."""
    if value >= 100:
        return f"{value:,.0f}"
    return f"{value:.1f}" if value >= 10 else f"{value:.2f}"


def ratio(value: float, reference: float) -> str:
    """How many times as much."""
    times = value / reference
    return f"{times:.0f}x" if times >= 10 else f"{times:.2f}x" if times < 2 else f"{times:.1f}x"


def _cell(record: Record, column: Column, contender: str) -> str:
    entry = record["cases"].get(column.case, {}).get("contenders", {}).get(contender)
    if entry is None:
        return ""
    if "over" in entry:
        return f"over {entry['over']:g} s"
    if "failed" in entry:
        return f"fails: {entry['failed'].partition(':')[0].rpartition('.')[2]}"
    value = _value(record, column, contender)
    if value is None:
        return ""
    text = (column.write or seconds)(value)
    reference = _value(record, column, MPQueue.name)
    if column.compared and contender != MPQueue.name and reference:
        return f"{text} ({ratio(value, reference)})"
    return text


def _value(record: Record, column: Column, contender: str) -> float | None:
    per_item = column.metric.removesuffix(" an item")
    if per_item != column.metric:
        value = an_item(record, column.case, contender, per_item)
    else:
        value = best(record, column.case, contender, column.metric)
    return value


# -- tables ----------------------------------------------------------------------------------------------------------


def tables(question: str, record: Record) -> list[Table]:
    """All tables of a question."""
    if question == "coordinator":
        return [coordinator(record)]
    if question == "many_workers":
        return [many_workers(record)]
    if question == "advice":
        return [advice(record)]
    if question in ("scaling", "arrays", "payload_kinds"):
        return [_table(record, columns, title) for title, columns in _groups(question, record).items()]
    return [_table(record, _columns(question, record))]


def _table(record: Record, columns: Sequence[Column], title: str = "") -> Table:
    rows = []
    for name in contenders_of(record):
        cells = [_cell(record, column, name) for column in columns]
        if any(cells):
            rows.append([name, *cells])
    return Table(title, ["", *(column.title for column in columns)], rows)


def plain(value: float) -> str:
    return f"{value:,.0f}"


def _columns(question: str, record: Record) -> list[Column]:
    cases = record["cases"]
    match question:
        case "closure":
            weight = Column("MB in all workers", "weight", "megabytes", plain, compared=False)
            return [*(Column(cases[name]["title"], name) for name in ("bound", "closure")), weight]
        case "models":
            weight = Column(cases["weight"]["title"], "weight", "megabytes", plain, compared=False)
            return [*(Column(cases[name]["title"], name) for name in ("bound", "closure")), weight]
        case "replacement":
            weights = [
                Column(cases[name]["title"], name, "megabytes", plain, compared=False)
                for name in cases
                if name == "weight"
            ]
            return [Column(cases["replacement"]["title"], "replacement"), *weights]
        case "one_item":
            return [
                Column("median of 200, best round", "one item"),
                Column("best of all", "one item", "best"),
            ]
        case "cold_start":
            return [
                Column("import to first result", "cold start"),
                Column("the same after the import", "cold start", "after_import"),
            ]
        case "million":
            largest = max(cases, key=lambda name: cases[name]["x"])
            return [
                Column(cases[largest]["title"], largest),
                Column("until it is created", largest, "create", compared=False),
                Column("bytes an item, at most", largest, "running_bytes", plain, compared=False),
                Column("bytes an item, when done", largest, "done_bytes", plain, compared=False),
            ]
        case "listeners":
            return [
                Column(f"{name}, {what}", name, metric, compared=metric == "seconds")
                for name in ("without", "with")
                for what, metric in (("time", "seconds"), ("CPU in the parent an item", "parent_cpu an item"))
            ]
        case "crash":
            return [
                Column(cases["crash"]["title"], "crash"),
                Column("results delivered", "crash", "delivered", plain, compared=False),
            ]
        case _:
            return [Column(entry["title"], name) for name, entry in cases.items()]


def _groups(question: str, record: Record) -> dict[str, list[Column]]:
    """The cases of a question that is too wide for one table, by what they have in common."""
    groups: dict[str, list[Column]] = {}
    ways = {"in": "In", "out": "Out", "both": "In and out"}
    for name, case in record["cases"].items():
        if question == "arrays":
            way, _, _ = name.partition(" ")
            groups.setdefault(ways[way], []).append(Column(case["title"].removesuffix(f" {way}"), name))
        elif question == "payload_kinds":
            kind, _, way = name.rpartition(" ")
            groups.setdefault(ways[way], []).append(Column(kind, name))
        else:
            work, _, workers = name.rpartition(", ")
            groups.setdefault(work, []).append(Column(workers, name))
    return groups


def coordinator(record: Record) -> Table:
    """How busy one coordinator is with chunks of 20 ms, and how long they must be for it to be half busy."""
    from benchmarks.questions.coordinator import CHUNK

    other = other_work(record)
    rows = []
    for name, case in record["cases"].items():
        handle = best(record, name, MPQueue.name, "handle")
        if handle is None:
            continue
        lanes, total = int(case["x"]), handle + other
        rows.append(
            [
                f"{lanes:,}",
                seconds(step) if (step := best(record, name, MPQueue.name, "step")) else "",
                seconds(handle),
                seconds(total),
                f"{100 * lanes * total / CHUNK:,.0f}%",
                seconds(lanes * total / 0.5),
            ]
        )
    headings = (
        "workers",
        "scheduler, a step",
        "scheduler, a chunk",
        "coordinator, a chunk",
        f"busy, at {seconds(CHUNK)} a chunk",
        "chunks that keep it half busy",
    )
    return Table("", headings, rows)


def many_workers(record: Record) -> Table:
    """How busy thousands of workers are, and the one coordinator that feeds them."""
    rows = [
        [
            case["title"],
            f"{100 * found['utilisation']:.1f}%",
            f"{100 * found['busy']:.0f}%",
            f"{100 * found['scheduler']:.0f}%",
            seconds(found["step"]),
            seconds(found["aim"]),
            significant(found["items"]),
        ]
        for case in record["cases"].values()
        for round_ in case["contenders"][MPQueue.name]["rounds"]
        for found in round_
    ]
    headings = (
        "",
        "workers' time used",
        "coordinator busy",
        "of which the scheduler",
        "scheduler, a step (median)",
        "a chunk aims at",
        "items of a chunk",
    )
    return Table("", headings, rows)


def advice(record: Record) -> Table:
    """What was said of each bad program, what it promised, and what came of it."""
    rows = []
    for case in record["cases"].values():
        entry = case["contenders"].get(MPQueue.name, {"rounds": []})
        for found in (measure for round_ in entry["rounds"] for measure in round_):
            gains = [f"{found[name]:.1f}x" if found[name] else "" for name in ("gain", "ratio")]
            said = found["problem"] or (found["advice"][0] if found["advice"] else "")
            rows.append([case["title"], found["cause"], *gains, said])
        if "failed" in entry or "over" in entry:
            rows.append([case["title"], "", "", "", entry.get("failed") or f"over {entry['over']:g} s"])
    return Table("", ["program", "cause", "gain promised", "repaired", "advice"], rows)


def other_work(record: Record) -> float:
    """Seconds a chunk that the coordinator spends outside of the scheduler, as measured on real workers."""
    real = an_item(record, "real", MPQueue.name, "parent_cpu")
    smallest = min((name for name in record["cases"] if name != "real"), key=lambda name: record["cases"][name]["x"])
    handle = best(record, smallest, MPQueue.name, "handle")
    return 0.0 if real is None or handle is None else max(0.0, real - handle)
