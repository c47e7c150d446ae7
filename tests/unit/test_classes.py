"""Classes that come by value: which class is used, and what code making it runs."""

from __future__ import annotations

import abc
import enum
import functools
import textwrap
import typing
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, ClassVar, Generic, NamedTuple, TypeVar

import pytest
from cloudpickle import cloudpickle

from mpqueue._wire.memory.segments import SegmentStore
from mpqueue._wire.pickling import classes
from mpqueue._wire.pickling.classes import CallsScope, Scope, _ids, _known, _unfilled, in_scope, leave, scope_here
from mpqueue._wire.pickling.payload import Packed, dump, dump_code, load, load_home, load_several, without_segment


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


def test_what_the_program_had_when_a_worker_was_forked_is_no_job_s(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(classes, "_of_program", set())
    monkeypatch.setattr(classes, "_latest", None)
    before, after = (type(name, (), {}) for name in ("Before", "After"))
    monkeypatch.setitem(_known, "before", before)
    classes._note_fork()
    monkeypatch.setitem(_known, "after", after)
    for scope, found in ((None, [before, after]), (Scope(), [None, after])):
        with in_scope(scope):
            assert [*map(classes._find, ("before", "after"))] == found


def test_a_thread_without_a_job_is_in_the_one_that_was_entered_last_until_that_ends() -> None:
    one, other = Scope(), Scope()
    for scope in (one, other):
        with in_scope(scope):
            with in_scope(Scope()):
                pass
            with in_scope(None):
                assert scope_here() is scope
    leave(one)
    assert scope_here() is other
    leave(other)
    assert scope_here() is None


def test_a_class_stays_as_it_is_where_it_comes_home() -> None:
    class Kind:
        number = 1

    packed = dump(Kind())
    Kind.number = 2
    assert [way(packed).number for way in WAYS] == [2] * len(WAYS)
    # A worker's copy knows more: a handler has set an attribute.
    Kind.more = 3  # type: ignore[attr-defined]
    packed = dump(Kind())
    del Kind.more  # type: ignore[attr-defined]
    Kind.number = 4
    assert [way(packed).number for way in WAYS] == [4] * len(WAYS)
    assert not hasattr(Kind, "more")


@pytest.mark.parametrize("way", WAYS)
def test_a_scope_has_classes_of_its_own_which_stay_as_they_came_first(way: Any) -> None:
    class Base:
        number = 1

    class Kind(Base):
        def get(self) -> tuple[int, type]:
            return self.number, Base

    class Color(enum.Enum):
        RED = 1

    def look(one: Any) -> tuple[Any, ...]:
        return isinstance(one, Kind), *one.get(), Kind.number, Color.RED

    one, other = Scope(), Scope()
    function, item = dump_code(look)[0], dump([Kind(), Color.RED])
    Base.number = 2
    changed = dump([Kind(), Color.RED])
    with as_in_another_process():
        with in_scope(one):
            first = load(function)
            [made, red] = way(changed)
            assert first(made) == (True, 1, type(made).__mro__[1], 1, red)
            type(made).number = 5
            assert first(way(item)[0])[1] == 5
            back = dump(made)
        with in_scope(other):
            [again, again_red] = way(item)
            assert (again.get(), again_red.name) == ((1, type(again).__mro__[1]), "RED")
            assert again_red is not red
            assert type(again) is not type(made) is not Kind
    leave(other)
    home = way(back)
    assert (type(home), home.get()) == (Kind, (2, Base))


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


def of_a_script(body: str) -> dict[str, Any]:
    """The globals of a script."""
    names: dict[str, Any] = {"__name__": "__main__"}
    exec(compile(textwrap.dedent(body), "script.py", "exec", dont_inherit=True), names)
    return names


@contextmanager
def as_in_another_process() -> Iterator[None]:
    """Nothing that was sent from here is known."""
    known, ids = dict(_known.items()), dict(_ids.items())
    _known.clear()
    _ids.clear()
    try:
        yield
    finally:
        _known.clear()
        _ids.clear()
        _known.update(known)
        _ids.update(ids)


@pytest.mark.parametrize("way", WAYS)
def test_what_a_script_caches_is_computed_anew_elsewhere(way: Any) -> None:
    names = of_a_script(
        '''
        import functools

        @functools.lru_cache(maxsize=7, typed=True)
        def fib(n: int) -> int:
            """Fibonacci's."""
            return n if n < 2 else fib(n - 1) + fib(n - 2)

        fib.unit = "rabbits"
        fib.itself = fib
        '''
    )
    fib = names["fib"]
    fib(5)
    packed = dump([fib, fib, fib.__wrapped__])
    for scope in (None, Scope()):
        with as_in_another_process(), in_scope(scope):
            one, other, function = way(packed)
            assert one is other is one.itself is function.__globals__["fib"] is not fib
            assert function is one.__wrapped__ is not fib.__wrapped__
            assert one.cache_info() == (0, 0, 7, 0)
            assert (one(20), one.cache_info().misses, one.cache_parameters()) == (6765, 21, fib.cache_parameters())
            assert (one.__name__, one.__doc__, one.__module__, one.unit) == (
                "fib",
                "Fibonacci's.",
                "__main__",
                "rabbits",
            )
            assert one.__wrapped__.__annotations__ == {"n": int, "return": int}
            back = dump(one)
            [again] = way(dump([one]))
            assert (again is one) is (scope is not None), "a job keeps what it has"
        leave(scope)
        assert way(back) is fib
    assert fib.__wrapped__.__globals__ is names
    assert fib.cache_info().misses == 6


@pytest.mark.parametrize("way", WAYS)
def test_cached_methods_and_cached_functions_that_call_each_other(way: Any) -> None:
    names = of_a_script(
        """
        import functools

        @functools.cache
        def even(n):
            return n == 0 or odd(n - 1)

        @functools.cache
        def odd(n):
            return n > 0 and even(n - 1)

        class Shape:
            @functools.cache
            def area(self, n):
                return Shape.square(n)

            @staticmethod
            @functools.cache
            def square(n):
                return n * n
        """
    )
    sent = dump([names["even"], names["odd"], names["Shape"].area, names["Shape"]()])
    with as_in_another_process():
        even, odd, area, shape = way(sent)
        assert (even(10), odd(10)) == (True, False)
        assert even.__wrapped__.__globals__["odd"] is odd
        assert type(shape).area is area is not names["Shape"].area
        assert (shape.area(3), area.cache_info().misses) == (9, 1)


@pytest.mark.parametrize("way", WAYS)
def test_functions_that_dispatch_by_type_go_along(way: Any) -> None:
    names = of_a_script(
        """
        import collections.abc
        import functools

        class Leaf:
            pass

        @functools.singledispatch
        def depth(node):
            return "other"

        @depth.register
        def _(node: Leaf):
            return 1

        @depth.register
        def _(node: collections.abc.Sequence):
            return 1 + max(map(depth, node))

        class Shape:
            @functools.singledispatchmethod
            def area(self, of):
                return of

            @area.register
            def _(self, of: list):
                return sum(map(self.area, of))
        """
    )
    tree = [names["Leaf"](), [names["Leaf"]()]]
    assert names["depth"](tree) == 3  # by now it has looked up three types
    sent = dump([names["depth"], tree, names["Shape"]()])
    with as_in_another_process():
        depth, tree, shape = way(sent)
        assert depth is not names["depth"]
        assert (depth(tree), depth(3), shape.area([1, [2, 3]])) == (3, "other", 6)
        depth.register(int, lambda _: "a number")
        assert depth(3) == "a number"


@pytest.mark.parametrize("way", WAYS)
def test_new_types_and_parameters_of_a_script_go_along(way: Any) -> None:
    names = of_a_script(
        """
        import dataclasses
        import typing

        P = typing.ParamSpec("P", covariant=True, bound=int)

        class Node:
            def key(self) -> "NodeId":
                return NodeId(self)

        NodeId = typing.NewType("NodeId", Node)
        NodeId.__doc__ = "Of a node."

        @dataclasses.dataclass
        class User:
            id: NodeId

            def log(self, function: typing.Callable[P, NodeId]) -> typing.Callable[P, NodeId]:
                def call(*args: P.args, **kwargs: P.kwargs) -> NodeId:
                    return function(*args, **kwargs)
                return call
        """
    )
    kept = [names["NodeId"], names["P"], names["User"]]
    packed = dump([*kept, names["User"](1)])
    with as_in_another_process():
        new_type, parameters, user, item = way(packed)
        assert (new_type(item), new_type.__supertype__.__name__) == (item, "Node")
        assert new_type.__supertype__.key.__globals__["NodeId"] is new_type is not names["NodeId"]
        assert (new_type.__doc__, repr(new_type)) == ("Of a node.", "__main__.NodeId")
        assert (repr(parameters), parameters.__bound__, parameters.__module__) == ("+P", int, "__main__")
        assert user.__dataclass_fields__["id"].type is new_type
        assert user.log.__annotations__["return"] == typing.Callable[parameters, new_type]
        assert user.log(item, lambda n: n)(5) == 5
        assert way(dump([new_type, parameters])) == [new_type, parameters]
        back = dump([new_type, parameters, user])
    assert all(one is other for one, other in zip(way(back), kept, strict=True))


ImportableId = typing.NewType("ImportableId", int)
ImportableP = typing.ParamSpec("ImportableP")


@functools.cache
def importable(n: int) -> int:
    return n


def test_what_can_be_imported_goes_by_name() -> None:
    names = [ImportableId, ImportableP, importable]
    function = dump(lambda: names)
    assert len(function.data) < 2000
    assert b"_make_cached" not in function.data
    assert b"_make_new_type" not in function.data
    assert b"_make_parameters" not in function.data
    with as_in_another_process():
        assert all(one is other for one, other in zip(load(function)(), names, strict=True))


@pytest.mark.parametrize("way", WAYS)
def test_a_class_of_a_script_can_have_cached_properties(way: Any) -> None:
    names = of_a_script(
        """
        import functools

        class Shape:
            @functools.cached_property
            def area(self):
                "Of its surface."
                return [Shape]
        """
    )
    shape = names["Shape"]()
    assert shape.area == [names["Shape"]]
    packed = dump([shape, names["Shape"](), names["Shape"].area])
    with as_in_another_process():
        filled, empty, kept = way(packed)
        assert ("area" in vars(filled), "area" in vars(empty)) == (True, False)
        assert filled.area == empty.area == [type(filled)]
        assert empty.area is empty.area
        assert (kept.__doc__, kept.attrname) == ("Of its surface.", "area")
        back = dump(filled)
    assert type(way(back)) is names["Shape"]
    assert names["Shape"]().area == [names["Shape"]]


def test_in_a_stream_of_calls_a_class_is_the_same_where_its_bytes_are_the_same() -> None:
    def point(number: int) -> type:
        class Point:
            y = number

        return Point

    calls = CallsScope()
    one, other = dump(point(1)), dump(point(2))
    with as_in_another_process(), in_scope(calls):
        first = load(one)
        assert calls.classes == {}, "what one call brings is no other's"
        second = load(other)
        assert (first.y, second.y) == (1, 2)
    leave(calls)


@pytest.mark.parametrize(
    ("known", "has_room"), [({}, True), ({"a": int}, True), ({"b": str}, True), ({"a": str}, False)]
)
def test_a_scope_has_room_for_what_is_no_other_class_there(known: dict[str, Any], has_room: bool) -> None:
    scope = Scope()
    scope.adopt({"a": int})
    assert scope.has_room_for(known) == has_room
    scope.adopt({"a": str, "c": bytes})
    assert scope.classes == {"a": int, "c": bytes}, "those that are here stay"


def test_classes_of_calls_are_made_once_for_the_same_bytes_and_those_used_long_ago_are_forgotten(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(classes, "_MAX_KEPT_CLASSES", 2)
    calls = CallsScope()
    kind, other, third = [type(name, (), {}) for name in ("Kind", "Other", "Third")]
    data = dump(kind)
    rest = [dump(other), dump(third)]
    with as_in_another_process(), in_scope(calls):
        first = load(data)
        for each in rest:
            load(each)
            assert load(data) is first is not kind
        assert len(calls.by_bytes) == 2
        load(rest[0])
        load(rest[1])
        assert load(data) is not first
        monkeypatch.setattr(classes, "_MAX_CLASS_BYTES", 1)
        calls.by_bytes.clear()
        load(data)
        assert not calls.by_bytes, "so large ones are not kept"
    leave(calls)
