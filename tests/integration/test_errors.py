"""Every error of the list: what it is, what it tells, and that it can travel."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Sequence
from pathlib import Path

import pytest

from mpqueue import (
    GiveUp,
    HandlerPicklingError,
    InternalError,
    ItemError,
    ItemPicklingError,
    ItemTimeoutError,
    JobExistsError,
    JobNotFoundError,
    JobProgress,
    JobQueue,
    JobStateError,
    JournalError,
    MemoryLimitError,
    MPQueueError,
    QueueClosedError,
    RemoteError,
    ResultPicklingError,
    Retry,
    SetupError,
    SinkError,
    StageError,
    TooManyFailuresError,
    WorkerCrashedError,
    WorkerStartError,
)
from tests.support import handlers as do

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("forked_workers")]

ERRORS = [
    HandlerPicklingError("text"),
    InternalError("text", "a traceback"),
    ItemError("text"),
    ItemPicklingError("text"),
    ItemTimeoutError("text", "a stack"),
    JobExistsError("text"),
    JobNotFoundError("text"),
    JobStateError("text"),
    JournalError("text"),
    MemoryLimitError("text"),
    QueueClosedError("text"),
    RemoteError("module.Type", "text", "a traceback", ("module.Type",)),
    ResultPicklingError("text", "a value", "a reason"),
    SetupError("text"),
    StageError("text", "a stage"),
    WorkerCrashedError("text", -9, "SIGKILL", 123),
    WorkerStartError("text"),
]


@pytest.mark.holds("error: MPQueueError")
@pytest.mark.parametrize("error", ERRORS, ids=lambda error: type(error).__name__)
def test_error_has_one_root_its_message_unquoted_and_can_travel(error: MPQueueError) -> None:
    assert isinstance(error, MPQueueError)
    assert str(error) == ("module.Type: text" if isinstance(error, RemoteError) else "text")
    noted = copy.deepcopy(error)
    noted.add_note("a note")
    for one in (error, noted):
        again = pickle.loads(pickle.dumps(one))
        assert type(again) is type(error)
        assert str(again) == str(error)
        assert again.args == one.args
        assert again.__dict__ == one.__dict__


#: As version 1.0.0rc1 writes them, which pickled no more than their arguments.
WRITTEN = {
    "ResultPicklingError": b"(Vtext\nVa value\nVa reason\ntR.",
    "StageError": b"(Vtext\nVa stage\ntR.",
    "ItemTimeoutError": b"(Vtext\nVa stack\ntR.",
    "WorkerCrashedError": b"(Vtext\nI-9\nVSIGKILL\nI123\ntR.",
    "InternalError": b"(Vtext\nVa traceback\ntR.",
    "RemoteError": b"(Vmodule.Type\nVtext\nVa traceback\n(Vmodule.Type\nttR.",
}


@pytest.mark.parametrize("name", WRITTEN)
def test_an_error_that_an_earlier_version_has_pickled_can_be_read(name: str) -> None:
    (error,) = (error for error in ERRORS if type(error).__name__ == name)
    read = pickle.loads(f"cmpqueue.errors\n{name}\n".encode() + WRITTEN[name])
    assert (type(read), str(read), read.__dict__) == (type(error), str(error), error.__dict__)


def test_notes_of_an_error_that_a_handler_raises_come_along(tmp_path: Path) -> None:
    def handle(item: str) -> None:
        error = ItemTimeoutError("text", "a stack")
        error.add_note(f"of {item}")
        raise error

    with JobQueue(1, max_retries=0, journal=tmp_path / "journal.db") as queue:
        job = queue.run(["a", "b"], handle, id="job")
        found = [vars(item.exception) for item in job.items if item.exception is not None]
    with JobQueue(1, journal=tmp_path / "journal.db") as queue:
        read = [vars(item.exception) for item in queue.load_job("job").items if item.exception is not None]
    assert found == read == [{"stack": "a stack", "__notes__": [f"of {item}"]} for item in ("a", "b")]


def test_what_an_inner_job_s_run_raises_comes_along_without_that_job() -> None:
    class Full:
        def write(self, rows: Sequence[object]) -> None:
            raise OSError("full")

        def close(self) -> None:
            """Nothing is left to do."""

    def handle(item: str) -> str:
        if item == "b":
            with JobQueue(1) as queue:
                queue.run([1], do.succeed, results=Full())
        return item

    with JobQueue(1, max_retries=0) as queue:
        job = queue.run(["a", "b"], handle)
    assert job.results == ["a", None]
    error = job.items[1].exception
    assert isinstance(error, SinkError)
    assert vars(error) == {}
    assert "full" in str(error)


def test_what_has_items_says_that_it_stays_here_and_errors_of_items_travel_without_them(tmp_path: Path) -> None:
    events: list[JobProgress] = []
    with JobQueue(1, max_retries=0, journal=tmp_path / "journal.db") as queue:
        queue.on("job:progress", events.append)
        job = queue.run(["a", "b"], do.only("b", do.fail), id="job")
        with pytest.raises(HandlerPicklingError, match=r"the variable 'job' of its closure.* is a view"):
            queue.create_job("handler", [1], lambda _: job.results)
    with JobQueue(1, journal=tmp_path / "journal.db") as queue:
        views = [job, job.items, job.items[1], job.failure_groups()[0], events[0], queue.load_job("job")]
    for view in views:
        for send in (pickle.dumps, copy.deepcopy):
            with pytest.raises(TypeError, match="can't be pickled or deep-copied: it is a view"):
                send(view)
    assert copy.copy(job).results == ["a", None]
    with pytest.raises(ExceptionGroup, match="1 of 2 items failed") as raised:
        job.raise_for_failures()
    (error,) = raised.value.exceptions
    error.add_note("a note")
    assert copy.copy(error).__dict__ == error.__dict__ == {"item": job.items[1], "__notes__": ["a note"]}
    (again,) = pickle.loads(pickle.dumps(raised.value)).exceptions
    assert (type(again), str(again)) == (ItemError, str(error))
    assert again.__dict__ == {"item": None, "__notes__": ["a note"]}


def test_retry_and_give_up_are_no_failures_of_the_queue_s() -> None:
    for asked in (Retry("text", delay=5), GiveUp("text")):
        assert not isinstance(asked, MPQueueError)
        again = pickle.loads(pickle.dumps(asked))
        assert (type(again), str(again)) == (type(asked), "text")
    assert pickle.loads(pickle.dumps(Retry(delay=5))).delay == 5.0
    assert Retry().delay is None


@pytest.mark.holds("promise: Every error is reported", "fault: the function raises")
def test_handler_s_own_exception_reaches_the_caller_as_itself_with_the_worker_s_traceback_as_cause() -> None:
    class OwnError(Exception):
        def __init__(self, code: int) -> None:
            super().__init__(code)
            self.code = code

    def handle(item: int) -> None:
        error = OwnError(item)
        error.add_note("a note")
        raise error

    with JobQueue(1, max_retries=0) as queue:
        job = queue.run([7], handle)
    with pytest.raises(OwnError) as caught:
        raise job.failures[0].__cause__ or AssertionError
    assert caught.value.code == 7
    assert "in handle" in str(caught.value.__cause__)
    assert "raise error" in str(caught.value.__cause__)
    assert caught.value.__notes__ == ["a note"]


def test_stop_iteration_of_a_handler_arrives_as_itself_with_its_traceback() -> None:
    class Done(StopIteration):
        pass

    def handle(item: int) -> int:
        if item == 1:
            raise Done("no more pages", item)
        return item if item % 2 else next(number for number in range(item) if number > 5)

    with JobQueue(1, max_retries=0) as queue:
        job = queue.run(range(4), handle)
        shown, own, again, bystander = job.items
        groups = [str(group) for group in job.failure_groups()]
    assert bystander.result == 3
    assert (type(own.exception), own.exception.args) == (Done, ("no more pages", 1))  # type: ignore[union-attr]
    for item in (shown, again):
        assert (type(item.exception), item.error) == (StopIteration, "StopIteration")
        assert "next(number for number in" in (item.traceback or "")
    assert len(groups) == 2
    assert all("at test_errors.py:" in group for group in groups)


def test_only_the_first_stop_iteration_of_a_handler_of_nanoseconds_is_without_its_arguments() -> None:
    stops = (150_000, 150_002, 199_999)

    def handle(item: int) -> int:
        if item in stops:
            raise StopIteration(item)
        return item

    with JobQueue(1, max_retries=0) as queue:
        job = queue.run(range(200_000), handle)
    assert len(job.failures) == len(stops)
    first, *rest = [job.items[index].exception for index in stops]
    assert type(first) is StopIteration
    assert first.args in ((), (stops[0],))  # the latter where the machine was slow
    assert [error.args for error in rest if error is not None] == [(index,) for index in stops[1:]]
    assert all(result in (None, index) for index, result in enumerate(job.results))


def test_traceback_begins_at_the_handler_and_shows_nothing_of_the_queue_s() -> None:
    async def fail_later(item: str) -> None:
        do.fail(item)

    with JobQueue(1, max_retries=0) as queue:
        for handler, name in ((do.fail, "fail"), (fail_later, "fail_later")):
            (item,) = queue.run(["a"], handler).items
            assert item.traceback is not None
            assert item.traceback.startswith("Traceback (most recent call last):\n")
            assert "mpqueue/_worker" not in item.traceback
            assert "in resolve" not in item.traceback
            assert f"in {name}\n" in item.traceback
        (item,) = queue.run(["a"], do.fail_with_cause).items
        assert isinstance(item.exception, ValueError)
        assert "KeyError: 'missing'" in (item.traceback or "")
        assert "direct cause" in (item.traceback or "")


def test_item_error_names_item_job_tries_and_failure() -> None:
    with JobQueue(1, max_retries=0) as queue:
        (failure,) = queue.run([{"id": "x"}], do.fail, id="job").failures
    assert str(failure) == "item 'x' of job 'job' failed after 1 try: ValueError: cannot do {'id': 'x'}"
    assert failure.item.id == "x"


def test_a_run_raises_what_failed_where_it_is_asked_to_as_map_does() -> None:
    with JobQueue(1, max_retries=0) as queue:
        assert len(queue.run(["a", "b"], do.only("b", do.fail)).failures) == 1, "the default raises nothing"
        with pytest.raises(ValueError, match=r"^cannot do 'b'") as caught:
            queue.run(["a", "b", "b"], do.only("b", do.fail), on_error="raise")
        assert caught.value.__notes__[-1] == "mpqueue: raised by item 1 (b); 1 more failed: items 2"
        with pytest.raises(ExceptionGroup, match="2 of 3 items failed") as group:
            queue.run(["a", "b", "b"], do.only("b", do.fail), on_error="group")
        assert [type(error) for error in group.value.exceptions] == [ValueError, ValueError]
        assert queue.last_job is not None
        assert queue.last_job.items[0].result == "a", "the others have been run"
        for mode in ("raise", "group"):
            assert queue.run(["a"], do.succeed, on_error=mode).completed == 1
        with pytest.raises(TooManyFailuresError, match="items failed, which is more than max_failures=1") as many:
            queue.run(["b"] * 9, do.fail, on_error="raise", max_failures=1, chunksize=1)
        assert isinstance(many.value.__cause__, ValueError)
        count = len(queue.jobs())
        with pytest.raises(ValueError, match=r"^on_error: expected one of 'collect', 'raise', 'group', got 'skip'$"):
            queue.run(["a"], do.succeed, on_error="skip")  # type: ignore[call-overload]
        assert len(queue.jobs()) == count
