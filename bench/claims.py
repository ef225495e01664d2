"""The claims of DeiT's paper, one by one, on a data set that a small machine can train on.

    python bench/claims.py cifar10 --images FOLDER
    python bench/claims.py imagenette --images FOLDER --teacher NAME

FOLDER has train/CLASS/*.jpg and test/CLASS/*.jpg or val/CLASS/*.jpg: CIFAR-10's images of 32 pixels, or Imagenette's of
224. Imagenette's student has ImageNet's 1,000 classes, those of the pretrained convnet NAME; CIFAR-10's convnet and
transformer are trained first. All seeds of one method learn from one store. Top-1 is measured after the last epoch.
What is done is kept: run again, it goes on; an interval needs two seeds.
"""

import json
import os
import shutil
import statistics
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path

import click
from parity.runs import Trainings, difference, pick
from timm.data import ImageNetInfo

PLAIN, TOKEN = "deit_tiny_patch16_224", "deit_tiny_distilled_patch16_224"


@dataclass(frozen=True, kw_only=True)
class Run:
    """A student: from which store, by which method, and how else it differs."""

    model: str = TOKEN
    distill: str = "hard"
    store: str = "convnet"
    init: str = ""
    """The run whose student it goes on from."""
    options: tuple[str, ...] = ()

    @property
    def image_size(self) -> int:
        return FINE_TUNED if self.store == "larger" else 0


@dataclass(frozen=True, kw_only=True)
class Store:
    """What one teacher says."""

    teacher: str
    options: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Setting:
    """A data set, and what is trained on it."""

    image_size: int
    student: dict[str, int]
    images: int
    """To train on, of each class."""
    epochs: int
    batch: int
    lr: float
    runs: tuple[str, ...]
    evaluation: tuple[str, ...] = ()
    recipe: tuple[str, ...] = ()


FINE_TUNED, TUNING_EPOCHS = 64, 6
TUNING = ("--epochs", str(TUNING_EPOCHS), "--warmup-epochs", "0", "--lr", "4e-4", "--weight-decay", "1e-8")
STORES = {
    "convnet": Store(teacher="convnet", options=("--logits", "8")),
    "4 bits": Store(teacher="convnet", options=("--logits", "4")),
    "top 3": Store(teacher="convnet", options=("--topk", "3")),
    "top 10": Store(teacher="convnet", options=("--topk", "10")),
    "transformer": Store(teacher="transformer"),
    "larger": Store(teacher="convnet"),
}
RUNS = {
    "none": Run(model=PLAIN, distill="none"),
    "soft": Run(model=PLAIN, distill="soft"),
    "soft, 4 bits": Run(model=PLAIN, distill="soft", store="4 bits"),
    "soft, top 3": Run(model=PLAIN, distill="soft", store="top 3"),
    "soft, top 10": Run(model=PLAIN, distill="soft", store="top 10"),
    "hard": Run(model=PLAIN, distill="hard"),
    "token": Run(),
    "token, transformer": Run(store="transformer"),
    "none, repeats 1": Run(model=PLAIN, distill="none", store="", options=("--set", "repeats=1")),
    "tuned at 32": Run(init="token", options=TUNING),
    "tuned at 64": Run(init="token", store="larger", options=TUNING),
}
SETTINGS = {
    "cifar10": Setting(
        image_size=32,
        student={"img_size": 32, "patch_size": 8, "embed_dim": 96, "depth": 4, "num_heads": 3},
        images=400,
        epochs=15,
        batch=64,
        lr=4e-3,
        recipe=("--set", "crop=padded"),
        evaluation=("--crop-pct", "1"),
        runs=tuple(name for name in RUNS if name != "soft, top 10"),  # of its ten classes
    ),
    "imagenette": Setting(
        image_size=224,
        student={"patch_size": 32, "embed_dim": 96, "depth": 4, "num_heads": 3},
        images=150,
        epochs=12,
        batch=64,
        lr=4e-3,
        runs=("none", "soft", "soft, 4 bits", "soft, top 10", "hard", "token", "none, repeats 1"),
    ),
}
CLAIMS = (
    ("hard distillation is better than none", ("hard", "class"), ("none", "class")),
    ("soft distillation is hardly better than none", ("soft", "class"), ("none", "class")),
    ("hard distillation is better than soft", ("hard", "class"), ("soft", "class")),
    ("a token is better than hard distillation alone", ("token", "both"), ("hard", "class")),
    ("a token is better than soft distillation", ("token", "both"), ("soft", "class")),
    ("a token is better than none", ("token", "both"), ("none", "class")),
    ("the distillation head is better than the class head", ("token", "distill"), ("token", "class")),
    ("both heads together are better than the distillation head", ("token", "both"), ("token", "distill")),
    (
        "a convnet teaches better than a transformer of equal top-1",
        ("token", "both"),
        ("token, transformer", "both"),
    ),
    ("repeated augmentation is better than none", ("none", "class"), ("none, repeats 1", "class")),
    ("fine-tuning at a larger size is better than before", ("tuned at 64", "both"), ("token", "both")),
    ("and better than the same epochs at the old size", ("tuned at 64", "both"), ("tuned at 32", "both")),
    ("all logits in 4 bits are as good as in 8", ("soft, 4 bits", "class"), ("soft", "class")),
    ("the 3 largest logits are as good as all", ("soft, top 3", "class"), ("soft", "class")),
    ("the 10 largest logits are as good as all", ("soft, top 10", "class"), ("soft", "class")),
)


