"""What others do to the files of a journal, while it is open and after: it is noticed, and nothing is lost by it."""

from __future__ import annotations

import os
import random
import re
import shutil
import sqlite3
import threading
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from mpqueue import JobQueue
from mpqueue._core.state.item_table import make_table
from mpqueue._parent.journal import journal_reader
from mpqueue._parent.journal.guards.journal_lock import is_held
from mpqueue._parent.journal.items.matching import BLOCK
from mpqueue._parent.journal.journal_file import folder_of, open_to_read
from mpqueue._parent.journal.journal_reader import Reader
from mpqueue._parent.journal.journal_writer import Journal
from mpqueue.errors import JournalError, JournalMismatchError
from mpqueue.events import JOB_FINISHED
from mpqueue.status import COMPLETED
from tests.support import handlers as do
from tests.support.forks import fork_that_lives_on
from tests.support.journal_writer import ITEMS, result_of
from tests.support.programs import start_program
from tests.support.recorder import Recorder
from tests.support.systems import not_on_windows
from tests.support.waiting import Gate, wait_until

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("forked_workers")]

WRITER = """
import sys, threading
from pathlib import Path
from mpqueue._parent.journal.journal_file import connect
from tests.support.journal_writer import write_journal
from tests.support.waiting import wait_until

def tell(chunk):
    print(chunk, flush=True)
    if chunk in sys.argv[3:]:
        wait_until(Path(sys.argv[2], f"after {chunk}").exists)

write_journal(Path(sys.argv[1], "run.db"), connect, tell)
"""
#: The chunk after which the older copy is made, and after which the program ends.
OLDER, LAST = 7, 19


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


