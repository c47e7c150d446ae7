"""What another user may have planted: nothing is written through it, and nothing of it is read.

Files of another user are made where these tests run as root; else what was given away is taken for another's.
"""

from __future__ import annotations

import csv
import os
import stat
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from mpqueue import JobQueue, JournalError
from tests.support import handlers as do
from tests.support.command_line import main, run_command

pytestmark = pytest.mark.slow

STRANGER = 65534


@pytest.fixture
def give_away(monkeypatch: pytest.MonkeyPatch) -> Callable[[Path], None]:
    """Make a file another user's, whose name this one may still use."""
    if os.geteuid() == 0:
        return lambda path: os.chown(path, STRANGER, STRANGER, follow_symlinks=False)
    given: set[int] = set()
    for name in ("stat", "lstat", "fstat"):
        monkeypatch.setattr(os, name, partial(stat_as_given, getattr(os, name), given))
    return lambda path: given.add(os.lstat(path).st_ino)


def stat_as_given(real: Callable[..., os.stat_result], given: set[int], *file: Any, **how: Any) -> os.stat_result:
    """What the system says, but of a file that was given away."""
    found = real(*file, **how)
    if found.st_ino not in given:
        return found
    return os.stat_result((*found[:4], STRANGER, STRANGER, *found[6:]))


@pytest.fixture
def masked() -> Iterator[None]:
    """Few rights for new files."""
    before = os.umask(0o027)
    yield
    os.umask(before)


def run_one(folder: Path) -> Any:
    with JobQueue(1, journal=folder / "run.db") as queue:
        return queue.run(["a", b"x" * 300_000], do.succeed, id="job")


# --- files that are written -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["x.csv", "report.html"])
def test_no_link_is_followed_where_a_whole_file_is_written(tmp_path: Path, name: str, masked: None) -> None:
    """Neither at its name, nor at one that can be guessed; and the rights are those that the umask leaves."""
    victim = tmp_path / "victim"
    victim.write_text("precious")
    folder = tmp_path / "shared"
    folder.mkdir()
    (folder / f".{name}.{os.getpid()}.part").symlink_to(victim)
    (folder / name).symlink_to(victim)
    with JobQueue(1) as queue:
        job = queue.run(["a", "b"], do.succeed)
    if name == "report.html":
        job.report().save(folder / name)
    else:
        job.export(folder / name)
    assert victim.read_text() == "precious"
    assert not (folder / name).is_symlink()
    assert stat.S_IMODE((folder / name).stat().st_mode) == 0o640
    assert len(list(folder.iterdir())) == 2  # with the planted one, which nobody looked at
    (folder / name).chmod(0o604)
    if name.startswith("x"):
        job.export(folder / name)
        assert stat.S_IMODE((folder / name).stat().st_mode) == 0o604  # of the file that was there


@pytest.mark.skipif(os.geteuid() != 0, reason="makes a link of another user's")
def test_the_command_line_writes_through_no_link_of_another_user_s(tmp_path: Path) -> None:
    victim = tmp_path / "victim"
    victim.write_text("precious")
    (tmp_path / "own.py").write_text("def work(line):\n    return line\n")
    run = partial(run_command, tmp_path, "run", "own:work", "-", "-j", "1", "-o", "x.jsonl", stdin="a\nb\n")
    (tmp_path / "x.jsonl").symlink_to(victim)
    os.chown(tmp_path / "x.jsonl", STRANGER, STRANGER, follow_symlinks=False)
    run(code=0)
    assert victim.read_text() == "precious"
    assert (tmp_path / "x.jsonl").read_text().count("\n") == 2


# --- journals ---------------------------------------------------------------------------------------------------------


#: Names beside or of a journal, and what makes them.
PLANTED: dict[str, Callable[[Path], object]] = {
    "run.db": Path.touch,
    "run.db.files": Path.mkdir,
    "run.db.lock": Path.touch,
    "run.db-wal": Path.touch,
}


@pytest.mark.long(but=["run.db.lock", "run.db-wal"])
@pytest.mark.parametrize("name", PLANTED)
def test_a_journal_takes_nothing_that_another_user_has_put_there(
    tmp_path: Path, give_away: Callable[[Path], None], name: str
) -> None:
    planted = tmp_path / name
    PLANTED[name](planted)
    give_away(planted)
    with pytest.raises(JournalError, match=r"expected a file of this user .* it is left as it is"):
        JobQueue(1, journal=tmp_path / "run.db")
    assert list(tmp_path.iterdir()) == [planted]
    with JobQueue(1, journal=tmp_path / "bystander.db") as queue:
        assert queue.run(["a"], do.succeed).results == ["a"]


