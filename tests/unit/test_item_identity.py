"""What items are, for a journal: their identities, and which of them are recorded."""

from __future__ import annotations

import datetime as dt
import os
import pickle
import random
import subprocess
import sys
import threading
import uuid
from collections import Counter, OrderedDict, deque
from collections.abc import Iterator
from dataclasses import dataclass, field
from decimal import Decimal
from enum import Enum
from functools import partial
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any, NamedTuple
from unittest import mock

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mpqueue._parent.journal import identity, matching
from mpqueue._parent.journal.identity import NoIdentityError, What, digest, digests, encode, encode_plain
from mpqueue._parent.journal.kept_results import HAS_FAILED, NO_ROW, Outcomes
from mpqueue._parent.journal.kept_values import no_file
from mpqueue._parent.journal.lots import Lot
from mpqueue._parent.journal.matching import Known, KnownStream, match
from mpqueue.status import COMPLETED, FAILED, PENDING
from tests.support.length import long
from tests.support.needed import needs
from tests.unit.small_blocks import small_blocks


class Colour(Enum):
    RED = 1
    BLUE = 2


class Point(NamedTuple):
    x: int
    y: int


@dataclass
class Photo:
    path: str
    tags: set[str] = field(default_factory=set)
    more: dict[str, Any] = field(default_factory=dict)


class Tags(dict[str, int]):
    """A dictionary of a class of its own."""


class Names(set[str]):
    """A set of a class of its own."""


class Slotted:
    __slots__ = ("a",)

    def __init__(self, a: Any) -> None:
        self.a = a


NAIVE = dt.datetime(2020, 1, 1)  # noqa: DTZ001 - one of the values

#: Values of which no two are the same.
DIFFERENT: list[Any] = [
    None, False, True, 0, 1, -1, 255, "255", 10**5000, 0.0, -0.0, 1.0, float("nan"), 1j, "", "a", "1", "\udcff", "None",
    b"", b"a", bytearray(b"a"), (), [], {}, set(), frozenset(), (1,), [1], {1}, frozenset({1}), {1: 1}, (1, 2), (12,),
    ((1,), 2), (1, (2,)), [[], [[]]], {"a": 1, "b": 2}, {"a": 2, "b": 1}, set("abc"), Path("a"), PurePosixPath("a"),
    Path("b"), range(3), range(0, 4, 2), slice(3), slice(1, 3), ..., Decimal("1.0"), Decimal("1.00"), uuid.UUID(int=1),
    dt.date(2020, 1, 1), NAIVE, dt.datetime(2020, 1, 1, tzinfo=dt.UTC), dt.time(1), dt.timedelta(1),
    NAIVE.replace(fold=1), Colour.RED, Colour.BLUE, Point(1, 2), Photo("a"), Photo("a", {"x", "y"}),
    Photo("a", more={"k": [1]}), Slotted(1), Slotted("1"), np.int64(1), np.int32(1), np.float64(1), np.array([1, 2]),
    np.array([[1, 2]]), np.array([1, 2], "i2"), np.array([1.0, 2.0]), np.array(["a", None], object), np.zeros(9999),
    np.ones(9999), np.dtype("f4"), np.array([(1, 2.0)], [("a", "i4"), ("b", "f8")]), Photo, len, os.path.join,
    PureWindowsPath("a"), PureWindowsPath("b"), {Point(1, 2): Photo("a")}, [Photo("a"), Photo("a")],
    [Photo("a"), Photo("b")], [1].append, [2].append, dict.fromkeys, np.dtype(object), np.dtype([("a", object)]),
    np.random.PCG64(1), np.random.PCG64(2),
]  # fmt: skip


def test_numbers_that_have_names_are_told_apart_by_them() -> None:
    kinds = [np.dtype([(name, "i4"), ("b", "i4")]) for name in "ac"]
    for values in (kinds, [np.zeros((), kind)[()] for kind in kinds], [np.zeros(3, kind) for kind in kinds]):
        assert len(set(map(digest, values))) == 2


def test_an_item_without_a_stable_form_keeps_no_other_from_having_its_state() -> None:
    three = identity.identify([1, threading.Lock(), 2], [*"abc"], range(3))
    assert three == (digests([*"abc"]), digest(1) + identity.UNKNOWN + digest(2))
    assert identity.identify([1, 2], [*"ab"], range(2)) == (digests([*"ab"]), digest(1) + digest(2))


