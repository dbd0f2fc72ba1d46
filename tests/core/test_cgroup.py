from __future__ import annotations

from pathlib import Path

from tunesmith.core.cgroup import cpu_limit, memory_limit


def put(root: Path, path: str, content: str) -> None:
    (root / path).parent.mkdir(parents=True, exist_ok=True)
    (root / path).write_text(content)


def test_nothing_limits_where_there_are_no_groups(tmp_path: Path) -> None:
    assert cpu_limit(tmp_path) is None
    assert memory_limit(tmp_path) is None


def test_version_2_the_tightest_of_all_groups_around_us_counts(tmp_path: Path) -> None:
    put(tmp_path, "proc/self/cgroup", "0::/pod/job\n")
    put(tmp_path, "sys/fs/cgroup/pod/job/cpu.max", "max 100000\n")
    put(tmp_path, "sys/fs/cgroup/pod/cpu.max", "150000 100000\n")
    put(tmp_path, "sys/fs/cgroup/pod/job/memory.max", "8000\n")
    put(tmp_path, "sys/fs/cgroup/pod/job/memory.current", "5000\n")
    put(tmp_path, "sys/fs/cgroup/pod/job/memory.stat", "anon 4000\ninactive_file 1000\n")
    put(tmp_path, "sys/fs/cgroup/pod/memory.max", "max\n")
    assert cpu_limit(tmp_path) == 1.5
    assert memory_limit(tmp_path) == (8000, 4000)


def test_version_1_where_no_limit_is_a_huge_number(tmp_path: Path) -> None:
    put(tmp_path, "proc/self/cgroup", "4:memory:/x\n2:cpu,cpuacct:/x\n0::/\n")
    put(tmp_path, "sys/fs/cgroup/memory/x/memory.limit_in_bytes", "9223372036854771712\n")
    put(tmp_path, "sys/fs/cgroup/memory/memory.limit_in_bytes", "1000\n")
    put(tmp_path, "sys/fs/cgroup/memory/memory.usage_in_bytes", "1200\n")
    put(tmp_path, "sys/fs/cgroup/cpu,cpuacct/x/cpu.cfs_quota_us", "-1\n")
    put(tmp_path, "sys/fs/cgroup/cpu,cpuacct/x/cpu.cfs_period_us", "100000\n")
    assert memory_limit(tmp_path) == (1000, 0)
    assert cpu_limit(tmp_path) is None
    put(tmp_path, "sys/fs/cgroup/cpu,cpuacct/x/cpu.cfs_quota_us", "50000\n")
    assert cpu_limit(tmp_path) == 0.5


def test_a_path_of_the_host_s_falls_back_on_what_we_see(tmp_path: Path) -> None:
    put(tmp_path, "proc/self/cgroup", "0::/kubepods/pod1234\n")
    put(tmp_path, "sys/fs/cgroup/memory.max", "4000\n")
    assert memory_limit(tmp_path) == (4000, 4000)
