"""What travels arrives as it was, and what goes with every chunk names no class."""

from __future__ import annotations

from typing import Any

import pytest

from mpqueue._wire.frames import (
    ChunkFrame,
    Ended,
    FailureFrame,
    ForgetFrame,
    ForgottenFrame,
    HandlerFrame,
    RecordFrame,
    ReportFrame,
    Speech,
    WorkTimes,
    all_of,
    begin_unsent,
    dump_frame,
    dump_with_segments,
    is_plain,
    load_frame,
    load_unsent,
    load_with_segments,
    unsent,
)
from mpqueue._wire.memory.segments import SegmentRef
from mpqueue._wire.pickling.payload import Packed

TIMES = WorkTimes(*(number / 8 for number in range(9)))
REPORT = ReportFrame(
    7, 2, 5, Packed(b"results"), {}, [(3, 0.1, 0.2)], 0.4, Ended.TIME, records=[b"said"], peaks={0: 5}, times=TIMES
)
CHUNK = ChunkFrame(3, 7, Packed(b"items"), range(10, 15), returned=[4], forget=[1])
IN_A_SEGMENT = Packed(b"", SegmentRef("path", 7, 100, 1), ((0, 40),), (40, 60))
HANDLER = HandlerFrame("job", Packed(b"handler"), None, "position", 5)
SPEECH = Speech({"": 30, "app": 20}, capture=True)
FAILURE = FailureFrame(Packed(b"error"), ("ValueError", "bad", "trace", ()), 0.1, True)


@pytest.mark.parametrize(
    "frame",
    [
        REPORT,
        REPORT._replace(results=IN_A_SEGMENT),
        REPORT._replace(results=[Packed(b"one"), IN_A_SEGMENT], times=None),
        REPORT._replace(results=[], failures={0: FAILURE, 1: FAILURE}),
        REPORT._replace(ended=Ended.SETUP_FAILED, setup_failure=FAILURE),
        *(REPORT._replace(ended=ended) for ended in Ended),
        CHUNK,
        CHUNK._replace(indices=[4, 9, 2], attempts=[1, 2, 1]),
        CHUNK._replace(items=[Packed(b"one"), Packed(b"other")], handler=HANDLER),
        CHUNK._replace(items=IN_A_SEGMENT, indices=range(10, 4, -2)),
        CHUNK._replace(handler=HANDLER._replace(handler=IN_A_SEGMENT, setup=Packed(b"setup"), speech=SPEECH)),
        ForgetFrame(5),
        ForgottenFrame("complaint", [b"said"], [3]),
    ],
)
def test_a_frame_arrives_as_it_was(frame: Any) -> None:
    arrived = load_frame(dump_frame(frame))
    assert arrived == frame
    assert type(arrived) is type(frame)
    assert [type(value) for value in arrived] == [type(value) for value in frame]
    if isinstance(frame, ChunkFrame) and frame.handler is not None:
        assert [type(value) for value in arrived.handler] == [type(value) for value in frame.handler]


def test_nothing_at_all_arrives_too() -> None:
    assert load_frame(dump_frame(None)) is None


@pytest.mark.parametrize("frame", [REPORT, CHUNK, CHUNK._replace(handler=HANDLER._replace(speech=SPEECH))])
def test_what_goes_with_every_chunk_names_no_class(frame: Any) -> None:
    assert b"mpqueue" not in dump_frame(frame)
    assert b"builtins" not in dump_frame(frame)


def test_an_answer_says_which_segments_it_leaves_only_where_there_are_any() -> None:
    frame = dump_frame(REPORT)
    assert dump_with_segments(frame, []) == frame
    assert load_with_segments(frame) == (frame, ())
    ref = SegmentRef("path", 7, 100, 1)
    assert load_with_segments(dump_with_segments(frame, [ref])) == (frame, [ref])


def test_all_pickles_of_results_are_found_also_in_what_was_yielded() -> None:
    one, other = Packed(b"one"), Packed(b"other")
    assert [*all_of(one)] == [one]
    assert [*all_of([one, b"plain", [other, b"plain"]])] == [one, other]


@pytest.mark.parametrize(
    ("report", "plain"),
    [
        (REPORT, True),
        (REPORT._replace(results=[Packed(b"one")]), False),
        (REPORT._replace(results=[Packed(b"one")], passed=True), True),
        (REPORT._replace(failures={0: FAILURE}), False),
        (REPORT._replace(setup_failure=FAILURE), False),
    ],
)
def test_a_report_is_plain_where_reading_it_runs_no_code_of_users(report: ReportFrame, plain: bool) -> None:
    assert is_plain(report) == plain


def test_records_that_no_report_brought_are_read_as_far_as_they_are_whole() -> None:
    records = [RecordFrame({"msg": text}, place, 1) for text, place in (("one", 4), ("other", None))]
    written = begin_unsent(7) + b"".join(unsent(dump_frame(record)) for record in records)
    assert load_frame(dump_frame(records[0])) == records[0]
    assert load_unsent(written) == (7, records)
    assert load_unsent(written[:-1]) == (7, records[:1])
    assert load_unsent(begin_unsent(7)) == (7, [])
    assert load_unsent(b"") is None
    assert load_unsent(unsent(b"no number")) is None
