"""Publishing: a store without a pixel, and a card, that whoever has the images can use as they are."""

import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest
import zarr
from huggingface_hub import DatasetCard
from PIL import Image
from safetensors.torch import load_file

from distillcache.cache.store import Store
from distillcache.datasets.shards.files import expand
from distillcache.models.teachers import Teacher

from ..conftest import cached, run
from ..hub import Hub
from ..servers import Server
from .test_copies import MODEL, SMALL, pack_as, photos_of


@pytest.fixture(scope="module")
def published(store: Store, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("public") / "published"
    done = run("publish", store.path, folder, "--license", "apache-2.0")
    assert done.exit_code == 0, done.output
    return folder


def test_no_image_bytes_leave(store: Store, published: Path, shards: str) -> None:
    with zipfile.ZipFile(published / "store.zarr.zip") as archive:
        names = archive.namelist()
    assert not any("probe_views" in name for name in names)
    group = zarr.open_group(zarr.storage.ZipStore(published / "store.zarr.zip"), mode="r")
    held = b"".join(np.asarray(array[...]).tobytes() for name, array in group.arrays() if name != "key")
    held += b"".join(path.read_bytes() for path in published.iterdir())
    probes = store.probes()
    assert probes.views is not None
    rows = [row.tobytes() for view in probes.views for row in view]
    pieces = [photo[at : at + 16] for photo in photos_of(shards) for at in range(64, len(photo) - 16, 97)]
    assert len(rows) > 100 and len(pieces) > 1000
    assert not any(row in held for row in rows) and not any(piece in held for piece in pieces)
    assert rows[5] in np.asarray(zarr.open_group(store.path, mode="r")["probe_views"]).tobytes()  # they would be found


def test_a_published_store_trains_and_verifies_as_it_is(
    store: Store, published: Path, shards: str, tmp_path: Path
) -> None:
    copy = pack_as("folder", tmp_path / "copy", photos_of(shards))
    wanted = None
    with Server(published.parent) as server:
        for cache in (store.path, published, f"{server.url}/published"):
            out = tmp_path / f"out-{len(str(cache))}"
            more = ["--mirror", tmp_path / "mirror"]
            done = run("train-student", "--shards", copy, "--cache", cache, "--out", out, *SMALL, *more, *MODEL)
            assert done.exit_code == 0, done.output
            weights = load_file(out / "student.safetensors")
            wanted = wanted or weights
            assert all(np.array_equal(value, weights[name]) for name, value in wanted.items())
            shutil.rmtree(out)
    verified = run("inspect", "verify", published, "--shards", copy)
    assert verified.exit_code == 0 and "8 of 8 probe views are the same bytes" in verified.stdout, verified.output
    assert run("inspect", "info", published).exit_code == 0


def test_the_card_says_what_the_store_is(store: Store, published: Path, teacher_folder: Path) -> None:
    card = DatasetCard.load(published / "README.md")
    assert card.data.license == "apache-2.0" and card.data.size_categories == ["n<1K"]
    text = card.text
    for said in (
        f"SHA-256 {store.manifest.teacher.sha256}", "23 in 2 shards", "6 of each image, 138 labels", "2 largest logits",
        store.manifest.recipe.fingerprint, "--cache THIS_FOLDER --shards MY_IMAGES", "![Agreement",
    ):  # fmt: skip
        assert said in text, said
    assert str(teacher_folder) not in text + str(Store(published / "store.zarr.zip").manifest)
    assert Image.open(published / "agreement.png").width > 800
    assert (published / "SHA256SUMS").read_text().endswith("  store.zarr.zip\n")


def test_drift_is_seen_without_pixels(published: Path, shards: str, monkeypatch: pytest.MonkeyPatch) -> None:
    from distillcache.datasets.augment import ops

    original = ops.OPS["AutoContrast"]
    for name in ops.OPS:
        monkeypatch.setitem(ops.OPS, name, lambda image, value: original(image, value) ^ 1)
    found = run("inspect", "verify", published, "--shards", shards)
    assert found.exit_code == 1 and "probe views differ" in found.stdout and "levels" not in found.stdout


def test_published_stores_are_merged(store: Store, shards: str, teacher: Teacher, tmp_path: Path) -> None:
    parts = [cached(tmp_path / f"{n}.zarr", [url], teacher, views=3) for n, url in enumerate(expand(shards))]
    assert run("publish", parts[0].path, tmp_path / "first").exit_code == 0
    done = run("inspect", "merge", tmp_path / "all.zarr", tmp_path / "first", parts[1].path)
    assert done.exit_code == 0, done.output
    verified = run("inspect", "verify", tmp_path / "all.zarr", "--shards", shards)
    assert verified.exit_code == 0 and "69 views, all as stored" in verified.stdout, verified.output
    assert Store(tmp_path / "all.zarr").probes().views is None
    again = run("publish", parts[0].path, tmp_path / "first")
    assert again.exit_code == 2 and "expected a place where nothing was published yet" in again.stderr


def test_the_hub_gets_a_store_and_gives_it_back(store: Store, shards: str, tmp_path: Path) -> None:
    """With the Hub's own client, against a server on this machine that speaks its protocol."""
    place, copy = "hf://datasets/me/labels", pack_as("folder", tmp_path / "copy", photos_of(shards))
    with Hub() as hub:
        own = {"HF_ENDPOINT": hub.url, "HF_TOKEN": "hf_secret", "HF_HUB_DISABLE_XET": "1", "HF_HOME": str(tmp_path)}

        def command(*arguments: object) -> subprocess.CompletedProcess[str]:
            line = [sys.executable, "-m", "distillcache.cli", *map(str, arguments)]
            return subprocess.run(line, env={**os.environ, **own}, capture_output=True, text=True, check=False)

        done = command("publish", store.path, place)
        assert done.returncode == 0, done.stderr
        assert {"README.md", "SHA256SUMS", "agreement.png", "store.zarr.zip"} <= hub.files["me/labels"].keys()
        verified = command("inspect", "verify", place, "--shards", copy, "--mirror", tmp_path / "mirror")
        assert verified.returncode == 0 and "138 views, all as stored" in verified.stdout, verified.stderr
        hub.refuses = True
        refused = command("publish", store.path, place)
        assert refused.returncode == 2 and len(refused.stderr.splitlines()) == 1, refused.stderr
        assert "expected a data set that can be written" in refused.stderr and "secret" not in refused.stderr
        nothing = command("inspect", "info", "hf://datasets/me/nothing", "--mirror", tmp_path / "mirror")
        assert nothing.returncode == 2 and len(nothing.stderr.splitlines()) == 1, nothing.stderr
