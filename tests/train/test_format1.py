"""A checkpoint of format 1, kept for ever: a run goes on from it. It was stopped in epoch 5 of 6, in step 3."""

import shutil
from pathlib import Path

from tests.conftest import run

HERE = Path(__file__).with_name("format1")
DATA = Path(__file__).parents[1] / "cache" / "format1"


def test_a_run_goes_on_from_it(tmp_path: Path) -> None:
    shutil.copytree(HERE, tmp_path / "out")
    done = run(
        "train-student", "--shards", DATA / "photos-0.tar", "--cache", DATA / "store.zarr", "--out", tmp_path / "out",
        "--epochs", 6, "--device", "cpu", "--batch-size", 2, "--warmup-epochs", 1,
        "--model-kwargs", "img_size=32", "embed_dim=12", "depth=1", "num_heads=2",
    )  # fmt: skip
    assert done.exit_code == 0, done.output
    rows = (tmp_path / "out" / "metrics.csv").read_text().splitlines()
    assert len(rows) == 7 and "nan" not in rows[-1]
