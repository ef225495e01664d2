"""The command line: parse, wire, print. What is imported late keeps `--help` fast."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import click

from . import __version__
from .cli_inspect import inspect
from .commands import (
    SEED,
    Commands,
    cache_option,
    device_option,
    recipe_option,
    shards_option,
    val_shards_option,
    with_options,
    workers_option,
)
from .progress import bar

if TYPE_CHECKING:
    from .datasets.shards import ShardIndex


@click.group(cls=Commands, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.version_option(__version__)
def main() -> None:
    """Run the teacher once; train any number of students from what it said."""


main.add_command(inspect)


@main.command("make-shards")
@click.argument("source")
@click.argument("out", type=click.Path(path_type=Path))
@click.option("--per-shard", type=click.IntRange(1), default=1000, show_default=True, help="Samples in a shard.")
@click.option("--seed", type=SEED, default=0, show_default=True, help="Seed of the shuffle.")
def make_shards(source: str, out: Path, per_shard: int, seed: int) -> None:
    """Pack SOURCE, a folder of class folders or `digits`, into WebDataset tars in the folder OUT.

    \b
    Example: distillcache make-shards imagenet/train shards/ --per-shard 1252
    """
    from .datasets import writer

    def progress(shards: Sequence[Sequence[writer.Entry]]) -> Any:
        with bar("make-shards", len(shards), "shards") as shown:
            for shard in shards:
                yield shard
                shown.update(1)

    samples = writer.make_shards(source, out, per_shard=per_shard, seed=seed, progress=progress)
    click.echo(f"{out}: " + ", ".join(f"{n} {split} samples" for split, n in samples.items()))


def _index(shards: Sequence[str], *, digest: bool, workers: int) -> "list[ShardIndex]":
    from .datasets.shards import expand, index_shards

    urls = expand(shards)
    with bar("reading shards", len(urls), "shards") as shown:

        def counted(indexes: Any) -> Any:
            for index in indexes:
                yield index
                shown.update(1)

        return index_shards(urls, digest=digest, workers=max(workers, 2), progress=counted)


def _held_out(shards: Sequence[str], workers: int) -> Any:
    from .datasets.shards import samples_of

    return samples_of(_index(shards, digest=False, workers=workers), 0) if shards else None


@main.command("cache-teacher")
@with_options(shards_option, cache_option, *recipe_option)
@click.option("--teacher", required=True, help="A timm name, local-dir:FOLDER, or a folder that train-teacher wrote.")
@click.option("--views", type=click.IntRange(1), help="Views to cache of each sample.  [default: 300, or the store's]")
@click.option("--topk", type=click.IntRange(0), help="Largest logits to keep, besides the label.  [default: 0]")
@click.option("--seed", type=SEED, help="Seed of all augmentation.  [default: 0, or the store's]")
@click.option("--batch-size", type=click.IntRange(1), default=256, show_default=True, help="Views shown at once.")
@click.option("--amp/--no-amp", default=None, help="bfloat16 autocast.  [default: on a GPU, or as the store has it]")
@with_options(val_shards_option, workers_option, device_option)
def cache_teacher(shards: Sequence[str], cache: Path, teacher: str, **options: Any) -> None:
    """Stage 1: show every view of every sample to the teacher and keep what it says in a Zarr store.

    Run again, it goes on; with more --views, it extends. Several processes may fill one store at once.

    \b
    Example: distillcache cache-teacher --shards 'train-{000000..001023}.tar' --cache regnety.zarr
             --teacher regnety_160.deit_in1k --views 300
    """
    from .cache import create, fill
    from .cache.inspect import info_text
    from .cache.store import Store
    from .datasets.shards import class_names, expand
    from .models.inputs import find_device
    from .models.teachers import load_teacher

    store = Store(cache) if cache.exists() else None
    device, workers = find_device(options["device"]), options["workers"]
    request = create.Request.resolve(options, store, device.type)
    urls = expand(shards)
    samples = store.samples(urls) if store else None  # complains of other shards before a large teacher is loaded
    model = load_teacher(teacher, device=device, amp=request.amp)
    measured = store is not None and store.manifest.teacher_top1 is not None
    held_out = None if measured else _held_out(options["val_shards"], workers)
    if store is None:
        indexes = _index(urls, digest=True, workers=workers)
        store = create.create(cache, request, indexes, model, class_names(urls))
    store.manifest.require_same(create.describe(request, model, store.manifest.shards))
    samples = samples or store.samples(urls)
    if held_out:
        from .datasets.recipes import named
        from .train.evaluate import top1

        none = named("none", size=model.input_size, overrides=[f"crop_pct={model.crop_pct}"])
        found = top1(lambda x: (model.logits(x),), ("class",), held_out, none, device=device, workers=workers)
        fill.record_teacher_top1(store, found["class"])
    views = max(request.views, store.views)
    with bar("cache-teacher", views * int(store.counts.sum()), "views") as shown:
        fill.fill(
            store,
            samples,
            model,
            views=views,
            batch_size=options["batch_size"],
            workers=workers,
            report=shown.update,
            start_at=shown.start_at,
        )
    click.echo(info_text(store))


@main.command("train-teacher")
@with_options(shards_option, *recipe_option)
@click.option("--out", type=click.Path(path_type=Path), required=True, help="Folder for the teacher.")
@click.option("--model", required=True, help="A timm name, such as regnety_002.")
@click.option("--epochs", type=int, default=30, show_default=True)
@click.option("--batch-size", type=int, default=128, show_default=True)
@click.option("--lr", type=float, default=4e-3, show_default=True, help="Learning rate at batch size 512.")
@click.option("--seed", type=SEED, default=0, show_default=True)
@with_options(val_shards_option, workers_option, device_option)
def train_teacher(shards: Sequence[str], out: Path, model: str, **options: Any) -> None:
    """Train a teacher from scratch, for those without pretrained weights.

    \b
    Example: distillcache train-teacher --shards 'train-*.tar' --out teacher --model regnety_002
    """
    from .datasets import recipes
    from .datasets.shards import class_names
    from .models.inputs import find_device
    from .models.students import build_student
    from .models.teachers import save_teacher
    from .train import teacher as training
    from .train.config import Config, Place

    device, size = find_device(options["device"]), 224 if options["image_size"] is None else options["image_size"]
    recipe = recipes.named(options["recipe"] or "crop", size=size, overrides=options["overrides"])
    indexes = _index(shards, digest=True, workers=options["workers"])
    names = class_names([index.url for index in indexes])
    classes = max(len(names), 1 + max(target for index in indexes for target in index.targets))
    config = Config(
        model=model,
        data=training.fingerprint(indexes, recipe),
        distill="none",
        epochs=options["epochs"],
        batch_size=options["batch_size"],
        lr=options["lr"],
        warmup_epochs=min(5, options["epochs"] // 5),
        drop_path=0.0,
        seed=options["seed"],
        crop_pct=1.0,
    )
    classifier = build_student(model, classes=classes, seed=config.seed, drop_path=config.drop_path).to(device)
    held_out = _held_out(options["val_shards"], options["workers"])
    views = config.epochs * sum(len(index.keys) for index in indexes)
    with bar("train-teacher", views, "images") as shown:
        place = Place(
            device=device,
            workers=options["workers"],
            out=out / "training",
            report=shown.update,
            start_at=shown.start_at,
            log=shown.write,
        )
        training.train_teacher(classifier, classes, indexes, recipe, held_out, config, place)
    save_teacher(classifier.model, out, name=model, size=size, class_names=names)
    click.echo(f"teacher in {out}")


@main.command("train-student")
@with_options(shards_option, cache_option)
@click.option("--out", type=click.Path(path_type=Path), required=True, help="Folder for the student.")
@click.option("--model", default="deit_tiny_distilled_patch16_224", show_default=True, help="A timm name.")
@click.option(
    "--model-kwargs", multiple=True, metavar="KEY=VALUE ...", help="Arguments of the model: img_size=32 depth=6"
)
@click.argument("more_model_kwargs", nargs=-1, metavar="")
@click.option("--distill", type=click.Choice(["hard", "none"]), default="hard", show_default=True)
@click.option("--epochs", type=int, help="[default: the store's views]")
@click.option("--batch-size", type=int, default=1024, show_default=True, help="Images a step.")
@click.option("--lr", type=float, default=5e-4, show_default=True, help="Learning rate at batch size 512.")
@click.option("--weight-decay", type=float, default=0.05, show_default=True)
@click.option("--warmup-epochs", type=int, default=5, show_default=True)
@click.option("--smoothing", type=float, default=0.1, show_default=True, help="Label smoothing of the target.")
@click.option("--drop-path", type=float, default=0.1, show_default=True, help="Stochastic depth.")
@click.option("--crop-pct", type=float, default=0.875, show_default=True, help="Centre crop of the evaluation.")
@click.option("--window", type=int, default=0, help="Shuffle within this many shards.  [default: all]")
@click.option("--reuse-views", is_flag=True, help="Allow more epochs than cached views.")
@click.option("--seed", type=SEED, default=0, show_default=True)
@click.option("--amp/--no-amp", default=None, help="bfloat16 autocast.  [default: on a GPU]")
@with_options(val_shards_option, workers_option, device_option)
def train_student(shards: Sequence[str], cache: Path, out: Path, **options: Any) -> None:
    """Stage 2: train a DeiT student from shards and store, without the teacher. Run again, it resumes.

    \b
    Example: distillcache train-student --shards 'train-*.tar' --cache regnety.zarr --out runs/tiny
             --val-shards 'val-*.tar' --epochs 300
    On several GPUs: torchrun --nproc-per-node 8 -m distillcache.cli train-student ...
    """
    from .cache.store import Store
    from .datasets.shards import expand
    from .models.inputs import find_device
    from .models.students import build_student, parse_kwargs
    from .train import student as training
    from .train.config import Config, Place
    from .train.processes import join, leave

    store = Store(cache)
    samples = store.samples(expand(shards))
    processes, device_name = join(options.pop("device"))
    device, workers = find_device(device_name), options.pop("workers")
    kwargs = parse_kwargs([*options.pop("model_kwargs"), *options.pop("more_model_kwargs")])
    val_shards = options.pop("val_shards")
    options["epochs"] = store.views if options["epochs"] is None else options["epochs"]
    options["amp"] = device.type == "cuda" if options["amp"] is None else options["amp"]
    config = Config(data=store.manifest.fingerprint, model_kwargs=kwargs, **options)
    classes = store.manifest.teacher.classes
    student = build_student(config.model, classes=classes, seed=config.seed, drop_path=config.drop_path, **kwargs)
    student.require_size(store.manifest.recipe.size)
    held_out = _held_out(val_shards, workers) if processes.first else None
    with bar("train-student", config.epochs * int(store.counts.sum()), "images", shown=processes.first) as shown:
        place = Place(
            device=device,
            workers=workers,
            out=out,
            processes=processes,
            report=shown.update,
            start_at=shown.start_at,
            log=shown.write,
        )
        summary = training.train_student(student.to(device), store, samples, held_out, config, place)
    if summary:
        click.echo(training.table(summary, store, shards, out))
    leave()


if __name__ == "__main__":
    cast(Any, main)()
