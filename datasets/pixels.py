"""Pixels: what a plan does to an image. Pure functions of (plan, image bytes); nothing here draws anything.

Images are uint8 RGB; a decoded image is a tensor (3, height, width), a view an array (size, size, 3).
"""

import functools
import math

import cv2
import google_crc32c
import numpy as np
import simplejpeg
import torch
import torchvision
from numpy.typing import NDArray

from . import philox
from .ops import IMAGENET_MEAN, IMAGENET_STD, UInt8Image, apply_op
from .plans import CROP_PADDING, Box, Erase, MixPlan, ViewPlan


def exact_here() -> bool:
    """Return whether this CPU makes the same bytes as others: below AVX2 some kernels of torch and OpenCV don't."""
    return torch.backends.cpu.get_cpu_capability() != "DEFAULT"


def decode(data: bytes) -> torch.Tensor:
    """Return a JPEG, PNG or WebP as RGB, (3, height, width) uint8; grey, CMYK, palette and alpha are converted.

    Raises ValueError where the bytes are no such image.
    """
    if data[:2] == b"\xff\xd8":
        try:  # a tenth faster than torchvision, and the same bytes; CMYK and what is damaged are left to the latter
            return torch.from_numpy(simplejpeg.decode_jpeg(data, fastdct=False, fastupsample=False)).permute(2, 0, 1)
        except ValueError:
            pass
    try:
        encoded = torch.frombuffer(bytearray(data), dtype=torch.uint8)
        image: torch.Tensor = torchvision.io.decode_image(encoded, mode=torchvision.io.ImageReadMode.RGB)
    except (RuntimeError, ValueError) as error:
        reason = str(error).partition("\n")[0].rpartition(", ")[2]  # without torchvision's function and source line
        raise ValueError(
            f"expected a JPEG, PNG or WebP image, found {len(data)} bytes that do not decode: {reason}"
        ) from error
    if image.dtype != torch.uint8:
        raise ValueError(f"expected 8 bits a channel, found {image.dtype}")
    return image


def render(plan: ViewPlan, image: torch.Tensor) -> UInt8Image:
    """Return the view (size, size, 3) that `plan` makes of a decoded image."""
    view = _crop(plan, image)
    if plan.hflip:
        view = cv2.flip(view, 1)  # type: ignore[assignment]
    for op in plan.ops:
        view = apply_op(view, op)
    if plan.erase:
        box = plan.erase.box
        view = view.copy()
        view[box.top : box.top + box.height, box.left : box.left + box.width] = _noise(plan.erase)
    return view


def _crop(plan: ViewPlan, image: torch.Tensor) -> UInt8Image:
    crop, size = plan.crop, plan.size
    if isinstance(crop, Box):
        return _resize(image[:, crop.top : crop.top + crop.height, crop.left : crop.left + crop.width], size, size)
    resized, pad = _resize(image, crop.height, crop.width), CROP_PADDING
    padded = cv2.copyMakeBorder(resized, pad, pad, pad, pad, cv2.BORDER_REFLECT_101)
    return np.ascontiguousarray(padded[crop.top : crop.top + size, crop.left : crop.left + size])


def _resize(image: torch.Tensor, height: int, width: int) -> UInt8Image:
    """Return (3, h, w) as (height, width, 3): Pillow's bicubic resize, rows first as Pillow did it before version 13.

    Each pass rounds: now and then a value is 1 level from Pillow's, and about 5 in a million are 2.
    """
    # Channels-last uint8 has its own fast kernel with integer weights.
    channels_last = image[None].contiguous(memory_format=torch.channels_last)
    resized = torch.nn.functional.interpolate(channels_last, (height, width), mode="bicubic", antialias=True)
    return np.ascontiguousarray(resized[0].permute(1, 2, 0).numpy())


def mix(plan: MixPlan, own: UInt8Image, partner: UInt8Image) -> UInt8Image:
    """Return one side of a mixed pair, (size, size, 3); `own` itself where nothing is mixed."""
    if plan.kind == "none":
        return own
    if plan.box is None:
        # lam is a multiple of 2**-16, so the float32 sum is exact before OpenCV rounds it.
        return cv2.addWeighted(own, plan.lam, partner, 1 - plan.lam, 0)  # type: ignore[return-value]
    rows = slice(plan.box.top, plan.box.top + plan.box.height)
    columns = slice(plan.box.left, plan.box.left + plan.box.width)
    mixed = own.copy()
    mixed[rows, columns] = partner[rows, columns]
    return mixed


def check(view: UInt8Image) -> int:
    """Return the low 16 bits of CRC-32C (RFC 3720) over the view's bytes, row by row, RGB."""
    return int(google_crc32c.value(np.ascontiguousarray(view))) & 0xFFFF


def _noise(erase: Erase) -> UInt8Image:
    """Return a box of normal noise around ImageNet's mean, as timm's pixel mode looks before normalisation."""
    shape = (erase.box.height, erase.box.width, 3)
    count = math.prod(shape)
    raw = philox.words(erase.seed, philox.Stream.ERASE, (erase.view, 0, 0), -(-count // 4)).astype("<u8", copy=False)
    quantiles = raw.view("<u2")[:count].reshape(shape)
    return np.stack([table[quantiles[..., c]] for c, table in enumerate(_noise_tables())], axis=-1)


@functools.cache
def _noise_tables() -> list[NDArray[np.uint8]]:
    """Return for each channel the pixel value at each of 65,536 equally likely quantiles."""
    tables = []
    for mean, std in zip(IMAGENET_MEAN, IMAGENET_STD, strict=True):
        # A pixel is at most `value` where the noise is below the middle between it and the next.
        below = [0.5 + 0.5 * math.erf(((value + 0.5) / 255 - mean) / std / math.sqrt(2)) for value in range(255)]
        edges = np.array([0, *(round(p * 2**16) for p in below), 2**16])
        tables.append(np.repeat(np.arange(256, dtype=np.uint8), np.diff(edges)))
    return tables
