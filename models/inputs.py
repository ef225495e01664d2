"""What every model does first: put uint8 views on its device and normalise them with its own mean and std."""

import torch


def normalize(images: torch.Tensor, mean: torch.Tensor, std: torch.Tensor) -> torch.Tensor:
    """Return uint8 (n, height, width, RGB) images as float32 (n, RGB, height, width), channels-last in memory.

    `mean` and `std` are (3,), in timm's units of 0 to 1, on the images' device.
    """
    return images.permute(0, 3, 1, 2).float().sub_(mean.view(1, -1, 1, 1) * 255).div_(std.view(1, -1, 1, 1) * 255)


def find_device(name: str) -> torch.device:
    """Return the device `name`, or the first GPU or else the CPU for `auto`; ValueError if this machine lacks it."""
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        device = torch.device(name)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        reason = str(error).partition("\n")[0].partition(". ")[0]
        raise ValueError(f"device: expected one that this machine has, found {name!r}: {reason}") from error
    return device
