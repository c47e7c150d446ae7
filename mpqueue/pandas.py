"""`apply` for pandas: `DataFrame.apply` and `Series.apply` on all cores. Needs pandas: the extra ``pandas``.

Rows are sent as slices, and pandas itself calls the function on them in the workers. The returned values are sent back
unchanged, and pandas makes the result of them, as if it had called the function here: index, columns and dtypes do not
depend on the slices.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

try:
    from pandas import CategoricalDtype, DataFrame, Series
except ImportError as error:
    raise ImportError(f"mpqueue.pandas needs pandas ({error}): `pip install 'mpqueue[pandas]'`") from error

from mpqueue._call_checks import no_such_option
from mpqueue._dropin.whole_map import map as map_items
from mpqueue._engines.loky.loky_lane import count_cores
from mpqueue._options import Concurrency, choose_concurrency
from mpqueue._output.progress import ShowProgress
from mpqueue.errors import shown
from mpqueue.retry import RetryPolicy

__all__ = [
    "apply",
]

#: Slices per worker: few enough to be cheap to send, enough that no worker waits long for the last one.
_SLICES = 16


def apply(
    data: DataFrame | Series[Any],
    function: Callable[..., Any],
    axis: Literal[0, 1, "index", "columns"] = 0,
    *,
    args: Sequence[Any] = (),
    result_type: Literal["expand", "reduce", "broadcast"] | None = None,
    concurrency: Concurrency = None,
    max_retries: int | None = None,
    retry: RetryPolicy | None = None,
    progress: ShowProgress = False,
    **keywords: Any,
) -> Any:
    """``data.apply(function, axis, ...)`` on all cores; returns the same value, with the same index and dtypes.

    ``function`` gets the same as from pandas: a row (``axis=1``) or a column of a frame as a Series, one value of a
    series; and ``args`` and ``keywords`` after it. A frame's default is ``axis=0``, as in pandas: each column.

    About 16 pickled slices per worker are sent; they are the items of ``progress``, ``max_retries`` (3), ``retry`` and
    ``concurrency``, as in `mpqueue.map`. If a worker dies, its slice loses one try, and the function may see rows
    twice. An error of its last try is raised here, with a note that names the row.

    It is worth it if a call takes longer than about 20 us: pandas makes each row once more here, without its values.

    Raises TypeError if ``data`` is no frame or series, for ``keywords`` that the function can't take, and for the name
    of a function, for which pandas has faster ways.
    """
    if not isinstance(data, (DataFrame, Series)):
        raise TypeError(f"data: expected a pandas DataFrame or Series, got {shown(data)} of type {type(data).__name__}")
    if not callable(function):
        raise TypeError(f"function: expected a function, got {shown(function)}; data.apply() takes names, and is fast")
    if keywords:
        _check_keywords(function, keywords)
    is_frame = isinstance(data, DataFrame)
    if not is_frame and (axis not in (0, "index") or result_type is not None):
        raise TypeError("axis, result_type: expected neither for a Series")
    by_row = is_frame and axis in (1, "columns")
    call = partial(_call, function, tuple(args), keywords)
    options: dict[str, Any] = {"axis": axis, "result_type": result_type} if is_frame else {}
    count = data.shape[1] if is_frame and not by_row else len(data)
    if not count or data.size == 0:
        return data.apply(call, **options)
    workers = choose_concurrency(concurrency, count_cores) or count_cores()
    run = partial(_run, workers=workers, max_retries=max_retries, retry=retry, progress=progress)
    if not is_frame and isinstance(data.dtype, CategoricalDtype):  # pandas calls it once for each category
        categories = data.cat.categories.to_series()
        known = dict(zip(categories, run(partial(_returned, call, {}), categories), strict=True))
        return data.apply(lambda value: known[value] if value in known else call(value))  # and once for the missing one
    values = iter(
        run(partial(_returned, call, {"axis": axis} if is_frame else {}), data, columns=is_frame and not by_row)
    )
    if by_row and type(data) is DataFrame and result_type != "broadcast":
        data = DataFrame({0: 0}, index=data.index)  # rows of a frame with one column cost less
    return data.apply(lambda _: next(values), **options)


def _check_keywords(function: Callable[..., Any], keywords: dict[str, Any]) -> None:
    """Raise TypeError for a keyword that the function does not take, such as an option of other libraries."""
    try:
        known = inspect.signature(function).parameters
    except (TypeError, ValueError):  # written in C
        return
    if any(one.kind is one.VAR_KEYWORD for one in known.values()):
        return
    for name, value in keywords.items():
        if name not in known:
            raise no_such_option("mpqueue.pandas.apply", name, [*inspect.signature(apply).parameters, *known], value)


def _run(
    handler: Callable[[_Slice], list[Any]], data: Any, *, workers: int, columns: bool = False, **options: Any
) -> list[Any]:
    """Run the handler on slices of the data; returns its value for each row or column, in order."""
    labels = data.columns if columns else data.index
    size = max(1, -(-len(labels) // (workers * _SLICES)))
    parts_of = [slice(at, at + size) for at in range(0, len(labels), size)]
    slices = [_Slice(data.iloc[:, part] if columns else data.iloc[part], labels[part]) for part in parts_of]
    parts: list[Any] = map_items(handler, slices, concurrency=workers, chunksize=1, **options)
    return [value for part in parts for value in part]


@dataclass(slots=True)
class _Slice:
    """Rows or columns that are sent together."""

    data: Any
    labels: Any  #: a pandas Index

    def __repr__(self) -> str:
        first, last = self.labels[0], self.labels[-1]
        return f"{first!r}" if len(self.labels) == 1 else f"{first!r} to {last!r}"


def _call(function: Callable[..., Any], args: tuple[Any, ...], keywords: dict[str, Any], value: Any) -> Any:
    return function(value, *args, **keywords)


def _returned(call: Callable[[Any], Any], options: dict[str, Any], part: _Slice) -> list[Any]:
    """Return what each call of a slice has returned, in a worker."""
    found: list[Any] = []

    def note(value: Any) -> None:
        try:
            result = call(value)
        except Exception as error:
            error.add_note(f"mpqueue: at {part.labels[len(found)]!r}")
            raise
        # pandas reuses the row for the next call
        found.append(result.copy() if isinstance(result, Series) else result)

    part.data.apply(note, **options)
    return found
