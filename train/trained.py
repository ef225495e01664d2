"""Trained students, opened again: measured on labelled shards, head by head."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ..datasets.samples import Samples, samples_of
from ..datasets.shards.mirror import DEFAULT, Mirror
from ..models.students import Student, open_folder, parse_kwargs, trained_student
from ..runtime import atomic
from ..runtime.devices import device_and_workers
from ..runtime.errors import InputError, require_whole
from ..runtime.parquet import parquet_writer
from ..runtime.paths import AnyPath, PathLike, path_of, require_output
from ..runtime.reporting import SILENT, Reporter
from .checkpoint import read_weights
from .evaluate import BATCH_SIZE, CentreCrops, Predictions, predict_student, read_index, real_labels


@dataclass(frozen=True, kw_only=True, slots=True)
class Trained:
    """A trained student, and how images are cut for it."""

    path: AnyPath
    model: str
    """Its timm name, or MODULE:FUNCTION."""
    student: Student
    crops: CentreCrops
    amp: bool

    @property
    def name(self) -> str:
        """What a user calls it: a run by its folder."""
        return str(self.path.parent if self.path.name == "student.safetensors" else self.path)

    @property
    def heads(self) -> tuple[str, ...]:
        """The student's heads, and `both` where there are two."""
        heads = self.student.heads
        return (*heads, "both") if len(heads) == 2 else heads

    def predict(self, samples: Samples, reporter: Reporter) -> Predictions:
        """Return what the student says of `samples`; ValueError if it knows fewer classes."""
        if (largest := int(samples.target.max())) >= (classes := self.student.classes):
            raise InputError("`shards`", f"classes below the student's {classes} ({self.path})", largest)
        return predict_student(self.student, self.crops, samples, amp=self.amp, reporter=reporter)


def open_trained(
    checkpoint: PathLike,
    *,
    model: str | None = None,
    model_kwargs: Mapping[str, Any] | Sequence[str] = (),
    crop_pct: float | None = None,
    batch_size: int = BATCH_SIZE,
    amp: bool | None = None,
    device: str = "auto",
    workers: int | None = None,
) -> Trained:
    """Return the student of a run, a file in it, a folder in timm's form, or any weights of a `model`."""
    path = path_of(checkpoint)
    require_whole("batch_size", batch_size, 1)
    place, workers = device_and_workers(device, workers)
    if {"config.json", "model.safetensors"} <= {file.name for file in path.glob("*")}:  # timm's local-dir form
        student = open_folder(str(path))
        config: dict[str, Any] = dict(student.model.pretrained_cfg)  # type: ignore[arg-type]
        model = config["architecture"]
    else:
        weights, noted = read_weights(path)
        config = noted or {}
        if not (model := model or config.get("model")):
            raise InputError(path, "a student that train-student wrote", "other weights", "name their `model`")
        arguments = config.get("model_kwargs", {}) | parse_kwargs(model_kwargs)
        student = trained_student(model, weights, str(path), classes=config.get("classes"), **arguments)
        path = path / "student.safetensors" if path.is_dir() else path
    size = config.get("size") or student.image_size
    crop_pct = config.get("crop_pct", 0.875) if crop_pct is None else crop_pct
    crops = CentreCrops(size=size, crop_pct=crop_pct, device=place, workers=workers, batch_size=batch_size)
    amp = place.type == "cuda" if amp is None else amp
    return Trained(path=path, model=str(model), student=student.to(place), crops=crops, amp=amp)


def evaluate_student(
    checkpoint: PathLike,
    shards: str | Sequence[str],
    *,
    head: str | None = None,
    real: bool = False,
    predictions: PathLike | None = None,
    model: str | None = None,
    model_kwargs: Mapping[str, Any] | Sequence[str] = (),
    crop_pct: float | None = None,
    batch_size: int = BATCH_SIZE,
    amp: bool | None = None,
    device: str = "auto",
    workers: int | None = None,
    mirror: Mirror = DEFAULT,
    reporter: Reporter = SILENT,
) -> dict[str, Any]:
    """Measure a student's top-1 and top-5 on labelled shards, head by head, and its images per second.

    Returns what was measured: `heads`, by name (`class`, `distill`, and `both`: the mean of their logits) `top1` and
    `top5`, percent; how many `images`, of which `size`, `crop_pct`, `mean` and `std`; `images_per_second`, and
    `model_images_per_second` without reading and decoding.

    Args:
        checkpoint: A run's folder, a file in it, a folder in timm's form, or any weights of `model`; a path or URL.
        shards: WebDataset tars: paths, URLs, with braces and globs.
        head: One of the heads; all that there are.
        real: Also `real_top1`, by ImageNet's ReaL labels.
        predictions: A Parquet file for what each head predicts of each image.
        model: A timm name, where the checkpoint does not say it.
        model_kwargs: Its arguments, by name or as `KEY=VALUE`.
        crop_pct: The centre crop's share of the shorter side; the run's, or 0.875.
        batch_size: Images at a time.
        amp: bfloat16 autocast; on a GPU.
        device: `cpu`, `cuda`, `cuda:1`; `auto`: a GPU if there is any.
        workers: Processes that decode; by default one a core, and without a GPU 0: threads of this process.
        mirror: Where shards from far away are held.
        reporter: Told how far the work is.

    Raises:
        InputError: A ValueError, one line of text: for what is wrong with checkpoint, shards or an argument.
    """
    opened = open_trained(
        checkpoint, model=model, model_kwargs=model_kwargs, crop_pct=crop_pct, batch_size=batch_size, amp=amp,
        device=device, workers=workers,
    )  # fmt: skip
    if head and head not in opened.heads:
        raise InputError("`head`", f"one of {', '.join(opened.heads)}, which {checkpoint} has", head)
    if predictions:
        require_output("predictions", path_of(predictions), ".parquet")
    write = parquet_writer("`predictions`") if predictions else None
    indexes = read_index(shards, mirror, reporter)
    keys = [key for index in indexes for key in index.keys]
    labels = real_labels(keys) if real else None
    with reporter.part("evaluate", len(keys), "images") as told:
        found = opened.predict(samples_of(indexes, 0, mirror), told)
    if predictions and write:
        table = found.to_table([index.shard.name for index in indexes for _ in index.keys], keys)
        atomic.write(path_of(predictions), lambda file: write(iter([table]), file))
    columns = {"top1": found.accuracy(1), "top5": found.accuracy(5)}
    if labels:
        columns["real_top1"] = found.real_accuracy(labels)
    images = len(found.target)
    return {
        "checkpoint": str(opened.path),
        "model": opened.model,
        "size": opened.crops.size,
        "crop_pct": opened.crops.crop_pct,
        "mean": [round(value, 4) for value in opened.student.mean.tolist()],
        "std": [round(value, 4) for value in opened.student.std.tolist()],
        "images": images,
        "heads": {
            name: {column: values[name] for column, values in columns.items()}
            for name in ([head] if head else opened.heads)
        },
        "images_per_second": images / found.seconds,
        "model_images_per_second": images / found.model_seconds,
    }
