"""A store of format 1, kept for ever: it must open, verify and train.

Made once, by `python tests/cache/test_format1.py`; it is not to be made again.
"""

import sys
from pathlib import Path

import numpy as np

from distillcache.cache.store import Store

HERE = Path(__file__).with_name("format1")
SHARDS, STORE = HERE / "photos-0.tar", HERE / "store.zarr"


def test_it_opens() -> None:
    store = Store(STORE)
    assert store.views == 6 and store.keys(0) == [f"photo{i}" for i in range(7)]
    assert store.by_view == ["check", "topk_index", "topk_logit", "label"]
    labels = store.read(range(6), 0)
    assert labels.label.max() < 5 and np.array_equal(labels.label, labels.topk_index[..., 0])


def test_it_verifies_and_trains(tmp_path: Path) -> None:
    from ..conftest import run

    found = run("inspect", "verify", STORE, "--shards", SHARDS)
    assert found.exit_code == 0, found.output
    assert "7 of 7 probe views are the same bytes" in found.stdout
    assert "42 views, all as stored" in found.stdout
    found = run(
        "train-student", "--shards", SHARDS, "--cache", STORE, "--out", tmp_path / "out", "--epochs", 6, "--device",
        "cpu", "--batch-size", 6, "--warmup-epochs", 1, "--distill", "soft", "--model-kwargs", "img_size=32",
        "embed_dim=24", "depth=1",
    )  # fmt: skip
    assert found.exit_code == 0, found.output


def make() -> None:
    import io
    import tempfile

    import timm
    import torch
    import webdataset
    from PIL import Image
    from sklearn.datasets import load_sample_images

    from distillcache.cache import create, fill
    from distillcache.cache.claims import Claims
    from distillcache.datasets.shards.index import index_shards
    from distillcache.models.teachers import load_teacher, save_teacher

    HERE.mkdir()
    with webdataset.TarWriter(str(SHARDS), mtime=0.0) as tar:
        for i in range(7):
            buffer = io.BytesIO()
            photo = Image.fromarray(load_sample_images().images[i % 2]).crop((60 * i, 40, 60 * i + 160, 160 + 8 * i))
            photo.resize((72, 54 + 3 * i)).save(buffer, "JPEG", quality=85)
            tar.write({"__key__": f"photo{i}", "jpg": buffer.getvalue(), "cls": i % 5})
    torch.manual_seed(0)
    with tempfile.TemporaryDirectory() as folder:
        model = timm.create_model("test_efficientnet", num_classes=5)
        save_teacher(
            model, Path(folder), name="test_efficientnet", size=32, class_names=[f"class {c}" for c in range(5)]
        )
        teacher = load_teacher(folder, device=torch.device("cpu"), amp=False)
    request = create.Request.resolve(image_size=32, seed=1, topk=2, views=6)
    store = create.create(STORE, request, index_shards([str(SHARDS)]), teacher)
    with Claims(STORE) as claims:
        fill.fill(store, store.samples([str(SHARDS)]), teacher, claims, views=6, batch_size=8, workers=0)


if __name__ == "__main__":
    make() if not HERE.exists() else sys.exit(f"{HERE} is there and stays")
