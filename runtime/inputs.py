"""What every model does first: put uint8 views on its device and normalise them with its own mean and std."""

import torch


def normalize(images: torch.Tensor, mean: torch.Tensor, std: torch.Tensor) -> torch.Tensor:
    """Return uint8 (n, height, width, RGB) images as float32 (n, RGB, height, width), channels-last in memory.

    `mean` and `std` are (3,), in timm's units of 0 to 1, on the images' device.
    """
    return images.permute(0, 3, 1, 2).float().sub_(mean.view(1, -1, 1, 1) * 255).div_(std.view(1, -1, 1, 1) * 255)
