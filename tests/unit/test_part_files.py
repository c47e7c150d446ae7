"""A file that is written while a job runs is written anew: no row is lost, and no other job takes its name."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import IO, Any

import pytest

from mpqueue._os.files import REPLACES_OPEN_FILES, this_user
from mpqueue._output import part_file
from mpqueue._output.part_file import PartFile
from tests.support.systems import not_on_windows
from tests.support.this_system import IS_WINDOWS

WAYS = [False, True] if REPLACES_OPEN_FILES else [False]


@pytest.fixture
def part(tmp_path: Path) -> Iterator[PartFile]:
    part = PartFile(tmp_path / "rows")
    part.open()
    part.append(b"one\ntwo\n")
    yield part
    part.leave()


def doubled(file: IO[bytes]) -> Iterable[bytes]:
    for line in file:
        yield from (line, line)


@pytest.mark.parametrize("replaces", WAYS)
def test_a_part_that_is_written_anew_stays_locked_under_its_name(
    part: PartFile, monkeypatch: pytest.MonkeyPatch, replaces: bool
) -> None:
    monkeypatch.setattr(part_file, "REPLACES_OPEN_FILES", replaces)
    folder = part.target.parent
    for _ in range(2):
        part.rewrite(doubled)
        assert os.listdir(folder) == ["rows.part"]
        with pytest.raises(BlockingIOError):
            PartFile(part.target).open()
    part.append(b"end\n")
    part.finish()
    assert os.listdir(folder) == ["rows"]
    assert part.target.read_bytes() == b"one\n" * 4 + b"two\n" * 4 + b"end\n"


@not_on_windows("no forks")
def test_a_part_that_is_left_is_free_though_a_fork_that_has_just_been_made_has_not_closed_it(part: PartFile) -> None:
    shared = os.dup(part.file.fileno())  # as a fork shares it
    assert part.leave() == part.part
    again = PartFile(part.target)
    again.open()
    again.leave()
    os.close(shared)


def test_a_part_whose_name_is_taken_meanwhile_is_left_under_the_one_that_it_has(
    part: PartFile, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(part_file, "REPLACES_OPEN_FILES", False)
    name, replace = part.part, os.replace

    def replaced(source: Any, target: Any) -> None:
        replace(source, target)
        name.write_bytes(b"of another job")

    def refused(source: Any, target: Any) -> None:
        raise FileExistsError(17, "File exists", str(source), None, str(target))

    monkeypatch.setattr(os, "replace", replaced)
    monkeypatch.setattr(os, "rename", refused)
    with pytest.raises(FileExistsError):
        part.rewrite(doubled)
    left = part.leave()
    assert left == name.with_name("rows.part.1")
    assert left.read_bytes() == b"one\ntwo\n"
    assert name.read_bytes() == b"of another job"
    assert sorted(os.listdir(name.parent)) == ["rows.part", "rows.part.1"]


@pytest.mark.skipif(IS_WINDOWS or this_user() != 0, reason="becomes another user")
def test_another_user_s_file_in_a_folder_as_tmp_is_refused_at_once() -> None:
    with tempfile.TemporaryDirectory(dir="/tmp") as name:
        folder = Path(name)
        folder.chmod(0o1777)
        (folder / "roots").touch()
        (folder / "new").touch()
        os.seteuid(65534)
        try:
            with pytest.raises(PermissionError):
                os.replace(folder / "new", folder / "roots")
            with pytest.raises(PermissionError, match=r"roots', which is user 0's, in a folder .* \(sticky bit\)"):
                PartFile(folder / "roots").check()
            PartFile(folder / "not there").check()
        finally:
            os.seteuid(0)
