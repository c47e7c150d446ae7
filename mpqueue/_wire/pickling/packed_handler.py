"""A job's handler, ready to be sent; or, if it can't be sent, the name of the cause."""

from __future__ import annotations

import atexit
import contextlib
import enum
import functools
import inspect
import sys
from collections.abc import Callable, Iterator, Sequence
from contextvars import ContextVar
from types import FunctionType, ModuleType
from typing import TYPE_CHECKING, Any, NamedTuple

from mpqueue._call_checks import check_callable, is_module_builtin
from mpqueue._os.process_signals import came_of_signal
from mpqueue._wire.frames import HandlerFrame
from mpqueue._wire.memory.segments import CommonSegment, log
from mpqueue._wire.memory.shared import Shared
from mpqueue._wire.pickling import beside, main_names
from mpqueue._wire.pickling.beside import within
from mpqueue._wire.pickling.classes import BROUGHT
from mpqueue._wire.pickling.packed_functions import (
    MAX_KEPT_FUNCTIONS,
    PackedFunction,
    are_same,
    can_be_kept,
    constant_parts,
    globals_of,
)
from mpqueue._wire.pickling.payload import Packed, all_go_by_name, dump_code, pin_classes, weigh_code
from mpqueue.errors import HandlerPicklingError, shown

if TYPE_CHECKING:
    from mpqueue._wire.pickling.script import Script

#: Bytes from which a handler is logged as heavy.
HEAVY = 10_000_000
#: Bytes below which keeping a handler costs a worker nothing.
LIGHT = 100_000
#: The most items whose classes are pickled when a job is created.
LOOKED_AT = 100
#: The depth of the search for the culprit in functions that functions use.
SEARCH_DEPTH = 4


class HandlerTransport(enum.Enum):
    """The way in which a handler is sent to the workers."""

    IN_MEMORY = enum.auto()  #: with its big parts in a segment
    WHOLE = enum.auto()  #: in one piece: the workers share no memory with this process
    SHARED_APART = enum.auto()  #: the same, except for shared objects, which are brought to them before


class PackedHandler(NamedTuple):
    """A handler's frame, and the segments of its big parts, as long as this is referenced."""

    frame: HandlerFrame
    segments: tuple[CommonSegment, ...]
    weight: str = ""  #: if it is heavy, the cause
    shared: tuple[Shared[Any], ...] = ()  #: the shared objects that it names; a reference to this holds them
    name: str = ""  #: its name for people, in reports
    script: Script | None = None  #: the main module that its workers have imported
    #: By the ids of classes, the pickle that items bring, which stays unchanged. None: for a stream of calls.
    classes: dict[str, bytes] | None = None

    @property
    def size(self) -> int:
        """Bytes of the handler, including its setup."""
        return self.frame.handler.size + (0 if self.frame.setup is None else self.frame.setup.size)

    @property
    def light(self) -> bool:
        """True if a worker may keep it for a while after its job."""
        return self.frame.setup is None and self.frame.handler.size < LIGHT


