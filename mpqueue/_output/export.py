"""A job's items as records, as columns of values, as texts for files, and as data frames.

A column's name is one of:

- ``item``: the item's name, `JobItem.label`;
- any other attribute of `JobItem`: ``id``, ``status``, ``attempts``, ``elapsed``, ``error``, ``result``, ...; the wire
  form's ``proposedAlt`` is ``proposed_alt``, its ``errorType`` is ``error_type``;
- a key or attribute of the result or of the item itself: ``result.label``, ``payload.file``; or the bare ``label``,
  which is searched in the result first.

By default there are the `COLUMNS`, ``item`` if ids are positions, and ``stdout`` and ``stderr`` if output was captured;
tables have a column for each key of the results instead of ``result``.
"""

from __future__ import annotations

import csv
import dataclasses
import datetime as dt
import importlib
import logging
import math
import os
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import cache, partial
from itertools import chain, islice
from numbers import Integral
from typing import TYPE_CHECKING, Any, NamedTuple

from mpqueue._call_checks import nearest
from mpqueue._core.state.columns import take
from mpqueue._output.arrow_values import exact_series
from mpqueue._plain import field_of
from mpqueue._queue.job_items import JobItem
from mpqueue._text import as_utf8, digits, encode_text, json_text, repr_of
from mpqueue.errors import shown
from mpqueue.status import COMPLETED, FAILED, ITEM_CODES

if TYPE_CHECKING:
    from mpqueue._core.state.item_table import ItemTable

log = logging.getLogger("mpqueue")

COLUMNS = ("id", "status", "attempts", "elapsed", "error", "result")
#: The further columns if output was captured.
OUTPUT = ("stdout", "stderr")
#: Columns whose keys become columns of their own.
SPREAD = ("result", "payload")
#: Columns whose names differ from their attributes'.
_ATTRIBUTES = {"proposedAlt": "proposed_alt", "errorType": "error_type", "item": "label"}
#: All columns that are an item's own, without ``label``, which is a common key of results.
_OF_ITEMS = frozenset(
    {
        *COLUMNS,
        *OUTPUT,
        *_ATTRIBUTES,
        "payload",
        "proposed_alt",
        "error_type",
        "exception",
        "traceback",
        "fraction",
        "history",
        "cpu_seconds",
        "peak_memory",
    }
)
#: The columns among them that show the item's result.
_OF_RESULTS = frozenset({"result", "proposedAlt", "proposed_alt"})
_ROUNDED = frozenset({"elapsed", "cpu_seconds"})
_ABSENT = object()
#: The number of items that are looked at together.
TOGETHER = 1024
#: The columns that a table may return for many items at once.
_WHOLE = frozenset({"id", "item", "status", "attempts", "elapsed", "error"})
_ENDED = frozenset({COMPLETED, FAILED})
_NAMES = [str(status) for status in ITEM_CODES]
_TEXT = frozenset({str})
#: Types that JSON has too.
_PLAIN = frozenset({str, bool, type(None)})
#: Numbers up to here are printed without a check.
_PRINTED = 1 << 1024
#: Up to here all whole numbers are exact as floats.
_EXACT = 1 << 53


# -- records -----------------------------------------------------------------------------------------------------------


def records(table: ItemTable, columns: Sequence[str] | None = None) -> list[dict[str, Any]]:
    """One dict per item, with the values themselves. Raises ValueError for a column that no item has."""
    names = chosen_columns(table, columns)
    return [row for indices in batched(range(len(table)), TOGETHER) for row in rows_of(table, indices, names)]


def rows_of(
    table: ItemTable, indices: Sequence[int], columns: Sequence[str], results: Sequence[Any] | None = None
) -> list[dict[str, Any]]:
    """The records of these items, made together, which costs less per item. ``results`` is as in `column`."""
    values = [column(table, indices, name, results) for name in columns]
    return [dict(zip(columns, row, strict=True)) for row in zip(*values, strict=True)]


def batched(rows: Sequence[Any], size: int) -> Iterator[Sequence[Any]]:
    """The rows in slices of at most that many."""
    return (rows[start : start + size] for start in range(0, len(rows), size))


def record_of(item: JobItem, columns: Sequence[str]) -> dict[str, Any]:
    """One item's record; attributes that it does not have are None."""
    return {name: _value_or_none(item, name) for name in columns}


def absent_columns(item: JobItem, columns: Iterable[str]) -> set[str]:
    """Return those of the columns that the item does not have."""
    return {name for name in columns if name not in _OF_ITEMS and _value(item, name) is _ABSENT}


