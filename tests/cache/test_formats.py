"""Stores of older formats, kept for ever: each must open, verify and train.

Each was made once, by `python tests/cache/test_formats.py` while its format was the one that is written, of the photos
that lie beside the first or, where groups are of four, of as many as make a group for each epoch of a cycle; none is to
be made again.
"""

import json
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from distillcache.cache.create import Request
from distillcache.cache.manifest import FORMAT
from distillcache.cache.store import Store

HERE = Path(__file__).parent
FEW, MORE = HERE / "format1" / "photos-0.tar", HERE / "format3" / "photos-3.tar"
SHARDS = {1: (FEW, 7), 2: (FEW, 7), 3: (MORE, 13)}
"""The shard of each store, and how many photos it has."""
OLD = {number: HERE / f"format{number}" / "store.zarr" for number in SHARDS}


@pytest.mark.parametrize("number", OLD)
def test_it_opens(number: int) -> None:
    assert json.loads((OLD[number] / "zarr.json").read_text())["attributes"]["format"] == number
    store = Store(OLD[number])
    assert store.views == 6 and store.keys(0) == [f"photo{i}" for i in range(SHARDS[number][1])]
    assert store.by_view == ["check", "topk_index", "topk_logit", "label"]
    labels = store.read(range(6), 0)
    assert labels.label.max() < 5 and np.array_equal(labels.label, labels.topk_index[..., 0])


@pytest.mark.parametrize(("number", "overrides"), [(1, []), (2, ["crop=padded"])])
def test_its_recipe_by_name_is_as_it_was_then(number: int, overrides: list[str]) -> None:
    store = Store(OLD[number])
    again = Request.resolve(store, recipe=store.manifest.recipe.name, overrides=overrides)
    assert again.recipe == store.manifest.recipe and again.recipe.group == 2
    centre = replace(store.manifest.recipe, crop="centre")  # of version 1, which no new recipe has
    store.manifest = replace(store.manifest, recipe=centre)
    assert Request.resolve(store, recipe="deit", overrides=["crop=centre"]).recipe == centre


@pytest.mark.parametrize("number", OLD)
def test_it_verifies_and_trains(number: int, tmp_path: Path) -> None:
    from ..conftest import run

    shard, photos = SHARDS[number]
    found = run("inspect", "verify", OLD[number], "--shards", shard)
    assert found.exit_code == 0, found.output
    assert f"{min(8, photos)} of {min(8, photos)} probe views are the same bytes" in found.stdout
    assert f"{6 * photos} views, all as stored" in found.stdout
    found = run(
        "train-student", "--shards", shard, "--cache", OLD[number], "--out", tmp_path / "out", "--epochs", 6,
        "--device", "cpu", "--batch-size", 6, "--warmup-epochs", 1, "--distill", "soft", "--model-kwargs",
        "img_size=32", "embed_dim=24", "depth=1",
    )  # fmt: skip
    assert found.exit_code == 0, found.output


def make(path: Path) -> None:
    import tempfile

    import timm
    import torch

    from distillcache.cache import create, fill
    from distillcache.cache.claims import claims_on
    from distillcache.datasets.shards.index import index_shards
    from distillcache.models.loading import load_teacher
    from distillcache.models.teachers import save_teacher

    path.parent.mkdir()
    torch.manual_seed(0)
    with tempfile.TemporaryDirectory() as folder:
        model = timm.create_model("test_efficientnet", num_classes=5)
        save_teacher(
            model, Path(folder), name="test_efficientnet", size=32, class_names=[f"class {c}" for c in range(5)]
        )
        teacher = load_teacher(folder, device=torch.device("cpu"), amp=False)
    request = create.Request.resolve(overrides=["crop=padded"], image_size=32, seed=1, topk=2, views=6)
    store = create.create(path, request, index_shards([str(MORE)]), teacher)
    with claims_on(path) as claims:
        fill.fill(store, store.samples([str(MORE)]), teacher, claims, views=6, batch_size=8, workers=0)


if __name__ == "__main__":
    new = HERE / f"format{FORMAT}" / "store.zarr"
    make(new) if not new.exists() else sys.exit(f"{new} is there and stays")
