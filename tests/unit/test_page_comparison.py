"""Two jobs side by side: items are matched by their ids, and those that came out differently are named."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from mpqueue._core.state.item_table import Failure, make_table
from mpqueue._core.state.job_book import JobBook
from mpqueue._live_page.items import comparison
from mpqueue._live_page.items.comparison import compare
from mpqueue._options import JobOptions
from mpqueue.retry import RetryPolicy


def job_of(items: Iterable[Any], seconds: float = 0.0, fail: Iterable[int] = ()) -> JobBook:
    table = make_table(items)
    table.complete(range(len(table)), [None] * len(table))
    for index in range(len(table)):
        table.elapsed[index] = seconds
    for index in fail:
        table.fail(index, Failure(ValueError("no")))
    return JobBook(1, "job", table, JobOptions(RetryPolicy()), None)


def test_items_are_matched_by_their_ids_in_any_order() -> None:
    one, other = job_of([{"id": name} for name in "abcd"], fail=[2]), job_of([{"id": name} for name in "xcba"])
    told = compare(one, other)
    assert (told["matched"], told["only"], told["changed"]) == (3, [1, 1], 1)
    (item,) = told["items"]
    assert item == {
        "label": "c",
        "runs": [{"index": 2, "status": "failed", "error": "ValueError: no"}, {"index": 1, "status": "completed"}],
    }


def test_positions_are_ids_where_there_are_no_others() -> None:
    told = compare(job_of(range(3)), job_of(range(5)))
    assert (told["matched"], told["only"], told["items"]) == (3, [0, 2], [])


def test_items_that_took_longer_or_less_are_counted_and_the_largest_difference_is_first() -> None:
    one, other = job_of(range(4), seconds=1.0), job_of(range(4), seconds=1.0)
    for index, seconds in enumerate([1.2, 2.0, 0.5, 9.0]):
        other.table.elapsed[index] = seconds
    told = compare(one, other)
    assert (told["slower"], told["faster"]) == (2, 1)
    assert [item["runs"][1]["index"] for item in told["items"]] == [3, 1, 2]
    assert [item["runs"][1]["elapsed"] for item in told["items"]] == [9.0, 2.0, 0.5]


def test_tiny_differences_are_none_and_few_items_are_named() -> None:
    assert compare(job_of([0], seconds=0.001), job_of([0], seconds=0.009))["slower"] == 0
    told = compare(job_of(range(500)), job_of(range(500), fail=range(500)))
    assert (told["changed"], len(told["items"])) == (500, comparison.MOST)


def test_figures_are_of_all_items() -> None:
    job = job_of(range(100))
    for index in range(100):
        job.table.elapsed[index] = index + 1
    job.table.note_peaks({3: 5 << 20})
    figures = compare(job, job)["runs"][1]
    assert (figures["median"], figures["p95"], figures["slowest"]) == (51.0, 96.0, 100.0)
    assert (figures["itemSeconds"], figures["peakMemory"]) == (5050.0, 5 << 20)
    empty = compare(job_of([]), job)["runs"][0]
    assert (empty["total"], empty["median"], empty["peakMemory"]) == (0, None, 0)
