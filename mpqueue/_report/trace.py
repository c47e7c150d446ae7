"""A job's run in the Trace Event Format, which Perfetto (ui.perfetto.dev) and chrome://tracing show.

Two processes: the workers, one thread each, and the parent. A chunk is a slice, with the worker's phases inside:
loading, setup, unpickling, handler, pickling. The durations of phases are measured and their order is known, but not
each start; if the job was traced, the handler's slice has its items, or runs of items that were too short to be
distinguished. Times are in microseconds since the job's start.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import IO, Any

from mpqueue._core.state.item_table import ItemTable
from mpqueue._core.state.timings import Event, Span
from mpqueue._output.export import json_ready
from mpqueue._report.figures import Figures
from mpqueue._report.paces import phases
from mpqueue._text import json_text, label

WORKERS, PARENT = 1, 2
#: Threads of the parent: the job itself, the coordinator, and from the third on one for each worker's answers.
JOB, COORDINATOR, ANSWERS = 0, 1, 2

Stretches = dict[int, tuple[Sequence[int], Sequence[tuple[int, float, float]]]]
#: Names of the slices inside a chunk's.
_NAMES = {
    "loading": "load handler",
    "setup": "setup",
    "unpacking": "unpickle items",
    "handling": "handler",
    "packing": "pickle results",
}


def write_trace(file: IO[bytes], figures: Figures, stretches: Stretches, table: ItemTable) -> None:
    """Write the trace, one event per line."""
    file.write(b'{"displayTimeUnit": "ms", "traceEvents": [\n')
    separator = b""
    for event in trace_events(figures, stretches, table):
        file.write(separator + json_text(event).encode())
        separator = b",\n"
    file.write(b"\n]}\n")


def trace_events(figures: Figures, stretches: Stretches, table: ItemTable) -> Iterator[dict[str, Any]]:
    """Yield the events of the trace."""
    yield from _names(figures)
    yield _slice(
        PARENT, JOB, f"job {label(figures.job_id)}", 0.0, figures.wall, status=figures.status, items=figures.total
    )
    for row, span in enumerate(figures.spans):
        yield from _chunk(span, stretches.get(row), table)
    for event in figures.events:
        yield _instant(event, table)
    points = len(figures.busy)
    for at, busy in enumerate(figures.busy):
        args = {"workers": round(busy, 3)}
        yield {"name": "busy workers", "ph": "C", "pid": WORKERS, "ts": _us(figures.wall * at / points), "args": args}


def _names(figures: Figures) -> Iterator[dict[str, Any]]:
    lanes = sorted({int(span.lane) for span in figures.spans})
    yield _name("process_name", WORKERS, 0, "workers")
    yield _name("process_name", PARENT, 0, "parent")
    yield _name("thread_name", PARENT, JOB, "job")
    yield _name("thread_name", PARENT, COORDINATOR, "pickling items")
    for lane in lanes:
        yield _name("thread_name", WORKERS, lane, f"worker {lane}")
        yield _name("thread_name", PARENT, ANSWERS + lane, f"answers of worker {lane}")


def _chunk(
    span: Span,
    stretches: tuple[Sequence[int], Sequence[tuple[int, float, float]]] | None,
    table: ItemTable,
) -> Iterator[dict[str, Any]]:
    lane, items = int(span.lane), int(span.items)
    what = f"item {table.label_of(int(span.first))}" if items == 1 else f"{items} items"
    facts = {"items": items, "failures": int(span.failures), "cpu_ms": round(span.cpu * 1e3, 3)}
    sizes = {"bytes_out": int(span.bytes_out), "bytes_home": int(span.bytes_home)}
    yield _slice(
        WORKERS,
        lane,
        what,
        span.begun,
        span.ended,
        **facts,
        **sizes,
        first_item=json_ready(table.id_of(int(span.first))),
    )
    for phase, start, end in phases(span):
        yield _slice(WORKERS, lane, _NAMES[phase], start, end)
        if phase == "handling" and stretches is not None:
            yield from _items(lane, start, end, *stretches, table)
    if span.left_at > span.packed_at:
        yield _slice(PARENT, COORDINATOR, f"pickle {what}", span.packed_at, span.left_at, worker=lane)
    yield _slice(PARENT, ANSWERS + lane, f"unpickle {what}", span.received, span.decoded)


def _items(
    lane: int,
    start: float,
    end: float,
    indices: Sequence[int],
    stretches: Sequence[tuple[int, float, float]],
    table: ItemTable,
) -> Iterator[dict[str, Any]]:
    at, place = start, 0
    for count, pace, cpu in stretches:
        until = min(at + count * pace, end)
        if until > at and place < len(indices):
            first = table.label_of(indices[place])
            name = f"item {first}" if count == 1 else f"{count} items from {first}"
            facts = {} if math.isnan(cpu) else {"cpu_ms": round(cpu * count * 1e3, 3)}
            yield _slice(WORKERS, lane, name, at, until, **facts)
        at, place = until, place + count


def _instant(event: Event, table: ItemTable) -> dict[str, Any]:
    made: dict[str, Any] = {"name": event.name, "ph": "i", "ts": _us(event.at), "s": "g", "pid": PARENT, "tid": JOB}
    if event.lane is not None:
        made |= {"s": "t", "pid": WORKERS, "tid": event.lane}
    if event.item is not None:
        made["args"] = {"item": json_ready(table.id_of(event.item)), "label": table.label_of(event.item)}
    return made


def _slice(process: int, thread: int, name: str, start: float, end: float, **args: Any) -> dict[str, Any]:
    made = {"name": name, "ph": "X", "pid": process, "tid": thread, "ts": _us(start), "dur": _us(max(0.0, end - start))}
    return made | {"args": args} if args else made


def _name(kind: str, process: int, thread: int, name: str) -> dict[str, Any]:
    return {"name": kind, "ph": "M", "pid": process, "tid": thread, "args": {"name": name}}


def _us(moment: float) -> float:
    return round(moment * 1e6, 3)
