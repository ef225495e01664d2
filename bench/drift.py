"""What a library that changes a byte would do to a published store: two kernels altered on purpose.

    python bench/drift.py

Prints for each what share of the views has another check, which is what --allow-drift trains on unchecked, in which
share of the bytes these differ, and by how much; and what train-student says.
"""

import os
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from figures import photo_shards
from stages import new_store, random_teacher

from distillcache.cache.store import Store
from distillcache.datasets.augment import ops, pixels
from distillcache.datasets.order import Rows
from distillcache.datasets.views import Renderer, Views


def one_more_in_a_rotation() -> None:
    """Every rotated pixel whose green is odd is one level brighter."""
    original = ops.OPS["Rotate"]

    def rotate(image: Any, value: float) -> Any:
        turned = original(image, value)
        return np.where((turned[..., 1:2] % 2 == 1) & (turned < 255), turned + 1, turned).astype(np.uint8)

    ops.OPS["Rotate"] = rotate


def resize_that_rounds_otherwise() -> None:
    """Of every resized crop one byte in a hundred is one level off, as another rounding would have it."""
    original = pixels._resize

    def resize(*arguments: Any, **named: Any) -> Any:
        resized = np.array(original(*arguments, **named))
        resized.reshape(-1)[::100] ^= 1
        return resized

    pixels._resize = resize


ALTERED: dict[str, Callable[[], None]] = {
    "Rotate": one_more_in_a_rotation,
    "the resize of every crop": resize_that_rounds_otherwise,
}


def main() -> None:
    urls = photo_shards(Path("runs/bench"))[:2]
    with tempfile.TemporaryDirectory() as folder:
        teacher = random_teacher("regnety_002", Path(folder))
        store = new_store(Path(folder) / "store.zarr", urls, teacher, views=3)
        before = rendered(store, urls)
        for name in ALTERED:
            altered = subprocess.run(
                [sys.executable, __file__, name, store.path, Path(folder) / "altered.npy", *urls],
                env=os.environ | {"XDG_CACHE_HOME": f"{folder}/{name}"},  # what is exact is another matter in each
                capture_output=True, text=True, check=True,
            )  # fmt: skip
            after = np.load(Path(folder) / "altered.npy").astype(np.int16)
            apart = np.abs(after - before.images.numpy())
            differing = apart.reshape(len(apart), -1).any(axis=1)
            share, largest = (apart[differing] > 0).mean(), apart.max()
            views = f"{differing.mean():.1%} of {len(apart):,} views"
            print(f"{name}: {views}, in {share:.2%} of their bytes, by at most {largest} of 255 levels")
            print(altered.stdout)


def rendered(store: Store, urls: list[str]) -> Views:
    order = store.order()
    rows = [order.unit(shard, range(3)) for shard in range(len(urls))]
    columns = {name: np.concatenate([getattr(part, name) for part in rows]) for name in Rows.__slots__}
    return Renderer(store.manifest.recipe, store.samples(urls))(Rows(**columns))


def altered(name: str, path: str, out: str, urls: list[str]) -> None:
    from click.testing import CliRunner

    from distillcache.cli import main as cli

    ALTERED[name]()
    np.save(out, rendered(Store(Path(path)), urls).images.numpy())
    shards = [part for url in urls for part in ("--shards", url)]
    train = ["train-student", "--cache", path, *shards, "--out", f"{path}.out", "--device", "cpu"]
    train += ["--batch-size", "8", "--warmup-epochs", "0", "--model-kwargs", "depth=1"]
    print(CliRunner().invoke(cli, train).output.strip())


if __name__ == "__main__":
    if sys.argv[1:]:
        altered(*sys.argv[1:4], sys.argv[4:])  # type: ignore[arg-type]
    else:
        main()
