"""`distillcache inspect`: looking into a store, sample by sample."""

import json
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from .help import Sections
from .options import (
    as_json_flag,
    device_and_workers,
    device_option,
    filter_options,
    printable,
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
    from ..inspection.lookup import SampleLabels


@click.group(cls=Sections)
def inspect() -> None:
    """Look into a store."""


@inspect.command("info")
@with_options(store_argument, as_json_flag)
def inspect_info(cache: Path, as_json: bool) -> None:
    """Say what the store is, how full, and how large.

    \b
    Example: distillcache inspect info regnety.zarr
    """
    from ..cache.store import Store
    from ..inspection.info import info, info_text

    store = Store(cache)
    say(json.dumps(info(store), indent=2) if as_json else info_text(store))


@inspect.command("keys")
@with_options(store_argument, *filter_options)
@click.option(
    "--agreement-below",
    type=click.FloatRange(0, 1),
    help="Only samples whose target the teacher says in a smaller share of their views; lowest first.",
)
@click.option("--limit", type=click.IntRange(1), help="At most so many.")
@with_options(as_json_flag)
def inspect_keys(
    cache: Path, agreement_below: float | None, limit: int | None, as_json: bool, **filters: Sequence[str]
) -> None:
    """List samples: shard, key, target, and with --agreement-below how often the teacher agrees.

    On a terminal as a table, elsewhere with tabs between the columns.

    \b
    Example: distillcache inspect keys regnety.zarr --class 'tabby' --agreement-below 0.2
    """
    from ..cache.store import Store
    from ..inspection.lookup import Filter, agreement, listed

    store = Store(cache)
    chosen, shares = Filter(**filters).select(store), None
    if agreement_below is not None:
        with bar("keys", int(chosen.any(axis=1).sum()), "shards") as shown:
            shares = agreement(store, chosen, shown.update)
        chosen &= shares < agreement_below
    found = listed(store, chosen, shares, limit)
    if as_json:
        click.echo(json.dumps([dict(zip(found, row, strict=True)) for row in zip(*found.values(), strict=True)]))
    elif not found["key"]:
        say("no such samples", err=True)
    elif sys.stdout.isatty():
        click.echo(table(list(found), list(zip(*found.values(), strict=True))))
    else:  # for other programs; of ImageNet a million lines
        columns = [_texts(values) for values in found.values()]
        click.echo("\n".join(map("\t".join, zip(*columns, strict=True))))


def _texts(values: list[Any]) -> list[str]:
    """Return a column as printable texts."""
    if not isinstance(values[0], str):
        return list(map(str, values))
    return values if "".join(values).isprintable() else [printable(value, keep="") for value in values]


@inspect.command("label")
@with_options(store_argument, click.argument("key"), as_json_flag)
def inspect_label(cache: Path, key: str, as_json: bool) -> None:
    """Print what the teacher said of each view of the sample KEY.

    \b
    Example: distillcache inspect label regnety.zarr n01440764_10026
    """
    from ..cache.store import Store
    from ..inspection.lookup import find, label

    store = Store(cache)
    found = label(store, find(store, key))
    if as_json:
        say(json.dumps(asdict(found) | {"agreement": found.agreement}, indent=2))
    else:
        _print_labels(found)


def _print_labels(found: "SampleLabels") -> None:
    agreement = "" if found.agreement is None else f"; the teacher says that in {found.agreement:.0%} of its views"
    rows, colors = [], []
    for view in found.views:
        said = f"{view.label} {view.label_name}" if view.label is not None else "not cached"
        theirs = f"{view.partner}: {view.partner_target} {view.partner_target_name}"
        partner = "-" if view.partner is None else theirs
        mark = {True: "=", False: "~" if view.label == view.partner_target else "!", None: ""}[view.agrees]
        rows.append([view.view, view.mix, view.lam, mark, said, partner])
        colors.append({"=": "green", "!": "red"}.get(mark))
    heading = f"{found.key} in {found.shard}: target {found.target} {found.target_name}{agreement}"
    say(printable(heading, keep="") + "\n")
    click.echo(table(["view", "mix", "lambda", "", "label", "partner"], rows, colors=colors))
    say("\n= the target, ~ the partner's, ! neither")
    top = [
        [view.view, ", ".join(f"{name.partition(',')[0] or number} {share:.0%}" for number, name, share in view.topk)]
        for view in found.views
        if view.topk
    ]
    if top:
        click.echo("\n" + table(["view", "most likely"], top))


@inspect.command("show")
@with_options(store_argument, click.argument("keys", nargs=-1, required=True), shards_option)
@click.option("--out", type=LOCAL_PATH, default=Path("grid.png"), show_default=True, help="A PNG file.")
@click.option("--views", default="8", show_default=True, help="How many views of each sample, or which: FIRST:END.")
@click.option("--steps", is_flag=True, help="A row a view: from the original, step by step, to the mixed view.")
@click.option("--plan", is_flag=True, help="Also print the steps in words.")
def inspect_show(
    cache: Path, keys: Sequence[str], shards: Sequence[str], out: Path, views: str, steps: bool, plan: bool
) -> None:
    """Draw the samples KEYS and their views, as the teacher saw them, into one picture.

    \b
    Example: distillcache inspect show regnety.zarr n01440764_10026 --shards 'train-*.tar' --out grid.png
             distillcache inspect show regnety.zarr n01440764_10026 --shards 'train-*.tar' --views 3:4 --steps --plan
    """
    from ..cache.store import Store
    from ..datasets.shards.files import expand
    from ..inspection.lookup import find
    from ..inspection.pictures import plan_in_words, show
    from ..runtime import atomic

    require_output("out", out, ".png")
    store = Store(cache)
    samples = store.samples(expand(shards))
    wanted = range(min(int(views), store.views)) if views.isdecimal() and int(views) else _range(views, store.views)
    picture = show(store, keys, samples, wanted, steps=steps)
    atomic.write(out, lambda file: picture.save(file, "PNG"))
    for key in keys if plan else ():
        plans = plan_in_words(store, find(store, key), samples, wanted)
        lines = [f"view {view}: {words}" for view, words in zip(wanted, plans, strict=True)]
        say("\n  ".join(printable(line, keep="") for line in (key, *lines)))
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
@click.option("--batch-size", type=click.IntRange(1), default=64, show_default=True, help="Views rendered at once.")
@with_options(workers_option, device_option, as_json_flag)
def inspect_verify(cache: Path, shards: Sequence[str], views: str | None, fraction: float, **options: Any) -> None:
    """Render views again and compare them with the store: exit code 1 where they differ.

    With all views of all samples, the shards' SHA-256 are compared too.

    \b
    Example: distillcache inspect verify regnety.zarr --shards 'train-*.tar' --fraction 0.01
    """
    from ..cache import verify as verifying
    from ..cache.store import Store
    from ..datasets.shards.files import expand
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
