"""Recipes: overrides, round trips, and errors that name the field."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from distillcache.datasets.plans import plan_mix, plan_view
from distillcache.datasets.recipes import NAMES, Recipe, named


@given(st.sampled_from(NAMES), st.integers(16, 1024), st.floats(0, 1), st.integers(1, 9))
def test_recipes_survive_json(name: str, size: int, hflip: float, repeats: int) -> None:
    recipe = named(name, size=size, overrides=[f"hflip={hflip}", f"repeats={repeats}"])
    again = Recipe.from_dict(json.loads(json.dumps(recipe.to_dict())))
    assert again == recipe and again.fingerprint == recipe.fingerprint


def test_overrides_change_the_field_and_the_fingerprint() -> None:
    recipe = named("deit", overrides=["hflip=0", "crop_scale=0.5,0.75", "randaug_ops=0", "erase_prob=1", "mix_prob=0"])
    assert (recipe.hflip, recipe.crop_scale, recipe.randaug_ops, recipe.mixes) == (0, (0.5, 0.75), 0, False)
    assert recipe.fingerprint != named("deit").fingerprint
    for seed in range(50):
        plan = plan_view(recipe, seed, 0, 300, 400)
        assert not plan.hflip and not plan.ops and plan.erase
        assert 0.49 < plan.crop.height * plan.crop.width / 120_000 < 0.76
        assert plan_mix(recipe, seed, seed + 1, 0).kind == "none"


@pytest.mark.parametrize(
    ("assignment", "message"),
    [
        ("hflip=2", "recipe field hflip: expected 0 to 1, found 2.0"),
        ("hflip=x", "recipe field hflip: expected float, found 'x'"),
        ("crop_scale=0.5", "recipe field crop_scale: expected two numbers such as 0.5,1, found '0.5'"),
        ("crop_scale=1,0.5", "recipe field crop_scale: expected 0.001 to 1"),
        ("flip=1", "recipe field: expected one of"),
        ("size=3", "recipe field: expected one of"),
    ],
)
def test_a_bad_override_is_named(assignment: str, message: str) -> None:
    with pytest.raises(ValueError) as error:
        named("deit", overrides=[assignment])
    assert message in str(error.value)


def test_an_unknown_recipe_is_named() -> None:
    with pytest.raises(ValueError, match="expected one of deit, crop, none; found 'diet'"):
        named("diet")
