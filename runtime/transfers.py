"""Copies to a GPU and back, on streams of their own: they wait for no computation but the one that they need."""

import functools
from collections.abc import Callable
from typing import TypeVar

import torch

Column = TypeVar("Column", torch.Tensor, torch.Tensor | None)


def to_device(device: torch.device, *tensors: Column) -> tuple[Column, ...]:
    """Return `tensors` on `device`; to a GPU they are on their way, and what it computes next waits for them.

    Those that are pinned are copied from where they are, others from a pinned copy.
    """
    if device.type != "cuda":
        return tuple(tensor if tensor is None else tensor.to(device) for tensor in tensors)
    computing, copying = torch.cuda.current_stream(device), _stream(device, "to")
    with torch.cuda.stream(copying):
        sent = tuple(tensor if tensor is None else _sent(tensor, device) for tensor in tensors)
    computing.wait_stream(copying)
    for tensor in sent:
        if tensor is not None:
            tensor.record_stream(computing)
    return sent


def to_cpu(*tensors: torch.Tensor) -> Callable[[], tuple[torch.Tensor, ...]]:
    """Begin to copy `tensors`, all of one device, to the CPU; the function returned waits until they are there."""
    if tensors[0].device.type != "cuda":
        return lambda: tensors
    computing, copying = torch.cuda.current_stream(tensors[0].device), _stream(tensors[0].device, "from")
    copying.wait_stream(computing)
    with torch.cuda.stream(copying):
        fetched = tuple(tensor.to("cpu", non_blocking=True) for tensor in tensors)  # torch pins these
        arrived = copying.record_event()
    for tensor in tensors:
        tensor.record_stream(copying)

    def wait() -> tuple[torch.Tensor, ...]:
        arrived.synchronize()
        return fetched

    return wait


def _sent(tensor: torch.Tensor, device: torch.device) -> torch.Tensor:
    if tensor.device.type == "cpu" and not tensor.is_pinned():
        tensor = tensor.pin_memory()
    return tensor.to(device, non_blocking=True)


@functools.cache
def _stream(device: torch.device, direction: str) -> torch.cuda.Stream:
    """Return the stream of one direction; a GPU copies in both at once."""
    return torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