def check_columns(table: ItemTable, columns: Iterable[str], *, ended: bool) -> None:
    """Raise ValueError for a column that no item has. Looks at items until every column is found.

    Before they have ``ended``, and without results, only ``payload.key`` is refused: results may have any key.
    """
    known = ended and any(result is not None for result in _results(table))
    absent = {name for name in columns if (name not in _OF_ITEMS if known else name.startswith("payload."))}
    for index in range(len(table)):
        if not absent:
            return
        absent = absent_columns(JobItem(table, index), absent)
    if absent and len(table):
        raise ValueError(f"columns: {no_such_column(min(absent), _results(table) if known else (), table.payloads)}")


def chosen_columns(table: ItemTable, columns: Sequence[str] | None) -> Sequence[str]:
    indices = range(len(table))
    if columns is None:
        default: Sequence[str] = COLUMNS
        if not all(map(table.has_result, indices)):
            default = [name for name in default if name != "result"]
        default = with_names(default, has_ids=table.ids is not None)
        captured = any(stdout is not None for stdout, _ in table.output.values())
        return (*default, *OUTPUT) if captured else tuple(default)
    columns = column_names(columns)
    check_columns(table, columns, ended=True)
    return columns


def _results(table: ItemTable) -> Iterator[Any]:
    return (table.result_of(index) for index in range(len(table)) if table.has_result(index))


def no_such_column(name: str, results: Iterable[Any], payloads: Iterable[Any]) -> str:
    """Return the message about a column that no item has, with the likely one."""
    there_are = {*_OF_ITEMS}
    for where, values in (("result", results), ("payload", payloads)):
        keys = next((list(map(str, value)) for value in values if isinstance(value, Mapping)), [])
        there_are.update(keys, (f"{where}.{key}" for key in keys))
    meant = "item" if name == "label" else nearest(name, sorted(there_are))
    hint = f"; attributes are {', '.join(sorted(_OF_ITEMS))}" if meant is None else f"; did you mean {meant}?"
    what = "attributes of items or keys of their results or payloads"
    return f"expected {what}, got {shown(name)}, which no item has{hint}"


def with_names(columns: Sequence[str], *, has_ids: bool) -> Sequence[str]:
    """The default columns; ``item`` is one if ids are positions, unless the items themselves are positions."""
    if has_ids or columns[:1] != COLUMNS[:1] or "payload" in columns:
        return columns
    return (columns[0], "item", *columns[1:])


def column_names(columns: Any) -> list[str]:
    """The names of columns that a user has chosen. Raises TypeError."""
    names = list(columns) if isinstance(columns, Iterable) and not isinstance(columns, str) else None
    if names is None or not all(isinstance(name, str) for name in names):
        raise TypeError(f"columns: expected a list of names, got {shown(columns)} of type {type(columns).__name__}")
    return names


def column(table: ItemTable, indices: Sequence[int], name: str, results: Sequence[Any] | None = None) -> list[Any]:
    """Return the items' values in that column; ``results`` are their results, if they are at hand."""
    made = _whole_column(table, indices, name) if name in _WHOLE else None
    if made is not None:
        return made
    if results is None and reads_result(name):
        results = table.results_at_hand(indices)
    if results is None:
        return [_value_or_none(JobItem(table, index), name) for index in indices]
    if name == "result":
        return list(results)
    return [_value_or_none(RowItem(table, *each), name) for each in zip(indices, results, strict=True)]


class RowItem(JobItem):
    """An item with its result at hand, on its way into the sink."""

    __slots__ = ("_result",)

    def __init__(self, table: ItemTable, index: int, result: Any) -> None:
        self._table, self._index, self._result = table, index, result  # saves a call per row

    @property
    def result(self) -> Any:
        """The item's result; None if it failed."""
        return self._result

    @property
    def _has_result(self) -> bool:
        return True


def _whole_column(table: ItemTable, indices: Sequence[int], name: str) -> list[Any] | None:
    """Return the items' values in a column that their table has for all at once; None if it has not."""
    if name == "attempts":
        return take(table.attempts, indices)
    if name == "elapsed":
        return [round(seconds, 6) for seconds in take(table.elapsed, indices)]
    if name == "id":
        return None if table.origins is not None else list(indices) if table.ids is None else take(table.ids, indices)
    if name == "item":
        return table.labels_of(indices)
    if name == "error":
        if not table.failures:
            return [None] * len(indices)
        failures = map(table.failures.get, indices)
        made = zip(failures, take(table.status, indices), strict=True)
        return [None if failure is None or status == COMPLETED else failure.shown for failure, status in made]
    statuses = take(table.status, indices)  # running items are asked one by one
    return [_NAMES[status] for status in statuses] if _ENDED.issuperset(statuses) else None


