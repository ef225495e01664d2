"""The store: bytes a view, and ImageNet with 300 views, simulated: opening it, looking into it, one cycle of it."""

import io
import json
import os
import statistics
import subprocess
import sys
import tarfile
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
from figures import CORES, PHOTOS, Figure, Skipped, photo_shards, rates, ratio, report

from distillcache.cache.manifest import Manifest, TeacherRecord
from distillcache.cache.records import Labels, Probes, Unit
from distillcache.cache.store import Store
from distillcache.cli import main as cli
from distillcache.datasets.augment.recipes import named
from distillcache.datasets.samples import samples_of
from distillcache.datasets.shards.copies import read_copy
from distillcache.datasets.shards.files import sha256_of
from distillcache.datasets.shards.index import Shard, ShardIndex, index_shards
from distillcache.datasets.shards.mirror import Mirror
from distillcache.inspection.info import info, info_text
from distillcache.train.loop import Training

CLASSES, SAMPLES, VIEWS = 1000, 1252, 300
TINYVIT = "TinyViT 44"
TEACHER = PHOTOS.parent / "teachers" / "mobilenetv2_100.imagenet1k"


def main() -> Iterator[Figure | Skipped]:
    with tempfile.TemporaryDirectory() as folder:
        image = one_image(Path(folder))
        few = simulated(Path(folder) / "few.zarr", shards=8, image=image)
        nbytes, views = few.chunks.nbytes(), VIEWS * int(few.counts.sum())
        label, check = nbytes["label"] / views, nbytes["check"] / views
        yield limit("store, labels alone, deit recipe, simulated labels", label, TINYVIT, " B/view", 1.3)
        yield limit("store, labels and checks", label + check, TINYVIT, " B/view", 3.4)
        yield from topk(Path(folder))
        yield found_in_a_copy(Path(folder))
        simulated(Path(folder) / "imagenet.zarr", shards=1024, image=image)
        timed = [in_a_process(Path(folder) / "imagenet.zarr") for _ in range(3)]
        median = {name: statistics.median(one[name] for one in timed) for name in timed[0]}
        what = f"ImageNet simulated ({CLASSES} classes, 1,024 shards, {VIEWS} views)"
        yield limit(f"{what}: open the store", median["open"], "-", " s", 0.2)
        yield limit(f"{what}: inspect info", median["info"], "-", " s", 2)
        yield limit(f"{what}: inspect label", command(folder, "label", "n000500_00600"), "-", " s", 2)
        yield limit(f"{what}: inspect keys, all of them", command(folder, "keys"), "-", " s", 2)
        yield limit(f"{what}: inspect stats", command(folder, "stats"), "-", " s", 60)
        yield limit(f"{what}: one cycle's labels and order", median["cycle"], "-", " s", 1)
        yield limit(f"{what}: memory for that, beyond the imports", median["memory"], "-", " MB", 300)
        all_shards, few_shards = (first_step(Path(folder), 8, name) for name in ("imagenet", "few"))
        yield Figure(
            what=f"{what}: what it adds to the time to the first step of 8 ranks on {len(CORES)} cores",
            ours=f"{all_shards:.1f} s", theirs=f"{few_shards:.1f} s with 8 shards", value=all_shards - few_shards,
            unit=" s", target=15, at_least=False,
        )  # fmt: skip


def limit(what: str, value: float, theirs: str, unit: str, target: float) -> Figure:
    return Figure(
        what=what, ours=f"{value:.3g}{unit}", theirs=theirs, value=value, unit=unit, target=target, at_least=False
    )


def one_image(folder: Path) -> int:
    """Make 1,024 shards of one photo each, which is all that a simulated store's samples show; return its bytes."""
    samples = samples_of(index_shards(photo_shards(Path("runs/bench")), digest=False), 0)
    image = samples.read(0, 0)
    (folder / "image").write_bytes(image)
    for n in range(1024):
        (folder / f"train-{n:06d}.tar").hardlink_to(folder / "image")
    return len(image)


