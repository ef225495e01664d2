"""Every class's logit of a view in 8 or 4 bits: codes on a uniform grid from the view's smallest logit to its largest.

A grid that cuts off the smallest logits would be finer, and wrong about those that it cuts off; scale and zero in
float16 would save 4 bytes of about 1,000. `bench/soft_targets.py` measures what the codes lose.
"""

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

BITS = (4, 8)
"""How many bits a code may have."""


class Quantised(NamedTuple):
    """Logits (n, classes) as `code` * `scale` + `zero`: uint8 (n, bytes), float32 (n,) and float32 (n,).

    Of 8 bits a code is a byte. Of 4 bits a byte is two, the class of the even number in its low half; after an odd
    number of classes the last high half is 0.
    """

    code: NDArray[np.uint8]
    scale: NDArray[np.float32]
    zero: NDArray[np.float32]


def bytes_of(classes: int, bits: int) -> int:
    """Return how many bytes the codes of one view take."""
    return -(-classes * bits // 8)


def quantise(logits: NDArray[np.float32], bits: int) -> Quantised:
    """Return finite logits (n, classes) in 8 or 4 bits; none is further off than half a step, the view's `scale`."""
    most = 2**bits - 1
    zero = logits.min(1)
    scale = ((logits.max(1).astype(np.float64) - zero) / most).astype(np.float32)
    steps = np.where(scale > 0, scale, 1)  # where all logits are the same, all codes are 0
    code = np.rint((logits - zero[:, None]) / steps[:, None]).clip(0, most).astype(np.uint8)
    if bits == 4:
        even = np.pad(code, ((0, 0), (0, code.shape[1] % 2)))
        code = even[:, ::2] | even[:, 1::2] << 4
    return Quantised(code, scale, zero)


def dequantise(code: NDArray[np.uint8], scale: NDArray[Any], zero: NDArray[Any], classes: int) -> NDArray[np.float32]:
    """Return the logits (n, classes) that codes (n, bytes), scale (n,) and zero (n,) stand for."""
    if code.shape[1] < classes:
        code = np.stack([code & 15, code >> 4], axis=2).reshape(len(code), -1)[:, :classes]
    logits: NDArray[np.float32] = code * scale[:, None] + zero[:, None]
    return logits
