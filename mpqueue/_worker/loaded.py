"""The jobs whose handlers this worker holds: loading, setup, event loop, and the end of all of these."""

from __future__ import annotations

import contextlib
import inspect
from collections.abc import Callable, Iterator
from itertools import repeat
from types import FunctionType, MethodType
from typing import TYPE_CHECKING, Any

from mpqueue._wire import clock
from mpqueue._wire.frames import HandlerFrame
from mpqueue._wire.ids import IdRule
from mpqueue._worker import context, records
from mpqueue._worker.capture import Capture, beside_bar
from mpqueue._worker.seat import Seat

if TYPE_CHECKING:
    import asyncio


_AS_EVER = contextlib.nullcontext()


class LoadedJob:
    """One job's handler, ready to be called."""

    def __init__(self, number: int, frame: HandlerFrame, seat: Seat) -> None:
        self.number = number
        self.id = frame.job_id
        self.id_rule = IdRule(frame.id_rule)
        self.seed = frame.seed
        self.pace: float | None = None  #: seconds an item, as seen last
        self.plain = True  #: all results so far were plain data
        self._runner: asyncio.Runner | None = None
        self._finish: Callable[[], object] | None = None
        station, speech = seat.station, None if seat.is_at_home else frame.speech
        context.enter(station, context.Running(station, number, self.id, self.id_rule, self.seed))
        if not seat.is_at_home:
            records.install(seat.home, speech)
        self.capture = Capture() if speech is not None and speech.capture else None
        self.beside_bar = speech is not None and speech.beside_bar
        began = clock.monotonic()
        handler = seat.exchange.load(frame.handler)
        setup = None if frame.setup is None else seat.exchange.load(frame.setup)
        loaded = clock.monotonic()
        self.seconds_loading, self.seconds_in_setup = loaded - began, 0.0
        self._more_arguments: tuple[Any, ...] = ()
        if setup is not None:
            self._more_arguments = (repeat(self._set_up(setup)),)
            self.seconds_in_setup = clock.monotonic() - loaded
        self._handler: Any = handler
        # Only Python functions let other threads of the worker in between two items.
        self._call: Any = handler if isinstance(handler, FunctionType | MethodType) else _python_call(handler)
        self.awaits = False
        if _is_async(handler):
            self.await_results()

    def map(self, items: Any, out: list[Any]) -> Any:
        """An iterator over the handler's results, which go to ``out``."""
        call = self._call if self.capture is None else self.capture.wrap(self._call, out.__len__)
        return map(call, items, *self._more_arguments)

    def around_chunk(self) -> contextlib.AbstractContextManager[None]:
        """See to what the handler writes, while a chunk runs."""
        if self.capture is not None:
            return self.capture.around_chunk()
        return beside_bar() if self.beside_bar else _AS_EVER

    def await_results(self) -> None:
        """From now on await what the handler returns, one item at a time."""
        handler = self._handler
        self.awaits = True

        def call(*args: Any) -> Any:
            return self.resolve(handler(*args))

        self._call = call

    def resolve(self, result: Any) -> Any:
        """Await the result on this job's event loop, where it is something to await."""
        if not inspect.isawaitable(result):
            return result
        if self._runner is None:
            import asyncio  # 20 ms that most workers never need

            self._runner = asyncio.Runner()
        return self._runner.get_loop().run_until_complete(_as_coroutine(result))

    def _set_up(self, setup: Callable[[], Any]) -> Any:
        """Call ``setup``; one that yields is finished by `close`."""
        made = setup()
        if inspect.isgenerator(made):
            return self._enter_generator(made)
        # What @contextmanager makes; other context managers may just be the state itself (a model, an open file).
        if isinstance(made, contextlib._GeneratorContextManager):
            self._finish = lambda: made.__exit__(None, None, None)
            return made.__enter__()
        return self.resolve(made)

    def _enter_generator(self, generator: Iterator[Any]) -> Any:
        try:
            state = next(generator)
        except StopIteration:
            raise RuntimeError("setup: expected a generator that yields the state once, got one that ended") from None
        self._finish = lambda: _exhaust(generator)
        return state

    def close(self) -> None:
        """Finish the setup, close the event loop, let the handler go. Raises what the setup's end raises."""
        try:
            if self._finish is not None:
                self._finish()
        finally:
            # Some cycle may still hold this: what is big of the handler should not wait for it.
            self._handler = self._call = self._finish = None
            self._more_arguments = ()
            if self._runner is not None:
                self._runner.close()
            if self.capture is not None:
                self.capture.close()


def _exhaust(generator: Iterator[Any]) -> None:
    try:
        next(generator)
    except StopIteration:
        return
    raise RuntimeError("setup: expected a generator that yields the state once, got one that yields again")


def _python_call(handler: Any) -> Any:
    def call(*args: Any) -> Any:
        return handler(*args)

    return call


def _is_async(handler: Any) -> bool:
    return inspect.iscoroutinefunction(handler) or inspect.iscoroutinefunction(type(handler).__call__)


async def _as_coroutine(awaitable: Any) -> Any:
    return await awaitable
