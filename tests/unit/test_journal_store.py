"""The journal's file: what is put into it is read again, what is damaged or gone is named, the rest stays."""

from __future__ import annotations

import contextlib
import gc
import os
import pickle
import random
import sqlite3
import stat
import threading
from array import array
from collections.abc import Iterator, Sequence
from io import FileIO
from pathlib import Path
from typing import Any

import pytest

from mpqueue._core.state.item_table import Failure, ItemTable
from mpqueue._os.file_system import lock_file
from mpqueue._parent.journal import schema
from mpqueue._parent.journal.checks import JournalLock, Mark, MovedError, is_held, marked
from mpqueue._parent.journal.chunk_rows import ADD_CHUNK, NUMBERS, WrittenRow, chunk_statement, make_row, row_of
from mpqueue._parent.journal.identity import SIZE, UNKNOWN, digest
from mpqueue._parent.journal.journal_file import (
    Store,
    column_to_text,
    describe,
    folder_of,
    text_to_column,
)
from mpqueue._parent.journal.journal_reader import TRIES, Reader, RecordedJob
from mpqueue._parent.journal.kept_values import (
    ChangedError,
    NotKept,
    Place,
    Unreadable,
    big_file,
    keep,
    no_file,
    prepare,
    seal,
    unseal,
)
from mpqueue._parent.journal.lots import NOBODY, Lot, each_lot, keep_items
from mpqueue._parent.journal.schema import SCHEMA, ConvertedCopy, _OldJob
from mpqueue._parent.journal.suspects import RunningMark, RunningMarks
from mpqueue._wire.item_names import IdRule
from mpqueue.errors import JournalError
from mpqueue.status import COMPLETED, FAILED, PENDING, RETRY
from tests.support.this_system import IS_WINDOWS

POSIX_ONLY = pytest.mark.skipif(IS_WINDOWS, reason="open files can't be removed there")


@pytest.fixture
def path(tmp_path: Path) -> str:
    return str(tmp_path / "run.db")


@contextlib.contextmanager
def stored(path: str, **how: Any) -> Iterator[Store]:
    store = Store(path, **how)
    try:
        yield store
    finally:
        store.close()


def columns(**changed: Any) -> dict[str, Any]:
    """A job's line."""
    line = {"id": "job", "total": 3, "rule": "position", "seed": "0x10", "created_at": 1.5, "status": "pending"}
    return line | {"completed": 0, "failed": 0, "retries": 0} | changed


def put(store: Store, lots: Sequence[Lot] = (), **changed: Any) -> int:
    return store.put_job(None, columns(**changed), lots)


def found(path: str, job_id: str = "job") -> RecordedJob:
    job = Reader(path).find(job_id)
    assert job is not None
    return job


def change(path: str, statement: str, *arguments: Any) -> None:
    """Damage it."""
    with contextlib.closing(sqlite3.connect(path)) as connection, connection:
        connection.execute(statement, arguments)


def rows_of(path: str, query: str) -> list[tuple[Any, ...]]:
    with contextlib.closing(sqlite3.connect(path)) as connection:
        return connection.execute(query).fetchall()


# -- jobs --------------------------------------------------------------------------------------------------------------


def test_a_job_is_read_as_it_was_put_also_while_the_journal_is_open(path: str) -> None:
    with stored(path) as store:
        assert (put(store), put(store, id="other", total=0)) == (1, 2)
        job = found(path)
        assert (job.number, job.id, job.total, job.count, job.seed, job.past) == (1, "job", 3, 0, 16, None)
        store.put_job(1, {"status": "completed", "started_at": 5.0, "duration": 2.0, "slots": 7})
        job = found(path)
        assert (job.status, job.count, job.past) == ("completed", 7, (5.0, 2.0, None, None))
        assert [each.id for each in Reader(path).jobs()] == ["job", "other"]
        assert Reader(path).find("none") is None
    with stored(path) as store:
        assert store.numbers == {"job": 1, "other": 2}
        store.remove_job(1)
        assert store.numbers == {"other": 2}
        assert put(store, id="job") == 3, "numbers are never used again"
    assert not os.path.exists(f"{path}-wal")


@pytest.mark.parametrize("text", ["job", "Größe", "scan-\udcff.txt"])
def test_any_text_of_a_user_comes_back(path: str, text: str) -> None:
    assert column_to_text(text_to_column(text)) == text
    with stored(path) as store:
        put(store, id=text, version=text, handler_name=text)
    job = found(path, text)
    assert (job.id, job.version, job.handler_name) == (text, text, text)


