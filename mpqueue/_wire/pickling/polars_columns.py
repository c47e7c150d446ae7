"""Series and frames of polars as Arrow arrays, whose buffers are sent beside the pickle.

polars itself writes a file in the Arrow format into the pickle: one copy of all of it, and another one when it is read.
As an array of pyarrow, a series has the same memory. That is done only if pyarrow is imported too, and for types that
come back unchanged, column by column. All others are left to polars.
"""

from __future__ import annotations

import contextlib
import functools
import sys
from typing import Any

from mpqueue._wire.memory.segments import BIG_BUFFER
from mpqueue._wire.pickling import rebuilding

PROTOCOL = 5

#: Types that Arrow keeps unchanged. For categories, Arrow keeps other data than polars does.
_SAME = frozenset(
    {
        *("Int8", "Int16", "Int32", "Int64", "UInt8", "UInt16", "UInt32", "UInt64", "Float32", "Float64"),
        *("Boolean", "String", "Binary", "Date", "Datetime", "Duration", "Time", "Decimal"),
    }
)
#: Bytes per text in a column, besides those of the text itself.
_TEXT_VIEW = 16


def reduce_series(series: Any) -> Any:
    """Reduce a `polars.Series`; a big one by Arrow, if that restores the same series."""
    if series.estimated_size() < BIG_BUFFER:
        return series.__reduce_ex__(PROTOCOL)
    return _by_arrow(series) or series.__reduce_ex__(PROTOCOL)


def reduce_frame(frame: Any) -> Any:
    """Reduce a `polars.DataFrame`; a big one goes column by column."""
    if frame.estimated_size() < BIG_BUFFER:
        return frame.__reduce_ex__(PROTOCOL)
    columns = frame.get_columns()
    if not any(_comes_back(column.dtype) for column in columns):
        return frame.__reduce_ex__(PROTOCOL)
    return rebuilding.polars_frame, (columns,)


def _comes_back(dtype: Any) -> bool:
    """Tell whether an Arrow array of this type becomes a series of this type again."""
    match type(dtype).__name__:
        case "List" | "Array":
            return _comes_back(dtype.inner)
        case "Struct":
            return all(_comes_back(field.dtype) for field in dtype.fields)
        case name:
            return name in _SAME


def _texts(dtype: Any) -> int:
    """Return how many texts a row has, as far as known: not for lists."""
    match type(dtype).__name__:
        case "String" | "Binary":
            return 1
        case "Struct":
            return sum(_texts(field.dtype) for field in dtype.fields)
        case _:
            return 0


def _by_arrow(series: Any) -> Any:
    """Reduce a series by Arrow; None if it does not come back unchanged, or includes hidden data."""
    if not _comes_back(series.dtype):
        return None
    array = series.to_arrow(compat_level=sys.modules["polars"].CompatLevel.newest())
    enough = series.estimated_size() * 5 // 4 + _texts(series.dtype) * len(series) * _TEXT_VIEW
    if array.get_total_buffer_size() > enough:  # a part of a larger array
        array = sys.modules["pyarrow"].concat_arrays([array, array[:0]])  # copies the visible part of it
        if array.get_total_buffer_size() > enough:  # except for texts
            return None
    flags = series.flags
    order = "up" if flags.get("SORTED_ASC") else "down" if flags.get("SORTED_DESC") else ""
    return rebuilding.polars_series, (series.name, array, order)


@functools.cache
def are_handed_over(polars: Any) -> bool:
    """Tell whether the installed pyarrow and this polars agree: tried out once per process."""
    with contextlib.suppress(Exception):
        for values in ([1, None, 3], ["a", None, "a text that is longer than others"], [[1.5], None, []], [True, None]):
            series = polars.Series("name", values)
            found = _by_arrow(series)
            again = found and found[0](*found[1])
            if not found or again.dtype != series.dtype or not again.equals(series, check_names=True):
                return False
        return True
    return False
