"""Facilities of the operating system: each form keeps the same contract, the portable one on Linux too."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import math
import mmap
import os
import resource
import stat
import tempfile
from collections.abc import Callable, Iterator
from io import FileIO
from pathlib import Path

import pytest
from _pytest.mark import ParameterSet

from mpqueue._os import descriptors, file_system, memory_files, process_facts, system
from mpqueue._os.facts import facts
from tests.support.systems import LINUX_ONLY
from tests.support.this_system import IS_LINUX


def forms(linux: object, posix: object, *more: ParameterSet) -> pytest.MarkDecorator:
    """Run the test with each form."""
    return pytest.mark.parametrize(
        "form", [pytest.param(linux, id="linux", marks=LINUX_ONLY), pytest.param(posix, id="posix"), *more]
    )


def test_each_system_gets_its_form(monkeypatch: pytest.MonkeyPatch) -> None:
    for is_linux, form in ((True, "linux"), (False, "posix")):
        monkeypatch.setattr(system, "IS_LINUX", is_linux)
        assert system.choose(linux="linux", posix="posix") == form


@forms(memory_files.make_file, memory_files._make_temporary)
def test_a_file_in_memory_has_no_name_and_is_private_to_this_process(form: Callable[[str], int]) -> None:
    fd = form("test")
    try:
        found = os.fstat(fd)
        assert (stat.S_ISREG(found.st_mode), found.st_nlink, found.st_size) == (True, 0, 0)
        assert fd > 2
        assert not os.get_inheritable(fd)
        os.ftruncate(fd, mmap.PAGESIZE)
        with mmap.mmap(fd, mmap.PAGESIZE) as memory:
            memory[:4] = b"both"
        assert os.pread(fd, 4, 0) == b"both"
    finally:
        os.close(fd)


@forms(memory_files.make_file, memory_files._make_temporary)
def test_a_file_in_memory_begins_with_its_data_or_says_what_limit_is_in_its_way(
    form: Callable[[str], int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(memory_files, "make_file", form)
    file = memory_files.SharedFile("test", data=b"begun")
    assert os.read(file.fd, 10) == b"begun"
    number = file.fd
    file.close()
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1024, hard))
    try:
        with pytest.raises(OSError, match="raise `ulimit -f`"):
            memory_files.SharedFile("test", mmap.PAGESIZE)
        with pytest.raises(OSError, match="raise `ulimit -f`"):
            memory_files.SharedFile("test", data=bytes(2000))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    file = memory_files.SharedFile("test")
    assert file.fd == number, "no descriptor is left open"
    file.close()


def test_a_path_leads_to_the_file_or_is_empty() -> None:
    fd = memory_files.make_file("test")
    try:
        path = memory_files.path_of(fd)
        assert (path == "") is not IS_LINUX
        assert path == "" or os.path.samestat(os.stat(path), os.fstat(fd))
    finally:
        os.close(fd)


def test_each_open_descriptor_is_listed() -> None:
    read, write = os.pipe()
    try:
        assert {0, read, write} <= set(descriptors.open_descriptors())
    finally:
        os.close(read)
        os.close(write)


def test_where_nothing_lists_descriptors_all_that_there_may_be_are_looked_at(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(path: str) -> list[str]:
        raise FileNotFoundError(path)

    monkeypatch.setattr(os, "listdir", refuse)
    assert {0, 1, 2} <= set(descriptors.open_descriptors())
    assert descriptors.descriptors_left() == math.inf


@pytest.fixture(params=[pytest.param(system.PROC, id="here"), pytest.param("/dev/null/proc", id="elsewhere")])
def tells(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[bool]:
    """Whether the system tells what only Linux does: as it is here, and as it is on other systems."""
    for module in (descriptors, process_facts):
        monkeypatch.setattr(module, "PROC", request.param)
    process_facts.namespace.cache_clear()
    yield str(request.param) == "/proc"
    process_facts.namespace.cache_clear()


def test_what_is_opened_anew_is_the_same_file_with_an_offset_of_its_own(tells: bool) -> None:
    fd = memory_files.make_file("test")
    try:
        os.write(fd, b"all")
        try:
            anew = descriptors.reopen(fd, os.O_RDONLY)
        except OSError:
            assert not tells
        else:
            assert tells
            assert os.read(anew, 9) == b"all"
            os.close(anew)
    finally:
        os.close(fd)


def test_memory_that_is_no_longer_shared_changes_for_nobody_else() -> None:
    file = memory_files.SharedFile("test", mmap.PAGESIZE)
    with mmap.mmap(file.fd, mmap.PAGESIZE) as memory:
        view = memoryview(memory)
        view[0] = 7
        memory_files.give_up_sharing(memory_files.address_of(view), mmap.PAGESIZE)
        assert view[0] == 0
        view[0] = 9
        assert os.pread(file.fd, 1, 0) == b"\7"
        view.release()
    file.close()


def test_a_gauge_reads_another_process_or_there_is_none(tells: bool) -> None:
    assert (process_facts.memory_of(os.getppid()) is not None) == tells
    assert (process_facts.memory_of("self") or 0) > 1 << 20 or not tells
    assert (process_facts.why_not_told() is None) == tells


def test_the_machine_s_memory_is_bytes_or_not_told() -> None:
    for root, tells in ((Path("/"), IS_LINUX), (Path("/dev/null"), False)):
        found = process_facts.MachineMemory(root).memory()
        assert (found is not None and found.total >= found.available) == tells


@LINUX_ONLY
def test_where_memfds_are_refused_files_are_made_in_the_temporary_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> int:
        raise PermissionError(errno.EPERM, "refused")

    def tell_none() -> str:
        raise FileNotFoundError(errno.ENOENT, "No usable temporary directory found")

    monkeypatch.setattr(os, "memfd_create", refuse)
    memory_files.SharedFile("test", data=b"in the temporary folder").close()
    assert not memory_files.can_be_opened_by_others.__wrapped__()
    monkeypatch.setattr(tempfile, "gettempdir", tell_none)
    with pytest.raises(FileNotFoundError, match="set TMPDIR to one"):
        memory_files.make_sealable("test")


def test_a_peak_is_bytes_or_not_told(tells: bool) -> None:
    assert process_facts.begin_peak() == tells
    found = process_facts.peak()
    assert found is None or (tells and found > 1 << 20)


def test_a_delay_only_grows_or_is_not_told(tells: bool) -> None:
    before, after = process_facts.read_run_delay(), process_facts.read_run_delay()
    assert (before is None) == (not tells)
    assert (before or 0) <= (after or 0)


def test_a_table_names_a_process_by_its_start_or_knows_none(tells: bool) -> None:
    me = os.getpid()
    with contextlib.nullcontext() if tells else pytest.raises(OSError, match="proc"):
        assert me not in process_facts.others()
    assert process_facts.start_time(me) == process_facts.start_time(me)
    assert tells or process_facts.namespace() == ""
    assert (process_facts.start_time(me) > 0) == tells
    assert (process_facts.environment(me) is not None) == tells


def test_room_is_there_or_refused_and_what_is_written_stays(tmp_path: Path) -> None:
    with (tmp_path / "a file").open("w+b", buffering=0) as file:
        file.write(b"abc")
        file_system.reserve_room(file.fileno(), 3, 1000)
        assert os.fstat(file.fileno()).st_size == (1003 if IS_LINUX else 3)
        if IS_LINUX:
            with pytest.raises(OSError, match=r"No space|too large"):
                file_system.reserve_room(file.fileno(), 3, 1 << 62)
        assert os.pread(file.fileno(), 3, 0) == b"abc"


def test_a_file_system_is_named_or_not_told(tmp_path: Path) -> None:
    file = tmp_path / "a file"
    file.touch()
    found = file_system.file_system_of(str(file))
    assert found == file_system.file_system_of(str(tmp_path))
    assert (found is not None) == IS_LINUX
    assert file_system.file_system_of(str(tmp_path / "not there")) is None
    if found is not None:
        assert file.is_relative_to(found.root)


def test_a_file_system_is_found_by_its_mount_s_number_and_names_may_have_any_bytes() -> None:
    mounts = (
        b"22 27 0:21 / /proc rw,relatime - proc proc rw\n"
        b"27 1 254:0 / / rw,relatime shared:1 master:2 - ext4 /dev/vda rw,discard\n"
        b"2 27 0:50 / /home/a\\040b\\134\xff rw - fuse.sshfs me@host:/data\\040of\\040mine rw,user_id=0\n"
        b"no line at all\n3 - x\n"
    )
    found = file_system.mounted_as(mounts, 2)
    assert found == ("fuse.sshfs", "me@host:/data of mine", os.fsdecode(b"/home/a b\\\xff"))
    assert file_system.mounted_as(mounts, 27) == ("ext4", "/dev/vda", "/")
    assert file_system.mounted_as(mounts, 3) is None
    assert file_system.mounted_as(b"", 3) is None


@pytest.mark.parametrize("kind", [pytest.param("of openings", marks=LINUX_ONLY), "of flock"])
def test_a_lock_on_a_file_survives_that_the_file_is_opened_and_closed_again(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if kind == "of flock":
        monkeypatch.setattr(file_system, "_ask", refuse)
    one, other = (FileIO(tmp_path / "lock", "w+") for _ in range(2))
    try:
        assert not file_system.is_locked(other.fileno())
        file_system.lock_file(one)
        os.close(os.open(tmp_path / "lock", os.O_RDWR | os.O_CLOEXEC))
        assert file_system.is_locked(other.fileno())
        with pytest.raises(OSError, match="temporarily unavailable"):
            file_system.lock_file(other)
        one.close()
        assert not file_system.is_locked(other.fileno())
        one = FileIO(tmp_path / "lock", "w+")
        file_system.lock_file(one)  # to have asked is no lock
        file_system.unlock_file(one.fileno())
        file_system.lock_file(other)
    finally:
        one.close()
        other.close()


def refuse(*_: object) -> int:
    raise OSError(errno.EINVAL, "refused")


@LINUX_ONLY
def test_bytes_that_are_held_keep_record_locks_off_until_they_are_let_go(tmp_path: Path) -> None:
    one = FileIO(tmp_path / "file", "w+")
    other = os.open(tmp_path / "file", os.O_RDWR | os.O_CLOEXEC)
    try:
        assert file_system.hold_bytes(one, 100, 10)
        os.close(os.open(tmp_path / "file", os.O_RDWR | os.O_CLOEXEC))
        with pytest.raises(OSError, match="temporarily unavailable"):
            fcntl.lockf(other, fcntl.LOCK_EX | fcntl.LOCK_NB, 10, 100)
        fcntl.lockf(other, fcntl.LOCK_SH | fcntl.LOCK_NB, 10, 100)
        fcntl.lockf(other, fcntl.LOCK_UN, 10, 100)
        file_system.release_bytes(one, 100, 10)
        fcntl.lockf(other, fcntl.LOCK_EX | fcntl.LOCK_NB, 10, 100)
        assert not file_system.hold_bytes(one, 100, 10)
    finally:
        one.close()
        os.close(other)


def test_all_facilities_are_there_on_linux_and_none_in_the_portable_form() -> None:
    assert set(facts().values()) == {IS_LINUX}
