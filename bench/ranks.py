"""Several ranks: two on two cores beside one on one, both stages; and how long 64 and 512 would wait for each other.

Ranks are real processes under torchrun, each on a core of its own. The simulation runs the scheduling code itself, on a
real rendezvous store: only the units are slept instead of labelled.
"""

import os
import random
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import numpy as np
import torch
from figures import CORES, Figure, Skipped, photo_shards, report
from stages import BATCH, CPU, new_store, random_teacher, training_of
from torch.distributed import TCPStore

from distillcache.cache.claims import claims_on
from distillcache.cache.fill import fill
from distillcache.cache.records import Unit
from distillcache.cache.store import Store
from distillcache.cache.turns import Turn
from distillcache.datasets.samples import Samples
from distillcache.models.loading import load_teacher
from distillcache.runtime import processes
from distillcache.runtime.crew import Crew, join
from distillcache.runtime.ranks import Rank, this_rank

VIEWS, STEPS, TURNS = 24, 8, 2
SHARDS, BLOCKS, PER_SHARD = 1024, 25, 1251  # ImageNet, 300 views
SECONDS = 40.0  # that a simulated run takes
DRAWN_AHEAD = 0.4  # of a unit's time: what is rendered while the teacher is at the unit before


def main() -> Iterator[Figure | Skipped]:
    for ranks in (64, 512):
        idle = simulated(ranks)
        yield Figure(
            what=f"idle time of {ranks} ranks, of which the slowest has half the speed of the fastest",
            ours=f"{100 * idle:.2f}%", theirs="", value=100 * idle, unit="%", target=2.0, at_least=False,
        )  # fmt: skip
    if len(CORES) < 2:
        yield Skipped(what="two ranks beside one", reason="one core")
        return
    with tempfile.TemporaryDirectory() as folder:
        urls = photo_shards(Path("runs/bench"))
        new_store(Path(folder) / "labelled.zarr", urls, random_teacher("regnety_002", Path(folder)), views=3)
        for stage in (1, 2):
            found = [[launched(stage, ranks, Path(folder)) for ranks in (2, 1)] for _ in range(TURNS)]
            two, one = (statistics.median(rates) for rates in zip(*found, strict=True))
            yield Figure(
                what=f"stage {stage}: two ranks on two cores beside twice one on one", ours=f"{two:,.1f}/s",
                theirs=f"{2 * one:,.1f}/s", value=statistics.median(a / b / 2 for a, b in found), unit="x", target=0.93,
            )  # fmt: skip


def simulated(ranks: int) -> float:
    """Return the share of all ranks' time in which they do nothing."""
    keys = TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)
    unit = SECONDS * ranks / (SHARDS * BLOCKS)
    blocks = [range(12 * block, 12 * (block + 1)) for block in range(BLOCKS)]
    units = [Unit(shard=shard, block=block, views=blocks[block]) for block in range(BLOCKS) for shard in range(SHARDS)]
    manifest = SimpleNamespace(shards=range(SHARDS))
    store = cast(Store, SimpleNamespace(
        units=lambda: units, counts=np.full(SHARDS, PER_SHARD), views=12 * BLOCKS, blocks=blocks, manifest=manifest
    ))  # fmt: skip
    samples = cast(Samples, SimpleNamespace(supply=None))

    def rank(number: int) -> tuple[float, float, float]:
        """Return when a rank began and ended, and the seconds in which it had something to do."""
        own = TCPStore("127.0.0.1", keys.port, is_master=False, timeout=timedelta(seconds=300))
        each, busy = unit * random.Random(number).uniform(2 / 3, 4 / 3), 0.0
        with Crew(Rank(rank=number, world=ranks), own) as crew:
            turn = Turn(0, store, samples, crew)
            crew.gather("ready", "")
            crew.agreed("go", lambda: "")
            started = ended = time.monotonic()
            drawn = turn.draw()
            ready = next(drawn, None)
            while ready:
                began = time.monotonic()
                time.sleep((1 - DRAWN_AHEAD) * each)
                ready = next(drawn, None)
                time.sleep(DRAWN_AHEAD * each)
                turn.committed(12 * PER_SHARD)
                ended = time.monotonic()
                busy += ended - began
            turn.end()
        return started, ended, busy

    with ThreadPoolExecutor(ranks) as pool:
        started, ended, busy = zip(*pool.map(rank, range(ranks)), strict=True)
    return 1 - sum(busy) / (ranks * (max(ended) - min(started)))


def launched(stage: int, ranks: int, folder: Path) -> float:
    """Return the views or images a second of so many ranks, each on its core."""
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(ranks)]
    asked = subprocess.run(
        [*command, __file__, str(stage), folder], env={**os.environ, "OMP_NUM_THREADS": "1"}, capture_output=True,
        text=True, check=False,
    )  # fmt: skip
    if asked.returncode:
        raise RuntimeError(asked.stderr)
    return float(asked.stdout.split()[-1])


def work(stage: int, folder: Path) -> None:
    """Be one rank, and print the rate of all in the first."""
    os.sched_setaffinity(0, {CORES[this_rank().local]})
    torch.set_num_threads(1)
    urls = photo_shards(Path("runs/bench"))
    rate = (stage1 if stage == 1 else stage2)(urls, folder)
    if this_rank().rank == 0:
        print(rate)


def stage1(urls: list[str], folder: Path) -> float:
    path = folder / f"{this_rank().world}.zarr"
    teacher = load_teacher(str(folder / "regnety_002"), device=CPU, amp=True)
    with join() as crew, claims_on(path) as claims:
        with crew.first_before_others("made"):
            if crew.first:
                shutil.rmtree(path, ignore_errors=True)
                new_store(path, urls, teacher, views=VIEWS, filled=False)
            store = Store(path)
        samples = store.samples(urls)
        teacher.logits(torch.zeros((64, 224, 224, 3), dtype=torch.uint8))  # the first of a process takes a second
        crew.gather("ready", "")
        crew.agreed("go", lambda: "")
        began = time.monotonic()
        fill(store, samples, teacher, claims, views=VIEWS, batch_size=64, workers=0, crew=crew)
        return VIEWS * int(store.counts.sum()) / (time.monotonic() - began)


def stage2(urls: list[str], folder: Path) -> float:
    ranks = processes.join("cpu")
    batch = BATCH * ranks.world
    training, batches = training_of(Store(folder / "labelled.zarr"), urls, folder, batch=batch, processes=ranks)
    for step in range(2 + STEPS):
        if step == 2:
            ranks.gather("")
            began = time.monotonic()
        training._step(next(batches), 0, step)
    ranks.gather("")
    rate = STEPS * batch / (time.monotonic() - began)
    processes.leave()
    return rate


if __name__ == "__main__":
    if sys.argv[1:2] in (["1"], ["2"]):
        work(int(sys.argv[1]), Path(sys.argv[2]))
    else:
        report(main)
