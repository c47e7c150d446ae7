"""The futures of a lane: each is resolved once, and "empty" comes after the last callback."""

from __future__ import annotations

from concurrent.futures import Future

from mpqueue._parent.open_calls import Calls

DEAD = ChildProcessError("the worker has ended")


def test_a_call_ends_with_what_it_is_settled_with_first() -> None:
    calls = Calls()
    call = calls.begin()
    calls.settle(call, b"answer", None)
    calls.settle(call, None, DEAD)
    assert call.result(0) == b"answer"


def test_a_late_answer_is_dropped() -> None:
    calls = Calls()
    call = calls.begin()
    calls.fail_all(DEAD)
    calls.settle(call, b"late", None)
    assert call.exception(0) is DEAD


def test_calls_that_begin_after_close_fail_at_once_and_those_under_way_go_on() -> None:
    calls = Calls()
    early = calls.begin()
    calls.close(DEAD)
    assert calls.begin().exception(0) is DEAD
    assert not early.done()
    calls.settle(early, b"", None)
    assert early.result(0) == b""


def test_empty_is_told_at_once_where_nothing_is_under_way() -> None:
    told: list[str] = []
    Calls().when_empty(lambda: told.append("empty"))
    assert told == ["empty"]


def test_empty_is_told_once_after_the_last_callback() -> None:
    calls, told = Calls(), []
    first, second = calls.begin(), calls.begin()
    calls.when_empty(lambda: told.append("empty"))

    def answered(call: Future[bytes]) -> None:
        told.append("first" if call is first else "second")
        calls.when_empty(lambda: told.append("empty"))  # while this callback runs, something is under way

    for call in (first, second):
        call.add_done_callback(answered)
    calls.settle(second, b"", None)
    assert (told, len(calls)) == (["second"], 1)
    calls.fail_all(DEAD)
    assert (told, len(calls)) == (["second", "first", "empty"], 0)
