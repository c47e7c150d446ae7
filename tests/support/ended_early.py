"""A call in forks of this process, each of which ends at a later statement of the journal, as if it was killed."""

from __future__ import annotations

import itertools
import os
import shutil
from collections.abc import Callable
from pathlib import Path

from tests.support.disk import watched


def end_at_each(
    made: Path, folder: Path, use: Callable[[Path], object], counts: Callable[[str], bool] = lambda sql: True
) -> int:
    """Use copies of the folder ``made``, each until the next one of the statements that count.

    The copies are in ``folder``, by their numbers from 1 on. Returns that of the last one, which was used to the end.
    """
    with watched() as disk:
        disk.syncs = False
        shutil.copytree(made, folder / "first")
        use(folder / "first")  # all is imported now
        for step in itertools.count(1):
            shutil.copytree(made, folder / str(step))
            child = os.fork()
            if child == 0:
                left = iter(range(step - 1))

                def end_in_time(sql: str, _: object) -> None:
                    if counts(sql) and next(left, None) is None:  # noqa: B023 - in the child only
                        os._exit(9)

                disk.before = end_in_time
                use(folder / str(step))
                os._exit(0)
            if os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0:
                return step
    raise AssertionError("no step was the last")
