"""A job's handler made ready: as people know it, and what they are told where it can't be sent or is heavy."""

from __future__ import annotations

import functools
import multiprocessing
import threading
import weakref
from typing import Any

import pytest

from mpqueue._wire.pickling import packed_handler
from mpqueue._wire.pickling.packed_handler import find_culprit, heaviest_part, name_of, pack_handler
from mpqueue.errors import HandlerPicklingError
from tests.support import handlers as do

LOCK = threading.Lock()
IN_CLOSURE = "the variable 'value' of its closure"


class Model:
    def __init__(self, **attributes: Any) -> None:
        vars(self).update(attributes)

    def predict(self, item: object) -> object:
        return item

    def __call__(self, item: object) -> object:
        return item


class SaysHowItGoes(Model):
    def __reduce__(self) -> Any:
        raise TypeError("not this")


def reads_a_global(item: object) -> object:
    return [LOCK for _ in (item,)]


def reads_it_in_a_lambda(item: object) -> object:
    return [*map(lambda _: LOCK, (item,))]  # noqa: C417 - a function inside of it


def with_defaults(item: object, lock: object = LOCK, *, other: object = None) -> object:
    return item, lock, other


def with_keyword(item: object, *, lock: object = LOCK) -> object:
    return item, lock


def closing_over(value: object) -> Any:
    return lambda item: (value, item)


@pytest.mark.parametrize(
    ("function", "culprit"),
    [
        (do.double, None),
        (closing_over(LOCK), f"{IN_CLOSURE}, of type lock"),
        (reads_a_global, "the global variable 'LOCK', of type lock"),
        (reads_it_in_a_lambda, "the global variable 'LOCK', of type lock"),
        (functools.wraps(reads_it_in_a_lambda)(closing_over(LOCK)), f"{IN_CLOSURE}, of type lock"),
        (with_defaults, "the default value 0 of its arguments, of type lock"),
        (with_keyword, "the default value of its argument 'lock', of type lock"),
        (functools.partial(do.double, LOCK), "the partial's argument 0, of type lock"),
        (functools.partial(dict, x=LOCK), "the partial's argument 'x', of type lock"),
        (Model(good=1, lock=LOCK), "the attribute 'lock', of type lock"),
        (Model(lock=LOCK).predict, "the method's object: in it the attribute 'lock', of type lock"),
        (closing_over(closing_over(LOCK)), f"{IN_CLOSURE}: in it {IN_CLOSURE}, of type lock"),
        (functools.partial(closing_over(LOCK)), f"the partial's function: in it {IN_CLOSURE}, of type lock"),
        # what an object that says itself how it goes holds is its own affair
        (closing_over(SaysHowItGoes(lock=LOCK)), f"{IN_CLOSURE}, of type SaysHowItGoes"),
    ],
)
def test_what_can_not_be_sent_is_found_however_deep(function: Any, culprit: str | None) -> None:
    assert find_culprit(function) == culprit


def test_the_search_ends_at_some_depth() -> None:
    function: Any = LOCK
    for _ in range(20):
        function = closing_over(function)
    assert find_culprit(function) == f"{': in it '.join([IN_CLOSURE] * 5)}, of type function"


def test_who_can_not_be_sent_is_told_what_and_that_nothing_was_created() -> None:
    with pytest.raises(HandlerPicklingError, match=r"^setup: expected a callable that can be serialized") as caught:
        pack_handler("job", do.double, closing_over(LOCK), "position")
    assert "what can't be: the variable 'value' of its closure" in str(caught.value)
    assert str(caught.value).endswith("Nothing was created.")
    assert "Manager" not in str(caught.value)
    with pytest.raises(HandlerPicklingError, match=r"use the locks and queues of a multiprocessing\.Manager"):
        pack_handler("job", closing_over(multiprocessing.Lock()), None, "position")


def test_what_can_not_be_called_is_refused_by_its_argument() -> None:
    nothing: Any = 5
    with pytest.raises(TypeError, match=r"^function: expected"):
        pack_handler("job", nothing, None, "position", argument="function")
    with pytest.raises(TypeError, match=r"^setup: expected"):
        pack_handler("job", do.double, nothing, "position")


@pytest.mark.parametrize(
    ("handler", "name"),
    [
        (do.double, "tests.support.handlers.double"),
        (functools.partial(functools.partial(do.double)), "tests.support.handlers.double"),
        (closing_over(1), f"{__name__}.closing_over.<lambda>"),
        (Model(), f"{__name__}.Model"),
        (Model().predict, f"{__name__}.Model.predict"),
        ([].append, "list.append"),
        (len, "builtins.len"),
    ],
)
def test_a_handler_is_named_as_people_know_it(handler: Any, name: str) -> None:
    assert name_of(handler) == name
    assert pack_handler("job", do.double, None, "position").name == "tests.support.handlers.double"


def test_a_heavy_one_is_said_to_be_with_what_makes_it_so(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(packed_handler, "HEAVY", 100_000)
    weight, part = heaviest_part(closing_over(bytes(200_000)), 7)
    assert part == IN_CLOSURE
    assert 200_000 <= weight < 201_000
    assert heaviest_part(do.double, 7) == (7, "its code")
    assert pack_handler("job", do.double, None, "position").weight == ""
    assert caplog.text == ""
    packed = pack_handler("job", closing_over(bytes(200_000)), None, "position")
    assert packed.weight == IN_CLOSURE
    assert "handler: it carries 0 MB, 0 MB of them in the variable 'value' of its closure" in caplog.text
    of_setup = pack_handler("job", do.double, functools.partial(do.double, bytes(200_000)), "position")
    assert of_setup.weight == "the partial's argument 0"
    assert of_setup.size == of_setup.frame.handler.size + (of_setup.frame.setup or of_setup.frame.handler).size


def test_a_small_one_without_setup_costs_a_worker_nothing_to_keep() -> None:
    assert pack_handler("job", do.double, None, "position").light
    assert not pack_handler("job", do.double, list, "position").light
    assert not pack_handler("job", closing_over(bytes(200_000)), None, "position").light


FACTOR = 2
FACTORS = [2]


def scaled(item: Any) -> Any:
    return item * FACTOR


def scaled_by_a_list(item: Any) -> Any:
    return item * FACTORS[0]


def _pickle_of(handler: Any) -> bytes:
    handler.__module__ = "__main__"  # by value
    return pack_handler("job", handler, None, "position").frame.handler.data


def test_a_handler_that_nothing_can_have_changed_is_pickled_once(monkeypatch: pytest.MonkeyPatch) -> None:
    assert _pickle_of(scaled) is _pickle_of(scaled)
    monkeypatch.setitem(globals(), "FACTOR", 3)
    changed = _pickle_of(scaled)
    assert changed is _pickle_of(scaled)
    monkeypatch.setattr(scaled, "__code__", (lambda item: item).__code__)
    assert _pickle_of(scaled) != changed
    attribute: Any = scaled
    monkeypatch.setattr(attribute, "used", [], raising=False)
    assert _pickle_of(scaled) is not _pickle_of(scaled)


def test_a_function_of_no_module_is_freed_with_its_variables() -> None:
    variables: dict[str, Any] = {"__name__": "__main__"}
    exec("def run(item): return item", variables)
    freed = weakref.ref(variables["run"])
    pack_handler("job", variables.pop("run"), None, "position")
    assert freed() is None


def test_a_handler_whose_variables_may_change_unseen_is_pickled_each_time() -> None:
    before = _pickle_of(scaled_by_a_list)
    FACTORS[0] = 3
    assert _pickle_of(scaled_by_a_list) != before
