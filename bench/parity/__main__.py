"""Hold distillcache beside the published DeiT and print by how much they differ.

    python bench/parity DEIT [--photos FOLDER] [--page docs/parity.md]

DEIT is a checkout of facebookresearch/deit. The published code runs in a process of its own with timm 0.3.2 and Pillow
9.5, which lie in a folder of their own. Exit code 1: something differs by more than it may.
"""

import os
import platform
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Any

import click
import ours_pixels
import ours_step
import ours_training
import ours_views
import torch
from comparison import Comparison, exit_code, table

from distillcache.datasets.samples import Samples, samples_of
from distillcache.datasets.shards.files import expand
from distillcache.datasets.shards.index import index_shards

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
DATA = ROOT.parent / "shared" / "data"
HEADING = "## The table"


@click.command(help=__doc__)
@click.argument("deit", type=click.Path(path_type=Path, exists=True, file_okay=False))
@click.option("--beside", type=click.Path(path_type=Path), default=ROOT / ".parity", help="Where timm 0.3.2 lies.")
@click.option("--photos", type=click.Path(path_type=Path), default=DATA / "imagenet-sample", help="Shards of photos.")
@click.option(
    "--teacher",
    type=click.Path(path_type=Path),
    default=DATA / "teachers" / "mobilenetv2_100.imagenet1k",
    help="A model to evaluate.",
)
@click.option("--page", type=click.Path(path_type=Path, exists=True), help="Write the table into this page, too.")
def main(deit: Path, beside: Path, photos: Path, teacher: Path, page: Path | None) -> None:
    if not (deit / "engine.py").is_file():
        raise click.ClickException(f"DEIT: expected a checkout of facebookresearch/deit, found no engine.py in {deit}")
    if not (beside / "timm").is_dir():
        raise click.ClickException(
            f"beside: expected timm 0.3.2 and Pillow 9.5, found none in {beside}; run make parity"
        )
    torch.set_num_threads(1)  # sums in one order
    samples = photos_in(photos)
    comparisons = list(compared_with(samples, teacher))
    answers = ask(comparisons, deit, beside)
    rows = [(comparison.name, comparison.rows(answers)) for comparison in comparisons]
    text = f"{versions(answers, int(samples.count.sum()) if samples else 0)}\n\n{table(rows)}"
    click.echo(text)
    if page and samples:
        write(page, text)
    sys.exit(exit_code(row for _, of_group in rows for row in of_group))


def photos_in(folder: Path) -> Samples | None:
    """Return the photos of the shards in a folder, if there are any."""
    if not any(folder.glob("*.tar")):
        click.echo(
            f"SKIPPED ops and evaluation: no shards of photos in {folder}; name a folder with --photos", err=True
        )
        return None
    return samples_of(index_shards(expand(str(folder / "*.tar")), digest=False), 0)


def compared_with(photos: Samples | None, teacher: Path) -> Iterator[Comparison]:
    """Yield all comparisons that can be made here."""
    yield ours_training.defaults()
    yield ours_training.losses()
    yield ours_training.optimiser()
    yield ours_training.schedule()
    yield ours_training.groups()
    yield ours_training.initialisation()
    yield ours_step.steps()
    yield ours_views.order()
    yield ours_views.mixing()
    yield ours_views.transforms()
    yield ours_views.small()
    if photos:
        files = ours_pixels.read(photos)
        yield ours_pixels.crops(files)
        yield ours_pixels.ops(files)
        yield ours_pixels.rounding(files)
        yield ours_pixels.evaluation(photos, files, teacher if teacher.is_dir() else None)


def ask(comparisons: list[Comparison], deit: Path, beside: Path) -> dict[str, Any]:
    """Return the published side's answers to all comparisons, by function."""
    path = os.pathsep.join(str(folder.resolve()) for folder in (beside, deit))
    environment = {**os.environ, "PYTHONPATH": path, "CUDA_VISIBLE_DEVICES": "", "PYTHONDONTWRITEBYTECODE": "1"}
    with tempfile.TemporaryDirectory() as folder:
        asked, answered = Path(folder) / "asked.pt", Path(folder) / "answered.pt"
        torch.save({name: what for comparison in comparisons for name, what in comparison.ask.items()}, asked)
        command = [sys.executable, str(HERE / "published.py"), str(asked), str(answered)]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
        if done.returncode:
            raise click.ClickException(f"the published code failed:\n{done.stderr}")
        answers: dict[str, Any] = torch.load(answered, weights_only=True)
    return answers


def versions(answers: dict[str, Any], photos: int) -> str:
    """Return what was compared, in one line."""
    ours = ", ".join(f"{name} {version(name)}" for name in ("timm", "pillow", "torch", "torchvision"))
    theirs = f"timm {answers['defaults']['timm']}, Pillow {answers['defaults']['pillow']}"
    return f"Python {platform.python_version()}; ours: {ours}; published: {theirs}, the same torch; {photos} photos."


def write(page: Path, text: str) -> None:
    """Put the table where the page has its last one."""
    before, heading, _ = page.read_text().rpartition(HEADING)
    page.write_text(f"{before}{heading}\n\n{text}\n")


if __name__ == "__main__":
    main()
