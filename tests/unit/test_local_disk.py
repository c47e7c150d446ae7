"""On which file systems a journal may be, by their names."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from mpqueue._os.file_system import FileSystem
from mpqueue._parent.journal import checks
from mpqueue._parent.journal.checks import check_local, is_shared
from mpqueue._parent.journal.journal_writer import Journal
from mpqueue.errors import JournalError

LOCAL = ("ext4", "xfs", "btrfs", "zfs", "tmpfs", "overlay", "virtiofs", "fuseblk", "something.new")
LOCAL_DISK = FileSystem("ext4", "/dev/sda", "/home")


@pytest.mark.parametrize(
    ("found", "shared"),
    [
        *[(FileSystem(kind, "/dev/sda", "/home"), False) for kind in LOCAL],
        *[(FileSystem(kind, "x", "/home"), True) for kind in ("nfs", "nfs4", "cifs", "smb3", "lustre", "gpfs", "afs")],
        (FileSystem("9p", "drvfs", "/mnt/c"), True),
        (FileSystem("9p", "none", "/"), False),
        (FileSystem("network drive", "Z:", "Z:"), True),
        (FileSystem("fuse.sshfs", "host:", "/home"), True),
        (FileSystem("fuse.glusterfs", "x", "/home"), True),
        (FileSystem("fuse", "s3fs", "/home"), True),
        (FileSystem("fuse", "https://cloud.example/dav", "/home"), True),
        (FileSystem("fuse.unheard-of", "host:/volume", "/home"), True),
        (FileSystem("fuse.unheard-of", "//host/share", "/home"), True),
        (FileSystem("fuse.mergerfs", "disk1:disk2", "/home"), False),
        (FileSystem("fuse.mergerfs", "/a:/b", "/home"), False),
        (FileSystem("fuse.fuse-overlayfs", "fuse-overlayfs", "/"), False),
        (FileSystem("fuse.gocryptfs", "/home/me/secret", "/home"), False),
    ],
    ids=str,
)
def test_what_other_machines_write_too_is_known_by_its_name(found: FileSystem, shared: bool) -> None:
    assert is_shared(found) == shared


@pytest.mark.parametrize("is_there", [True, False])
def test_a_journal_is_refused_on_a_disk_of_others_by_the_folder_that_it_would_be_in(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, is_there: bool
) -> None:
    path, asked = tmp_path / "run.db", list[str]()
    if is_there:
        path.touch()
    found = iter([FileSystem("nfs4", "server:/home", "/home"), LOCAL_DISK, None])

    def file_system_of(name: str) -> FileSystem | None:
        asked.append(name)
        return next(found)

    monkeypatch.setattr(checks, "file_system_of", file_system_of)
    with pytest.raises(JournalError, match=r"run\.db: expected a disk of this machine's own, got nfs4 \(server:/home"):
        Journal(str(path), time.monotonic)
    check_local(str(path))
    check_local(str(path))  # where it is not known
    assert asked == [str(path if is_there else tmp_path)] * 3
