"""Train with the published main.py, its teacher in the loop, and with distillcache from stores, and compare.

    python bench/parity/runs.py DEIT --images FOLDER [--out runs/parity]

DEIT is a checkout of facebookresearch/deit; FOLDER has train/CLASS/*.jpg and test/CLASS/*.jpg, 32 pixels wide, such as
CIFAR-10's. Each seed of ours has a store of its own, as each of the published has augmentations of its own. Both sides
are evaluated alike, after the last epoch. What is done is kept: run again, it goes on. `make parity` first: it installs
timm 0.3.2 and Pillow 9.5.
"""

import json
import math
import os
import shutil
import socket
import statistics
import subprocess
import sys
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import zip_longest
from pathlib import Path

import click
import torch
from safetensors.torch import load_file
from scipy.stats import t as student_t

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
SIDES = ("ours", "published")
SHAPE = {"img_size": 32, "patch_size": 8, "embed_dim": 96, "depth": 4, "num_heads": 3}  # also in published_main.py
MODELS = {
    "none": ("deit_tiny_patch16_224", "small"),
    "soft": ("deit_tiny_distilled_patch16_224", "small_distilled"),
    "hard": ("deit_tiny_distilled_patch16_224", "small_distilled"),
}
ALPHA = {"none": 0.0, "soft": 0.1, "hard": 0.5}
BATCH, LR = 64, 4e-3


@dataclass(frozen=True, kw_only=True)
class Trainings:
    """A folder of packed images, of what is trained on them, and how it is run."""

    out: Path

    @property
    def shards(self) -> str:
        return f"{self.out}/shards/train/*.tar"

    @property
    def held_out(self) -> str:
        return f"{self.out}/shards/val/*.tar"

    def ours(self, *command: object) -> str:
        """Run distillcache on one thread and return what it printed."""
        return ran([sys.executable, "-m", "distillcache.cli", *map(str, command)], {})


