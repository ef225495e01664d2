"""`distillcache train-teacher` and `train-student`: stage 2, and teachers for those without pretrained weights."""

from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Unpack

import click

from ..runtime.errors import InputError
from ..runtime.paths import AnyPath, path_of
from . import shards as reading
from .config import config_option, options_given
from .mirror import mirror_for, mirror_options
from .options import (
    SEED,
    cache_option,
    copy_option,
    device_and_workers,
    device_option,
    missing_option,
    model_kwargs_options,
    recipe_options,
    say,
    shards_option,
    take_over_option,
    val_shards_option,
    with_options,
    workers_option,
)
from .paths import FOLDER, LOCAL_FOLDER, NAME, PATH
from .progress import bar
from .summary import summary_text

if TYPE_CHECKING:
    from ..cache.matching import Missing
    from ..datasets.samples import Samples
    from ..models.students import Student
    from ..replay.training_set import TrainingSet
    from ..train.config import Config, Hyperparameters, Place

_ALL = 1 << 31
"""A window in which all shards are shuffled as one."""
_optimizer_options = (
    click.option("--batch-size", type=int, default=1024, show_default=True, help="Images a step."),
    click.option("--grad-accum-steps", type=int, default=1, show_default=True, help="Parts in which a step is done."),
    click.option("--opt", default="adamw", show_default=True, help="timm's name of the optimizer."),
    click.option("--lr", type=float, default=5e-4, show_default=True, help="Learning rate at batch size 512."),
    click.option("--min-lr", type=float, default=1e-5, show_default=True),
    click.option("--warmup-lr", type=float, default=1e-6, show_default=True),
    click.option("--warmup-epochs", type=int, default=5, show_default=True),
    click.option("--weight-decay", type=float, default=0.05, show_default=True),
    click.option("--clip-grad", type=float, default=0.0, help="Largest norm of the gradient.  [default: any]"),
    click.option("--ema-decay", type=float, default=0.0, help="Average the weights: DeiT's 0.99996.  [default: off]"),
    click.option("--smoothing", type=float, default=0.1, show_default=True, help="Label smoothing of the target."),
    click.option("--drop-path", type=float, default=0.1, show_default=True, help="Stochastic depth."),
    click.option("--crop-pct", type=float, default=0.875, show_default=True, help="Centre crop of the evaluation."),
    click.option(
        "--window", type=int, help="Shuffle in so many shards.  [default: all, or half of what the mirror holds]"
    ),
    click.option("--reuse-views", is_flag=True, help="Allow more epochs than cached views."),
    click.option("--allow-drift", is_flag=True, help="Train though views here differ from the teacher's."),
    click.option("--seed", type=SEED, default=0, show_default=True),
    click.option("--amp/--no-amp", default=None, help="bfloat16 autocast.  [default: on a GPU]"),
    click.option("--compile", is_flag=True, help="torch.compile."),
)


