"""What plans describe, made with torchvision and Pillow alone, as DeiT and DeiT III published it."""

from collections.abc import Callable

import torchvision.transforms.functional as TF
from PIL import Image, ImageFilter, ImageOps

from distillcache.datasets.augment.plans import Box, ViewPlan

Resize = Callable[[Image.Image, int, int], Image.Image]
DEIT3_OPS = {
    "Grayscale": lambda image, _: TF.to_grayscale(image, num_output_channels=3),
    "Solarize": lambda image, _: ImageOps.solarize(image),
    "GaussianBlur": lambda image, radius: image.filter(ImageFilter.GaussianBlur(radius=radius)),
    "Brightness": TF.adjust_brightness,
    "Contrast": TF.adjust_contrast,
    "Color": TF.adjust_saturation,
}


def resize(image: Image.Image, height: int, width: int) -> Image.Image:
    """Return what Pillow 12 and older make in one call: first the rows, then the columns.

    Pillow 13 begins with the columns where that is cheaper. The image between the two is clipped to 0..255, so its
    edges can differ by more than 20 levels from those of all versions before.
    """
    rows = image.resize((width, image.height), Image.Resampling.BICUBIC)
    return rows.resize((width, height), Image.Resampling.BICUBIC)


def crop(plan: ViewPlan, image: Image.Image, resize: Resize = resize) -> Image.Image:
    """Return the plan's crop of a photo, resized by `resize(image, height, width)`."""
    box = plan.crop
    if isinstance(box, Box):
        return resize(TF.crop(image, box.top, box.left, box.height, box.width), plan.size, plan.size)
    padded = TF.pad(resize(image, box.height, box.width), 4, padding_mode="reflect")
    return TF.crop(padded, box.top, box.left, plan.size, plan.size)


def deit3(plan: ViewPlan, cropped: Image.Image) -> Image.Image:
    """Return what follows DeiT III's crop."""
    image = TF.hflip(cropped) if plan.hflip else cropped
    for op in plan.ops:
        image = DEIT3_OPS[op.name](image, op.value)
    return image
