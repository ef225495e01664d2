"""Real photos for every test: scikit-learn ships two, so nothing is downloaded."""

import io
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import timm
import torch
import webdataset
from click.testing import CliRunner, Result
from PIL import Image
from sklearn.datasets import load_sample_images

from distillcache.cache import create, fill
from distillcache.cache.claims import claims_on
from distillcache.cache.store import Store
from distillcache.cli import main
from distillcache.datasets.shards.files import expand
from distillcache.datasets.shards.index import index_shards
from distillcache.models.loading import load_teacher
from distillcache.models.teachers import Teacher, save_teacher
from distillcache.runtime.paths import AnyPath
from distillcache.runtime.reporting import Reporter

FUZZ = int(os.environ.get("FUZZ", "1"))
"""How many times as many examples hypothesis tries: `FUZZ=50 make test` for an evening."""
CLASSES = 5
SIZE = 32


@pytest.fixture(scope="session")
def photos() -> list[bytes]:
    """23 JPEGs of different sizes, cut from two real photographs."""
    rng = np.random.default_rng(0)
    encoded = []
    for i in range(23):
        photo = Image.fromarray(load_sample_images().images[i % 2])
        width, height = rng.integers(180, 400, 2)
        left, top = rng.integers(0, [photo.width - width, photo.height - height])
        buffer = io.BytesIO()
        photo.crop((left, top, left + width, top + height)).save(buffer, "JPEG", quality=90)
        encoded.append(buffer.getvalue())
    return encoded


@pytest.fixture(scope="session")
def views(photos: list[bytes]) -> list[np.ndarray]:
    """Six photos at 224 pixels, as RandAugment would find them."""
    return [np.asarray(Image.open(io.BytesIO(p)).resize((224, 224), Image.Resampling.BICUBIC)) for p in photos[:6]]


@pytest.fixture(scope="session")
def shards(photos: list[bytes], tmp_path_factory: pytest.TempPathFactory) -> str:
    """A glob of two shards, of 12 and (an odd number) 11 photos, in 5 classes."""
    folder = tmp_path_factory.mktemp("shards")
    for number, part in enumerate((photos[:12], photos[12:])):
        with webdataset.TarWriter(str(folder / f"train-{number}.tar"), mtime=0.0) as tar:
            for i, photo in enumerate(part):
                target = (5 * number + i) % CLASSES
                tar.write({"__key__": f"photo{number}{i:02d}", "jpg": photo, "cls": target, "json": {"ignored": i}})
    (folder / "classes.txt").write_text("".join(f"class {c}\n" for c in range(CLASSES)))
    return str(folder / "train-*.tar")


@pytest.fixture(scope="session")
def teacher_folder(photos: list[bytes], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small untrained teacher whose logits are centred, so that its labels differ from view to view."""
    torch.manual_seed(0)
    model = timm.create_model("test_efficientnet", num_classes=CLASSES).eval()
    images = [np.asarray(Image.open(io.BytesIO(p)).resize((SIZE, SIZE))) for p in photos]
    batch = torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2) / 255
    with torch.no_grad():
        logits = model((batch - 0.5) / 0.5)
        model.classifier.weight /= logits.std()
        model.classifier.bias -= logits.mean(0) / logits.std()
    folder = tmp_path_factory.mktemp("teacher")
    save_teacher(model, folder, name="test_efficientnet", size=SIZE, class_names=[f"class {c}" for c in range(CLASSES)])
    return folder


@pytest.fixture(scope="session")
def teacher(teacher_folder: Path) -> Teacher:
    return load_teacher(str(teacher_folder), device=torch.device("cpu"), amp=False)


def cached(
    path: AnyPath,
    urls: list[str],
    teacher: Teacher,
    *,
    views: int = 6,
    batch_size: int = 16,
    workers: int = 0,
    **more: Any,
) -> Store:
    """Run stage 1 in this process and return the store."""
    store = create.existing(path)
    given = {"recipe": "deit", "image_size": SIZE, "seed": 0, "topk": 0, "amp": False, **more}
    request = create.Request.resolve(store, views=views, **given)
    store = store or create.create(path, request, index_shards(urls), teacher)
    with claims_on(path) as claims:
        fill.fill(store, store.samples(urls), teacher, claims, views=views, batch_size=batch_size, workers=workers)
    return store


@pytest.fixture(scope="session")
def store(shards: str, teacher: Teacher, tmp_path_factory: pytest.TempPathFactory) -> Store:
    """The photos' store: recipe deit at 32 pixels, 6 views, top-2 kept. Not to be written to."""
    return cached(tmp_path_factory.mktemp("cache") / "photos.zarr", expand(shards), teacher, topk=2)


@pytest.fixture
def one_thread() -> Iterator[None]:
    """Bit-exact comparisons are promised for one CPU thread."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


class OnAdvance(Reporter):
    """Calls a function with what was done, each time that some is."""

    def __init__(self, act: Callable[[int], None]) -> None:
        self.act = act

    def advance(self, n: int = 1) -> None:
        self.act(n)


def run(*arguments: object) -> Result:
    """Run the command line in this process."""
    return CliRunner().invoke(main, [str(argument) for argument in arguments])


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Real ImageNet photos and a real teacher; tests that use them are skipped, loudly, where they are absent."""
    folder = Path(__file__).resolve().parents[2] / "shared" / "data"
    if not folder.is_dir():
        pytest.skip(f"SKIPPED: no real photos at {folder}")
    return folder