def test_what_is_suspected_is_kept_until_the_job_is_over(path: str, caplog: pytest.LogCaptureFixture) -> None:
    with stored(path) as store:
        for status in ("running", "completed"):
            put(store, id=status, status=status, suspects=prepare({4: 2}))
        put(store, id="nothing")
    reader = Reader(path)
    assert [reader.suspects(number) for number in range(1, 5)] == [{4: 2}, {}, {}, {}]
    marks = RunningMarks(path)
    marks.mark(0, 1, [5], alone=True)
    assert reader.suspects(1) == {4: 2, 5: 3}, "the last program ended with this alone"
    assert marks.left == []
    marks.close()
    with stored(path) as store:
        store.put_job(1, {"suspects": b"damaged"})
    assert reader.suspects(1) == {}
    assert "is damaged; that is counted anew" in caplog.text


def test_what_is_asked_in_one_look_is_of_one_moment(path: str) -> None:
    reader = Reader(path)

    def statuses() -> list[str]:
        before = found_by(reader)
        store.put_job(1, {"status": "completed"})
        return [before, found_by(reader)]

    def found_by(reader: Reader) -> str:
        job = reader.find("job")
        assert job is not None
        return job.status

    with stored(path) as store:
        put(store)
        assert reader.at_once(statuses) == ["pending", "pending"]
        assert found_by(reader) == "completed"


def test_a_look_that_is_not_whole_is_taken_again_some_times(path: str) -> None:
    looks: list[int] = []

    def change_meanwhile() -> None:
        looks.append(len(looks))
        raise ChangedError("it was written meanwhile")

    with stored(path), pytest.raises(JournalError, match="written meanwhile"):
        Reader(path).at_once(change_meanwhile)
    assert len(looks) == TRIES


def test_a_journal_that_nobody_has_open_is_read_again_if_it_was_written_meanwhile(path: str) -> None:
    with stored(path) as store:
        put(store)
    reader, statuses = Reader(path), list[str]()

    def look() -> None:
        statuses.extend(job.status for job in reader.jobs())
        if len(statuses) == 1:
            with stored(path) as store:
                store.put_job(1, {"status": "completed"})

    reader.at_once(look)
    assert statuses == ["pending", "completed"]


def test_a_damaged_line_is_named_and_its_job_is_left(path: str) -> None:
    with stored(path) as store:
        put(store)
    change(path, "UPDATE jobs SET total = 4")
    with stored(path) as store:
        assert store.damaged == {1}
    for question in (Reader(path).jobs, lambda: Reader(path).find("job"), lambda: Reader(path).line(1)):
        with pytest.raises(JournalError, match="expected line 1 of its jobs as it was written"):
            question()


# -- items -------------------------------------------------------------------------------------------------------------


def lots_by_id(*ids: str) -> list[Lot]:
    """Lots of two."""
    lots = []
    for first in range(0, len(ids), 2):
        those = list(ids[first : first + 2])
        identities = b"".join(each.encode().ljust(SIZE, b".") for each in those)
        lots.append(Lot(first, 2, identities, ids=those, parts=[(None, keep_items(those))]))
    return lots


@pytest.fixture
def by_id(path: str) -> str:
    """A journal of a job of three items in four slots, of which the second is gone, in another order."""
    with stored(path) as store:
        places = prepare(array("I", [3, 0, 2]).tobytes())
        put(store, lots_by_id("a", "b", "c", "d"), rule="attribute", slots=4, places=places)
    return path


def test_ids_come_in_the_order_of_the_items_and_names_in_that_of_the_slots(by_id: str) -> None:
    reader, job = Reader(by_id), found(by_id)
    table = reader.table(job)
    assert (table.ids, table.rule) == (["d", "a", "c"], IdRule.ATTRIBUTE)
    assert reader.places(job) == array("I", [3, 0, 2])
    assert reader.names(job) == ["a", "b", "c", "d"]
    lots = reader.at_once(lambda: [*reader.lots(job, items=False)])
    assert [lot.what()[0][::SIZE] for lot in lots] == [b"ab", b"cd"]
    assert reader.lot_with(job, 3).ids == ["c", "d"]