def pack_handler(
    job_id: str,
    handler: Callable[..., Any],
    setup: Callable[[], Any] | None,
    id_rule: str,
    seed: int = 0,
    *,
    transport: HandlerTransport = HandlerTransport.IN_MEMORY,
    argument: str = "handler",
    script: Script | None = None,
    items: Sequence[Any] = (),
) -> PackedHandler:
    """Return the frame with a job's handler for workers. Costs one pickling of its closure per job.

    ``transport`` is which parts may stay in shared memory, ``argument`` the caller's name for the handler; ``script``
    is the main module that the workers have imported. The classes of the first ``items`` are pickled now, others when
    an item first brings them.

    Raises TypeError if it can't be called, `HandlerPicklingError` if it can't be serialized.
    """
    for name, function in ((argument, handler), ("setup", setup)):
        if name != "setup" or function is not None:
            check_callable(function, name, gets_items=name == argument)
    noted = list[Shared[Any]]()
    settings: list[tuple[ContextVar[Any], Any]] = [
        (beside.script, script),
        (beside.namespace, main_names.names_of(handler, setup)),
    ]
    if transport is not HandlerTransport.WHOLE:
        settings.append((beside.noted, noted))
    whole = transport is not HandlerTransport.IN_MEMORY
    brought: list[str] = []

    def pack_both() -> tuple[_Packing, _Packing | None, dict[str, bytes]]:
        pack = _pack if whole or script is not None or setup is not None else _pack_once
        of_handler = pack(argument, handler, whole, brought)
        of_setup = None if setup is None else _pack("setup", setup, whole, brought)
        classes = dict.fromkeys(brought, BROUGHT)
        pin_classes(items[:LOOKED_AT], classes)
        return of_handler, of_setup, classes

    of_handler, of_setup, classes = within(pack_both, *settings)
    made = [of_handler] if of_setup is None else [of_handler, of_setup]
    frame = HandlerFrame(job_id, of_handler.packed, None if of_setup is None else of_setup.packed, str(id_rule), seed)
    if whole:
        from mpqueue._wire.pickling.sources import sources_of

        frame = frame._replace(sources=sources_of(one.packed.data for one in made))
    segments = tuple(one.segment for one in made if one.segment is not None)
    weight = next((one.weight for one in made if one.weight), "")
    return PackedHandler(frame, segments, weight, tuple(noted), name_of(handler), script, classes)


def name_of(handler: Callable[..., Any]) -> str:
    """``scans.read_scan``, ``__main__.<lambda>``; for a partial its function's name, for another object its type's."""
    while type(handler) is not FunctionType and isinstance(handler, functools.partial):
        handler = handler.func
    named: Any = handler if hasattr(handler, "__qualname__") else type(handler)
    module = getattr(named, "__module__", None)  # methods of built-in types have none
    name = str(named.__qualname__)
    return (name if module is None else f"{module}.{name}").replace("<locals>.", "")


#: By identity, the handlers that were pickled last and that nothing can change unnoticed: their parts, the number of
#: modules at that time (submodules that a handler names go with it), and the pickle.
_kept: dict[int, tuple[tuple[Any, ...], int, Packed]] = {}
atexit.register(_kept.clear)  # otherwise the variables of a script outlive it, and are freed after other modules


class _Packing(NamedTuple):
    """A pickled function, the segment with its big parts, and the cause if it is heavy."""

    packed: Packed
    segment: CommonSegment | None = None
    weight: str = ""


def _pack_once(name: str, function: Callable[..., Any], whole: bool, brought: list[str]) -> _Packing:
    """`_pack`, or its last result: a tenth of the time for the handler of many small runs."""
    parts = constant_parts(function) if _lives_on(function) and all_go_by_name() else None
    known = _kept.get(id(function))
    if parts is not None and known is not None and known[1] == len(sys.modules) and are_same(known[0], parts):
        return _Packing(known[2])
    made = _pack(name, function, whole, brought)
    if parts is not None and not brought and can_be_kept(made.packed):
        if len(_kept) >= MAX_KEPT_FUNCTIONS:
            _kept.clear()
        _kept[id(function)] = (parts, len(sys.modules), made.packed)
    return made


def _lives_on(function: Any) -> bool:
    """True for a function of a module, whose variables live as long as the module, whether or not it is kept."""
    if is_module_builtin(function):
        return True
    if type(function) is not FunctionType or type(name := function.__globals__.get("__name__")) is not str:
        return False
    return getattr(sys.modules.get(name), "__dict__", None) is function.__globals__


