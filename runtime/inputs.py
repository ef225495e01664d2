"""What every model does first: put uint8 views on its device and normalise them with its own mean and std."""

from collections.abc import Sequence

import torch

from .errors import InputError


def normalize(images: torch.Tensor, mean: torch.Tensor, std: torch.Tensor) -> torch.Tensor:
    """Return uint8 (n, height, width, RGB) images as float32 (n, RGB, height, width), channels-last in memory.

    `mean` and `std` are (3,), in timm's units of 0 to 1, on the images' device.
    """
    return images.permute(0, 3, 1, 2).float().sub_(mean.view(1, -1, 1, 1) * 255).div_(std.view(1, -1, 1, 1) * 255)


def require_normalisation(mean: Sequence[float], std: Sequence[float]) -> None:
    """Raise InputError for a mean or a std of channels that are not three numbers in timm's units of 0 to 1."""
    for name, values, low in (("mean", mean, 0.0), ("std", std, 1e-6)):
        numbers = isinstance(values, (tuple, list)) and all(isinstance(v, (int, float)) for v in values)
        if not numbers or len(values) != 3 or not all(low <= value <= 1 for value in values):
            raise InputError(f"`{name}`", f"three numbers, {low:g} to 1, of pixels from 0 to 1", values)