def test_damaged_ids_are_unreadable_and_said_to_be_once(by_id: str, caplog: pytest.LogCaptureFixture) -> None:
    change(by_id, "UPDATE lots SET items = x'00' WHERE first = 2")
    reader, job = Reader(by_id), found(by_id)
    for _ in range(2):
        first, second, *damaged = reader.names(job)
        assert [first, second] == ["a", "b"]
        assert [type(each) for each in damaged] == [Unreadable, Unreadable]
    assert caplog.text.count("2 items are damaged") == 1


def test_of_a_stream_what_has_not_ended_is_not_shown_unless_its_row_is_damaged(path: str) -> None:
    row = {**dict.fromkeys(NUMBERS, bytes(4)), "status": bytes((COMPLETED, PENDING)), "results": [keep("b", [])]}
    with stored(path) as store:
        put(store, lots_by_id("a", "b", "c", "d"), slots=4, kind="stream")
        store.write([chunk_statement(1, 1, row_of(row, [1, 2])), chunk_statement(2, 1, row_of({}, [3]))])
    change(path, "UPDATE chunks SET body = x'00' WHERE number = 2")
    table = Reader(path).table(found(path))
    assert (table.ids, table.rule) == (["b", "d"], IdRule.KEY)


@pytest.mark.parametrize(("first", "known"), [(0, ["\0\0", "cd"]), (2, ["ab", "\0\0"])])
@pytest.mark.parametrize("damage", ["DELETE FROM lots", "UPDATE lots SET body = x'00'"])
def test_of_a_lot_that_is_damaged_or_gone_nothing_is_known_and_of_others_all(
    by_id: str, damage: str, first: int, known: list[str]
) -> None:
    change(by_id, f"{damage} WHERE first = {first}")
    reader, job = Reader(by_id), found(by_id)
    lots = reader.at_once(lambda: [*reader.lots(job, items=False)])
    assert [(lot.first, lot.size) for lot in lots] == [(0, 2), (2, 2)]
    assert [lot.what()[0][::SIZE].decode() for lot in lots] == known


def test_what_was_written_while_it_was_read_is_not_said_to_be_damaged(
    by_id: str, caplog: pytest.LogCaptureFixture
) -> None:
    written, looks = rows_of(by_id, "SELECT items, first FROM lots"), list[list[Lot]]()
    change(by_id, "UPDATE lots SET items = x'00'")
    reader, job = Reader(by_id), found(by_id)

    def look() -> list[Any]:
        looks.append([*reader.lots(job, items=True)])
        for lot in written if len(looks) == 1 else ():
            change(by_id, "UPDATE lots SET items = ? WHERE first = ?", *lot)
        return reader.items(job, looks[-1])[1]

    assert reader.at_once(look) == [*"abcd"]
    assert not caplog.text


def test_a_removed_job_is_said_to_be_removed(path: str) -> None:
    with stored(path) as store:
        put(store, handler=prepare("the handler"))
        job = found(path)
        assert Reader(path).handler(job) == "the handler"
        store.remove_job(1)
    for question in (Reader(path).handler, Reader(path).table):
        with pytest.raises(JournalError, match="expected job 'job', which has been removed from it"):
            question(job)


def test_damaged_codes_count_as_other_code(path: str, caplog: pytest.LogCaptureFixture) -> None:
    with stored(path) as store:
        put(store, codes=prepare([("3.11", {"f": "x"}, {})]))
        assert Reader(path).codes(found(path)) == [("3.11", {"f": "x"}, {})]
        store.put_job(1, {"codes": b"damaged"})
    assert Reader(path).codes(found(path)) == [("damaged", {}, {})]
    assert "with which code its results were made is damaged" in caplog.text


