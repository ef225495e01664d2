"""Pixels: what a plan does to an image. Pure functions of (plan, image bytes); nothing here draws anything.

Images and views are uint8 arrays, (height, width, RGB).
"""

import functools
import io
import math
import warnings
from typing import cast

import cv2
import google_crc32c
import numpy as np
import simplejpeg
import torch
import torchvision
from numpy.typing import NDArray
from PIL import Image

from ...runtime.errors import InputError
from . import kernels, philox
from .kernels import UInt8Image
from .ops import OPS, apply_op
from .own import apply_own
from .plans import CROP_PADDING, Box, Erase, MixPlan, ViewPlan, Window

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)
MAX_PIXELS = 2**27
"""The largest image that is decoded, 134 megapixels: a few bytes can claim to be more than memory holds."""

_PNG = b"\x89PNG\r\n\x1a\n"
warnings.filterwarnings("ignore", category=Image.DecompressionBombWarning)  # MAX_PIXELS is looked at instead


def decode(data: bytes) -> UInt8Image:
    """Return a JPEG, PNG or WebP as RGB, (height, width, 3) uint8; grey, CMYK, palette and alpha are converted.

    Raises ValueError where the bytes are no such image, or one of more than `MAX_PIXELS`.
    """
    if not data:
        raise InputError("", "a JPEG, PNG or WebP image", "an empty file")
    if data[:2] == b"\xff\xd8":
        try:  # a tenth faster than torchvision, and the same bytes; CMYK and what is damaged are left to the latter
            height, width, *_ = simplejpeg.decode_jpeg_header(data)
            if height * width <= MAX_PIXELS:
                return cast(UInt8Image, simplejpeg.decode_jpeg(data, fastdct=False, fastupsample=False))
        except ValueError:
            pass
    frames, claimed = _claims(data)
    if claimed > MAX_PIXELS:
        raise InputError("", f"an image of at most {MAX_PIXELS:,} pixels", f"one that claims {claimed:,} or more")
    if frames > 1:
        raise InputError("", "one image", f"an animation of {frames}")
    if data.startswith(_PNG) and data[24:25] == b"\x10":
        raise InputError("", "8 bits a channel", "16")
    try:
        return _decode_png(data) if data.startswith(_PNG) else _decode(data)
    except (RuntimeError, ValueError, OSError, SyntaxError) as error:
        reason = str(error).partition("\n")[0].rpartition(", ")[2]  # without torchvision's function and source line
        if "Unsupported image file" in str(error):
            reason = "another kind of file"
        raise InputError("", "a JPEG, PNG or WebP image", f"{len(data)} bytes that do not decode: {reason}") from error


def _decode(data: bytes) -> UInt8Image:
    if not data.startswith((b"\xff\xd8", b"RIFF")):
        raise ValueError("another kind of file")
    encoded = torch.frombuffer(bytearray(data), dtype=torch.uint8)
    image: torch.Tensor = torchvision.io.decode_image(encoded, mode=torchvision.io.ImageReadMode.RGB)
    return np.ascontiguousarray(image.permute(1, 2, 0).numpy())


def _decode_png(data: bytes) -> UInt8Image:
    """Decode by Pillow: at a damaged PNG torchvision ends the process."""
    with Image.open(io.BytesIO(data)) as image:
        return np.array(image.convert("RGB"))


def _claims(data: bytes) -> tuple[int, int]:
    """Return how many frames and pixels a header claims; 0 where it can't be read, of which the decoder complains."""
    try:
        image = Image.open(io.BytesIO(data))
        return getattr(image, "n_frames", 1), image.width * image.height
    except Image.DecompressionBombError:
        return 1, MAX_PIXELS + 1
    except (OSError, SyntaxError, ValueError):
        return 0, 0


def render(plan: ViewPlan, image: UInt8Image) -> UInt8Image:
    """Return the view (size, size, 3) that `plan` makes of a decoded image."""
    view = _crop(plan, image)
    if plan.hflip:
        view = cv2.flip(view, 1)  # type: ignore[assignment]
    for op in plan.ops:
        view = apply_op(view, op) if op.name in OPS else apply_own(view, op.name, op.value)
    if plan.erase:
        _erase(plan.erase, view)
    return view


