"""Segments: filling them again through a mapping."""

from __future__ import annotations

import contextlib
import mmap
import os
import re
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from mpqueue._os import memory_files
from mpqueue._wire.memory import segments
from mpqueue._wire.memory.segments import Segment, SegmentGoneError, SegmentStore, layout, view
from tests.support.systems import LINUX_ONLY, not_on_windows
from tests.support.this_system import IS_LINUX

SIZE = 300_000
FILLED_AGAIN = not_on_windows("each segment is filled once")


def parts(*fills: int, size: int = SIZE) -> list[memoryview]:
    """Buffers of that size, each full of one byte."""
    return [memoryview(bytes([fill]) * size) for fill in fills]


def fill(segment: Segment, buffers: list[memoryview]) -> bytes:
    """What a reader finds in it, once it is filled with these."""
    offsets, size = layout(buffers)
    ref = segment.fill(buffers, offsets, size)
    found = view(ref)
    return b"".join(found[at : at + buffer.nbytes] for at, buffer in zip(offsets, buffers, strict=True))


@pytest.mark.parametrize("size", [1, 4096, SIZE, 3 * segments.PIECE + 1])
def test_what_is_filled_again_holds_the_new_and_nothing_else(size: int, monkeypatch: pytest.MonkeyPatch) -> None:
    segment, populated = Segment(), list[Any]()
    monkeypatch.setattr(segments, "populate", populated.append)
    for numbers in ((1, 2), (3, 4), (5,), (6, 7)):
        buffers = parts(*numbers, size=size)
        assert fill(segment, buffers) == b"".join(buffers)
    assert len(populated) == IS_LINUX, "its pages are there then; elsewhere it is written and not mapped"


@LINUX_ONLY
def test_a_big_one_is_in_huge_pages_for_its_writer_and_each_reader() -> None:
    size, untouched = memory_files.HUGE_PAGE + 1, Segment()
    if memory_files.allocate_huge(size, untouched._fd) is None:
        pytest.skip("this kernel makes no huge pages of files in memory")
    segment = Segment()
    ref = segment.fill(parts(1, size=size), [0], size)
    for mapped in (views := [segment.contents(), view(ref), view(ref)]):
        assert bytes(mapped) == b"\1" * size
    mapped_whole = re.findall(r"^ShmemPmdMapped: +(\d+) kB$", Path("/proc/self/smaps").read_text(), re.MULTILINE)
    assert [int(kb) << 10 for kb in mapped_whole if int(kb)] == len(views) * [memory_files.HUGE_PAGE]
    views[1][7] = 2
    assert [mapped[7] for mapped in views] == [1, 2, 1]


@LINUX_ONLY
def test_where_no_huge_page_is_to_be_had_a_big_one_has_small_ones(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory_files, "_MADV_COLLAPSE", -1)  # as before Linux 6.1
    size = memory_files.HUGE_PAGE + 1
    segment = Segment()
    for number in (1, 2):
        assert fill(segment, parts(number, size=size)) == bytes([number]) * size
    assert segment.is_unshared()


def test_where_nothing_can_be_mapped_it_is_written(monkeypatch: pytest.MonkeyPatch) -> None:
    segment = Segment()
    with monkeypatch.context() as patched:
        patched.setattr(segments, "map_file", lambda *_: None)
        assert fill(segment, parts(1)) == b"\1" * SIZE
        assert segment.contents()[:SIZE] == b"\1" * SIZE
    assert fill(segment, parts(2)) == b"\2" * SIZE
    mapped = Segment()
    assert fill(mapped, parts(3)) == mapped.contents()[:SIZE] == b"\3" * SIZE


@LINUX_ONLY
def test_what_the_reader_was_sent_can_not_be_changed_by_the_descriptor() -> None:
    """A handler may write into every descriptor that it finds, or make the file shorter."""
    segment = Segment()
    ref = segment.fill(parts(1), [0], SIZE)
    found = view(ref)
    for harm in (
        lambda: os.pwrite(segment._fd, b"garbage", 0),
        lambda: os.ftruncate(segment._fd, 1),
        lambda: mmap.mmap(segment._fd, SIZE),
    ):
        with pytest.raises(PermissionError):
            harm()
    assert found == b"\1" * SIZE
    del found
    assert segment.is_unshared()
    assert fill(segment, parts(2)) == b"\2" * SIZE