@pytest.mark.parametrize("number", range(12))
@pytest.mark.parametrize("kind", ["list", "open", "stream"])
def test_items_that_are_gone_are_forgotten_once_and_all_else_stays(path: str, kind: str, number: int) -> None:
    chance = random.Random(number)
    lots, places = lots_by_id(*"abcdefgh"), chance.sample(range(8), 5) if kind == "list" and number else None
    if kind == "open":
        lots[1] = lots[1].without([chance.randrange(2)])
    elif kind == "stream":
        lots[3] = lots[3]._replace(replaces=((1, chance.randrange(6)),))
    table = ItemTable([*"abcdefgh"], [*"abcdefgh"], IdRule.KEY)
    rows = []
    for _ in range(3):
        slots = sorted(chance.sample(range(8), chance.randrange(1, 5)))
        pending = [slot for slot in slots if table.status[slot] == PENDING]
        if pending and chance.random() < 0.3:
            slots = pending
            for slot in slots:
                table.fail_try(slot, Failure(ValueError("no")), 1)
                table.status[slot] = RETRY
        else:
            table.complete(slots, [[chance.random()] for _ in slots])
        rows.append(make_row(table, slots, {}))
    order = None if places is None else prepare(array("I", places).tobytes())
    line = columns(rule="key", slots=8, total=5 if places else 8, kind=kind, places=order)
    with stored(path) as store:
        store.put_job(None, line, lots, rows)
        job, reader = found(path), Reader(path)

        def told() -> list[Any]:
            read = reader.table(job)
            return [[*map(list, (read.ids or (), read.payloads, read.status, read.attempts))], read.all_results()]

        def gone() -> list[int]:
            return [
                lot.first + at for lot in reader.at_once(lambda: [*reader.lots(job, items=True)]) for at in lot.gone
            ]

        replaced = {first for lot in lots for _, first in lot.replaces}
        forgotten = (
            {slot for slot in range(8) if table.status[slot] != COMPLETED} - replaced if kind == "stream" else set()
        )
        if places is not None:
            forgotten = {*range(8)}.difference(places)
        gone_then = sorted({*gone(), *forgotten, *(replaced if 7 in forgotten else ())})
        before = told()
        for is_gone, items, now in ((False, 0, gone()), (True, len(forgotten), gone_then), (True, 0, gone_then)):
            assert store.compact_job(1, gone=is_gone).items == items
            assert (told(), gone()) == (before, now)
            query = "SELECT 1, number, body, slots FROM chunks"
            kept = {slot for row in rows_of(path, query) for slot in WrittenRow(*row).spoken(path)}
            assert not is_gone or not kept & {*gone_then, *replaced}, "no row has anything of an item that is gone"


# -- files beside it ---------------------------------------------------------------------------------------------------


def test_all_of_a_write_or_nothing(path: str) -> None:
    with stored(path) as store:
        put(store)
        with pytest.raises(sqlite3.Error):
            store.write([(ADD_CHUNK, (1, 1, b"row", None)), ("INSERT INTO nowhere VALUES (1)", ())])
        assert rows_of(path, "SELECT * FROM chunks") == []
        store.write([(ADD_CHUNK, (4, 1, b"row", None))])
    with stored(path) as store:
        assert store.next_chunk() == 5


# -- what is no journal, or not all of it ------------------------------------------------------------------------------


@POSIX_ONLY
def test_a_new_journal_is_its_users_alone(path: str) -> None:
    left = [f"{path}.new{suffix}" for suffix in ("", "-wal", "-shm")]
    for name in left:
        Path(name).write_bytes(b"its maker ended")
    with stored(path) as store:
        put(store)
        for name in (path, f"{path}-wal"):
            assert stat.S_IMODE(os.stat(name).st_mode) == 0o600
    assert not [name for name in left if os.path.exists(name)]


def test_of_a_journal_that_can_not_be_made_nothing_is_left(path: str) -> None:
    def connect(_: str) -> Any:
        raise sqlite3.OperationalError("disk I/O error")

    with pytest.raises(JournalError, match="disk I/O error"):
        Store(path, connect)
    assert os.listdir(os.path.dirname(path)) == []


def test_what_is_written_is_on_the_disk_also_in_a_journal_that_was_there(path: str) -> None:
    for _ in range(2):
        with stored(path) as store:
            settings = [
                store._connection.execute(f"PRAGMA {name}").fetchone()[0] for name in ("journal_mode", "synchronous")
            ]
            assert settings == ["wal", 2]


