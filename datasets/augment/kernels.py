"""The pixel loops that OpenCV and Pillow have not, or only slower, compiled by numba.

Integers, or IEEE doubles in the order written (nothing is fused or reordered): the same bytes on every CPU.
"""

import math
from collections.abc import Callable
from typing import Any, TypeVar, cast

import numba
import numpy as np
from numpy.typing import NDArray

UInt8Image = NDArray[np.uint8]
Matrix = tuple[float, float, float, float, float, float]
_Function = TypeVar("_Function", bound=Callable[..., Any])
_Number = float | np.int32


def compiled(function: _Function) -> _Function:
    """Compile at the first call, and keep the result on disk where there is a place for it."""
    try:
        return cast(_Function, numba.njit(cache=True, nogil=True, error_model="numpy")(function))
    except RuntimeError:  # neither the package's folder nor the user's can be written
        return cast(_Function, numba.njit(nogil=True, error_model="numpy")(function))


@compiled
def affine(taps: NDArray[np.uint32], matrix: Matrix, fill: tuple[int, int, int]) -> UInt8Image:
    """Return Pillow's bicubic AFFINE transform of an image, (height, width, 3), byte for byte.

    `taps` is the image as one word of RGBA for each pixel, with its border repeated twice on every side:
    (height + 4, width + 4). `matrix` leads from the middles of the result's pixels to points in the image; pixels that
    come from outside it are filled.
    """
    height, width = taps.shape[0] - 4, taps.shape[1] - 4
    out = np.empty((height, width, 3), np.uint8)
    first, place = np.empty(width, np.uint32), np.empty(width, np.uint32)
    dx, dy = np.empty((width, 4)), np.empty((width, 4))
    around, found = np.empty((16, width), np.uint32), np.empty(4 * width, np.uint8)
    for y in range(height):
        n = 0
        for x in range(width):
            left = matrix[0] * (x + 0.5) + matrix[1] * (y + 0.5) + matrix[2]
            top = matrix[3] * (x + 0.5) + matrix[4] * (y + 0.5) + matrix[5]
            if 0 <= left < width and 0 <= top < height:
                left, top = left - 0.5, top - 0.5
                first[n] = (math.floor(top) + 1) * taps.shape[1] + math.floor(left) + 1
                place[n] = x
                dx[n], dy[n] = left - math.floor(left), top - math.floor(top)
                n += 1
            else:
                out[y, x, 0], out[y, x, 1], out[y, x, 2] = fill
        _gather(taps.ravel(), taps.shape[1], first[:n], around)
        _bicubic(around.view(np.uint8), dx.ravel(), dy.ravel(), found[: 4 * n])
        for i in range(n):
            for c in range(3):
                out[y, place[i], c] = found[4 * i + c]
    return out


