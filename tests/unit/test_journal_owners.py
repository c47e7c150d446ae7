"""Whose files a journal may be made of."""

from __future__ import annotations

import contextlib
import os
import time
from pathlib import Path

import pytest

from mpqueue._parent.journal import checks
from mpqueue._parent.journal.checks import BESIDE, check_one_name, check_own, check_stat, own_path
from mpqueue._parent.journal.journal_reader import Reader
from mpqueue._parent.journal.journal_writer import Journal
from mpqueue.errors import JournalError
from tests.support.this_system import IS_WINDOWS

pytestmark = pytest.mark.skipif(IS_WINDOWS, reason="files there have no modes")


@pytest.fixture
def path(tmp_path: Path) -> str:
    return str(tmp_path / "run.db")


def let_nobody_be_trusted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checks, "is_trusted", lambda _: False)


@pytest.mark.parametrize("suffix", BESIDE)
def test_what_others_may_write_or_have_written_is_refused(
    path: str, suffix: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = f"{path}{suffix}"
    Path(name).touch(0o600)
    check_own(path)
    os.chmod(name, 0o602)
    with pytest.raises(JournalError, match=r"only its owner can write, got mode 0602"):
        Journal(path, time.monotonic)
    os.chmod(name, 0o600)
    let_nobody_be_trusted(monkeypatch)
    with pytest.raises(JournalError, match=f"expected a file of this user .* got one of user {os.getuid()}"):
        check_own(path)


def test_only_files_of_this_user_and_of_root_are_trusted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checks, "this_user", lambda: 1000)
    for user, refused in ((1000, False), (0, False), (1, True), (1001, True)):
        found = os.stat_result((0o100600, 1, 1, 1, user, user, 0, 0, 0, 0))
        with pytest.raises(JournalError, match=f"got one of user {user}") if refused else contextlib.nullcontext():
            check_stat("run.db", found)


def test_a_link_of_another_user_is_refused_wherever_it_leads(path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    Path(f"{path}.real").touch(0o600)
    os.symlink(f"{path}.real", path)
    assert own_path(path) == os.path.realpath(f"{path}.real")
    check_own(path)
    os.unlink(f"{path}.real")
    check_own(path)  # it leads nowhere
    let_nobody_be_trusted(monkeypatch)
    for check in (own_path, check_own):
        with pytest.raises(JournalError, match=r"expected a file of this user"):
            check(path)


def test_what_is_not_there_is_nobodys(path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    let_nobody_be_trusted(monkeypatch)
    assert own_path(path) == os.path.realpath(path)
    check_own(path)
    check_one_name(path)


def test_a_device_may_be_everybodys() -> None:
    check_stat(os.devnull, os.stat(os.devnull))


@pytest.mark.parametrize("part", ["", ".part"])
def test_a_big_value_s_file_is_read_only_if_no_other_user_may_have_put_it_there(
    path: str, part: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its folder may be on another disk; reading the file runs its contents."""
    folder = Path(f"{path}.files")
    folder.mkdir(0o700)
    file = folder / f"big{part}"
    file.write_bytes(b"a value")
    file.chmod(0o600)
    reader = Reader(path)
    assert reader.read_file("big") == b"a value"
    file.chmod(0o602)
    with pytest.raises(JournalError, match=r"only its owner can write, got mode 0602"):
        reader.read_file("big")
    file.chmod(0o600)
    file.rename(folder / "elsewhere")
    file.symlink_to(folder / "elsewhere")
    with pytest.raises(OSError, match="symbolic links"):
        reader.read_file("big")
    file.unlink()
    (folder / "elsewhere").rename(file)
    let_nobody_be_trusted(monkeypatch)
    with pytest.raises(JournalError, match=f"expected a file of this user .* got one of user {os.getuid()}"):
        reader.read_file("big")


@pytest.mark.parametrize("suffix", ["", "-wal", ".lock"])
def test_a_second_name_is_refused_with_the_command_that_mends_it(path: str, suffix: str) -> None:
    Path(f"{path}{suffix}").touch(0o600)
    check_one_name(path)
    os.link(f"{path}{suffix}", f"{path}.copy")
    with pytest.raises(JournalError, match="got one with 2 ") as caught:
        Journal(path, time.monotonic)
    command = str(caught.value).partition("`cp -p ")[2].rstrip("`")
    assert command.startswith(f"{path}{suffix} {path}{suffix}.own && mv ")
