"""The choice of a queue's engine and journal; refuses options that the engine does not support."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

from mpqueue._core.commands import Capabilities
from mpqueue._core.state.item_table import DISCARD
from mpqueue._engines.loky.loky_pool import LokyBackend
from mpqueue._options import GivenOptions, JobOptions, QueueOptions
from mpqueue._parent.lane_protocol import Backend
from mpqueue._plain import plain
from mpqueue._wire.pickling.script import Script, script_here
from mpqueue.errors import shown

if TYPE_CHECKING:
    from mpqueue._core.state.item_table import ItemTable
    from mpqueue._core.state.resources import JobNeeds


_DASK = "dask://"
_WHICH = "'loky' or a Backend (see mpqueue.backends), 'dask://HOST:PORT' or 'ray'"


def choose_backend(backend: str | Backend) -> Backend:
    """Return the engine of that name, connected to its cluster, or the given engine.

    Raises TypeError or ValueError for anything else, and the engine's own errors.
    """
    if isinstance(backend, str):
        return _named(backend)
    able = isinstance(getattr(backend, "capabilities", None), Capabilities) and hasattr(backend, "open")
    if isinstance(backend, type) or not able:
        raise TypeError(f"backend: expected {_WHICH}, got {shown(backend)} of type {type(backend).__name__}")
    return backend


def _named(name: str) -> Backend:
    if name == "loky":
        return LokyBackend()
    if name.startswith(_DASK) and len(name) > len(_DASK):
        from mpqueue.backends import DaskBackend  # an extra

        return DaskBackend(f"tcp://{name.removeprefix(_DASK)}")
    if name == "ray" or name.startswith("ray://"):
        from mpqueue.backends import RayBackend  # an extra

        return RayBackend(None if name == "ray" else name)  # raises: the error says why such an address is refused
    raise ValueError(f"backend: expected {_WHICH}, got {shown(name)}")


def script_for(backend: Backend, *, starts_now: bool) -> Script | None:
    """The main module that a drop-in's workers import; None if they import none: see `script_here`."""
    able = backend.capabilities
    return script_here(starts_now=starts_now) if able.own_processes and able.is_here else None


def journal_path(journal: str | os.PathLike[str] | None) -> str | None:
    """Return the journal's full path. Raises TypeError or ValueError if it is no path."""
    if journal is None:
        return None
    try:
        path = os.fspath(journal)
    except TypeError:
        raise TypeError(f"journal: expected a path, got {shown(journal)} of type {type(journal).__name__}") from None
    if not isinstance(path, str) or not path or "\0" in path:  # type: ignore[redundant-expr]
        raise ValueError(f"journal: expected the path of a file as text, got {shown(path)}")
    from mpqueue._parent.journal.checks import own_path  # only journals need it

    return own_path(plain(path))


def discards(results: Any) -> bool:
    """True if the option ``results`` means that results are discarded."""
    return isinstance(results, str) and results == DISCARD


def choose_sink(results: Any, journal: str | None = None) -> Any:
    """Return the sink, `DISCARD`, or None if results are kept. ``journal`` is the queue's.

    Raises TypeError or ValueError for anything else, and the errors of the sink's own check.
    """
    if isinstance(results, str):
        if results not in ("keep", DISCARD):
            raise ValueError(f"results: expected 'keep', 'discard' or a sink, got {shown(results)}")
        return DISCARD if results == DISCARD else None
    from mpqueue._output.row_outlet import check_sink  # few programs need it

    check_sink(results, journal)
    return results


def check_queue(
    backend: Backend, options: QueueOptions, *, has_initializer: bool = False, has_preload: bool = False
) -> None:
    """Raise ValueError if the queue's options need something that the engine can't do."""
    able = backend.capabilities
    _refuse_limit(backend, "timeout", options.timeout)
    limits = options.per_worker
    _refuse_limit(backend, "per_worker['setup_timeout']", limits.setup_timeout)
    if limits.memory is not None and able.is_here and not able.shares_memory:
        raise ValueError(f"per_worker['memory']: expected None, since {backend!r} has workers that can't be measured")
    if limits.threads is not None and not able.own_processes:
        raise ValueError(
            f"per_worker['threads']: expected None, since the workers of {backend!r} are not started by mpqueue"
        )
    if has_preload and not able.can_fork:
        where = (
            "this system has no safe fork" if able.own_processes else f"the workers of {backend!r} are not forked here"
        )
        raise ValueError(f"preload: expected None, since {where}; use initializer or setup to import early")
    if options.gpu_env and not (able.own_processes and able.is_here):
        why = "not started by mpqueue" if able.is_here else "on several machines, whose GPUs are not counted"
        raise ValueError(f"gpu_env: expected False, since the workers of {backend!r} are {why}")
    if options.gpu_env and (has_initializer or has_preload):
        name = "initializer" if has_initializer else "preload"
        raise ValueError(f"{name}: expected None with gpu_env=True, since it runs before a worker knows its GPU")


def check_job(backend: Backend, options: JobOptions) -> None:
    """Raise ValueError if a job's options need something that the engine can't do."""
    _refuse_limit(backend, "timeout", options.timeout)
    if options.capture_output and not backend.capabilities.own_processes:
        raise ValueError(f"capture_output: expected False, since the processes of {backend!r} run other things too")


def choose_needs(
    asked: GivenOptions,
    table: ItemTable | None,
    options: QueueOptions,
    backend: Backend,
    concurrency: int,
) -> JobNeeds | None:
    """Return the items' needs by ``uses``; None without it. ``table`` is None if the items come later.

    Raises TypeError or ValueError, and the functions' errors.
    """
    uses = asked.uses
    if uses is None:
        return None
    from mpqueue._core.state.resources import Supply, any_function, check_needs  # few programs need it
    from mpqueue._parent.running import memory_supply

    able, why = backend.capabilities, ""
    if not (able.own_processes and able.is_here):
        where = (
            "not started by mpqueue" if able.is_here else "on several machines, whose CPUs and memory are not counted"
        )
        why = f"the workers of {backend!r} are {where}"
    if table is None and any_function(uses):
        raise ValueError("uses: expected numbers where the items are still to come, got functions")
    return check_needs(uses, table, Supply(concurrency, options.resources, memory_supply, why))


def _refuse_limit(backend: Backend, name: str, seconds: float | None) -> None:
    if seconds is not None and not backend.capabilities.own_processes:
        raise ValueError(f"{name}: expected None, since {backend!r} can't end an item that runs; got {seconds!r}")
