"""Cores and memory by the limits of control groups, from the files that the kernel shows."""

import os

import pytest

from tokenmill import machine

CORES = len(os.sched_getaffinity(0))
WHOLE = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


@pytest.fixture
def shows(tmp_path, monkeypatch):
    """Lays out /proc/self and the cgroups below a directory."""

    def lay_out(cgroup, mounts, files):
        (tmp_path / "cgroup").write_text(cgroup)
        lines = [
            f"30 24 0:26 {root} {tmp_path}{top} rw,nosuid shared:9 - {kind} {kind} {options}"
            for root, top, kind, options in mounts
        ]
        (tmp_path / "mountinfo").write_text("\n".join(lines) + "\n")
        for name, text in files.items():
            path = tmp_path / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text + "\n")
        monkeypatch.setattr(machine, "_PROC", str(tmp_path))
        return machine.vcpus(), machine.memory_bytes()

    return lay_out


V2 = [("/", "/fs", "cgroup2", "rw")]


@pytest.mark.parametrize(
    ("quota", "cores"),
    [("max 100000", CORES), ("100000 100000", 1), ("30000 100000", 1), ("6400000 100000", CORES)],
)
def test_version_2_as_a_container_sees_it(shows, quota, cores):
    files = {"fs/cpu.max": quota, "fs/memory.max": str(64 << 20)}
    assert shows("0::/\n", V2, files) == (cores, 64 << 20)


@pytest.mark.skipif(CORES < 2, reason="one core has no part")
def test_a_quota_of_one_and_a_half_cores_counts_as_two(shows):
    assert shows("0::/\n", V2, {"fs/cpu.max": "150000 100000"})[0] == 2


def test_the_narrowest_of_nested_groups_holds(shows):
    files = {
        "fs/pod/cpu.max": "100000 100000",
        "fs/pod/memory.max": "max",
        "fs/pod/box/cpu.max": "max 100000",
        "fs/pod/box/memory.max": str(2 << 20),
        "fs/memory.max": str(1 << 20),
        "fs/pod/other/memory.max": "1",
    }
    assert shows("0::/pod/box\n", V2, files) == (1, 1 << 20)


V1 = [("/", "/cpu", "cgroup", "rw,cpu,cpuacct"), ("/", "/memory", "cgroup", "rw,memory")]


def test_version_1_on_the_machine_itself(shows):
    files = {
        "cpu/docker/a/cpu.cfs_quota_us": "50000",
        "cpu/docker/a/cpu.cfs_period_us": "100000",
        "cpu/cpu.cfs_quota_us": "-1",
        "cpu/cpu.cfs_period_us": "100000",
        "memory/docker/a/memory.limit_in_bytes": str(3 << 20),
        "memory/memory.limit_in_bytes": "9223372036854771712",
    }
    cgroup = "5:memory:/docker/a\n4:cpu,cpuacct:/docker/a\n1:name=systemd:/docker/a\n0::/\n"
    assert shows(cgroup, V1, files) == (1, 3 << 20)


def test_version_1_in_a_container_whose_group_is_the_root_of_the_mount(shows):
    mounts = [("/docker/a", top, kind, options) for _, top, kind, options in V1]
    files = {
        "cpu/cpu.cfs_quota_us": "50000",
        "cpu/cpu.cfs_period_us": "100000",
        "memory/memory.limit_in_bytes": str(3 << 20),
    }
    cgroup = "5:memory:/docker/a\n4:cpu,cpuacct:/docker/a\n"
    assert shows(cgroup, mounts, files) == (1, 3 << 20)


def test_without_groups_the_machine_is_whole(tmp_path, monkeypatch, shows):
    assert shows("", [], {}) == (CORES, WHOLE)
    monkeypatch.setattr(machine, "_PROC", str(tmp_path / "nowhere"))
    assert (machine.vcpus(), machine.memory_bytes()) == (CORES, WHOLE)


def test_a_real_quota_is_seen(monkeypatch):
    """Where this may make a group of version 1 (as root on a machine of its own)."""
    group = f"/sys/fs/cgroup/cpu/tokenmill-test-{os.getpid()}"
    try:
        os.mkdir(group)
    except OSError:
        pytest.skip("no group can be made here")
    try:
        with open(f"{group}/cpu.cfs_quota_us", "w", encoding="ascii") as out:
            out.write("100000")
        with open(f"{group}/tasks", "w", encoding="ascii") as out:
            out.write(str(os.getpid()))
        assert machine.vcpus() == 1
    finally:
        with open("/sys/fs/cgroup/cpu/tasks", "w", encoding="ascii") as out:
            out.write(str(os.getpid()))
        os.rmdir(group)
