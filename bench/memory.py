"""Peak memory of both stages at three numbers of views, epochs and shards: none of them may make it grow."""

import io
import json
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from figures import Figure, Skipped, report
from store import peak_memory

SIZES = (1, 4, 16)
SAMPLES, VIEWS = 64, 3


def main() -> Iterator[Figure | Skipped]:
    with tempfile.TemporaryDirectory() as folder:
        make_shards(Path(folder), max(SIZES))
        for what, stage in (("views", "cache"), ("shards", "cache"), ("epochs", "train"), ("shards", "train")):
            found = [in_a_process(folder, stage, what, size) for size in SIZES]
            name = {"cache": "stage 1", "train": "stage 2"}[stage]
            yield Figure(
                what=f"memory of {name} at 16 times the {what}",
                ours=f"{found[-1]:,.0f} MB", theirs=f"{found[0]:,.0f} MB",
                value=found[-1] / found[0], unit="x", target=1.05, at_least=False,
            )  # fmt: skip


def make_shards(folder: Path, shards: int) -> None:
    import webdataset
    from PIL import Image

    rng = np.random.default_rng(0)
    for number in range(shards):
        with webdataset.TarWriter(str(folder / f"train-{number:06d}.tar"), mtime=0.0) as tar:
            for i in range(SAMPLES):
                picture = io.BytesIO()
                Image.fromarray(rng.integers(0, 256, (40, 40, 3), dtype=np.uint8)).save(picture, "PNG")
                tar.write({"__key__": f"{number}-{i}", "png": picture.getvalue(), "cls": i % 10})


def in_a_process(folder: str, stage: str, what: str, size: int) -> float:
    command = [sys.executable, __file__, "--run", folder, stage, what, str(size)]
    return float(
        json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout.splitlines()[-1])
    )


def run(folder: Path, stage: str, what: str, size: int) -> float:
    """Return the peak memory, MB, of this process after one stage at one size; it renders by itself."""
    import timm
    import torch

    from distillcache.cache import create, fill
    from distillcache.cache.claims import claims_on
    from distillcache.datasets.shards.index import index_shards
    from distillcache.models.loading import load_teacher
    from distillcache.models.students import build_student
    from distillcache.models.teachers import save_teacher
    from distillcache.replay.training_set import TrainingSet
    from distillcache.train.config import Config, Place
    from distillcache.train.run import run_training

    cpu = torch.device("cpu")
    torch.set_num_threads(1)
    urls = sorted(str(path) for path in folder.glob("*.tar"))[: size if what == "shards" else 1]
    views = VIEWS * (size if what == "views" else 1)
    teacher_folder = folder / "teacher"
    if not teacher_folder.exists():
        model = timm.create_model("test_efficientnet", num_classes=10)
        save_teacher(model, teacher_folder, name="test_efficientnet", size=32, class_names=())
    teacher = load_teacher(str(teacher_folder), device=cpu, amp=False)
    path = folder / f"{stage}-{what}-{size}.zarr"
    store = create.create(path, create.Request.resolve(views=views, image_size=32), index_shards(urls), teacher)
    with claims_on(path) as claims:
        fill.fill(store, store.samples(urls), teacher, claims, views=views, batch_size=32, workers=0)
    if stage == "train":
        data = TrainingSet.stored(store, urls)
        kwargs = {"img_size": 32, "patch_size": 8, "embed_dim": 48, "depth": 2, "num_heads": 3}
        config = Config(
            model="deit_tiny_distilled_patch16_224", model_kwargs=kwargs, classes=10, size=32, data=data.fingerprint,
            epochs=3 * (size if what == "epochs" else 1), batch_size=16, reuse_views=True,
        )  # fmt: skip
        student = build_student(config.model, classes=10, seed=0, **kwargs)
        place = Place(device=cpu, workers=0, out=path.with_suffix(".run"))
        run_training(student, data, None, config, place)
    return peak_memory()


if __name__ == "__main__":
    if "--run" in sys.argv:
        print(run(Path(sys.argv[2]), sys.argv[3], sys.argv[4], int(sys.argv[5])))
    else:
        report(main)
