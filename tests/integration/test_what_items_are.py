"""What a journal knows items by: their values, whatever these are made of, and whether they have changed."""

from __future__ import annotations

import itertools
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

import mpqueue
from mpqueue import JobQueue
from tests.support.results import warned

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
        assert not warned(caplog)
        job = queue.create_job("job", items, price, rerun=mpqueue.Rerun(update=update))
        assert job.completed == 1
        assert queue.start("job").result().results == [1, 2]
    (warning,) = warned(caplog)
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
    (warning,) = warned(caplog)
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
