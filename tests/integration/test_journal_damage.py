"""What others do to the files of a journal, while it is open and after: it is noticed, and nothing is lost by it."""

from __future__ import annotations

import io
import os
import random
import re
import shutil
import sqlite3
import threading
from collections.abc import Callable
from contextlib import closing, redirect_stderr, redirect_stdout, suppress
from itertools import islice
from pathlib import Path
from typing import Any

import pytest

from mpqueue import JobQueue
from mpqueue.errors import JobNotFoundError, JournalError
from mpqueue.events import JOB_FINISHED
from tests.support import handlers as do
from tests.support.command_line import main
from tests.support.disk import Disk
from tests.support.forks import fork_that_lives_on
from tests.support.journal_writer import ITEMS, result_of
from tests.support.journals import Cell, cells_of, is_free, lines_of, queue_of, recorded, rows_of, values_of
from tests.support.kinds import EACH_KIND, Kind
from tests.support.length import IS_LONG
from tests.support.programs import run_program, start_program
from tests.support.recorder import Recorder
from tests.support.systems import not_on_windows
from tests.support.waiting import Gate, wait_until

pytestmark = pytest.mark.usefixtures("forked_workers")

WRITER = """
import sys
from pathlib import Path
from tests.support.journal_writer import write_journal
from tests.support.waiting import wait_until

def tell(chunk):
    print(chunk, flush=True)
    if chunk in sys.argv[3:]:
        wait_until(Path(sys.argv[2], f"after {chunk}").exists)

write_journal("list", Path(sys.argv[1], "run.db"), tell)
"""
#: The chunk after which the older copy is made, and after which the program ends.
OLDER, LAST = 5, 11


@pytest.fixture(scope="module")
def killed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the journal of a killed program, and one with an older copy of it."""
    folder = tmp_path_factory.mktemp("killed")
    (folder / "now").mkdir()
    with start_program(folder, WRITER, folder / "now", folder, OLDER, LAST) as program:
        assert program.stdout is not None
        while (chunk := int(program.stdout.readline())) != LAST:
            if chunk == OLDER:
                shutil.copytree(folder / "now", folder / "older")
                (folder / f"after {chunk}").touch()
        program.kill()
        program.communicate()
    return folder


def flip(name: str, at: float) -> Callable[[Path, Path], None]:
    """A bit of that byte; where it is a fraction, of the file's size."""

    def damage(folder: Path, _: Path) -> None:
        content = bytearray((folder / name).read_bytes())
        content[at if isinstance(at, int) else int(at * len(content))] ^= 1
        (folder / name).write_bytes(content)

    return damage


def remove(*names: str) -> Callable[[Path, Path], None]:
    def damage(folder: Path, _: Path) -> None:
        for name in names:
            (folder / name).unlink()

    return damage


def empty(folder: Path, _: Path) -> None:
    os.truncate(folder / "run.db", 0)


def put_older_back(folder: Path, older: Path) -> None:
    for name in ("run.db", "run.db-wal"):
        shutil.copy(older / name, folder / name)


