"""The cores that this process may use: in a container, under Slurm or beside other ranks fewer than the machine has."""

import math
import os
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

from .ranks import this_rank


def usable_cores() -> int:
    """Return this process's share of the cores that CPU affinity and cgroup quota allow; at least 1.

    The processes that torchrun or srun starts on one machine share them evenly, unless each was bound to its own.
    """
    ranks, quota = this_rank().local_world, cgroup_quota(Path("/"))
    if not hasattr(os, "sched_getaffinity"):
        return max(1, int(min(os.cpu_count() or 1, quota) / ranks))
    allowed = os.sched_getaffinity(0)
    own = len(allowed) if _are_bound(allowed) else len(allowed) / ranks
    return max(1, int(min(own, quota / ranks)))


def _are_bound(allowed: set[int]) -> bool:
    """Return whether a launcher gave this process other cores than its own."""
    try:
        return allowed != os.sched_getaffinity(os.getppid())
    except OSError:
        return False


def cgroup_quota(root: Path) -> float:
    """Return how many cores' time the cgroups of this process give it, or infinity; `root` is the file system's.

    The smallest quota of its own group and of all above it counts, in cgroup v2 (`cpu.max`) and v1 (`cpu.cfs_*`).
    """
    try:
        groups = (root / "proc/self/cgroup").read_text().splitlines()
    except OSError:
        return math.inf
    folders = (folder for group in groups for folder in _folders(root / "sys/fs/cgroup", group))
    return min(map(_quota, folders), default=math.inf)


def _folders(mount: Path, group: str) -> Iterator[Path]:
    """Yield where the quotas of a line of /proc/self/cgroup, and of all groups above it, may be."""
    _, controllers, path = group.split(":", 2)
    if not controllers:
        mounts = [mount, mount / "unified"]
    elif "cpu" in controllers.split(","):
        mounts = [mount / controllers, mount / "cpu"]
    else:
        return
    inside = PurePosixPath(path.strip("/"))
    for top in mounts:
        yield from (top / folder for folder in (inside, *inside.parents))


def _quota(folder: Path) -> float:
    try:
        if (folder / "cpu.max").exists():
            quota, period = (folder / "cpu.max").read_text().split()
        else:
            quota, period = ((folder / f"cpu.cfs_{name}_us").read_text().strip() for name in ("quota", "period"))
    except OSError:
        return math.inf
    return math.inf if quota in ("max", "-1") else int(quota) / int(period)
