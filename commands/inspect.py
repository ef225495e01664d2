"""`distillcache inspect`: looking into a store."""

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click

from .options import (
    as_json_flag,
    device_and_workers,
    device_option,
    say,
    shards_option,
    store_argument,
    with_options,
    workers_option,
)
from .progress import bar


@click.group()
def inspect() -> None:
    """Look into a store."""


@inspect.command("info")
@with_options(store_argument, as_json_flag)
def inspect_info(cache: Path, as_json: bool) -> None:
    """Say what the store is, how full, and how large.

    \b
    Example: distillcache inspect info regnety.zarr
    """
    from ..cache.inspect import info, info_text
    from ..cache.store import Store

    store = Store(cache)
    say(json.dumps(info(store), indent=2) if as_json else info_text(store))


@inspect.command("label")
@with_options(store_argument, click.argument("key"), as_json_flag)
def inspect_label(cache: Path, key: str, as_json: bool) -> None:
    """Print what the teacher said of each view of the sample KEY.

    \b
    Example: distillcache inspect label regnety.zarr n01440764_10026
    """
    from dataclasses import asdict

    from ..cache.inspect import label, label_text
    from ..cache.store import Store

    found = label(Store(cache), key)
    say(json.dumps(asdict(found), indent=2) if as_json else label_text(found))


@inspect.command("show")
@with_options(store_argument, click.argument("keys", nargs=-1, required=True), shards_option)
@click.option("--out", type=click.Path(path_type=Path), default=Path("grid.png"), show_default=True, help="A PNG file.")
@click.option("--views", type=click.IntRange(1), default=8, show_default=True, help="Views of each sample.")
def inspect_show(cache: Path, keys: Sequence[str], shards: Sequence[str], out: Path, views: int) -> None:
    """Draw the samples KEYS and their views, as the teacher saw them, into one picture.

    \b
    Example: distillcache inspect show regnety.zarr n01440764_10026 --shards 'train-*.tar' --out grid.png
    """
    from ..cache.inspect import show
    from ..cache.store import Store
    from ..datasets.files import expand

    store = Store(cache)
    show(store, keys, store.samples(expand(shards)), views).save(out, "PNG")
    say(f"{out}: {len(keys)} sample{'s' * (len(keys) > 1)}")


@inspect.command("verify")
@with_options(store_argument, shards_option)
@click.option("--views", metavar="FIRST:END", help="Only these views of each sample, such as 0:3.  [default: all]")
@click.option(
    "--fraction",
    type=click.FloatRange(0, 1),
    default=1.0,
    show_default=True,
    help="Share of the samples, taken at random.",
)
@click.option("--teacher", help="Also ask the teacher again: a name as for cache-teacher.")
@click.option("--batch-size", type=click.IntRange(1), default=64, show_default=True)
@with_options(workers_option, device_option, as_json_flag)
def inspect_verify(cache: Path, shards: Sequence[str], views: str | None, fraction: float, **options: Any) -> None:
    """Render views again and compare them with the store: exit code 1 where they differ.

    With all views of all samples, the shards' SHA-256 are compared too.

    \b
    Example: distillcache inspect verify regnety.zarr --shards 'train-*.tar' --fraction 0.01
    """
    from dataclasses import asdict

    from ..cache import verify as verifying
    from ..cache.store import Store
    from ..datasets.files import expand
    from ..models.teachers import load_teacher

    store = Store(cache)
    samples, wanted = store.samples(expand(shards)), _range(views, store.views)
    device, workers = device_and_workers(options["device"], options["workers"])
    record = store.manifest.teacher
    amp, size = record.dtype == "bfloat16", record.input_size
    teacher = load_teacher(options["teacher"], device=device, amp=amp, size=size) if options["teacher"] else None
    rows = verifying.rows_to_verify(store, wanted, fraction)
    with bar("verify", sum(map(len, rows)), "views") as shown:
        found = verifying.verify(
            store,
            samples,
            rows,
            teacher=teacher,
            digests=fraction == 1 and len(wanted) == store.views,
            workers=workers,
            batch_size=options["batch_size"],
            report=shown.update,
        )
    say(json.dumps(asdict(found) | {"passed": found.passed}, indent=2) if options["as_json"] else str(found))
    if not found.passed:
        sys.exit(1)


def _range(text: str | None, views: int) -> range:
    """Return the views that FIRST:END names; ValueError if it names none that the store has."""
    if text is None:
        return range(views)
    first, colon, end = text.partition(":")
    if not (colon and first.isdecimal() and end.isdecimal() and int(first) < int(end) <= views):
        raise ValueError(f"views: expected FIRST:END with 0 <= FIRST < END <= {views}, found {text!r}")
    return range(int(first), int(end))
