"""Checkpoints of older formats, kept for ever: a run goes on from each. They were stopped in epoch 5, step 3."""

import shutil
from pathlib import Path

import pytest
import torch

from ..conftest import run

HERE = Path(__file__).parent
DATA = HERE.parent / "cache" / "format1"


@pytest.mark.parametrize(("written", "more"), [(1, ()), (2, ("--weight-decay", 0.5, "--lr", 1))])
def test_a_run_goes_on_from_it(written: int, more: tuple[object, ...], tmp_path: Path) -> None:
    shutil.copytree(HERE / f"format{written}", tmp_path / "out")
    assert torch.load(tmp_path / "out" / "last.pt")["format"] == written
    done = run(
        "train-student", "--shards", DATA / "photos-0.tar", "--cache", DATA / "store.zarr", "--out", tmp_path / "out",
        "--epochs", 6, "--device", "cpu", "--batch-size", 2, "--warmup-epochs", 1, *more,
        "--model-kwargs", "img_size=32", "embed_dim=12", "depth=1", "num_heads=2",
    )  # fmt: skip
    assert done.exit_code == 0, done.output
    rows = (tmp_path / "out" / "metrics.csv").read_text().splitlines()
    assert len(rows) == 7 and "nan" not in rows[-1]
    last = torch.load(tmp_path / "out" / "last.pt")
    assert last["format"] == 4 and "dist_token" in last["undecayed"]  # as before, though new runs do decay it
    if written == 2:  # what the program that wrote it came to
        ended = torch.load(HERE / "format2" / "ended.pt")
        assert all(torch.allclose(last["model"][name], weight, atol=1e-5) for name, weight in ended.items())


def test_a_run_in_a_window_of_shards_goes_on_in_its_own_order(tmp_path: Path) -> None:
    """Its epochs had some groups of each shard; those of a new run have all groups of some."""
    ours = HERE / "format3"
    command = [
        "train-student", "--shards", ours / "photos-{0..3}.tar", "--recipe", "deit", "--image-size", 32,
        "--epochs", 6, "--device", "cpu", "--batch-size", 2, "--warmup-epochs", 1, "--window", 1, "--lr", 1,
        "--weight-decay", 0.5, "--model-kwargs", "img_size=32", "embed_dim=12", "depth=1", "num_heads=2",
    ]  # fmt: skip
    (tmp_path / "old").mkdir()
    shutil.copy(ours / "last.pt", tmp_path / "old")
    assert torch.load(ours / "last.pt")["format"] == 3
    ended = torch.load(ours / "ended.pt")
    for name, same in (("old", True), ("new", False)):
        done = run(*command, "--out", tmp_path / name)
        assert done.exit_code == 0, done.output
        last = torch.load(tmp_path / name / "last.pt")
        assert last["by_group"] is same
        # At this learning rate another CPU's rounding grows to 1e-5; another order makes differences of 4e-2.
        assert all(torch.allclose(last["model"][key], weight, atol=1e-4) for key, weight in ended.items()) is same
