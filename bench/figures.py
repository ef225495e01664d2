"""What a benchmark finds: figures with their targets, and how contenders are timed beside each other."""

import dataclasses
import json
import os
import statistics
import sys
import time
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

import numpy as np
import torch
import webdataset
from PIL import Image

from distillcache.datasets.shards.files import expand

ROUNDS = int(os.environ.get("BENCH_ROUNDS", "5"))
CORES = sorted(os.sched_getaffinity(0))
PHOTOS = Path(__file__).resolve().parents[2] / "shared" / "data" / "imagenet-sample"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Figure:
    """One line of the table. `value` is what the target is about: a ratio, bytes, seconds."""

    what: str
    ours: str
    theirs: str
    value: float
    unit: str
    target: float
    at_least: bool = True

    @property
    def reached(self) -> bool:
        return self.value >= self.target if self.at_least else self.value <= self.target


@dataclasses.dataclass(frozen=True, kw_only=True)
class Skipped:
    """A figure that this machine can't measure, and why."""

    what: str
    reason: str


def report(measure: Callable[[], Iterable[Figure | Skipped]]) -> None:
    """Print what `measure` yields: for people, or with --json, a line of JSON each for `run.py`."""
    for found in measure():
        if "--json" in sys.argv:
            print(json.dumps({"kind": type(found).__name__, **dataclasses.asdict(found)}), flush=True)
        else:
            print(text(found), flush=True)


def text(found: Figure | Skipped) -> str:
    if isinstance(found, Skipped):
        return f"SKIPPED {found.what}: {found.reason}"
    sign, verdict = (">=", "<=")[not found.at_least], "ok" if found.reached else "MISSED"
    value = f"{found.value:.4g}{found.unit}"
    return f"{verdict:<7} {found.what}: {found.ours} | {found.theirs} | {value} ({sign} {found.target:g}{found.unit})"


def on_cores(cores: int) -> None:
    """Keep this process, and those that it starts, to `cores` cores and as many threads."""
    import cv2

    os.sched_setaffinity(0, set(CORES[:cores]))
    torch.set_num_threads(cores)
    cv2.setNumThreads(0)


def rates(contenders: Mapping[str, Callable[[], int]], rounds: int = ROUNDS) -> dict[str, list[float]]:
    """Return the rates of each contender: things a second, one for each round; all take turns within a round.

    A contender does some work and returns how many things it did. The first, untimed turn of each warms it up.
    """
    found: dict[str, list[float]] = {name: [] for name in contenders}
    for turn in range(rounds + 1):
        for name, work in contenders.items():
            started = time.perf_counter()
            done = work()
            if turn:
                found[name].append(done / (time.perf_counter() - started))
    return found


def ratio(found: Mapping[str, list[float]], ours: str, theirs: str) -> float:
    """Return the median over rounds of the ratio within a round."""
    return statistics.median(a / b for a, b in zip(found[ours], found[theirs], strict=True))


def median(found: Mapping[str, list[float]], name: str) -> str:
    value = statistics.median(found[name])
    return f"{value:,.0f}/s" if value >= 100 else f"{value:.3g}/s"


def photo_shards(folder: Path) -> list[str]:
    """Return shards of real photos: of BENCH_SHARDS, of ImageNet where they are at hand, or cut from scikit-learn's."""
    if os.environ.get("BENCH_SHARDS"):
        return expand(os.environ["BENCH_SHARDS"])
    if PHOTOS.is_dir():
        return expand(str(PHOTOS / "*.tar"))
    from sklearn.datasets import load_sample_images

    folder.mkdir(parents=True, exist_ok=True)
    rng, path = np.random.default_rng(0), folder / "photos-000000.tar"
    if not path.exists():
        with webdataset.TarWriter(str(path), mtime=0.0) as tar:
            for i in range(160):
                photo = Image.fromarray(load_sample_images().images[i % 2])
                left, top = rng.integers(0, [photo.width - 500, photo.height - 375])
                cut = photo.crop((left, top, left + 500, top + 375))
                tar.write({"__key__": f"{i:04d}", "jpg": np.asarray(cut), "cls": i % 10})
    return [str(path)]