def test_no_two_values_have_the_same_form() -> None:
    forms = [encode(value) for value in DIFFERENT]
    twice = [form for form, count in Counter(forms).items() if count > 1]
    assert twice == []
    assert len(set(map(digest, DIFFERENT))) == len(DIFFERENT)


def test_equal_values_have_the_same_form_however_they_were_made() -> None:
    one = Photo("a", {"x", "y", "z"}, {"a": 1, "b": "long text"})
    other = Photo("".join("a"), {"z", "y", "x"}, {"b": "long " + "text", "a": 1})
    assert encode(one) == encode(other)
    assert encode([one, one]) == encode([one, other])
    for size in (6, 6000):
        turned = np.arange(size).reshape(2, -1).T
        assert encode(turned) == encode(turned.copy()) != encode(turned + 1)
    text = np.array(["a" * 5000, "b"])
    assert encode(text) == encode(text[::-1][::-1])


@pytest.mark.parametrize(
    "values", [["a", "\xe4", "\ud800", "a" * 9999], ["s", ""], [0, -1, 1 << 99], [0, True], ["1", 1], [Colour.RED], []]
)
def test_values_that_come_together_have_the_digests_of_each(values: list[Any]) -> None:
    assert digests(values) == b"".join(map(digest, values))


def test_what_is_plain_and_in_few_containers_has_its_form_in_one_go(monkeypatch: pytest.MonkeyPatch) -> None:
    values = [(), [1, "a"], {"b": [1, (2,)], "a": {1: None}}]
    forms = [identity._plain(value, type(value), ()) for value in values]
    assert forms == [*map(encode, values)]
    monkeypatch.setattr(identity, "_plain", lambda *_: None)
    assert forms == [*map(encode, values)], "the other way gives the same"
    assert [*map(encode_plain, [*values, Photo("a"), [Restless()]])] == [*forms, None, None], "it runs no users' code"


@pytest.mark.slow
@pytest.mark.parametrize("seed", ["1", long("2")])
def test_a_value_has_the_same_form_in_every_process(seed: str) -> None:
    code = "from tests.unit.test_item_identity import *; print(digests(DIFFERENT).hex())"
    environment = {**os.environ, "PYTHONHASHSEED": seed}
    told = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    assert told.stdout.strip() == digests(DIFFERENT).hex()


class Restless:
    """Says something else each time."""

    count = 0

    def __reduce__(self) -> Any:
        Restless.count += 1
        return (Slotted, (Restless.count,))


class Knot:
    """Something that others lead to, and that leads to others."""

    def __init__(self, others: Any = ()) -> None:
        self.others = others


def ring(size: int) -> Knot:
    first = last = Knot()
    for _ in range(size - 1):
        last.others = Knot()
        last = last.others
    last.others = first
    return first


def net(size: int) -> list[Knot]:
    """Each leads to each."""
    knots = [Knot() for _ in range(size)]
    for knot in knots:
        knot.others = knots
    return knots


def net_in_a_set() -> Knot:
    knot = Knot()
    knot.others = {1, knot}
    return knot


def nested(value: object, depth: int) -> object:
    for _ in range(depth):
        value = [value]
    return value


def test_what_leads_back_to_itself_has_the_form_of_what_is_like_it() -> None:
    made = (partial(ring, 1), partial(ring, 2), partial(ring, 4), partial(net, 2), partial(net, 30))
    values = [make() for make in made]
    assert len({*map(digest, values)}) == len(values)
    assert [digest(make()) for make in made] == [*map(digest, values)]
    assert [digest(pickle.loads(pickle.dumps(value))) for value in values] == [*map(digest, values)]
    one, other = ring(2), ring(2)
    assert digest([one, one]) == digest([one, other])
    assert digest({"a": one, "b": other}) == digest({"b": one, "a": other})
    assert digest([one, one.others, [one.others]]) == digest([other, other.others, [other.others]])
    assert digest([one, one.others]) != digest([one, one])
    assert digest({one, one.others}) == digest({other, ring(2)})
    assert digest({(one, one.others), one.others}) == digest({other, (other.others, other)})
    assert digest({1, 2, frozenset([(one.others,)])}) == digest({2, 1, frozenset([(ring(2),)])})


