"""`distillcache train-teacher` and `train-student`: stage 2, and teachers for those without pretrained weights."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, TypedDict, Unpack

import click

from ..runtime.paths import AnyPath, path_of
from .config import config_option, options_given
from .mirror import mirror_for, mirror_options
from .options import (
    SEED,
    cache_option,
    copy_option,
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
from .progress import Bars
from .summary import summary_text

if TYPE_CHECKING:
    from ..cache.matching import Missing
    from ..train.config import Hyperparameters

    class _OfAStudent(Hyperparameters):
        recipe: str | None
        overrides: Sequence[str]
        image_size: int | None
        take_over: bool
        subset: str | None
        workers: int | None
        missing: Missing
        log_every: int
        wandb: str | None
        trackio: str | None

    class _OfATeacher(TypedDict):
        model: str
        epochs: int
        batch_size: int
        lr: float
        seed: int
        recipe: str | None
        overrides: Sequence[str]
        image_size: int | None
        workers: int | None


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
@click.option(
    "--model",
    type=NAME,
    default="deit_tiny_distilled_patch16_224",
    show_default=True,
    help="A timm name, or your MODULE:FUNCTION.",
)
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
    val_shards: Sequence[str],
    device_name: str,
    **asked: "Unpack[_OfAStudent]",
) -> None:
    """Stage 2: train a DeiT student from shards and store, without the teacher. Run again, it resumes.

    With --init it goes on from another student, at another image size or for other classes. Without --cache it trains
    on fresh views (--recipe) and the ground truth alone.

    \b
    Example: distillcache train-student --shards 'train-*.tar' --cache regnety.zarr --out runs/tiny
             --val-shards 'val-*.tar' --epochs 300
    On several GPUs: torchrun --nproc-per-node 8 -m distillcache.cli train-student ...
    """
    from ..runtime.processes import join, leave
    from ..train import stage2
    from .opening import open_store, require_checkpoint

    processes = join(device_name)
    with processes.together():
        if asked["init"] and not (out / "last.pt").exists():
            require_checkpoint(path_of(asked["init"]))
        store = open_store(cache) if cache else None
        mirror = mirror_for([*shards, *val_shards], tell=processes.first)
    summary = stage2.train_student(
        out,
        shards,
        store=store,
        val_shards=val_shards,
        model_kwargs=[*model_kwargs, *more_model_kwargs],
        device=device_name,
        mirror=mirror,
        reporter=Bars(),
        command=("distillcache", *click.get_current_context().obj),
        options=options_given(),
        **asked,
    )
    if summary:
        say(summary_text(summary, store, shards, out))
    leave()


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
    shards: Sequence[str], out: Path, val_shards: Sequence[str], device_name: str, **asked: "Unpack[_OfATeacher]"
) -> None:
    """Train a teacher from scratch, for those without pretrained weights.

    \b
    Example: distillcache train-teacher --shards 'train-*.tar' --out teacher --model regnety_002
    """
    from ..train.teaching import train_teacher as train

    train(
        out,
        shards,
        device=device_name,
        mirror=mirror_for([*shards, *val_shards]),
        reporter=Bars(),
        command=("distillcache", *click.get_current_context().obj),
        val_shards=val_shards,
        **asked,
    )
    say(f"teacher in {out}")
