"""Messages on a stream: cut right wherever the stream is cut, and none is made of half of one."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mpqueue._core.messages import FaultFound, TimePassed
from mpqueue._engines.loky.parent_line import Line
from mpqueue._os import descriptors
from mpqueue._parent.inbox import MESSAGES_BETWEEN_LOOKS, Inbox, Request
from mpqueue._parent.replies import Reply
from mpqueue._wire.line import HEADER_SIZE, Answer, DamagedError, Incoming, decode, encode, write_whole

messages = st.lists(st.builds(Answer, st.binary(max_size=300), st.booleans(), st.booleans()), max_size=6)


@given(messages, st.lists(st.integers(1, 200), min_size=1, max_size=8))
def test_messages_arrive_whole_wherever_the_stream_is_cut(sent: list[Answer], portions: list[int]) -> None:
    read, write = descriptors.pipe()
    stream = b"".join(_encoded(one) for one in sent)
    incoming, arrived, turn = Incoming(read), [], 0
    try:
        while stream:
            portion = portions[turn % len(portions)]
            turn += 1
            descriptors.write(write, stream[:portion])
            stream = stream[portion:]
            arrived += incoming.read() or []
        descriptors.close(write)
        assert incoming.read() is None
    finally:
        descriptors.close(read)
    assert arrived == sent


def test_what_its_writer_did_not_end_is_dropped() -> None:
    read, write = descriptors.pipe()
    write_whole(write, encode(b"whole") + encode(b"half")[:-1])
    descriptors.close(write)
    incoming = Incoming(read)
    assert incoming.read() == [Answer(b"whole")]
    assert incoming.read() is None
    descriptors.close(read)


def read_all(stream: bytes) -> tuple[Incoming, list[Answer]]:
    """Read a stream to its end: what read it, and the messages."""
    read, write = descriptors.pipe()
    descriptors.write(write, stream)
    descriptors.close(write)
    incoming, arrived = Incoming(read), list[Answer]()
    while (some := incoming.read()) is not None:
        arrived += some
    descriptors.close(read)
    return incoming, arrived


@given(messages, st.data())
def test_whatever_a_stream_is_changed_to_no_message_is_made_of_it_that_was_not_sent(
    sent: list[Answer], data: st.DataObject
) -> None:
    stream = b"".join(_encoded(one) for one in sent)
    lo = data.draw(st.integers(0, len(stream)))
    hi = data.draw(st.integers(lo, len(stream)))
    changed = stream[:lo] + data.draw(st.binary(max_size=100)) + stream[hi:]
    _, arrived = read_all(changed)
    assert all(one in sent for one in arrived)
    whole = sum(1 for at in range(len(sent)) if len(b"".join(map(_encoded, sent[: at + 1]))) <= lo)
    assert arrived[:whole] == sent[:whole]
    assert decode(changed) == arrived


def _encoded(one: Answer) -> bytes:
    return encode(one.data, plain=one.plain, early=one.early)


@given(st.binary(max_size=200))
def test_chance_is_no_message(noise: bytes) -> None:
    assert decode(noise) == []
    incoming, arrived = read_all(noise)
    assert arrived == []
    assert (incoming.damage is not None) == (len(noise) >= HEADER_SIZE)


def test_what_comes_before_something_else_arrives_and_nothing_behind_it() -> None:
    incoming, arrived = read_all(encode(b"first") + b"?" * 50 + encode(b"second"))
    assert arrived == [Answer(b"first")]
    assert incoming.damage is not None


@pytest.fixture
def inbox() -> Iterator[Inbox]:
    made = Inbox()
    yield made
    made.close()


def test_a_frame_that_the_worker_has_no_room_for_goes_out_as_it_reads(inbox: Inbox) -> None:
    line, sent = Line(inbox), [os.urandom(3_000_000), b"after it"]
    line.open(lambda _: None, lambda _: None)
    worker = Incoming(line.worker_end)
    for frame in sent:
        line.send(frame)
    arrived: list[Answer] = []
    while len(arrived) < len(sent):
        arrived += worker.read() or []
        inbox.take(0)
    assert [answer.data for answer in arrived] == sent
    descriptors.close(line.worker_end)
    line.close()


def test_answers_are_handed_on_in_order_and_then_the_end(inbox: Inbox) -> None:
    line, told = Line(inbox), []
    line.open(lambda answer: told.append(answer.data), lambda _: told.append(b"the end"))
    write_whole(line.worker_end, encode(b"1") + encode(b"2"))
    inbox.take(0)
    descriptors.close(line.worker_end)
    inbox.take(0)
    inbox.take(0)
    assert told == [b"1", b"2", b"the end"]
    line.close()
    line.send(b"for nobody")
    line.close()


def test_what_is_no_answer_ends_the_line_after_the_answers_before_it(inbox: Inbox) -> None:
    line, answers, ends = Line(inbox), list[bytes](), list[DamagedError | None]()
    line.open(lambda answer: answers.append(answer.data), ends.append)
    write_whole(line.worker_end, encode(b"1") + b"?" * 50)
    inbox.take(0)
    write_whole(line.worker_end, encode(b"2"))
    inbox.take(0)
    assert answers == [b"1"]
    assert [type(end) for end in ends] == [DamagedError]
    descriptors.close(line.worker_end)
    line.close()


def test_an_answer_that_came_before_a_death_is_read_although_frames_were_left_unread(inbox: Inbox) -> None:
    line, told = Line(inbox), []
    line.open(lambda answer: told.append(answer.data), lambda _: told.append(b"the end"))
    line.send(b"never read")
    write_whole(line.worker_end, encode(b"last words"))
    descriptors.close(line.worker_end)
    while b"the end" not in told:
        inbox.take(0)
    assert told[-1] == b"the end"
    line.close()


def test_descriptors_are_looked_at_although_messages_never_end(inbox: Inbox) -> None:
    ours, theirs = socket.socketpair()
    read: list[bytes] = []
    inbox.watch(ours.fileno(), lambda: read.append(ours.recv(10)))
    theirs.send(b"here")
    for _ in range(MESSAGES_BETWEEN_LOOKS + 1):
        inbox.post(TimePassed())
        inbox.take(0)
    assert read == [b"here"]
    inbox.forget(ours.fileno())
    ours.close()
    theirs.close()


def test_a_reader_that_raises_is_a_fault_and_stops_nobody(inbox: Inbox, caplog: pytest.LogCaptureFixture) -> None:
    read, write = descriptors.pipe()

    def broken() -> None:
        descriptors.read(read, 10)
        raise ValueError("a bug of ours")

    inbox.watch(read, broken)
    descriptors.write(write, b"!")
    fault = inbox.take(0)
    assert isinstance(fault, FaultFound)
    assert "a bug of ours" in fault.error.traceback
    assert "a bug of ours" in caplog.text
    inbox.post(TimePassed())
    assert inbox.take(0) == TimePassed()
    inbox.forget(read)
    descriptors.close(read)
    descriptors.close(write)


def test_a_closed_inbox_takes_what_is_posted_and_gives_it_to_who_asks() -> None:
    inbox = Inbox()
    inbox.close()
    request = Request(lambda: None, Reply())
    inbox.post(request)
    inbox.watch(0, lambda: None)
    inbox.forget(0)
    assert inbox.take_now() is request
    assert inbox.take_now() is None