def simulated(path: Path, *, shards: int, topk: int = 0, image: int = 0) -> Store:
    """A full store whose labels are the sample's class in 55% of the views, the partner's in 30%, any in 15%.

    With `image` every sample is the first so many bytes of its shard, which has no others.
    """
    rng = np.random.default_rng(0)
    targets = [rng.integers(0, CLASSES, SAMPLES).tolist() for _ in range(min(8, shards))]
    targets += targets[-1:] * (shards - len(targets))
    indexes = [
        ShardIndex(
            shard=Shard(name=f"train-{n:06d}.tar", nbytes=image or 1, sha256="0" * 64), url=f"train-{n:06d}.tar",
            keys=[f"n{n:06d}_{i:05d}" for i in range(SAMPLES)], targets=targets[n],
            offsets=[0] * SAMPLES if image else list(range(0, SAMPLES * 110_000, 110_000)),
            nbytes=[image] * SAMPLES if image else rng.integers(50_000, 200_000, SAMPLES).tolist(),
        )
        for n in range(shards)
    ]  # fmt: skip
    manifest = Manifest(
        recipe=named("deit"),
        teacher=TeacherRecord(
            name="regnety_160", sha256="0" * 64, mean=(0.5,) * 3, std=(0.5,) * 3, input_size=224, dtype="bfloat16",
            classes=CLASSES,
        ),
        seed=0, topk=topk, shards=tuple(index.shard for index in indexes), class_names=(), versions={}, created="",
    )  # fmt: skip
    probes = Probes(
        views=np.zeros((8, 224, 224, 3), np.uint8),
        logits=np.zeros((8, CLASSES), np.float32),
        at=np.zeros((8, 3), np.int32),
    )
    store = Store.create(path, manifest, samples_of(indexes, 0), probes)
    store.extend(VIEWS)
    order, truth = store.order(), store.targets()
    os.fsync = lambda file: None  # a simulated store need not outlive a power cut
    for block, views in enumerate(store.blocks):
        for shard in range(shards):
            if shard < 8:  # drawing labels takes longer than storing them: later shards have the eighth's
                labels = unit_labels(rng, order, truth[shard], shard, views)
            store.write(Unit(shard=shard, block=block, views=views), labels)
    return store


def unit_labels(rng: np.random.Generator, order, target, shard: int, views: range) -> Labels:  # type: ignore[no-untyped-def]
    partner = order.partners(shard, views)
    chance = rng.random((len(views), SAMPLES))
    anything = rng.integers(0, CLASSES, chance.shape)
    label = np.where(chance < 0.55, target[None], np.where(chance < 0.85, target[partner], anything))
    check = rng.integers(0, 2**16, chance.shape)
    return Labels(label=label.astype(np.uint32), check=check.astype(np.uint16))


def topk(folder: Path) -> Iterator[Figure | Skipped]:
    """Real logits of a real teacher on real photos: random ones would not compress as they do."""
    what = "store with --topk 10, labels and checks included, a pretrained MobileNetV2 on ImageNet photos"
    if not TEACHER.is_dir():
        yield Skipped(what=what, reason="no pretrained teacher at hand")
        return
    path = folder / "topk.zarr"
    command = ["cache-teacher", "--cache", str(path), "--teacher", str(TEACHER), "--topk", "10", "--views", "12"]
    shards = [part for url in photo_shards(Path("runs/bench")) for part in ("--shards", url)]
    subprocess.run([sys.executable, "-m", "distillcache.cli", *command, *shards], check=True, stdout=subprocess.DEVNULL)
    found = info(Store(path))
    yield limit(what, found["bytes_per_view"], TINYVIT, " B/view", 36)