def test_a_file_that_has_a_segment_s_number_is_not_touched(tmp_path: Path) -> None:
    """A handler has closed the descriptor, and its own file has the number now."""
    segment = Segment()
    segment.fill(parts(1), [0], SIZE)
    users = tmp_path / "users"
    with open(users, "wb") as file:
        os.dup2(file.fileno(), segment._fd)
    assert not segment.is_unshared()
    number = segment._fd
    segment.close()
    os.write(number, b"still open")
    os.close(number)
    assert users.read_bytes() == b"still open"


def test_a_view_keeps_what_it_saw_when_its_segment_is_closed() -> None:
    segment = Segment()
    fill(segment, parts(1))
    ref = segment.fill(parts(2), [0], SIZE)
    found = view(ref)
    segment.close()
    assert bytes(found) == bytes(parts(2)[0])


@LINUX_ONLY
def test_a_segment_is_opened_for_who_asks_its_process_and_no_other_file(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(segments, "can_be_opened_by_others", lambda: False)
    segment, free = Segment(), list[int]()
    ref = segment.fill(parts(1), [0], SIZE)
    assert not ref.has_path
    assert view(ref, free.append) == view(ref) == b"\1" * SIZE
    assert free == [ref.serial], "it is copied"
    theirs, none_left = ref._replace(path="another process"), sorted(os.listdir("/proc/self/fd"))
    for ask in (segments.reopen, segments.own_descriptor):
        answer = ask(ref.serial, ref.inode)
        assert answer is not None
        assert (answer == segment._fd) is (ask is segments.own_descriptor), "a lease tells of what is opened anew"
        monkeypatch.setattr(segments, "ask_writer", lambda _, answer=answer: os.dup(answer))
        assert view(theirs) == b"\1" * SIZE
        for other in (ref._replace(inode=ref.inode + 1), ref._replace(serial=ref.serial + 1)):
            assert ask(other.serial, other.inode) is None
        with pytest.raises(SegmentGoneError):
            view(theirs._replace(inode=ref.inode + 1))
        if answer != segment._fd:
            os.close(answer)
    assert sorted(os.listdir("/proc/self/fd")) == none_left
    monkeypatch.undo()
    with pytest.raises(SegmentGoneError):
        view(theirs)


@FILLED_AGAIN
@LINUX_ONLY
def test_a_store_lends_a_segment_again_when_it_is_back() -> None:
    store = SegmentStore()
    first, _ = store.lend(parts(1))
    second, _ = store.lend(parts(2))
    assert first.serial != second.serial
    store.take_back([first.serial])
    third, _ = store.lend(parts(3))
    assert third.serial == first.serial
    assert bytes(view(third))[:1] == b"\3"
    assert bytes(view(second))[:1] == b"\2"


@LINUX_ONLY
def test_a_segment_that_is_still_mapped_is_dropped_whatever_was_said() -> None:
    store = SegmentStore()
    first, _ = store.lend(parts(1))
    found = view(first)
    store.take_back([first.serial])
    second, _ = store.lend(parts(2))
    assert second.serial != first.serial
    del found
    store.take_back([second.serial])
    third, _ = store.lend(parts(3))
    assert third.serial == second.serial, "the first one is gone"


@LINUX_ONLY
def test_where_leases_tell_nothing_no_segment_is_filled_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(segments, "leases_tell", lambda: False)
    store = SegmentStore()
    first, _ = store.lend(parts(1))
    store.take_back([first.serial])
    assert segments.own_descriptor(first.serial, first.inode) is None, "nor kept"
    second, _ = store.lend(parts(2))
    assert second.serial != first.serial
    assert bytes(view(second))[:1] == b"\2"


@LINUX_ONLY
def test_leases_tell_here_and_not_without_proc(monkeypatch: pytest.MonkeyPatch) -> None:
    tell = memory_files.leases_tell.__wrapped__
    assert tell()

    def refuse(path: object, *_: object) -> int:
        raise FileNotFoundError(path)

    monkeypatch.setattr(os, "open", refuse)
    assert not tell()
    assert not Segment().is_unshared()


@pytest.fixture
def few_mappings(monkeypatch: pytest.MonkeyPatch) -> int:
    """The process may map so many segments."""
    monkeypatch.setattr(memory_files, "MAX_MAPPED", len(memory_files._mapped) + 100)
    return 100


@LINUX_ONLY
def test_of_many_segments_some_are_mapped_and_the_others_are_copied(few_mappings: int) -> None:
    store, free = SegmentStore(), list[int]()
    found = []
    for number in range(3 * few_mappings):
        ref, _ = store.lend(parts(number % 256, size=5000))
        found.append(view(ref, free.append))
        store.give_up([ref.serial])  # the writer is another process otherwise
    assert len(free) == 2 * few_mappings + 1, "what is copied is free at once; the writer's own mapping takes a place"
    for number, memory in enumerate(found):
        assert bytes(memory[:5000]) == bytes([number % 256]) * 5000
        memory[0] = 1
    del found, memory
    assert len(free) == 3 * few_mappings
    again = view(store.lend(parts(7))[0], free.append)
    assert len(free) == 3 * few_mappings, "there is room again, so it is mapped"
    assert again[0] == 7


@LINUX_ONLY
def test_where_nothing_can_be_mapped_it_is_copied(monkeypatch: pytest.MonkeyPatch) -> None:
    store = SegmentStore()
    ref, _ = store.lend(parts(1, size=segments.PIECE + 5))
    monkeypatch.setattr(segments, "map_file", lambda *_: None)
    assert bytes(view(ref)[: segments.PIECE + 5]) == bytes(parts(1, size=segments.PIECE + 5)[0])


@pytest.mark.parametrize("can_map", [True, False])
def test_a_part_of_one_is_read(can_map: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    store = SegmentStore()
    ref, _ = store.lend([memoryview(bytes(range(200)))])
    if not can_map:
        monkeypatch.setattr(segments, "map_file", lambda *_: None)
    assert bytes(view(ref, begin=50, end=60)) == bytes(range(50, 60))
    assert bytes(view(ref, begin=150)[:50]) == bytes(range(150, 200))


@LINUX_ONLY
def test_a_store_keeps_no_more_free_ones_than_it_may() -> None:
    store = SegmentStore(keep_free=2 * layout(parts(1))[1])
    lent = [store.lend(parts(number))[0] for number in range(5)]
    store.take_back([ref.serial for ref in lent])
    again = [store.lend(parts(number))[0].serial for number in range(5)]
    assert sorted(again)[:2] == [ref.serial for ref in lent[-2:]], "the latest, whose pages are warm"


@contextlib.contextmanager
def pauses(monkeypatch: pytest.MonkeyPatch, at_each: Callable[[], object]) -> Iterator[None]:
    """Where a reader would pause, do this instead."""

    class Pausing:
        def wait(self, seconds: float) -> None:
            at_each()

    with monkeypatch.context() as patch:
        patch.setattr(threading, "Event", Pausing)
        yield


@not_on_windows("no limit of descriptors")
def test_a_segment_waits_for_a_descriptor_and_is_read_then(monkeypatch: pytest.MonkeyPatch) -> None:
    from tests.support.descriptors import no_descriptor_left

    segment, want, waited = Segment(), contextlib.ExitStack(), list[int]()

    def end_the_want() -> None:
        waited.append(1)
        if len(waited) == 3:
            want.close()

    data = memoryview(b"x" * 1000)
    ref = segment.fill([data], [0], len(data))
    with pauses(monkeypatch, end_the_want), want:
        want.enter_context(no_descriptor_left())
        assert bytes(view(ref)) == bytes(data)
    assert len(waited) == 3


@not_on_windows("no limit of descriptors")
def test_a_segment_that_can_never_be_opened_is_an_error_and_no_hang(monkeypatch: pytest.MonkeyPatch) -> None:
    from tests.support.descriptors import no_descriptor_left

    segment, waited = Segment(), list[int]()
    ref = segment.fill([memoryview(b"x")], [0], 1)
    with (
        pauses(monkeypatch, lambda: waited.append(1)),
        no_descriptor_left(),
        pytest.raises(OSError, match="Too many open files"),
    ):
        view(ref)
    assert len(waited) == int(segments.DESCRIPTOR_WAIT_S / segments.DESCRIPTOR_RETRY_S)
    assert bytes(view(ref)) == b"x"
