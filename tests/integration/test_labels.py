"""Items are called by what they are, wherever people see them."""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from mpqueue import JobQueue, sinks
from tests.support import handlers as do

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("forked_workers")]

PATHS = [Path("pictures/a.jpg"), Path("pictures/b.jpg")]


@pytest.fixture(scope="module")
def queue() -> Iterator[JobQueue]:
    with JobQueue(1, max_retries=0) as one:
        one.run(PATHS, do.succeed)  # its worker is there before the first test
        yield one


def log_and_fail_at_b(path: Path) -> str:
    logging.getLogger("mine").warning("at work")
    if path.name == "b.jpg":
        raise ValueError("broken")
    return "done"


def test_the_label_stands_wherever_an_item_is_shown(
    queue: JobQueue, caplog: pytest.LogCaptureFixture, tmp_path: Path
) -> None:
    job = queue.run(PATHS, log_and_fail_at_b, id="pictures")
    assert [item.label for item in job.items] == ["a.jpg", "b.jpg"]
    assert str(job.failures[0]) == "item 1 (b.jpg) of job 'pictures' failed after 1 try: ValueError: broken"
    assert str(job.failure_groups()[0]).endswith(", first: b.jpg: broken")
    assert [(row["id"], row["item"]) for row in job.to_records()] == [(0, "a.jpg"), (1, "b.jpg")]
    assert job.items["b.jpg"] == job.items[1]
    assert "1 (b.jpg)" in str(job.report())
    assert [record.mpqueue_label for record in caplog.records if record.name == "mine"] == ["a.jpg", "b.jpg"]  # type: ignore[attr-defined]


def test_of_several_items_with_a_label_none_is_chosen(queue: JobQueue) -> None:
    job = queue.create_job("twins", [Path("one/a.jpg"), Path("two/a.jpg")], do.succeed)
    with pytest.raises(KeyError, match="which is the label of 2 items"):
        job.items["a.jpg"]
    assert job.items["one/a.jpg"] == job.items[0]


def test_a_label_is_made_when_somebody_looks_and_never_by_the_coordinator(queue: JobQueue, tmp_path: Path) -> None:
    made: list[str] = []

    def label(item: dict[str, Any]) -> str:
        made.append(threading.current_thread().name)
        return str(item["title"])

    books = [{"title": "Ulysses"}, {"title": "Emma"}, {}]
    job = queue.run(books, do.succeed, label=label)
    queue.run(books, do.succeed, label="title", results=sinks.jsonl(tmp_path / "rows.jsonl"))
    assert made == []
    assert [item.label for item in job.items] == ["Ulysses", "Emma", "{}"]
    assert set(made) == {threading.current_thread().name}
    assert '"item":"Emma"' in (tmp_path / "rows.jsonl").read_text().replace(" ", "")


def test_items_of_a_stage_have_the_labels_of_their_inputs(queue: JobQueue) -> None:
    def spread(path: Path) -> Iterator[int]:
        yield from range(3)

    job = queue.run_stages(PATHS, [spread, do.double], id="run")
    assert [item.label for item in job.items] == ["a.jpg", "b.jpg"]
    last = queue.get_job("run/double")
    assert last is not None
    assert sorted(item.label for item in last.items) == ["a.jpg"] * 3 + ["b.jpg"] * 3


def test_a_past_job_knows_its_labels_unless_a_function_made_them(tmp_path: Path) -> None:
    books = [{"title": "Ulysses"}, {"title": "Emma"}]
    with JobQueue(1, journal=tmp_path / "run.db") as queue:
        queue.run(books, do.succeed, id="key", label="title")
        queue.run(PATHS, do.succeed, id="paths")
        queue.run(PATHS, do.succeed, id="not kept", label=str)
    with JobQueue(1, journal=tmp_path / "run.db") as queue:
        for name, labels in {
            "key": ["Ulysses", "Emma"],
            "paths": ["a.jpg", "b.jpg"],
            "not kept": ["a.jpg", "b.jpg"],
        }.items():
            job = queue.get_job(name)
            assert job is not None
            assert [item.label for item in job.items] == labels


@pytest.mark.parametrize("label", [3, ("title",)])
def test_what_chooses_no_label_is_refused(queue: JobQueue, label: Any) -> None:
    with pytest.raises(TypeError, match="label: expected a function of an item, or the key or attribute that names it"):
        queue.create_job("refused", [1], do.succeed, label=label)
    with pytest.raises(TypeError, match="label: expected"):
        queue.start_stages([1], [do.succeed], label=label)
    assert queue.get_job("refused") is None
