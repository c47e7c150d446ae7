"""A power cut at any moment: what was on disk by the last sync is there again, whatever became of later writes.

A journal is written through a file system of the test's own (a VFS of SQLite, and the three calls that write big
values), which notes each write, truncation, renaming and sync of each file. Every prefix of these notes is a moment at
which the power may fail; what was not synced by then may be there, be lost, or be there in part.
"""

from __future__ import annotations

import random
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import apsw
import pytest

from mpqueue._core.item_table import make_table
from mpqueue._engine.journal import store as store_module
from mpqueue._engine.journal.journal import Entry, Journal
from mpqueue._engine.journal.recorder import ADD_CHUNK
from mpqueue._engine.journal.rows import make_row
from mpqueue._engine.journal.store import folder_of
from mpqueue._engine.journal.values import BigFile
from mpqueue.status import COMPLETED

pytestmark = pytest.mark.slow

#: Chunks that are written, and items in each; every fifth chunk brings a big value.
CHUNKS, ITEMS = 24, 5
TABLE = make_table(range(CHUNKS * ITEMS))


@dataclass(frozen=True)
class Note:
    """One thing that was done to a file; or (``kind`` "told") that somebody was told that this chunk is on disk."""

    kind: str  #: write, truncate, sync, delete, rename, told
    file: str
    offset: int = 0
    data: bytes = b""


class NotingFile(apsw.VFSFile):
    def __init__(self, notes: list[Note], base: str, name: Any, flags: Any) -> None:
        self._notes = notes
        self._file = Path(name.filename() if isinstance(name, apsw.URIFilename) else name).name
        super().__init__(base, name, flags)

    def xWrite(self, data: bytes, offset: int) -> None:  # noqa: N802
        self._notes.append(Note("write", self._file, offset, bytes(data)))
        super().xWrite(data, offset)

    def xTruncate(self, size: int) -> None:  # noqa: N802
        self._notes.append(Note("truncate", self._file, size))
        super().xTruncate(size)

    def xSync(self, flags: int) -> None:  # noqa: N802
        super().xSync(flags)
        self._notes.append(Note("sync", self._file))


class NotingVFS(apsw.VFS):
    def __init__(self, notes: list[Note]) -> None:
        self._notes = notes
        super().__init__("noting", "")

    def xOpen(self, name: Any, flags: Any) -> NotingFile:  # noqa: N802
        return NotingFile(self._notes, "", name, flags)

    def xDelete(self, name: str, sync: bool) -> None:  # noqa: N802
        super().xDelete(name, sync)
        self._notes.append(Note("delete", Path(name).name))


def connect(path: str) -> Any:
    connection = apsw.Connection(path, vfs="noting")
    connection.execute("PRAGMA locking_mode=EXCLUSIVE")  # a log without shared memory, which such a VFS has not
    connection.execute("PRAGMA wal_autocheckpoint=8")  # so that the file itself is written now and then, too
    return connection


@pytest.fixture(scope="module")
def notes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[Note]]:
    """What writing a whole journal did to the files."""
    notes: list[Note] = []
    vfs = NotingVFS(notes)
    real = store_module.write_whole

    def write_whole(folder: Path, file: BigFile) -> None:
        real(folder, file)
        content = b"".join(map(bytes, file.parts))
        part = f"{file.name}.part"
        notes.append(Note("write", part, 0, content))
        notes.append(Note("sync", part))
        notes.append(Note("rename", part, 0, file.name.encode()))

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(store_module, "write_whole", write_whole)
        path = tmp_path_factory.mktemp("noted") / "run.db"
        journal = Journal(str(path), lambda: 0.0, connect)
        columns = {"id": "job", "total": len(TABLE), "rule": str(TABLE.rule), "seed": "0"}
        columns |= {"created_at": "0.0", "status": "running"}
        number = journal.ask(lambda store: store.add_job(columns, []))
        for chunk in range(CHUNKS):
            indices = range(chunk * ITEMS, (chunk + 1) * ITEMS)
            results: list[Any] = [index * index for index in indices]
            if chunk % 5 == 4:
                results[0] = bytes([chunk]) * 300_000
            TABLE.complete(indices, results)
            row = make_row(TABLE, indices, {})
            told = Note("told", str(chunk))
            files = [(file, number) for file in row.files]
            # Two chunks a group, the second of which somebody waits for.
            done = None if chunk % 2 == 0 else lambda told=told: notes.append(told)
            journal.post(Entry([(ADD_CHUNK, (number, row.body))], files, done))
            if chunk % 2:
                journal.flush()
        journal.close()
    yield notes
    vfs.unregister()


