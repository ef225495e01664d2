"""Ops and recipes of a user's own: in a store by the digest of their source, in every process that renders."""

import sys
import zlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

import distillcache as dc
from distillcache.datasets.augment import own, recipes
from distillcache.datasets.augment.plans import plan_view
from distillcache.datasets.augment.recipes import Recipe, named
from distillcache.runtime.own_code import import_own

from ..conftest import SIZE, run

VIGNETTE = """
import numpy as np
import distillcache as dc

def draw(draws, size):
    strength = round(draws.uniform(0.25, 0.75) * 256) / 256  # a binary fraction: the same bytes on every CPU
    return strength if draws.chance(0.5) else None

def apply(image, strength):
    size = len(image)
    away = np.abs(np.arange(size) * 2 - size + 1)  # from the middle, in half pixels
    shade = 256 - (np.maximum.outer(away, away) * int(strength * 256)) // size
    return (image.astype(np.int64) * shade[:, :, None] // 256).astype(np.uint8)

dc.register_op("Vignette", draw=draw, apply=apply)
dc.register_recipe("framed", base="deit", overrides=["own_ops=Vignette", "hflip=0"])
"""


@pytest.fixture
def mine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """The name of a module of one's own in the working directory, imported nowhere."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    (tmp_path / "my_ops.py").write_text(VIGNETTE)
    yield "my_ops"
    sys.modules.pop("my_ops", None)
    own._REGISTERED.pop("Vignette", None)
    recipes._RECIPES.pop("framed", None)


def test_an_op_of_ones_own_is_cached_and_replayed_by_every_process(
    mine: str, shards: str, teacher_folder: Path, tmp_path: Path
) -> None:
    options = ["--shards", shards, "--cache", tmp_path / "c.zarr", "--workers", 2, "--device", "cpu"]
    stage1 = ["cache-teacher", *options, "--teacher", teacher_folder, "--image-size", SIZE, "--views", 6]
    made = run("--import", mine, *stage1, "--recipe", "framed")
    assert made.exit_code == 0, made.stderr
    recipe = dc.open_store(tmp_path / "c.zarr").manifest.recipe
    assert recipe.own_ops[0].startswith("Vignette:") and recipe.hflip == 0 and recipe.name == "framed"
    drawn = [plan_view(recipe, 7, view, 50, 60).ops[-1:] for view in range(40)]
    assert 5 < sum(bool(ops) and ops[0].name == "Vignette" for ops in drawn) < 35
    train = ["train-student", *options, "--epochs", 1, "--batch-size", 8, "--warmup-epochs", 0, "--out"]
    small = ["--model-kwargs", f"img_size={SIZE}", "embed_dim=24", "depth=1"]
    trained = run("--import", mine, *train, tmp_path / "a", *small)
    assert trained.exit_code == 0, trained.stderr
    own._REGISTERED.clear()
    without = run(*train, tmp_path / "b", *small)
    assert without.exit_code == 2
    assert "op Vignette: expected one that is registered, found none; import the module that does" in without.stderr
    (tmp_path / "my_ops.py").write_text(VIGNETTE.replace("0.75", "0.5"))
    sys.modules.pop(mine)
    recipes._RECIPES.pop("framed")
    other = run("--import", mine, *train, tmp_path / "b", *small)
    assert other.exit_code == 2 and "op Vignette: expected the source that the store was made with" in other.stderr


def test_a_golden_vector_of_ones_own(mine: str) -> None:
    import_own(mine)
    image = np.add.outer(np.arange(32) * 5, np.arange(32) * 3)[:, :, None].repeat(3, 2).astype(np.uint8)
    assert zlib.crc32(own.apply_own(image, "Vignette", 0.5).tobytes()) == 2162689177


def test_what_can_not_be_an_op_is_said_in_a_line(mine: str, monkeypatch: pytest.MonkeyPatch) -> None:
    import_own(mine)
    module = sys.modules[mine]
    with pytest.raises(ValueError, match="op Rotate: expected letters, digits and _, and another name than our own"):
        dc.register_op("Rotate", draw=module.draw, apply=module.apply)
    with pytest.raises(ValueError, match=r"op Mine: expected functions of a module, found .*<lambda>"):
        dc.register_op("Mine", draw=module.draw, apply=lambda image, value: image)
    with pytest.raises(ValueError, match="recipe deit: expected letters, digits and _, and another name"):
        dc.register_recipe("deit")
    with pytest.raises(ValueError, match="op Vignete: expected one that is registered, found none; did you mean Vig"):
        named("deit", overrides=["own_ops=Vignete"])
    op = own.own_ops(named("framed").own_ops)[0]
    own.keep([own.OwnOp(name=op.name, draw=op.draw, apply=lambda image, value: image[1:], digest=op.digest)])
    with pytest.raises(ValueError, match=r"op Vignette: expected an image \(32, 32, 3\) of uint8, found \(31, 32, 3\)"):
        own.apply_own(np.zeros((32, 32, 3), np.uint8), "Vignette", 0.5)
    assert named("deit", overrides=["own_ops="]) == named("deit")


def test_recipes_without_own_ops_are_what_they_were() -> None:
    fields = named("deit").to_dict()
    assert fields.pop("own_ops") == []
    assert (
        Recipe.from_dict(fields) == named("deit") and Recipe.from_dict(fields).fingerprint == named("deit").fingerprint
    )
