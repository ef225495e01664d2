"""Both stages on two cores: stage 1 beside its parts, stage 2 beside ready tensors and timm's online distillation."""

import itertools
import tempfile
from collections.abc import Callable, Iterator
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
from distillcache.models.students import build_student
from distillcache.models.teachers import Teacher, load_teacher, save_teacher
from distillcache.replay.batches import Replay
from distillcache.replay.training_set import TrainingSet
from distillcache.runtime.signals import StopSignals
from distillcache.train.config import Config, Place
from distillcache.train.loop import Run, Training

CPU = torch.device("cpu")
STUDENT = "deit_tiny_distilled_patch16_224"
BATCH, STEPS = 16, 20


def main() -> Iterator[Figure | Skipped]:
    on_cores(2)
    with tempfile.TemporaryDirectory() as folder:
        urls = photo_shards(Path("runs/bench"))
        teacher = random_teacher("regnety_040", Path(folder))
        yield stage1(urls[:1], teacher, Path(folder))
        store = new_store(Path(folder) / "stage2.zarr", urls, random_teacher("regnety_002", Path(folder)), views=3)
        yield from stage2(store, urls, Path(folder))
    if not torch.cuda.is_available():
        yield Skipped(what="both stages on a GPU", reason="no GPU")


def random_teacher(name: str, folder: Path) -> Teacher:
    """An untrained teacher: as fast as a trained one, and it needs no download."""
    torch.manual_seed(0)
    save_teacher(timm.create_model(name), folder / name, name=name, size=224, class_names=())
    return load_teacher(str(folder / name), device=CPU, amp=True)


def new_store(path: Path, urls: list[str], teacher: Teacher, *, views: int, filled: bool = True) -> Store:
    store = create.create(path, create.Request.resolve(views=views, amp=True), index_shards(urls), teacher)
    if filled:
        with claims_on(path) as claims:
            fill.fill(store, store.samples(urls), teacher, claims, views=views, batch_size=64, workers=0)
    return store


def stage1(urls: list[str], teacher: Teacher, folder: Path) -> Figure:
    views, batch = 9, 32
    names = (folder / f"{n}.zarr" for n in itertools.count())
    empty = [new_store(next(names), urls, teacher, views=views, filled=False) for _ in range(ROUNDS + 1)]
    store, total = empty[0], views * int(empty[0].counts.sum())
    samples, recipe = store.samples(urls), store.manifest.recipe
    batches = list(store.order().unit(0, range(views)).batches(batch))
    images = Renderer(recipe, samples)(batches[0]).images

    def cached() -> int:
        store = empty.pop()
        with claims_on(store.path) as claims:
            fill.fill(store, samples, teacher, claims, views=views, batch_size=batch, workers=0)
        return total

    found = rates(
        {
            "stage 1": cached,
            "teacher": lambda: sum(len(teacher.logits(images)) for _ in batches),
            "rendering": lambda: sum(len(v.images) for _, v in Loader(Renderer(recipe, samples)).load(batches)),
        }
    )
    slower = min(("teacher", "rendering"), key=lambda name: sum(found[name]))
    return Figure(
        what=f"stage 1 with RegNetY-4GF (bf16) beside its slower part, the {slower}", ours=median(found, "stage 1"),
        theirs=median(found, slower), value=ratio(found, "stage 1", slower), unit="x", target=0.95,
    )  # fmt: skip


def stage2(store: Store, urls: list[str], folder: Path) -> Iterator[Figure]:
    data = TrainingSet.stored(store, urls)
    config = Config(
        model=STUDENT, classes=data.classes, size=224, data=data.fingerprint, epochs=1000, batch_size=BATCH, amp=True,
        reuse_views=True,
    )  # fmt: skip
    student = build_student(STUDENT, classes=data.classes, seed=0)
    place = Place(device=CPU, workers=0, out=folder / "run")
    replay = Replay(data, batch_size=config.batch_size, reuse_views=config.reuse_views)
    run = Run(student=student, replay=replay, config=config, place=place, held_out=None, trained_on={})
    training = Training(run, StopSignals(held=True))
    training.set_rate(5)
    batches = replay.batches(0, 0, config.epochs)
    ready = next(batches)

    def train(steps: int, next_batch: Callable[[], object]) -> int:
        for step in range(steps):
            training._step(next_batch(), 0, step)  # type: ignore[arg-type]
        return steps * BATCH

    found = rates(
        {
            "stage 2": lambda: train(STEPS, lambda: next(batches)),
            "ready": lambda: train(STEPS, lambda: ready),
            "online": online(ready.images, data.classes),
        }
    )
    yield Figure(
        what="stage 2, DeiT-Ti (bf16), beside the same step on ready tensors", ours=median(found, "stage 2"),
        theirs=median(found, "ready"), value=ratio(found, "stage 2", "ready"), unit="x", target=0.95,
    )  # fmt: skip
    yield Figure(
        what="stage 2 beside timm's TokenDistillationTask with RegNetY-16GF on ready tensors",
        ours=median(found, "stage 2"), theirs=median(found, "online"), value=ratio(found, "stage 2", "online"),
        unit="x", target=3.0,
    )  # fmt: skip


def online(images: torch.Tensor, classes: int) -> Callable[[], int]:
    """timm's own online distillation; it is spared the rendering."""
    model = timm.create_model(STUDENT, num_classes=classes, drop_path_rate=0.1)
    teacher = timm.create_model("regnety_160").eval().to(memory_format=torch.channels_last)
    task = TokenDistillationTask(
        model, teacher, criterion=SoftTargetCrossEntropy(), distill_type="hard", task_loss_weight=0.5, verbose=False
    ).train()
    optimizer = timm.optim.create_optimizer_v2(model, opt="adamw", lr=1e-5, weight_decay=0.05)
    batch = (images.permute(0, 3, 1, 2) / 255).contiguous(memory_format=torch.channels_last)
    target = torch.full((len(batch), classes), 1 / classes)

    def work() -> int:
        for _ in range(4):
            with torch.autocast("cpu", torch.bfloat16):
                loss = task(batch, target)["loss"]
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        return 4 * len(batch)

    return work


if __name__ == "__main__":
    report(main)
