"""`distillcache evaluate` and `compare`: what trained students say of labelled shards."""

import json
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, TypedDict, Unpack

import click

from ..runtime.errors import InputError
from ..runtime.paths import AnyPath
from .mirror import mirror_for, mirror_options
from .options import (
    as_json_flag,
    cache_option,
    device_option,
    model_kwargs_options,
    say,
    shards_option,
    with_options,
    workers_option,
)
from .paths import NAME, PATH
from .progress import Bars

if TYPE_CHECKING:

    class _Images(TypedDict):
        crop_pct: float | None
        batch_size: int
        amp: bool | None
        workers: int | None

    class _OfAStudent(_Images):
        head: str | None
        real: bool
        model: str | None


_image_options = (
    click.option("--crop-pct", type=float, help="Centre crop.  [default: the run's, or 0.875]"),
    click.option("--batch-size", type=click.IntRange(1), default=256, show_default=True),
    click.option("--amp/--no-amp", default=None, help="bfloat16 autocast.  [default: on a GPU]"),
)


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
    predictions: AnyPath | None,
    model_kwargs: Sequence[str],
    more_model_kwargs: Sequence[str],
    device_name: str,
    as_json: bool,
    **asked: "Unpack[_OfAStudent]",
) -> None:
    """Measure a student's top-1 and top-5 on labelled shards, head by head, and its images per second.

    CHECKPOINT is what train-student left (its folder, or a file in it), or any weights of a timm model, named by
    --model.

    \b
    Example: distillcache evaluate --checkpoint runs/tiny --shards 'val-*.tar' --real
    """
    from ..train.trained import evaluate_student
    from .opening import require_student

    require_student(checkpoint)
    found = evaluate_student(
        checkpoint,
        shards,
        predictions=predictions,
        model_kwargs=[*model_kwargs, *more_model_kwargs],
        device=device_name,
        mirror=mirror_for(shards),
        reporter=Bars(),
        **asked,
    )
    say(json.dumps(found, indent=2) if as_json else _evaluation_text(found))


def _evaluation_text(found: dict[str, Any]) -> str:
    crop = f"{found['size']} pixels, centre crop {found['crop_pct']:g}, mean {found['mean']}, std {found['std']}"
    lines = [f"{found['checkpoint']}: {found['model']}, {crop}, {found['images']:,} images", ""]
    names = {"top1": "top-1", "top5": "top-5", "real_top1": "ReaL top-1"}
    columns = list(next(iter(found["heads"].values())))
    lines.append(f"{'head':<8}" + "".join(f"{names[column]:>12}" for column in columns))
    for head, values in found["heads"].items():
        lines.append(f"{head:<8}" + "".join(f"{values[column]:>11.2f}%" for column in columns))
    speed = f"{found['images_per_second']:.1f} images/s, the model alone {found['model_images_per_second']:.1f}"
    return "\n".join([*lines, "", speed])


@click.command("compare")
@click.argument("checkpoints", nargs=-1, required=True, type=PATH)
@with_options(shards_option, cache_option(required=False, what="A store of these shards by recipe none: the teacher."))
@with_options(*_image_options, *mirror_options, workers_option, device_option, as_json_flag)
def compare(
    checkpoints: Sequence[AnyPath],
    shards: Sequence[str],
    cache: AnyPath | None,
    device_name: str,
    as_json: bool,
    **asked: "Unpack[_Images]",
) -> None:
    """Say how often ground truth, teacher and students' heads disagree, and how alike a student's two tokens are.

    The teacher's labels come from a store of the same shards: cache-teacher --recipe none --views 1.

    \b
    Example: distillcache compare runs/tiny runs/plain --shards 'val-*.tar' --cache regnety-val.zarr
    """
    from ..train.compare import compare_students
    from .opening import open_store, require_student

    if stray := next((path for path in checkpoints if path.suffix == ".tar"), None):
        raise InputError("compare", "checkpoints", stray, "quote a pattern of shards")
    for checkpoint in checkpoints:
        require_student(checkpoint)
    found = compare_students(
        checkpoints,
        shards,
        store=open_store(cache) if cache else None,
        device=device_name,
        mirror=mirror_for(shards),
        reporter=Bars(),
        **asked,
    )
    say(json.dumps(found, indent=2) if as_json else _comparison_text(**found))


def _comparison_text(
    images: int, names: list[str], disagreement: list[list[float]], token_similarity: dict[str, list[float]]
) -> str:
    width = max(len(name) for name in names)
    lines = [f"share of {images:,} images on which two disagree, %", ""]
    lines.append(" " * (width + 4) + "".join(f"{number:>7}" for number in range(1, len(names) + 1)))
    for number, (name, row) in enumerate(zip(names, disagreement, strict=True), start=1):
        lines.append(f"{number:>2}  {name:<{width}}" + "".join(f"{100 * share:>7.2f}" for share in row))
    for name, values in token_similarity.items():
        lines += ["", f"{name}: cosine similarity of class and distillation token, as learned and after each block"]
        lines.append("  ".join(f"{value:.2f}" for value in values))
    return "\n".join(lines)
