"""A worker's preloads: modules to import or a function to call, for ``preload``; or the main module to import.

The process that forks the workers does it; a worker that is started the ordinary way, as always if it imports the main
module, does it itself.
"""

from __future__ import annotations

import functools
import importlib
import traceback
from collections.abc import Callable

from mpqueue._wire.pickling import main_names
from mpqueue._wire.pickling.payload import Packed, load
from mpqueue._wire.pickling.script import Script
from mpqueue.errors import WorkerStartError, shown

#: Modules to import, or a function to call; or the program's main module.
Preload = tuple[str, ...] | Packed | Script

#: The most characters of a text about a failure.
MAX_TEXT = 1 << 13

#: What the process that this worker was forked from has done.
done: Preload | None = None


def steps(preload: Preload) -> list[tuple[str, Callable[[], object]]]:
    """Return the steps to do, each with its name."""
    if isinstance(preload, Script):
        return [(f"importing {preload.path} in a worker", functools.partial(_import_main, preload))]
    if isinstance(preload, Packed):
        return [("calling the function", lambda: main_names.run_initializer(lambda: load(preload)))]
    return [(f"importing {name!r}", functools.partial(importlib.import_module, name)) for name in preload]


def _import_main(script: Script) -> None:
    script()
    from mpqueue._worker.log_records import leave_to_the_program  # the program has this module without that one

    leave_to_the_program()


def text_of_failure(what: str, error: BaseException) -> str:
    """Return the text about a step that has raised."""
    return f"{what} has failed: {type(error).__name__}: {shown(error)}"[:MAX_TEXT]


def failure(text: str, where: str, argument: str = "preload: ") -> WorkerStartError:
    """Return the error that jobs end with if a step has failed; ``where`` is the traceback."""
    error = WorkerStartError(f"{argument}{text}")
    error.add_note(where)
    return error


def do_all(preload: Preload) -> None:
    """Do all steps, unless they are ``done``. Raises `WorkerStartError`."""
    if preload == done:
        return
    for what, step in steps(preload):
        try:
            step()
        except BaseException as error:
            text, where = text_of_failure(what, error), traceback.format_exc()[-MAX_TEXT:]
            raise failure(text, where, "" if isinstance(preload, Script) else "preload: ") from None