@dataclass(frozen=True, kw_only=True)
class Bench(Trainings):
    """What is trained, and how much of it."""

    setting: Setting
    pretrained: str
    top1: dict[str, float] = field(default_factory=dict)
    """Of the teachers, percent."""

    def prepare(self, images: Path) -> None:
        """Pack the images; with a pretrained teacher, its 1,000 classes."""
        held_out = next(images / name for name in ("test", "val") if (images / name).is_dir())
        for part, source, most in (("train", images / "train", self.setting.images), ("val", held_out, None)):
            folder = self.out / "images" / part
            pick(source, folder, most)
            for name in ImageNetInfo("imagenet-1k").label_names() if self.pretrained else ():
                (folder / name).mkdir(exist_ok=True)
            self.ours("make-shards", folder, self.out / "shards" / part)

    def evaluate(self, weights: Path, *options: object) -> dict[str, float]:
        """Return top-1 by head, percent; measured once."""
        result = self.out / "top1" / f"{weights.name}.json"
        if not result.exists():
            result.parent.mkdir(exist_ok=True)
            printed = self.ours(
                "evaluate", "--checkpoint", weights, "--shards", self.held_out, *CPU, *options, "--json"
            )
            result.write_text(printed)
        return {head: values["top1"] for head, values in json.loads(result.read_text())["heads"].items()}

    def teachers(self) -> None:
        """Train a convnet and a transformer, which come out about equal at 40 epochs, and note how good they are."""
        if not self.pretrained:
            self.top1["convnet"] = self.convnet(self.out / "convnet", 40)
        if "token, transformer" in self.setting.runs:
            self.top1["transformer"] = self.transformer(self.out / "transformer")

    def convnet(self, folder: Path, epochs: int) -> float:
        if not (folder / "config.json").exists():
            self.ours(
                "train-teacher", "--shards", self.shards, "--out", folder, "--model", "regnety_002", *self.crops(),
                "--epochs", epochs, "--batch-size", self.setting.batch, "--lr", 1.6e-2, *CPU,
            )  # fmt: skip
        return self.evaluate(folder)["class"]

    def transformer(self, folder: Path) -> float:
        """Train a student of smaller patches without distillation, and write what timm needs to load it."""
        shape = self.setting.student | {"patch_size": self.setting.student["patch_size"] // 2}
        if not (folder / "config.json").exists():
            run = folder.with_name("transformer-run")
            self.ours(
                "train-student", "--shards", self.shards, *self.crops(), "--out", run, "--model", PLAIN,
                *kwargs(shape), "--epochs", 40, "--batch-size", self.setting.batch, "--lr", self.setting.lr, *CPU,
            )  # fmt: skip
            folder.mkdir(exist_ok=True)
            shutil.copy(run / "student.safetensors", folder / "model.safetensors")
            size = self.setting.image_size
            config = {"input_size": [3, size, size], "crop_pct": 1.0, "mean": MEAN, "std": STD}
            model = {"architecture": PLAIN, "num_classes": 10, "model_args": shape, "pretrained_cfg": config}
            (folder / "config.json").write_text(json.dumps(model))
        return self.evaluate(folder)["class"]

    def crops(self) -> tuple[object, ...]:
        return ("--recipe", "crop", *self.setting.recipe, "--image-size", self.setting.image_size)

    def fill(self, name: str) -> None:
        """Stage 1."""
        store, size = STORES[name], FINE_TUNED if name == "larger" else self.setting.image_size
        views = TUNING_EPOCHS if name == "larger" else -(-self.setting.epochs // 3) * 3
        teacher = self.pretrained if self.pretrained and store.teacher == "convnet" else self.out / store.teacher
        self.ours(
            "cache-teacher", "--shards", self.shards, "--cache", self.out / f"{name}.zarr", "--teacher", teacher,
            "--recipe", "deit", *self.setting.recipe, "--image-size", size, "--views", views, *store.options, *CPU,
        )  # fmt: skip

    def train(self, name: str, seed: int) -> dict[str, float]:
        """Stage 2: return the top-1 of a run, percent, by head."""
        run, setting, out = RUNS[name], self.setting, self.out / f"{name}-{seed}"
        size = run.image_size or setting.image_size
        shape = setting.student | ({"img_size": size} if size != 224 else {})
        model = ["--model", run.model, *kwargs(shape)]
        views = ["--cache", self.out / f"{run.store}.zarr"]
        if not run.store:
            views = ["--recipe", "deit", *setting.recipe, "--image-size", size]
        if not (out / "summary.json").exists():
            options = ["--epochs", setting.epochs, "--lr", setting.lr, *run.options]
            init = ["--init", self.out / f"{run.init}-{seed}"] if run.init else []
            self.ours(
                "train-student", "--shards", self.shards, *views, "--out", out, *model, "--distill", run.distill,
                "--batch-size", setting.batch, "--seed", seed, *options, *init, *CPU,
            )  # fmt: skip
        return self.evaluate(out, *model, *setting.evaluation)


CPU = ("--device", "cpu", "--workers", "1")
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def kwargs(shape: dict[str, int]) -> list[str]:
    return ["--model-kwargs", " ".join(f"{name}={value}" for name, value in shape.items())]


def methods(found: dict[str, list[dict[str, float]]]) -> str:
    """Return what each method reaches, head by head, as Markdown."""
    lines = ["| student | head | seeds | top-1, mean ± standard deviation |", "|---|---|---|---|"]
    for name, seeds in found.items():
        for head in seeds[0]:
            values = [one[head] for one in seeds]
            spread = f" ± {statistics.stdev(values):.2f}" if len(values) > 1 else ""
            lines.append(f"| {name} | {head} | {len(values)} | {statistics.mean(values):.2f}{spread} |")
    return "\n".join(lines)


def claims(found: dict[str, list[dict[str, float]]]) -> str:
    """Return each claim whose runs are there, with its difference, as Markdown."""
    lines = ["| claim | compared | difference, 95% interval | |", "|---|---|---|---|"]
    for text, (better, better_head), (worse, worse_head) in CLAIMS:
        if min(len(found.get(better, ())), len(found.get(worse, ()))) < 2:
            continue
        mean, half = difference(*([one[head] for one in found[name]] for name, head in
                                  ((better, better_head), (worse, worse_head))))  # fmt: skip
        verdict = "undecided" if abs(mean) < half else "yes" if mean > 0 else "no"
        compared = f"{better} ({better_head}) - {worse} ({worse_head})"
        lines.append(f"| {text} | {compared} | {mean:+.2f} ({mean - half:+.2f} to {mean + half:+.2f}) | {verdict} |")
    return "\n".join(lines)


@click.command(help=__doc__)
@click.argument("name", type=click.Choice(sorted(SETTINGS)))
@click.option("--images", type=click.Path(path_type=Path, exists=True, file_okay=False), required=True)
@click.option("--teacher", default="", help="A pretrained convnet of ImageNet's classes.")
@click.option("--out", type=click.Path(path_type=Path), help="[default: runs/claims-NAME]")
@click.option("--count", type=int, help="Images of each class to train on.  [default: the setting's]")
@click.option("--epochs", type=int, help="[default: the setting's]")
@click.option("--seeds", default=4, show_default=True)
@click.option("--jobs", default=os.cpu_count() or 1, show_default=True, help="Runs at once.")
@click.option("--only", multiple=True, help="These runs.  [default: all of the setting]")
def main(
    name: str, images: Path, teacher: str, out: Path | None, count: int | None, epochs: int | None, seeds: int,
    jobs: int, only: Sequence[str],
) -> None:  # fmt: skip
    setting = SETTINGS[name]
    setting = replace(setting, images=count or setting.images, epochs=epochs or setting.epochs)
    setting = replace(setting, runs=tuple(only) or setting.runs)
    bench = Bench(out=out or Path("runs") / f"claims-{name}", setting=setting, pretrained=teacher)
    bench.prepare(images)
    bench.teachers()
    for of, top1 in bench.top1.items():
        click.echo(f"teacher {of}: {top1:.2f}%")
    found: dict[str, list[dict[str, float]]] = {}
    with ThreadPoolExecutor(jobs) as pool:
        list(pool.map(bench.fill, dict.fromkeys(RUNS[run].store for run in setting.runs if RUNS[run].store)))
        runs = [(run, seed) for seed in range(seeds) for run in setting.runs]
        for start in (False, True):  # first those that others go on from
            turn = [(run, seed) for run, seed in runs if bool(RUNS[run].init) == start]
            for (run, seed), heads in zip(turn, pool.map(lambda each: bench.train(*each), turn), strict=True):
                found.setdefault(run, []).append(heads)
                click.echo(f"{run}, seed {seed}: " + ", ".join(f"{head} {top1:.2f}%" for head, top1 in heads.items()))
    size = f"{10 * setting.images:,} images to train on, {setting.epochs} epochs of batches of {setting.batch}"
    click.echo(f"\n{size}\n\n{methods(found)}\n\n{claims(found)}")


if __name__ == "__main__":
    main()