def _pack(name: str, function: Callable[..., Any], whole: bool, brought: list[str]) -> _Packing:
    try:
        packed, segment = dump_code(function, whole=whole, brought=brought)
    except Exception as error:
        if came_of_signal(error):
            raise
        culprit = find_culprit(function)
        part = "" if culprit is None else f"; what can't be: {culprit}"
        raise HandlerPicklingError(
            f"{name}: expected a callable that can be serialized, got {shown(function)}{part} "
            f"({type(error).__name__}: {error}){_advice(error)}. Nothing was created."
        ) from error
    if packed.size < HEAVY:
        return _Packing(packed, segment)
    weight, culprit = heaviest_part(function, packed.size)
    log.warning(
        "%s: it carries %.0f MB, %.0f MB of them in %s; this is sent once per job. mpqueue.share() sends it once for "
        "many jobs",
        name,
        packed.size / 1e6,
        weight / 1e6,
        culprit,
    )
    return _Packing(packed, segment, culprit)


def _advice(error: Exception) -> str:
    """Return a replacement for a lock or a queue of `multiprocessing`, whose own error names none."""
    of_multiprocessing = isinstance(error, RuntimeError) and "through inheritance" in str(error)
    return "; use the locks and queues of a multiprocessing.Manager() instead" if of_multiprocessing else ""


def heaviest_part(function: Any, size: int) -> tuple[int, str]:
    """Return the size in bytes of the function's heaviest variable, and its name."""
    weights = []
    for name, value in _parts(function):
        with contextlib.suppress(Exception):
            weights.append((weigh_code(value), name))
    return max(weights, default=(size, "its code"))


def find_culprit(function: Any, depth: int = SEARCH_DEPTH) -> str | None:
    """Return the name of the variable that can't be serialized, found by trying each alone; None if there is none."""
    for name, value in _parts(function):
        try:
            weigh_code(value)
        except Exception:  # noqa: BLE001 - whatever pickling raises, this is the culprit
            deeper = find_culprit(value, depth - 1) if depth and _has_parts(value) else None
            described = f"{name}, of type {type(value).__name__}"
            return described if deeper is None else f"{name}: in it {deeper}"
    return None


def _has_parts(value: Any) -> bool:
    if inspect.isfunction(value) or inspect.ismethod(value) or isinstance(value, functools.partial | PackedFunction):
        return True
    # If an object defines its own pickling, its attributes are private.
    is_plain = all(getattr(type(value), name) is getattr(object, name) for name in ("__reduce__", "__reduce_ex__"))
    return is_plain and hasattr(value, "__dict__") and not isinstance(value, type | ModuleType)


def _parts(function: Any) -> Iterator[tuple[str, Any]]:
    """Yield the variables that are sent with a callable, each with a name for people."""
    if isinstance(function, PackedFunction):
        function = function.function
    if isinstance(function, functools.partial):
        yield "the partial's function", function.func
        yield from ((f"the partial's argument {at}", value) for at, value in enumerate(function.args))
        yield from ((f"the partial's argument {name!r}", value) for name, value in function.keywords.items())
    elif inspect.ismethod(function):
        yield "the method's object", function.__self__
    elif inspect.isfunction(function):
        yield from _variables(function)
        defaults, keywords = function.__defaults__ or (), function.__kwdefaults__ or {}
        yield from ((f"the default value {at} of its arguments", value) for at, value in enumerate(defaults))
        yield from ((f"the default value of its argument {name!r}", value) for name, value in keywords.items())
    elif hasattr(function, "__dict__"):
        yield from ((f"the attribute {name!r}", value) for name, value in vars(function).items())


def _variables(function: FunctionType) -> Iterator[tuple[str, Any]]:
    """Yield the variables of the closure, and the global ones that it reads, also in functions inside it."""
    for name, cell in zip(function.__code__.co_freevars, function.__closure__ or (), strict=True):
        with contextlib.suppress(ValueError):  # not filled yet
            yield f"the variable {name!r} of its closure", cell.cell_contents
    variables = function.__globals__
    for name in globals_of(function.__code__):
        if name in variables:
            yield f"the global variable {name!r}", variables[name]
