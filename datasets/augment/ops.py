"""RandAugment's and 3-Augment's ops on uint8 RGB images: the bytes of timm's (Pillow's), on every x86-64 CPU with AVX2.

Each op takes an image (height, width, 3) and its argument and returns a new image. Arguments are binary fractions, so
OpenCV's float32 sums are exact, in whatever order and with whatever fused instructions a CPU makes them.
"""

import math
from collections.abc import Callable
from typing import cast

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFilter

from . import kernels
from .kernels import UInt8Image
from .plans import Op

_FILL = (124, 116, 104)
"""ImageNet's mean, with which timm fills what comes from outside."""
_LEVELS = np.arange(256)
_CUT_OFF = -0.5 + 2**-13
"""What turns OpenCV's rounding of a multiple of 2**-12 into Pillow's cutting off, exactly."""


def apply_op(image: UInt8Image, op: Op) -> UInt8Image:
    """Return `image` after one op; shape and dtype stay."""
    return OPS[op.name](image, op.value)


def _look_up(image: UInt8Image, table: NDArray[np.int64]) -> UInt8Image:
    """Apply one table of 256 entries to all channels."""
    return cast(UInt8Image, cv2.LUT(image, table.astype(np.uint8)))


def _auto_contrast(image: UInt8Image, _: float) -> UInt8Image:
    """Pillow's ImageOps.autocontrast without cutoff."""
    present = kernels.histograms(image) > 0
    low, high = present.argmax(axis=1, keepdims=True), 255 - present[:, ::-1].argmax(axis=1, keepdims=True)
    scale = 255.0 / np.maximum(high - low, 1)
    tables = np.clip((_LEVELS * scale + -low * scale).astype(np.int64), 0, 255)
    return kernels.look_up(image, np.where(high > low, tables, _LEVELS).astype(np.uint8))


