"""How soon a command answers, and how soon worker processes have their first batch."""

import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from figures import Figure, Skipped, photo_shards, report
from store import simulated
from torch.utils.data import DataLoader, Dataset

from distillcache.datasets.augment.recipes import named
from distillcache.datasets.loader import Loader
from distillcache.datasets.order import in_sequence
from distillcache.datasets.samples import samples_of
from distillcache.datasets.shards.index import index_shards
from distillcache.datasets.views import Renderer

COMMAND = [sys.executable, "-m", "distillcache.cli"]


def main() -> Iterator[Figure | Skipped]:
    with tempfile.TemporaryDirectory() as folder:
        simulated(Path(folder) / "small.zarr", shards=4)
        yield seconds("distillcache --help", ["--help"], 0.5)
        yield seconds("distillcache inspect info", ["inspect", "info", str(Path(folder) / "small.zarr")], 1.0)
    yield first_batch()


def seconds(what: str, arguments: list[str], target: float) -> Figure:
    taken = []
    for _ in range(6):
        started = time.perf_counter()
        subprocess.run([*COMMAND, *arguments], check=True, stdout=subprocess.DEVNULL)
        taken.append(time.perf_counter() - started)
    value = statistics.median(taken[1:])
    return Figure(what=what, ours=f"{value:.2f} s", theirs="-", value=value, unit=" s", target=target, at_least=False)


def first_batch() -> Figure:
    """From nothing to a batch of two workers: ours from a clean process, torch's forked from the one with all in it."""
    taken: dict[str, list[float]] = {"ours": [], "forked": []}
    for _ in range(4):
        for name, seconds_taken in taken.items():
            done = subprocess.run(
                [sys.executable, __file__, "--first", name], check=True, capture_output=True, text=True
            )
            seconds_taken.append(float(done.stdout))
    ours, forked = (statistics.median(taken[name][1:]) for name in ("ours", "forked"))
    return Figure(
        what="first batch of two workers, beside torch's DataLoader that forks", ours=f"{ours:.2f} s",
        theirs=f"{forked:.2f} s", value=ours, unit=" s", target=6, at_least=False,
    )  # fmt: skip


def time_first_batch(name: str) -> float:
    samples = samples_of(index_shards(photo_shards(Path("runs/bench")), digest=False), 0)
    renderer, rows = Renderer(named("deit"), samples), in_sequence(samples.count.tolist())[:32]
    started = time.perf_counter()
    if name == "ours":
        with Loader(renderer, workers=2) as loader:
            next(loader.load(iter([rows] * 4)))
            return time.perf_counter() - started
    next(iter(DataLoader(_Forked(renderer, rows), batch_size=None, num_workers=2)))
    return time.perf_counter() - started


class _Forked(Dataset):  # type: ignore[type-arg]
    def __init__(self, renderer: Renderer, rows: object) -> None:
        self.renderer, self.rows = renderer, rows

    def __len__(self) -> int:
        return 4

    def __getitem__(self, number: int) -> object:
        return self.renderer(self.rows).images  # type: ignore[arg-type]


if __name__ == "__main__":
    if "--first" in sys.argv:
        print(time_first_batch(sys.argv[-1]))
    else:
        report(main)
