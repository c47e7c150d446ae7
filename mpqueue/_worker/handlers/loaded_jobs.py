"""The jobs whose handlers this worker holds: loading, setup, event loop, and their ends.

`replay` runs one item once more in this process, for example with its handler under a debugger: with the steps of a
worker, setup included, except for those that make a process a worker (signals, limits, the capture of output and of log
records). The handler's errors are raised unchanged.
"""

from __future__ import annotations

import contextlib
import inspect
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from itertools import repeat
from types import AsyncGeneratorType, FunctionType, GeneratorType, MethodType, SimpleNamespace
from typing import TYPE_CHECKING, Any, cast

from mpqueue._os import system as clock
from mpqueue._os.process_signals import came_of_signal
from mpqueue._wire.frames import HandlerFrame
from mpqueue._wire.item_names import IdRule
from mpqueue._wire.memory.ledger import Ledger
from mpqueue._wire.parcels import Yielded
from mpqueue._wire.pickling import classes, main_names
from mpqueue._worker import log_records as records
from mpqueue._worker.capture import Capture, beside_bar
from mpqueue._worker.exchange import WorkerContext, make_context
from mpqueue._worker.handlers import current_item
from mpqueue._worker.handlers.called import run_call
from mpqueue._worker.sampler import JobSampling
from mpqueue._worker.worker_links import BrokenWorkerError, WorkerLinks, as_worker

if TYPE_CHECKING:
    import asyncio


_AS_EVER = contextlib.nullcontext()


class LoadedJob:
    """One job's handler, ready to be called."""

    def __init__(self, number: int, frame: HandlerFrame, context: WorkerContext) -> None:
        self.number = number
        self.id = frame.job_id
        self.id_rule = IdRule(frame.id_rule)
        self.seed = frame.seed
        self.is_open = frame.is_open
        self.discards = frame.discards
        self.pace: float | None = None  #: seconds per item, as last measured
        self.raises_stop_iteration = False  #: an item has
        self.passes_on = frame.passes_on
        self.plain = not frame.passes_on  #: all results so far were plain data, and are for the parent
        self._gathered = _gathering(self) if frame.is_stage else None
        self._runner: asyncio.Runner | None = None
        self.task: asyncio.Task[Any] | None = None  #: the current item's, if it is a coroutine
        self._finish: Callable[[], object] | None = None
        links, speech = context.links, frame.speech if context.links.is_own_process else None
        links.running = current_item.Running(links, number, self.id, self.id_rule, self.seed)
        if links.is_own_process:
            records.install(context.logs, speech)
        self.capture = Capture() if speech is not None and speech.capture else None
        self.beside_bar = speech is not None and speech.beside_bar
        began = clock.monotonic()
        #: The classes of the script here; None: the program's own, in its process.
        self.scope = classes.Scope() if links.is_own_process else None
        with main_names.together(), classes.in_scope(self.scope):
            handler = context.exchange.load(frame.handler)
            setup = None if frame.setup is None else context.exchange.load(frame.setup)
        if handler is run_call and self.scope is not None:
            self.scope = classes.CallsScope()
        if frame.sources is not None:
            from mpqueue._wire.pickling import sources  # on a cluster

            sources.check_loaded(frame.sources)
        loaded = clock.monotonic()
        self.seconds_loading, self.seconds_in_setup = loaded - began, 0.0
        self._more_arguments: tuple[Any, ...] = ()
        if setup is not None:
            with classes.in_scope(self.scope):
                self._more_arguments = (repeat(self._set_up(setup)),)
            self.seconds_in_setup = clock.monotonic() - loaded
        self._handler: Any = handler
        self.sampling = JobSampling(self, _name_of(handler)) if frame.profile else None
        # Each call of `run_call` may be of another function.
        self._call: Any = self._await_call if handler is run_call else self._first_call

    def map(self, items: Any, out: list[Any]) -> Any:
        """An iterator over the handler's results, which it adds to ``out``."""
        call = self._gathered or self._call
        if self.capture is not None:
            call = self.capture.wrap(call, out.__len__)
        return map(call, items, *self._more_arguments)

    def around_chunk(self) -> contextlib.AbstractContextManager[None]:
        """Return a context that keeps the handler's output, or puts it beside the bar, while a chunk runs."""
        if self.capture is not None:
            return self.capture.around_chunk()
        return beside_bar() if self.beside_bar else _AS_EVER

    def _await_call(self, *args: Any) -> Any:
        """Call the handler, and await what it returns."""
        return self.resolve(self._handler(*args))

    def _first_call(self, *args: Any) -> Any:
        """Call a handler of which no call has returned yet, so it is not known whether its results are awaitable."""
        result = self._handler(*args)
        if inspect.isawaitable(result):
            self._call = self._await_call
            return self.resolve(result)
        # Only Python functions let other threads of the worker run between two items.
        self._call = self._handler if _is_python(self._handler) else _python_call(self._handler)
        return result

    def resolve(self, result: Any) -> Any:
        """Await the result on this job's event loop, if it is an awaitable.

        Raises `BrokenWorkerError` if a signal's handler has raised in the loop's own code: what the loop was doing is
        lost, and some coroutine might wait for ever.
        """
        if not inspect.isawaitable(result):
            return result
        import asyncio  # 20 ms, which most workers never need

        if self._runner is None:
            self._runner = asyncio.Runner()
            self._runner.get_loop().set_exception_handler(_stop_if_struck)
        loop = self._runner.get_loop()
        self.task = task = loop.create_task(_as_coroutine(result))
        try:
            return loop.run_until_complete(task)
        except BaseException as error:
            if task.done():
                raise
            raise BrokenWorkerError(f"{type(error).__name__} has interrupted its event loop") from error
        finally:
            self.task = None

    def _set_up(self, setup: Callable[[], Any]) -> Any:
        """Call ``setup``; if it yields, `close` finishes it."""
        made = setup()
        if inspect.isgenerator(made):
            try:
                state = next(made)
            except StopIteration:
                text = "setup: expected a generator that yields the state once, got one that ended"
                raise RuntimeError(text) from None
            self._finish = lambda: _exhaust(made)
            return state
        # Made by @contextmanager; other context managers may be the state itself (a model, an open file).
        if isinstance(made, contextlib._GeneratorContextManager):
            self._finish = lambda: made.__exit__(None, None, None)
            return made.__enter__()
        return self.resolve(made)

    def close(self) -> None:
        """Finish the setup, close the event loop, free the handler. Raises errors of the setup's end."""
        try:
            if self._finish is not None:
                self._finish()
        finally:
            # A cycle may still hold this object: big parts of the handler should not wait for it.
            self._handler = self._call = self._finish = None
            classes.leave(self.scope)
            self.scope = None
            self._more_arguments = ()
            self.sampling = None
            if self._runner is not None:
                self._runner.close()
            if self.capture is not None:
                self.capture.close()


