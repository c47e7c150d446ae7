"""Shared objects on their way to workers that share no memory with this process."""

from __future__ import annotations

import inspect
import pickle
import threading
from functools import partial
from typing import Any

import numpy as np
import pytest

from mpqueue import Shared, share
from mpqueue._wire.memory import shared
from mpqueue._wire.memory.segments import SegmentStore
from mpqueue._wire.pickling import beside, payload
from mpqueue._wire.pickling.beside import within
from mpqueue._wire.pickling.classes import CallsScope, Scope, in_scope, leave
from mpqueue._wire.pickling.packed_handler import HandlerTransport, pack_handler
from mpqueue._wire.pickling.payload import dump, dump_code, load
from mpqueue.errors import ItemPicklingError
from tests.support.handlers import ReprlessError
from tests.unit.test_classes import as_in_another_process


def as_a_worker_that_knows_nothing(call: Any) -> Any:
    """Call it where nothing that is shared is known."""
    known = dict(shared._known)
    shared._known.clear()
    try:
        return call()
    finally:
        shared._known.clear()
        shared._known.update(known)


def meet_elsewhere(packed: Any) -> Any:
    """What a process makes of it, and of what is in there, that has not met any shared object."""

    def meet() -> Any:
        met = load(packed)
        _ = getattr(met, "value", None)
        return met

    return as_a_worker_that_knows_nothing(meet)


def test_it_goes_whole_and_is_the_worker_s_own_to_change() -> None:
    table = share(np.arange(100_000))
    (met,) = meet_elsewhere(dump([table], None))
    assert met is not table
    assert met._packed.segment is None, "a path to this machine's memory means something else on another"
    met.value[0] = 7
    assert table.value[0] == 0


def test_one_in_another_goes_whole_too() -> None:
    inner = share(np.arange(50_000))
    outer = share({"inner": inner, "big": np.ones(50_000)})
    met = meet_elsewhere(dump(outer, None))
    assert met.value["inner"]._packed.segment is None
    assert met.value["inner"][49_999] == 49_999


def test_a_handler_brings_it_along_as_it_was_when_it_was_shared() -> None:
    numbers = list(range(100_000))
    table = share(numbers)
    numbers[3] = 0
    packed = pack_handler("job", lambda item: table.value[item], None, "position", transport=HandlerTransport.WHOLE)
    assert packed.segments == ()
    assert meet_elsewhere(packed.frame.handler)(3) == 3


def test_where_memory_is_shared_only_its_name_goes() -> None:
    table = share(np.arange(100_000))
    assert dump(table, SegmentStore()).size < 1_000
    assert dump_code(table)[0].size < 1_000


def test_what_is_known_already_is_not_made_again() -> None:
    table = share([1, 2, 3])
    assert load(dump(table, None)) is table
    assert isinstance(table, Shared)


@pytest.fixture(autouse=True)
def _nothing_stays() -> Any:
    yield
    shared._kept.clear()


def test_where_an_engine_brings_it_a_handler_has_its_name_and_tells_what_to_bring() -> None:
    inner = share(np.arange(50_000))
    outer = share({"inner": inner, "big": np.ones(50_000)})
    packed = pack_handler(
        "job", lambda _: outer["inner"][49_999], None, "position", transport=HandlerTransport.SHARED_APART
    )
    assert packed.frame.handler.size < 10_000
    assert [*map(id, packed.shared)] == [id(inner), id(outer)]
    lent = [shared.lend(shared.parts_of(one)) for one in packed.shared]

    def call_there() -> tuple[Any, Any]:
        kept = [shared.take_in(one) for one, _ in lent]
        home = load(dump(kept[1], None))
        return load(packed.frame.handler)(0), home is kept[1]

    assert as_a_worker_that_knows_nothing(call_there) == (49_999, True)


def test_in_a_result_goes_what_this_process_has_shared_itself() -> None:
    store = SegmentStore()
    table, inner = share(np.arange(100_000)), share(np.arange(50_000))
    outer = share({"inner": inner, "big": np.ones(50_000)})
    packed = within(partial(dump, [table, outer, table], store), (beside.leaving, True))
    del table, inner, outer
    first, second, third = load(packed)
    assert third is first
    assert first[99_999] == 99_999
    assert second["inner"][49_999] == 49_999
    # Whoever has it now shares it, or sends it once more.
    assert dump_code(first)[0].size < 1_000
    assert load(dump_code(first)[0]) is first
    assert meet_elsewhere(dump(second, None)).value["inner"][49_999] == 49_999
    again = within(lambda: dump([second, first], store), (beside.leaving, True))
    assert load(again)[1][7] == 7


