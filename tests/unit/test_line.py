"""Messages on a stream: cut right wherever the stream is cut, and none is made of half of one."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from concurrent.futures import Future

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mpqueue._core.messages import TimePassed
from mpqueue._engine.inbox import PATIENCE, Inbox, Request
from mpqueue._engine.line import Line
from mpqueue._wire.line import Answer, Incoming, encode, write_whole

messages = st.lists(st.builds(Answer, st.binary(max_size=300), st.booleans()), max_size=6)


@given(messages, st.lists(st.integers(1, 200), min_size=1, max_size=8))
def test_messages_arrive_whole_wherever_the_stream_is_cut(sent: list[Answer], portions: list[int]) -> None:
    read, write = os.pipe()
    stream = b"".join(encode(one.data, plain=one.plain) for one in sent)
    incoming, arrived, turn = Incoming(read), [], 0
    try:
        while stream:
            portion = portions[turn % len(portions)]
            turn += 1
            os.write(write, stream[:portion])
            stream = stream[portion:]
            arrived += incoming.read() or []
        os.close(write)
        assert incoming.read() is None
    finally:
        os.close(read)
    assert arrived == sent


def test_what_its_writer_did_not_end_is_dropped() -> None:
    read, write = os.pipe()
    write_whole(write, encode(b"whole") + encode(b"half")[:-1])
    os.close(write)
    incoming = Incoming(read)
    assert incoming.read() == [Answer(b"whole")]
    assert incoming.read() is None
    os.close(read)


@pytest.fixture
def inbox() -> Iterator[Inbox]:
    made = Inbox()
    yield made
    made.close()


def test_a_frame_that_the_worker_has_no_room_for_goes_out_as_it_reads(inbox: Inbox) -> None:
    line, sent = Line(inbox), [os.urandom(3_000_000), b"after it"]
    line.open(lambda _: None, lambda: None)
    worker = Incoming(line.worker_end)
    for frame in sent:
        line.send(frame)
    arrived: list[Answer] = []
    while len(arrived) < len(sent):
        arrived += worker.read() or []
        inbox.take(0)
    assert [answer.data for answer in arrived] == sent
    os.close(line.worker_end)
    line.close()


def test_answers_are_handed_on_in_order_and_then_the_end(inbox: Inbox) -> None:
    line, told = Line(inbox), []
    line.open(lambda answer: told.append(answer.data), lambda: told.append(b"the end"))
    write_whole(line.worker_end, encode(b"1") + encode(b"2"))
    inbox.take(0)
    os.close(line.worker_end)
    inbox.take(0)
    inbox.take(0)
    assert told == [b"1", b"2", b"the end"]
    line.close()
    line.send(b"for nobody")
    line.close()


def test_an_answer_that_came_before_a_death_is_read_although_frames_were_left_unread(inbox: Inbox) -> None:
    line, told = Line(inbox), []
    line.open(lambda answer: told.append(answer.data), lambda: told.append(b"the end"))
    line.send(b"never read")
    write_whole(line.worker_end, encode(b"last words"))
    os.close(line.worker_end)
    while b"the end" not in told:
        inbox.take(0)
    assert told[-1] == b"the end"
    line.close()


def test_descriptors_are_looked_at_although_messages_never_end(inbox: Inbox) -> None:
    ours, theirs = socket.socketpair()
    read: list[bytes] = []
    inbox.watch(ours.fileno(), lambda: read.append(ours.recv(10)))
    theirs.send(b"here")
    for _ in range(PATIENCE + 1):
        inbox.post(TimePassed())
        inbox.take(0)
    assert read == [b"here"]
    inbox.forget(ours.fileno())
    ours.close()
    theirs.close()


def test_a_reader_that_raises_is_told_and_stops_nobody(inbox: Inbox, caplog: pytest.LogCaptureFixture) -> None:
    read, write = os.pipe()

    def broken() -> None:
        os.read(read, 10)
        raise ValueError("a bug of ours")

    inbox.watch(read, broken)
    os.write(write, b"!")
    assert inbox.take(0) is None
    assert "a bug of ours" in caplog.text
    inbox.post(TimePassed())
    assert inbox.take(0) == TimePassed()
    inbox.forget(read)
    os.close(read)
    os.close(write)


def test_a_closed_inbox_takes_what_is_posted_and_gives_it_to_who_asks() -> None:
    inbox = Inbox()
    inbox.close()
    request = Request(lambda: None, Future())
    inbox.post(request)
    inbox.watch(0, lambda: None)
    inbox.forget(0)
    assert inbox.take_now() is request
    assert inbox.take_now() is None
