"""`distillcache make-shards`, and reading shards with a bar."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from .options import SEED
from .progress import bar

if TYPE_CHECKING:
    from ..datasets.shards import Samples, ShardIndex


@click.command("make-shards")
@click.argument("source")
@click.argument("out", type=click.Path(path_type=Path))
@click.option("--per-shard", type=click.IntRange(1), default=1000, show_default=True, help="Samples in a shard.")
@click.option("--seed", type=SEED, default=0, show_default=True, help="Seed of the shuffle.")
def make_shards(source: str, out: Path, per_shard: int, seed: int) -> None:
    """Pack SOURCE, a folder of class folders or `digits`, into WebDataset tars in the folder OUT.

    \b
    Example: distillcache make-shards imagenet/train shards/ --per-shard 1252
    """
    from ..datasets import writer

    def progress(shards: Sequence[Sequence[writer.Entry]]) -> Any:
        with bar("make-shards", len(shards), "shards") as shown:
            for shard in shards:
                yield shard
                shown.update(1)

    samples = writer.make_shards(source, out, per_shard=per_shard, seed=seed, progress=progress)
    click.echo(f"{out}: " + ", ".join(f"{n} {split} samples" for split, n in samples.items()))


def read_index(shards: Sequence[str], *, digest: bool) -> "list[ShardIndex]":
    """Return the index of every shard that `shards` names, read under a bar; `digest`: with its SHA-256."""
    from ..datasets.shards import expand, index_shards

    urls = expand(shards)
    with bar("reading shards", len(urls), "shards") as shown:

        def counted(indexes: Any) -> Any:
            for index in indexes:
                yield index
                shown.update(1)

        return index_shards(urls, digest=digest, progress=counted)


def held_out(shards: Sequence[str]) -> "Samples | None":
    """Return the samples of held-out shards, if any are named."""
    from ..datasets.shards import samples_of

    return samples_of(read_index(shards, digest=False), 0) if shards else None
