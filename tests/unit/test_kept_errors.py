"""Errors that users keep hold nothing of the engine."""

from __future__ import annotations

import weakref
from typing import Any

from mpqueue._core.state.item_table import make_table
from mpqueue._core.state.job_book import JobBook
from mpqueue._core.state.lane_book import Chunk
from mpqueue._core.state.pending import Care
from mpqueue._options import JobOptions
from mpqueue._parent.transport.decode import Unpickling
from mpqueue._parent.transport.kept_errors import let_go, text_of
from mpqueue._parent.transport.packing import Packing
from mpqueue._wire.frames import Ended, ReportFrame, dump_frame
from mpqueue._wire.memory.segments import SegmentGoneError, SegmentRef, SegmentStore
from mpqueue._wire.pickling.payload import Packed, dump
from mpqueue.errors import WorkerCrashedError
from mpqueue.retry import RetryPolicy
from tests.support.handlers import TextlessError, WhenPickled, WhenUnpickled, fail, fail_with


class Ours:
    """Stands for the engine's objects, which must not be kept."""


def raise_from_here() -> None:
    ours = Ours()
    kept.append(weakref.ref(ours))
    try:
        fail(1)
    except ValueError as error:
        raise KeyError("because") from error


kept: list[weakref.ref[Ours]] = []


def caught() -> BaseException:
    try:
        raise_from_here()
    except KeyError as error:
        return error
    raise AssertionError


def test_an_error_that_was_let_go_keeps_its_story_and_no_frame() -> None:
    error = caught()
    text = let_go(error)
    assert kept.pop()() is None
    assert error.__traceback__ is None
    assert isinstance(error.__cause__, ValueError)
    assert "raise_from_here" in text
    assert "cannot do 1" in text


def test_an_error_without_a_text_has_its_type() -> None:
    assert text_of(TextlessError()) == "TextlessError (its str() fails)"


def test_an_item_that_cannot_be_pickled_keeps_nothing_of_the_engine() -> None:
    for bad, said in ((fail, "ValueError: cannot do"), (fail_with(TextlessError()), "TextlessError (its str() fails)")):
        chunk = chunk_of(WhenPickled(bad))
        packed = Packing(chunk, chunk.job.table.payloads, SegmentStore(), float).run()
        assert packed is not None
        error: Any = packed.failures[0].error
        assert said in str(error)
        assert error.__cause__.__traceback__ is None
        assert "in __reduce__" in (packed.failures[0].traceback or "")


def test_a_result_that_cannot_be_unpickled_keeps_nothing_of_the_engine() -> None:
    frame = ReportFrame(1, 0, 1, [dump(WhenUnpickled(fail))], {}, (), 0.1, Ended.DONE)
    freed: list[int] = []
    report = Unpickling(dump_frame(frame), 0, 1, freed.append, float).report()
    assert report is not None
    failure = report.failures[0]
    assert failure.error.__cause__ is not None
    assert failure.error.__cause__.__traceback__ is None
    assert "ValueError: cannot do" in (failure.traceback or "")


def test_a_result_whose_worker_is_gone_is_not_called_unreadable() -> None:
    gone = Packed(b"", SegmentRef("/proc/0/fd/3", 1, 64, 1), ((0, 64),), (0, 64))
    frame = ReportFrame(1, 0, 2, [dump("here"), gone], {}, (), 0.1, Ended.DONE)
    report = Unpickling(dump_frame(frame), 0, 1, lambda serial: None, float).report()
    assert report is not None
    assert report.results == ["here"]
    assert report.unreadable is not None
    assert isinstance(report.unreadable.error, WorkerCrashedError)
    cause = report.unreadable.error.__cause__
    assert isinstance(cause, SegmentGoneError), "by which it is known to send no more of them"
    assert cause.__traceback__ is None


def chunk_of(item: object) -> Chunk:
    book = JobBook(1, "job", make_table([item]), JobOptions(RetryPolicy()), None)
    return Chunk(1, book, range(1), Care.NONE, expected=0.0, sent_at=0.0)
