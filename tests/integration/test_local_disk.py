"""On which file systems a journal may be: as the kernel names them, and real mounts where this machine allows them."""

from __future__ import annotations

import io
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from mpqueue import JobQueue
from mpqueue.errors import JournalError
from tests.support import handlers as do
from tests.support.command_line import main
from tests.support.programs import PATIENCE, write_program
from tests.support.systems import LINUX_ONLY

REAL_OPEN = open
#: What the kernel says of the file systems that are mounted.
MOUNTS = "/proc/self/mountinfo"


def open_on_nfs(name: Any, *how: Any, **named: Any) -> Any:
    """All that is mounted is on a server."""
    if name != MOUNTS:
        return REAL_OPEN(name, *how, **named)
    with REAL_OPEN(MOUNTS, "rb") as file:
        return io.BytesIO(re.sub(rb" - \S+ \S+", b" - nfs4 server:/home", file.read()))


@LINUX_ONLY
@pytest.mark.slow
def test_a_journal_on_a_shared_file_system_is_refused_and_read(
    tmp_path: Path, path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    other = tmp_path / "other.db"
    with JobQueue(1, journal=path) as queue:
        queue.run(["a", "b"], do.succeed, id="job")
    monkeypatch.setattr("builtins.open", open_on_nfs)
    before = path.read_bytes()
    for refused in (path, other):
        with pytest.raises(JournalError) as error:
            JobQueue(1, journal=refused)
        assert f"{refused}: expected a disk of this machine's own, got nfs4 (server:/home at /" in str(error.value)
        assert "Put the journal on a local disk" in str(error.value)
    assert [file.name for file in tmp_path.iterdir()] == ["run.db"]
    assert path.read_bytes() == before
    assert main(["status", str(path)]) == 0
    assert "job" in capsys.readouterr().out


#: Mounts what its arguments say, in a namespace of its own, and has a journal there. What is served through FUSE is one
#: empty folder.
PROGRAM = """
import ctypes, errno, os, struct, sys, threading
from mpqueue import JobQueue, JournalError

kind, source, options, place = (word.encode() for word in sys.argv[1:])
if kind.startswith(b"fuse"):
    served = os.open("/dev/fuse", os.O_RDWR)
    options = b"fd=%d,rootmode=40000,user_id=0,group_id=0" % served

def serve():
    while True:
        opcode, unique = struct.unpack("<IQ", os.read(served, 1 << 20)[4:16])
        answer, error = b"", 0
        match opcode:
            case 26:  # INIT
                answer = struct.pack("<IIIIHHIIHH8I", 7, 31, 0, 0, 0, 0, 4096, 1, 0, 0, *[0] * 8)
            case 3:  # GETATTR
                answer = struct.pack("<QII6Q10I", 0, 0, 0, 1, *[0] * 5, *[0] * 3, 0o40700, 2, 0, 0, 0, 512, 0)
            case _:
                error = -(errno.ENOENT if opcode == 1 else errno.ENOSYS)
        os.write(served, struct.pack("<IiQ", 16 + len(answer), error, unique) + answer)

libc = ctypes.CDLL(None, use_errno=True)
if libc.mount(source, place, kind, 0, options) != 0:
    print("not allowed:", os.strerror(ctypes.get_errno()))
    sys.exit()
if kind.startswith(b"fuse"):
    threading.Thread(target=serve, daemon=True).start()
try:
    with JobQueue(1, journal=os.path.join(os.fsdecode(place), "run.db")) as queue:
        print(queue.run([-1], abs).results)
except JournalError as error:
    print(error)
"""


@pytest.mark.slow
@pytest.mark.parametrize(
    ("kind", "source", "told"),
    [
        ("tmpfs", "none", "[1]"),
        ("overlay", "none", "[1]"),
        ("fuse.sshfs", "me@host:/data", "got fuse.sshfs (me@host:/data at "),
    ],
)
def test_a_journal_on_a_real_mount(kind: str, source: str, told: str, tmp_path: Path) -> None:
    unshare, options = shutil.which("unshare"), ""
    if unshare is None or sys.platform != "linux":
        pytest.skip("no namespace of its own")
    folders = {name: tmp_path / name for name in ("lower", "upper", "work", "place")}
    for folder in folders.values():
        folder.mkdir()
    if kind == "overlay":
        options = ",".join(f"{name}dir={folders[name]}" for name in ("lower", "upper", "work"))
    program = [sys.executable, str(write_program(tmp_path, PROGRAM)), kind, source, options, str(folders["place"])]
    done = subprocess.run([unshare, "-m", *program], capture_output=True, text=True, timeout=PATIENCE, check=False)
    if (done.returncode != 0 and "unshare" in done.stderr) or "not allowed" in done.stdout:
        pytest.skip(f"this machine does not allow it: {done.stderr or done.stdout}")
    assert told in done.stdout, done.stderr
