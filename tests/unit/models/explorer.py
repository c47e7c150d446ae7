"""Runs a few threads of real code in every order there is, and looks after each.

A model's threads are plain functions. Each is a greenlet, so nothing happens at the same time: where a thread touches
what it shares with another it calls `World.pause`, and the explorer decides who goes on. All orders are tried, depth
first, by running the model again from its beginning along a path that was not taken; a state that was there before is
not gone on from. What a thread knows follows from what it has read, so a state is what is shared and what each thread
has read (`World.saw`).

Words of shared memory (`Words`) are stored as x86 stores them: into a buffer of the process, first in, first out, that
others see later; when, is one more thing that is decided in every order. A process sees its own stores at once.
"""

from __future__ import annotations

import inspect
import textwrap
from collections.abc import Callable, Hashable, Iterator
from dataclasses import dataclass, field
from typing import Any

import greenlet

from mpqueue._wire.memory.ledger import Ledger

Ready = Callable[[], bool]


class _Ended(greenlet.GreenletExit):  # type: ignore[misc]
    """The order is over."""


@dataclass(eq=False)
class Process:
    """A process of a model: what it has stored and nobody else sees yet."""

    name: str
    stores: list[tuple[int, int]] = field(default_factory=list)  #: word, value
    stored: int = 0  #: so many in all
    seen: int = 0  #: so many of them are visible to others


@dataclass(eq=False)
class _Thread:
    process: Process
    run: greenlet.greenlet
    ready: Ready = lambda: True
    steps: int = 0
    read: list[Hashable] = field(default_factory=list)


class World:
    """What one order happens in."""

    def __init__(self) -> None:
        self._hub = greenlet.getcurrent()
        self._threads: list[_Thread] = []
        self._current: _Thread | None = None
        self.processes: list[Process] = []
        self.memory: dict[int, int] = {}
        #: What the threads share beside the words, as something that can be hashed.
        self.shared: Callable[[], Hashable] = lambda: None
        #: What must be true in every state; raises AssertionError where it is not.
        self.always: Callable[[], object] = lambda: None

    def process(self, name: str) -> Process:
        """One more process."""
        self.processes.append(Process(name))
        return self.processes[-1]

    def thread(self, process: Process, run: Callable[[], object]) -> greenlet.greenlet:
        """One more thread of that process."""
        self._threads.append(_Thread(process, greenlet.greenlet(run, self._hub)))
        return self._threads[-1].run

    # -- in threads ------------------------------------------------------------------------------------------

    def pause(self, ready: Ready = lambda: True) -> None:
        """Others may go on now; this one goes on later, once ``ready``."""
        thread = self._current
        if thread is not None:  # else the model looks, from outside
            thread.ready = ready
            thread.steps += 1
            self._hub.switch()

    def saw(self, value: Any) -> Any:
        """The calling thread has read that, and may act on it."""
        if self._current is not None:
            self._current.read.append(value)
        return value

    # -- the explorer's side ---------------------------------------------------------------------------------

    def options(self) -> list[int]:
        """All that can happen next: which thread goes on, from 0; whose oldest store is seen by all, from -1 down."""
        found = [number for number, thread in enumerate(self._threads) if not thread.run.dead and thread.ready()]
        return found + [~number for number, process in enumerate(self.processes) if process.stores]

    def take(self, option: int) -> None:
        """Let that happen."""
        if option >= 0:
            self._current = thread = self._threads[option]
            thread.run.switch()
            self._current = None
        else:
            self._drain(self.processes[~option])

    def _drain(self, process: Process) -> None:
        word, value = process.stores.pop(0)
        self.memory[word] = value
        process.seen += 1

    def state(self) -> Hashable:
        """Where this order is."""
        threads = tuple((thread.run.dead, thread.steps, tuple(thread.read)) for thread in self._threads)
        processes = tuple((process.stored, tuple(process.stores)) for process in self.processes)
        return threads, processes, frozenset(self.memory.items()), self.shared()

    def end(self) -> None:
        """Nobody goes on."""
        for thread in self._threads:
            if not thread.run.dead:
                thread.run.throw(_Ended)


class Words:
    """The words of a `Ledger`, as one process sees them; those in ``shared`` are touched one at a time."""

    def __init__(self, world: World, process: Process, shared: set[int]) -> None:
        self._world, self._process, self._shared = world, process, shared

    def __getitem__(self, word: int) -> int:
        if word in self._shared:
            self._world.pause()
        value = self._world.memory.get(word, 0)
        for stored, own in self._process.stores:
            if stored == word:
                value = own
        return self._world.saw(value) if word in self._shared else value

    def __setitem__(self, word: int, value: int) -> None:
        if word not in self._shared:
            self._world.memory[word] = value
            return
        self._world.pause()
        self._process.stored += 1
        self._process.stores.append((word, value))


class ModelLedger(Ledger):
    """A real ledger on a model's memory."""

    def __init__(self, world: World, process: Process, shared: set[int]) -> None:
        self.words = Words(world, process, shared)  # type: ignore[assignment]
        self.reals = [0.0] * 16  # type: ignore[assignment]


class Lock:
    """A lock between a model's threads."""

    def __init__(self, world: World) -> None:
        self._world = world
        self.is_taken = False

    def __enter__(self) -> None:
        self._world.pause(lambda: not self.is_taken)
        self.is_taken = True

    def __exit__(self, *_: object) -> None:
        self.is_taken = False


@dataclass
class Found:
    """What an exploration came through."""

    orders: int = 0  #: that came to an end; others met a state that was there before
    states: int = 0


#: Makes a model's threads in a world; what it returns looks at how an order ended, and raises what it finds wrong.
Model = Callable[[World], Callable[[], object]]


def explore(model: Model, most: int = 200_000) -> Found:
    """Run the model in every order. What one of its threads or its look at the end raises is raised."""
    found, seen = Found(), set[Hashable]()
    paths: list[list[int]] = [[]]
    while paths:
        path = paths.pop()
        world = World()
        look = model(world)
        try:
            for option in _go_on(world, path, seen, paths):
                path.append(option)
            if not world.options():
                found.orders += 1
                look()
        except AssertionError as error:
            error.add_note(f"in this order: {path}")
            raise
        finally:
            world.end()
        assert len(seen) < most, "too many states"
    found.states = len(seen)
    return found


def _go_on(world: World, path: list[int], seen: set[Hashable], paths: list[list[int]]) -> Iterator[int]:
    for option in list(path):
        world.take(option)
    while options := world.options():
        state = world.state()
        if state in seen:
            return
        seen.add(state)
        world.always()
        paths.extend([*path, other] for other in options[1:])
        world.take(options[0])
        yield options[0]


def reverted(function: Callable[..., Any], old: str, new: str) -> Callable[..., Any]:
    """The function with a piece of its source replaced, which must be there: the fault that a model has to find."""
    source = textwrap.dedent(inspect.getsource(function))
    assert source.count(old) == 1, f"{function.__qualname__} reads differently now: {old!r}"
    names = {**inspect.getmodule(function).__dict__}
    exec(source.replace(old, new), names)
    changed: Callable[..., Any] = names[function.__name__]
    return changed