def _crop(plan: ViewPlan, image: UInt8Image) -> UInt8Image:
    crop, size = plan.crop, plan.size
    if isinstance(crop, Box):
        return _resize(image[crop.top : crop.top + crop.height, crop.left : crop.left + crop.width], size, size)
    resized, pad = _resize(image, crop.height, crop.width), CROP_PADDING
    if isinstance(crop, Window):
        return _window(resized, crop.top, crop.left, size)
    padded = cv2.copyMakeBorder(resized, pad, pad, pad, pad, cv2.BORDER_REFLECT_101)
    return np.ascontiguousarray(padded[crop.top : crop.top + size, crop.left : crop.left + size])


def _window(image: UInt8Image, top: int, left: int, size: int) -> UInt8Image:
    """Return the square that begins at (top, left), black where it lies beside the image."""
    view: UInt8Image = np.zeros((size, size, 3), np.uint8)
    inside = image[max(top, 0) : top + size, max(left, 0) : left + size]
    high, wide, _ = inside.shape
    view[max(-top, 0) :, max(-left, 0) :][:high, :wide] = inside
    return view


def _resize(image: UInt8Image, height: int, width: int) -> UInt8Image:
    """Return (h, w, 3) as (height, width, 3): Pillow's bicubic resize, rows first as Pillow did it before version 13.

    Each pass rounds: now and then a value is 1 level from Pillow's, and about 5 in a million are 2.
    """
    # Channels-last uint8 has its own fast kernel with integer weights.
    channels_last = torch.from_numpy(np.ascontiguousarray(image))[None].permute(0, 3, 1, 2)
    resized = torch.nn.functional.interpolate(channels_last, (height, width), mode="bicubic", antialias=True)
    return np.ascontiguousarray(resized.numpy()[0].transpose(1, 2, 0))


def mix(plan: MixPlan, own: UInt8Image, partner: UInt8Image, out: UInt8Image | None = None) -> UInt8Image:
    """Return one side of a mixed pair, (size, size, 3), written to `out` if given."""
    mixed = np.empty_like(own) if out is None else out
    if plan.kind == "mixup":
        # lam is a multiple of 2**-16, so the float32 sum is exact before OpenCV rounds it.
        cv2.addWeighted(own, plan.lam, partner, 1 - plan.lam, 0, dst=mixed)
        return mixed
    mixed[:] = own
    if plan.box:
        rows = slice(plan.box.top, plan.box.top + plan.box.height)
        columns = slice(plan.box.left, plan.box.left + plan.box.width)
        mixed[rows, columns] = partner[rows, columns]
    return mixed


def check(view: UInt8Image) -> int:
    """Return the low 16 bits of CRC-32C (RFC 3720) over the view's bytes, row by row, RGB."""
    return int(google_crc32c.value(np.ascontiguousarray(view))) & 0xFFFF


def _erase(erase: Erase, view: UInt8Image) -> None:
    """Fill a box with normal noise around ImageNet's mean, as timm's pixel mode looks before normalisation."""
    box = erase.box
    count = 3 * box.height * box.width
    raw = philox.words(erase.seed, philox.Stream.ERASE, (erase.view, 0, 0), -(-count // 4))
    quantiles = raw.astype("<u8", copy=False).view("<u2")
    kernels.look_up_noise(
        quantiles, _noise_tables(), view[box.top : box.top + box.height, box.left : box.left + box.width]
    )


@functools.cache
def _noise_tables() -> NDArray[np.uint8]:
    """Return for each channel the pixel value at each of 65,536 equally likely quantiles: (3, 65536)."""
    tables = []
    for mean, std in zip(IMAGENET_MEAN, IMAGENET_STD, strict=True):
        # A pixel is at most `value` where the noise is below the middle between it and the next.
        below = [0.5 + 0.5 * math.erf(((value + 0.5) / 255 - mean) / std / math.sqrt(2)) for value in range(255)]
        edges = np.array([0, *(round(p * 2**16) for p in below), 2**16])
        tables.append(np.repeat(np.arange(256, dtype=np.uint8), np.diff(edges)))
    return np.stack(tables)
