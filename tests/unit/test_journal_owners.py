"""Whose files a journal may be made of."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from mpqueue._parent.journal import checks
from mpqueue._parent.journal.checks import BESIDE, check_one_name, check_own, check_stat, own_path
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


@pytest.mark.parametrize("suffix", ["", "-wal", ".lock"])
def test_a_second_name_is_refused_with_the_command_that_mends_it(path: str, suffix: str) -> None:
    Path(f"{path}{suffix}").touch(0o600)
    check_one_name(path)
    os.link(f"{path}{suffix}", f"{path}.copy")
    with pytest.raises(JournalError, match="got one with 2 ") as caught:
        Journal(path, time.monotonic)
    command = str(caught.value).partition("`cp -p ")[2].rstrip("`")
    assert command.startswith(f"{path}{suffix} {path}{suffix}.own && mv ")
