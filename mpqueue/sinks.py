"""Sinks: files into which the results of a job go while it runs, instead of being kept in memory.

    queue.run(items, handler, results=mpqueue.sinks.jsonl("rows.jsonl"))

Rows and columns are those of `Job.export`. While the job runs they are in a file of the same name and ``.part``; it
gets its own name once the job has ended and all rows are in it, on disk. Each sink is for one job. With ``in_order``
rows are in the order of the items; without ``failures`` failed items have none.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import TYPE_CHECKING

from mpqueue._output.file_sinks import FileSink, JsonLinesSink, TableSink
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
    """A JSON value a line. Costs 10 us a row."""
    return JsonLinesSink(path, columns, in_order=in_order, failures=failures)


def csv(
    path: str | os.PathLike[str],
    columns: Sequence[str] | None = None,
    *,
    in_order: bool = False,
    failures: bool = True,
    escape_formulas: bool = True,
) -> FileSink:
    """A table of text; ``.tsv`` in the path makes it one with tabs.

    Where no columns are named, each key of results that are mappings has one. Those of keys that come late stand at the
    end, and the file is copied once when the job ends. ``escape_formulas`` is as in `Job.export`. Costs 10 us a row.
    """
    delimiter = "\t" if os.fsdecode(path).lower().endswith(".tsv") else ","
    return TableSink(
        path, columns, in_order=in_order, failures=failures, delimiter=delimiter, escape_formulas=escape_formulas
    )


def parquet(
    path: str | os.PathLike[str],
    schema: pa.Schema | None = None,
    columns: Sequence[str] | None = None,
    *,
    in_order: bool = False,
    failures: bool = True,
) -> FileSink:
    """A table with types, through pyarrow, which has to be installed.

    The names in the ``schema`` are the columns; a value that would be another one in its type stops the job, but floats
    are rounded to the precision of theirs. Without a schema types are those of the values: where later ones don't go
    with them, the file is written anew with wider types. Rows are written in groups of 16 MB. Raises ImportError
    without pyarrow.
    """
    from mpqueue._output.parquet_sink import ParquetSink  # which needs pyarrow

    return ParquetSink(path, columns, schema=schema, in_order=in_order, failures=failures)
