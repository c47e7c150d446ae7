"""Journals keep pickles for years, and pickles name functions and classes of ours by their modules.

Those are where 1.0.0rc1 had them: a module of them that is renamed makes every older journal unreadable.
"""

from __future__ import annotations

import importlib
import re
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from tests.support.programs import run_program

#: What a journal may name, and nothing else of mpqueue but its public modules.
KEPT = {
    "mpqueue._wire.memory.shared": ("_meet",),
    "mpqueue._wire.pickling.main_names": ("_namespace",),
    "mpqueue._wire.pickling.payload": ("Packed",),
    "mpqueue._wire.pickling.rebuilding": ("number_array", "bytes_io"),
    "mpqueue._worker.handlers.called": ("Call", "StarCall", "run_call"),
}

PROGRAM = """
    import array, io
    from functools import partial
    import mpqueue

    class Own:
        def __init__(self, value):
            self.value = value

    def times(factors, item):
        return Own(factors.value[0] * item)

    def pair(one, other):
        return array.array("i", range(30000)), io.BytesIO(b"x" * 100_000)

    if __name__ == "__main__":
        factors = mpqueue.share([2])
        with mpqueue.JobQueue(1, journal="run.db") as queue:
            assert queue.run([1, 2], partial(times, factors)).completed == 2
            job = queue.open_job("open", [[factors, 1], Own(3)], str)
            queue.add_items(job, [Own(4)])
            queue.seal(job)
            assert queue.start(job).result().completed == 3
        assert len(list(mpqueue.starmap(pair, [(1, 2)], journal="stars.db"))) == 1
"""


@pytest.mark.slow
def test_a_journal_names_what_is_where_it_has_always_been(tmp_path: Path) -> None:
    run_program(tmp_path, PROGRAM)
    named = set[str]()
    for path in (tmp_path / "run.db", tmp_path / "stars.db"):
        with closing(sqlite3.connect(path)) as connection:
            written = "\n".join(connection.iterdump()).lower()
        kept = b"".join(file.read_bytes() for file in tmp_path.glob("*.files/*"))
        pickles = [kept, *map(bytes.fromhex, re.findall(r"x'([0-9a-f]*)'", written))]
        named |= {found.decode() for data in pickles for found in re.findall(rb"mpqueue\._[\w.]+", data)}
    assert {"mpqueue._wire.pickling.main_names", "mpqueue._wire.memory.shared"} <= named <= {*KEPT}


def test_what_journals_name_is_there() -> None:
    for module, names in KEPT.items():
        assert all(hasattr(importlib.import_module(module), name) for name in names)
