"""The additions that CONTRIBUTING.md shows: each applies to the code as it is, and works."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from distillcache.cache.store import Store

from .conftest import CLASSES, SIZE

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "CONTRIBUTING.md").read_text()
DIFFS = dict(re.findall(r"\n\*\*(.+?)\.\*\*.*?```diff\n(.*?)```", PAGE, re.DOTALL))
WORKS = {
    "A recipe op": """
from distillcache.datasets.augment.plans import plan_view
from distillcache.datasets.augment.recipes import named
plain, flipped = (plan_view(named("deit", overrides=more), 7, 0, 60, 80) for more in ([], ["vflip=1"]))
assert flipped.ops == (*plain.ops, type(flipped.ops[-1])(name="FlipVertical", value=0)), flipped
import dataclasses, numpy as np
from distillcache.datasets.augment.pixels import render
image = np.arange(60 * 80 * 3, dtype=np.uint8).reshape(60, 80, 3)
one, other = (render(dataclasses.replace(plan, erase=None), image) for plan in (plain, flipped))
assert np.array_equal(one[::-1], other)
""",
    "An array of the store": """
import numpy as np, zarr
from distillcache.cache.store import Store
from pathlib import Path
cache("store.zarr")
group = zarr.open_group("store.zarr", mode="r")
assert group.attrs["format"] == 5 and group["confidence"].dtype == np.float16
kept = group["confidence"][:, 0, :12]
assert kept.shape == (6, 12) and (kept > 1 / CLASSES).all() and (kept <= 1).all()
assert Store(Path(OLD)).views == 6
""",
    "A student family": """
from distillcache.models.students import build_student
student = build_student("deit_nano_distilled_patch16_224", classes=CLASSES, seed=0, img_size=SIZE)
assert student.heads == ("class", "distill") and student.model.embed_dim == 96
""",
    "An inspect command": """
from click.testing import CliRunner
from distillcache.cli import main
said = CliRunner().invoke(main, ["inspect", "shards", STORE])
assert said.exit_code == 0 and "train-0.tar" in said.output and "12" in said.output, said.output
""",
    "A storage backend": """
import tarfile
import numpy as np
from pathlib import Path
from distillcache.cache.store import Store
with tarfile.open("store.tar", "w") as packed:
    for file in Path(STORE).iterdir():
        packed.add(file, file.name)
folder, packed = Store(Path(STORE)), Store(Path("store.tar"))
assert np.array_equal(folder.cycle(1).label, packed.cycle(1).label)
assert packed.chunks.nbytes() == folder.chunks.nbytes()
from click.testing import CliRunner
from distillcache.cli import main
info = CliRunner().invoke(main, ["inspect", "info", "store.tar"])
assert info.exit_code == 0 and "12" in info.output, info.output
""",
}
BEFORE = """
import sys
import distillcache
assert "additions" in distillcache.__file__, distillcache.__file__
STORE, SHARDS, TEACHER, OLD, CLASSES, SIZE = *sys.argv[1:5], *map(int, sys.argv[5:])

def cache(path):
    from click.testing import CliRunner
    from distillcache.cli import main
    said = CliRunner().invoke(main, [
        "cache-teacher", "--shards", SHARDS, "--cache", path, "--teacher", TEACHER, "--image-size", str(SIZE),
        "--views", "6", "--device", "cpu", "--workers", "0",
    ])
    assert said.exit_code == 0, said.output
"""


def test_every_addition_is_shown() -> None:
    assert list(DIFFS) == list(WORKS)


@pytest.mark.parametrize("addition", WORKS)
def test_an_addition_applies_and_works(
    addition: str, store: Store, shards: str, teacher_folder: Path, tmp_path: Path
) -> None:
    package = tmp_path / "additions" / "distillcache"
    skipped = shutil.ignore_patterns("*.zarr", "tests", "bench", "docs", "runs", "site", "build", ".*", "*.egg-info")
    shutil.copytree(ROOT, package, ignore=skipped)
    applied = subprocess.run(["git", "apply", "-"], cwd=package, input=DIFFS[addition], capture_output=True, text=True)
    assert applied.returncode == 0, applied.stderr
    done = subprocess.run(
        [sys.executable, "-c", BEFORE + WORKS[addition], store.path, shards, teacher_folder,
         ROOT / "tests" / "cache" / "format1" / "store.zarr", str(CLASSES), str(SIZE)],
        cwd=tmp_path, env={**os.environ, "PYTHONPATH": str(package.parent)}, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
