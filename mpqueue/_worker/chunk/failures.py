"""A handler's exception, made ready to be sent."""

from __future__ import annotations

import traceback
from types import TracebackType

from mpqueue._wire.frames import FailureFrame
from mpqueue._wire.memory.shared import leaving
from mpqueue._wire.pickling.classes import are_same
from mpqueue._wire.pickling.payload import Packed, dump, load_home

_OWN_CODE = "mpqueue._worker."


def pack_failure(error: BaseException, elapsed: float = 0.0, *, charged: bool = True) -> FailureFrame:
    """Return the exception itself if it can be unpickled again (which is tried here), else its stand-in."""
    return FailureFrame(_pack_error(error), stand_in(error), elapsed, charged)


def _pack_error(error: BaseException) -> Packed | None:
    trace = error.__traceback__
    # It is sent as text. If tblib is loaded (distributed does so), it would be pickled frame by frame.
    BaseException.with_traceback(error, None)
    try:
        with leaving:
            packed = dump(error)
        return packed if are_same(type(load_home(packed)), type(error)) else None
    except BaseException:
        return None
    finally:
        BaseException.with_traceback(error, trace)


def stand_in(error: BaseException) -> tuple[str, str, str, tuple[str, ...]]:
    """The arguments of the `RemoteError` that replaces the exception."""
    bases = tuple(_name(base) for base in type(error).__mro__[:-1])
    return bases[0], _text(error), _traceback(error), bases


def _name(kind: type) -> str:
    try:
        return plain_text(f"{kind.__module__}.{kind.__qualname__}")
    except BaseException:  # its metaclass is its own
        return plain_text(f"{type.__getattribute__(kind, '__module__')}.{type.__getattribute__(kind, '__qualname__')}")


def plain_text(text: str) -> str:
    """Return the text as a plain string, without running users' code, even if it is a subclass of str."""
    return str.__str__(text)


def _text(error: BaseException) -> str:
    try:
        return plain_text(str(error))
    except BaseException as broken:
        return f"<its str() raised {_name(type(broken)).removeprefix('builtins.')}>"


def _traceback(error: BaseException) -> str:
    """The traceback as text, from the handler's own frame on."""
    try:
        return "".join(traceback.format_exception(type(error), error, _without_ours(error.__traceback__)))
    except BaseException as broken:
        return f"{_name(type(error))} (its traceback could not be written: {type(broken).__name__})\n"


def _without_ours(trace: TracebackType | None) -> TracebackType | None:
    step = trace
    while step is not None and step.tb_frame.f_globals.get("__name__", "").startswith(_OWN_CODE):
        step = step.tb_next
    return step or trace