@POSIX_ONLY
def test_the_names_of_new_files_are_on_the_disk_before_it_goes_on(path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    synced, fsync = list[int](), os.fsync

    def noted(fd: int) -> None:
        synced.append(os.fstat(fd).st_ino)
        fsync(fd)

    monkeypatch.setattr(os, "fsync", noted)

    def are_synced(*folders: Path) -> list[bool]:
        found = [folder.stat().st_ino in synced for folder in folders]
        synced.clear()
        return found

    def add_value(store: Store, content: bytes) -> None:
        store.write([], [(big_file((content,)), 1)])

    parent, files = Path(path).parent, folder_of(path)
    with stored(path) as store:
        assert are_synced(parent) == [True]
        put(store)
        add_value(store, b"content")
        assert are_synced(parent, files) == [True, True]
        add_value(store, b"more")
        assert are_synced(parent, files) == [False, True]
    with stored(path) as store:
        synced.clear()
        add_value(store, b"again")
        assert are_synced(parent, files) == [True, True], "a program that ended may have made it just before"
        schema.keep_copy(store._connection, f"{path}.v2")
        assert are_synced(parent) == [True]


@pytest.mark.parametrize("setting", ["user_version = 0", "user_version = 7", "application_id = 7"])
def test_an_empty_database_becomes_a_journal_unless_it_is_said_to_be_something(path: str, setting: str) -> None:
    change(path, "PRAGMA user_version = 3")
    change(path, "PRAGMA user_version = 0")
    change(path, f"PRAGMA {setting}")
    assert os.path.getsize(path)
    if setting == "user_version = 0":
        with stored(path) as store:
            put(store)
        assert found(path).number == 1
    else:
        with pytest.raises(JournalError, match="expected a journal"):
            Store(path)


def test_items_that_an_older_version_kept_together_are_in_the_lots_of_their_slots(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(schema, "BLOCK", 512)
    with contextlib.closing(sqlite3.connect("")) as connection:
        connection.execute("CREATE TABLE old_payloads (number, job, body)")
        for number, slots in ((1, (0, 500)), (2, (500, 530))):
            body = seal((slots, keep_items([*range(*slots)])), Place("payloads", 1, number))
            connection.execute("INSERT INTO old_payloads VALUES (?, 1, ?)", (number, body))
        parts = _OldJob(connection.execute, {"number": 1}, unbound=False)._parts(530)
    assert [*parts] == [0, 512]
    assert Lot(0, 512, None, parts=parts[0]).items(no_file) == [*range(512)]
    assert Lot(512, 18, None, parts=parts[512]).items(no_file) == [*range(512, 530)]


@pytest.mark.parametrize("by_id", [False, True])
@pytest.mark.parametrize("is_first", [False, True])
def test_a_list_of_an_older_version_has_the_same_items_in_lots_of_today(
    monkeypatch: pytest.MonkeyPatch, is_first: bool, by_id: bool
) -> None:
    monkeypatch.setattr(schema, "BLOCK", 8)
    monkeypatch.setattr(schema, "OF_LIST", 4)
    left_out, ids = [5, 6, 15], [f"item {at}" for at in range(18)]
    items: list[Any] = [threading.Lock() if at in left_out else at for at in range(18)]
    states = [UNKNOWN if at in left_out else digest(at) for at in range(18)]
    identities = [digest(each) for each in ids] if by_id else states
    with contextlib.closing(sqlite3.connect("")) as connection:
        run = connection.execute
        line = {"number": 1, "slots": 18, "ids": seal(ids, Place("jobs.ids", 1)) if by_id else None}
        run("CREATE TABLE old_payloads (number, job, body)")
        run("CREATE TABLE old_slots (job, first, body, ids)")
        for first in range(0, 18, 4):
            kept, slots = keep_items(items[first : first + 4]), range(18)[first : first + 4]
            named = first if is_first else array("Q", slots).tobytes()
            run("INSERT INTO old_payloads VALUES (?, 1, ?)", (first, seal((named, kept), Place("payloads", 1, first))))
        for lo in range(0, 18, 8):
            block = b"".join(identities[lo : lo + 8]), b"".join(states[lo : lo + 8])
            body = seal((*block, [at - lo for at in left_out if lo <= at < lo + 8]), Place("slots", 1, lo))
            named_ids = seal(ids[lo : lo + 8], Place("slots.ids", 1, lo)) if by_id else None
            run("INSERT INTO old_slots VALUES (1, ?, ?, ?)", (lo, body, named_ids))
        job = _OldJob(run, line, unbound=False)
        lots = [*job._lots_of_list(18, is_first=is_first)]
        assert [(lot.first, lot.size) for lot in lots] == [(0, 8), (8, 8), (16, 2)]
        assert [lot.what()[0] for lot in lots] == [b"".join(identities[at : at + 8]) for at in range(0, 18, 8)]
        assert [lot.what()[1] for lot in lots] == [b"".join(states[at : at + 8]) for at in range(0, 18, 8)]
        assert [one for lot in lots for one in lot.ids or ()] == (ids if by_id else [])
        read = [item for lot in lots for item in lot.items(no_file)]
        assert [at for at, item in enumerate(read) if isinstance(item, NotKept)] == left_out
        assert [item for item in read if not isinstance(item, NotKept)] == [each for each in items if type(each) is int]
        run("UPDATE old_slots SET body = x'00', ids = x'00' WHERE first = 8")
        if not is_first:
            damaged = [*job._lots_of_list(18, is_first=False)]
            assert [lot == was for lot, was in zip(damaged, lots, strict=True)] == [True, False, True]
            assert damaged[1].what() == (NOBODY * 8, NOBODY * 8)
            assert {type(each) for each in damaged[1].ids or ()} == {Unreadable}


def test_a_stream_of_an_older_version_has_what_ended_and_was_not_to_run_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(schema, "LOT", 2)
    row = {**dict.fromkeys(NUMBERS, bytes(4)), "status": bytes((FAILED,)), "attempts": bytes(4), "failures": b""}
    told = [
        (COMPLETED, 3, ("one",)),
        (FAILED, 3, pickle.dumps(row)),
        (COMPLETED, 2, ("old",)),
        (COMPLETED, 4, ("two",)),
    ]
    with contextlib.closing(sqlite3.connect("")) as connection:
        run = connection.execute
        for statement in SCHEMA:
            run(statement)
        run("CREATE TABLE old_stream_items (number, job, identity, nth, body, item)")
        for nth, (status, generation, outcome) in enumerate(told):
            identity = digest(nth)
            place: Any = b"stream_items %d %d %b" % (1, nth, identity)
            place_of_item: Any = b"stream_items.item %d %d %b" % (1, nth, identity)
            body = seal((status, digest(-nth), generation, outcome), place)
            item = seal((tuple(keep(f"item {nth}", [])), tuple(keep(nth, []))), place_of_item)
            run("INSERT INTO old_stream_items VALUES (?, 1, ?, ?, ?, ?)", (nth, identity, nth, body, item))
        run("INSERT INTO old_stream_items VALUES (9, 1, x'00', 9, x'00', x'00')")  # damaged
        line = {"number": 1, "generation": 3}
        job = _OldJob(run, line, unbound=False)
        job._convert_stream()
        assert (line["slots"], line["total"], line["completed"], line["failed"]) == (3, 3, 2, 1)
        lots = [*each_lot(run, 1, "", items=True)]
        assert [(lot.first, lot.ids, lot.items(no_file)) for lot in lots] == [
            (0, ["item 0", "item 1"], [0, 1]), (2, ["item 3"], [3]),
        ]  # fmt: skip
        assert [lot.what() for lot in lots] == [
            (digest(0) + digest(1), digest(0) + digest(-1)), (digest(3), digest(-3)),
        ]  # fmt: skip
        rows = run("SELECT number, body, slots FROM chunks WHERE job = 1 ORDER BY number").fetchall()
        slots = [unseal(slots, Place("chunks.slots", 1, number), "") for number, _, slots in rows]
        bodies = [unseal(body, Place("chunks", 1, number), "") for number, body, _ in rows]
        assert [number for number, _, _ in rows] == [1, 2, 3]
        assert slots == [(0, 1), (1, 2), (2, 3)]
        assert [body["status"] for body in bodies] == [bytes((one,)) for one in (COMPLETED, FAILED, COMPLETED)]
        assert [pickle.loads(bodies[at]["results"][0]) for at in (0, 2)] == [["one"], ["two"]]


@pytest.mark.parametrize("in_a_ring", [False, True])
def test_the_copy_of_an_older_journal_is_closed_with_its_last_reader(
    in_a_ring: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Python 3.13 warns of a connection that is garbage and was not closed, and may look at it before its owner."""
    monkeypatch.setattr(schema, "convert", lambda _: None)
    with contextlib.closing(sqlite3.connect("")) as old:
        copy = ConvertedCopy(old)
    connection = copy.connection
    if in_a_ring:
        vars(copy)["ring"] = copy
    del copy
    gc.collect()
    with pytest.raises(sqlite3.ProgrammingError, match="closed"):
        connection.execute("SELECT 1")


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (sqlite3.DatabaseError("file is not a database"), "got a file of another kind"),
        (sqlite3.DatabaseError("database disk image is malformed"), "got a damaged one"),
        (TypeError("no text"), "got a damaged one"),
        (sqlite3.OperationalError("attempt to write a readonly database"), "in a folder that can be"),
        (OSError("Read-only: read-only"), "in a folder that can be"),
        (sqlite3.OperationalError("unable to open database file"), "in a folder that can be"),
        (sqlite3.OperationalError("database or disk is full"), "expected room on the disk"),
        (OSError("No space left on device"), "expected room on the disk"),
        (sqlite3.OperationalError("disk I/O error"), "that can be read and written, got 'disk I/O error'"),
        (MovedError("put it back"), "put it back"),
    ],
)
def test_what_is_wrong_is_said_in_words_that_help(error: Exception, words: str) -> None:
    assert words in describe(error)


# -- its owners, and what is running -----------------------------------------------------------------------------------


def test_one_queue_at_a_time_and_an_end_that_was_no_close_leaves_its_mark(path: str) -> None:
    assert not is_held(path)
    assert marked(path) is None
    lock = JournalLock(path)
    assert is_held(path)
    assert (lock.left, marked(path)) == (None, Mark(os.getpid()))
    with pytest.raises(JournalError, match="another queue of this process has open"):
        JournalLock(path)
    lock.mark(Mark(7, 2, 0.5, 3))
    assert lock.is_in_place
    lock.release()
    assert not is_held(path)
    assert not os.path.exists(f"{path}.lock")
    Path(f"{path}.lock").write_bytes(Mark(7, 2, 0.5, 3).to_bytes())
    with FileIO(f"{path}.lock", "r+") as file:
        lock_file(file)
        with pytest.raises(JournalError, match="got one that process 7 has open"):
            JournalLock(path)
    lock = JournalLock(path)
    assert (lock.left, marked(path)) == (Mark(7, 2, 0.5, 3), Mark(os.getpid(), 2, 0.5, 3))
    with os.fdopen(os.dup(lock._file.fileno())):  # as a fork has it
        lock.release(keep=True)  # it could not be opened
        assert not is_held(path)
    assert marked(path) == Mark(7, 2, 0.5, 3)
    assert not is_held(path)


@POSIX_ONLY
def test_a_lock_that_is_gone_or_no_lock_is_noticed(path: str) -> None:
    lock = JournalLock(path)
    os.rename(f"{path}.lock", f"{path}.moved")
    assert not lock.is_in_place
    Path(f"{path}.lock").touch()
    assert not lock.is_in_place
    lock.release()
    assert os.path.exists(f"{path}.lock"), "it is another one's"
    Path(f"{path}.lock").write_bytes(bytes(5000))
    with pytest.raises(JournalError, match="expected a lock file, got something else"):
        JournalLock(path)
    assert not is_held(path)


def test_what_was_with_workers_when_a_program_ended_is_read_as_far_as_it_is_whole(path: str) -> None:
    marks = RunningMarks(path)
    assert marks.left == []
    marks.mark(0, 1, range(3, 6), alone=False)
    marks.mark(1, 1, [9, 2], alone=False)
    marks.mark(2, 5, [7], alone=True)
    content = Path(f"{path}.running").read_bytes()
    alone = [RunningMark(1, range(3, 6), False), RunningMark(1, [9, 2], False), RunningMark(5, [7], True)]

    def left(content: bytes) -> list[RunningMark]:
        """What the next program finds; it finds it once."""
        Path(f"{path}.other.running").write_bytes(content)
        found = RunningMarks(f"{path}.other").left
        assert RunningMarks(f"{path}.other").left == []
        return found

    os.chmod(f"{path}.running", 0o600)
    assert left(content) == alone
    assert left(content.replace(b"[9,2]", b"[9,3]")) == [alone[0], alone[2]]
    for damaged in (b'{"job":1,"from":-5,"to":99999999999}\n', b"[" * 100_000, b"\xff" * 10_000, content[:20]):
        assert left(damaged) == []
    marks.mark_beside()
    assert left(Path(f"{path}.running").read_bytes())[2] == RunningMark(5, [7], False)
    marks.mark(2, 5, [7], alone=True)
    marks.clear(2)
    marks.mark_beside()
    marks.clear(0)
    assert left(Path(f"{path}.running").read_bytes()) == [alone[1]]
    marks.close()
    assert not os.path.exists(f"{path}.running")
