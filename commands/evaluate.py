"""`distillcache evaluate` and `compare`: what trained students say of labelled shards."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypedDict, Unpack

import click

from ..runtime.errors import InputError
from ..runtime.paths import AnyPath
from . import shards as reading
from .mirror import mirror_for, mirror_options
from .options import (
    as_json_flag,
    cache_option,
    device_option,
    model_kwargs_options,
    require_output,
    say,
    shards_option,
    with_options,
    workers_option,
)
from .paths import NAME, PATH
from .progress import Bar, bar

if TYPE_CHECKING:
    from ..datasets.samples import Samples
    from ..models.students import Student
    from ..train.evaluate import CentreCrops, Predictions


class _Options(TypedDict):
    """How images are evaluated."""

    crop_pct: float | None
    batch_size: int
    amp: bool | None
    workers: int | None
    device_name: str


_image_options = (
    click.option("--crop-pct", type=float, help="Centre crop.  [default: the run's, or 0.875]"),
    click.option("--batch-size", type=click.IntRange(1), default=256, show_default=True),
    click.option("--amp/--no-amp", default=None, help="bfloat16 autocast.  [default: on a GPU]"),
)


@dataclass(frozen=True, kw_only=True, slots=True)
class _Checkpoint:
    path: AnyPath
    model: str
    student: "Student"
    crops: "CentreCrops"
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

    def predict(self, samples: "Samples", reporter: Bar) -> "Predictions":
        """Return what the student says of `samples`; ValueError if it knows fewer classes."""
        from ..train.evaluate import predict_student

        if (largest := int(samples.target.max())) >= (classes := self.student.classes):
            raise InputError("`shards`", f"classes below the student's {classes} ({self.path})", largest)
        return predict_student(self.student, self.crops, samples, amp=self.amp, reporter=reporter)


@click.command("evaluate")
@click.option("--checkpoint", type=PATH, required=True, help="A student's weights, or its folder; a path or URL.")
@with_options(shards_option)
@click.option("--head", type=click.Choice(["class", "distill", "both"]), help="[default: all that there are]")
@click.option("--real", is_flag=True, help="Also by ImageNet's ReaL labels.")
@click.option("--predictions", type=PATH, help="Parquet file for what each head predicts of each image.")
@click.option("--model", type=NAME, help="A timm name.  [default: what the checkpoint says]")
@with_options(*model_kwargs_options, *_image_options, *mirror_options, workers_option, device_option, as_json_flag)
def evaluate(
    checkpoint: AnyPath,
    shards: Sequence[str],
    head: str | None,
    real: bool,
    predictions: AnyPath | None,
    model: str | None,
    model_kwargs: Sequence[str],
    more_model_kwargs: Sequence[str],
    as_json: bool,
    **options: Unpack[_Options],
) -> None:
    """Measure a student's top-1 and top-5 on labelled shards, head by head, and its images per second.

    CHECKPOINT is what train-student left (its folder, or a file in it), or any weights of a timm model, named by
    --model.

    \b
    Example: distillcache evaluate --checkpoint runs/tiny --shards 'val-*.tar' --real
    """
    from ..datasets.samples import samples_of
    from ..inspection.export import parquet_writer
    from ..runtime import atomic
    from ..train.evaluate import real_labels

    opened = _open(checkpoint, options, model, [*model_kwargs, *more_model_kwargs])
    if head and head not in opened.heads:
        raise InputError("`head`", f"one of {', '.join(opened.heads)}, which {checkpoint} has", head)
    if predictions:
        require_output("predictions", predictions, ".parquet")
    write = parquet_writer("`predictions`") if predictions else None
    indexes = reading.read_index(shards)
    keys = [key for index in indexes for key in index.keys]
    labels = real_labels(keys) if real else None
    with bar("evaluate", len(keys), "images") as shown:
        predicted = opened.predict(samples_of(indexes, 0, mirror_for(shards)), shown)
    if predictions and write:
        table = predicted.to_table([index.shard.name for index in indexes for _ in index.keys], keys)
        atomic.write(predictions, lambda file: write(iter([table]), file))
    columns = {"top1": predicted.accuracy(1), "top5": predicted.accuracy(5)}
    if labels:
        columns["real_top1"] = predicted.real_accuracy(labels)
    asked = [head] if head else opened.heads
    heads = {name: {column: values[name] for column, values in columns.items()} for name in asked}
    result = _result(opened, predicted, heads)
    say(json.dumps(result, indent=2) if as_json else _evaluation_text(result))


def _result(opened: _Checkpoint, predicted: "Predictions", heads: dict[str, dict[str, float]]) -> dict[str, Any]:
    return {
        "checkpoint": str(opened.path),
        "model": opened.model,
        "size": opened.crops.size,
        "crop_pct": opened.crops.crop_pct,
        "mean": [round(value, 4) for value in opened.student.mean.tolist()],
        "std": [round(value, 4) for value in opened.student.std.tolist()],
        "images": len(predicted.target),
        "heads": heads,
        "images_per_second": len(predicted.target) / predicted.seconds,
        "model_images_per_second": len(predicted.target) / predicted.model_seconds,
    }


def _evaluation_text(result: dict[str, Any]) -> str:
    crop = f"{result['size']} pixels, centre crop {result['crop_pct']:g}, mean {result['mean']}, std {result['std']}"
    lines = [f"{result['checkpoint']}: {result['model']}, {crop}, {result['images']:,} images", ""]
    names = {"top1": "top-1", "top5": "top-5", "real_top1": "ReaL top-1"}
    columns = list(next(iter(result["heads"].values())))
    lines.append(f"{'head':<8}" + "".join(f"{names[column]:>12}" for column in columns))
    for head, values in result["heads"].items():
        lines.append(f"{head:<8}" + "".join(f"{values[column]:>11.2f}%" for column in columns))
    speed = f"{result['images_per_second']:.1f} images/s, the model alone {result['model_images_per_second']:.1f}"
    return "\n".join([*lines, "", speed])


@click.command("compare")
@click.argument("checkpoints", nargs=-1, required=True, type=PATH)
@with_options(shards_option, cache_option(required=False, what="A store of these shards by recipe none: the teacher."))
@with_options(*_image_options, *mirror_options, workers_option, device_option, as_json_flag)
def compare(
    checkpoints: Sequence[AnyPath],
    shards: Sequence[str],
    cache: AnyPath | None,
    as_json: bool,
    **options: Unpack[_Options],
) -> None:
    """Say how often ground truth, teacher and students' heads disagree, and how alike a student's two tokens are.

    The teacher's labels come from a store of the same shards: cache-teacher --recipe none --views 1.

    \b
    Example: distillcache compare runs/tiny runs/plain --shards 'val-*.tar' --cache regnety-val.zarr
    """
    import numpy as np

    from ..datasets.order import in_sequence
    from ..datasets.shards.files import expand
    from ..train import compare as comparing
    from .opening import open_store

    if stray := next((path for path in checkpoints if path.suffix == ".tar"), None):
        raise InputError("compare", "checkpoints", stray, "quote a pattern of shards")
    opened = [_open(path, options) for path in checkpoints]
    store = open_store(cache) if cache else None
    mirror = mirror_for(shards)
    samples = store.samples(expand(shards), mirror) if store else None
    samples = samples or reading.labelled(shards)
    rows = in_sequence(samples.count.tolist())
    labels = {"ground truth": samples.target[rows.shard, rows.sample].astype(np.int64)}
    if store:
        labels["teacher"] = comparing.teacher_labels(store)
    tokens: dict[str, list[float]] = {}
    passes = sum(1 + one.student.has_distillation_token for one in opened)  # the second is over the tokens
    with bar("compare", passes * len(rows), "images") as shown:
        for one in opened:
            predicted = one.predict(samples, shown)
            labels |= {f"{one.name} {head}": classes[:, 0] for head, classes in predicted.classes.items()}
            if one.student.has_distillation_token:
                tokens[one.name] = comparing.token_similarity(one.student, one.crops, samples, reporter=shown)
    matrix = comparing.disagreement(labels)
    if as_json:
        result = {"names": list(labels), "disagreement": matrix.tolist(), "token_similarity": tokens}
        say(json.dumps({"images": len(rows), **result}, indent=2))
    else:
        say(_comparison_text(list(labels), matrix, tokens, len(rows)))


def _comparison_text(names: list[str], matrix: Any, tokens: dict[str, list[float]], images: int) -> str:
    width = max(len(name) for name in names)
    lines = [f"share of {images:,} images on which two disagree, %", ""]
    lines.append(" " * (width + 4) + "".join(f"{number:>7}" for number in range(1, len(names) + 1)))
    for number, (name, row) in enumerate(zip(names, matrix, strict=True), start=1):
        lines.append(f"{number:>2}  {name:<{width}}" + "".join(f"{100 * share:>7.2f}" for share in row))
    for name, values in tokens.items():
        lines += ["", f"{name}: cosine similarity of class and distillation token, as learned and after each block"]
        lines.append("  ".join(f"{value:.2f}" for value in values))
    return "\n".join(lines)


def _open(path: AnyPath, options: _Options, model: str | None = None, kwargs: Sequence[str] = ()) -> _Checkpoint:
    from ..models.students import open_folder, parse_kwargs, trained_student
    from ..runtime.devices import device_and_workers
    from ..train.checkpoint import read_weights
    from ..train.evaluate import CentreCrops
    from .opening import require_checkpoint

    device, workers = device_and_workers(options["device_name"], options["workers"])
    if {"config.json", "model.safetensors"} <= {file.name for file in path.glob("*")}:  # timm's local-dir form
        student = open_folder(str(path))
        config: dict[str, Any] = dict(student.model.pretrained_cfg)  # type: ignore[arg-type]
        model = config["architecture"]
    else:
        require_checkpoint(path)
        weights, noted = read_weights(path)
        config = noted or {}
        if not (model := model or config.get("model")):
            raise InputError(path, "a student that train-student wrote", "other weights", "name their `model`")
        arguments = config.get("model_kwargs", {}) | parse_kwargs(kwargs)
        student = trained_student(model, weights, str(path), classes=config.get("classes"), **arguments)
        path = path / "student.safetensors" if path.is_dir() else path
    size, batch_size = config.get("size") or student.image_size, options["batch_size"]
    crop_pct = config.get("crop_pct", 0.875) if options["crop_pct"] is None else options["crop_pct"]
    crops = CentreCrops(size=size, crop_pct=crop_pct, device=device, workers=workers, batch_size=batch_size)
    amp = device.type == "cuda" if options["amp"] is None else options["amp"]
    return _Checkpoint(path=path, model=str(model), student=student.to(device), crops=crops, amp=amp)
