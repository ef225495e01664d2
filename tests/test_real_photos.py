"""Both stages on real ImageNet photos with a real ImageNet teacher, where they are at hand."""

import csv
import json
from pathlib import Path

import pytest
from PIL import Image

from distillcache.cache.store import Store

from .conftest import run


@pytest.fixture(scope="module")
def photos_store(shared_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """80 ImageNet photos, recipe deit at 224 pixels, 3 views, labelled by a pretrained MobileNetV2."""
    cache = tmp_path_factory.mktemp("photos") / "c.zarr"
    teacher = f"local-dir:{shared_data}/teachers/mobilenetv2_100.imagenet1k"
    arguments = ("--shards", f"{shared_data}/imagenet-sample/train-{{000000..000001}}.tar", "--cache", cache)
    arguments += ("--teacher", teacher, "--views", 3, "--batch-size", 64, "--workers", 2, "--device", "cpu")
    found = run("cache-teacher", *arguments, "--val-shards", f"{shared_data}/imagenet-val/val-*.tar")
    assert found.exit_code == 0, found.output
    return cache


def test_the_teacher_is_as_good_as_it_is_known_to_be(photos_store: Path) -> None:
    facts = json.loads(run("inspect", "info", photos_store, "--json").output)
    assert abs(facts["teacher_top1"] - 76.9) < 1.5  # timm's own transform gives 76.9% on these 260 photos
    assert (facts["labels"], facts["labels_missing"]) == (80 * 3, 0)


def test_views_are_shown_with_the_names_of_their_classes(photos_store: Path, shared_data: Path, tmp_path: Path) -> None:
    shards = f"{shared_data}/imagenet-sample/train-{{000000..000001}}.tar"
    key = f"train-000000.tar/{Store(photos_store).keys(0)[0]}"
    assert "target 918 crossword puzzle" in run("inspect", "label", photos_store, key).output
    assert run("inspect", "show", photos_store, key, "--shards", shards, "--out", tmp_path / "g.png").exit_code == 0
    assert Image.open(tmp_path / "g.png").width == 4 * 232 + 8


def test_deit_tiny_trains_from_the_store(photos_store: Path, shared_data: Path, tmp_path: Path) -> None:
    """Two epochs of DeiT-Ti at 224 pixels: every view is checked, and the loss is finite and falls."""
    arguments = (
        "--shards",
        f"{shared_data}/imagenet-sample/train-{{000000..000001}}.tar",
        "--cache",
        photos_store,
        "--out",
        tmp_path,
    )
    arguments += (
        "--epochs",
        2,
        "--batch-size",
        32,
        "--lr",
        5e-3,
        "--warmup-epochs",
        0,
        "--workers",
        2,
        "--device",
        "cpu",
    )
    found = run("train-student", *arguments)
    assert found.exit_code == 0, found.output
    losses = [float(row["loss"]) for row in csv.DictReader((tmp_path / "metrics.csv").open())]
    assert len(losses) == 2 and losses[1] < losses[0] < 8
