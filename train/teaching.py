"""A teacher from scratch, for those without pretrained weights."""

import sys
from collections.abc import Sequence
from pathlib import Path

from ..datasets.shards.files import class_names
from ..datasets.shards.mirror import DEFAULT, Mirror
from ..models.teachers import save_teacher
from ..runtime.devices import device_and_workers
from ..runtime.errors import InputError
from ..runtime.paths import PathLike, path_of
from ..runtime.reporting import SILENT, Reporter
from . import run, stage2
from .config import Config, Place
from .evaluate import labelled


def train_teacher(
    out: PathLike,
    shards: str | Sequence[str],
    *,
    model: str,
    epochs: int = 30,
    batch_size: int = 128,
    lr: float = 4e-3,
    seed: int = 0,
    recipe: str | None = None,
    overrides: Sequence[str] = (),
    image_size: int | None = None,
    val_shards: str | Sequence[str] = (),
    device: str = "auto",
    workers: int | None = None,
    mirror: Mirror = DEFAULT,
    reporter: Reporter = SILENT,
    command: Sequence[str] = (),
) -> None:
    """Train a teacher from scratch, for those without pretrained weights, and write it to `out` in timm's form.

    Args:
        out: A folder of this machine.
        shards: WebDataset tars: paths, URLs, with braces and globs.
        model: A timm name, such as `regnety_002`.
        epochs: Over all images.
        batch_size: Images a step.
        lr: Learning rate at batch size 512.
        seed: Of weights, order and augmentation.
        recipe: The name of an augmentation; `crop`.
        overrides: Changes of its fields, such as `hflip=0`.
        image_size: Height and width of images, pixels; 224.
        val_shards: Held-out shards, to be measured on after each epoch.
        device: `cpu`, `cuda`, `cuda:1`; `auto`: a GPU if there is any.
        workers: Processes that render; by default one a core, and without a GPU 0: threads of this process.
        mirror: Where shards from far away are held.
        reporter: Told how far the work is, and a line an epoch.
        command: The command line that config.json is to have; by default this program's.

    Raises:
        InputError: A ValueError, one line of text: for what is wrong with shards, model or an option.
        RunInterruptedError: After SIGINT or SIGTERM, with everything saved.
    """
    folder = path_of(out)
    if not isinstance(folder, Path):
        raise InputError("`out`", "a folder of this machine", folder)
    run.require_no_other(folder, {"zarr.json": "a store", "student.safetensors": "a student"})
    place, workers = device_and_workers(device, workers)
    data = stage2.fresh(shards, recipe or "crop", overrides, image_size, seed, None, mirror, reporter)
    config = Config(
        model=model,
        classes=data.classes,
        size=data.order.recipe.size,
        data=data.fingerprint,
        distill="none",
        epochs=epochs,
        batch_size=batch_size,
        lr=lr,
        warmup_epochs=min(5, epochs // 5),
        drop_path=0.0,
        seed=seed,
        crop_pct=1.0,
    )
    classifier = stage2.started(config, reporter=reporter, resizable=False).to(place)
    held_out = labelled(val_shards, mirror, reporter) if val_shards else None
    with reporter.part("train-teacher", data.images(epochs, batch_size), "images") as counted:
        where = Place(
            device=place, workers=workers, out=folder / "training", reporter=counted, command=command or sys.argv
        )
        run.run_training(classifier, data, held_out, config, where)
    names = class_names(data.samples.files)
    save_teacher(classifier.model, folder, name=model, size=config.size, class_names=names)
