"""Pickles, and what is big of them, which goes beside: in a segment, carried, or where there is none in the pickle."""

from __future__ import annotations

import errno
import gc
import sys
from collections.abc import Sequence
from types import FunctionType, ModuleType
from typing import Any

import cloudpickle
import numpy as np
import pytest

from mpqueue._wire.memory import segments
from mpqueue._wire.memory.segments import HeldSegment, SegmentStore, can_be_opened, make_anchor
from mpqueue._wire.parcels import Parcel
from mpqueue._wire.pickling import payload
from mpqueue._wire.pickling.payload import (
    Packed,
    copy_parts,
    dump,
    dump_code,
    dump_each,
    lend_parts,
    load,
    load_several,
    put_apart,
    without_segment,
)
from tests.support.this_system import IS_LINUX

BIG = 200_000


class FullStore(SegmentStore):
    """There is no room for a segment."""

    def lend(self, buffers: Sequence[Any]) -> Any:
        raise OSError(errno.ENOSPC, "no room")


def arrays() -> list[np.ndarray[Any, Any]]:
    return [np.arange(BIG), np.arange(3), np.full(BIG, 7)]


@pytest.fixture
def warned(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What is said once."""
    said: list[str] = []
    monkeypatch.setattr(payload, "_warn_once", said.append)
    return said


def test_what_is_big_of_several_is_in_one_segment() -> None:
    store = SegmentStore()
    packed = dump_each(arrays(), store)
    first, small, last = packed
    assert first.segment == last.segment
    assert first.segment is not None
    assert small.segment is None
    assert first.size < 10 * BIG
    assert first.extent[1] <= last.extent[0]
    for met, value in zip(map(load, packed), arrays(), strict=True):
        assert np.array_equal(met, value)
    freed: list[int] = []
    assert np.array_equal(load_several([last, without_segment(first)], freed.append)[1], arrays()[0])
    gc.collect()
    assert set(freed) == {last.segment.serial} if last.segment else False
    assert [one.segment for one in dump_each(["a", 5], store)] == [None, None]
    assert [load(one) for one in dump_each(["a", 5])] == ["a", 5]


def test_where_there_is_no_room_all_of_it_is_in_the_pickle_and_said_to_be(warned: list[str]) -> None:
    for packed in (*dump_each(arrays(), FullStore()), dump(arrays(), FullStore())):
        assert packed.segment is None
    assert np.array_equal(load(dump(arrays(), FullStore()))[2], arrays()[2])
    assert put_apart(FullStore(), b"data") is None
    assert warned == ["big data goes through pipes, which is slower: [Errno 28] no room"] * 4


def test_what_is_lent_without_room_is_one_pickle(monkeypatch: pytest.MonkeyPatch, warned: list[str]) -> None:
    store = SegmentStore()
    data, buffers = copy_parts(dump(arrays(), store))
    packed, segment = lend_parts(data, buffers)
    assert segment is not None
    assert packed.size < 10 * BIG * 2
    assert np.array_equal(load(packed)[2], arrays()[2])

    def refuse(*_: object) -> None:
        raise OSError(errno.EMFILE, "no more")

    monkeypatch.setattr(payload, "CommonSegment", refuse)
    packed, segment = lend_parts(data, buffers)
    assert segment is None
    assert len(warned) == 1
    assert np.array_equal(load(packed)[0], arrays()[0])


@pytest.mark.parametrize("kind", [bytes, bytearray])
def test_a_segment_that_was_carried_here_is_read_where_it_is(kind: Any) -> None:
    store = SegmentStore()
    packed = dump(arrays(), store)
    assert packed.segment is not None
    content = memoryview(kind(store.contents(packed.segment)))
    freed: list[int] = []
    met = load(packed, freed.append, {packed.segment.serial: content})
    assert freed == [packed.segment.serial]
    met[0][0] = 5  # an item is its handler's to change
    assert [each.tolist()[:2] for each in met] == [[5, 1], [0, 1], [7, 7]]


def test_bytes_may_be_apart_with_what_belongs_to_them() -> None:
    store = SegmentStore()
    data, buffers = copy_parts(dump(arrays(), store))
    packed = put_apart(store, data, [memoryview(buffer) for buffer in buffers])
    assert packed is not None
    assert packed.data == b""
    assert packed.size == len(data) + sum(map(len, buffers))
    assert copy_parts(packed) == (data, buffers)
    assert np.array_equal(load(packed)[2], arrays()[2])


def test_a_function_that_goes_by_value_has_its_names_and_its_file() -> None:
    def made(item: str, other: str = "<dynamic-code>") -> str:
        return item + other

    met = load(dump_code(made)[0])
    assert isinstance(met, FunctionType)
    assert met is not made
    mine, others = made.__code__, met.__code__
    for name in ("co_filename", "co_name", "co_qualname", "co_varnames", "co_firstlineno", "co_consts", "co_code"):
        assert getattr(others, name) == getattr(mine, name)
    assert met("x") == "x<dynamic-code>"


def test_a_function_of_a_script_that_was_spawned_goes_by_value(monkeypatch: pytest.MonkeyPatch) -> None:
    spawned = ModuleType("__mp_main__")
    exec("def work(item): return 2 * item", vars(spawned))
    with monkeypatch.context() as patched:
        patched.setitem(sys.modules, "__mp_main__", spawned)
        packed, _ = dump_code(vars(spawned)["work"])
        cloudpickle.unregister_pickle_by_value(spawned)
    assert load(packed)(3) == 6


@pytest.mark.skipif(not IS_LINUX, reason="segments have no names elsewhere")
def test_a_held_segment_is_there_for_others_until_nobody_holds_it(monkeypatch: pytest.MonkeyPatch) -> None:
    store = SegmentStore()
    packed = dump(arrays()[0], store)
    assert packed.segment is not None
    freed: list[int] = []
    before = len(segments._held)
    held = HeldSegment(packed.segment, freed.append)
    assert len(segments._held) == before + 1
    again = packed._replace(segment=held.ref)
    store.give_up([packed.segment.serial])
    assert np.array_equal(load(again), arrays()[0])
    parcel = Parcel(again, held)
    assert parcel.size == packed.size
    assert np.array_equal(parcel.load(), arrays()[0])
    assert held.ref.serial in segments._descriptors
    monkeypatch.setattr(segments, "MAX_HELD", before + 1)
    assert not segments.may_hold_more()
    monkeypatch.setattr(segments, "MAX_HELD", before + 2)
    assert segments.may_hold_more()
    serial = held.ref.serial
    del held, parcel
    gc.collect()
    assert freed == [packed.segment.serial]
    assert serial not in segments._descriptors
    assert len(segments._held) == before


def test_a_plain_parcel_is_as_large_as_its_bytes() -> None:
    parcel = Parcel(dump([1, 2]).data)
    assert parcel.load() == [1, 2]
    assert parcel.size == len(dump([1, 2]).data)
    assert repr(parcel) == f"<a value of {parcel.size} bytes, pickled>"
    assert Parcel(Packed(dump(3).data)).load() == 3


def test_an_anchor_tells_whether_segments_can_be_opened(monkeypatch: pytest.MonkeyPatch) -> None:
    anchor = make_anchor()
    assert anchor is not None
    assert can_be_opened(anchor.ref) == anchor.ref.has_path
    assert not can_be_opened(anchor.ref._replace(path="7"))
    assert not can_be_opened(anchor.ref._replace(inode=anchor.ref.inode + 1))

    def refuse(*_: object) -> None:
        raise OSError(errno.EMFILE, "no more")

    monkeypatch.setattr(segments, "CommonSegment", refuse)
    assert make_anchor() is None


def test_a_store_lets_go_of_the_oldest_that_were_mapped(monkeypatch: pytest.MonkeyPatch) -> None:
    store = SegmentStore()
    monkeypatch.setattr(segments, "KEEP_LENT", 1)
    serials = [store.lend([memoryview(b"x")])[0].serial for _ in range(3)]
    store.give_up_oldest(lambda serial: serial != serials[0])
    assert [*store._lent] == serials, "it is not known to be mapped"
    store.give_up_oldest(lambda _: True)
    assert [*store._lent] == serials[2:]
