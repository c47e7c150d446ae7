"""Failures that are alike."""

from __future__ import annotations

import json
import traceback

import pytest

from mpqueue._core.state.item_table import Failure, make_table
from mpqueue._output.failure_groups import group_failures, place_of
from mpqueue._queue.job import JobItem
from mpqueue.errors import RemoteError, WorkerCrashedError


def parse(text: str) -> None:
    json.loads(text)


def chain() -> None:
    try:
        parse("{")
    except ValueError as error:
        raise KeyError("k") from error


def trace_of(error: type[BaseException]) -> str:
    with pytest.raises(error) as caught:
        chain() if error is KeyError else parse("{")
    return "".join(traceback.format_exception(caught.value))


#: An embedded Python, which has its library in a zip, names files of it without their folder.
HAS_PATHS = pytest.mark.skipif(
    json.loads.__code__.co_filename.startswith("json"), reason="this Python's files do not tell whose they are"
)


@HAS_PATHS
def test_the_place_is_the_innermost_line_that_is_no_library_s() -> None:
    assert place_of(trace_of(ValueError)) == "test_failure_groups.py:17"


def test_the_place_is_that_of_the_error_itself_not_of_its_cause() -> None:
    assert place_of(trace_of(KeyError)) == "test_failure_groups.py:24"


def test_where_all_is_a_library_s_the_place_is_the_innermost_line() -> None:
    lines = trace_of(ValueError).splitlines(keepends=True)
    first = next(at for at, line in enumerate(lines) if "json" in line and "File" in line)
    assert (place_of(lines[0] + "".join(lines[first:])) or "").startswith("decoder.py:")
    assert place_of("") is None


@HAS_PATHS
def test_failures_are_together_by_type_and_place_the_most_first() -> None:
    table = make_table([f"file {number}" for number in range(5)])
    table.fail(0, Failure(KeyError("a"), trace_of(KeyError)))
    table.fail(1, Failure(ValueError("b"), trace_of(ValueError)))
    table.fail(2, Failure(RemoteError("m.Odd", "c", ""), None))
    table.fail(3, Failure(ValueError("d"), trace_of(ValueError)))
    table.fail(4, Failure(WorkerCrashedError("e")))
    groups = group_failures(JobItem(table, index) for index in range(5))
    assert [(group.error_type, group.place, group.count, group.message) for group in groups] == [
        ("ValueError", "test_failure_groups.py:17", 2, "b"),
        ("KeyError", "test_failure_groups.py:24", 1, "'a'"),
        ("Odd", None, 1, "c"),
        ("WorkerCrashedError", None, 1, "e"),
    ]
    assert [item.id for item in groups[0].items] == [1, 3]
    assert str(groups[0]) == "ValueError × 2 at test_failure_groups.py:17, first: file 1"
    assert str(groups[2]) == "Odd × 1, first: file 2"
