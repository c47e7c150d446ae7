"""Sinks: files that take the results of a job while it runs, instead of memory.

    queue.run(items, handler, results=mpqueue.sinks.jsonl("rows.jsonl"))

Rows and columns are those of `Job.export`. While the job runs, the file's name ends with ``.part``; it gets its own
name once the job has ended and all rows are on disk. Each sink is for one job. With ``in_order``, rows are in the order
of the items; without ``failures``, failed items have no rows.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import TYPE_CHECKING

from mpqueue._output.file_sinks import FileSink, JsonLinesSink, TableSink, TabsSink
from mpqueue._output.row_outlet import Sink

if TYPE_CHECKING:
    import pyarrow as pa

__all__ = ["FileSink", "Sink", "csv", "jsonl", "parquet"]


def jsonl(
    path: str | os.PathLike[str],
    columns: Sequence[str] | None = None,
    *,
    in_order: bool = False,
    failures: bool = True,
) -> FileSink:
    """One JSON value per line. Costs 10 us per row."""
    return JsonLinesSink(path, columns, in_order=in_order, failures=failures)


def csv(
    path: str | os.PathLike[str],
    columns: Sequence[str] | None = None,
    *,
    in_order: bool = False,
    failures: bool = True,
    escape_formulas: bool = True,
) -> FileSink:
    """A table of text; with ``.tsv`` in the path, columns are separated by tabs.

    By default, each key of results that are mappings is a column. Columns of later keys are added at the end, and the
    file is then copied once when the job ends. ``escape_formulas`` is as in `Job.export`. Costs 10 us per row.
    """
    make = TabsSink if os.fsdecode(path).lower().endswith(".tsv") else TableSink
    return make(path, columns, in_order=in_order, failures=failures, escape_formulas=escape_formulas)


def parquet(
    path: str | os.PathLike[str],
    schema: pa.Schema | None = None,
    columns: Sequence[str] | None = None,
    *,
    in_order: bool = False,
    failures: bool = True,
) -> FileSink:
    """A table with types, through pyarrow.

    The names in the ``schema`` are the columns; a value that a column's type would change stops the job, except that
    floats are rounded to its precision. Without a schema, the values decide the types: if later values don't fit, the
    file is written again with wider types. Rows are written in groups of 16 MB. Raises ImportError without pyarrow.
    """
    from mpqueue._output.parquet_sink import ParquetSink  # pyarrow is imported here

    return ParquetSink(path, columns, schema=schema, in_order=in_order, failures=failures)