def test_a_journal_of_another_user_s_is_not_read(
    tmp_path: Path, give_away: Callable[[Path], None], capsys: pytest.CaptureFixture[str]
) -> None:
    run_one(tmp_path)
    (value,) = (tmp_path / "run.db.files").iterdir()
    give_away(value)
    with JobQueue(1, journal=tmp_path / "run.db") as queue:
        job = queue.get_job("job")
        assert job is not None
        assert "expected a file of this user" in repr(job.results[1])
        assert job.results[0] == "a"
    give_away(tmp_path / "run.db")
    with pytest.raises(JournalError, match="expected a file of this user"):
        JobQueue(1, journal=tmp_path / "run.db")
    assert main(["status", str(tmp_path / "run.db")]) == 1
    assert "expected a file of this user" in capsys.readouterr().err


@pytest.mark.skipif(os.geteuid() != 0, reason="makes a link of another user's")
def test_a_link_to_a_journal_is_followed_where_it_is_this_user_s(tmp_path: Path) -> None:
    run_one(tmp_path)
    link = tmp_path / "link.db"
    link.symlink_to("run.db")
    with JobQueue(1, journal=link) as queue:
        assert queue.get_job("job").completed == 2  # type: ignore[union-attr]
    os.chown(link, STRANGER, STRANGER, follow_symlinks=False)
    with pytest.raises(JournalError, match=r"link.db: expected a file of this user"):
        JobQueue(1, journal=link)


@pytest.mark.long(but=["438-True", "384-False"])
@pytest.mark.parametrize(("mode", "refused"), [(0o666, True), (0o602, True), (0o644, False), (0o600, False)])
def test_a_journal_that_anybody_can_write_is_refused(tmp_path: Path, mode: int, refused: bool) -> None:
    run_one(tmp_path)
    for name in ("run.db", "run.db.files"):
        (tmp_path / name).chmod(mode | 0o100 * (name != "run.db"))
        if refused:
            with pytest.raises(
                JournalError, match=rf"expected a file that only its owner can write, got mode .*{mode & 7}"
            ):
                JobQueue(1, journal=tmp_path / "run.db")
        (tmp_path / name).chmod(0o700)
    with JobQueue(1, journal=tmp_path / "run.db") as queue:
        assert queue.get_job("job").completed == 2  # type: ignore[union-attr]


def test_a_file_of_a_private_group_is_taken_and_one_of_a_team_is_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With umask 002, as systems have it that make a group for each user."""
    import grp
    import pwd

    me = pwd.getpwuid(os.geteuid()).pw_name
    run_one(tmp_path)
    (tmp_path / "run.db").chmod(0o660)

    def group(name: str, *members: str) -> None:
        monkeypatch.setattr(grp, "getgrgid", lambda gid: grp.struct_group((name, "x", gid, list(members))))

    group(me)
    with JobQueue(1, journal=tmp_path / "run.db") as queue:
        assert queue.get_job("job").completed == 2  # type: ignore[union-attr]
    for name, members in (("team", ()), (me, ("somebody",))):
        group(name, *members)
        with pytest.raises(JournalError, match="only its owner can write, got mode 0660"):
            JobQueue(1, journal=tmp_path / "run.db")


def test_a_planted_lock_empties_no_other_file(tmp_path: Path) -> None:
    """A link, also a hard one, at the name of the lock, which would be emptied and written."""
    victim = tmp_path / "victim"
    for plant in (os.symlink, os.link):
        victim.write_text("precious")
        plant(victim, tmp_path / "run.db.lock")
        with pytest.raises(JournalError, match="lock"):
            JobQueue(1, journal=tmp_path / "run.db")
        assert victim.read_text() == "precious"
        (tmp_path / "run.db.lock").unlink()
    assert run_one(tmp_path).completed == 2


# --- cells that spreadsheets run --------------------------------------------------------------------------------------

CELLS = [
    "=1+1",
    "+cmd|' /C calc'!A0",
    "-2+3",
    "@SUM(A1)",
    "\tx",
    "\rx",
    "-5",
    "+1.5e3",
    "plain",
    -7,
    -1.5,
    -2j,
    ["=1"],
    {"a": "=2"},
]
ESCAPED = ["'=1+1", "'+cmd|' /C calc'!A0", "'-2+3", "'@SUM(A1)", "'\tx", "'\rx", "-5", "+1.5e3", "plain", "-7", "-1.5"]


def cells(path: Path, delimiter: str = ",") -> list[str]:
    with path.open(newline="") as file:
        return [row["result"] for row in csv.DictReader(file, delimiter=delimiter)][: len(ESCAPED)]


def test_texts_that_a_spreadsheet_would_run_have_an_apostrophe_before_them(tmp_path: Path) -> None:
    with JobQueue(1) as queue:
        job = queue.run(CELLS, do.succeed)
    assert cells(job.export(tmp_path / "x.csv")) == ESCAPED
    assert cells(job.export(tmp_path / "x.tsv"), "\t") == ESCAPED
    raw = cells(job.export(tmp_path / "x.csv", escape_formulas=False))
    assert raw == [cell if isinstance(cell, str) else str(cell) for cell in CELLS[: len(ESCAPED)]]
    with pytest.raises(TypeError, match="escape_formulas: expected True or False, got 1"):
        job.export(tmp_path / "x.csv", escape_formulas=1)  # type: ignore[arg-type]