@click.command("train-student")
@with_options(
    copy_option, cache_option(required=False, what="The Zarr store, a path or URL.  [default: no teacher's labels]")
)
@click.option("--out", type=FOLDER, required=True, help="Folder for the student, a path or URL.")
@click.option("--model", type=NAME, default="deit_tiny_distilled_patch16_224", show_default=True, help="A timm name.")
@with_options(*model_kwargs_options)
@click.option("--init", type=PATH, help="Start from this checkpoint's weights.")
@click.option("--distill", type=click.Choice(["hard", "soft", "none"]), help="[default: hard, or none without a store]")
@click.option("--alpha", type=float, help="Weight of the distillation.  [default: 0.5, or 0.1 for soft]")
@click.option("--tau", type=float, default=3.0, show_default=True, help="Temperature of soft distillation.")
@click.option("--epochs", type=int, help="[default: the store's views, or 300 without a store]")
@click.option(
    "--subset",
    metavar="PART",
    help="Train on a part: a share (0.1), so many images of each class (50/class), or a pattern of shards.",
)
@with_options(missing_option)
@with_options(*_optimizer_options, *recipe_options, val_shards_option, take_over_option, *mirror_options)
@with_options(workers_option, device_option)
@click.option("--log-every", type=click.IntRange(0), default=50, show_default=True, help="Steps a row of steps.csv.")
@click.option("--wandb", type=NAME, metavar="PROJECT", help="Also log to Weights & Biases.")
@click.option("--trackio", type=NAME, metavar="PROJECT", help="Also log to Trackio.")
@with_options(config_option)
def train_student(
    shards: Sequence[str],
    cache: AnyPath | None,
    out: AnyPath,
    model_kwargs: Sequence[str],
    more_model_kwargs: Sequence[str],
    recipe: str | None,
    overrides: Sequence[str],
    image_size: int | None,
    val_shards: Sequence[str],
    take_over: bool,
    subset: str | None,
    missing: "Missing",
    workers: int | None,
    device_name: str,
    log_every: int,
    wandb: str | None,
    trackio: str | None,
    **asked: "Unpack[Hyperparameters]",
) -> None:
    """Stage 2: train a DeiT student from shards and store, without the teacher. Run again, it resumes.

    With --init it goes on from another student, at another image size or for other classes. Without --cache it trains
    on fresh views (--recipe) and the ground truth alone.

    \b
    Example: distillcache train-student --shards 'train-*.tar' --cache regnety.zarr --out runs/tiny
             --val-shards 'val-*.tar' --epochs 300
    On several GPUs: torchrun --nproc-per-node 8 -m distillcache.cli train-student ...
    """
    from ..datasets.loader import start_early
    from ..models.students import parse_kwargs
    from ..replay.training_set import TrainingSet
    from ..runtime.processes import join, leave
    from ..train.config import Config, Place
    from ..train.metrics import window_of
    from ..train.tracking import trackers_named
    from .opening import open_store

    processes = join(device_name)
    with processes.together():
        kwargs = parse_kwargs([*model_kwargs, *more_model_kwargs])
        device, workers = device_and_workers(device_name, workers)
        start_early(workers)
        if cache and (recipe or overrides or image_size):
            remedy = "leave out `recipe`, `set` and `image_size`, or `cache`"
            raise InputError("recipe", "the store's own", "another", remedy)
        window = window_of(out) if asked["window"] is None else asked["window"]
        if cache:
            store = open_store(cache)
            with reading.finding(store, tell=processes.first) as told:
                mirror = mirror_for(shards, tell=processes.first)
                data = TrainingSet.stored(store, shards, window, mirror, missing=missing, part=subset, reporter=told)
        else:
            data = _fresh(shards, recipe or "deit", overrides, image_size, asked["seed"], window, tell=processes.first)
    [narrowest] = processes.ask_largest(-(data.order.window or _ALL))()
    if window is None:  # a machine whose mirror holds less than the others' needs smaller windows: so do all
        data = data.shuffled_in(-narrowest % _ALL)
    with processes.together():
        if window is None and data.order.window and processes.first:
            say(f"the mirror can't hold all shards: shuffled in windows of {data.order.window}", err=True)
        config = Config.resolve(data, device.type, kwargs, **asked)
        student = _build_student(config, resumed=(out / "last.pt").exists(), tell=processes.first).to(device)
        held_out = reading.held_out(val_shards) if processes.first else None
    held_out = processes.share(held_out)
    with processes.together():
        projects = {"wandb": wandb, "trackio": trackio} if processes.first else {}
        trackers = trackers_named(projects, asdict(config), Path(str(out)).name)
    place = Place(
        device=device, workers=workers, out=out, processes=processes, take_over=take_over, options=options_given(),
        log_every=log_every, trackers=trackers,
    )  # fmt: skip
    if summary := _train(student, data, held_out, config, place):
        say(summary_text(summary, data.store, shards, out))
    for tracker in trackers:
        tracker.finish()
    leave()


