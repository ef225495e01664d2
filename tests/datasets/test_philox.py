"""Philox beside a slow, obvious version of the paper's, and the distributions beside their definitions."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from distillcache.datasets.augment.philox import Draws, Stream, permutation, words

MASK = 2**64 - 1
UINT64 = st.integers(0, MASK)


def philox4x64(counter: list[int], key: list[int]) -> list[int]:
    """Return one block of Philox4x64-10 as Salmon et al. define it."""
    c, k = list(counter), list(key)
    for _ in range(10):
        first, second = 0xD2E7470EE14C6C93 * c[0], 0xCA5A826395121157 * c[2]
        c = [(second >> 64) ^ c[1] ^ k[0], second & MASK, (first >> 64) ^ c[3] ^ k[1], first & MASK]
        k = [(k[0] + 0x9E3779B97F4A7C15) & MASK, (k[1] + 0xBB67AE8584CAA73B) & MASK]
    return c


@pytest.mark.parametrize(
    ("counter", "key", "block"),
    [
        ("0 0 0 0", "0 0", "16554d9eca36314c db20fe9d672d0fdc d7e772cee186176b 7e68b68aec7ba23b"),
        (
            "243f6a8885a308d3 13198a2e03707344 a4093822299f31d0 082efa98ec4e6c89",
            "452821e638d01377 be5466cf34e90c6c",
            "a528f45403e61d95 38c72dbd566e9788 a5a1610e72fd18b5 57bd43b5e52b7fe6",
        ),
    ],
)
def test_reference_gives_the_published_known_answers(counter: str, key: str, block: str) -> None:
    as_ints = [[int(word, 16) for word in text.split()] for text in (counter, key, block)]
    assert philox4x64(as_ints[0], as_ints[1]) == as_ints[2]


@given(UINT64, st.sampled_from(list(Stream)), st.tuples(UINT64, UINT64, UINT64))
def test_words_are_the_blocks_from_one_on(key: int, stream: Stream, counter: tuple[int, int, int]) -> None:
    expected = [word for block in (1, 2, 3) for word in philox4x64([block, *counter], [key, stream])]
    assert words(key, stream, counter, 10).tolist() == expected[:10]


def test_draws_go_on_beyond_the_first_words() -> None:
    draws = Draws(7, Stream.VIEW, (0, 0, 0))
    assert [draws.word() for _ in range(300)] == words(7, Stream.VIEW, (0, 0, 0), 300).tolist()


@given(UINT64, st.integers(0, 200))
def test_permutation_permutes(key: int, n: int) -> None:
    assert sorted(permutation(key, Stream.PAIRS, (0, 0, 0), n)) == list(range(n))


def test_distributions_have_the_moments_they_should() -> None:
    draws = Draws(1, Stream.VIEW, (0, 0, 0))
    n = 20_000
    samples = {
        "uniform": ([draws.uniform(2, 4) for _ in range(n)], 3, 2 / math.sqrt(12)),
        "chance": ([draws.chance(0.3) for _ in range(n)], 0.3, math.sqrt(0.21)),
        "integer": ([draws.integer(-1, 2) for _ in range(n)], 0.5, math.sqrt(1.25)),
        "normal": ([draws.normal(9, 0.5) for _ in range(n)], 9, 0.5),
        "beta": ([draws.beta(0.8) for _ in range(n)], 0.5, math.sqrt(0.25 / 2.6)),
        "log_uniform": ([math.log(draws.log_uniform(1, math.e)) for _ in range(n)], 0.5, 1 / math.sqrt(12)),
    }
    for name, (values, mean, std) in samples.items():
        assert abs(np.mean(values) - mean) < 4 * std / math.sqrt(n), name
        assert abs(np.std(values) / std - 1) < 0.03, name