def found_in_a_copy(folder: Path) -> Figure:
    """Images of tars that are packed otherwise than a store's: each is read and hashed."""
    samples = samples_of(index_shards(photo_shards(Path("runs/bench")), digest=False), 0)
    photos = [samples.read(shard, i) for shard in range(len(samples.count)) for i in range(int(samples.count[shard]))]
    for number in range(4):
        with tarfile.open(folder / f"copy-{number}.tar", "w") as tar:
            for i in range(1500):
                photo = photos[i % len(photos)] + (1500 * number + i).to_bytes(4)
                member = tarfile.TarInfo(f"{i:06d}.jpg")
                member.size = len(photo)
                tar.addfile(member, io.BytesIO(photo))
    paths = sorted(folder.glob("copy-*.tar"))
    nbytes = sum(path.stat().st_size for path in paths)

    def read() -> int:
        read_copy([*map(str, paths)], Mirror(Path(tempfile.mkdtemp(dir=folder))))
        return nbytes

    def hashed() -> int:
        with ThreadPoolExecutor() as pool:
            list(pool.map(sha256_of, map(str, paths)))
        return nbytes

    found = rates({"ours": read, "sha256": hashed}, rounds=3)
    ours, theirs = (statistics.median(found[name]) / 1e9 for name in ("ours", "sha256"))
    return Figure(
        what="images found in a copy that is packed otherwise, beside the SHA-256 of its tars on all cores",
        ours=f"{ours:.2f} GB/s", theirs=f"{theirs:.2f} GB/s", value=ratio(found, "ours", "sha256"), unit="x",
        target=0.5,
    )  # fmt: skip


def in_a_process(path: Path) -> dict[str, float]:
    done = subprocess.run([sys.executable, __file__, "--open", str(path)], check=True, capture_output=True, text=True)
    return {name: float(value) for name, value in json.loads(done.stdout).items()}


def command(folder: str, name: str, *arguments: str) -> float:
    """Return the seconds that `distillcache inspect` takes, from the shell and back."""
    started = time.perf_counter()
    line = [sys.executable, "-m", "distillcache.cli", "inspect", name, f"{folder}/imagenet.zarr", *arguments]
    subprocess.run(line, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    return time.perf_counter() - started


def first_step(folder: Path, ranks: int, name: str) -> float:
    """Return the seconds that train-student takes to its first step, as torchrun's ranks on this machine's cores."""
    shards = f"{folder}/train-{{000000..{1023 if name == 'imagenet' else 7:06d}}}.tar"
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(ranks), __file__]
    command += ["--step", "train-student", "--shards", shards, "--cache", str(folder / f"{name}.zarr")]
    command += ["--out", str(folder / f"{name}-{ranks}"), "--batch-size", str(8 * ranks), "--workers", "1"]
    started = time.time()
    done = subprocess.run([*command, "--allow-drift"], capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(done.stderr)
    return float(done.stdout.split()[-1]) - started


def end_at_first_step(arguments: list[str]) -> None:
    """Be the command until the first step is done; the first rank prints when."""
    step = Training._step

    def last_step(self: Training, *given: Any) -> None:
        step(self, *given)
        self.place.processes.gather("")
        if self.place.processes.first:
            print(time.time(), flush=True)
        os._exit(0)

    Training._step = last_step  # type: ignore[assignment,method-assign]
    cli(arguments)


def peak_memory() -> float:
    """Return the peak memory of this process, MB; getrusage would also tell of its parent's."""
    return int(Path("/proc/self/status").read_text().partition("VmHWM:")[2].split()[0]) / 1024


def open_and_read(path: Path) -> dict[str, float]:
    found, before = {}, peak_memory()
    started = time.perf_counter()
    store = Store(path)
    assert store.views == VIEWS and len(store.counts) == 1024
    found["open"] = time.perf_counter() - started
    started = time.perf_counter()
    assert store.cycle(7).label.shape == (3, 1024, SAMPLES) and len(store.order().epoch(21)) > 10**6
    found["cycle"] = time.perf_counter() - started
    found["memory"] = peak_memory() - before
    started = time.perf_counter()
    assert f"{1024 * SAMPLES * VIEWS:,}" in info_text(Store(path))
    found["info"] = time.perf_counter() - started
    return found


if __name__ == "__main__":
    if "--open" in sys.argv:
        print(json.dumps(open_and_read(Path(sys.argv[-1]))))
    elif "--step" in sys.argv:
        end_at_first_step(sys.argv[2:])
    else:
        report(main)