def _value_or_none(item: JobItem, name: str) -> Any:
    value = _value(item, name)
    return None if value is _ABSENT else value


def _value(item: JobItem, name: str) -> Any:
    if name in _OF_ITEMS:
        value = getattr(item, _ATTRIBUTES.get(name, name))
        if name == "status":
            return str(value)
        return round(value, 6) if name in _ROUNDED and value is not None else value  # they are stored with seven digits
    where, dot, key = name.partition(".")
    if dot and where in ("result", "payload"):
        return _look_up(getattr(item, where), key)
    keeps_result = item._has_result  # noqa: SLF001 - it is not for users
    found = _look_up(item.result, name) if keeps_result else _ABSENT
    return _look_up(item.payload, name) if found is _ABSENT else found


def reads_result(name: str) -> bool:
    """Tell whether that column may need the items' results."""
    return name in _OF_RESULTS or not (name in _OF_ITEMS or name.startswith("payload."))


def _look_up(value: Any, key: str) -> Any:
    try:
        if isinstance(value, Mapping):
            found = value.get(key, _ABSENT)
            return _named(value).get(key, _ABSENT) if found is _ABSENT else found
        return field_of(value, key, _ABSENT)
    except Exception:  # noqa: BLE001 - users' code
        return _ABSENT


# -- tables ------------------------------------------------------------------------------------------------------------


def columns_of(table: ItemTable, columns: Sequence[str] | None = None) -> dict[str, list[Any]]:
    """The columns by name. By default, mappings are spread over a column for each of their keys."""
    indices = range(len(table))
    made = {name: column(table, indices, name) for name in chosen_columns(table, columns)}
    return made if columns is not None else spread(made)


def spread(columns: Mapping[str, list[Any]]) -> dict[str, list[Any]]:
    """The columns, with mappings over a column for each of their keys."""
    made: dict[str, list[Any]] = {}
    for name, values in columns.items():
        if name in SPREAD and any(issubclass(kind, Mapping) for kind in set(map(type, values))):
            made |= _spread(name, values)
        else:
            made[name] = values
    return made


def _spread(name: str, values: list[Any]) -> dict[str, list[Any]]:
    """A column for each key; and one for values that are no mappings, if there are any."""
    made: dict[str, list[Any]] = {}
    mappings = [_with_names(value) for value in values]
    rest = [value if mapping is None else None for value, mapping in zip(values, mappings, strict=True)]
    if any(value is not None for value in rest):
        made[name] = rest
    parts: list[dict[str, Any]] = [mapping or {} for mapping in mappings]
    for key in dict.fromkeys(chain.from_iterable(parts)):
        made[f"{name}.{key}"] = [part.get(key) for part in parts]
    return made


def _with_names(value: Any) -> dict[str, Any] | None:
    """A mapping that can be read and has texts as keys; None for all other values."""
    try:
        return _named(value) if isinstance(value, Mapping) else None
    except Exception:  # noqa: BLE001 - users' code
        return None


def to_pandas(table: ItemTable, columns: Sequence[str] | None = None) -> Any:
    """Return a `pandas.DataFrame`. Raises ImportError if pandas is not installed."""
    pandas = need("pandas", "to_pandas()")

    def series(values: list[Any]) -> Any:
        try:
            made = pandas.Series(values)
        except UnicodeEncodeError:  # its texts are Arrow's, in UTF-8
            return pandas.Series(values, dtype=object)
        is_exact = made.dtype.kind not in "fc" or not any(map(_is_no_float, values))
        return made if is_exact else pandas.Series(values, dtype=object)

    return pandas.DataFrame({as_utf8(name): series(values) for name, values in columns_of(table, columns).items()})


def _is_no_float(value: Any) -> bool:
    """Tell whether the value is a whole number that a float would change."""
    if not isinstance(value, Integral):
        return False
    number = int(value)
    return abs(number) > _EXACT and int(float(number)) != number


def to_polars(table: ItemTable, columns: Sequence[str] | None = None) -> Any:
    """Return a `polars.DataFrame`; a column whose values polars can't hold together, or would change, becomes text."""
    polars = need("polars", "to_polars()")

    def series(name: str, values: list[Any]) -> Any:
        return or_as_text(partial(exact_series, polars, as_utf8(name)), values)

    return polars.DataFrame([series(name, values) for name, values in columns_of(table, columns).items()])


