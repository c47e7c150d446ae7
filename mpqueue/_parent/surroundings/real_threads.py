"""A check that threads are threads: gevent may have put greenlets in their place."""

from __future__ import annotations

import sys
from typing import Any

#: What of `gevent.monkey.patch_all` a queue can't work with, by the name of its argument: the module that it patches.
_NEEDED = {"thread": "threading", "queue": "queue", "select": "select"}


def what_is_patched() -> list[str]:
    """Return the arguments of `patch_all` that have patched what a queue needs. 0.1 us without gevent."""
    monkey: Any = sys.modules.get("gevent.monkey")
    if monkey is None:
        return []
    return [name for name, module in _NEEDED.items() if monkey.is_module_patched(module)]


def check_real() -> None:
    """Raise RuntimeError if gevent has patched what a queue needs as it is.

    A queue waits for its workers on threads of its own. As greenlets these run only while the program waits, and locks
    that were made before the patch are never released: both wait for ever.
    """
    if patched := what_is_patched():
        leave_out = ", ".join(f"{name}=False" for name in _NEEDED)
        raise RuntimeError(
            "expected real threads, got greenlets, with which a queue would wait for ever: gevent.monkey has patched "
            f"{', '.join(patched)}; call gevent.monkey.patch_all({leave_out}), or use the queue in a process of its own"
        )


def prepare_to_leave() -> None:
    """Let gevent set itself up here, before anything wakes the threads that were there before its patch.

    Each of them gets a hub of its own when it next waits, and a program's first hub imports, under locks that are
    greenlets' by then: two threads at once, or one and the interpreter's exit, would wait for each other for ever
    (gevent 26.9). What the first hub has imported is kept for all.
    """
    sys.modules["gevent"].get_hub()