def cut_log(folder: Path, _: Path) -> None:
    os.truncate(folder / "run.db-wal", os.path.getsize(folder / "run.db-wal") // 2)


DAMAGES = {
    "emptied": empty,
    "deleted": remove("run.db"),
    "deleted with its log": remove("run.db", "run.db-wal", "run.db-shm"),
    "log deleted": remove("run.db-wal", "run.db-shm"),
    "log cut": cut_log,
    "a bit of the log's magic number": flip("run.db-wal", 2),
    "a bit of the log's salt": flip("run.db-wal", 17),
    "a bit of the log's checksum": flip("run.db-wal", 31),
    "a bit of the log's first frame": flip("run.db-wal", 40),
    "a bit in the middle of the log": flip("run.db-wal", 0.5),
    "a bit of the log's last frame": flip("run.db-wal", -1),
    "an older one": put_older_back,
}


def contents(folder: Path) -> dict[str, bytes]:
    return {
        str(found.relative_to(folder)): found.read_bytes()
        for found in folder.rglob("*")
        if found.is_file() and found.suffix != ".db-shm"
    }


#: The items that are on disk when the program is killed, and those of the older copy.
DONE, OLDER_DONE = {*range((LAST + 1) * ITEMS)}, {*range((OLDER + 1) * ITEMS)}


def done_in(path: Path) -> set[int]:
    """The items that are done in a journal, which nobody opens to write."""
    return {row["id"] for row in rows_of(path, "job", "id", "status") if row["status"] == "completed"}


def check_results(path: Path) -> None:
    """Each is what it was."""
    with queue_of(path) as queue:
        for job in queue.jobs():
            for item in job.items:
                assert item.result == (result_of(item.payload) if item.status == "completed" else None)


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_journal_that_has_lost_something_is_refused_and_nothing_is_removed(
    killed: Path, tmp_path: Path, damage: str
) -> None:
    folder = tmp_path / "now"
    shutil.copytree(killed / "now", folder)
    DAMAGES[damage](folder, killed / "older")
    path, before = folder / "run.db", contents(folder)
    for _ in range(2):
        with pytest.raises(JournalError, match=r"expected all \d+ commits of process \d+.*remove .*run.db.lock"):
            queue_of(path)
        assert contents(folder) == before
    (folder / "run.db.lock").unlink()
    files = values_of(path)
    if damage in ("emptied", "deleted", "deleted with its log"):
        with pytest.raises(JournalError, match="expected the journal to which"):
            queue_of(path)
        assert contents(folder).keys() == before.keys() - {"run.db.lock"}
    else:
        queue_of(path).close()
        assert done_in(path) <= DONE
        check_results(path)
    assert values_of(path) == files


def test_looking_at_a_journal_whose_log_is_damaged_says_that_something_is_missing(
    killed: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder = tmp_path / "now"
    shutil.copytree(killed / "now", folder)
    path = folder / "run.db"
    assert done_in(path) == DONE
    assert caplog.messages == []
    flip("run.db-wal", 0.5)(folder, folder)
    assert done_in(path) < DONE
    (message,) = caplog.messages  # once for each reader
    assert re.search(r"expected all \d+ commits of process \d+, got only \d+ of them.*what is left", message)


def test_a_journal_whose_program_was_killed_has_all_that_was_on_disk(killed: Path, tmp_path: Path) -> None:
    shutil.copytree(killed / "now", tmp_path / "now")
    path = tmp_path / "now" / "run.db"
    queue_of(path).close()
    assert done_in(path) == DONE
    check_results(path)
    assert not (tmp_path / "now" / "run.db.lock").exists()


def test_an_older_journal_that_is_put_back_deletes_no_newer_results(
    killed: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    shutil.copytree(killed / "now", tmp_path / "now")
    path = tmp_path / "now" / "run.db"
    queue_of(path).close()  # it ends as it should
    newest = path.read_bytes()
    put_older_back(tmp_path / "now", killed / "older")
    queue_of(path).close()
    assert done_in(path) == OLDER_DONE
    assert re.search("1 (big value|file)", caplog.text)
    path.write_bytes(newest)
    assert done_in(path) == DONE


def changed(content: bytes, other: bytes, chance: random.Random) -> bytes:
    """With another bit, or cut off, or the other."""
    data, how = bytearray(content), chance.randrange(4)
    if how == 0 and other != content:
        return other
    if how == 1:
        return bytes(data[: chance.randrange(len(data))])
    data[chance.randrange(len(data))] ^= 1 << chance.randrange(8)
    return bytes(data)


def change(path: Path, cell: Cell, chance: random.Random) -> None:
    """Spoil this value, or remove its row."""
    table, column, row = cell
    with closing(sqlite3.connect(path)) as connection:
        query = f"SELECT rowid, {column} FROM {table} WHERE typeof({column}) = 'blob'"
        contents = dict(connection.execute(query).fetchall())
        content = changed(contents[row], chance.choice([*contents.values()]), chance)
        with suppress(sqlite3.IntegrityError):  # there is one like it
            connection.execute(f"UPDATE {table} SET {column} = ? WHERE rowid = ?", (content, row))
        if chance.random() < 0.2:
            connection.execute(f"DELETE FROM {table} WHERE rowid = ?", (row,))
        connection.commit()


ran: list[int] = []


def work(item: Any) -> Any:
    """In this process, which so knows what ran. Some results are big."""
    number = item["id"] if isinstance(item, dict) else item
    ran.append(number)
    return bytes([number]) * 300_000 if number % 15 == 7 else number * number


@pytest.mark.slow
@pytest.mark.long(but=["values-list", "ids-open"])
@EACH_KIND
@pytest.mark.parametrize("has_ids", [False, True], ids=["values", "ids"])
def test_whatever_is_damaged_or_exchanged_no_result_is_wrong_and_only_what_is_lost_runs_again(
    tmp_path: Path, disk: Disk, kind: Kind, has_ids: bool
) -> None:
    disk.syncs = False
    items: list[Any] = [{"id": number} if has_ids else number for number in range(40)]
    whole, place = tmp_path / "whole", tmp_path / "now"
    whole.mkdir()
    expected = kind.run(work, items, whole / "run.db", chunksize=5)
    path, costs = place / "run.db", list[int | None]()
    cells: list[Cell | str] = [*cells_of(whole / "run.db"), *(file.name for file in values_of(whole / "run.db"))]
    for seed, cell in islice(enumerate(cells), None, None, 1 if IS_LONG else 2):
        shutil.rmtree(place, ignore_errors=True)
        shutil.copytree(whole, place)
        chance, values = random.Random(seed), values_of(path)
        if isinstance(cell, str):
            file = values[0].with_name(cell)
            file.write_bytes(changed(file.read_bytes(), chance.choice(values).read_bytes(), chance))
        else:
            change(path, cell, chance)
        try:
            check_whole(path, items, expected)
            ran.clear()
            assert kind.run(work, items, path) == expected
            costs.append(len(ran))
        except (JournalError, JobNotFoundError):
            costs.append(None)
    assert sum(cost is not None and cost <= 5 for cost in costs) >= 8, costs


def check_whole(path: Path, items: list[Any], expected: list[Any]) -> None:
    """What a job has of results is right, as far as it is told whose they are."""
    with recorded(path) as job:
        for item in job.items:
            if item.status == "completed" and item.payload in items and "<unreadable" not in repr(item.result):
                assert item.result == expected[items.index(item.payload)]


# -- while it is open --------------------------------------------------------------------------------------------------


ANOTHER = """
import sqlite3, sys
from mpqueue import JobQueue
from mpqueue.errors import JournalError
try:
    JobQueue(1, journal=sys.argv[1])
except JournalError as error:
    print(error)
connection = sqlite3.connect(sys.argv[1])
print(connection.execute("SELECT count(*) FROM sqlite_master").fetchone()[0] > 0)
connection.close()
"""


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """A folder for the journal alone."""
    (tmp_path / "home").mkdir()
    return tmp_path / "home"


@pytest.mark.slow
def test_a_copy_made_inside_the_program_lets_no_other_program_end_the_log(home: Path, tmp_path: Path) -> None:
    path, waiting = home / "run.db", Gate(tmp_path / "gate")
    with JobQueue(1, journal=path) as queue:
        queue.run(range(5), do.succeed, id="first")
        queue.create_job("job", range(5), do.only(3, do.block_until_told(waiting)), chunksize=1)
        run = queue.start("job")
        shutil.copytree(home, tmp_path / "copy")
        said = run_program(tmp_path, ANOTHER, path).stdout
        assert f"process {os.getpid()} has open" in said
        assert said.split()[-1] == "True"
        assert (home / "run.db-wal").exists()
        waiting.open()
        assert run.result(300).completed == 5
    with JobQueue(1, journal=path) as queue:
        assert [queue.load_job(name).completed for name in ("first", "job")] == [5, 5]


@not_on_windows("no forks")
def test_a_fork_keeps_nothing_of_a_journal_open(home: Path) -> None:
    path = home / "run.db"
    queue = queue_of(path)
    with fork_that_lives_on():
        queue.close()
        assert not (home / "run.db-wal").exists()
        assert is_free(path)


STAYS = not_on_windows("SQLite's files stay where they are while they are open")


def replaced(path: Path, aside: Path) -> None:
    shutil.copytree(path.parent, aside.parent / "other")
    os.replace(path, aside)
    os.replace(aside.parent / "other" / "run.db", path)


@pytest.mark.slow
@pytest.mark.long(but=["moved", "lock removed"])
@pytest.mark.parametrize("how", [*(pytest.param(how, marks=STAYS) for how in ("moved", "replaced")), "lock removed"])
def test_a_journal_that_is_taken_away_stops_loudly_and_goes_on_when_it_is_back(
    home: Path, tmp_path: Path, how: str
) -> None:
    path, aside, waiting = home / "run.db", tmp_path / "aside.db", Gate(tmp_path / "gate")
    taken = Path(f"{path}.lock") if how == "lock removed" else path
    with JobQueue(1, journal=path, max_retries=0) as queue:
        recorder = Recorder(queue)
        queue.create_job("job", range(6), do.only(2, do.block_until_told(waiting)), chunksize=1)
        run = queue.start("job")
        wait_until(lambda: waiting.arrived() != set(), what="the item that waits")
        if how == "replaced":
            replaced(path, aside)
        else:
            os.replace(taken, aside)
        waiting.open()
        with pytest.raises(JournalError, match=r"expected the .*run\.db"):
            run.result(300)
        os.replace(aside, taken)
        recorder.wait_for(JOB_FINISHED)
        assert run.result(300).completed == 6
    with JobQueue(1, journal=path) as queue:
        assert queue.load_job("job").completed == 6
        assert queue.load_job("job").results == list(range(6))


@pytest.mark.slow
@STAYS
def test_a_journal_that_is_removed_is_told_and_what_runs_is_not_lost_silently(home: Path, tmp_path: Path) -> None:
    path, waiting = home / "run.db", Gate(tmp_path / "gate")
    queue = JobQueue(1, journal=path, max_retries=0)
    queue.create_job("job", range(6), do.only(2, do.block_until_told(waiting)), chunksize=1)
    run = queue.start("job")
    wait_until(lambda: waiting.arrived() != set(), what="the item that waits")
    path.unlink()
    waiting.open()
    with pytest.raises(JournalError, match="got nothing there"):
        run.result(300)
    with pytest.raises(JournalError, match="will run again"):
        queue.close()
    assert run.done()


@STAYS
@pytest.mark.parametrize("names", [("run.db-wal",), ("run.db-wal", "run.db-shm"), ("run.db-shm",)])
def test_a_log_that_is_removed_while_it_is_open_is_saved(
    home: Path, names: tuple[str, ...], caplog: pytest.LogCaptureFixture
) -> None:
    path = home / "run.db"
    with JobQueue(1, journal=path) as queue:
        queue.run(range(5), do.succeed, id="first")
        for name in names:
            (home / name).unlink()
        queue.run(range(5), do.succeed, id="second")
        assert (home / "run.db-wal").exists()
        queue.run(range(5), do.succeed, id="third")
    assert "nothing of it is lost" in caplog.text
    with JobQueue(1, journal=path) as queue:
        assert [queue.load_job(name).completed for name in ("first", "second", "third")] == [5, 5, 5]


# -- readers -----------------------------------------------------------------------------------------------------------


def test_a_reader_never_takes_a_journal_that_is_being_made_for_a_damaged_one(home: Path, disk: Disk) -> None:
    path, said, looking = home / "run.db", set[str](), threading.local()

    def look(_: str, __: object) -> None:
        if getattr(looking, "now", False):
            return
        looking.now = True
        with redirect_stdout(io.StringIO()), redirect_stderr(io.StringIO()) as refused:
            main(["status", str(path)])
        said.add(refused.getvalue().rpartition("run.db: ")[2].strip())
        looking.now = False

    disk.before = look
    queue_of(path).close()
    assert said == {"expected a journal, got a name that is not there", f"no jobs in {path}"}


def test_a_reader_asks_again_where_a_writer_came_and_went_meanwhile(home: Path, disk: Disk) -> None:
    path, came = home / "run.db", list[str]()

    def write_once(sql: str, _: object) -> None:
        """A program runs a job between the opening and the first look."""
        if not came:
            came.append(sql)
            with queue_of(path) as queue:
                queue.run(range(500), do.return_value(b"x" * 1000), id="job")

    with queue_of(path) as queue:
        queue.run(range(5), do.succeed, id="first")
    disk.before = write_once
    assert {name: line.completed for name, line in lines_of(path).items()} == {"first": 5, "job": 500}
    assert came


@pytest.mark.slow
def test_looking_whether_a_journal_is_in_use_never_refuses_one_that_opens_it(home: Path) -> None:
    path, stop = home / "run.db", threading.Event()

    def look() -> None:
        while not stop.is_set():
            lines_of(path)

    thread = threading.Thread(target=look)
    thread.start()
    try:
        for _ in range(50):
            queue_of(path).close()
    finally:
        stop.set()
        thread.join()