def _gathering(job: LoadedJob) -> Any:
    """Return the job's call, which gathers a generator's values as its result."""

    def call(*args: Any) -> Any:
        made = job._call(*args)
        if isinstance(made, GeneratorType):
            return Yielded([*made])
        if isinstance(made, AsyncGeneratorType):
            return Yielded(job.resolve(_all_of(made)))
        return made

    return call


def _stop_if_struck(loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
    """Stop the loop if a signal's handler has raised in a callback, which the loop would only log."""
    error = context.get("exception")
    if error is not None and came_of_signal(error):
        loop.stop()
    loop.default_exception_handler(context)


async def _all_of(generator: AsyncIterator[Any]) -> list[Any]:
    return [value async for value in generator]


def _exhaust(generator: Iterator[Any]) -> None:
    try:
        next(generator)
    except StopIteration:
        return
    raise RuntimeError("setup: expected a generator that yields the state once, got one that yields again")


def _is_python(handler: Any) -> bool:
    """True if calling it is a step of Python code, so that other threads can run between two calls."""
    return isinstance(handler.__func__ if isinstance(handler, MethodType) else handler, FunctionType)


def _python_call(handler: Any) -> Any:
    def call(*args: Any) -> Any:
        return handler(*args)

    return call


def _name_of(handler: Any) -> str:
    for named in (handler, type(handler)):
        with contextlib.suppress(Exception):
            if type(name := named.__qualname__) is str:
                return name
    return "handler"


async def _as_coroutine(awaitable: Any) -> Any:
    return await awaitable


#: The number of no job.
NO_JOB = -1


def replay(frame: HandlerFrame, item: Any, index: int, attempt: int, slots: Sequence[int] = ()) -> Any:
    """Return the handler's result for the item at ``index``. Raises the errors of the handler, or of the setup."""
    ledger = cast("Ledger", SimpleNamespace(words={}, reals={}))  # it is not read
    links = WorkerLinks(0, ledger, lambda _: (False, False), None, is_own_process=False)
    with as_worker(links):
        job = LoadedJob(NO_JOB, frame, make_context(links))
        try:
            running = current_item.Running(links, NO_JOB, frame.job_id, IdRule(frame.id_rule), frame.seed)
            running.items, running.indices, running.attempts = [item], [index], [attempt]
            running.slots, running.is_open = slots, frame.is_open  # items that it adds are dropped
            links.running = running
            return next(job.map([item], running.out))
        finally:
            job.close()