def or_as_text(make: Callable[[list[Any]], Any], values: list[Any]) -> Any:
    ready = [_for_table(value) for value in values]
    try:
        try:
            return make(ready)
        except UnicodeEncodeError:
            return make([_all_utf8(one) for one in ready])
    except Exception:  # noqa: BLE001 - each library has errors of its own for values of mixed types
        return make([_all_utf8(as_cell(value)) for value in values])


def _all_utf8(ready: Any) -> Any:
    """Return the value ready for a table, with texts in UTF-8."""
    if isinstance(ready, str):
        return as_utf8(ready)
    if isinstance(ready, list):
        return [_all_utf8(one) for one in ready]
    return {as_utf8(key): _all_utf8(one) for key, one in ready.items()} if isinstance(ready, dict) else ready


def _for_table(value: Any) -> Any:
    """The value if tables can have it; else in a form that JSON can have."""
    if type(value) in _PLAIN or isinstance(value, dt.date | dt.time | dt.timedelta | bytes):
        return value
    return value if isinstance(value, float) else json_ready(value)


def need(name: str, what: str) -> Any:
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise ImportError(f"{what} needs {name}, which is not installed: `pip install {name}`") from error


# -- values ------------------------------------------------------------------------------------------------------------


def json_ready(value: Any) -> Any:
    """The value in a form that JSON can have: other objects become their ``repr``, other numbers None.

    An object that contains itself, or has a part that raises, becomes its ``repr`` as a whole. A whole number of more
    digits than Python prints becomes hexadecimal text.
    """
    try:
        return _ready(value)
    except Exception:  # noqa: BLE001 - users' code
        return repr_of(value)


def _ready(value: Any) -> Any:
    kind = type(value)
    if kind in _PLAIN:  # like most values
        return value
    if kind is float:
        return value if math.isfinite(value) else _no_number(value)
    if kind is int:
        return _plain_number(value)
    if kind is dict:
        ready = {key if type(key) is str else _key(key): _ready(one) for key, one in value.items()}
        return ready if len(ready) == len(value) else {key: _ready(one) for key, one in _named(value).items()}
    return _ready_of_another(value)


