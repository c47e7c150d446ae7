"""Failures that are alike."""

from __future__ import annotations

import json
import traceback
from collections.abc import Callable

import pytest

from mpqueue._core.state.item_table import Failure, make_table
from mpqueue._output.failure_groups import group_failures, place_of
from mpqueue._queue.job_items import JobItem
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
    assert place_of(trace_of(ValueError)) == "test_failure_groups.py:18"


def test_the_place_is_that_of_the_error_itself_not_of_its_cause() -> None:
    assert place_of(trace_of(KeyError)) == "test_failure_groups.py:25"


def test_where_all_is_a_library_s_the_place_is_the_innermost_line() -> None:
    lines = trace_of(ValueError).splitlines(keepends=True)
    first = next(at for at, line in enumerate(lines) if "json" in line and "File" in line)
    assert (place_of(lines[0] + "".join(lines[first:])) or "").startswith("decoder.py:")
    assert place_of("") is None


OTHER = """\
Traceback (most recent call last):
  File "/srv/other.py", line 3, in <module>
    run()
KeyError: 1

During handling of the above exception, another exception occurred:

Traceback (most recent call last):
  File "/srv/other.py", line 4, in <module>
ValueError: 2
"""


def raise_child() -> None:
    raise RuntimeError(f"a child failed:\n{OTHER}")


def raise_noted() -> None:
    error = ValueError("one line")
    error.add_note(f"of the child:\n{OTHER.partition('During')[0]}")
    raise error


def raise_syntax() -> None:
    compile("a b c", "<source 7>", "exec")


def raise_group() -> None:
    try:
        parse("{")
    except ValueError as error:
        raise ExceptionGroup("some", [error, KeyError("k")]) from error


def raise_after_group() -> None:
    try:
        raise_group()
    except ExceptionGroup:
        raise KeyError("k") from None


@HAS_PATHS
@pytest.mark.parametrize("raiser", [raise_child, raise_noted, raise_syntax, raise_group, raise_after_group])
def test_the_place_is_a_frame_of_the_error_itself_whatever_its_text_has(raiser: Callable[[], None]) -> None:
    with pytest.raises(Exception) as caught:  # noqa: PT011 - of several types
        raiser()
    trace = "".join(traceback.format_exception(caught.value))
    innermost = traceback.extract_tb(caught.value.__traceback__)[-1]
    assert place_of(trace, str(caught.value)) == f"test_failure_groups.py:{innermost.lineno}"


def test_an_error_without_a_traceback_has_no_place() -> None:
    for error in (ValueError(f"of a child:\n{OTHER}"), SyntaxError("bad", ("<source 7>", 1, 1, "a b", 1, 2))):
        assert place_of("".join(traceback.format_exception(error)), str(error)) is None


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
        ("ValueError", "test_failure_groups.py:18", 2, "b"),
        ("KeyError", "test_failure_groups.py:25", 1, "'a'"),
        ("Odd", None, 1, "c"),
        ("WorkerCrashedError", None, 1, "e"),
    ]
    assert [item.id for item in groups[0].items] == [1, 3]
    assert str(groups[0]) == "ValueError × 2 at test_failure_groups.py:18, first: file 1: b"
    assert str(groups[2]) == "Odd × 1, first: file 2: c"


def test_items_that_run_again_by_now_or_completed_are_in_no_group() -> None:
    table = make_table(range(4))
    for index in range(3):
        table.fail(index, Failure(ValueError("b")))
    items = [JobItem(table, index) for index in range(3)]
    table.forget_failures([0, 1])
    table.complete([1], ["done"])
    (group,) = group_failures(items)
    assert [item.id for item in group.items] == [2]
    table.forget_failures()
    assert group_failures(items) == []
