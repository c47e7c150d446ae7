"""`mpqueue.pandas.apply` gives what pandas itself gives, whatever the function returns, and however rows are sliced."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from pandas.testing import assert_frame_equal, assert_series_equal

import mpqueue.pandas
from mpqueue.testing import close_shared_pool
from tests.support.waiting import Gate

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("shared_pool_stays")]


def meet(gate: Gate, item: int) -> None:
    gate.announce(item)
    gate.wait_for(0, 1)


@pytest.fixture(scope="module")
def shared_pool_stays(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Its workers live as long as this file's tests: both are there when the first one begins."""
    both = Gate(tmp_path_factory.mktemp("both"))
    mpqueue.map(partial(meet, both), range(2), concurrency=2, chunksize=1)
    yield
    close_shared_pool(kill=True)


INDEX = pd.Index([f"row {number}" for number in range(40)], name="row")
NUMBERS = pd.DataFrame({"a": range(40), "b": range(100, 140)}, index=INDEX)
MIXED = pd.DataFrame(
    {
        "number": range(40),
        "text": [f"text {number}" for number in range(40)],
        "time": pd.date_range("2026-01-01", periods=40, tz="Europe/Berlin"),
        "kind": pd.Categorical(["x", "y"] * 20),
    },
    index=pd.MultiIndex.from_product([range(4), list("abcdefghij")], names=["outer", "inner"]),
)
ROWS: dict[str, Callable[[Any], Any]] = {
    "numbers": lambda row: row.iloc[0] * 2,
    "numbers and nothing": lambda row: None if row.iloc[0] < 20 else 1,
    "a float at the end": lambda row: 0.5 if row.iloc[0] == 39 else 1,
    "texts": lambda row: str(row.iloc[0]),
    "the row itself": lambda row: row,
    "another row": lambda row: pd.Series({"x": row.iloc[0], "y": "text"}),
    "lists": lambda row: [row.iloc[0], 1],
    "its name": lambda row: row.name,
    "its types": lambda row: str(row.dtype),
}


def check_equal(ours: Any, theirs: Any) -> None:
    """They are of one type, with equal values, index, columns and dtypes."""
    (assert_frame_equal if isinstance(theirs, pd.DataFrame) else assert_series_equal)(ours, theirs)


@pytest.mark.long(but=["numbers-numbers", "mixed-texts", "mixed-the row itself", "numbers-lists", "mixed-its types"])
@pytest.mark.parametrize("what", ROWS)
@pytest.mark.parametrize("frame", [NUMBERS, MIXED], ids=["numbers", "mixed"])
def test_rows_of_a_frame(frame: pd.DataFrame, what: str) -> None:
    function = ROWS[what]
    check_equal(mpqueue.pandas.apply(frame, function, axis=1, concurrency=2), frame.apply(function, axis=1))


@pytest.mark.parametrize("result_type", ["expand", "reduce", "broadcast"])
def test_what_rows_become_is_as_it_was_said(result_type: Any) -> None:
    function: Callable[[Any], Any] = lambda row: [row.iloc[0], 1.5]  # noqa: E731 - of no name
    theirs = NUMBERS.apply(function, axis=1, result_type=result_type)
    check_equal(mpqueue.pandas.apply(NUMBERS, function, axis=1, result_type=result_type, concurrency=2), theirs)


@pytest.mark.parametrize("function", [np.mean, lambda column: column * 2, lambda column: column.iloc[:2], len])
def test_columns_of_a_frame(function: Callable[..., Any]) -> None:
    check_equal(mpqueue.pandas.apply(NUMBERS, function, concurrency=2), NUMBERS.apply(function))


@pytest.mark.parametrize(
    ("name", "function"),
    [
        ("number", lambda value: value * 2),
        ("number", lambda value: None if value < 20 else value),
        ("number", lambda value: pd.Series([value, "more"])),
        ("text", str.upper),
        ("time", lambda value: value.day_name()),
        ("time", lambda value: value + pd.Timedelta(days=1)),
        ("kind", str.upper),
        ("kind", len),
    ],
)
def test_values_of_a_series(name: str, function: Callable[..., Any]) -> None:
    check_equal(mpqueue.pandas.apply(MIXED[name], function, concurrency=2), MIXED[name].apply(function))


def test_missing_values_and_types_of_extensions() -> None:
    for series in (
        pd.Series([1, None, 3], dtype="Int64"),
        pd.Series(["a", None], dtype="string"),
        pd.Series(pd.Categorical(["a", None, "b"])),
    ):
        check_equal(mpqueue.pandas.apply(series, str, concurrency=2), series.apply(str))


def test_further_arguments() -> None:
    function: Callable[..., Any] = lambda value, more, *, last: value + more + last  # noqa: E731 - of no name
    ours = mpqueue.pandas.apply(NUMBERS["a"], function, args=(10,), last=100, concurrency=2)
    check_equal(ours, NUMBERS["a"].apply(function, args=(10,), last=100))


@pytest.mark.parametrize("empty", [NUMBERS[:0], NUMBERS[[]], NUMBERS["a"][:0]])
def test_nothing_to_do(empty: Any) -> None:
    options: dict[str, Any] = {"axis": 1} if isinstance(empty, pd.DataFrame) else {}
    check_equal(mpqueue.pandas.apply(empty, len, **options), empty.apply(len, **options))


def test_what_raises_is_named() -> None:
    def fail(row: Any) -> None:
        if row["a"] == 7:
            raise KeyError("height")

    with pytest.raises(KeyError) as caught:
        mpqueue.pandas.apply(NUMBERS, fail, axis=1, concurrency=2, max_retries=0)
    assert caught.value.__notes__[0] == "mpqueue: at 'row 7'"


@pytest.mark.parametrize(
    ("data", "function", "options", "said"),
    [
        ([1, 2], len, {}, r"^data: expected a pandas DataFrame or Series, got \[1, 2\] of type list$"),
        (NUMBERS, "sum", {}, r"^function: expected a function, got 'sum'; data.apply\(\) takes names"),
        (NUMBERS["a"], len, {"axis": 1}, "^axis, result_type: expected neither for a Series$"),
        (NUMBERS["a"], abs, {"n_jobs": 2}, r"apply\(\) has no option 'n_jobs': did you mean concurrency\?$"),
        (NUMBERS["a"], abs, {"progess": 1}, r"unexpected keyword argument 'progess'; did you mean progress\?$"),
    ],
)
def test_refused(data: Any, function: Any, options: dict[str, Any], said: str) -> None:
    with pytest.raises(TypeError, match=said):
        mpqueue.pandas.apply(data, function, **options)


def test_a_worker_that_dies_costs_its_slice_one_try(tmp_path: Path, shared_pool_ends: None) -> None:
    def die_once(value: int) -> int:
        if value == 7 and not (tmp_path / "died").exists():
            (tmp_path / "died").touch()
            os.kill(os.getpid(), signal.SIGKILL)
        return value + 1

    check_equal(mpqueue.pandas.apply(NUMBERS["a"], die_once, concurrency=2), NUMBERS["a"] + 1)
