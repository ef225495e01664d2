"""Recipes: overrides, round trips, and errors that name the field."""

import dataclasses
import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from distillcache.datasets.augment.plans import SimpleCrop, plan_mix, plan_view
from distillcache.datasets.augment.recipes import NAMES, Recipe, named


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


def test_overrides_switch_each_part_of_deit3_on() -> None:
    """Every part of a recipe is a field: the named recipe is no more than their values."""
    fields = ["randaug_ops=0", "erase_prob=0", "three_augment=true", "color_jitter=0.3"]
    by_hand, deit3 = named("deit", overrides=fields), named("deit3")
    assert by_hand.fingerprint == deit3.fingerprint and by_hand.name == "deit"
    assert isinstance(plan_view(named("deit3", overrides=["crop=simple"]), 1, 0, 300, 400).crop, SimpleCrop)


def test_a_recipe_from_before_a_field_was_added_means_what_it_meant() -> None:
    for name in NAMES:
        recipe = dataclasses.replace(named(name), three_augment=False, color_jitter=0.0)
        old = {k: v for k, v in recipe.to_dict().items() if k not in ("three_augment", "color_jitter")}
        assert Recipe.from_dict(old) == recipe
        older = {k: v for k, v in old.items() if k != "crop"} | {"random_crop": recipe.crop == "resized"}
        assert Recipe.from_dict(older) == recipe


def test_the_table_in_the_docs_has_every_field_that_differs() -> None:
    page = (Path(__file__).parents[2] / "docs" / "recipes.md").read_text()
    lines = page[page.index("| field |") :].partition("\n\n")[0].splitlines()
    rows = [[cell.strip().strip("`") for cell in line.strip("|").split("|")] for line in lines]
    names = rows[0][1:]
    columns = {name: named(name).to_dict() for name in names}
    differing = [k for k in columns["deit"] if k != "name" and len({str(c[k]) for c in columns.values()}) > 1]
    values = [[field, *(str(c[field]).lower() for c in columns.values())] for field in differing]
    assert rows[0][0] == "field" and len(names) >= 4 and sorted(rows[2:]) == sorted(values)


@pytest.mark.parametrize(
    ("change", "differing"),
    [({"blur": 1}, "['blur']"), ({"hflip": None}, "['hflip']"), ({"name": None}, "['name']")],
)
def test_a_field_that_is_unknown_or_lost_is_named(change: dict[str, object], differing: str) -> None:
    fields = {k: v for k, v in (named("deit").to_dict() | change).items() if v is not None}
    with pytest.raises(ValueError, match=r"recipe: expected the fields \[") as error:
        Recipe.from_dict(fields)
    assert str(error.value).endswith(f"found others: {differing}")


@pytest.mark.parametrize(
    ("assignment", "message"),
    [
        ("hflip=2", "recipe field hflip: expected 0 to 1, found 2.0"),
        ("hflip=x", "recipe field hflip: expected float, found 'x'"),
        ("crop_scale=0.5", "recipe field crop_scale: expected two numbers such as 0.5,1, found '0.5'"),
        ("crop_scale=1,0.5", "recipe field crop_scale: expected 0.001 to 1, the smaller first, found"),
        ("crop=center", "recipe field crop: expected one of resized, simple, padded, centre, found 'center'"),
        ("color_jitter=1.5", "recipe field color_jitter: expected 0 to 1, found 1.5"),
        ("three_augment=yes", "recipe field three_augment: expected bool, found 'yes'"),
        ("flip=1", "recipe field: expected a known one, found 'flip=1'; did you mean hflip?"),
        ("blur", "recipe field: expected FIELD=VALUE, found 'blur'"),
        ("size=3", "recipe field: expected one of"),
    ],
)
def test_a_bad_override_is_named(assignment: str, message: str) -> None:
    with pytest.raises(ValueError) as error:
        named("deit", overrides=[assignment])
    assert message in str(error.value)


def test_an_unknown_recipe_is_named() -> None:
    with pytest.raises(ValueError, match=r"expected one of deit, deit3, .*, found 'diet'"):
        named("diet")
