"""The processes of one run: one alone, or several under torchrun or srun, each with its slice of every global batch."""

import contextlib
import platform
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from .devices import own_gpu
from .ranks import PeerError, launcher, this_rank

Shared = TypeVar("Shared")
_TIMEOUT = timedelta(days=2)  # others wait while the first process evaluates; one that dies is noticed at once


@dataclass(frozen=True, kw_only=True, slots=True)
class Processes:
    """Who this process is among `world`; rank 0 writes, evaluates and reports."""

    rank: int = 0
    world: int = 1
    control: Any = None
    """The group over which they agree on what to do, apart from the gradients' (gloo, on the CPU)."""

    @property
    def first(self) -> bool:
        """Whether this process writes and reports."""
        return self.rank == 0

    @property
    def parent(self) -> int | None:
        """The launcher without which this process is to end."""
        return launcher(self.world)

    def wrap(self, student: nn.Module, device: torch.device) -> nn.Module:
        """Return `student` with gradients averaged over all processes."""
        if self.world == 1:
            return student
        return DistributedDataParallel(student, device_ids=[device.index] if device.type == "cuda" else None)

    def no_sync(self, student: nn.Module) -> AbstractContextManager[None]:
        """Return a context in which gradients are added up but not yet averaged."""
        return student.no_sync() if self.world > 1 else nullcontext()  # type: ignore[operator]

    def total(self, values: torch.Tensor) -> list[float]:
        """Return the sum of each of `values` (n,) over all processes."""
        totals = values.detach().double().cpu()
        if self.world > 1:
            dist.all_reduce(totals, dist.ReduceOp.SUM, group=self.control)
        return [float(total) for total in totals]

    def mean(self, values: torch.Tensor) -> list[float]:
        """Return the mean of each of `values` (n,) over all processes."""
        return [total / self.world for total in self.total(values)]

    def share(self, value: Shared) -> Shared:
        """Return what the first process has."""
        if self.world == 1:
            return value
        held = [value]
        dist.broadcast_object_list(held, src=0, group=self.control)
        return held[0]

    def share_buffers(self, module: nn.Module) -> None:
        """Give all processes the first one's running statistics of `module`, if it has any."""
        if self.world > 1:
            for buffer in module.buffers():
                dist.broadcast(buffer, src=0)

    def ask_largest(self, *values: int) -> Callable[[], list[int]]:
        """Begin to find the largest of each of `values` over all processes; what is returned waits for the answer."""
        if self.world == 1:
            return lambda: list(values)
        largest = torch.tensor(values)
        asked: Any = dist.all_reduce(largest, dist.ReduceOp.MAX, group=self.control, async_op=True)

        def answer() -> list[int]:
            asked.wait()
            return [int(value) for value in largest]

        return answer

    def gather(self, value: str) -> list[str]:
        """Return every process's text, by rank."""
        if self.world == 1:
            return [value]
        gathered: list[Any] = [None] * self.world
        dist.all_gather_object(gathered, value, group=self.control)
        return gathered

    def require_agreement(self, facts: Mapping[str, object]) -> None:
        """Raise PeerError in all processes if `facts` differ between any two of them, naming the first that does."""
        for name, value in facts.items():
            texts = self.gather(f"{platform.node()}\0{value}")
            for rank, text in enumerate(texts):
                node, _, other = text.partition("\0")
                first_node, _, first = texts[0].partition("\0")
                if other != first:
                    raise PeerError(
                        f"{name}: rank 0 on {first_node} has {first}, rank {rank} on {node} has {other}; all processes "
                        "need the same: is `out` one folder that all machines share?"
                    )

    @contextlib.contextmanager
    def together(self) -> Iterator[None]:
        """Do what can fail in one process: where it fails in any, all leave instead of waiting for each other.

        Raises the process's own error or, where there is none, a silent PeerError; of those with the same error only
        the first says it.
        """
        failure: Exception | None = None
        try:
            yield
        except Exception as error:
            if self.world == 1:
                raise
            failure = error
        code = getattr(failure, "exit_code", 2) if failure else 0
        reports = [report.split("\0") for report in self.gather(f"{code}\0{failure or ''}")]
        if failure:
            if any(reason == str(failure) for _, reason in reports[: self.rank]):
                raise PeerError("", code) from failure
            raise failure
        for their_code, _ in reports:
            if int(their_code):
                raise PeerError("", int(their_code))


ALONE = Processes()


def join(device: str) -> Processes:
    """Join the processes that torchrun or srun started, if either did; `device` is what this one will compute on."""
    if this_rank().world == 1:
        return ALONE
    on_gpu = device.startswith("cuda") or (device == "auto" and torch.cuda.is_available())
    if on_gpu:
        torch.cuda.set_device(own_gpu())
    try:
        if not dist.is_initialized():
            dist.init_process_group("nccl" if on_gpu else "gloo")
        control = dist.new_group(backend="gloo", timeout=_TIMEOUT)
    except RuntimeError as error:
        raise PeerError(f"the other processes of this run could not be reached: {error}") from error
    return Processes(rank=dist.get_rank(), world=dist.get_world_size(), control=control)


def leave() -> None:
    """Leave the processes that `join` joined."""
    if dist.is_initialized():
        dist.destroy_process_group()