@compiled
def _gather(taps: NDArray[np.uint32], width: int, first: NDArray[np.uint32], around: NDArray[np.uint32]) -> None:
    """Collect the 4 x 4 taps of each pixel, (16, n), from the place of its first."""
    for k in range(16):
        from_here, tap = taps[k // 4 * width + k % 4 :], around[k]
        for i in range(np.uint64(len(first))):  # unsigned: saves asking whether an index is negative
            tap[i] = from_here[first[i]]


@compiled
def _bicubic(around: UInt8Image, dx: NDArray[np.float64], dy: NDArray[np.float64], out: UInt8Image) -> None:
    for i in range(np.uint64(len(out))):
        first, second = _cubic_of(around, 0, i, dx[i]), _cubic_of(around, 4, i, dx[i])
        third, fourth = _cubic_of(around, 8, i, dx[i]), _cubic_of(around, 12, i, dx[i])
        value = _cubic(first, second, third, fourth, dy[i])
        out[i] = int(min(max(value, 0.0), 255.0))


@compiled
def _cubic_of(around: UInt8Image, row: int, i: int, t: float) -> float:
    a, b, c, d = around[row, i], around[row + 1, i], around[row + 2, i], around[row + 3, i]
    return _cubic(np.int32(a), np.int32(b), np.int32(c), np.int32(d), t)


@compiled
def _cubic(a: _Number, b: _Number, c: _Number, d: _Number, t: float) -> float:
    """Return Keys' cubic convolution with a = -1, `t` after the second of four taps, in Pillow's order."""
    return b + t * (c - a + t * (2 * (a - b) + c - d + t * (b - a - c + d)))


@compiled
def shift_rows(padded: UInt8Image, shifts: NDArray[np.int64], fill: tuple[int, int, int]) -> UInt8Image:
    """Return an image (height, width, 3) with each row shifted by its own distance, resampled with four taps.

    Column x of row y comes from x + shifts[y], in units of 2**-16 pixels, by Keys' cubic convolution (a = -1) with
    weights rounded to 2**-12. `padded` is the image with as many columns on either side as the taps need: the furthest
    shift, and 3. Pixels whose middle comes from outside the image are filled.
    """
    height, pad = len(padded), (np.abs(shifts).max() >> 16) + 3
    width = padded.shape[1] - 2 * pad
    shifted = np.empty((height, width, 3), np.uint8)
    for y in range(height):
        taps = padded[y].ravel()[3 * (pad + (shifts[y] >> 16) - 1) :]
        _cubic_row(taps, taps[3:], taps[6:], taps[9:], (shifts[y] & 0xFFFF) / 2**16, shifted[y].ravel())
        first = -((shifts[y] + 2**15) >> 16)
        for x in range(min(first, width)):
            shifted[y, x, 0], shifted[y, x, 1], shifted[y, x, 2] = fill
        for x in range(max(width + first, 0), width):
            shifted[y, x, 0], shifted[y, x, 1], shifted[y, x, 2] = fill
    return shifted


@compiled
def _cubic_row(a: UInt8Image, b: UInt8Image, c: UInt8Image, d: UInt8Image, t: float, out: UInt8Image) -> None:
    """Write what lies `t` after the second of four taps, cut off; weights are integers, in units of 2**-12."""
    wa = np.int32(np.rint(-t * (1 - t) ** 2 * 2**12))
    wc = np.int32(np.rint(t * (1 + t - t**2) * 2**12))
    wd = np.int32(np.rint(-(t**2) * (1 - t) * 2**12))
    wb = np.int32(2**12 - wa - wc - wd)
    for i in range(len(out)):
        value = np.int32(wa * a[i]) + np.int32(wb * b[i]) + np.int32(wc * c[i]) + np.int32(wd * d[i])
        out[i] = min(max(np.int32(value) >> np.int32(12), np.int32(0)), np.int32(255))


@compiled
def grey(image: UInt8Image) -> UInt8Image:
    """Return Pillow's luma (ITU-R 601-2) of an RGB image, (height, width)."""
    height, width, _ = image.shape
    luma = np.empty((height, width), np.uint8)
    for y in range(height):
        for x in range(width):
            r, g, b = np.int32(image[y, x, 0]), np.int32(image[y, x, 1]), np.int32(image[y, x, 2])
            luma[y, x] = (19595 * r + 38470 * g + 7471 * b + 2**15) >> 16
    return luma


@compiled
def histograms(image: UInt8Image) -> NDArray[np.int64]:
    """Return how often each value is found in each channel, (3, 256)."""
    count = np.zeros((3, 256), np.int64)
    for pixel in image.reshape(-1, 3):
        for c in range(3):
            count[c, pixel[c]] += 1
    return count


@compiled
def look_up(image: UInt8Image, tables: UInt8Image) -> UInt8Image:
    """Return what the tables (3, 256) of its channels say of each value of an image (height, width, 3)."""
    found = np.empty_like(image)
    values, into = image.ravel(), found.ravel()
    for i in range(0, len(values), 3):
        for c in range(3):
            into[i + c] = tables[c, values[i + c]]
    return found


@compiled
def look_up_noise(quantiles: NDArray[np.uint16], tables: UInt8Image, out: UInt8Image) -> None:
    """Fill `out` (height, width, 3) in order with what the tables (3, 65536) of its channels say of each quantile."""
    height, width, _ = out.shape
    i = 0
    for y in range(height):
        for x in range(width):
            for c in range(3):
                out[y, x, c] = tables[c, quantiles[i]]
                i += 1
