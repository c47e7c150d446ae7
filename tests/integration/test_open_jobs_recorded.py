"""Open jobs with a journal: whatever ends the program, nothing is lost, and nothing that was told runs twice."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from tests.support.journals import lines_of
from tests.support.programs import run_program
from tests.support.systems import not_on_windows

pytestmark = pytest.mark.slow

#: Which items an item brings along, by its value: greater ones.
CHILDREN = {0: (1, 2, 2), 1: (3, 4), 2: (4,), 3: (5, 5), 4: (6,), 5: (), 6: (), 7: (6, 6)}
#: What the user adds.
USER = (0, 7, 0, 5)

#: Runs the job in processes each of which ends at another commit, as if it was killed, then again to another commit,
#: and then to the end. Each line says what was called, and what was told as ended, in one of them.
PROGRAM = """
import ast, functools, os, random, sqlite3, sys
from pathlib import Path
from mpqueue import JobQueue, current_item
from mpqueue.testing import InlinePool

folder, has_ids, children, user = Path(sys.argv[1]), *map(ast.literal_eval, sys.argv[2:])
left, noted = 0, None

class Connection(sqlite3.Connection):
    def execute(self, sql, *arguments):
        global left
        if sql.startswith("PRAGMA synchronous"):
            sql = "PRAGMA synchronous=OFF"
        left -= sql == "COMMIT"
        if left == 0:
            os._exit(9)
        return super().execute(sql, *arguments)

sqlite3.connect = functools.partial(sqlite3.connect, factory=Connection)

def note(what, number):
    os.write(noted, f"{what} {number} ".encode())

def items(numbers):
    return [{"id": number} for number in numbers] if has_ids else [*numbers]

def value(item):
    return item["id"] if has_ids else item

def work(item):
    note("called", value(item))
    current_item().add(items(children[value(item)]))
    return value(item)

def run(path):
    with JobQueue(1, journal=path, backend=InlinePool()) as queue:
        queue.on("job:progress", lambda event: note("told", value(event.item.payload)))
        job = queue.open_job("job", items(user[:2]), work, chunksize=1)
        started = queue.start("job")
        for number in user[2:]:
            queue.add_items("job", items([number]))
        queue.seal("job")
        started.result()
        note("result", repr(sorted(job.results)).replace(" ", ""))

def run_once(path, commits):
    global left, noted
    noted = os.open(f"{path}.noted", os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    child = os.fork()
    if child == 0:
        left = commits
        run(path)
        os._exit(0)
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    os.close(noted)
    print(Path(f"{path}.noted").read_text())
    return code == 0

noted = os.open(os.devnull, os.O_WRONLY)
left = -1
run(folder / "first.db")  # all is imported now
chance = random.Random(5)
for step in range(1, 1000):
    path = folder / f"{step}.db"
    is_whole = run_once(path, step)
    run_once(path, chance.randrange(1, 8))
    run_once(path, -1)
    if is_whole:
        break
"""


@pytest.mark.long(but=["ids"])
@not_on_windows("no forks")
@pytest.mark.parametrize("has_ids", [False, True], ids=["values", "ids"])
def test_whenever_the_program_ends_each_item_ends_once(tmp_path: Path, has_ids: bool) -> None:
    said = run_program(tmp_path, PROGRAM, tmp_path, has_ids, CHILDREN, USER).stdout.splitlines()
    assert len(said) > 4 * 3
    expected = all_of(USER)
    total = len(expected) if has_ids else expected.total()
    for nth in range(0, len(said), 3):
        told, notes = Counter[str](), list[tuple[str, str]]()
        for words in said[nth : nth + 3]:
            notes = [*zip(words.split()[::2], words.split()[1::2], strict=True)]
            called = Counter(number for what, number in notes if what == "called")
            again = Counter(map(str, expected if has_ids else expected.elements())) - told
            assert called <= again, "what was told does not run again"
            told += Counter(number for what, number in notes if what == "told")
        assert notes[-1] == (
            "result",
            repr(sorted(expected) if has_ids else sorted(expected.elements())).replace(" ", ""),
        )
        assert lines_of(tmp_path / f"{nth // 3 + 1}.db")["job"] == ("completed", total, 0, total)
        # Another thread announces what is on disk; the program may end before it does.
        assert told <= (Counter(map(str, expected)) if has_ids else Counter(map(str, expected.elements())))


def all_of(values: Any) -> Counter[int]:
    """What comes of these in the end."""
    found = Counter[int](values)
    for value in values:
        found += all_of(CHILDREN[value])
    return found
