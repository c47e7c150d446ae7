"""Items as the page is told of them: the wire form, whatever their ids, results and errors are."""

from __future__ import annotations

import json
from collections.abc import Hashable, Sequence
from types import SimpleNamespace
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from mpqueue._core.state.item_table import Failure, ItemTable, make_table
from mpqueue._core.state.job_book import JobBook
from mpqueue._core.state.timings import Span
from mpqueue._live_page.comparison import _outcome
from mpqueue._live_page.feed import PageFeed
from mpqueue._live_page.job_feed import JobFeed, history
from mpqueue._live_page.page_json import IN_LIST, as_event, encode, row_of
from mpqueue._live_page.served import Served
from mpqueue._options import JobOptions
from mpqueue._parent.inbox import SystemClock
from mpqueue._queue.job_items import JobItem
from mpqueue._wire.item_names import IdRule
from mpqueue.retry import RetryPolicy
from mpqueue.status import COMPLETED, FAILED, PENDING, JobStatus

short_texts = st.text(max_size=20).filter(lambda text: text.isprintable())
values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | short_texts | st.binary(max_size=9),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(short_texts, inner, max_size=3),
    max_leaves=8,
)


def encode_row(table: ItemTable, index: int, status: int) -> str:
    return encode(row_of(table, index, status))


@given(st.integers() | short_texts | st.tuples(st.integers(), short_texts) | st.booleans(), values)
def test_an_item_is_told_in_its_wire_form_and_with_its_index(item_id: Hashable, result: Any) -> None:
    table = ItemTable([None, None], ["other", item_id], IdRule.KEY)
    table.complete([1], [result])
    expected = json.loads(json.dumps(JobItem(table, 1).to_dict() | {"index": 1}))
    told = json.loads(encode_row(table, 1, COMPLETED))
    told.pop("picture", None)  # there are bytes that begin as one
    if len(json.dumps(expected["result"])) < IN_LIST - 50:
        assert told == expected
    assert told["id"] == expected["id"]


def test_a_failed_item_has_its_error_and_a_waiting_one_its_last() -> None:
    table = make_table(["a", "b"])
    table.fail(1, Failure(ValueError("broken")))
    assert json.loads(encode_row(table, 1, FAILED)) == {
        "id": 1,
        "index": 1,
        "label": "b",
        "status": "failed",
        "attempts": 0,
        "error": "broken",
        "errorType": "ValueError",
    }
    assert json.loads(encode_row(table, 1, PENDING))["error"] == "broken"
    assert json.loads(encode_row(table, 0, PENDING)) == {
        "id": 0,
        "index": 0,
        "label": "a",
        "status": "pending",
        "attempts": 0,
    }


def test_beside_the_outcome_in_another_job_a_long_error_is_seen_to_be_cut() -> None:
    table = make_table(["a", "b"])
    table.fail(0, Failure(ValueError("x" * IN_LIST)))
    assert _outcome(table, 0) == {
        "index": 0,
        "status": "failed",
        "error": f"ValueError: {'x' * IN_LIST}"[:IN_LIST] + "…",
    }
    assert _outcome(table, 1) == {"index": 1, "status": "pending"}


def test_a_label_that_is_the_id_is_not_told_twice() -> None:
    table = make_table([{"id": "a"}, {"id": "b", "name": "B"}])
    assert "label" not in json.loads(encode_row(table, 0, PENDING))
    assert json.loads(encode_row(table, 1, PENDING))["label"] == "B"
    assert "label" not in json.loads(encode_row(make_table([0]), 0, PENDING))


def test_an_error_can_not_end_its_event() -> None:
    table = make_table(["a"])
    table.fail(0, Failure(ValueError("one\n\nevent: closed\ndata: {}\r\n\u2028")))
    event = as_event("job:items", encode_row(table, 0, FAILED))
    assert event.count(b"\n") == 3
    assert b"\r" not in event


def test_a_job_that_ends_between_a_look_and_its_form_is_looked_at_again() -> None:
    """Viewers ask for rows when the version changes, so that of the end is not the one of the look before."""
    book = JobBook(1, "job", make_table("ab"), JobOptions(RetryPolicy()), None)
    feed = JobFeed(book, SystemClock().now)
    book.status = JobStatus.RUNNING
    feed.look(0.0, [], {})
    book.status = JobStatus.CANCELLED
    before, was_settled = json.loads(feed.form()), feed.settled
    feed.look(1.0, [], {})
    after, is_settled = json.loads(feed.form()), feed.settled
    assert (was_settled, is_settled) == (False, True)
    assert (after["status"], after["version"]) == ("cancelled", before["version"] + 1)


def test_a_job_of_which_a_journal_has_another_record_has_another_version() -> None:
    """By which viewers ask for its rows again."""

    class OfAJournal(Served):
        def books(self) -> Sequence[JobBook]:
            return [JobBook(1, "job", make_table("ab"), JobOptions(RetryPolicy()), None)]

    feed = PageFeed(OfAJournal(SystemClock()))
    first, second = ([state["version"] for state in feed.states()] for _ in range(2))
    assert second > first


def test_a_chunk_that_was_taken_back_before_it_began_is_no_work_of_its_worker() -> None:
    begun = Span(*[0.0] * len(Span._fields))._replace(items=1.0, ended=1.0)
    taken_back = begun._replace(first=1.0, items=0.0, begun=1.0, ended=1.001)
    timings = SimpleNamespace(finished=None, events=[], spans=lambda since: [begun, taken_back])
    job: Any = SimpleNamespace(here=True, number=7, timings=timings)
    assert [item for *_, item in history([job], 0.0, 0.0)["stretches"]] == [0]
