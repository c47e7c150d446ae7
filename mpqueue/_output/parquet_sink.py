"""`ParquetSink`: rows into a Parquet file, a group of rows at a time. Needs pyarrow.

Without a schema, the values so far decide the columns' types. If later values have other types or keys, the file is
rewritten with columns that can hold all of them: types that do not go together become text.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from mpqueue._output.arrow_values import exact_array, inferred_array, is_writable
from mpqueue._output.export import as_cell, need, or_as_text
from mpqueue._output.file_sinks import SpreadingSink
from mpqueue._text import as_utf8
from mpqueue.errors import shown

#: The least size of a group, in bytes and in rows.
GROUP, GROUP_ROWS = 16 << 20, 1 << 17
#: The number of tables that are merged into one.
MERGED = 64
#: The bytes that the end of a file may take beside its rows.
FOOTER = 1 << 20


class ParquetSink(SpreadingSink):
    """The sink of `mpqueue.sinks.parquet`. Rows are in memory until there is a group of them."""

    def __init__(
        self, path: str | os.PathLike[str], columns: Sequence[str] | None = None, *, schema: Any = None, **options: Any
    ) -> None:
        self._arrow = need("pyarrow", "a Parquet file")
        self._parquet = need("pyarrow.parquet", "a Parquet file")
        if schema is not None and not isinstance(schema, self._arrow.Schema):
            raise TypeError(f"schema: expected a pyarrow.Schema, got {shown(schema)} of type {type(schema).__name__}")
        if schema is not None and columns is not None:
            raise ValueError("columns: expected None, since the schema names them")
        super().__init__(path, schema.names if schema is not None else columns, **options)
        self._given: Any = schema
        self._schema: Any = schema  #: of the rows in the file
        self._writer: Any = None
        self._out: _Whole | None = None  #: the stream of the writer
        self._tables: list[Any] = []  #: of the next group
        self._merged = 0  #: this many of them are merged
        self._size = self._count = 0  #: their bytes
        self._is_torn = False  #: a group is in the file only partly

    def _append(self, columns: Mapping[str, list[Any]], count: int) -> None:
        """Hold the rows, and write them once there is a group."""
        if self._given is None:
            infer = partial(inferred_array, self._arrow)
            table = self._arrow.table({as_utf8(name): or_as_text(infer, values) for name, values in columns.items()})
        else:
            arrays = [self._column(field, columns) for field in self._given]
            table = self._arrow.Table.from_arrays(arrays, schema=self._given)
        self._tables.append(table)
        self._size += table.nbytes
        self._count += count
        if len(self._tables) - self._merged >= MERGED:
            self._merge()
        if self._size >= GROUP or self._count >= GROUP_ROWS:
            self._flush()

    def _column(self, field: Any, columns: Mapping[str, list[Any]]) -> Any:
        """A column as the given schema has it. Raises ValueError for a value that does not fit."""
        values = columns[field.name]
        try:
            return self._exact(field, values)
        except Exception as error:  # noqa: BLE001 - of pyarrow's, and of what it asks
            at, reason = self._first_bad(field, values) or (None, error)
        bad = values if at is None else values[at]
        where = "" if at is None or "id" not in columns else f"item {columns['id'][at]!r}, "
        raise ValueError(
            f"{where}column {field.name!r}: expected values of type {field.type}, got {shown(bad)} of type "
            f"{type(bad).__name__} ({reason})"
        )

    def _exact(self, field: Any, values: list[Any]) -> Any:
        array = exact_array(self._arrow, values, field.type)
        if array.null_count and not field.nullable:
            raise ValueError("which this column must not have")
        return array

    def _first_bad(self, field: Any, values: list[Any]) -> tuple[int, Exception] | None:
        for at, value in enumerate(values):
            try:
                self._exact(field, [value])
            except Exception as error:  # noqa: BLE001 - likewise
                return at, error
        return None

    def _merge(self) -> None:
        """Merge the last tables into one: a table of a single row takes kilobytes."""
        last = self._tables[self._merged :]
        if self._given is None:
            last, _ = self._cast_all(last, self._united([each.schema for each in last]))
        self._tables[self._merged :] = [self._arrow.concat_tables(last).combine_chunks()]
        self._merged += 1

    # -- groups ----------------------------------------------------------------------------------------------

    def _flush(self) -> None:
        tables, self._tables, self._merged = self._tables, [], 0
        count, self._count, self._size = self._count, 0, 0
        if self._given is None:
            known = [] if self._schema is None else [self._schema]
            wanted = self._writable(self._united([*known, *(each.schema for each in tables)]))
            given = tables
            tables, wanted = self._cast_all(given, wanted)
            if self._writer is not None and wanted != self._schema:
                self._widen(wanted)
                if self._schema != wanted:  # a value in the file did not fit
                    tables, _ = self._cast_all(given, self._schema)
            else:
                self._schema = wanted
        if self._writer is None:
            self._writer = self._open_writer(self._part.file)
        group = self._arrow.concat_tables(tables).combine_chunks()
        # Before the group is written, so that the file can be completed even on a full disk.
        self._part.reserve(group.nbytes + group.nbytes // 8 + FOOTER)
        self._is_torn = True
        self._writer.write_table(group)
        self._is_torn = False
        self._part.grown()
        self.rows += count

    def _open_writer(self, file: Any) -> Any:
        self._out = _Whole(file)
        return self._parquet.ParquetWriter(self._out, self._schema)

    def _united(self, schemas: list[Any]) -> Any:
        """A schema for all of these; a column whose types do not go together becomes text."""
        arrow = self._arrow
        types: dict[str, Any] = {}
        for field in (field for schema in schemas for field in schema):
            known = types.get(field.name)
            types[field.name] = field.type if known is None else self._common(known, field.type)
        return arrow.schema([arrow.field(name, kind) for name, kind in types.items()])

    def _writable(self, schema: Any) -> Any:
        """The schema, with text for types that no Parquet file can have; later groups may have a type for it."""
        arrow = self._arrow
        return arrow.schema(
            [field if is_writable(arrow, field.type) else field.with_type(arrow.string()) for field in schema]
        )

    def _common(self, one: Any, other: Any) -> Any:
        arrow = self._arrow
        if one == other:
            return one
        if {one, other} == {arrow.string(), arrow.binary()}:  # merged they would be bytes
            return arrow.string()
        try:
            schemas = [arrow.schema([arrow.field("x", kind)]) for kind in (one, other)]
            return arrow.unify_schemas(schemas, promote_options="permissive").field("x").type
        except (arrow.ArrowInvalid, arrow.ArrowTypeError, arrow.ArrowNotImplementedError):
            return arrow.string()

    def _cast_all(self, tables: list[Any], wanted: Any) -> tuple[list[Any], Any]:
        """The tables in that schema, with text in columns whose values it would change."""
        while True:
            try:
                return [self._cast(table, wanted) for table in tables], wanted
            except _DoesNotFitError as error:
                (column,) = error.args
                wanted = wanted.set(wanted.get_field_index(column), self._arrow.field(column, self._arrow.string()))

    def _cast(self, table: Any, wanted: Any) -> Any:
        arrow = self._arrow
        columns = []
        for field in wanted:
            at = table.schema.get_field_index(field.name)
            if at < 0:
                columns.append(arrow.nulls(table.num_rows, field.type))
                continue
            column = table.column(at)
            if column.type != field.type:
                try:
                    if arrow.types.is_string(field.type):
                        column = arrow.array([as_cell(value) for value in column.to_pylist()], type=field.type)
                    else:
                        column = column.cast(field.type)
                except Exception as error:
                    raise _DoesNotFitError(field.name) from error
            columns.append(column)
        return arrow.Table.from_arrays(columns, schema=wanted)

    def _widen(self, wanted: Any) -> None:
        """Rewrite the file in the wider schema, with text in columns whose values it would change."""
        self._writer.close()
        self._part.grown()
        old = self._parquet.ParquetFile(self._part.file)
        for number in range(old.num_row_groups):  # before anything is written
            _, wanted = self._cast_all([old.read_row_group(number)], wanted)
        with self._part.anew() as file:
            self._schema = wanted
            writer = self._open_writer(file)
            for number in range(old.num_row_groups):
                writer.write_table(self._cast(old.read_row_group(number), wanted))
        self._writer = writer

    # -- the end ---------------------------------------------------------------------------------------------

    def _write_held(self) -> None:
        super()._write_held()
        if self._tables and not self._is_torn:
            self._flush()

    def _end(self) -> None:
        if self._writer is None:
            if self._schema is None:
                names: Sequence[str] = self.default if self.columns is None else self.columns
                self._schema = self._arrow.schema([(name, self._arrow.null()) for name in names])
            self._writer = self._open_writer(self._part.file)
        if not self._is_torn:
            self._writer.close()

    def drop(self) -> None:
        """Remove what was written; the writer writes nothing any more."""
        if self._out is not None:
            self._out.is_left = True
        super().drop()

    def leave(self) -> Path | None:
        """Write the rows that are held, if possible, and leave the file a part; returns its path."""
        try:
            return super().leave()
        finally:
            if self._is_torn:
                self.rows = 0
            if self._out is not None:
                self._out.is_left = True


class _DoesNotFitError(Exception):
    """The column of that name would change a value."""


class _Whole:
    """A file for pyarrow: writes all data, or nothing once it ``is_left``."""

    closed = False

    def __init__(self, file: Any) -> None:
        self._file = file
        self.is_left = False

    def write(self, data: Any) -> int:
        """Write all of the data. Raises OSError."""
        view = memoryview(data).cast("B")
        rest = view
        while rest and not self.is_left:
            rest = rest[self._file.write(rest) :]
        return len(view)

    def tell(self) -> int:
        """Return the position in the file, in bytes; 0 once it is left."""
        at: int = 0 if self.is_left else self._file.tell()
        return at

    def flush(self) -> None:
        """Do nothing, as no data are held."""

    def close(self) -> None:
        """Do nothing: other code closes the file."""
