"""Classes that come by value: which class is used, and what code making it runs."""

from __future__ import annotations

import abc
import enum
from dataclasses import dataclass
from typing import Any, ClassVar, Generic, NamedTuple, TypeVar

import pytest
from cloudpickle import cloudpickle

from mpqueue._wire.memory.segments import SegmentStore
from mpqueue._wire.pickling.classes import _known, _unfilled
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


T = TypeVar("T")


def slotted() -> list[Any]:  # noqa: C901 - there is no branch in it
    """Objects of classes with slots of every kind; each has its content in ``x``, and that as ``get()``."""

    class Base:
        __slots__ = ("x",)

        def __init__(self, x: Any = 7) -> None:
            self.x = x

        def get(self) -> Any:
            return self.x

    class Sub(Base):
        __slots__ = ("y",)

    class WithDict(Base):
        def __init__(self) -> None:
            self.more = super().__init__()

    class Nothing(Base):
        __slots__ = ()

    class Text:
        __slots__ = "x"  # noqa: PLC0205 - that is the case
        __init__, get = Base.__init__, Base.get

    class PrivateText:
        __slots__ = "__x"  # noqa: PLC0205 - that is the case

        def __init__(self) -> None:
            self.__x = 7

        def get(self) -> Any:
            return self.__x

    class Private:
        __slots__ = ("__dict__", "__weakref__", "__x")

        def __init__(self) -> None:
            self.__x = self.more = 7

        def get(self) -> Any:
            return self.__x

    class WeakText(Base):
        __slots__ = "__weakref__"  # noqa: PLC0205 - that is the case

    class Documented:
        __slots__ = {"x": "what is in it"}
        __init__, get = Base.__init__, Base.get

    class Abstract(abc.ABC):
        __slots__ = ("x",)

        @abc.abstractmethod
        def get(self) -> Any: ...

    class Concrete(Abstract):
        __slots__ = ()
        __init__, get = Base.__init__, Base.get

    class Of(Generic[T]):
        __slots__ = ("x",)
        __init__, get = Base.__init__, Base.get

    class Pair(tuple[int, int]):
        __slots__ = ()

        def get(self) -> int:
            return self[0]

    class Named(NamedTuple):
        x: int

        def get(self) -> int:
            return self.x

    @dataclass(slots=True)
    class Data:
        x: int = 7

        def get(self) -> int:
            return self.x

    @dataclass(slots=True, frozen=True, weakref_slot=True)
    class Frozen:
        x: int = 7

        def get(self) -> int:
            return self.x

    kinds: tuple[Any, ...] = (Base, Sub, WithDict, Nothing, Text, PrivateText, Private, WeakText, Documented, Concrete)
    return [*(kind() for kind in (*kinds, Of, Data)), Pair((7, 8)), Named(7), Frozen()]


@pytest.mark.parametrize("one", slotted(), ids=lambda one: type(one).__name__)
def test_a_class_with_slots_has_the_same_elsewhere(one: Any) -> None:
    kind = type(one)
    packed = dump(one)
    here = [(base, cloudpickle._DYNAMIC_CLASS_TRACKER_BY_CLASS.get(base)) for base in kind.__mro__]
    for _, tracker_id in here:
        _known.pop(tracker_id, None)
    there = load(packed)
    assert type(there) is not kind
    assert there.get() == one.get() == 7
    assert hasattr(there, "__dict__") is hasattr(one, "__dict__")
    assert getattr(there, "__dict__", None) == getattr(one, "__dict__", None)
    assert vars(type(there)).get("__slots__") == vars(kind).get("__slots__")
    assert type(there).__dictoffset__ == kind.__dictoffset__
    assert type(there).__weakrefoffset__ == kind.__weakrefoffset__
    back = dump(there)
    for base, tracker_id in here:
        if tracker_id is not None:
            _known[tracker_id] = base
    home = load_home(back)
    assert type(home) is kind
    assert home.get() == 7
