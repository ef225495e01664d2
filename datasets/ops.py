"""RandAugment's and 3-Augment's ops on uint8 RGB images: the bytes of timm's (Pillow's), on every x86-64 CPU with AVX2.

Each op takes an image (height, width, 3) and its argument and returns a new image. Arguments are binary fractions, so
the float32 sums below are exact, in whatever order and with whatever fused instructions a CPU makes them.
"""

import functools
from collections.abc import Callable
from typing import cast

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, ImageFilter

from .plans import Op

UInt8Image = NDArray[np.uint8]

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)
_FILL = tuple(round(255 * mean) for mean in IMAGENET_MEAN)
_LEVELS = np.arange(256)
_CUT_OFF = -0.5 + 2**-13
"""What turns OpenCV's rounding of a multiple of 2**-12 into Pillow's cutting off, exactly."""


def apply_op(image: UInt8Image, op: Op) -> UInt8Image:
    """Return `image` after one op; shape and dtype stay."""
    return _OPS[op.name](image, op.value)


def _grey(image: UInt8Image) -> UInt8Image:
    return np.asarray(Image.fromarray(image).convert("L"))


def _histograms(image: UInt8Image) -> list[NDArray[np.int64]]:
    return [cv2.calcHist([image], [c], None, [256], [0, 256]).ravel().astype(np.int64) for c in range(3)]


def _look_up(image: UInt8Image, tables: list[NDArray[np.int64]] | NDArray[np.int64]) -> UInt8Image:
    """Apply one table of 256 entries, or one for each channel."""
    table = np.stack(tables, axis=-1)[None] if isinstance(tables, list) else tables
    return cast(UInt8Image, cv2.LUT(image, table.astype(np.uint8)))


def _auto_contrast(image: UInt8Image, _: float) -> UInt8Image:
    """Pillow's ImageOps.autocontrast without cutoff."""
    tables = []
    for histogram in _histograms(image):
        present = np.flatnonzero(histogram)
        low, high = int(present[0]), int(present[-1])
        scale = 255.0 / (high - low) if high > low else 1.0
        offset = -low * scale if high > low else 0.0
        tables.append(np.clip((_LEVELS * scale + offset).astype(np.int64), 0, 255))
    return _look_up(image, tables)


def _equalize(image: UInt8Image, _: float) -> UInt8Image:
    """Pillow's ImageOps.equalize."""
    tables = []
    for histogram in _histograms(image):
        present = histogram[histogram > 0]
        step = int(present.sum() - present[-1]) // 255
        if len(present) <= 1 or step == 0:
            tables.append(_LEVELS)
            continue
        below = np.concatenate([[0], np.cumsum(histogram)[:-1]])
        tables.append(np.minimum((step // 2 + below) // step, 255))
    return _look_up(image, tables)


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
    mean = int(_grey(image).mean(dtype=np.float64) + 0.5)
    return _look_up(image, np.clip(mean + factor * (_LEVELS - mean), 0, 255).astype(np.int64))


def _grayscale(image: UInt8Image, _: float) -> UInt8Image:
    return cast(UInt8Image, cv2.cvtColor(_grey(image), cv2.COLOR_GRAY2RGB))


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
    rotated = Image.fromarray(image).rotate(degrees, resample=Image.Resampling.BICUBIC, fillcolor=_FILL)
    return np.array(rotated)


def _shear_x(image: UInt8Image, factor: float) -> UInt8Image:
    """Shift each row by its own distance: Pillow's bicubic AFFINE transform, one dimension of it.

    A shear or a translation resamples along one axis only, so four taps a pixel replace Pillow's sixteen. Taps beyond
    the border repeat it; pixels that come from outside the image are filled. Within 1 level of Pillow: weights are
    rounded to 2**-12, which makes every sum exact in float32.
    """
    height, width, _ = image.shape
    shifts = (int(factor * 2**16) * (2 * np.arange(height) + 1)) >> 1
    whole = shifts >> 16
    pad = int(np.abs(whole).max()) + 3
    padded = cv2.copyMakeBorder(image, 0, 0, pad, pad, cv2.BORDER_REPLICATE).reshape(height, -1)
    windows = np.lib.stride_tricks.sliding_window_view(padded, 3 * (width + 3), axis=1)
    taps = torch.from_numpy(windows[np.arange(height), 3 * (whole - 1 + pad)]).float()
    weights = torch.from_numpy(_cubic_weights((shifts & 0xFFFF) / 2**16))
    total = taps[:, : 3 * width] * weights[:, :1]
    for tap in range(1, 4):
        total.addcmul_(taps[:, 3 * tap : 3 * (tap + width)], weights[:, tap : tap + 1])
    levels = total.numpy()
    shifted = cv2.addWeighted(levels, 1, levels, 0, _CUT_OFF, dtype=cv2.CV_8U).reshape(height, width, 3)
    source = (shifts[:, None] + (2**15 + 2**16 * np.arange(width))).astype(np.int32)
    outside = source.view(np.uint32) >= width * 2**16
    return cast(UInt8Image, cv2.copyTo(_filled(height, width), outside.view(np.uint8), shifted))


def _translate_x(image: UInt8Image, pixels: float) -> UInt8Image:
    """Shift all rows alike: as `_shear_x`, with the same four taps everywhere."""
    shift, width = int(pixels * 2**16), image.shape[1]
    whole = shift >> 16
    pad = abs(whole) + 3
    padded = cv2.copyMakeBorder(image, 0, 0, pad, pad, cv2.BORDER_REPLICATE)
    taps = padded[:, whole - 1 + pad : whole + 2 + pad + width]
    weights = _cubic_weights(np.array([(shift & 0xFFFF) / 2**16]))
    shifted = cv2.filter2D(taps, -1, weights, anchor=(0, 0), delta=_CUT_OFF)[:, :width]
    # A pixel's middle, half a pixel further, must come from inside.
    first, last = max(0, -((shift + 2**15) >> 16)), min(width, -((shift + 2**15 - width * 2**16) >> 16))
    shifted[:, :first] = shifted[:, last:] = _FILL
    return cast(UInt8Image, shifted)


def _along_y(op: Callable[[UInt8Image, float], UInt8Image]) -> Callable[[UInt8Image, float], UInt8Image]:
    """Make an op on rows into the same op on columns."""
    return lambda image, value: cast(UInt8Image, cv2.transpose(op(cast(UInt8Image, cv2.transpose(image)), value)))


def _cubic_weights(d: NDArray[np.float64]) -> NDArray[np.float32]:
    """Return the weights of the four taps around a point `d` after the second: (n,) to (n, 4), multiples of 2**-12.

    Keys' cubic convolution with a = -1, which is what Pillow's transforms use (its resize uses -0.5).
    """
    taps = np.stack([-d * (1 - d) ** 2, 1 - 2 * d**2 + d**3, d * (1 + d - d**2), -(d**2) * (1 - d)], axis=-1)
    weights = np.rint(taps * 2**12)
    weights[:, 1] += 2**12 - weights.sum(axis=1)
    return (weights / 2**12).astype(np.float32)


@functools.lru_cache(maxsize=4)
def _filled(height: int, width: int) -> UInt8Image:
    return np.full((height, width, 3), _FILL, dtype=np.uint8)


_OPS: dict[str, Callable[[UInt8Image, float], UInt8Image]] = {
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
