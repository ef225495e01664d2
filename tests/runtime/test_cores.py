"""How many cores a process may use, in groups made of files."""

import math
import os
import subprocess
import sys
from pathlib import Path

import pytest

from distillcache.runtime import cores

from ..conftest import run


def groups(root: Path, membership: str, files: dict[str, str]) -> Path:
    named = {"proc/self/cgroup": membership, **{f"sys/fs/cgroup/{name}": text for name, text in files.items()}}
    for name, text in named.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    return root


def version_1(folder: str, quota: int) -> dict[str, str]:
    return {f"{folder}/cpu.cfs_quota_us": f"{quota}\n", f"{folder}/cpu.cfs_period_us": "100000\n"}


@pytest.mark.parametrize(
    ("membership", "files", "quota"),
    [
        ("0::/", {}, math.inf),
        ("0::/", {"cpu.max": "max 100000\n"}, math.inf),
        ("0::/", {"cpu.max": "150000 100000\n"}, 1.5),
        ("0::/a/b", {"a/b/cpu.max": "max 100000", "a/cpu.max": "300000 100000", "cpu.max": "max 100000"}, 3),
        ("0::/a/b", {"a/b/cpu.max": "200000 100000", "a/cpu.max": "300000 100000"}, 2),
        ("0::/docker/x", {"cpu.max": "400000 100000"}, 4),
        ("1:cpu:/\n0::/", {"unified/cpu.max": "100000 50000"}, 2),
        ("4:cpu,cpuacct:/job\n0::/", version_1("cpu,cpuacct/job", 250_000), 2.5),
        ("4:cpu,cpuacct:/\n", version_1("cpu", -1), math.inf),
        ("4:cpuset:/\n", version_1("cpu", 100_000), math.inf),
    ],
)
def test_the_smallest_quota_up_the_hierarchy_counts(
    membership: str, files: dict[str, str], quota: float, tmp_path: Path
) -> None:
    assert cores.cgroup_quota(groups(tmp_path, membership, files)) == quota


def test_without_cgroups_there_is_no_quota(tmp_path: Path) -> None:
    assert cores.cgroup_quota(tmp_path) == math.inf


@pytest.mark.parametrize(
    ("allowed", "quota", "ranks", "share"),
    [(8, math.inf, 1, 8), (8, 2.9, 1, 2), (2, 6, 1, 2), (8, math.inf, 3, 2), (8, 0.5, 1, 1), (2, math.inf, 8, 1)],
)
def test_ranks_share_what_affinity_and_quota_allow(
    allowed: int, quota: float, ranks: int, share: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: set(range(allowed)))
    monkeypatch.setattr(cores, "cgroup_quota", lambda root: quota)
    monkeypatch.setenv("LOCAL_WORLD_SIZE", str(ranks))
    assert cores.usable_cores() == share


PRINT_THREADS = """
import os
os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
from distillcache.runtime.devices import device_and_workers
import torch
print(*device_and_workers("cpu", None), torch.get_num_threads())
"""


def test_torch_takes_the_threads_that_the_process_may_use() -> None:
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run([sys.executable, "-c", PRINT_THREADS], env=env, capture_output=True, text=True, check=True)
    assert done.stdout == "cpu 0 1\n"


@pytest.mark.parametrize("given", [None, "active"])
def test_waiting_threads_sleep_unless_the_user_says_otherwise(
    given: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OMP_WAIT_POLICY", given or "")
    if given is None:
        monkeypatch.delenv("OMP_WAIT_POLICY")
    run("inspect", "info", "nowhere")
    assert os.environ["OMP_WAIT_POLICY"] == (given or "passive")
