"""`distillcache inspect verify`."""

import json
import sys
from collections.abc import Sequence
from dataclasses import asdict

import click

from ...runtime.paths import AnyPath
from ..mirror import mirror_options
from ..options import (
    as_json_flag,
    copy_option,
    device_option,
    say,
    store_argument,
    views_named,
    with_options,
    workers_option,
)
from ..paths import NAME
from ..progress import bar
from ..shards import stored_samples


@click.command("verify")
@with_options(store_argument, copy_option)
@click.option("--views", metavar="FIRST:END", help="Only these views of each sample, such as 0:3.  [default: all]")
@click.option(
    "--fraction",
    type=click.FloatRange(0, 1),
    default=1.0,
    show_default=True,
    help="Share of the samples, taken at random.",
)
@click.option("--teacher", type=NAME, multiple=True, help="Also ask the teacher again: a name as for cache-teacher.")
@click.option("--batch-size", type=click.IntRange(1), default=64, show_default=True, help="Views rendered at once.")
@with_options(*mirror_options, workers_option, device_option, as_json_flag)
def inspect_verify(
    cache: AnyPath,
    shards: Sequence[str],
    views: str | None,
    fraction: float,
    teacher: Sequence[str],
    batch_size: int,
    workers: int | None,
    device_name: str,
    as_json: bool,
) -> None:
    """Render views again and compare them with the store: exit code 1 where they differ.

    With all views of all samples, the shards' SHA-256 are compared too.

    \b
    Example: distillcache inspect verify regnety.zarr --shards 'train-*.tar' --fraction 0.01
    """
    from ...cache import verify as verifying
    from ...runtime.devices import device_and_workers
    from ..opening import open_store, open_teacher

    store = open_store(cache)
    samples, wanted = stored_samples(store, shards), views_named(views, store.views)
    device, workers = device_and_workers(device_name, workers)
    record = store.manifest.teacher
    amp, size = record.dtype == "bfloat16", record.input_size
    model = open_teacher(teacher, device=device, amp=amp, size=size) if teacher else None
    rows = verifying.rows_to_verify(store, samples, wanted, fraction)
    with bar("verify", sum(map(len, rows)), "views") as shown:
        found = verifying.verify(
            store,
            samples,
            rows,
            teacher=model,
            digests=fraction == 1 and len(wanted) == store.views,
            workers=workers,
            batch_size=batch_size,
            reporter=shown,
        )
    say(json.dumps(asdict(found) | {"passed": found.passed}, indent=2) if as_json else str(found))
    if not found.passed:
        sys.exit(1)
