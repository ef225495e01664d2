"""The processes of one run: one alone, or several under torchrun, each with its slice of every global batch."""

import os
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass

import torch
import torch.distributed as dist
from torch import nn
from torch.nn.parallel import DistributedDataParallel


@dataclass(frozen=True, kw_only=True, slots=True)
class Processes:
    """Who this process is among `world`; rank 0 writes, evaluates and reports."""

    rank: int = 0
    world: int = 1

    @property
    def first(self) -> bool:
        """Whether this process writes and reports."""
        return self.rank == 0

    def wrap(self, student: nn.Module, device: torch.device) -> nn.Module:
        """Return `student` with gradients averaged over all processes."""
        if self.world == 1:
            return student
        return DistributedDataParallel(student, device_ids=[device.index] if device.type == "cuda" else None)

    def no_sync(self, student: nn.Module) -> AbstractContextManager[None]:
        """Return a context in which gradients are added up but not yet averaged."""
        return student.no_sync() if self.world > 1 else nullcontext()  # type: ignore[operator]

    def mean(self, value: torch.Tensor) -> float:
        """Return the mean of a scalar over all processes."""
        return self._reduce(value.detach().clone(), dist.ReduceOp.SUM) / self.world

    def any(self, flag: int, device: torch.device) -> int:
        """Return the largest `flag` of all processes."""
        return int(self._reduce(torch.tensor(flag, device=device), dist.ReduceOp.MAX)) if self.world > 1 else flag

    def wait(self) -> None:
        """Return once all processes have come here."""
        if self.world > 1:
            dist.barrier()

    def _reduce(self, value: torch.Tensor, operation: dist.ReduceOp.RedOpType) -> float:
        if self.world > 1:
            dist.all_reduce(value, operation)
        return float(value.item())


ALONE = Processes()


def join(device: str) -> tuple[Processes, str]:
    """Join the processes that torchrun started, if it did; return them and this one's device."""
    if int(os.environ.get("WORLD_SIZE", "1")) == 1:
        return ALONE, device
    on_gpu = device.startswith("cuda") or (device == "auto" and torch.cuda.is_available())
    device = f"cuda:{os.environ['LOCAL_RANK']}" if on_gpu else "cpu"
    if on_gpu:
        torch.cuda.set_device(device)
    dist.init_process_group("nccl" if on_gpu else "gloo")
    return Processes(rank=dist.get_rank(), world=dist.get_world_size()), device


def leave() -> None:
    """Leave the processes that `join` joined."""
    if dist.is_initialized():
        dist.destroy_process_group()
