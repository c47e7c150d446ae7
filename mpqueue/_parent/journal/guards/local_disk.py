"""That a journal is on a disk of this machine's own.

SQLite's write-ahead log is kept by memory that its readers and its writer share, by locks, and by the order in which
what is written reaches the disk. A file system that other machines write too has none of the three for sure, and what
goes wrong there is found out when the journal is needed. So such ones are refused, by their names. Unknown
ones are let through: most are local.
"""

from __future__ import annotations

import os
import re

from mpqueue._os.file_system import FileSystem, file_system_of
from mpqueue.errors import JournalError

# fmt: off
#: Kinds that are shared with other machines, or with the host of this one.
SHARED = frozenset({
    "nfs", "nfs3", "nfs4", "cifs", "smb2", "smb3", "smbfs", "ncpfs", "afs", "auristorfs", "coda", "9p",
    "lustre", "gpfs", "ceph", "glusterfs", "beegfs", "beegfs_nodev", "fhgfs", "pvfs2", "orangefs", "panfs",
    "wekafs", "gfs", "gfs2", "ocfs2", "vboxsf", "prl_fs", "vmhgfs", "davfs",
    "network drive",  # of Windows
})
#: The same of those that a program of the user's serves (FUSE): ``fuse.sshfs`` and its like.
SHARED_BY_PROGRAM = frozenset({
    "sshfs", "s3fs", "s3ql", "goofys", "geesefs", "mount-s3", "mountpoint-s3", "gcsfuse", "blobfuse",
    "blobfuse2", "rclone", "juicefs", "glusterfs", "ceph", "ceph-fuse", "seaweedfs", "weed", "mfs", "mfsmount",
    "lizardfs", "saunafs", "hdfs", "fuse_dfs", "alluxio", "alluxio-fuse", "davfs", "davfs2", "curlftpfs",
    "smbnetfs", "gvfsd-fuse", "afp", "afpfs", "vmhgfs-fuse", "grpcfuse", "osxfs", "google-drive-ocamlfuse",
    "onedriver",
})
# fmt: on
#: How what is mounted is named where it is on another machine: ``server:/home``, ``//server/share``, ``https://...``.
_REMOTE = re.compile(r"[^/:]+:/|//")


def check_local(path: str) -> None:
    """Raise `JournalError`, having changed nothing, where the journal is on a file system that others share."""
    found = file_system_of(path if os.path.exists(path) else os.path.dirname(path))
    if found is not None and is_shared(found):
        raise JournalError(
            f"{path}: expected a disk of this machine's own, got {found.kind} ({found.source} at {found.root}): "
            "a journal is a write-ahead log of SQLite, which needs a disk that no other machine writes; nothing was "
            "changed. Put the journal on a local disk, and share the output of `mpqueue export`, or a copy of it"
        )


def is_shared(found: FileSystem) -> bool:
    """True for one that other machines may write as well."""
    if found.kind in SHARED:
        # The root of a sandbox (gVisor) is served through 9p as well, to this one alone.
        return (found.kind, found.root) != ("9p", "/")
    kind, _, program = found.kind.partition(".")
    if kind != "fuse":
        return False
    return program in SHARED_BY_PROGRAM or found.source in SHARED_BY_PROGRAM or _REMOTE.match(found.source) is not None