def _fresh(
    shards: Sequence[str],
    recipe: str,
    overrides: Sequence[str],
    size: int | None,
    seed: int,
    window: int | None = None,
    *,
    tell: bool = True,
) -> "TrainingSet":
    from ..datasets.augment.recipes import named
    from ..replay.training_set import TrainingSet

    chosen, mirror = named(recipe, size=size, overrides=overrides), mirror_for(shards, tell=tell)
    with bar("reading shards", None, "shards") as shown:
        return TrainingSet.fresh(shards, chosen, seed, window, mirror, reporter=shown)


def _train(
    student: "Student", data: "TrainingSet", held_out: "Samples | None", config: "Config", place: "Place"
) -> dict[str, Any] | None:
    """Train under a bar; return the summary, in the first process alone."""
    from ..train.run import train_student

    context, images = click.get_current_context(), data.images(config.epochs, config.batch_size)
    with bar(str(context.info_name), images, "images", shown=place.processes.first) as shown:
        place = replace(place, command=("distillcache", *context.obj), reporter=shown)
        return train_student(student, data, held_out, config, place)


def _build_student(config: "Config", *, resumed: bool = False, tell: bool = True, resizable: bool = True) -> "Student":
    """Return the student that a run starts with, saying what of its start may surprise."""
    from ..models.students import build_student
    from ..train.checkpoint import read_weights
    from .opening import require_checkpoint

    if config.warmup_epochs >= config.epochs and tell:
        warning = f"the warm-up takes {config.warmup_epochs} epochs, the run has {config.epochs}: it learns little"
        say(f"{warning}; lower --warmup-epochs", err=True)
    student = build_student(
        config.model, classes=config.classes, seed=config.seed, drop_path=config.drop_path, **config.model_kwargs
    )
    student.require_size(config.size, resizable=resizable)
    if config.init and not resumed:
        init = path_of(config.init)
        require_checkpoint(init)
        weights, _ = read_weights(init)
        if (afresh := student.initialize(weights, config.init)) and tell:
            say(f"{config.init}: {' and '.join(afresh)} start afresh, for {config.classes} classes", err=True)
    if config.distill == "none" and student.distilled:
        student.silence_distillation_head()
    return student


@click.command("train-teacher")
@with_options(shards_option, *recipe_options)
@click.option("--out", type=LOCAL_FOLDER, required=True, help="Folder for the teacher.")
@click.option("--model", type=NAME, required=True, help="A timm name, such as regnety_002.")
@click.option("--epochs", type=int, default=30, show_default=True)
@click.option("--batch-size", type=int, default=128, show_default=True)
@click.option("--lr", type=float, default=4e-3, show_default=True, help="Learning rate at batch size 512.")
@click.option("--seed", type=SEED, default=0, show_default=True)
@with_options(val_shards_option, *mirror_options, workers_option, device_option)
def train_teacher(
    shards: Sequence[str],
    recipe: str | None,
    overrides: Sequence[str],
    image_size: int | None,
    out: Path,
    model: str,
    epochs: int,
    batch_size: int,
    lr: float,
    seed: int,
    val_shards: Sequence[str],
    workers: int | None,
    device_name: str,
) -> None:
    """Train a teacher from scratch, for those without pretrained weights.

    \b
    Example: distillcache train-teacher --shards 'train-*.tar' --out teacher --model regnety_002
    """
    from ..datasets.shards.files import class_names
    from ..models.teachers import save_teacher
    from ..train.config import Config, Place
    from ..train.run import require_no_other

    require_no_other(out, {"zarr.json": "a store", "student.safetensors": "a student"})
    device, workers = device_and_workers(device_name, workers)
    data = _fresh(shards, recipe or "crop", overrides, image_size, seed)
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
    classifier = _build_student(config, resizable=False)
    held_out = reading.held_out(val_shards)
    place = Place(device=device, workers=workers, out=out / "training")
    _train(classifier.to(device), data, held_out, config, place)
    save_teacher(classifier.model, out, name=model, size=config.size, class_names=class_names(data.samples.files))
    say(f"teacher in {out}")