@dataclass(frozen=True, kw_only=True)
class Bench(Trainings):
    """Ours and the published code, and how long a run takes."""

    deit: Path
    beside: Path
    epochs: int

    @property
    def teacher(self) -> Path:
        return self.out / "teacher"

    def prepare(self, images: Path, train: int) -> None:
        """Pack the images, as they are, and train a teacher."""
        pictures = self.out / "images"
        for part, source, most in (("train", images / "train", train), ("val", images / "test", None)):
            pick(source, pictures / part, most and most // sum(path.is_dir() for path in source.iterdir()))
        for part in ("train", "val"):
            self.ours("make-shards", pictures / part, self.out / "shards" / part)
        if not (self.teacher / "config.json").exists():
            self.ours(
                "train-teacher", "--shards", self.shards, "--out", self.teacher,
                "--model", "regnety_002", "--recipe", "crop", "--set", "crop=padded", "--image-size", 32,
                "--epochs", 40, "--batch-size", 64, "--lr", 1.6e-2, "--device", "cpu", "--workers", 1,
            )  # fmt: skip
        torch.save({"model": load_file(self.teacher / "model.safetensors")}, self.out / "teacher.pth")

    def train(self, side: str, distill: str, seed: int) -> dict[str, float]:
        """Return the top-1 of a run, percent, by head; trained and evaluated unless that was done before."""
        out = self.out / f"{side}-{distill}-{seed}"
        result = out / "evaluation.json"
        if not result.exists():
            weights = (self.train_ours if side == "ours" else self.train_published)(out, distill, seed)
            model = ["--model", MODELS[distill][0], *model_kwargs()]
            evaluated = self.ours(
                "evaluate", "--checkpoint", weights, "--shards", self.held_out, *model, "--crop-pct", 1,
                "--device", "cpu", "--workers", 1, "--json",
            )  # fmt: skip
            result.write_text(evaluated)
        heads = json.loads(result.read_text())["heads"]
        return {head: values["top1"] for head, values in heads.items()}

    def train_ours(self, out: Path, distill: str, seed: int) -> Path:
        """Stage 1 with a store for this seed, and stage 2; `none` needs no store."""
        recipe = ["--recipe", "deit", "--set", "crop=padded", "--image-size", 32]
        if distill != "none":
            store = out.with_name(f"store-{seed}.zarr")
            views = math.ceil(self.epochs / 3) * 3
            self.ours(
                "cache-teacher", "--shards", self.shards, "--cache", store, "--teacher", self.teacher, *recipe,
                "--views", views, "--topk", 10, "--seed", seed, "--device", "cpu", "--workers", 1,
            )  # fmt: skip
            recipe = ["--cache", store]
        self.ours(
            "train-student", "--shards", self.shards, *recipe, "--out", out, "--model", MODELS[distill][0],
            *model_kwargs(), "--distill", distill, "--epochs", self.epochs, "--batch-size", BATCH, "--lr", LR,
            "--seed", seed, "--device", "cpu", "--workers", 1,
        )  # fmt: skip
        return out

    def train_published(self, out: Path, distill: str, seed: int) -> Path:
        """Run the published main.py."""
        out.mkdir(parents=True, exist_ok=True)
        options = {
            "model": MODELS[distill][1], "input-size": 32, "batch-size": BATCH, "epochs": self.epochs, "lr": LR,
            "data-path": self.out / "images", "output_dir": out, "device": "cpu", "seed": seed, "num_workers": 1,
            "distillation-type": distill, "distillation-alpha": ALPHA[distill], "distillation-tau": 3.0,
            "teacher-model": "regnety_002", "teacher-path": self.out / "teacher.pth",
        }  # fmt: skip
        words = [word for name, value in options.items() for word in (f"--{name}", str(value))]
        path = os.pathsep.join(str(folder.resolve()) for folder in (self.beside, self.deit, HERE))
        environment = {"PYTHONPATH": path, "PORT": str(free_port())}
        log = ran([sys.executable, str(HERE / "published_main.py"), *words, "--no-pin-mem"], environment)
        (out / "printed.txt").write_text(log)
        return out / "checkpoint.pth"


def pick(source: Path, out: Path, most: int | None) -> None:
    """Copy a folder of class folders, the first `most` images of each; done once."""
    if out.is_dir():
        return
    partial = out.with_name(f"{out.name}.partial")
    for folder in sorted(path for path in source.iterdir() if path.is_dir()):
        (partial / folder.name).mkdir(parents=True, exist_ok=True)
        for file in sorted(folder.iterdir())[:most]:
            shutil.copy(file, partial / folder.name / f"{folder.name}_{file.name}")
    partial.rename(out)


def model_kwargs() -> list[str]:
    return ["--model-kwargs", " ".join(f"{name}={value}" for name, value in SHAPE.items())]


def ran(command: list[str], more: dict[str, str]) -> str:
    """Return what a command printed; it has one thread."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": "", **more}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        raise click.ClickException(f"{' '.join(command)} failed:\n{done.stderr[-3000:]}")
    return done.stdout


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port: int = listener.getsockname()[1]
        return port


def difference(ours: list[float], theirs: list[float]) -> tuple[float, float]:
    """Return the difference of the means and half of its 95% interval (Welch's)."""
    a, b = (statistics.variance(values) / len(values) for values in (ours, theirs))
    freedom = (a + b) ** 2 / (a**2 / (len(ours) - 1) + b**2 / (len(theirs) - 1))
    half = float(student_t.ppf(0.975, freedom)) * math.sqrt(a + b)
    return statistics.mean(ours) - statistics.mean(theirs), half


def table(results: dict[tuple[str, str], list[dict[str, float]]]) -> str:
    """Return the results of both sides, head by head, as Markdown."""
    lines = ["| distillation | head | seeds | ours | published | ours - published, 95% interval |", "|---" * 6 + "|"]
    for distill in MODELS:
        both = [results.get((side, distill), []) for side in SIDES]
        if min(map(len, both)) < 2:
            continue
        for head in both[0][0]:
            ours, theirs = ([one[head] for one in of_side] for of_side in both)
            texts = (f"{statistics.mean(values):.2f} ± {statistics.stdev(values):.2f}" for values in (ours, theirs))
            mean, half = difference(ours, theirs)
            between = f"{mean:+.2f} ({mean - half:+.2f} to {mean + half:+.2f})"
            lines.append(f"| {distill} | {head} | {len(ours)} and {len(theirs)} | {' | '.join(texts)} | {between} |")
    return "\n".join(lines)


def alternating(groups: Iterable[list[tuple[str, str, int]]]) -> list[tuple[str, str, int]]:
    """Return the runs of all groups, in turn, so that whenever it is stopped there is something of each."""
    return [run for turn in zip_longest(*groups) for run in turn if run]


@click.command(help=__doc__)
@click.argument("deit", type=click.Path(path_type=Path, exists=True, file_okay=False))
@click.option("--images", type=click.Path(path_type=Path, exists=True, file_okay=False), required=True)
@click.option("--beside", type=click.Path(path_type=Path), default=ROOT / ".parity", help="Where timm 0.3.2 lies.")
@click.option("--out", type=click.Path(path_type=Path), default=Path("runs/parity"), show_default=True)
@click.option("--train", "count", default=4000, show_default=True, help="Images to train on.")
@click.option("--epochs", default=30, show_default=True)
@click.option("--seeds", default=8, show_default=True, help="Runs of hard distillation on each side.")
@click.option("--others", default=4, show_default=True, help="Runs of none and soft on each side.")
@click.option("--jobs", default=os.cpu_count() or 1, show_default=True, help="Runs at once.")
def main(
    deit: Path, images: Path, beside: Path, out: Path, count: int, epochs: int, seeds: int, others: int, jobs: int
) -> None:
    bench = Bench(deit=deit, beside=beside, out=out, epochs=epochs)
    out.mkdir(parents=True, exist_ok=True)
    bench.prepare(images, count)
    runs = alternating(
        [(side, distill, seed) for seed in range(seeds if distill == "hard" else others)]
        for distill in MODELS
        for side in SIDES
    )
    results: dict[tuple[str, str], list[dict[str, float]]] = {}
    with ThreadPoolExecutor(jobs) as pool:
        trained = pool.map(lambda run: bench.train(*run), runs)
        for (side, distill, seed), heads in zip(runs, trained, strict=True):
            results.setdefault((side, distill), []).append(heads)
            click.echo(f"{side}, {distill}, seed {seed}: " + ", ".join(f"{h} {v:.2f}%" for h, v in heads.items()))
    click.echo(f"\n{count:,} images to train on, {epochs} epochs of batches of {BATCH}\n\n{table(results)}")


if __name__ == "__main__":
    main()
