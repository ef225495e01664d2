"""Which of a job's processes this one is, as torchrun or srun has told it."""

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass

_PORTS = range(20_000, 40_000)


class PeerError(RuntimeError):
    """Another process of the run failed, or was given something else to do; an empty message: it says why itself."""

    def __init__(self, message: str, exit_code: int = 1) -> None:
        super().__init__(message)
        self.exit_code = exit_code


@dataclass(frozen=True, kw_only=True, slots=True)
class Rank:
    """One process of `world`, and of the `local_world` that share its machine."""

    rank: int = 0
    world: int = 1
    local: int = 0
    local_world: int = 1
    machine: int = 0
    """The number of that machine, among those of the job."""
    restarts: int = 0
    """How often torchrun has started all of them anew because one had failed."""


def this_rank() -> Rank:
    """Return which process this is: alone where neither torchrun nor srun started several.

    What srun says is put into the environment as torchrun would, for torch and for the processes that this one starts.
    """
    environment = os.environ
    if "RANK" not in environment and "SLURM_STEP_ID" in environment:  # a batch script itself is in no step
        environment |= of_slurm(environment)
    return Rank(
        rank=int(environment.get("RANK", "0")),
        world=int(environment.get("WORLD_SIZE", "1")),
        local=int(environment.get("LOCAL_RANK", "0")),
        local_world=int(environment.get("LOCAL_WORLD_SIZE", "1")),
        machine=int(environment.get("GROUP_RANK", "0")),
        restarts=int(environment.get("TORCHELASTIC_RESTART_COUNT", "0")),
    )


def launcher(world: int) -> int | None:
    """Return the process without which one of `world` is to end: torchrun's agent, or srun's step."""
    return os.getppid() if world > 1 or "TORCHELASTIC_RUN_ID" in os.environ else None


def of_slurm(step: Mapping[str, str]) -> dict[str, str]:
    """Return torchrun's variables for a task of a Slurm step; rank 0's machine is the step's first, where they meet.

    MASTER_ADDR and MASTER_PORT may be given; otherwise the port follows from the numbers of the job and the step.
    """
    world = step.get("SLURM_STEP_NUM_TASKS", "1")
    if world == "1":
        return {}
    number = 16 * int(step["SLURM_JOB_ID"]) + int(step["SLURM_STEP_ID"])
    node = step.get("SLURM_NODEID", "0")
    alone = step.get("SLURM_STEP_NUM_NODES") == "1"
    return {
        "RANK": step["SLURM_PROCID"],
        "WORLD_SIZE": world,
        "LOCAL_RANK": step["SLURM_LOCALID"],
        "LOCAL_WORLD_SIZE": str(_tasks_on(int(node), step.get("SLURM_STEP_TASKS_PER_NODE", "1"))),
        "GROUP_RANK": node,
        "MASTER_ADDR": step.get("MASTER_ADDR") or ("127.0.0.1" if alone else first_host(step["SLURM_STEP_NODELIST"])),
        "MASTER_PORT": step.get("MASTER_PORT") or str(_PORTS[number % len(_PORTS)]),
    }


def first_host(nodes: str) -> str:
    """Return the first name of a Slurm list of nodes: gpu03 of `gpu[03-05,9],other`."""
    prefix, number, suffix = re.match(r"([^\[,]*)(?:\[(\d+)[^\]]*\])?([^\[,]*)", nodes).groups()  # type: ignore[union-attr]
    return f"{prefix}{number or ''}{suffix}"


def _tasks_on(node: int, tasks_per_node: str) -> int:
    """Return how many tasks a step has on a node: of `2(x3),1` two on each of three, and one on the last."""
    counts: list[int] = []
    for part in tasks_per_node.split(","):
        count, _, times = part.rstrip(")").partition("(x")
        counts += [int(count)] * int(times or 1)
    return counts[node]
