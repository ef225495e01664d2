"""Devices by name."""

import torch

from .errors import InputError


def find_device(name: str) -> torch.device:
    """Return the device `name`, or the first GPU or else the CPU for `auto`; ValueError if this machine lacks it."""
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
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