def _equalize(image: UInt8Image, _: float) -> UInt8Image:
    """Pillow's ImageOps.equalize."""
    histograms = kernels.histograms(image)
    last = 255 - (histograms > 0)[:, ::-1].argmax(axis=1)
    up_to = histograms.cumsum(axis=1)
    step = (up_to[:, -1:] - np.take_along_axis(histograms, last[:, None], axis=1)) // 255
    tables = np.minimum((step // 2 + up_to - histograms) // np.maximum(step, 1), 255)
    return kernels.look_up(image, np.where(step > 0, tables, _LEVELS).astype(np.uint8))


def _invert(image: UInt8Image, _: float) -> UInt8Image:
    return cast(UInt8Image, cv2.bitwise_not(image))


def _posterize(image: UInt8Image, bits: float) -> UInt8Image:
    """Keep the `bits` most significant bits; 0 bits make a black image, as older Pillow had it (Pillow 13 refuses)."""
    return _look_up(image, _LEVELS & (0xFF << (8 - int(bits))))


def _solarize(image: UInt8Image, threshold: float) -> UInt8Image:
    return _look_up(image, np.where(threshold > _LEVELS, _LEVELS, 255 - _LEVELS))


def _solarize_add(image: UInt8Image, added: float) -> UInt8Image:
    return _look_up(image, np.where(_LEVELS < 128, np.minimum(_LEVELS + int(added), 255), _LEVELS))


def _brightness(image: UInt8Image, factor: float) -> UInt8Image:
    return _look_up(image, np.minimum((_LEVELS * factor).astype(np.int64), 255))


def _contrast(image: UInt8Image, factor: float) -> UInt8Image:
    mean = int(cv2.mean(kernels.grey(image))[0] + 0.5)
    return _look_up(image, np.clip(mean + factor * (_LEVELS - mean), 0, 255).astype(np.int64))


def _grayscale(image: UInt8Image, _: float) -> UInt8Image:
    return cast(UInt8Image, cv2.cvtColor(kernels.grey(image), cv2.COLOR_GRAY2RGB))


def _color(image: UInt8Image, factor: float) -> UInt8Image:
    return _blend(_grayscale(image, 0), image, factor)


def _sharpness(image: UInt8Image, factor: float) -> UInt8Image:
    """Blend with Pillow's ImageFilter.SMOOTH, which leaves the border as it is."""
    smooth = cv2.filter2D(image, -1, np.array([[1, 1, 1], [1, 5, 1], [1, 1, 1]], np.float32) / 13)
    smooth[[0, -1]] = image[[0, -1]]
    smooth[:, [0, -1]] = image[:, [0, -1]]
    return _blend(cast(UInt8Image, smooth), image, factor)


def _gaussian_blur(image: UInt8Image, radius: float) -> UInt8Image:
    """Pillow's own: three box blurs with integer weights, in C that has no SIMD variants."""
    return np.array(Image.fromarray(image).filter(ImageFilter.GaussianBlur(radius)))


def _blend(degenerate: UInt8Image, image: UInt8Image, factor: float) -> UInt8Image:
    """Pillow's Image.blend: degenerate + factor * (image - degenerate), cut off (not rounded) and clipped."""
    return cast(UInt8Image, cv2.addWeighted(image, factor, degenerate, 1 - factor, _CUT_OFF))


def _rotate(image: UInt8Image, degrees: float) -> UInt8Image:
    """Pillow's Image.rotate about the middle, bicubic."""
    height, width, _ = image.shape
    angle = -math.radians(degrees % 360)
    cos, sin = round(math.cos(angle), 15), round(math.sin(angle), 15)
    left, top = cos * -width / 2 + sin * -height / 2, -sin * -width / 2 + cos * -height / 2
    matrix = (cos, sin, left + width / 2, -sin, cos, top + height / 2)
    packed = cv2.cvtColor(image, cv2.COLOR_RGB2RGBA)
    taps = cv2.copyMakeBorder(packed, 2, 2, 2, 2, cv2.BORDER_REPLICATE).view(np.uint32)[..., 0]
    return kernels.affine(taps, matrix, _FILL)


def _shear_x(image: UInt8Image, factor: float) -> UInt8Image:
    """Shift each row by its own distance: Pillow's bicubic AFFINE transform, one dimension of it."""
    return _shift_rows(image, (int(factor * 2**16) * (2 * np.arange(len(image)) + 1)) >> 1)


def _translate_x(image: UInt8Image, pixels: float) -> UInt8Image:
    return _shift_rows(image, np.full(len(image), int(pixels * 2**16)))


def _shift_rows(image: UInt8Image, shifts: NDArray[np.int64]) -> UInt8Image:
    """Resample each row `shifts[y]` * 2**-16 pixels further on, within 1 level of Pillow's bicubic AFFINE transform.

    A shear or a translation resamples along one axis only, so four taps a pixel replace Pillow's sixteen.
    """
    pad = (int(np.abs(shifts).max()) >> 16) + 3
    padded = cv2.copyMakeBorder(image, 0, 0, pad, pad, cv2.BORDER_REPLICATE)
    return kernels.shift_rows(cast(UInt8Image, padded), shifts, _FILL)


def _along_y(op: Callable[[UInt8Image, float], UInt8Image]) -> Callable[[UInt8Image, float], UInt8Image]:
    """Make an op on rows into the same op on columns."""
    return lambda image, value: cast(UInt8Image, cv2.transpose(op(cast(UInt8Image, cv2.transpose(image)), value)))


OPS: dict[str, Callable[[UInt8Image, float], UInt8Image]] = {
    "AutoContrast": _auto_contrast,
    "Equalize": _equalize,
    "Invert": _invert,
    "Rotate": _rotate,
    "Posterize": _posterize,
    "Solarize": _solarize,
    "SolarizeAdd": _solarize_add,
    "Color": _color,
    "Contrast": _contrast,
    "Brightness": _brightness,
    "Sharpness": _sharpness,
    "ShearX": _shear_x,
    "ShearY": _along_y(_shear_x),
    "TranslateX": _translate_x,
    "TranslateY": _along_y(_translate_x),
    "Grayscale": _grayscale,
    "GaussianBlur": _gaussian_blur,
}
