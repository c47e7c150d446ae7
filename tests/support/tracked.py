"""Objects that note on which thread of the program their code runs, as users' classes may have code everywhere."""

from __future__ import annotations

import os
import threading
from typing import Any

#: The process that looks; in the others nothing is noted.
_home = 0
#: What ran and on which thread.
seen: set[tuple[str, str]] = set()


def note(what: str) -> None:
    """Such code runs here and now."""
    if os.getpid() == _home:
        seen.add((what, threading.current_thread().name))


def begin() -> None:
    """Forget what was seen, and look from now on in this process."""
    global _home  # noqa: PLW0603 - handlers are given no object of the test's
    _home = os.getpid()
    seen.clear()
    arrived.clear()
    go_on.clear()


class Tracked:
    """A value whose every way to be handled is code."""

    def __init__(self, value: Any, word: str = "value") -> None:
        self.value = value
        self.word = word

    @property
    def id(self) -> Tracked:
        """Its id, where it is an item: as tracked as it is."""
        return Tracked(self.value, "id") if self.word == "item" else self

    def _note(self, what: str) -> None:
        note(f"{self.word}.{what}")

    def __reduce__(self) -> tuple[Any, ...]:
        self._note("__reduce__")
        return Tracked, (self.value, self.word), (self.value, self.word)

    def __setstate__(self, state: Any) -> None:
        self.value, self.word = state
        self._note("__setstate__")

    def __eq__(self, other: object) -> bool:
        self._note("__eq__")
        return isinstance(other, Tracked) and other.value == self.value

    def __hash__(self) -> int:
        self._note("__hash__")
        return hash(self.value)

    def __repr__(self) -> str:
        self._note("__repr__")
        return f"Tracked({self.value})"

    def __del__(self) -> None:
        note(f"{self.word}.__del__")


class TrackedError(Exception):
    """The same, raised."""

    def __reduce__(self) -> tuple[Any, ...]:
        note("error.__reduce__")
        return TrackedError, self.args, {"seen": True}

    def __setstate__(self, state: Any) -> None:
        note("error.__setstate__")

    def __str__(self) -> str:
        note("error.__str__")
        return f"bad {self.args[0]}"

    def __eq__(self, other: object) -> bool:
        note("error.__eq__")
        return self is other

    def __hash__(self) -> int:
        note("error.__hash__")
        return id(self)

    def __del__(self) -> None:
        note("error.__del__")


def work(item: Tracked) -> Tracked:
    """A handler: every third item fails, by an error that is tracked."""
    if item.value % 3 == 2:
        raise TrackedError(item.value)
    return Tracked(item.value, "result")


def work_with(item: Tracked, state: Tracked) -> Tracked:
    """The same with a state, which `make_state` makes."""
    assert state.word == "state"
    return work(item)


def make_state() -> Tracked:
    """A setup."""
    return Tracked(0, "state")


def work_beside(shared: Any, item: Tracked) -> Tracked:
    """The same beside something that is shared."""
    assert shared.word == "shared"
    return work(item)


#: Where a `Stuck` is pickled in the program, it waits: here somebody sees that, and there it is let go on.
arrived, go_on = threading.Event(), threading.Event()


class Stuck:
    """A value that in the program can't be pickled before it is let go on; in a worker it can."""

    def __init__(self, value: Any) -> None:
        self.value = value

    def __reduce__(self) -> tuple[Any, ...]:
        if os.getpid() == _home:
            arrived.set()
            go_on.wait(300)
        return Stuck, (self.value,)


def value_of(item: Any) -> Any:
    """A handler: what is in it."""
    return item.value if isinstance(item, Stuck) else item


def get_stuck(item: Any) -> Any:
    """A handler: an odd item's result is stuck on its way into a journal."""
    return Stuck(item) if item % 2 else item


def get_stuck_or_fail(item: int) -> Any:
    """A handler: the same, and it fails if the item is negative."""
    if item < 0:
        raise ValueError(f"{item} is negative")
    return get_stuck(item)


def id_of(item: Any) -> Any:
    """A handler: the item's id."""
    return item["id"]
