"""How often a teacher agrees with the ground truth, by the strength of the recipe.

    python bench/agreement.py --shards 'val-*.tar' --teacher NAME --out FOLDER [--views 6]

Caches the shards by the recipes none, crop and deit, mixed and not, into FOLDER and prints the share of labels that are
the sample's own class, or its own or its partner's, beside the teacher's top-1 by timm's own evaluation transform.
"""

import io
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import click
import timm
import torch
import webdataset
from PIL import Image

from distillcache.cache.store import Store
from distillcache.datasets.shards.files import expand
from distillcache.inspection.relations import NEITHER, TARGET, mixed, relations
from distillcache.runtime.devices import find_device

RECIPES = {"none": [], "crop": [], "deit": [], "deit without mixing": ["--set", "mix_prob=0"]}


def by_timm(shards: Sequence[str], name: str, device: torch.device) -> float:
    """Return the teacher's top-1, percent, with nothing of ours: webdataset, Pillow and timm's transform."""
    source = f"local-dir:{name}" if Path(name).is_dir() else name
    model = timm.create_model(source, pretrained=True).eval().to(device)
    transform = timm.data.create_transform(**timm.data.resolve_data_config(model=model))
    right = total = 0
    dataset = webdataset.WebDataset(expand(shards), shardshuffle=False).batched(64, collation_fn=list, partial=True)
    for batch in dataset:
        images = [next(part[ext] for ext in ("jpg", "jpeg", "png", "webp") if ext in part) for part in batch]
        stacked = torch.stack([transform(Image.open(io.BytesIO(image)).convert("RGB")) for image in images])
        with torch.inference_mode():
            said = model(stacked.to(device)).argmax(1).cpu()
        right += int((said == torch.tensor([int(part["cls"]) for part in batch])).sum())
        total += len(batch)
    return 100 * right / total


def agreement(store: Store) -> tuple[float, float, int]:
    """Return the percentage of labels that are the own class, and the own or the partner's, and their number."""
    own = either = total = 0
    for shard, count in enumerate(store.counts.tolist()):
        label = store.read(range(store.views), shard).label[:, :count]
        partner = mixed(store, shard, range(store.views)).partner
        relation = relations(label, store.targets()[shard, :count], partner)
        own += int((relation == TARGET).sum())
        either += int((relation != NEITHER).sum())
        total += label.size
    return 100 * own / total, 100 * either / total, total


@click.command(help=__doc__)
@click.option("--shards", multiple=True, required=True)
@click.option("--teacher", required=True)
@click.option("--out", type=click.Path(path_type=Path), required=True)
@click.option("--views", default=6, show_default=True)
@click.option("--device", default="auto", show_default=True)
def main(shards: Sequence[str], teacher: str, out: Path, views: int, device: str) -> None:
    direct = by_timm(shards, teacher, find_device(device))
    rows = []
    for recipe, more in RECIPES.items():
        path, name = out / f"{recipe.replace(' ', '-')}.zarr", recipe.partition(" ")[0]
        command = [
            sys.executable,
            "-m",
            "distillcache.cli",
            "cache-teacher",
            "--teacher",
            teacher,
            "--recipe",
            name,
            *more,
        ]
        command += [part for shard in shards for part in ("--shards", shard)]
        command += ["--cache", str(path), "--views", str(1 if name == "none" else views), "--device", device]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        own, either, labels = agreement(Store(path))
        rows.append(f"| {recipe} | {labels:,} | {own:.2f}% | {either:.2f}% |")
    click.echo(f"{teacher}: top-1 by timm's own transform {direct:.2f}%\n")
    click.echo("\n".join(["| recipe | labels | own class | own or partner's class |", "|---|---|---|---|", *rows]))


if __name__ == "__main__":
    main()
