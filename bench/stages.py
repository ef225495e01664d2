"""Both stages on two cores: stage 1 beside its parts, stage 2 beside ready tensors and timm's online distillation."""

import contextlib
import itertools
import tempfile
from collections.abc import Callable, Generator, Iterator, Mapping
from pathlib import Path

import timm
import torch
from figures import ROUNDS, Figure, Skipped, median, on_cores, photo_shards, rates, ratio, report
from timm.loss import SoftTargetCrossEntropy
from timm.task import TokenDistillationTask

from distillcache.cache import create, fill
from distillcache.cache.claims import claims_on
from distillcache.cache.store import Store
from distillcache.datasets.loader import Loader
from distillcache.datasets.shards.index import index_shards
from distillcache.datasets.views import Renderer
from distillcache.models.loading import load_teacher
from distillcache.models.students import build_student
from distillcache.models.teachers import Teacher, save_teacher
from distillcache.replay.batches import Batch, Replay
from distillcache.replay.training_set import TrainingSet
from distillcache.runtime.processes import Processes
from distillcache.runtime.signals import StopSignals
from distillcache.train.config import Config, Place
from distillcache.train.loop import Run, Training

CPU = torch.device("cpu")
STUDENT = "deit_tiny_distilled_patch16_224"
BATCH, STEPS = 16, 20
ALONE = Processes()


def main() -> Iterator[Figure | Skipped]:
    on_cores(2)
    with tempfile.TemporaryDirectory() as folder:
        urls = photo_shards(Path("runs/bench"))
        found = stage1(urls[:1], random_teacher("regnety_040", Path(folder)), Path(folder))
        slower = min(("teacher", "rendering"), key=lambda name: sum(found[name]))
        yield beside(found, "stage 1", slower, f"with RegNetY-4GF (bf16) beside its slower part, the {slower}", 0.95)
        store = new_store(Path(folder) / "stage2.zarr", urls, random_teacher("regnety_002", Path(folder)), views=3)
        found = stage2(store, urls, Path(folder), online_teacher="regnety_160")
        yield beside(found, "stage 2", "ready", "DeiT-Ti (bf16), beside the same step on ready tensors", 0.95)
        yield beside(found, "stage 2", "online", "beside timm's online distillation, RegNetY-16GF, ready tensors", 3.0)
    if not torch.cuda.is_available():
        yield Skipped(what="both stages on a GPU", reason="no GPU; python bench/gpu.py measures them")


def beside(found: Mapping[str, list[float]], stage: str, other: str, what: str, target: float) -> Figure:
    return Figure(
        what=f"{stage} {what}", ours=median(found, stage), theirs=median(found, other),
        value=ratio(found, stage, other), unit="x", target=target,
    )  # fmt: skip


def random_teacher(name: str, folder: Path, *, device: torch.device = CPU, compiled: bool = False) -> Teacher:
    """An untrained teacher: as fast as a trained one, and it needs no download."""
    if not (folder / name).exists():
        torch.manual_seed(0)
        save_teacher(timm.create_model(name), folder / name, name=name, size=224, class_names=())
    return load_teacher(str(folder / name), device=device, amp=True, compiled=compiled)


def new_store(path: Path, urls: list[str], teacher: Teacher, *, views: int, filled: bool = True) -> Store:
    store = create.create(path, create.Request.resolve(views=views, amp=True), index_shards(urls), teacher)
    if filled:
        with claims_on(path) as claims:
            fill.fill(store, store.samples(urls), teacher, claims, views=views, batch_size=64, workers=0)
    return store


