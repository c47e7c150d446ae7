"""A power cut at any moment: what was on disk by the last sync is there again, whatever became of later writes.

All that is done to the files of a journal is noted by ``strace``: writes, truncations, renamings, syncs. Every prefix
of the notes is a moment at which the power may fail; what was not synced by then may be there, be lost, or be there in
part.
"""

from __future__ import annotations

import os
import random
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

from tests.support.disk import Disk
from tests.support.journal_writer import CHUNKS, ITEMS, KINDS, result_of
from tests.support.journals import queue_of
from tests.support.length import long
from tests.support.power import Keep, Note, after_cut, moments, put
from tests.support.straced import can_trace, trace
from tests.support.this_system import IS_LINUX

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not can_trace() and not (IS_LINUX and "CI" in os.environ), reason="needs strace"),
]


@pytest.fixture(scope="module")
def notes(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Sequence[Note]:
    """What writing a whole journal did to the files."""
    folder = tmp_path_factory.mktemp("noted")
    (folder / "all").mkdir()
    command = [sys.executable, "-m", "tests.support.journal_writer", request.param, str(folder / "all")]
    return trace(command, folder / "all", folder / "log")


def check(files: dict[str, bytes], folder: Path, told: set[str]) -> None:
    """The journal can be opened, and has at least what somebody was told of, whole."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    put(files, folder)
    done = set[int]()
    with queue_of(folder / "run.db") as queue:
        for job in queue.jobs():
            for item in job.items:
                if item.status == "completed":
                    assert item.result == result_of(item.payload)
                    done.add(item.payload)
    chunks = [int(chunk) - more for chunk in told for more in (0, 1)]
    assert done.issuperset(index for chunk in chunks for index in range(chunk * ITEMS, (chunk + 1) * ITEMS))


def drop(note: Note) -> None:
    return None


def keep(note: Note) -> Note:
    return note


def tear(rng: random.Random) -> Keep:
    def torn(note: Note) -> Note | None:
        if note.kind != "write":
            return note if rng.random() < 0.5 else None
        size = rng.choice((0, len(note.data) // 2 // 512 * 512, len(note.data)))  # whole sectors
        return Note("write", note.file, note.offset, note.data[:size])

    return torn


EVERYWHERE = [(kind, "torn") for kind in KINDS] + [("list", "lost")]
MORE = [("open", "lost"), ("stream", "lost"), *((kind, "kept") for kind in KINDS)]


@pytest.mark.long(but=["list-torn"])
@pytest.mark.parametrize(("notes", "unsynced"), [*EVERYWHERE, *(long(*each) for each in MORE)], indirect=["notes"])
def test_after_a_power_cut_all_that_was_told_is_there(
    notes: Sequence[Note], tmp_path: Path, disk: Disk, unsynced: str
) -> None:
    how: dict[str, Keep] = {"kept": keep, "lost": drop, "torn": tear(random.Random(5))}
    disk.syncs, seen = False, 0
    for prefix, told in moments(notes):
        check(after_cut(prefix, how[unsynced]), tmp_path / "cut", told)
        seen += 1
    assert seen > CHUNKS
    assert sum(note.kind == "sync" and note.file == "run.db" for note in notes) > 2  # the log was moved home, too


@pytest.mark.parametrize("notes", ["list"], indirect=True)
@pytest.mark.parametrize("what", ["run.db-wal", "."])
def test_the_check_finds_a_journal_that_does_not_sync(
    notes: Sequence[Note], tmp_path: Path, disk: Disk, what: str
) -> None:
    careless = [note for note in notes if not (note.kind == "sync" and note.file == what)]
    assert len(careless) < len(notes)
    disk.syncs = False

    def cut_everywhere() -> None:
        for prefix, told in moments(careless):
            check(after_cut(prefix, drop), tmp_path / "cut", told)

    with pytest.raises(AssertionError):
        cut_everywhere()
