"""What a test may leave behind: nothing. A snapshot of all that could stay, and the difference of two.

A process is ours if it carries this run's cookie in its environment or descends from this process. So a process that
started a session of its own or lost its parent is found too.

A name in /dev/shm is ours if it contains this run's tag, or the id of a living process of ours, or if a process of ours
has it open or mapped. The tag is in each name that our Python processes take at random, see `tests.support.startup`, so
what a killed program leaves is found as well. All other names belong to other programs: this machine may run anything.
What a program of ours leaves is missed only if it has ended, took the name without the tag, and nothing else holds it.
"""

from __future__ import annotations

import contextlib
import os
import re
import sys
import tempfile
import threading
import traceback
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.support.programs import is_running
from tests.support.startup import sitecustomize
from tests.support.this_system import IS_WINDOWS, KILL
from tests.support.waiting import wait_until

#: Set for the whole run, so that every process that a test starts carries it, and its children, however far.
COOKIE = sitecustomize.COOKIE

_SHM = Path("/dev/shm")
#: In a list of open or mapped files: the names in /dev/shm, of folders too.
_HELD = re.compile(rf"{_SHM}/([^/\n]+?)(?:/.*)?$", re.MULTILINE)

#: Processes that a fixture of a wider scope owns, with all that they start: an engine's cluster.
not_ours: set[int] = set()
#: What an engine opens and closes in this process as it likes: how the names of these descriptors begin.
kept_by_engines: set[str] = set()


@dataclass
class Snapshot:
    """All that is ours at one moment, each thing under a key that tells it apart, with words for people."""

    processes: dict[str, str] = field(default_factory=dict)
    households: dict[str, str] = field(default_factory=dict)  #: those of `not_ours`, which may lose their parent later
    threads: dict[str, threading.Thread] = field(default_factory=dict)
    shared_memory: dict[str, str] = field(default_factory=dict)
    temporary_files: dict[str, str] = field(default_factory=dict)
    descriptors: dict[str, str] = field(default_factory=dict)

    @classmethod
    def take(cls) -> Snapshot:
        """Look at everything. Takes about two milliseconds."""
        if IS_WINDOWS:
            return cls(processes=_children(), threads=_threads(), temporary_files=_temporary_files())
        trackers = _trackers()
        of_others = {*not_ours, *(pid for root in not_ours for pid in descendants(root))}
        processes = _processes(set(trackers))
        households = {key: processes.pop(key) for key in list(processes) if _pid_of(key) in of_others}
        return cls(
            processes=processes,
            households=households,
            threads=_threads(),
            shared_memory={name: f"/dev/shm/{name}" for name in _listing(_SHM)},
            temporary_files=_temporary_files(),
            descriptors=_descriptors(set(trackers.values())),
        )

    def since(self, before: Snapshot) -> dict[str, list[str]]:
        """What is here and was not ``before``: kind -> descriptions, only kinds that have any."""
        found: dict[str, list[str]] = {}
        for kind in ("processes", "threads", "shared_memory", "temporary_files", "descriptors"):
            now, then = getattr(self, kind), getattr(before, kind)
            if kind == "processes":
                then = {**then, **before.households}
            new = [now[key] for key in now if key not in then]
            if new:
                found[kind] = [_stack(thing) if isinstance(thing, threading.Thread) else thing for thing in new]
        return found


def report(left: dict[str, list[str]]) -> str:
    """``left`` as text for a failing test, with the stacks of threads."""
    lines = ["the test left something behind:"]
    for kind, things in left.items():
        lines.append(f"  {kind.replace('_', ' ')}:")
        lines += [f"    {line}" for thing in things for line in thing.splitlines()]
    return "\n".join(lines)


def without_strangers(left: dict[str, list[str]]) -> dict[str, list[str]]:
    """``left`` without the things that may belong to another program. Slower: reads what our processes hold."""
    if IS_WINDOWS:
        return left
    kept = {
        **left,
        "processes": [line for line in left.get("processes", []) if not _may_be_a_strangers(_pid(line))],
        "shared_memory": _ours(left.get("shared_memory", [])),
    }
    return {kind: things for kind, things in kept.items() if things}


def is_ours(path: str) -> bool:
    """Whether ``path`` in /dev/shm was made by this run."""
    return bool(_ours([path]))


def _ours(paths: list[str]) -> list[str]:
    """Those of ``paths`` in /dev/shm that our processes made, as far as this can be known."""
    if not paths:
        return []
    pids = {_pid_of(key) for key in Snapshot.take().processes} | {os.getpid(), *_trackers()}
    pids = {pid for pid in pids if not _may_be_a_strangers(pid)}
    held = {name for pid in pids for name in _HELD.findall(_text(f"/proc/{pid}/maps") + "\n" + _open_files(pid))}
    tag = sitecustomize.tag()

    def is_ours(name: str) -> bool:
        named = {int(number) for number in re.findall(r"(?<![0-9a-zA-Z])\d+(?![0-9a-zA-Z])", name)}
        return (bool(tag) and tag in name) or name in held or not named.isdisjoint(pids)

    return [path for path in paths if is_ours(os.path.basename(path))]


def _may_be_a_strangers(pid: int) -> bool:
    """Whether nothing tells that the process is ours: it has no environment, another parent, and no file of ours."""
    if _bytes(f"/proc/{pid}/environ") or pid == os.getpid() or pid in descendants(os.getpid()):
        return False
    folder = tempfile.gettempdir() + os.sep
    return not any((path + os.sep).startswith(folder) for path in _open_files(pid).splitlines())


def kill(left: dict[str, list[str]]) -> None:
    """Kill the processes in ``left``, so that the tests after this one start clean."""
    end(_pid(description) for description in left.get("processes", []))


