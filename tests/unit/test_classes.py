"""Classes that come by value: which class is used, and what code making it runs."""

from __future__ import annotations

import enum
from typing import Any, ClassVar

import pytest

from mpqueue._wire.memory.segments import SegmentStore
from mpqueue._wire.pickling.classes import _unfilled
from mpqueue._wire.pickling.payload import Packed, dump, load, load_home, load_several, without_segment


def several(packed: Packed) -> Any:
    """As items come that were pickled one by one."""
    return load_several([packed])[0]


def several_bare(packed: Packed) -> Any:
    """The same without anything beside it."""
    return load_several([without_segment(packed)])[0]


def passed_on(packed: Packed) -> Any:
    """As a result comes home that went through several pairs of hands."""
    return load_home(Packed(without_segment(packed), by_value=True))


WAYS = (load, load_home, several, several_bare, passed_on)


class Plugin:
    """By name, as a library would have it."""

    registry: ClassVar[dict[str, type]] = {}

    def __init_subclass__(cls) -> None:
        Plugin.registry[cls.__name__] = cls


class Counting(type):
    """A metaclass with side effects."""

    made: ClassVar[list[str]] = []

    def __init__(cls, name: str, *arguments: Any) -> None:
        super().__init__(name, *arguments)
        Counting.made.append(name)


@pytest.mark.parametrize("way", WAYS)
def test_a_class_that_is_here_is_not_made_again(way: Any) -> None:
    class Base:
        registry: ClassVar[dict[str, type]] = {}

        def __init_subclass__(cls) -> None:
            cls.registry[cls.__name__] = cls

    class Sub(Base):
        big = bytes(1 << 20)

    class Known(Plugin):
        pass

    class Counted(metaclass=Counting):
        pass

    class Color(enum.Enum):
        RED = 1

    registry = Base.registry
    Counting.made.clear()
    store = SegmentStore()
    value = [Sub(), Known(), Counted(), Color.RED]
    for _ in range(2):
        again = way(dump(value, store))
        assert [type(one) for one in again] == [Sub, Known, Counted, Color]
        assert again[-1] is Color.RED
        assert Base.registry["Sub"] is Sub
        assert registry["Sub"] is Sub
        assert Plugin.registry["Known"] is Known
        assert Base.__subclasses__() == [Sub]
    assert Counting.made == []


def test_a_class_stays_as_it_is_where_it_comes_home_and_is_updated_in_a_worker() -> None:
    class Kind:
        number = 1

    packed = dump(Kind())
    Kind.number = 2
    for way in (load_home, passed_on):
        assert way(packed).number == 2
    # A worker's copy knows more: a handler has set an attribute.
    Kind.more = 3  # type: ignore[attr-defined]
    packed = dump(Kind())
    del Kind.more  # type: ignore[attr-defined]
    Kind.number = 4
    assert load_home(packed).number == 4
    assert not hasattr(Kind, "more")
    assert load(packed).number == 2


def test_a_class_whose_filling_failed_is_filled_when_it_comes_again() -> None:
    class Kind:
        number = 1

    packed = dump(Kind())
    _unfilled.add(Kind)  # as after an error between the two steps
    Kind.number = 2
    assert load_home(packed).number == 1
    Kind.number = 2
    assert load_home(packed).number == 2