def test_an_object_in_many_places_is_written_once() -> None:
    one, other = Knot(), Knot()
    for _ in range(60):
        one, other = Knot((one, one)), Knot((other, other))
    assert digest(one) == digest(other) != digest(one.others)


@pytest.mark.parametrize("depth", [150, 199, 200, 201, 202, 399, 400, 401, 402, 3000])
def test_depth_does_not_matter(depth: int) -> None:
    assert digest(nested(1, depth)) == digest(nested(1, depth)) != digest(nested(2, depth))
    assert digest(nested(1, depth)) != digest(nested(1, depth + 1))
    assert digest(nested(Photo("a"), depth)) != digest(nested(Photo("b"), depth))


@pytest.mark.skipif(os.name != "posix", reason="paths of Windows are others")
def test_older_journals_know_what_they_know() -> None:
    values = ["a", 1, 1.5, None, b"b", ("a", [2, {"k": Path("p")}]), {"x": {1, 2}, "y": (3,)}, Photo("a", {"t"})]
    values += [Point(1, 2), NAIVE.replace(tzinfo=dt.UTC), Colour.RED, Decimal(1), np.arange(3, dtype="<i8")]
    values += [{(1, 2): [Photo("b")] * 2}]
    assert digest([*map(digest, values)]).hex() == "38d1181db4dfa0d9b35d0b5d40dc5baa"
    values = [True, False, 1 - 2j, ..., bytearray(b"a"), uuid.UUID(int=7), dt.timedelta(1, 2, 3), range(1, 9, 2), Photo]
    values += [
        dt.date(2020, 1, 2),
        dt.time(1, tzinfo=dt.UTC),
        NAIVE.replace(fold=1),
        frozenset({2, 1}),
        len,
        Slotted(1),
    ]
    values += [deque([1, "a"]), OrderedDict(b=1, a=2), Tags({"b": 1, "a": 2}), Names("ba"), PurePosixPath("a")]
    values += [ring(1), ring(3), net(3), [ring(2)] * 2, {1: net(2)[0]}, nested(1, 199), nested(1, 450)]
    values += [nested(Photo("a"), 250), {"a": nested({1: 2}, 30)}, [[[]]] * 2]
    named = np.dtype([("a", "<i4"), ("b", "<f8")])
    values += [named, np.dtype("<f4"), np.zeros(2, named), np.zeros((), named)[()], np.float32(2.5)]
    values += [np.array(["a", None], object), np.array([(1, None)], [("a", "<i4"), ("b", object)]), np.array("a")]
    values += [np.ma.array([1, 2], "<i4", mask=[False, True]), np.arange(2000, dtype="<i4").reshape(2, -1)]
    values += [np.arange(2000, dtype="<i4").reshape(2, -1).T, np.arange(1024, dtype="<i4"), np.arange(6, dtype="<i2").T]
    assert digest([*map(digest, values)]).hex() == "7da8cd3cfacbd162dd3d59bae2eff642"


@pytest.mark.parametrize(
    ("value", "why"),
    [
        (lambda: None, "not found under that name"),
        (threading.Lock(), "cannot pickle"),
        (Restless(), "differently each time"),
        (net_in_a_set(), "its others: it is a set of what leads back to it"),
        (Photo("a", more={"k": [threading.Lock()]}), r"its more\['k'\]\[0\]: TypeError: cannot pickle"),
        (partial(id, threading.Lock()), "^TypeError: cannot pickle"),
        (type("Local", (), {})(), "not found under that name"),
        ([{"a": (each for each in list[int]())}], "cannot pickle"),
    ],
)
def test_what_has_no_stable_form_is_refused(value: Any, why: str) -> None:
    with pytest.raises(NoIdentityError, match=why):
        encode(value)


# -- matching ----------------------------------------------------------------------------------------------------------


def blocks(values: list[tuple[int, int]], size: int) -> Iterator[What]:
    for lo in range(0, len(values), size):
        part = values[lo : lo + size]
        states = b"".join(digests([key]) if key < 2 else identity.UNKNOWN for _, key in part)
        yield digests([value for value, _ in part]), states


