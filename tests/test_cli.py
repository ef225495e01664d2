"""The command line as a user meets it: help, one-line errors, looking into a store."""

import json
from pathlib import Path

import click
import pytest
import xarray
import zarr
from PIL import Image

from distillcache.cache.store import Store
from distillcache.cli import main

from .conftest import CLASSES, run


def commands(group: click.Group = main, name: str = "distillcache") -> dict[str, click.Command]:
    found: dict[str, click.Command] = {}
    for command in group.commands.values():
        path = f"{name} {command.name}"
        found |= commands(command, path) if isinstance(command, click.Group) else {path: command}
    return found


@pytest.mark.parametrize("path", commands())
def test_every_command_has_help_an_example_and_documented_options(path: str) -> None:
    command = commands()[path]
    text = run(*path.split()[1:], "--help").output
    assert command.help and "Example: distillcache" in text
    undocumented = [p.name for p in command.params if isinstance(p, click.Option) and not (p.help or p.show_default)]
    assert not undocumented


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["inspect", "info", "nowhere.zarr"], "nowhere.zarr: expected a store, found none; run cache-teacher first"),
        (["inspect", "label", "{store}", "nobody"], "has no sample 'nobody', but such as photo000, "),
        (
            ["train-student", "--shards", "nowhere-*.tar", "--cache", "{store}", "--out", "o"],
            "nothing found at nowhere",
        ),
        (["train-student", "--shards", "{shards}", "--cache", "{store}", "--out", "o", "--device", "abacus"], "device"),
        (["train-student", "--shards", "{shards}", "--cache", "{store}", "--out", "o", "--model", "vgg"], "model vgg"),
        (["train-student", "--shards", "{shards}", "--cache", "{store}", "--out", "o"], "--model-kwargs img_size=32"),
        (["train-student", "--shards", "{shards}", "--cache", "{store}", "--out", "o", "--lr", "-1"], "lr: expected 0"),
        (["train-student", "--shards", "{shards}", "--cache", "{store}"], "Missing option '--out'"),
        (["cache-teacher", "--shards", "{shards}", "--cache", "c", "--teacher", "vgg"], "teacher vgg: expected a timm"),
        (
            ["cache-teacher", "--shards", "{shards}", "--cache", "c", "--teacher", "x", "--recipe", "y"],
            "recipe: expected",
        ),
        (
            ["train-student", "--shards", "a.tar", "b.tar", "--cache", "{store}", "--out", "o"],
            "found 'b.tar'; is a pattern",
        ),
        (
            ["compare", "run", "b.tar", "--shards", "a.tar"],
            "expected checkpoints, found b.tar; quote a pattern of shards",
        ),
        (["make-shards", "nowhere", "o"], "expected `digits` or a folder of class folders, found none at nowhere"),
    ],
)
def test_bad_input_is_one_line_and_exit_code_2(
    arguments: list[str], message: str, store: Store, shards: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    found = run(*(a.format(store=store.path, shards=shards) for a in arguments), "--workers", 0)
    if arguments[0] in ("inspect", "make-shards"):
        found = run(*(a.format(store=store.path, shards=shards) for a in arguments))
    errors = [line for line in found.stderr.splitlines() if line.startswith("distillcache: ")]
    assert found.exit_code == 2 and len(errors) == 1 and message in errors[0], found.output
    assert "Traceback" not in found.output


def test_a_newer_format_and_another_programs_zarr_are_refused(tmp_path: Path, store: Store) -> None:
    zarr.create_group(tmp_path / "other.zarr", zarr_format=3)
    assert "found another program's Zarr group" in run("inspect", "info", tmp_path / "other.zarr").output
    attributes = {**store.manifest.to_dict(), "format": 2}
    zarr.create_group(tmp_path / "newer.zarr", zarr_format=3, attributes=attributes)
    found = run("inspect", "info", tmp_path / "newer.zarr")
    assert found.exit_code == 2 and "expected format 1 or older, found 2; install a newer distillcache" in found.output


def test_info_counts_labels_and_bytes(store: Store) -> None:
    facts = json.loads(run("inspect", "info", store.path, "--json").output)
    assert (facts["samples"], facts["views"], facts["labels"], facts["labels_missing"]) == (23, 6, 138, 0)
    files = [f for f in store.path.rglob("*") if f.is_file() and f.parent != store.path]
    assert facts["bytes"] == sum(f.stat().st_size for f in files)
    assert facts["teacher"]["sha256"] == store.manifest.teacher.sha256 and facts["recipe"]["name"] == "deit"
    text = run("inspect", "info", store.path).output
    assert "23 samples" in text and "6 a sample" in text


def test_label_prints_each_view_with_partner_and_mix(store: Store) -> None:
    found = json.loads(run("inspect", "label", store.path, "photo104", "--json").output)
    labels = store.read(range(6), 1)
    assert [view["label"] for view in found["views"]] == labels.label[:, 4].tolist()
    assert [view["check"] for view in found["views"]] == labels.check[:, 4].tolist()
    assert found["target"] == (5 + 4) % CLASSES and found["target_name"] == f"class {found['target']}"
    for view in found["views"]:
        if view["partner"]:
            other = json.loads(run("inspect", "label", store.path, view["partner"], "--json").output)
            assert other["views"][view["view"]]["partner"] == "photo104"
            assert other["views"][view["view"]]["lam"] == view["lam"]
        assert len(view["topk"]) == 2 and view["topk"][0][0] == view["label"]
    text = run("inspect", "label", store.path, "train-1.tar/photo104").output
    assert "photo104 in train-1.tar" in text and len(text.splitlines()) == 3 + 2 * 6


def test_show_draws_the_views_that_the_teacher_saw(store: Store, shards: str, tmp_path: Path) -> None:
    out = tmp_path / "grid.png"
    found = run("inspect", "show", store.path, "photo003", "photo101", "--shards", shards, "--out", out, "--views", 4)
    assert found.exit_code == 0, found.output
    grid = Image.open(out)
    assert grid.width > 5 * 96 and len(grid.getcolors(1 << 20) or []) > 1000


def test_the_store_opens_in_xarray_and_plain_zarr(store: Store) -> None:
    dataset = xarray.open_zarr(store.path, consolidated=False)
    assert dict(dataset.label.sizes) == {"view": 6, "shard": 2, "sample": 12} and dataset.label.dtype == "uint16"
    agreement = (dataset.label == dataset.target).where(dataset.label != 65535).mean().item()
    real = dataset.key.values != ""
    assert agreement == pytest.approx((dataset.label.values == dataset.target.values)[:, real].mean())
    group = zarr.open_group(store.path, mode="r")
    assert group["label"].metadata.dimension_names == ("view", "shard", "sample")
    assert group["label"][:, 0, 3].tolist() == dataset.label[:, 0, 3].values.tolist()
