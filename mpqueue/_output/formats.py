"""The formats of files of rows, by their names; and the export of a job's items into one, through its sink."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mpqueue._output.export import TOGETHER, batched, chosen_columns, column
from mpqueue._output.file_sinks import FileSink, JsonLinesSink, JsonSink, TableSink, TabsSink
from mpqueue.errors import shown

if TYPE_CHECKING:
    from mpqueue._core.state.item_table import ItemTable


def _parquet(*arguments: Any, **options: Any) -> FileSink:
    from mpqueue._output.parquet_sink import ParquetSink  # pyarrow is loaded here

    return ParquetSink(*arguments, **options)


FORMATS: Mapping[str, Callable[..., FileSink]] = {
    "jsonl": JsonLinesSink,
    "ndjson": JsonLinesSink,
    "json": JsonSink,
    "csv": TableSink,
    "tsv": TabsSink,
    "parquet": _parquet,
}


def sink_for(
    path: str | os.PathLike[str], columns: Sequence[str] | None = None, format: str | None = None, **options: Any
) -> FileSink:
    """Make the sink for that ``format``, by default that of the file's suffix.

    Raises ValueError for an unknown one, ImportError if the library for it is missing.
    """
    if format is not None and not isinstance(format, str):
        raise TypeError(f"format: expected a str, got {shown(format)} of type {type(format).__name__}")
    name = (format or Path(path).suffix).lstrip(".").lower()
    if name not in FORMATS:
        if format is None:
            raise ValueError(f"expected a file named .{', .'.join(FORMATS)}, got {str(path)!r}")
        raise ValueError(f"format: expected one of {', '.join(FORMATS)}, got {shown(format)}")
    return FORMATS[name](path, columns, **options)


def export(
    table: ItemTable,
    path: str | os.PathLike[str],
    columns: Sequence[str] | None = None,
    format: str | None = None,
    *,
    escape_formulas: bool = True,
) -> Path:
    """Write the items into a file, in the format of its suffix, or ``format``. Returns its path.

    The file appears once it is complete: an earlier one stays until then. ``escape_formulas``: in tables of text,
    formulas get an apostrophe before them.
    """
    names = chosen_columns(table, columns)
    chosen = None if columns is None else names
    sink = sink_for(path, chosen, format, escape_formulas=escape_formulas, default=names)
    sink.open()
    try:
        for indices in batched(range(len(table)), TOGETHER):
            sink.put({name: column(table, indices, name) for name in names}, len(indices))
        sink.complete()
    except BaseException:
        sink.drop()
        raise
    return Path(path)
