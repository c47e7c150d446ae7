"""On which file systems a journal may be, by their names."""

from __future__ import annotations

import pytest

from mpqueue._os.file_system import FileSystem
from mpqueue._parent.journal.checks import is_shared

LOCAL = ("ext4", "xfs", "btrfs", "zfs", "tmpfs", "overlay", "virtiofs", "fuseblk", "something.new")


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