def end(pids: Iterable[int]) -> None:
    """Kill those of these processes that run still; returns when none of them does."""
    pids = list(pids)
    for pid in pids:
        with contextlib.suppress(OSError):
            os.kill(pid, KILL)
    wait_until(lambda: not any(map(is_running, pids)), what=f"the end of the processes {pids}")


def _trackers() -> dict[int, int]:
    """Process id -> pipe of the resource trackers, multiprocessing's and loky's, which serve until this process ends.

    Looked up, never imported: a test that needs neither starts neither.
    """
    found = {}
    for module in ("multiprocessing.resource_tracker", "loky.backend.resource_tracker"):
        tracker: Any = getattr(sys.modules.get(module), "_resource_tracker", None)
        if tracker is not None and tracker._pid is not None:
            found[tracker._pid] = tracker._fd
    return found


def _threads() -> dict[str, threading.Thread]:
    return {f"{thread.ident}@{id(thread)}": thread for thread in threading.enumerate()}


def threads_of_queues() -> list[str]:
    """The names of mpqueue's own threads."""
    return [thread.name for thread in threading.enumerate() if "mpqueue" in thread.name]


def _children() -> dict[str, str]:
    """On Windows: this process's children, and theirs. One that has lost its parent is not found."""
    import psutil

    found = {}
    for process in psutil.Process().children(recursive=True):
        with contextlib.suppress(psutil.Error):
            found[f"{process.pid}@{process.create_time()}"] = f"process {process.pid}, {process.name()}"
    return found


def _processes(allowed: set[int]) -> dict[str, str]:
    """Our processes. One without any environment counts too: most likely it is in the middle of an exec, and the next
    look tells; or it threw our cookie away; or it is another program's, see `_may_be_a_strangers`."""
    me = os.getpid()
    cookie = re.compile(rf"{COOKIE}={os.environ.get(COOKIE)}\0|MPQUEUE_LANE={me}(?!\d)".encode())
    pids = set(descendants(me))
    for pid in _pids():
        environment = _bytes(f"/proc/{pid}/environ")
        if cookie.search(environment) or (not environment and _is_program(pid)):
            pids.add(pid)
    return {f"{pid}@{_started(pid)}": _describe(pid) for pid in sorted(pids - allowed - {me})}


def _is_program(pid: int) -> bool:
    """Whether it lives and is no thread of the kernel's: these have no executable, nor have the dead."""
    try:
        os.readlink(f"/proc/{pid}/exe")
    except OSError:
        return False
    return True


def descendants(pid: int) -> Iterator[int]:
    """The children of a process, and theirs."""
    for task in _listing(Path(f"/proc/{pid}/task")):
        for child in _text(f"/proc/{pid}/task/{task}/children").split():
            yield int(child)
            yield from descendants(int(child))


def processes() -> set[int]:
    """What this process has started, and what that has: workers, and what workers are forked from; no `_trackers`."""
    if IS_WINDOWS:
        return {_pid_of(key) for key in _children()}
    return set(descendants(os.getpid())) - set(_trackers())


def _describe(pid: int) -> str:
    command = _text(f"/proc/{pid}/cmdline").replace("\0", " ").strip() or "(no command line)"
    state = _text(f"/proc/{pid}/stat").rpartition(")")[2].split()[:2]
    return f"process {pid}, state and parent {' '.join(state) or 'gone'}: {command[:200]}"


def _pid_of(key: str) -> int:
    return int(key.partition("@")[0])


def _pid(description: str) -> int:
    return int(description.split()[1].rstrip(","))


def _started(pid: int) -> str:
    """When the process started: with its id, a name that is not given twice."""
    fields = _text(f"/proc/{pid}/stat").rpartition(")")[2].split()
    return fields[19] if len(fields) > 19 else "?"


def _stack(thread: threading.Thread) -> str:
    frame = sys._current_frames().get(thread.ident or 0)
    lines = traceback.format_stack(frame)[-6:] if frame is not None and thread is not threading.current_thread() else []
    return f"thread {thread.name!r}{' (daemon)' if thread.daemon else ''}\n{''.join(lines)}"


def _temporary_files() -> dict[str, str]:
    # multiprocessing keeps one folder a process, until that ends
    process: Any = sys.modules.get("multiprocessing.process")
    kept = process.current_process()._config.get("tempdir") if process else None
    folder = Path(tempfile.gettempdir())
    paths = [folder / name for name in _listing(folder)]
    return {str(path): str(path) for path in paths if str(path) != kept}


def _open_files(pid: int) -> str:
    """The files that a process has open, and the folder it is in, one a line."""
    found = []
    for name in ("cwd", *(f"fd/{name}" for name in _listing(Path(f"/proc/{pid}/fd")))):
        with contextlib.suppress(OSError):
            found.append(os.readlink(f"/proc/{pid}/{name}"))
    return "\n".join(found)


def _descriptors(allowed: set[int]) -> dict[str, str]:
    found = {}
    for name in _listing(Path("/proc/self/fd")):
        try:
            target = os.readlink(f"/proc/self/fd/{name}")
        except OSError:  # the one that the listing itself used
            continue
        if int(name) not in allowed and not target.startswith(tuple(kept_by_engines)):
            found[f"{name} {target}"] = f"descriptor {name}: {target}"
    return found


def _pids() -> Iterable[int]:
    return (int(name) for name in _listing(Path("/proc")) if name.isdigit())


def _listing(folder: Path) -> list[str]:
    try:
        return os.listdir(folder)
    except OSError:
        return []


def _text(path: str) -> str:
    return _bytes(path).decode(errors="replace")


def _bytes(path: str) -> bytes:
    """A file of /proc, empty where its process has gone or is somebody else's."""
    try:
        with open(path, "rb") as file:
            return file.read()
    except OSError:
        return b""