#: What an item is, and its state: 2 stands for one that is not known.
LISTS = st.lists(st.tuples(st.integers(0, 12), st.integers(0, 2)), max_size=30)


@given(LISTS, LISTS, st.integers(1, 5), st.integers(1, 5))
def test_items_are_matched_with_their_like_and_with_nothing_else(
    recorded: list[tuple[int, int]], today: list[tuple[int, int]], one: int, other: int
) -> None:
    with small_blocks():
        found = match(blocks(today, one), blocks(recorded, other), range(100, 100 + len(recorded)))
    matched = {index: slot - 100 for index, slot in enumerate(found.slots) if slot != matching.NO_SLOT}
    assert all(today[index][0] == recorded[slot][0] for index, slot in matched.items())
    assert len(set(matched.values())) == len(matched)
    before, now = Counter(value for value, _ in recorded), Counter(value for value, _ in today)
    assert len(matched) == (before & now).total()
    assert list(found.new) == [index for index in range(len(today)) if index not in matched]
    assert [slot - 100 for slot in found.gone] == sorted(set(range(len(recorded))) - set(matched.values()))
    states = {index: (today[index][1], recorded[slot][1]) for index, slot in matched.items()}
    assert list(found.unknown) == [index for index, both in states.items() if 2 in both]
    assert list(found.changed) == [index for index, both in states.items() if 2 in both or both[0] != both[1]]


@given(
    st.lists(st.tuples(st.lists(st.integers(0, 5), max_size=12), st.booleans()), max_size=4),
    st.lists(st.integers(0, 6), max_size=40),
    st.integers(0, 20),
)
def test_of_equal_known_items_the_first_that_is_left_is_found_and_each_once(
    lots: list[tuple[list[int], bool]], today: list[int], place: int
) -> None:
    known, recorded, states, left = matching.KnownItems(), list[int](), list[bytes](), list[bool]()
    for values, are_states in lots:
        known.add(digests(values), digests([-value for value in values]) if are_states else None)
        recorded += values
        states += [digest(-value if are_states else value) for value in values]
    left = [True] * len(recorded)
    if recorded:
        known.set_state(place % len(recorded), states[0])
        states[place % len(recorded)] = states[0]
    assert known.states_at(0, len(states)) == b"".join(states)
    nth = 0
    while nth < len(today):
        assert known.any_left == any(left)
        next_left = left.index(True) if any(left) else -1
        found = known.take(digests(today), nth)
        for at, value in zip(found, today[nth:], strict=False):
            assert at == next(at for at, other in enumerate(recorded) if other == value and left[at])
            left[at] = False
        assert found or not any(other == today[nth] and left[at] for at, other in enumerate(recorded))
        nth += max(1, len(found))
        if found and found.start == next_left and any(left[found.stop :][:1]):
            assert today[nth : nth + 1] != recorded[found.stop :][:1], "what follows is found at once"
    assert list(known.left) == left


IS_X87 = np.finfo("g").nmant == 63 and np.dtype("g").itemsize == 16
TWO_PARTS = np.dtype([("c", "g"), ("d", "i2")])
NESTED: Any = {"names": ["a", "b"], "formats": ["u1", (TWO_PARTS, 2)], "offsets": [0, 4], "itemsize": 44}
#: Types of numbers, and which bytes of an element belong to none.
UNUSED = [
    (np.dtype("<g"), [*range(10, 16)]),
    (np.dtype("<G"), [*range(10, 16), *range(26, 32)]),
    (np.dtype(">g"), [*range(6)]),
    (np.dtype(">G"), [*range(6), *range(16, 22)]),
    (np.dtype(NESTED), [1, 2, 3, *range(14, 20), *range(32, 38), *range(40, 44)]),
    (np.dtype([("a", "u1"), ("b", "f8")], align=True), [*range(1, 8)]),
    (np.dtype({"names": ["a", "b"], "formats": ["i4", "i2"], "offsets": [2, 6], "itemsize": 9}), [0, 1, 8]),
]


