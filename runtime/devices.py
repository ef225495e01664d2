"""Devices by name."""

import torch

from .errors import InputError
from .ranks import this_rank


def find_device(name: str) -> torch.device:
    """Return the device `name`, or a GPU or else the CPU for `auto`; ValueError if this machine lacks it.

    Of several processes of one job each has the GPU of its local rank, whatever number `name` has.
    """
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    if name.startswith("cuda") and this_rank().world > 1 and torch.cuda.is_available():
        name = own_gpu()
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise InputError("`device`", "cpu, cuda, cuda:N or auto", repr(name)) from error
    try:
        torch.zeros(1, device=device).cpu()
    except (RuntimeError, AssertionError) as error:
        reason = str(error).partition("\n")[0].partition(". ")[0]
        raise InputError("`device`", "one that this machine has", f"{name!r}: {reason}") from error
    return device


def own_gpu() -> str:
    """Return the GPU of this process's local rank; where it sees one GPU alone, as srun may have it, that."""
    return f"cuda:{this_rank().local % torch.cuda.device_count()}"
