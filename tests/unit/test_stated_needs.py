"""What items are said to need: what that comes to, and what is refused, in the words in which it was said."""

from __future__ import annotations

from typing import Any

import pytest

from mpqueue._core.state.item_table import make_table
from mpqueue._core.state.resources import CPUS, MEMORY, JobNeeds, Needs, Supply, check_needs, needs_of

GB = 10**9
SUPPLY = Supply(cpus=4, limits={"gpu": 2, "license": 3}, memory=lambda: 16 * GB)
NO_SUPPLY = SUPPLY._replace(memory=lambda: None)


def needs(items: list[Any] | None = None, supply: Supply = SUPPLY, **said: Any) -> JobNeeds:
    uses = said.pop("uses", {})
    given = uses if callable(uses) else {**said, **uses}
    return check_needs(given, None if items is None else make_table(items), supply)


def test_without_memory_the_machine_is_not_asked() -> None:
    assert needs([1, 2], NO_SUPPLY, cpu=2) == JobNeeds([Needs(2)], None, None)


@pytest.mark.parametrize(
    ("said", "needed"),
    [
        ({"cpu": 4}, Needs(4)),
        ({"memory": "16GB"}, needs_of(memory=16 * GB)),
        ({"memory": 0}, Needs()),
        ({"uses": {"gpu": 2, "license": 0}}, Needs(1, (("gpu", 2),))),
        ({"cpu": 2, "memory": 5, "uses": {"license": 3}}, Needs(2, (("license", 3), (MEMORY, 5)))),
    ],
)
def test_all_there_is_may_be_needed(said: dict[str, Any], needed: Needs) -> None:
    found = needs([1, 2], **said)
    assert found == JobNeeds([needed], None, 16 * GB if "memory" in said else None)


@pytest.mark.parametrize(("said", "any_memory"), [({"memory": 5, "cpu": 2}, True), ({"uses": {"gpu": 1}}, False)])
def test_needs_say_whether_memory_is_among_them(said: dict[str, Any], any_memory: bool) -> None:
    found = needs([1], **said)
    assert found.any_memory == any_memory


def test_a_queue_that_says_how_much_memory_there_is_does_not_ask_the_machine() -> None:
    supply = NO_SUPPLY._replace(limits={MEMORY: 100})
    assert needs([1], supply, memory=100) == JobNeeds([needs_of(memory=100)], None, None)
    with pytest.raises(ValueError, match="at most the 100 bytes that the queue may use, got 101"):
        needs([1], supply, memory=101)


def test_each_item_has_its_own_and_equal_ones_are_of_one_kind() -> None:
    found = needs([1, 2, 1], cpu=lambda item: item, uses={"gpu": lambda item: item - 1})
    assert found.kinds == [Needs(1), Needs(2, (("gpu", 1),))]
    assert found.of is not None
    assert [*found.of] == [0, 1, 0]
    found = needs([3, 1], uses=lambda item: {"license": item})
    assert found.kinds == [Needs(1, (("license", 3),)), Needs(1, (("license", 1),))]


def test_functions_are_not_asked_where_there_are_no_items() -> None:
    assert needs([], cpu=lambda _: 2).kinds == [Needs()]
    assert needs(None, cpu=3) == JobNeeds([Needs(3)], None, None)


@pytest.mark.parametrize(
    ("size", "taken"), [(15, 15), (16, 16), (17, 18), (31, 32), (1000, 1024), (1025, 1152), (16 * GB, 16 * GB)]
)
def test_memory_by_a_function_is_rounded_up_by_an_eighth_at_most_and_never_beyond_what_there_is(
    size: int, taken: int
) -> None:
    found = needs([size], memory=lambda item: item)
    assert [kind.amount(MEMORY) for kind in found.kinds] == [taken]
    assert found.memory == 16 * GB
    said_of_all = needs([1], memory=size, cpu=lambda _: 1)  # one number is one kind anyhow
    assert said_of_all.kinds[0].amount(MEMORY) == size


@pytest.mark.parametrize(
    ("said", "words"),
    [
        ({"cpu": 5}, r"uses\['cpu'\]: expected at most 4, the queue's concurrency, got 5"),
        ({"cpu": 0}, r"uses\['cpu'\]: expected .* got 0"),
        ({"cpu": lambda item: item}, r"uses\['cpu'\] of item 1 \(5\): expected at most 4, .* got 5"),
        ({"memory": -1}, r"uses\['memory'\]: expected .* got -1"),
        ({"memory": "17GB"}, r"uses\['memory'\]: expected at most the 16,000,000,000 bytes"),
        (
            {"memory": lambda item: "17GB" if item == 5 else 1},
            r"uses\['memory'\] of item 1 \(5\): expected at most the 16",
        ),
        ({"uses": {"gpu": 3}}, r"uses\['gpu'\]: expected at most 2, all there are, got 3"),
        ({"uses": {"gpu": -1}}, r"uses\['gpu'\]: expected .* got -1"),
        ({"uses": lambda item: {"gpu": item - 2}}, r"uses\['gpu'\] of item 1 \(5\): expected at most 2, .* got 3"),
        (
            {"uses": {"tpu": 1}},
            r"uses: expected names of what there is \('cpu', 'memory', 'gpu', 'license'\), got 'tpu'",
        ),
        ({"uses": {"cpus": 1}}, "CPUs are called 'cpu'"),
    ],
)
def test_what_can_never_be_met_is_refused_by_its_name_and_item(said: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        needs([2, 5], **said)


def test_what_makes_no_sense_is_refused() -> None:
    with pytest.raises(TypeError, match=r"uses of item 0 \(1\): expected a mapping of names to numbers, got 5"):
        needs([1], uses=lambda _: 5)
    with pytest.raises(ValueError, match=r"\('cpu', 'memory'\), got 'gpu'"):
        needs([1], SUPPLY._replace(limits={}), uses={"gpu": 1})
    with pytest.raises(ValueError, match=r"uses\['memory'\]: expected none, since this system does not say .* got 5"):
        needs([1], NO_SUPPLY, memory=5)


def test_what_is_not_counted_here_can_not_be_needed() -> None:
    supply = SUPPLY._replace(uncounted="workers elsewhere have their own")
    for name in (CPUS, MEMORY):
        with pytest.raises(
            ValueError, match=rf"uses\['{name}'\]: expected none, since workers elsewhere have their own"
        ):
            needs([1], supply, uses={name: 1})
    assert needs([1], supply, uses={"gpu": 1}).kinds == [Needs(1, (("gpu", 1),))]


def test_what_a_function_raises_says_which_it_was() -> None:
    with pytest.raises(ZeroDivisionError) as caught:
        needs([0], cpu=lambda item: 1 // item)
    assert caught.value.__notes__ == ["mpqueue: raised by the function that says uses['cpu'] of item 0"]
