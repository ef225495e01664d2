"""Devices by name."""

import torch

from .cores import usable_cores
from .errors import InputError, require_whole
from .ranks import this_rank


def find_device(name: str | torch.device) -> torch.device:
    """Return the device `name`, or a GPU or else the CPU for `auto`; ValueError if this machine lacks it.

    Of several processes of one job each has the GPU of its local rank, whatever number `name` has.
    """
    name = str(name)
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


def device_and_workers(device: str | torch.device, workers: int | None) -> tuple[torch.device, int]:
    """Return the device of that name, and how many processes render views for it; ValueError if it isn't there.

    From here on torch computes with as many threads as this process may use cores, or with fewer if it is told so.
    """
    cores, chosen = usable_cores(), find_device(device)
    torch.set_num_threads(min(cores, torch.get_num_threads()))
    if workers is None:
        workers = cores if chosen.type != "cpu" else 0
    require_whole("workers", workers, 0)
    return chosen, workers
