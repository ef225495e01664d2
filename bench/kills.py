"""SIGKILL at random moments, over and over: is the store, and is the student, the same as without?

    python bench/kills.py [--stores 50] [--students 20]

Each killed command is started again until it ends. Exit code 1, with a line for each, where anything differs.
"""

import itertools
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import click
import timm
import torch

from distillcache.models.teachers import save_teacher

COMMAND = (sys.executable, "-m", "distillcache.cli")
ONE_THREAD = {**os.environ, "OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1", "OMP_WAIT_POLICY": "passive"}
HOW = (["--workers", "0"], ["--workers", "3"])


@click.command(help=__doc__)
@click.option("--stores", default=50, help="Kills of cache-teacher.")
@click.option("--students", default=20, help="Kills of train-student.")
@click.option("--seed", default=0, help="Of the moments.")
def main(stores: int, students: int, seed: int) -> None:
    rng = random.Random(seed)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        run("make-shards", "digits", folder / "shards", "--per-shard", 120)
        torch.manual_seed(0)
        save_teacher(
            timm.create_model("test_efficientnet", num_classes=10), folder / "teacher", name="test_efficientnet",
            size=32, class_names=(),
        )  # fmt: skip
        wrong = kill_stores(folder, stores, rng) + kill_students(folder, students, rng)
    for line in wrong:
        click.echo(f"WRONG {line}")
    sys.exit(bool(wrong))


def kill_stores(folder: Path, kills: int, rng: random.Random) -> list[str]:
    """Fill stores to 12 views and extend them to 24, by one process or two that ask for either, killing some."""
    first, more = (caching(folder, folder / "reference.zarr", views) for views in ("12", "24"))
    started = time.monotonic()
    run(*first)
    whole = time.monotonic() - started
    run(*more)
    reference, wrong, killed = contents(folder / "reference.zarr"), [], 0
    for number in itertools.count():
        store = folder / f"store-{number}.zarr"
        for views, how in (("12", HOW[number % 2]), ("24", HOW[(number + 1) % 2])):
            finished = False
            while not finished:
                asked = (views, "24")[: 1 + number % 3 // 2]
                both = [start(*caching(folder, store, most), *how) for most in asked]
                if killed < kills:
                    time.sleep(rng.uniform(0.3, 1.2 * whole))
                    killed += sum(kill(process) for process in rng.sample(both, rng.randint(1, len(both))))
                codes = [process.wait() for process in both]
                finished = codes == [0] * len(both)
                wrong += [f"store {number}: exit code {code}" for code in codes if code not in (0, -signal.SIGKILL)]
        found = contents(store)
        wrong += [f"store {number}: {path}" for path in reference if found.get(path) != reference[path]]
        wrong += [f"store {number}: stray {path}" for path in found.keys() - reference.keys()]
        wrong += [f"store {number}: stray {path.name}" for path in folder.glob(f"store-{number}.zarr?*")]
        click.echo(f"cache-teacher: {killed} kills, {number + 1} stores compared, {len(wrong)} differences")
        if killed >= kills:
            return wrong


def kill_students(folder: Path, kills: int, rng: random.Random) -> list[str]:
    """Train students, killing the process at any moment, also while it writes a checkpoint."""
    started = time.monotonic()
    run(*training(folder, folder / "reference"))
    whole, wrong, killed = time.monotonic() - started, [], 0
    expected = (folder / "reference" / "student.safetensors").read_bytes()
    for number in itertools.count():
        finished = False
        while not finished:
            process = start(*training(folder, folder / f"student-{number}"))
            if killed < kills:
                time.sleep(rng.uniform(0.3, 1.1 * whole))
                killed += kill(process)
            finished = process.wait() == 0
        student = folder / f"student-{number}"
        if (student / "student.safetensors").read_bytes() != expected:
            wrong.append(f"student {number}: other weights")
        wrong += [f"student {number}: stray {path.name}" for path in student.rglob("*.partial")]
        click.echo(f"train-student: {killed} kills, {number + 1} students compared, {len(wrong)} differences")
        if killed >= kills:
            return wrong


def caching(folder: Path, store: Path, views: str) -> list[str]:
    return [
        "cache-teacher", "--shards", f"{folder}/shards/train-*.tar", "--cache", str(store), "--teacher",
        f"{folder}/teacher", "--views", views, "--image-size", "32", "--topk", "2", "--device", "cpu",
    ]  # fmt: skip


def training(folder: Path, out: Path) -> list[str]:
    kwargs = ("img_size=32", "patch_size=8", "embed_dim=48", "depth=2", "num_heads=3")
    return [
        "train-student", "--shards", f"{folder}/shards/train-*.tar", "--cache", f"{folder}/reference.zarr", "--out",
        str(out), "--epochs", "12", "--batch-size", "32", "--device", "cpu", "--model-kwargs", *kwargs,
    ]  # fmt: skip


def contents(store: Path) -> dict[str, bytes]:
    """Return every file of a store but the root's attributes, which hold the time."""
    files = (path for path in store.rglob("*") if path.is_file() and path != store / "zarr.json")
    return {str(path.relative_to(store)): path.read_bytes() for path in files}


def start(*arguments: object) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [*COMMAND, *map(str, arguments)], env=ONE_THREAD, start_new_session=True, stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )  # fmt: skip


def kill(process: subprocess.Popen[bytes]) -> bool:
    """Kill a process and its workers, if it is still there."""
    if process.poll() is not None:
        return False
    os.killpg(process.pid, signal.SIGKILL)
    return True


def run(*arguments: object) -> None:
    subprocess.run([*COMMAND, *map(str, arguments)], env=ONE_THREAD, check=True, capture_output=True)


if __name__ == "__main__":
    main()
