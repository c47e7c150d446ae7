"""A worker asks for descriptors: questions, answers, and what is none of both."""

from __future__ import annotations

import errno
import os
import socket
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest

from mpqueue._os import descriptors
from mpqueue._wire.memory import asking
from mpqueue._wire.memory.asking import TRACKERS, Asking, Key, decode, encode
from tests.support.systems import not_on_windows

pytestmark = not_on_windows("descriptors are not handed over there")

REF: Any = SimpleNamespace(serial=7, inode=1 << 40)


@pytest.fixture
def ends() -> Iterator[tuple[Asking, socket.socket]]:
    """The worker's end, and the parent's."""
    worker, parent = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    asks = Asking(worker.detach())
    yield asks, parent
    parent.close()
    asks._socket.close()


def answer(parent: socket.socket, data: bytes, fd: int | None = None) -> None:
    socket.send_fds(parent, [data], [] if fd is None else [fd])


@pytest.mark.parametrize(
    "data", [b"", b"x" * 20, encode(Key(7, 8))[:-1], encode(Key(7, 8)) + b"x", b"!" + encode(Key(7, 8))[1:]]
)
def test_what_is_no_question_is_none(data: bytes) -> None:
    assert decode(data) is None
    assert decode(encode(Key(7, 8))) == Key(7, 8)


def test_the_answer_to_a_question_is_taken_and_those_to_earlier_ones_are_dropped(
    ends: tuple[Asking, socket.socket],
) -> None:
    asks, parent = ends
    question, file = encode(Key(REF.serial, REF.inode)), os.memfd_create("test")
    answer(parent, encode(Key(1, 2)), file)
    answer(parent, question, file)
    found = asks.ask(REF)
    assert found is not None
    assert os.path.samestat(os.fstat(found), os.fstat(file))
    assert parent.recv(100) == question
    answer(parent, question)
    assert asks.ask(REF) is None, "the parent has it no more"
    answer(parent, TRACKERS[0].encode(), file)
    tracker = asks.ask_for_tracker(TRACKERS[0])
    assert tracker is not None
    descriptors.close_all(found, tracker, file)


@pytest.mark.parametrize("trouble", [errno.EMFILE, errno.EBADF])
def test_a_process_without_descriptors_says_so_and_other_troubles_are_no_answer(
    ends: tuple[Asking, socket.socket], monkeypatch: pytest.MonkeyPatch, trouble: int
) -> None:
    def refuse(_: socket.socket) -> None:
        raise OSError(trouble, os.strerror(trouble))

    asks, parent = ends
    monkeypatch.setattr(asking, "receive", refuse)
    if trouble == errno.EMFILE:
        with pytest.raises(OSError, match="Too many open files"):
            asks.ask(REF)
    else:
        assert asks.ask(REF) is None
    assert parent.recv(100)
    monkeypatch.setattr(os, "getpid", lambda: 1)
    assert asks.ask(REF) is None
    parent.setblocking(False)
    with pytest.raises(BlockingIOError):
        parent.recv(100)  # a fork asks nothing
