"""The only randomness there is: raw words of Philox4x64-10, addressed by (key, stream, counter).

Salmon et al., "Parallel random numbers: as easy as 1, 2, 3" (SC 2011). NumPy guarantees the raw words of a bit
generator for ever, but not what its distribution methods make of them (NEP 19), so the distributions are ours.
"""

import math
import threading
from enum import IntEnum
from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray

_STANDARD_NORMAL = NormalDist()
_NOTHING_LEFT = np.zeros(4, np.uint64)  # an empty buffer of words that were drawn and not yet asked for
_WORDS_AT_A_TIME = 64  # a whole view of recipe `deit` takes about 25; drawing 64 at once costs no more than drawing 8


class _Generators(threading.local):
    """A generator for all words of a thread: to make one asks the system for entropy, which a key makes useless."""

    def __init__(self) -> None:
        self.one = np.random.Philox(key=0)


_generators = _Generators()


class Stream(IntEnum):
    """What a stream of words is for: the second half of the Philox key. Values are part of the store format."""

    SEED = 1
    PAIRS = 2
    ORDER = 3
    VIEW = 4
    ERASE = 5
    MIX = 6
    STEP = 7


def words(key: int, stream: Stream, counter: tuple[int, int, int], n: int) -> NDArray[np.uint64]:
    """Return the first `n` raw words, uint64, of the stream at `counter`.

    The lowest of Philox's four counter words counts blocks (from 1, as NumPy increments first), so streams at
    different counters never overlap.
    """
    generator = _generators.one
    generator.state = {
        "bit_generator": "Philox",
        "state": {"key": np.array([key, stream], np.uint64), "counter": np.array([0, *counter], np.uint64)},
        "buffer": _NOTHING_LEFT,
        "buffer_pos": len(_NOTHING_LEFT),
        "has_uint32": 0,
        "uinteger": 0,
    }
    return generator.random_raw(n)


def permutation(key: int, stream: Stream, counter: tuple[int, int, int], n: int) -> NDArray[np.int64]:
    """Return a permutation of 0..n-1, int64: the order in which a stable sort puts the stream's first `n` words."""
    return np.argsort(words(key, stream, counter, n), kind="stable")


class Draws:
    """Distributions over one stream, drawn in order; each method says how many words it takes."""

    def __init__(self, key: int, stream: Stream, counter: tuple[int, int, int]) -> None:
        self._address = (key, stream, counter)
        self._drawn = words(*self._address, _WORDS_AT_A_TIME).tolist()
        self._next = 0

    def word(self) -> int:
        """Return the next raw word."""
        if self._next == len(self._drawn):
            self._drawn = words(*self._address, 2 * len(self._drawn)).tolist()
        self._next += 1
        return int(self._drawn[self._next - 1])

    def uniform(self, low: float = 0.0, high: float = 1.0) -> float:
        """Return a float in (low, high) with 53 random bits: one word."""
        return low + (high - low) * (((self.word() >> 11) + 0.5) * 2.0**-53)

    def chance(self, probability: float) -> bool:
        """Return True with `probability`: one word, whatever the probability."""
        return self.uniform() < probability

    def integer(self, low: int, high: int) -> int:
        """Return an int in [low, high], both included: one word (biased by less than 2**-40 for any image size)."""
        return low + ((self.word() * (high - low + 1)) >> 64)

    def log_uniform(self, low: float, high: float) -> float:
        """Return a float whose logarithm is uniform between those of `low` and `high`: one word."""
        return math.exp(self.uniform(math.log(low), math.log(high)))

    def normal(self, mean: float, std: float) -> float:
        """Return a normal float by inverting the distribution function: one word."""
        return mean + std * _STANDARD_NORMAL.inv_cdf(self.uniform())

    def beta(self, alpha: float) -> float:
        """Return a float from Beta(alpha, alpha) by Jöhnk's rejection (1964): two words a try."""
        while True:
            x, y = self.uniform() ** (1 / alpha), self.uniform() ** (1 / alpha)
            if 0 < x + y <= 1:
                return float(x / (x + y))