def stage1(
    urls: list[str], teacher: Teacher, folder: Path, *, views: int = 9, batch: int = 32, workers: int = 0
) -> dict[str, list[float]]:
    """Return the views a second of stage 1, of the teacher alone, on ready views, and of rendering alone."""
    names = (folder / f"{n}-{teacher.compiled}.zarr" for n in itertools.count())
    empty = [new_store(next(names), urls, teacher, views=views, filled=False) for _ in range(ROUNDS + 1)]
    store, total = empty[0], views * int(empty[0].counts.sum())
    samples, recipe = store.samples(urls), store.manifest.recipe
    renderer, batches = Renderer(recipe, samples), list(store.order().unit(0, range(views)).batches(batch))
    images = renderer(batches[0]).images.to(teacher.device)

    def cached() -> int:
        store = empty.pop()
        with claims_on(store.path) as claims:
            fill.fill(store, samples, teacher, claims, views=views, batch_size=batch, workers=workers)
        return total

    def rendered() -> int:
        with Loader(renderer, workers=workers) as loader:
            return sum(len(views.images) for _, views in loader.load(batches))

    def labelled() -> int:
        for _ in batches:
            logits = teacher.logits(images)
        return len(logits.cpu()) * len(batches)

    return rates({"stage 1": cached, "teacher": labelled, "rendering": rendered})


def training_of(
    store: Store, urls: list[str], folder: Path, *, model: str = STUDENT, batch: int = BATCH,
    device: torch.device = CPU, workers: int = 0, processes: Processes = ALONE,
) -> tuple[Training, Generator[Batch, None, None]]:  # fmt: skip
    """Return a run of `model`, and its batches."""
    data = TrainingSet.stored(store, urls)
    config = Config(
        model=model, classes=data.classes, size=224, data=data.fingerprint, epochs=100_000, batch_size=batch, amp=True,
        reuse_views=True,
    )  # fmt: skip
    student = build_student(model, classes=data.classes, seed=0).to(device)
    place = Place(device=device, workers=workers, out=folder / f"run-{model}-{processes.world}", processes=processes)
    replay = Replay(
        data, batch_size=batch, rank=processes.rank, world=processes.world, workers=workers, reuse_views=True
    )
    run = Run(student=student, replay=replay, config=config, place=place, held_out=None, trained_on={})
    training = Training(run, StopSignals(held=True))
    training.set_rate(5)
    return training, replay.batches(0, 0, config.epochs)


def stage2(
    store: Store, urls: list[str], folder: Path, *, online_teacher: str, model: str = STUDENT, batch: int = BATCH,
    device: torch.device = CPU, workers: int = 0,
) -> dict[str, list[float]]:  # fmt: skip
    """Return the images a second of stage 2, of its steps on a ready batch, and of timm's online distillation."""
    training, batches = training_of(store, urls, folder, model=model, batch=batch, device=device, workers=workers)
    ready = next(batches)
    on_device = ready.to(device)

    def train(steps: int, next_batch: Callable[[], Batch]) -> int:
        for step in range(steps):
            losses = training._step(next_batch(), 0, step)
        return steps * batch if losses.cpu().isfinite().all() else 0

    with contextlib.closing(batches):
        return rates(
            {
                "stage 2": lambda: train(STEPS, lambda: next(batches)),
                "ready": lambda: train(STEPS, lambda: on_device),
                "online": online(model, online_teacher, on_device.images, training.config.classes),
            }
        )


def online(student: str, teacher: str, images: torch.Tensor, classes: int) -> Callable[[], int]:
    """timm's own online distillation; it is spared the rendering."""
    device = images.device
    task = TokenDistillationTask(
        timm.create_model(student, num_classes=classes, drop_path_rate=0.1).to(device),
        timm.create_model(teacher).eval().to(device=device, memory_format=torch.channels_last),
        criterion=SoftTargetCrossEntropy(), distill_type="hard", task_loss_weight=0.5, verbose=False,
    ).train()  # fmt: skip
    optimizer = timm.optim.create_optimizer_v2(task.trainable_module, opt="adamw", lr=1e-5, weight_decay=0.05)
    batch = (images.permute(0, 3, 1, 2) / 255).contiguous(memory_format=torch.channels_last)
    target = torch.full((len(batch), classes), 1 / classes, device=device)

    def work() -> int:
        for _ in range(4):
            with torch.autocast(device.type, torch.bfloat16):
                loss = task(batch, target)["loss"]
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        return 4 * len(batch) if loss.cpu().isfinite() else 0

    return work


if __name__ == "__main__":
    report(main)