def test_in_a_result_what_others_have_shared_goes_by_name() -> None:
    table = share(np.arange(100_000))
    there = Shared[Any](("another process", 1), table._packed)
    assert within(lambda: dump(there, SegmentStore()), (beside.leaving, True)).size < 1_000
    assert load(dump(there, SegmentStore())) is there


def test_what_is_not_sent_yet_is_kept_as_the_object_itself() -> None:
    later = shared._share_later([1, 2, 3])
    data, _ = within(lambda: payload.dump_by_reference(later), (beside.whole, True))
    assert b"_share_later" in data
    assert (pickle.loads(data).value, repr(later)) == ([1, 2, 3], "<Shared: [1, 2, 3]>")
    unpicklable = shared._share_later(threading.Lock())
    with pytest.raises(ItemPicklingError, match="share: expected an object that can be pickled, got <unlocked"):
        dump_code(unpicklable)


def test_what_pickles_name_stays() -> None:
    """Journals keep pickles for years."""
    assert shared.__name__ == "mpqueue._wire.memory.shared"
    assert [*inspect.signature(shared._meet).parameters] == ["token", "packed"]
    assert [*inspect.signature(shared._share_later).parameters] == ["obj"]


def test_it_is_shown_also_where_the_object_can_t_be() -> None:
    assert "<ReprlessError: its repr() raised RuntimeError>" in repr(share(ReprlessError()))


def test_it_stands_in_for_the_object() -> None:
    table = share([3, 1, 2])
    assert (len(table), [*table], table[1], 3 in table, 5 in table) == (3, [3, 1, 2], 1, True, False)
    assert bool(table)
    assert not share([])
    assert table.index(2) == 2
    assert share(max)(4, 7) == 7
    assert np.asarray(share(np.arange(3)), dtype=float).tolist() == [0.0, 1.0, 2.0]
    with pytest.raises(AttributeError):
        _ = table.missing


def test_a_worker_takes_in_what_is_lent_once_and_keeps_it_while_it_is_used() -> None:
    table = share(np.arange(100_000))
    assert shared.size_of(table) == table._packed.size
    lent, segment = shared.lend(shared.parts_of(table))
    assert segment is not None
    assert lent.token == shared.token_of(table)
    for brought in (shared.lend_own(table), lent):
        assert shared.take_in(brought) is table, "this process has it"
        shared._known.pop(table._token)
        try:
            met = shared.take_in(brought)
            assert met is not table
            assert shared.take_in(brought) is met
            name = within(partial(pickle.dumps, met), (beside.whole, True))
            assert len(name) < 1000, "so others have it too, who get its name"
            assert met.value[99_999] == 99_999
        finally:
            shared._known[table._token] = table


def test_what_other_processes_shared_is_kept_until_they_drop_it() -> None:
    table = share([1, 2])
    token = ("another process", 1)
    met = shared._meet(token, table._packed)
    assert shared._meet(token, table._packed) is met
    assert shared._kept[token] is met
    shared.forget([("another process", 2)])
    assert token in shared._kept
    shared.forget([token])
    assert token not in shared._kept
    assert shared._known[token] is met, "as long as something holds it"


def test_each_job_has_what_is_shared_of_its_own_classes() -> None:
    class Point:
        x = 1

    Point.__module__ = "__main__"
    here = share([Point()])
    plain = share([1])
    with in_scope(one := Scope()):
        first = shared._meet(("another process", 3), here._packed)
        assert first.value is first.value
        assert shared._meet(("another process", 3), here._packed).value is first.value
        assert shared._meet(("another process", 4), plain._packed).value == [1]
    with in_scope(other := Scope()):
        second = shared._meet(("another process", 3), here._packed)
        assert second.value is not first.value
    calls = CallsScope()
    call = dump([Point(), Shared[Any](("another process", 3), here._packed)])
    with as_in_another_process(), in_scope(calls):
        (point, met), (_, again) = load(call), load(call)
        assert met.value is again.value, "calls that bring the same class have it in common"
        assert type(met.value[0]) is type(point) is not Point
    shared.forget([("another process", 3), ("another process", 4)])
    for scope in (calls, other, one):
        leave(scope)