@pytest.mark.parametrize("count", [0, 3, 2000])
@pytest.mark.parametrize(("dtype", "unused"), UNUSED if IS_X87 else UNUSED[5:])
def test_bytes_that_belong_to_no_number_make_no_difference(dtype: Any, unused: list[int], count: int) -> None:
    clean = np.zeros(count, dtype)
    first = clean if dtype.names is None else clean["a"]
    first[...] = np.arange(count) % 200
    filled = clean.copy()
    for array, byte in ((clean, 0), (filled, 255)):
        array.view("u1").reshape(count, dtype.itemsize)[:, unused] = byte
    assert digest(filled) == digest(clean)
    assert digest(filled[::-1]) == digest(clean[::-1].copy())
    assert [*map(digest, filled[:3])] == [*map(digest, clean[:3])]
    with mock.patch.object(identity, "_cleared", lambda value: value):
        as_before = digest(clean)
    assert digest(filled) == as_before, "older journals know arrays whose unused bytes were 0"
    assert len({*map(digest, filled[:3])}) == min(count, 3)


@pytest.mark.slow
def test_a_tensor_is_its_numbers_wherever_they_are() -> None:
    needs("torch")
    import torch

    for dtype in (torch.float32, torch.bfloat16, torch.bool, torch.complex64, torch.int64):
        base = (torch.arange(24) % 5).to(dtype).reshape(4, 6)
        same = [base, base.clone(), base.T.contiguous().T, torch.cat([base, base])[:4]]
        assert len({digest(value) for value in same}) == 1
        others = [base.T, base[1:], base.reshape(24), base.to(torch.complex128), torch.zeros_like(base)]
        assert len({digest(value) for value in [base, *others]}) == 6
    assert digest(torch.tensor(1.0)) != digest(torch.tensor(2.0))
    assert digest(torch.zeros(0, 3)) != digest(torch.zeros(3, 0))
    parameter = torch.nn.Parameter(torch.ones(3))
    assert digest(parameter) == digest(torch.nn.Parameter(torch.ones(3)))


@pytest.mark.parametrize("number", range(50))
def test_a_stream_knows_its_items_by_what_they_are_and_equal_ones_by_their_order(number: int) -> None:
    chance = random.Random(number)
    lots, places, end = list[Lot](), dict[int, tuple[int, int]](), 0
    items: dict[int, tuple[int, int, int]] = {}  #: by first slot: what it is, its state, its slot
    for _ in range(chance.randrange(5)):
        first = end + chance.choice([0, 0, 2])  # of a lot that could not be written
        end, replaced = first + chance.randrange(1, 5), chance.sample([*items], chance.randrange(len(items) + 1))
        replaces = [(at, was) for at, was in enumerate(replaced) if at < end - first]
        firsts = [*replaced, *range(first + len(replaced), end)][: end - first]
        for slot, was in enumerate(firsts, first):
            items[was] = items[was][0] if was < first else chance.randrange(4), chance.randrange(4), slot
            places[slot] = len(lots), slot - first
        identities, states = digests([items[was][0] for was in firsts]), digests([-items[was][1] for was in firsts])
        lots.append(Lot(first, len(firsts), identities, states, replaces=tuple(replaces)))
    for gone in chance.sample([*items], len(items) // 4):
        for slot in {gone, items.pop(gone)[2]}:
            lot, at = places[slot]
            lots[lot] = lots[lot].without([at])
    outcomes = Outcomes(no_file, "run.db", end)
    rows = [chance.choice([NO_ROW, slot + 1, (slot + 1) | HAS_FAILED]) for slot in range(end)]
    outcomes.row[:] = type(outcomes.row)("I", rows)
    known = KnownStream(lots, outcomes)
    for _ in range(6):
        today = [(chance.randrange(5), chance.randrange(4)) for _ in range(chance.randrange(6))]
        found = known.take(digests([value for value, _ in today]), digests([-state for _, state in today]))
        for (value, state), one in zip(today, found, strict=True):
            equal = sorted(first for first, item in items.items() if item[0] == value)
            if not equal:
                assert one is None
                continue
            _, before, slot = items.pop(equal[0])
            row = rows[slot]
            status = PENDING if row == NO_ROW else FAILED if row & HAS_FAILED else COMPLETED
            assert one == Known(slot, status, row if status == COMPLETED else NO_ROW, equal[0], state != before)
        assert known.any_left == bool(items)
