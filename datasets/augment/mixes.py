"""The mixes of many views at once: `plan_mix` for whole shards, compiled.

Philox4x64-10 and what `Draws` and `plan_mix` make of its words, in their order of operations: every lambda is theirs,
bit for bit, at about a hundredth of their time. It gives no boxes: those are for pixels.
"""

import math
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from .kernels import compiled
from .philox import Stream
from .recipes import Recipe

KINDS = ("none", "mixup", "cutmix")
_NONE, _MIXUP, _CUTMIX = range(len(KINDS))
_ROUNDS = 10
_MULTIPLIERS = np.array([0xD2E7470EE14C6C93, 0xCA5A826395121157], np.uint64)
_BUMPS = np.array([0x9E3779B97F4A7C15, 0xBB67AE8584CAA73B], np.uint64)
_STREAM = np.uint64(Stream.MIX)
_ONE, _FOUR, _ELEVEN, _HALF = np.uint64(1), np.uint64(4), np.uint64(11), np.uint64(32)
_LOW_HALF = np.uint64(2**32 - 1)


class Mixes(NamedTuple):
    """How views are mixed, (view, sample): kind uint8, a number of `KINDS`; lam float64, the own view's share."""

    kind: NDArray[np.uint8]
    lam: NDArray[np.float64]


def mixes(recipe: Recipe, seeds: NDArray[np.uint64], partner: NDArray[np.int32], views: NDArray[np.integer]) -> Mixes:
    """Return how the samples of one shard are mixed in some views.

    `seeds` are the samples' (sample,), `views` the numbers of the views (view,), `partner` who each sample is paired
    with (view, sample), negative for nobody; pairs are mutual, as `Order.partners` has them.
    """
    kind, lam = np.zeros(partner.shape, np.uint8), np.ones(partner.shape)
    if recipe.mixes:
        probabilities = (float(recipe.mix_prob), float(recipe.switch_prob))
        exponents = (_exponent(recipe.mixup_alpha), _exponent(recipe.cutmix_alpha))
        _mix(seeds, partner, views.astype(np.uint64), probabilities, exponents, recipe.size, kind, lam)
    return Mixes(kind, lam)


def _exponent(alpha: float) -> float:
    """Return what `Draws.beta` raises its words to; 0 for a mix that is turned off."""
    return 1 / alpha if alpha > 0 else 0.0


@compiled
def _mix(
    seeds: NDArray[np.uint64],
    partner: NDArray[np.int32],
    views: NDArray[np.uint64],
    probabilities: tuple[float, float],
    exponents: tuple[float, float],
    size: int,
    kind: NDArray[np.uint8],
    lam: NDArray[np.float64],
) -> None:
    """Write kind and lambda of all pairs; where nobody is paired or mixed, they stay."""
    drawn = np.empty(8, np.uint64)
    for row in range(len(views)):
        for sample in range(partner.shape[1]):
            other = partner[row, sample]
            if other < 0:
                continue
            if other < sample:  # whose turn was earlier
                kind[row, sample], lam[row, sample] = kind[row, other], lam[row, other]
                continue
            drawn[5], drawn[7] = min(seeds[sample], seeds[other]), max(seeds[sample], seeds[other])
            drawn[4], drawn[6] = 0, views[row]
            mixed, switched = _uniform(drawn) < probabilities[0], _uniform(drawn) < probabilities[1]
            if not mixed:
                continue
            if exponents[1] > 0 and (switched or exponents[0] == 0):
                kind[row, sample], lam[row, sample] = _CUTMIX, _cutmix(drawn, exponents[1], size)
            else:
                kind[row, sample], lam[row, sample] = _MIXUP, np.rint(_beta(drawn, exponents[0]) * 65536) / 65536


@compiled
def _cutmix(drawn: NDArray[np.uint64], exponent: float, size: int) -> Any:
    side = int(size * math.sqrt(1 - _beta(drawn, exponent)))
    centre_y: Any = np.int64(_high_word(_word(drawn), np.uint64(size)))  # signed: of mixed integers numba makes floats
    centre_x: Any = np.int64(_high_word(_word(drawn), np.uint64(size)))
    height = min(centre_y + (side + 1) // 2, size) - max(centre_y - side // 2, 0)
    width = min(centre_x + (side + 1) // 2, size) - max(centre_x - side // 2, 0)
    return 1 - height * width / size**2


@compiled
def _beta(drawn: NDArray[np.uint64], exponent: float) -> Any:
    while True:
        x, y = _uniform(drawn) ** exponent, _uniform(drawn) ** exponent
        if 0 < x + y <= 1:
            return x / (x + y)


@compiled
def _uniform(drawn: NDArray[np.uint64]) -> Any:
    return (np.float64(_word(drawn) >> _ELEVEN) + 0.5) * 2.0**-53


@compiled
def _word(drawn: NDArray[np.uint64]) -> Any:
    """Return the next word of a stream: four words, how many were drawn, and its address: key, view, other seed."""
    place = drawn[4] % _FOUR
    if place == 0:
        _next_block(drawn)
    drawn[4] += _ONE
    return drawn[place]


@compiled
def _next_block(drawn: NDArray[np.uint64]) -> None:
    a, b, c, d = drawn[4] // _FOUR + _ONE, drawn[6], drawn[7], np.uint64(0)
    key, stream = drawn[5], _STREAM
    for _ in range(_ROUNDS):
        high_a, high_c = _high_word(_MULTIPLIERS[0], a), _high_word(_MULTIPLIERS[1], c)
        a, b, c, d = high_c ^ b ^ key, _MULTIPLIERS[1] * c, high_a ^ d ^ stream, _MULTIPLIERS[0] * a
        key, stream = key + _BUMPS[0], stream + _BUMPS[1]
    drawn[0], drawn[1], drawn[2], drawn[3] = a, b, c, d


@compiled
def _high_word(a: np.uint64, b: np.uint64) -> Any:
    """Return the upper 64 of the 128 bits of a product."""
    a_low, a_high, b_low, b_high = a & _LOW_HALF, a >> _HALF, b & _LOW_HALF, b >> _HALF
    cross = a_high * b_low + (a_low * b_low >> _HALF)
    return a_high * b_high + (cross >> _HALF) + ((cross & _LOW_HALF) + a_low * b_high >> _HALF)
