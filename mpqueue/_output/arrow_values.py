"""Values as pyarrow's arrays and polars' series, checked for losses. Imports neither.

Both convert many values loosely: 0.5 becomes the whole number 0, True becomes 1, a moment becomes a day, and keys that
a struct lacks are dropped. So the values that they return are compared with the originals.
"""

from __future__ import annotations

import contextlib
import datetime as dt
import math
import struct
from collections.abc import Iterable, Mapping, Sequence
from decimal import Decimal
from typing import Any

#: Types whose values are the same if they are equal.
_SIMPLE = frozenset({str, int, bool, bytes, dt.date, dt.timedelta, Decimal, type(None)})
#: Types whose values need no check.
_OWN = _SIMPLE | {float, dt.datetime, dt.time}
#: Types whose values are never converted, unless mixed with others.
_UNCHANGED = frozenset({str, int, bool, float, bytes})
_NUMBERS = (int, float, Decimal)


def exact_array(arrow: Any, values: Sequence[Any], kind: Any) -> Any:
    """Return an array of that type. Raises ValueError for a value that it would change, and errors of pyarrow.

    Floats may be rounded to the precision of the type; all other values are unchanged.
    """
    array = arrow.array(values, type=kind)
    _compare(arrow, values, array.to_pylist())
    return array


def inferred_array(arrow: Any, values: Sequence[Any]) -> Any:
    """Return an array of the type that pyarrow infers; raises as `exact_array`, since pyarrow may mix types."""
    array = arrow.array(values)
    if not _are_of_one_kind_inside(values):
        _compare(arrow, values, array.to_pylist())
    return array


def is_writable(arrow: Any, kind: Any) -> bool:
    """Tell whether a Parquet file can have that type: structs without fields, made of empty dicts, can't be written."""
    if arrow.types.is_list(kind):
        return is_writable(arrow, kind.value_type)
    if arrow.types.is_struct(kind):
        return kind.num_fields > 0 and all(is_writable(arrow, kind.field(at).type) for at in range(kind.num_fields))
    return True


def exact_series(polars: Any, name: str, values: Sequence[Any]) -> Any:
    """Return a series of the type that polars infers. Raises ValueError for a value that it would change."""
    series = polars.Series(name, values)
    if not _is_of_one_kind(values):
        _compare(None, values, series.to_list())
    return series


def _is_of_one_kind(values: Iterable[Any]) -> bool:
    """Tell whether all are scalars of one type, or None, so that no value is converted."""
    kinds = set(map(type, values)) - {type(None)}
    return len(kinds) <= 1 and all(kind in _UNCHANGED or issubclass(kind, float) for kind in kinds)


def _are_of_one_kind_inside(values: Sequence[Any]) -> bool:
    """Tell whether lists' elements, and each key of dicts, are of one kind; pyarrow refuses ints that no float is."""
    kinds = set(map(type, values)) - {type(None)}
    if kinds == {list}:
        return _are_of_one_kind_inside([one for value in values if value is not None for one in value])
    if kinds == {dict}:
        given = [value for value in values if value is not None]
        keys = {key for value in given for key in value}
        return all(_are_of_one_kind_inside([value.get(key) for value in given]) for key in keys)
    return kinds == {int, float} or _is_of_one_kind(values)


def _compare(arrow: Any, values: Sequence[Any], there: Sequence[Any]) -> None:
    """Raise ValueError for a value that is another one there."""
    for value, found in zip(values, there, strict=True):
        if not _is_same(arrow, value, found):
            raise ValueError(f"which would be {found!r} there")


def _is_same(arrow: Any, value: Any, found: Any) -> bool:
    if type(value) is type(found) and type(value) in _SIMPLE:
        return bool(value == found)
    if isinstance(value, bool) or isinstance(found, bool):
        return _plain(arrow, value) is found
    if isinstance(value, _NUMBERS) and isinstance(found, _NUMBERS):
        return _is_same_number(value, found)
    if isinstance(found, Mapping):
        return _is_same_struct(arrow, value, found)
    if isinstance(found, list | tuple):
        return _is_same_list(arrow, value, found)
    return _is_same_scalar(arrow, value, found)


def _is_same_number(value: Any, found: Any) -> bool:
    if value == found:
        return True
    if not isinstance(value, float) or not isinstance(found, float):
        return False
    if not math.isfinite(value) or not math.isfinite(found):  # a value out of range is not rounded
        return math.isnan(value) and math.isnan(found)
    return any(_rounded(value, form) == found for form in "fe")


def _rounded(value: float, form: str) -> float | None:
    """The float in that precision; None if it is too big for it."""
    rounded = None
    with contextlib.suppress(OverflowError):
        (rounded,) = struct.unpack(form, struct.pack(form, value))
    return rounded


def _is_same_struct(arrow: Any, value: Any, found: Mapping[str, Any]) -> bool:
    if not isinstance(value, Mapping):
        return False
    given = dict(value)
    return given.keys() <= found.keys() and all(_is_same(arrow, given.get(key), one) for key, one in found.items())


def _is_same_list(arrow: Any, value: Any, found: Sequence[Any]) -> bool:
    if value is None or isinstance(value, str | bytes):
        return False
    given = list(value.items() if isinstance(value, Mapping) else value)
    return len(given) == len(found) and all(_is_same(arrow, *pair) for pair in zip(given, found, strict=True))


def _is_same_scalar(arrow: Any, value: Any, found: Any) -> bool:
    """Compare texts, bytes, dates and times, None, and values of other libraries."""
    if isinstance(found, bytes):
        return isinstance(value, bytes | bytearray | memoryview) and bytes(value) == found
    if isinstance(value, str) and isinstance(found, str):
        return str.__eq__(value, found)
    if isinstance(value, dt.datetime) and found is None:
        return bool(value != value)  # noqa: PLR0124 - pandas' NaT is nothing
    if isinstance(value, dt.datetime) and isinstance(found, dt.datetime):
        return _is_same_moment(value, found)
    if isinstance(value, dt.timedelta) and isinstance(found, dt.timedelta):
        return bool(value == found)
    plain = _plain(arrow, value)
    if plain is value:
        return type(value) is type(found) and bool(value == found)
    return _is_same(arrow, plain, found)


def _is_same_moment(value: dt.datetime, found: dt.datetime) -> bool:
    if (value.utcoffset() is None) is not (found.utcoffset() is None):
        return False
    if value.utcoffset() is None:
        return bool(value == found)
    # If a clock of the two zones shows a moment twice, no moments are the same.
    return bool(value.astimezone(dt.UTC) == found.astimezone(dt.UTC))


def _plain(arrow: Any, value: Any) -> Any:
    """A scalar of numpy, or of another library, as Python's own."""
    if type(value) in _OWN:
        return value
    if getattr(getattr(value, "dtype", None), "kind", "") in "biuf":
        return value.item()
    with contextlib.suppress(Exception):  # unchanged if it can't tell
        plain = arrow.array([value])[0].as_py()
        return value if type(plain) is type(value) else plain
    return value
