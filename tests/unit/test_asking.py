"""Asking for segments: what is handed over, and what is not, whatever a worker writes there."""

from __future__ import annotations

import array
import os
import socket
from collections.abc import Iterator

import pytest

from mpqueue._engines.loky.answering import Answering
from mpqueue._os.memory import memory_files
from mpqueue._parent.inbox import Inbox
from mpqueue._wire.memory import asking, segments
from mpqueue._wire.memory.asking import Asking, Key
from mpqueue._wire.memory.segments import CommonSegment, Segment, SegmentRef, view
from tests.support.systems import LINUX_ONLY


@pytest.fixture
def inbox() -> Iterator[Inbox]:
    inbox = Inbox()
    yield inbox
    inbox.close()


@pytest.fixture
def answering(inbox: Inbox) -> Iterator[Answering]:
    answering = Answering(inbox)
    answering.open()
    yield answering
    answering.close()


@pytest.fixture
def end(answering: Answering) -> Iterator[socket.socket]:
    """The worker's end."""
    with socket.socket(fileno=answering.worker_end) as end:
        end.setblocking(False)
        yield end


@pytest.fixture
def lent() -> Iterator[tuple[Segment, SegmentRef]]:
    segment = Segment()
    yield segment, segment.fill([memoryview(b"content")], [0], 7)
    segment.close()


def key_of(ref: SegmentRef) -> bytes:
    return asking.encode(Key(ref.serial, ref.inode))


@LINUX_ONLY
def test_who_asks_for_a_segment_gets_a_descriptor_that_counts_as_open(
    inbox: Inbox, end: socket.socket, lent: tuple[Segment, SegmentRef]
) -> None:
    segment, ref = lent
    end.send(key_of(ref))
    inbox.take(0)
    assert not segment.is_unshared(), "it is on its way"
    data, (fd,) = asking.receive(end)
    assert data == key_of(ref)
    assert os.pread(fd, 100, 0) == b"content"
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.pwrite(fd, b"x", 0)
    assert not segment.is_unshared()
    os.close(fd)
    assert segment.is_unshared()


@LINUX_ONLY  # the sockets of a bare system hold less
def test_what_is_no_key_is_ignored_and_what_is_gone_is_said_to_be(
    inbox: Inbox, end: socket.socket, lent: tuple[Segment, SegmentRef]
) -> None:
    segment, ref = lent
    gone = ref._replace(serial=1 << 40), ref._replace(inode=1)
    for data in (b"x", os.urandom(20), bytes(20), bytes(10_000), *map(key_of, gone)):
        end.sendmsg([data], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [end.fileno()] * 3))])
    segment.close()
    end.send(key_of(ref))
    descriptors = os.listdir("/proc/self/fd")
    inbox.take(0)
    assert [asking.receive(end) for _ in range(3)] == [(key_of(one), []) for one in (*gone, ref)]
    with pytest.raises(BlockingIOError):
        asking.receive(end)
    assert os.listdir("/proc/self/fd") == descriptors


def test_a_worker_that_has_ended_or_reads_no_answers_holds_nobody_up(
    inbox: Inbox, end: socket.socket, lent: tuple[Segment, SegmentRef]
) -> None:
    for _ in range(1000):
        try:
            end.send(key_of(lent[1]))
        except BlockingIOError:
            inbox.take(0)
    end.shutdown(socket.SHUT_WR)
    for _ in range(100):
        inbox.take(0)
    assert lent[0].serial


def test_an_answer_to_an_earlier_question_is_skipped(
    inbox: Inbox, answering: Answering, lent: tuple[Segment, SegmentRef]
) -> None:
    other = Segment()
    worker = Asking(answering.worker_end)
    for ref in (other.fill([memoryview(b"another")], [0], 7), lent[1]):
        worker._socket.send(key_of(ref))
    inbox.take(0)
    before = len(os.listdir("/proc/self/fd"))
    fd = worker.ask(lent[1])  # of three answers the first is another segment's, and the third is never read
    assert fd is not None
    assert os.pread(fd, 100, 0) == b"content"
    os.close(fd)
    assert len(os.listdir("/proc/self/fd")) == before
    worker._socket.close()
    other.close()


def test_where_a_handler_has_put_something_else_in_the_socket_s_place_nothing_is_sent_there(
    answering: Answering, lent: tuple[Segment, SegmentRef]
) -> None:
    worker = Asking(answering.worker_end)
    mine, theirs = socket.socketpair()
    os.dup2(theirs.fileno(), worker._socket.fileno())
    assert worker.ask(lent[1]) is None
    mine.setblocking(False)
    with pytest.raises(BlockingIOError):
        mine.recv(1)
    for one in (mine, theirs, worker._socket):
        one.close()


def test_where_segments_have_no_path_items_go_otherwise_and_what_is_shared_is_asked_for_and_copied(
    answering: Answering, inbox: Inbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(segments, "can_be_opened_by_others", lambda: False)
    monkeypatch.setattr(segments, "make_sealable", memory_files._make_temporary)
    assert not segments.can_lend()
    shared = CommonSegment([memoryview(b"shared")])
    assert bytes(view(shared.ref)[:6]) == b"shared", "its own"
    worker = Asking(answering.worker_end)
    monkeypatch.setattr(segments, "process_name", lambda: "another process.")
    monkeypatch.setattr(segments, "ask_writer", worker.ask)
    worker._socket.send(key_of(shared.ref))
    inbox.take(0)
    back: list[int] = []
    found = view(shared.ref, back.append)
    assert bytes(found[:6]) == b"shared"
    assert back == [shared.ref.serial]
    worker._socket.close()