def apply(note: Note, files: dict[str, bytearray]) -> None:
    if note.kind == "write":
        content = files.setdefault(note.file, bytearray())
        content.extend(bytes(max(0, note.offset + len(note.data) - len(content))))
        content[note.offset : note.offset + len(note.data)] = note.data
    elif note.kind == "truncate":
        del files.setdefault(note.file, bytearray())[note.offset :]
    elif note.kind == "delete":
        files.pop(note.file, None)
    elif note.kind == "rename" and note.file in files:
        files[note.data.decode()] = files.pop(note.file)


def after_cut(notes: list[Note], keep: Callable[[Note], Note | None]) -> dict[str, bytearray]:
    """The files after a cut behind these notes: what a sync of its file followed is there, of the rest what is kept."""
    last_sync = {note.file: at for at, note in enumerate(notes) if note.kind == "sync"}
    files: dict[str, bytearray] = {}
    for at, note in enumerate(notes):
        safe = at < last_sync.get(note.file, -1) or note.kind in ("delete", "rename")
        kept = note if safe else keep(note)
        if kept is not None:
            apply(kept, files)
    return files


def check(files: dict[str, bytearray], folder: Path, told: set[int]) -> None:
    """The journal can be opened, and has at least what somebody was told of, whole."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    path = folder / "run.db"
    for name, content in files.items():
        big = name.endswith((".value", ".part"))
        if big:
            folder_of(str(path)).mkdir(exist_ok=True)
        ((folder_of(str(path)) if big else folder) / name).write_bytes(content)
    journal = Journal(str(path), lambda: 0.0)
    try:
        journal.flush()
        check_content(journal, told)
    finally:
        journal.close()


def check_content(journal: Journal, told: set[int]) -> None:
    job = journal.reader.find("job")
    if job is None:
        assert not told
        return
    table = make_table(range(job.total))
    assert journal.reader.fill(table, job) == []
    done = {index // ITEMS for index, code in enumerate(table.status) if code == COMPLETED}
    assert told <= done
    assert sum(code == COMPLETED for code in table.status) == len(done) * ITEMS  # a chunk is there whole
    for chunk in done:
        lo, hi = chunk * ITEMS, (chunk + 1) * ITEMS
        assert table.results[lo:hi] == TABLE.results[lo:hi]


def moments(notes: list[Note]) -> Iterator[tuple[list[Note], set[int]]]:
    """Each prefix that ends before or behind a sync, or behind somebody's being told; and what was told by then."""
    told: set[int] = set()
    for at, note in enumerate(notes):
        if note.kind == "sync":
            yield notes[:at], set(told)
        if note.kind == "told":
            told |= {int(note.file), int(note.file) - 1}
        if note.kind in ("sync", "told"):
            yield notes[: at + 1], set(told)


def drop(note: Note) -> None:
    return None


def keep(note: Note) -> Note:
    return note


@pytest.mark.parametrize("unsynced", ["kept", "lost", "torn"])
def test_after_a_power_cut_all_that_was_told_is_there(notes: list[Note], tmp_path: Path, unsynced: str) -> None:
    rng = random.Random(5)

    def tear(note: Note) -> Note | None:
        if note.kind != "write":
            return note if rng.random() < 0.5 else None
        size = rng.choice((0, len(note.data) // 2 // 512 * 512, len(note.data)))  # whole sectors
        return Note("write", note.file, note.offset, note.data[:size])

    how: dict[str, Callable[[Note], Note | None]] = {"kept": keep, "lost": drop, "torn": tear}
    seen = 0
    for prefix, told in moments(notes):
        check(after_cut(prefix, how[unsynced]), tmp_path / "cut", told)
        seen += 1
    assert seen > 2 * CHUNKS
    assert sum(note.kind == "sync" and note.file == "run.db" for note in notes) > 2  # the log was moved home, too


def test_the_check_finds_a_journal_that_does_not_sync(notes: list[Note], tmp_path: Path) -> None:
    careless = [note for note in notes if not (note.kind == "sync" and note.file == "run.db-wal")]

    def cut_everywhere() -> None:
        for prefix, told in moments(careless):
            check(after_cut(prefix, drop), tmp_path / "cut", told)

    with pytest.raises(AssertionError):
        cut_everywhere()
