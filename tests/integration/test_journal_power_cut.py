"""A power cut at any moment: what was on disk by the last sync is there again, whatever became of later writes.

All that is done to the files of a journal is noted: writes, truncations, renamings, syncs. Every prefix of the notes is
a moment at which the power may fail; what was not synced by then may be there, be lost, or be there in part. The notes
are taken twice: of the standard library's SQLite by ``strace``, where there is one; and everywhere by a file system of
the test's own, with which another SQLite writes (a VFS, and the call that writes big values).
"""

from __future__ import annotations

import random
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import apsw
import pytest

from mpqueue._core.state.item_table import make_table
from mpqueue._os.files import sync_folder
from mpqueue._parent.journal import journal_file as store_module
from mpqueue._parent.journal.journal_file import folder_of
from mpqueue._parent.journal.journal_writer import Journal
from mpqueue._parent.journal.kept_values import BigFile
from mpqueue.status import COMPLETED
from tests.support.journal_writer import CHUNKS, ITEMS, often_home, result_of, write_journal
from tests.support.power import Keep, Note, after_cut, moments, put
from tests.support.straced import can_trace, trace

pytestmark = pytest.mark.slow

STRACED = pytest.param("straced", marks=pytest.mark.skipif(not can_trace(), reason="needs strace"))


class NotingFile(apsw.VFSFile):
    def __init__(self, notes: list[Note], base: str, name: Any, flags: Any) -> None:
        self._notes = notes
        path = Path(name.filename() if isinstance(name, apsw.URIFilename) else name)
        self._file = path.name
        if not path.exists():
            notes += [Note("create", self._file), Note("sync", ".")]
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
        self._notes += [Note("delete", Path(name).name), Note("sync", ".")]


def connect(path: str) -> Any:
    connection = apsw.Connection(path, vfs="noting")
    connection.execute("PRAGMA locking_mode=EXCLUSIVE")  # a log without shared memory, which such a VFS has not
    return often_home(connection)


def note_by_vfs(folder: Path) -> list[Note]:
    beside = folder_of(str(folder / "run.db")).name
    notes = [Note("create", beside, 0, b"folder"), Note("sync", ".")]
    vfs = NotingVFS(notes)
    real_write, real_rename, real_sync = store_module.write_whole, store_module._rename, sync_folder

    def inside(folder: Path, name: str) -> str:
        return f"{folder.name}/{name}" if folder.name == beside else name

    def write_whole(folder: Path, file: BigFile, name: str) -> None:
        real_write(folder, file, name)
        part, content = f"{folder.name}/{name}.random", b"".join(map(bytes, file.parts))
        notes.extend([Note("create", part), Note("write", part, 0, content), Note("sync", part)])
        notes.append(Note("rename", part, 0, inside(folder, name).encode()))

    def rename(folder: Path, name: str, other: str) -> None:
        real_rename(folder, name, other)
        notes.append(Note("rename", inside(folder, name), 0, inside(folder, other).encode()))

    def sync(folder: Path) -> None:
        real_sync(folder)
        notes.append(Note("sync", folder.name if folder.name == beside else "."))

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(store_module, "write_whole", write_whole)
        patch.setattr(store_module, "_rename", rename)
        patch.setattr(store_module, "sync_folder", sync)
        write_journal(folder / "run.db", connect, lambda chunk: notes.append(Note("told", chunk)))
    vfs.unregister()
    return notes


def note_by_strace(folder: Path) -> list[Note]:
    (folder / "all").mkdir()
    command = [sys.executable, "-m", "tests.support.journal_writer", str(folder / "all")]
    return trace(command, folder / "all", folder / "log")


@pytest.fixture(scope="module", params=["another sqlite", STRACED])
def notes(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Sequence[Note]:
    """What writing a whole journal did to the files."""
    folder = tmp_path_factory.mktemp("noted")
    return note_by_strace(folder) if request.param == "straced" else note_by_vfs(folder)


def check(files: dict[str, bytes], folder: Path, told: set[str]) -> None:
    """The journal can be opened, and has at least what somebody was told of, whole."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    path = folder / "run.db"
    put(files, folder)
    journal = Journal(str(path), lambda: 0.0)
    try:
        journal.flush()
        check_content(journal, {int(chunk) - more for chunk in told for more in (0, 1)})
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
        indices = range(chunk * ITEMS, (chunk + 1) * ITEMS)
        assert table.all_results()[indices.start : indices.stop] == [*map(result_of, indices)]


def drop(note: Note) -> None:
    return None


def keep(note: Note) -> Note:
    return note


@pytest.mark.parametrize("unsynced", ["kept", "lost", "torn"])
def test_after_a_power_cut_all_that_was_told_is_there(notes: Sequence[Note], tmp_path: Path, unsynced: str) -> None:
    rng = random.Random(5)

    def tear(note: Note) -> Note | None:
        if note.kind != "write":
            return note if rng.random() < 0.5 else None
        size = rng.choice((0, len(note.data) // 2 // 512 * 512, len(note.data)))  # whole sectors
        return Note("write", note.file, note.offset, note.data[:size])

    how: dict[str, Keep] = {"kept": keep, "lost": drop, "torn": tear}
    seen = 0
    for prefix, told in moments(notes):
        check(after_cut(prefix, how[unsynced]), tmp_path / "cut", told)
        seen += 1
    assert seen > 2 * CHUNKS
    assert sum(note.kind == "sync" and note.file == "run.db" for note in notes) > 2  # the log was moved home, too


@pytest.mark.parametrize("what", ["run.db-wal", "."])
def test_the_check_finds_a_journal_that_does_not_sync(notes: Sequence[Note], tmp_path: Path, what: str) -> None:
    careless = [note for note in notes if not (note.kind == "sync" and note.file == what)]
    assert len(careless) < len(notes)

    def cut_everywhere() -> None:
        for prefix, told in moments(careless):
            check(after_cut(prefix, drop), tmp_path / "cut", told)

    with pytest.raises(AssertionError):
        cut_everywhere()
