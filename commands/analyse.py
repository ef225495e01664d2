"""`distillcache inspect`, on whole stores: statistics, comparison, merging, export, the report, an estimate."""

import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from .options import (
    SEED,
    as_json_flag,
    device_and_workers,
    device_option,
    filter_options,
    recipe_options,
    require_output,
    say,
    shards_option,
    store_argument,
    with_options,
    workers_option,
)
from .paths import LOCAL_PATH
from .progress import bar
from .tables import table

if TYPE_CHECKING:
    from ..inspection.diff import Diff
    from ..inspection.stats import Stats


@click.command("stats")
@with_options(store_argument)
@click.option("--plot", type=LOCAL_PATH, help="Also draw charts into this PNG file.")
@click.option("--rows", type=click.IntRange(1, 1000), default=10, show_default=True, help="Lines of each table.")
@with_options(as_json_flag)
def inspect_stats(cache: Path, plot: Path | None, rows: int, as_json: bool) -> None:
    """Say how often the teacher agrees with the ground truth, where it does not, and where it is in doubt.

    \b
    Example: distillcache inspect stats regnety.zarr --plot stats.png
    """
    from ..cache.store import Store
    from ..inspection import charts
    from ..inspection.stats import stats

    if plot:
        require_output("plot", plot, ".png")
    store = Store(cache)
    with bar("stats", len(store.counts), "shards") as shown:
        found = stats(store, shown.update)
    if plot:
        charts.plot(found, plot, f"{store.manifest.teacher.name} on {found.samples:,} samples, {found.views:,} views")
    if as_json:
        say(json.dumps(asdict(found), indent=2))
    else:
        _print_stats(found, rows)


def _print_stats(found: "Stats", rows: int) -> None:
    views = [share for share in found.by_view if share is not None]
    say(f"{found.samples:,} samples, {found.views:,} labels")
    neither = 1 - found.agreement - found.partner
    say(f"{found.agreement:.1%} are the target, {found.partner:.1%} the partner's, {neither:.1%} neither")
    say(f"by view: {min(views):.1%} to {max(views):.1%}; {found.entropy:.2f} bits of doubt a sample")
    drawn = f" (of {found.mixes_drawn:,} views drawn at random)" * (found.mixes_drawn < found.views)
    groups = [[g.kind, "any", g.views, g.agreement, g.partner] for g in found.by_mix]
    groups += [[g.kind, f"{g.low:.1f} to {g.high:.1f}", g.views, g.agreement, g.partner] for g in found.by_lambda]
    header = ["mix", "lambda", "views", "target", "partner's"]
    _print_table(f"by mix and lambda, the share of the own view{drawn}", header, groups)
    classes = sorted((c for c in found.by_class if c.agreement is not None), key=lambda c: c.agreement or 0.0)
    lowest = [[c.number, c.name, c.samples, c.agreement, c.views, c.labels] for c in classes[:rows]]
    header = ["class", "name", "samples", "agreement", "its views", "said"]
    _print_table(f"classes that it agrees with least, of {len(classes):,}", header, lowest)
    pairs = [[c.target, c.target_name, c.label, c.label_name, c.views] for c in found.confusions[:rows]]
    _print_table("taken for another class, where no mix explains it", ["target", "", "label", "", "views"], pairs)
    doubts = [
        [d.shard, d.key, f"{d.target} {d.target_name}", f"{d.label} {d.label_name}", d.share]
        for d in found.never_agreed[:rows]
    ]
    header = ["shard", "key", "target", "says most often", "share"]
    _print_table(f"never agreed with in any view: {found.never:,} samples, worth a look", header, doubts)


