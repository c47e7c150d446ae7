"""What a journal knows items by: their values, whatever these are made of, and whether they have changed."""

from __future__ import annotations

import datetime as dt
import itertools
import logging
import pickle
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import numpy as np
import pytest

import mpqueue
from mpqueue import JobQueue
from mpqueue.errors import JournalMismatchError

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("forked_workers")]


@dataclass
class Folder:
    """A tree whose nodes know their parents."""

    name: str
    parent: Folder | None = None
    children: list[Folder] = field(default_factory=list)

    def add(self, name: str) -> Folder:
        """Put a folder into it; returns this one."""
        self.children.append(Folder(name, self))
        return self


class Restless:
    """Is pickled differently each time."""

    _numbers = itertools.count()

    def __reduce__(self) -> Any:
        return Restless, (), {"number": next(self._numbers)}


def price(item: Any) -> Any:
    """Its price."""
    return item["price"]


def names(item: Any) -> list[str]:
    """Its keys."""
    return [*item]


def at(zone: str) -> dt.datetime:
    return dt.datetime(2024, 7, 1, 12, tzinfo=ZoneInfo(zone))


def pandas_at(zone: str) -> Any:
    import pandas as pd

    return pd.Timestamp(2024, 7, 1, 12, tz=zone)


def nested(value: Any) -> Any:
    for _ in range(300):
        value = [value]
    return value


def ring(size: int) -> Any:
    """Lists, each of which has the next one."""
    first: list[Any] = []
    last = first
    for _ in range(size - 1):
        last.append([])
        last = last[0]
    last.append(first)
    return first


CHANGES = [
    pytest.param(at, "Europe/Berlin", "Europe/Paris", id="a time in a zone"),
    pytest.param(pandas_at, "Europe/Berlin", "Europe/Paris", id="a time of pandas"),
    pytest.param(Folder("top").add("a").add, "b", "c", id="a tree with parents"),
    pytest.param(nested, 1, 2, id="deeply nested"),
    pytest.param(ring, 3, 6, id="a ring"),
    pytest.param(OrderedDict, [("a", 1), ("b", 2)], [("b", 2), ("a", 1)], id="an order"),
]


@pytest.mark.parametrize(("make", "before", "after"), CHANGES)
def test_an_item_runs_again_if_and_only_if_it_has_changed(
    make: Callable[[Any], Any], before: Any, after: Any, tmp_path: Path
) -> None:
    def items(value: Any) -> list[Any]:
        same = {"id": "same", "price": 1, "more": make(before)}
        return [pickle.loads(pickle.dumps(each)) for each in (same, {"id": "a", "price": 2, "more": make(value)})]

    with JobQueue(1, journal=tmp_path / "run.db") as queue:
        first = items(before)
        assert queue.run(first, price, id="job").results == [1, 2]
    with JobQueue(1, journal=tmp_path / "run.db") as queue:
        assert queue.plan_job("job", pickle.loads(pickle.dumps(first)), price).same == ("same", "a")
        plan = queue.plan_job("job", [first[0], items(after)[1]], price)
        assert (plan.same, plan.changed) == (("same",), ("a",))
        with pytest.raises(JournalMismatchError, match="1 changed"):
            queue.create_job("job", [first[0], items(after)[1]], price)


def test_two_items_that_differ_in_their_order_only_have_results_of_their_own(tmp_path: Path) -> None:
    one, other = OrderedDict(a=1, b=2), OrderedDict(b=2, a=1)
    with JobQueue(1, journal=tmp_path / "run.db") as queue:
        assert queue.run([one, other], names, id="job").results == [["a", "b"], ["b", "a"]]
    with JobQueue(1, journal=tmp_path / "run.db") as queue:
        job = queue.create_job("job", [other, one], names)
        assert job.completed == 2
        assert job.results == [["b", "a"], ["a", "b"]]


def test_a_masked_array_is_the_same_item_once_it_was_pickled(tmp_path: Path) -> None:
    items = [np.ma.masked_array([1, 2, 3], mask=mask) for mask in ([False, True, False], [False, False, True])]
    with JobQueue(1, journal=tmp_path / "run.db") as queue:
        assert queue.run(items, np.ma.sum, id="job").results == [4, 3]
    with JobQueue(1, journal=tmp_path / "run.db") as queue:
        job = queue.create_job("job", [pickle.loads(pickle.dumps(item)) for item in reversed(items)], np.ma.sum)
        assert job.results == [3, 4]


def logged(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]


def odd(number: int) -> list[Any]:
    """Items of which the second has no identity."""
    return [{"id": "a", "price": number}, {"id": "b", "price": number, "more": [Restless()]}]


@pytest.mark.parametrize("update", [False, True])
def test_an_item_without_identity_is_never_called_unchanged(
    update: bool, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with JobQueue(1, journal=tmp_path / "run.db") as queue:
        assert queue.run(odd(1), price, id="job").results == [1, 1]
    with JobQueue(1, journal=tmp_path / "run.db") as queue:
        items = [odd(1)[0], odd(2)[1]]
        assert queue.plan_job("job", items, price).changed == ("b",)
        assert not logged(caplog)
        job = queue.create_job("job", items, price, rerun=mpqueue.Rerun(update=update))
        assert job.completed == 1
        assert queue.start("job").result().results == [1, 2]
    (warning,) = logged(caplog)
    assert "whether 1 of its items have changed can't be known, so they run again: items[1]: {'id': 'b'" in warning
    assert "is pickled differently each time" in warning


def test_an_item_of_a_stream_without_identity_is_never_called_unchanged(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    def prices(number: int) -> list[Any]:
        journal = tmp_path / "run.db"
        return [*mpqueue.imap(price, odd(number), concurrency=1, journal=journal, job_id="job")]

    assert prices(1) == [1, 1]
    assert prices(2) == [2, 2]
    (warning,) = logged(caplog)
    assert "{'id': 'b'" in warning
    assert "has no identity that stays the same (it is pickled differently each time), so it runs again" in warning


def test_an_item_that_is_refused_is_so_with_what_of_it_has_no_identity(tmp_path: Path) -> None:
    node = Folder("top")
    node.children.append(Folder("a", Folder("b").add(lambda: 0)))  # type: ignore[arg-type]
    with (
        JobQueue(1, journal=tmp_path / "run.db") as queue,
        pytest.raises(
            TypeError, match=r"items\[1\].*its children\[0\]\.parent\.children\[0\]\.name: it refers to .*<lam"
        ),
    ):
        queue.create_job("job", [1, node], names)
