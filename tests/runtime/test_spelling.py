"""Suggestions for misspelt names."""

import pytest

from distillcache.runtime.spelling import did_you_mean

NAMES = ["deit_tiny_distilled_patch16_224", "deit_tiny_patch16_224", "regnety_160.deit_in1k", "adamw"]


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("deit_tny", "deit_tiny_distilled_patch16_224"),
        ("deit_tiny_patch16_22", "deit_tiny_patch16_224"),
        ("regnety_16", "regnety_160.deit_in1k"),
        ("adam-w", "adamw"),
    ],
)
def test_the_name_that_is_most_like_it_is_suggested(name: str, meant: str) -> None:
    assert did_you_mean(name, NAMES) == f"; did you mean {meant}?"


def test_nothing_is_suggested_where_nothing_is_like_it() -> None:
    assert did_you_mean("magic", NAMES) == did_you_mean("", NAMES) == ""
