"""How much memory there is, by files as the kernel writes them."""

from __future__ import annotations

from pathlib import Path

import pytest

from mpqueue._os.process_facts import NO_LIMIT, MachineMemory, Memory

GB = 1 << 30

V1_MOUNTS = """\
30 23 0:26 / /sys/fs/cgroup ro,nosuid - tmpfs tmpfs ro,mode=755
32 31 0:29 {root} /sys/fs/cgroup/cpu,cpuacct rw,relatime - cgroup cgroup rw,cpu,cpuacct
35 31 0:32 {root} /sys/fs/cgroup/memory rw,relatime shared:9 - cgroup cgroup rw,memory
"""
V2_MOUNTS = "31 23 0:28 {root} /sys/fs/cgroup rw,nosuid shared:4 - cgroup2 cgroup2 rw,nsdelegate\n"


class Files:
    """A root folder with the files that are read."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def write(self, name: str, text: str) -> None:
        (self.root / name).parent.mkdir(parents=True, exist_ok=True)
        (self.root / name).write_text(text)

    def meminfo(self, available: int, total: int) -> None:
        self.write("proc/meminfo", f"MemTotal: {total >> 10} kB\nMemFree: 1 kB\nMemAvailable: {available >> 10} kB\n")

    def member(self, membership: str, mounts: str, root: str = "/") -> None:
        self.write("proc/self/cgroup", membership)
        self.write("proc/self/mountinfo", mounts.format(root=root))

    def v1(self, folder: str, limit: int, used: int, cached: int = 0) -> None:
        at = f"sys/fs/cgroup/memory{folder}"
        self.write(f"{at}/memory.limit_in_bytes", f"{limit}\n")
        self.write(f"{at}/memory.usage_in_bytes", f"{used}\n")
        self.write(f"{at}/memory.stat", f"cache 5\ntotal_inactive_file {cached}\ntotal_active_file 0\n")

    def v2(self, folder: str, limit: int | str, used: int, cached: int = 0) -> None:
        at = f"sys/fs/cgroup{folder}"
        self.write(f"{at}/memory.max", f"{limit}\n")
        self.write(f"{at}/memory.current", f"{used}\n")
        self.write(f"{at}/memory.stat", f"anon 5\ninactive_file {cached - 1}\nactive_file 1\n")


@pytest.fixture
def files(tmp_path: Path) -> Files:
    """A machine of 16 GB, 12 of them to be had."""
    files = Files(tmp_path)
    files.meminfo(12 * GB, 16 * GB)
    return files


def test_without_groups_it_is_the_machine_s(files: Files) -> None:
    assert MachineMemory(files.root).memory() == Memory(12 * GB, 16 * GB)


def test_nothing_is_known_where_nothing_is_told(tmp_path: Path) -> None:
    assert MachineMemory(tmp_path).memory() is None


def test_a_meminfo_that_makes_no_sense_tells_nothing(files: Files) -> None:
    files.write("proc/meminfo", "MemAvailable: much\nMemTotal\n")
    assert MachineMemory(files.root).memory() is None


def test_a_group_of_version_2_counts_without_what_is_cached(files: Files) -> None:
    files.member("0::/work/run\n", V2_MOUNTS)
    files.v2("/work/run", 4 * GB, used=3 * GB, cached=GB)
    assert MachineMemory(files.root).memory() == Memory(2 * GB, 4 * GB)


def test_the_tightest_group_above_counts(files: Files) -> None:
    files.member("0::/work/run\n", V2_MOUNTS)
    files.v2("/work/run", "max", used=GB, cached=1)
    files.v2("/work", 8 * GB, used=7 * GB, cached=1)
    assert MachineMemory(files.root).memory() == Memory(GB + 1, 8 * GB)


def test_a_container_of_version_2_sees_its_own_group_as_the_root(files: Files) -> None:
    files.member("0::/\n", V2_MOUNTS)
    files.v2("", 2 * GB, used=GB, cached=1)
    assert MachineMemory(files.root).memory() == Memory(GB + 1, 2 * GB)


def test_a_group_of_version_1(files: Files) -> None:
    files.member("9:name=systemd:/\n4:cpu,cpuacct:/a\n3:memory:/a/b\n0::/\n", V1_MOUNTS)
    files.v1("/a/b", 4 * GB, used=3 * GB, cached=GB)
    files.v1("/a", NO_LIMIT * 7, used=3 * GB)
    assert MachineMemory(files.root).memory() == Memory(2 * GB, 4 * GB)


def test_a_container_of_version_1_has_only_its_part_of_the_tree(files: Files) -> None:
    files.member("3:memory:/docker/abc/inner\n", V1_MOUNTS, root="/docker/abc")
    files.v1("/inner", 4 * GB, used=GB)
    files.v1("", 3 * GB, used=GB)
    assert MachineMemory(files.root).memory() == Memory(2 * GB, 3 * GB)


def test_a_group_that_is_full_leaves_nothing(files: Files) -> None:
    files.member("0::/run\n", V2_MOUNTS)
    files.v2("/run", GB, used=2 * GB, cached=1)
    assert MachineMemory(files.root).memory() == Memory(0, GB)


def test_a_limit_that_changes_is_seen(files: Files) -> None:
    files.member("0::/run\n", V2_MOUNTS)
    files.v2("/run", "max", used=GB, cached=1)
    machine = MachineMemory(files.root)
    assert machine.memory() == Memory(12 * GB, 16 * GB)
    files.v2("/run", 2 * GB, used=GB, cached=1)
    assert machine.memory() == Memory(GB + 1, 2 * GB)


def test_this_machine_tells() -> None:
    memory = MachineMemory().memory()
    assert memory is not None
    assert 0 <= memory.available <= memory.total