def done_in(path: Path) -> set[int]:
    """The chunks that are in a journal, each of which is as it was written."""
    reader = Reader(str(path))
    job = reader.find("job")
    if job is None:
        return set()
    table = make_table(range(job.total))
    assert reader.fill(table, job) == []
    done = {index // ITEMS for index, code in enumerate(table.status) if code == COMPLETED}
    for chunk in done:
        for index in range(chunk * ITEMS, (chunk + 1) * ITEMS):
            assert table.result_of(index) == result_of(index)
    return done


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
            Journal(str(path), lambda: 0.0)
        assert contents(folder) == before
    (folder / "run.db.lock").unlink()
    files = {found.name for found in folder_of(str(path)).iterdir()}
    if damage in ("emptied", "deleted", "deleted with its log"):
        with pytest.raises(JournalError, match="expected the journal to which"):
            Journal(str(path), lambda: 0.0)
        assert contents(folder).keys() == before.keys() - {"run.db.lock"}
    else:
        Journal(str(path), lambda: 0.0).close()
        assert done_in(path) <= set(range(LAST + 1))
    assert {found.name for found in folder_of(str(path)).iterdir()} == files


def test_looking_at_a_journal_whose_log_is_damaged_says_that_something_is_missing(
    killed: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder = tmp_path / "now"
    shutil.copytree(killed / "now", folder)
    path = folder / "run.db"
    assert done_in(path) == set(range(LAST + 1))
    assert caplog.messages == []
    flip("run.db-wal", 0.5)(folder, folder)
    assert done_in(path) < set(range(LAST + 1))
    (message,) = caplog.messages  # once for each reader
    assert re.search(r"expected all \d+ commits of process \d+, got only \d+ of them.*what is left", message)


def test_a_journal_whose_program_was_killed_has_all_that_was_on_disk(killed: Path, tmp_path: Path) -> None:
    shutil.copytree(killed / "now", tmp_path / "now")
    path = tmp_path / "now" / "run.db"
    Journal(str(path), lambda: 0.0).close()
    assert done_in(path) == set(range(LAST + 1))
    assert not (tmp_path / "now" / "run.db.lock").exists()
    Journal(str(path), lambda: 0.0).close()


def test_an_older_journal_that_is_put_back_deletes_no_newer_results(
    killed: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    shutil.copytree(killed / "now", tmp_path / "now")
    path = tmp_path / "now" / "run.db"
    Journal(str(path), lambda: 0.0).close()  # it ends as it should
    newest = path.read_bytes()
    put_older_back(tmp_path / "now", killed / "older")
    Journal(str(path), lambda: 0.0).close()
    assert done_in(path) == set(range(OLDER + 1))
    assert "3 files" in caplog.text
    path.write_bytes(newest)
    assert done_in(path) == set(range(LAST + 1))


def bodies_of(path: Path) -> list[tuple[str, str, int]]:
    """All bodies and files that say what became of items: where it is, its column, its row."""
    with closing(sqlite3.connect(path)) as connection:
        rows = [number for (number,) in connection.execute("SELECT number FROM chunks")]
    files = [("file", str(found), 0) for found in sorted(folder_of(str(path)).iterdir())]
    return [("row", column, number) for number in rows for column in ("body", "slots")] + files


def change(path: Path, where: tuple[str, str, int], rng: random.Random) -> None:
    """Flip a bit, cut something off, or put another one's content there."""
    kind, name, number = where

    def changed(content: bytes, other: bytes) -> bytes:
        data, how = bytearray(content), rng.randrange(4)
        if how == 0 and other != content:
            return other
        if how == 1:
            return bytes(data[: rng.randrange(len(data))])
        data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
        return bytes(data)

    if kind == "file":
        others = sorted(folder_of(str(path)).iterdir())
        Path(name).write_bytes(changed(Path(name).read_bytes(), rng.choice(others).read_bytes()))
        return
    with closing(sqlite3.connect(path)) as connection:
        query = f"SELECT {name} FROM chunks WHERE number = ?"
        other = rng.choice(connection.execute("SELECT number FROM chunks").fetchall())[0]
        contents = [connection.execute(query, (each,)).fetchone()[0] for each in (number, other)]
        connection.execute(f"UPDATE chunks SET {name} = ? WHERE number = ?", (changed(*contents), number))
        connection.commit()


def test_whatever_is_damaged_or_exchanged_no_result_is_wrong_and_only_its_items_run_again(
    killed: Path, tmp_path: Path
) -> None:
    shutil.copytree(killed / "now", tmp_path / "now")
    path = tmp_path / "now" / "run.db"
    Journal(str(path), lambda: 0.0).close()
    good, files = path.read_bytes(), {found: found.read_bytes() for found in folder_of(str(path)).iterdir()}
    places = bodies_of(path)
    assert len(places) == 2 * (LAST + 1) + 4
    for seed, where in enumerate(places):
        rng = random.Random(seed)
        change(path, where, rng)
        reader = Reader(str(path))
        job = reader.find("job")
        assert job is not None
        table = make_table(range(job.total))
        lost = reader.fill(table, job)
        for index, code in enumerate(table.status):
            if code == COMPLETED and index not in lost:
                assert table.result_of(index) == result_of(index)
        kind, column, number = where
        if kind == "file":
            assert len(lost) == 1, where
        elif column == "body":
            assert len(lost) == ITEMS, where
        assert sum(code == COMPLETED for code in table.status) >= (LAST + 1 - number) * ITEMS
        path.write_bytes(good)
        for found, content in files.items():
            found.write_bytes(content)


@pytest.fixture(scope="module")
def ended(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The journal of a job that has ended, of more items than one row tells of, and of a job whose items have ids."""
    path = tmp_path_factory.mktemp("ended") / "run.db"
    with JobQueue(1, journal=path) as queue:
        for job_id, items in LISTS.items():
            queue.create_job(job_id, items, do.succeed)
            queue.start(job_id).result()
    return path


LISTS: dict[str, list[Any]] = {"numbers": [*range(5000)], "named": [{"id": number} for number in range(5000)]}

BAD = (
    "UPDATE {0} SET {1} = CAST(x'00' || {1} AS BLOB)",
    "UPDATE {0} SET {1} = CAST({1} AS TEXT)",  # one bit of its type
    "DELETE FROM {0}",
)


@pytest.mark.parametrize("job_id", LISTS)
@pytest.mark.parametrize("damage", BAD)
def test_damage_to_what_the_items_are_costs_these_items_only(
    ended: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture, job_id: str, damage: str
) -> None:
    path = tmp_path / "run.db"
    shutil.copy(ended, path)
    number = 1 + [*LISTS].index(job_id)
    with closing(sqlite3.connect(path)) as connection:
        connection.execute(f"{damage.format('slots', 'body')} WHERE job = {number} AND first = 0")
        connection.commit()
    with JobQueue(1, journal=path) as queue:
        with pytest.raises(JournalMismatchError, match=f"{BLOCK} new, {BLOCK} gone"):
            queue.create_job(job_id, LISTS[job_id], do.succeed)
        job = queue.create_job(job_id, LISTS[job_id], do.succeed, update=True)
        assert job.completed == job.total - BLOCK
        queue.start(job_id).result()
        assert job.results == LISTS[job_id]
    assert f"what {BLOCK} items are is damaged" in caplog.text
    with JobQueue(1, journal=path) as queue:
        assert queue.prune(job_id).items == (0 if "DELETE" in damage else BLOCK)
        caplog.clear()
        assert queue.create_job(job_id, LISTS[job_id], do.succeed).completed == job.total
        assert ("is damaged" in caplog.text) == ("DELETE" in damage)


@pytest.mark.parametrize("damage", BAD)
@pytest.mark.parametrize(("table", "column"), [("slots", "ids"), ("payloads", "body")])
def test_damage_to_ids_and_items_is_shown_in_their_places(
    ended: Path, tmp_path: Path, damage: str, table: str, column: str
) -> None:
    path = tmp_path / "run.db"
    shutil.copy(ended, path)
    with closing(sqlite3.connect(path)) as connection:
        (first,) = connection.execute(f"SELECT min(number) FROM {table} WHERE job = 2").fetchone()
        connection.execute(f"{damage.format(table, column)} WHERE number = {first}")
        connection.commit()
    with JobQueue(1, journal=path) as queue:
        shown = queue.load_job("named")
        assert shown.results == LISTS["named"]
        found = [item.id if column == "ids" else item.payload for item in shown.items]
        whole = LISTS["named"] if column == "body" else [item["id"] for item in LISTS["named"]]
        lost = [at for at, each in enumerate(found) if each != whole[at]]
        assert lost == [*range(len(lost))]
        assert len(lost) in (256, BLOCK)
        assert "damaged" in repr(found[0])
        if table == "payloads":
            assert queue.create_job("named", LISTS["named"], do.succeed).completed == 5000


# -- while it is open --------------------------------------------------------------------------------------------------


def gate(folder: Path) -> Gate:
    """A gate with a folder of its own."""
    (folder / "gate").mkdir()
    return Gate(folder / "gate")


ANOTHER = """
import sqlite3, sys
from mpqueue._parent.journal.journal_writer import Journal
from mpqueue.errors import JournalError
try:
    Journal(sys.argv[1], lambda: 0.0)
except JournalError as error:
    print(error)
connection = sqlite3.connect(sys.argv[1])
print(connection.execute("SELECT count(*) FROM jobs").fetchone()[0])
connection.close()
"""


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """A folder for the journal alone."""
    (tmp_path / "home").mkdir()
    return tmp_path / "home"


def test_a_copy_made_inside_the_program_lets_no_other_program_end_the_log(home: Path, tmp_path: Path) -> None:
    path, waiting = home / "run.db", gate(tmp_path)
    with JobQueue(1, journal=path) as queue:
        queue.run(range(5), do.succeed, id="first")
        queue.create_job("job", range(5), do.only(3, do.block_until_told(waiting)), chunksize=1)
        run = queue.start("job")
        shutil.copytree(home, tmp_path / "copy")
        with start_program(tmp_path, ANOTHER, path) as program:
            said, _ = program.communicate(timeout=60)
        assert f"process {os.getpid()} has open" in said
        assert said.split()[-1] == "2"
        assert (home / "run.db-wal").exists()
        waiting.open()
        assert run.result(60).completed == 5
    with JobQueue(1, journal=path) as queue:
        assert [queue.load_job(name).completed for name in ("first", "job")] == [5, 5]


@not_on_windows("no forks")
def test_a_fork_keeps_nothing_of_a_journal_open(home: Path) -> None:
    path = home / "run.db"
    journal = Journal(str(path), lambda: 0.0)
    with fork_that_lives_on():
        journal.close()
        assert not is_held(str(path))
        assert not (home / "run.db-wal").exists()
        Journal(str(path), lambda: 0.0).close()


STAYS = not_on_windows("SQLite's files stay where they are while they are open")


def replaced(path: Path, aside: Path) -> None:
    shutil.copytree(path.parent, aside.parent / "other")
    os.replace(path, aside)
    os.replace(aside.parent / "other" / "run.db", path)


@pytest.mark.parametrize("how", [*(pytest.param(how, marks=STAYS) for how in ("moved", "replaced")), "lock removed"])
def test_a_journal_that_is_taken_away_stops_loudly_and_goes_on_when_it_is_back(
    home: Path, tmp_path: Path, how: str
) -> None:
    path, aside, waiting = home / "run.db", tmp_path / "aside.db", gate(tmp_path)
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
            run.result(60)
        os.replace(aside, taken)
        recorder.wait_for(JOB_FINISHED)
        assert run.result(60).completed == 6
    with JobQueue(1, journal=path) as queue:
        assert queue.load_job("job").completed == 6
        assert queue.load_job("job").results == list(range(6))


@STAYS
def test_a_journal_that_is_removed_is_told_and_what_runs_is_not_lost_silently(home: Path, tmp_path: Path) -> None:
    path, waiting = home / "run.db", gate(tmp_path)
    queue = JobQueue(1, journal=path, max_retries=0)
    queue.create_job("job", range(6), do.only(2, do.block_until_told(waiting)), chunksize=1)
    run = queue.start("job")
    wait_until(lambda: waiting.arrived() != set(), what="the item that waits")
    path.unlink()
    waiting.open()
    with pytest.raises(JournalError, match="got nothing there"):
        run.result(60)
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


class Looking:
    """Connections that have a look at the journal before and after each statement."""

    def __init__(self, look: Callable[[], object]) -> None:
        self._look = look

    def connect(self, path: str) -> Any:
        """See `mpqueue._parent.journal.journal_file.connect`."""
        look, connection = self._look, sqlite3.connect(path, isolation_level=None, check_same_thread=False)

        class Looked:
            def __getattr__(self, name: str) -> Any:
                return getattr(connection, name)

            def execute(self, *arguments: Any) -> Any:
                look()
                try:
                    return connection.execute(*arguments)
                finally:
                    look()

        return Looked()


def test_a_reader_never_takes_a_journal_that_is_being_made_for_a_damaged_one(home: Path) -> None:
    path, said = home / "run.db", list[str]()

    def look() -> None:
        try:
            assert Reader(str(path)).jobs() == []
            said.append("read")
        except JournalError as error:
            said.append(str(error).partition(": ")[2])

    Journal(str(path), lambda: 0.0, Looking(look).connect).close()
    assert set(said) == {"expected a journal, got a name that is not there", "read"}


def test_a_reader_asks_again_where_a_writer_came_and_went_meanwhile(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, opened = home / "run.db", list[str]()

    def open_and_write(path: str, *, has_log: bool) -> Any:
        """A program runs a job between the opening and the first look."""
        connection = open_to_read(path, has_log=has_log)
        opened.append(path)
        if len(opened) == 1:
            with JobQueue(1, journal=path) as queue:
                queue.run(range(500), do.return_value(b"x" * 1000), id="job")
        return connection

    with JobQueue(1, journal=path) as queue:
        queue.run(range(5), do.succeed, id="first")
    monkeypatch.setattr(journal_reader, "open_to_read", open_and_write)
    assert {job.id: job.completed for job in Reader(str(path)).jobs()} == {"first": 5, "job": 500}
    assert len(opened) > 1


def test_looking_whether_a_journal_is_in_use_never_refuses_one_that_opens_it(home: Path) -> None:
    path, stop = home / "run.db", threading.Event()

    def look() -> None:
        while not stop.is_set():
            is_held(str(path))

    thread = threading.Thread(target=look)
    thread.start()
    try:
        for _ in range(100):
            Journal(str(path), lambda: 0.0).close()
    finally:
        stop.set()
        thread.join()
