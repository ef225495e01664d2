"""What is installed is enough, and nobody's packages are hidden by ours."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from .conftest import SIZE

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in which the wheel is installed, and nothing else."""
    folder = tmp_path_factory.mktemp("wheel")
    skipped = shutil.ignore_patterns("*.zarr", "tests", "bench", "docs", "runs", "site", "build", ".*", "*.egg-info")
    source = shutil.copytree(ROOT, folder / "source", ignore=skipped)  # which pip leaves a folder in
    pip = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check"]
    subprocess.run([*pip, "wheel", "--no-deps", "--wheel-dir", folder, source], check=True)
    [wheel] = folder.glob("distillcache-*.whl")
    subprocess.run([*pip, "install", "--no-deps", "--target", folder / "site", wheel], check=True)
    return folder / "site"


def test_a_wheel_is_enough_for_both_stages_and_the_report(
    site: Path, shards: str, teacher_folder: Path, tmp_path: Path
) -> None:
    small = ["--shards", shards, "--device", "cpu"]
    model = ["--model-kwargs", f"img_size={SIZE}", "embed_dim=24", "depth=1"]
    commands: list[list[object]] = [
        ["cache-teacher", *small, "--cache", "c.zarr", "--teacher", teacher_folder, "--views", 3, "--image-size", SIZE],
        ["inspect", "report", "c.zarr", "--shards", shards, "--out", "report.html"],
        ["train-student", *small, "--cache", "c.zarr", "--out", "run", "--batch-size", 8, "--warmup-epochs", 0, *model],
        ["export-student", "run", "--to", "timm", "--out", "timm"],
    ]
    code = f"""
import distillcache as dc
from click.testing import CliRunner
from distillcache.cli import main
print(dc.__file__, dc.ViewDataset, dc.cache_teacher, dc.register_op)
for command in {[[str(one) for one in command] for command in commands]}:
    done = CliRunner().invoke(main, command)
    assert done.exit_code == 0, done.output
"""
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, env=os.environ | {"PYTHONPATH": str(site)}, capture_output=True,
        text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0 and done.stdout.startswith(str(site)), done.stderr
    assert {"c.zarr", "report.html", "run", "timm"} == {path.name for path in tmp_path.iterdir()}


def test_run_from_the_checkout_the_library_datasets_is_not_hidden_by_ours(tmp_path: Path) -> None:
    (tmp_path / "datasets").mkdir()
    (tmp_path / "datasets" / "__init__.py").touch()
    (tmp_path / "says.py").write_text(
        "import datasets, distillcache.datasets\nprint(datasets.__file__, distillcache.datasets.__file__)\n"
    )
    told = subprocess.check_output(
        [sys.executable, "-m", "distillcache.cli", "--import", "says", "train-student", "--help"],
        cwd=ROOT, env=os.environ | {"PYTHONPATH": str(tmp_path)}, text=True,
    )  # fmt: skip
    theirs, ours = told.splitlines()[0].split()
    assert theirs == str(tmp_path / "datasets" / "__init__.py") and ours == str(ROOT / "datasets" / "__init__.py")