def _ready_of_another(value: Any) -> Any:
    if isinstance(value, str):  # an enum, or another subclass
        return str(value)
    if isinstance(value, int):
        return _plain_number(int(value))
    if isinstance(value, float):
        return float(value) if math.isfinite(value) else _no_number(value)
    if isinstance(value, Mapping):
        return {key: _ready(one) for key, one in _named(value).items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [_ready(one) for one in value]
    if isinstance(value, os.PathLike):
        path = os.fspath(value)
        return path if isinstance(path, str) else os.fsdecode(path)
    if isinstance(value, dt.date | dt.time):
        return value.isoformat()
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {field.name: _ready(getattr(value, field.name)) for field in dataclasses.fields(value)}
    return _json_ready_of_array(value)


def _no_number(value: float) -> None:
    """Return None, the JSON form of nan and inf; losing an inf is logged once per program."""
    if math.isinf(value):
        _tell_lost_inf()


@cache
def _tell_lost_inf() -> None:
    log.warning("JSON has no inf: results that are inf or -inf are null there; CSV and Parquet have it")


def _plain_number(value: int) -> int | str:
    """The number, or its text if the number would break most programs that print or read it."""
    if -_PRINTED < value < _PRINTED:
        return value
    text = digits(value)
    return text if text.lstrip("-").startswith("0x") else value


def _named(mapping: Mapping[Any, Any]) -> dict[str, Any]:
    """The mapping with texts as keys; if two keys become equal, one gets its type: ``1 (int)``."""
    if type(mapping) is dict and _TEXT.issuperset(map(type, mapping)):  # like most mappings
        return mapping
    given = dict(mapping)
    named = {key if type(key) is str else _key(key): one for key, one in given.items()}
    if len(named) == len(given):
        return named
    named = {key: one for key, one in given.items() if type(key) is str}
    for key, one in given.items():
        if type(key) is not str:
            name = _key(key)
            while name in named:
                name = f"{name} ({type(key).__name__})"
            named[name] = one
    return named


def _key(key: Any) -> str:
    return digits(key) if type(key) is int else str(key)


def _json_ready_of_array(value: Any) -> Any:
    """Return numpy's scalars and arrays, and objects like them, as lists and numbers."""
    to_list = getattr(value, "tolist", None)
    if callable(to_list) and not isinstance(value, type):
        listed = to_list()
        if getattr(getattr(value, "dtype", None), "kind", "") in {"M", "m"}:
            if isinstance(listed, list):
                return [_ready(one) for one in value]
            if isinstance(listed, int):  # its unit is not one of Python's, or it is out of range
                return _moment_text(value)
        if listed is not value:
            return _ready(listed)
    return repr_of(value)


def _moment_text(value: Any) -> str:
    """Return a moment of numpy like other moments, with nanoseconds if it has any; the ``repr`` of a time span."""
    if value.dtype.kind == "m":
        return repr_of(value)
    micros = value.astype("M8[us]")
    moment = micros.tolist()
    return moment.isoformat() if isinstance(moment, dt.datetime) and micros == value else str(value)


def as_cell(value: Any) -> Any:
    """The value as a cell of CSV: text and numbers as they are, anything else as JSON."""
    if isinstance(value, float) and math.isinf(value):
        return str(float(value))
    ready = value if type(value) is str else json_ready(value)
    if ready is None or isinstance(ready, str):
        return ready
    return str(ready) if isinstance(ready, int | float) else json_text(ready)


#: The first characters of texts that spreadsheets take for a formula; numbers begin with them too.
_FORMULA = re.compile("[=+\\-@\t\r]")
_FORMULA_STARTS = frozenset("=+-@\t\r")
_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?", re.ASCII)


def _cells(values: list[Any], *, escape_formulas: bool) -> list[Any]:
    """A column as cells of CSV. Values that the writer prints correctly are not looked at one by one."""
    kinds = set(map(type, values)) - {type(None)}
    if kinds == {str}:
        is_ready = not escape_formulas or _FORMULA_STARTS.isdisjoint({value[:1] for value in values if value})
    elif kinds == {float}:
        is_ready = all(map(math.isfinite, filter(None, values)))
    elif kinds == {int}:
        is_ready = _are_printed(filter(None, values))
    else:
        is_ready = not kinds
    if is_ready:
        return values
    return list(map(_for_sheet if escape_formulas else as_cell, values))


def _are_printed(numbers: Iterable[int]) -> bool:
    return all(map(range(1 - _PRINTED, _PRINTED).__contains__, numbers))


def _for_sheet(value: Any) -> Any:
    """The value as a cell that no spreadsheet runs: a formula gets an apostrophe before it."""
    cell = as_cell(value)
    if not isinstance(cell, str) or _FORMULA.match(cell) is None or isinstance(value, int | float | complex):
        return cell
    return cell if _NUMBER.fullmatch(cell) else f"'{cell}"


# -- texts -------------------------------------------------------------------------------------------------------------


def json_lines(columns: Mapping[str, list[Any]]) -> list[str]:
    """The rows of these columns as JSON, one line each, without line ends."""
    line = ", ".join(f"{json_text(name).replace('%', '%%')}: %s" for name in columns).join("{}")
    return [line % row for row in zip(*map(_json_cells, columns.values()), strict=True)]


def _json_cells(values: list[Any]) -> Iterable[str]:
    """A column as JSON. Numbers are not looked at one by one."""
    kinds = set(map(type, values))
    if (kinds == {float} and all(map(math.isfinite, values))) or (kinds == {int} and _are_printed(values)):
        return map(repr, values)
    if kinds <= {type(None)}:
        return ["null"] * len(values)
    return [json_text(value if type(value) in _PLAIN else json_ready(value)) for value in values]


def csv_text(columns: Iterable[list[Any]], delimiter: str, *, escape_formulas: bool) -> Iterator[bytes]:
    """The rows of these columns of values as CSV, many at a time."""
    cells = [_cells(values, escape_formulas=escape_formulas) for values in columns]
    lines: list[str] = []
    # The writer quotes both characters of its line ends, since readers end lines at either.
    writer: Any = csv.writer(_Lines(lines.append), delimiter=delimiter, lineterminator=_LINE_END)
    rows = zip(*cells, strict=True)
    while some := list(islice(rows, TOGETHER)):
        writer.writerows(some)
        yield encode_text("".join([f"{line[:-2]}\n" for line in lines]))
        lines.clear()


_LINE_END = "\r\n"


class _Lines(NamedTuple):
    """The file of a CSV writer, which writes a row at a time."""

    write: Callable[[str], object]
