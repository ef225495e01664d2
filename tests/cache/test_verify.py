"""Verification and what stage 2 does about a store, or views, that are not what they were."""

import json
import shutil
from pathlib import Path

import pytest
import zarr

from distillcache.cache.store import Store

from ..conftest import CLASSES, run

BY_VIEW = ("check", "topk_index", "topk_logit", "label")
PROBES = ("probe_views", "probe_logits", "probe_at")
ARRAYS = ("seed", "target", "offset", "nbytes", "key", "samples", *PROBES, *BY_VIEW)


@pytest.fixture
def copy(store: Store, tmp_path: Path) -> Path:
    """A store to be damaged."""
    return Path(shutil.copytree(store.path, tmp_path / "copy.zarr"))


def train(store: Path, shards: str, *more: object) -> tuple[int, str]:
    arguments = (
        "--model",
        "deit_tiny_distilled_patch16_224",
        "--model-kwargs",
        "img_size=32",
        "embed_dim=24",
        "depth=1",
    )
    found = run(
        "train-student", "--shards", shards, "--cache", store, "--out", store.parent / "out", "--batch-size", 8,
        "--epochs", 1, "--device", "cpu", *more, *arguments,
    )  # fmt: skip
    return found.exit_code, found.output


def test_a_store_that_is_right_passes(store: Store, shards: str, teacher_folder: Path) -> None:
    found = run("inspect", "verify", store.path, "--shards", shards, "--teacher", teacher_folder, "--json")
    said = json.loads(found.stdout)
    assert found.exit_code == 0 and said["passed"] and said["missing"] == dict.fromkeys(store.by_view, 0)
    assert said["checked"] == said["labelled"] == 23 * 6 and said["near_ties"] == 0
    part = run("inspect", "verify", store.path, "--shards", shards, "--views", "1:3", "--fraction", 0.5, "--json")
    assert 0 < json.loads(part.stdout)["checked"] < 23 * 2


@pytest.mark.parametrize("name", ["check", "label"])
def test_a_wrong_value_fails_with_its_name(copy: Path, shards: str, teacher_folder: Path, name: str) -> None:
    array = zarr.open_group(copy)[name]
    array[4, 1, 6] = (array[4, 1, 6] + 2) % CLASSES if name == "label" else array[4, 1, 6] ^ 1
    found = run("inspect", "verify", copy, "--shards", shards, "--teacher", teacher_folder)
    line = next(line for line in found.stdout.splitlines() if line.startswith(name))
    assert found.exit_code == 1
    assert "138 views, 1 not as stored: shard train-1.tar, key photo106, view 4" in line


def test_drifted_views_are_refused_unless_allowed(copy: Path, shards: str) -> None:
    probes = zarr.open_group(copy)["probe_views"]
    probes[2] = probes[2] ^ 1
    drifted = "1 of 8 probe views differ, in 12.50% of the bytes by at most 1 of 255 levels"
    assert run("inspect", "verify", copy, "--shards", shards).exit_code == 1
    code, said = train(copy, shards)
    assert code == 1 and drifted in said and "train with --allow-drift" in said
    code, said = train(copy, shards, "--allow-drift")
    assert code == 0 and drifted in said
    assert json.loads((copy.parent / "out" / "config.json").read_text())["config"]["allow_drift"] is True


@pytest.mark.parametrize("damage", ["none", "one that can't be decompressed"])
@pytest.mark.parametrize("name", ARRAYS)
def test_every_damaged_chunk_is_named(copy: Path, shards: str, teacher_folder: Path, name: str, damage: str) -> None:
    """A lost label chunk is a unit to do again; of any other array, and flipped bits, verify and training say so."""
    chunk = next(path for path in sorted((copy / name / "c").rglob("*")) if path.is_file())
    data = bytearray(chunk.read_bytes())
    data[len(data) // 2] ^= 4
    chunk.unlink() if damage == "none" else chunk.write_bytes(data)
    if (name, damage) == ("label", "none"):
        code, said = train(copy, shards)
        assert code == 2 and "expected labels for view 0 of shard train-0.tar, found none; run cache-teacher" in said
        return
    found = run("inspect", "verify", copy, "--shards", shards)
    assert found.exit_code == (1 if name in BY_VIEW else 2)
    assert f"chunk {chunk.relative_to(copy)}, found {damage}" in found.output, found.output
    code, said = train(copy, shards, "--distill", "soft")
    assert (code == 2 and f"chunk {chunk.relative_to(copy)}, found {damage}" in said) or name in ("key", "probe_logits")
    if name in BY_VIEW:  # what it says to do mends it
        Path(said.partition("remove ")[2].partition(" and run")[0]).unlink()
        mended = run(
            "cache-teacher", "--shards", shards, "--cache", copy, "--teacher", teacher_folder, "--device", "cpu"
        )
        assert mended.exit_code == 0 and run("inspect", "verify", copy, "--shards", shards).exit_code == 0


@pytest.mark.parametrize("fraction", [0, "nan"])
def test_to_verify_nothing_is_no_success(store: Store, shards: str, fraction: object) -> None:
    found = run("inspect", "verify", store.path, "--shards", shards, "--fraction", fraction)
    assert found.exit_code == 2 and "expected some of the cached views, found none" in found.stderr


def test_of_a_small_store_the_smallest_share_is_a_group(store: Store, shards: str) -> None:
    found = run("inspect", "verify", store.path, "--shards", shards, "--fraction", 1e-9, "--json")
    assert found.exit_code == 0 and 0 < json.loads(found.stdout)["checked"] < 100, found.output