def _print_table(title: str, header: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
    say(f"\n{title}")
    if rows:
        click.echo(table(header, rows))
    else:
        say("none")


@click.command("diff")
@click.argument("first", type=LOCAL_PATH)
@click.argument("second", type=LOCAL_PATH)
@click.option("--rows", type=click.IntRange(1, 1000), default=10, show_default=True, help="Lines of each table.")
@with_options(as_json_flag)
def inspect_diff(first: Path, second: Path, rows: int, as_json: bool) -> None:
    """Compare what two teachers said of the same views: how often they differ, on which classes and samples.

    \b
    Example: distillcache inspect diff regnety_160.zarr regnety_040.zarr
    """
    from ..cache.store import Store
    from ..inspection.diff import diff

    stores = Store(first), Store(second)
    with bar("diff", len(stores[0].counts), "shards") as shown:
        found = diff(*stores, shown.update)
    if as_json:
        say(json.dumps(asdict(found), indent=2))
    else:
        _print_diff(found, first, second, rows)


def _print_diff(found: "Diff", first: Path, second: Path, rows: int) -> None:
    say(f"{found.differing:,} of {found.views:,} views differ ({found.differing / found.views:.2%})")
    shares = f"{found.first_agreement:.1%} of the views in {first}, {found.second_agreement:.1%} in {second}"
    say(f"the label is the target in {shares}")
    pairs = [[p.first, p.first_name, p.second, p.second_name, p.views] for p in found.pairs[:rows]]
    _print_table("what the one says where the other says something else", ["first", "", "second", "", "views"], pairs)
    samples = [[s.shard, s.key, f"{s.target} {s.target_name}", s.differing, s.views] for s in found.samples[:rows]]
    _print_table("samples on which they differ most", ["shard", "key", "target", "differing", "views"], samples)


@click.command("merge")
@click.argument("out", type=LOCAL_PATH)
@click.argument("stores", nargs=-1, required=True, type=LOCAL_PATH)
def inspect_merge(out: Path, stores: Sequence[Path]) -> None:
    """Write the store OUT from STORES that hold different shards, or different views, of one plan.

    They must have the same recipe, seed and teacher. What several hold must be the same in all.

    \b
    Example: distillcache inspect merge whole.zarr machine1.zarr machine2.zarr
    """
    from ..cache.merge import merge
    from ..cache.store import Store
    from ..inspection.info import info_text

    opened = [Store(path) for path in stores]
    units = sum(len(store.blocks) * len(store.counts) for store in opened)
    with bar("merge", units, "units") as shown:
        merged = merge(out, opened, shown.update)
    say(info_text(merged))


@click.command("export")
@with_options(store_argument, click.argument("out", type=LOCAL_PATH), *filter_options)
@click.option("--mixes", is_flag=True, help="Also mix and lambda of each view, which takes 10 microseconds each.")
def inspect_export(cache: Path, out: Path, mixes: bool, **filters: Sequence[str]) -> None:
    """Write a row for each cached view to OUT: a .parquet, .csv or .npz file.

    \b
    Example: distillcache inspect export regnety.zarr labels.parquet --class tabby
    """
    from ..cache.store import Store
    from ..inspection.export import FORMATS, export
    from ..inspection.lookup import Filter

    require_output("out", out, *FORMATS)
    store = Store(cache)
    with bar("export", len(store.counts), "shards") as shown:
        rows = export(store, out, Filter(**filters), mixes=mixes, report=shown.update)
    say(f"{out}: {rows:,} rows, {out.stat().st_size:,} bytes")


@click.command("report")
@with_options(store_argument, shards_option, *filter_options[:2])
@click.option("--out", type=LOCAL_PATH, default=Path("report.html"), show_default=True, help="The page.")
@click.option("--samples", type=click.IntRange(0, 1000), default=100, show_default=True, help="Samples in the gallery.")
@click.option("--views", type=click.IntRange(1, 24), default=6, show_default=True, help="Views of each.")
def inspect_report(cache: Path, shards: Sequence[str], out: Path, **options: Any) -> None:
    """Write one HTML page, with everything in it: what the store is, charts, and a gallery of views to filter.

    Half of the gallery are samples on which the teacher disagrees most, the others are spread over the store.

    \b
    Example: distillcache inspect report regnety.zarr --shards 'train-*.tar' --out report.html
    """
    from ..cache.store import Store
    from ..datasets.shards.files import expand
    from ..inspection.lookup import Filter
    from ..inspection.report import report

    require_output("out", out, ".html")
    store = Store(cache)
    samples, wanted = store.samples(expand(shards)), Filter(keys=options["keys"], classes=options["classes"])
    with bar("report", 2 * len(store.counts) + options["samples"], "steps") as shown:
        report(store, samples, out, wanted, count=options["samples"], views=options["views"], progress=shown.update)
    say(f"{out}: {out.stat().st_size:,} bytes")


@click.command("estimate")
@with_options(shards_option, *recipe_options)
@click.option("--teacher", required=True, help="A name as for cache-teacher.")
@click.option("--teacher-size", type=click.IntRange(16, 1024), help="Pixels that it sees of views.  [default: its own]")
@click.option("--views", type=click.IntRange(1, 10**6), default=300, show_default=True, help="Views of each sample.")
@click.option("--topk", type=click.IntRange(0), default=0, show_default=True, help="Largest logits to keep.")
@click.option("--batch-size", type=click.IntRange(1), default=256, show_default=True, help="Views shown at once.")
@click.option("--amp/--no-amp", default=None, help="bfloat16 autocast.  [default: on a GPU]")
@click.option("--seconds", type=click.IntRange(1, 3600), default=30, show_default=True, help="How long to measure.")
@click.option("--seed", type=SEED, default=0, show_default=True, help="Seed of all augmentation.")
@with_options(workers_option, device_option, as_json_flag)
def inspect_estimate(shards: Sequence[str], as_json: bool, **options: Any) -> None:
    """Say how long stage 1 will take and how large its store will be, from a short run of it.

    \b
    Example: distillcache inspect estimate --shards 'train-*.tar' --teacher regnety_160.deit_in1k --views 300
    """
    from ..cache.create import Request
    from ..cache.estimate import estimate, index_some
    from ..datasets.shards.files import expand
    from ..models.teachers import load_teacher

    device, workers = device_and_workers(options["device"], options["workers"])
    asked = {name: options[name] for name in ("recipe", "overrides", "image_size", "seed", "topk", "views", "amp")}
    request = Request.resolve(**asked, on_gpu=device.type == "cuda")
    urls = expand(shards)
    indexes = index_some(urls)
    teacher = load_teacher(options["teacher"], device=device, amp=request.amp, size=options["teacher_size"])
    found = estimate(
        indexes, urls, request, teacher, batch_size=options["batch_size"], workers=workers, seconds=options["seconds"]
    )
    if as_json:
        say(json.dumps(asdict(found), indent=2))
        return
    about = "" if found.indexed_shards == found.shards else "about "
    say(f"{about}{found.samples:,} samples in {found.shards:,} shards, {found.samples * found.views:,} views")
    say(f"time   {_duration(found.seconds)} on one {device}; n such processes take an n-th of it")
    say(f"bytes  {found.nbytes:,}, of which labels, checks and logits take {found.bytes_per_view:.2f} a view")
    say(
        f"measured on {found.measured_views:,} views in {found.measured_seconds:.1f} s: {found.views_per_second:,.1f} "
        f"views/s by {teacher.name}"
    )


def _duration(seconds: float) -> str:
    for unit, length in (("days", 86400), ("hours", 3600), ("minutes", 60)):
        if seconds >= 2 * length:
            return f"{seconds / length:.1f} {unit}"
    return f"{seconds:.0f} seconds"


COMMANDS = (inspect_stats, inspect_diff, inspect_merge, inspect_export, inspect_report, inspect_estimate)
